//! Which server is the primary, as sentinels know it.
//!
//! All of them are asked each time, and the one that knows the latest failover is believed: one that was cut off still
//! names the former primary. Sentinels that were set up again count failovers from 0, so what all that answer say for a while is
//! believed as well.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::Dialler;
use super::url::{Address, Login};
use crate::open_error::OpenError;

/// How long the others are waited for once one has answered.
const OTHERS_WITHIN: Duration = Duration::from_millis(200);

/// For how long none of those that answer has named the present primary when it is left for the one that they do name, though they know of no later
/// failover. Longer than word of a failover takes to reach them all, and than they let a primary be one that should not.
const DISOWNED_FOR: Duration = Duration::from_secs(10);

/// The sentinels of one primary.
pub(super) struct Sentinels {
    name: String,
    login: Login,
    all: Vec<Sentinel>,
    /// The number of the latest failover that anyone told of when the present primary was found.
    latest: Cell<u64>,
    /// Since when none of them has named it.
    disowned: Cell<Option<Instant>>,
}

struct Sentinel {
    address: Address,
    /// Kept from one question to the next.
    connection: RefCell<Option<MultiplexedConnection>>,
}

/// What a sentinel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) primary: Address,
    /// The number of the failover that made it one.
    epoch: u64,
}

impl Sentinels {
    pub(super) fn new(sentinels: &[Address], name: &str, login: &Login) -> Self {
        let sentinel =
            |address: &Address| Sentinel { address: address.clone(), connection: RefCell::new(None) };
        Self {
            name: name.to_owned(),
            login: login.clone(),
            all: sentinels.iter().map(sentinel).collect(),
            latest: Cell::new(0),
            disowned: Cell::new(None),
        }
    }

    /// What they say was right: the primary serves.
    pub(super) fn believe(&self, said: &Said) {
        self.latest.set(said.epoch);
        self.disowned.set(None);
    }

    /// The address of a primary that took the place of the one that is believed in. Some hear of a failover after it was done,
    /// and name the former one until then.
    pub(super) async fn successor(&self, dialler: &Dialler, present: &Address) -> Option<Address> {
        let said = self.ask_all(dialler).await.ok()?;
        self.judge(said, present, Instant::now())
    }

    fn judge(&self, said: Vec<Said>, present: &Address, now: Instant) -> Option<Address> {
        let (answered, all_alike) = (said.len(), said.iter().all(|one| one.primary == said[0].primary));
        let latest = latest_of(said)?;
        if latest.epoch > self.latest.get() {
            return Some(latest.primary);
        }
        if !all_alike || latest.primary == *present {
            self.disowned.set(None);
            return None;
        }
        let since = self.disowned.get().unwrap_or(now);
        self.disowned.set(Some(since));
        // A few that were cut off from the others know less than whoever said last what the primary is.
        let are_most = answered * 2 > self.all.len();
        (are_most && now >= since + DISOWNED_FOR).then_some(latest.primary)
    }

    /// The primary, as the one says that knows the latest failover.
    pub(super) async fn primary(&self, dialler: &Dialler) -> Result<Said, OpenError> {
        let none = |why| OpenError::RedisSentinels { server: dialler.url.shown(), why };
        let said = self.ask_all(dialler).await.map_err(none)?;
        latest_of(said).ok_or_else(|| none("none of them answers".to_owned()))
    }

    /// What those say that answer; if none does, why.
    async fn ask_all(&self, dialler: &Dialler) -> Result<Vec<Said>, String> {
        let mut until = Instant::now() + dialler.deadline / 2;
        let asked = self.all.iter().map(|sentinel| self.ask(sentinel, dialler));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut all, mut why) = (Vec::new(), "none of them answers".to_owned());
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            match answer {
                Ok(said) => {
                    all.push(said);
                    until = until.min(Instant::now() + OTHERS_WITHIN);
                }
                Err(refusal) => why = refusal,
            }
        }
        if all.is_empty() { Err(why) } else { Ok(all) }
    }

    async fn ask(&self, sentinel: &Sentinel, dialler: &Dialler) -> Result<Said, String> {
        let address = &sentinel.address;
        let asked = timeout(dialler.deadline / 2, self.ask_over_its_connection(sentinel, dialler)).await;
        match asked {
            Ok(Ok(said)) => said.ok_or_else(|| format!("{address} answered without an address")),
            Ok(Err(error)) if error.detail().is_some_and(|detail| detail.contains("No such master")) => {
                Err(format!("{address} knows no primary of that name"))
            }
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address} does not answer")),
        }
    }

    async fn ask_over_its_connection(
        &self,
        sentinel: &Sentinel,
        dialler: &Dialler,
    ) -> Result<Option<Said>, RedisError> {
        // Taken out, so that one which does not answer is not asked again.
        let kept = sentinel.connection.borrow_mut().take();
        let mut question = redis::cmd("SENTINEL");
        question.arg("MASTER").arg(&self.name);
        if let Some(mut connection) = kept
            && let Ok(answer) = question.query_async::<Value>(&mut connection).await
        {
            *sentinel.connection.borrow_mut() = Some(connection);
            return Ok(read(answer));
        }
        let mut connection = dialler.connect(&sentinel.address, &self.login, 0).await?;
        let answer = question.query_async::<Value>(&mut connection).await?;
        *sentinel.connection.borrow_mut() = Some(connection);
        Ok(read(answer))
    }
}

/// What the one says that knows the latest failover; of several, who answered first.
fn latest_of(said: Vec<Said>) -> Option<Said> {
    said.into_iter().reduce(|known, said| if said.epoch > known.epoch { said } else { known })
}

/// Names and values, one after the other.
fn read(answer: Value) -> Option<Said> {
    let fields = Vec::<String>::from_redis_value(answer).ok()?;
    let field = |name: &str| fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    let port = field("port")?.parse().ok().filter(|port| *port > 0)?;
    let epoch = field("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Some(Said { primary: Address { host: field("ip")?.to_owned(), port }, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Address {
        Address { host: "10.0.0.1".to_owned(), port }
    }

    /// Three of them, which followed the first server to its place in their seventh failover.
    fn sentinels() -> Sentinels {
        let addresses = [1, 2, 3].map(server);
        let sentinels = Sentinels::new(&addresses, "main", &Login::default());
        sentinels.believe(&Said { primary: server(1), epoch: 7 });
        sentinels
    }

    fn judge(sentinels: &Sentinels, said: &[(u16, u64)], now: Instant) -> Option<u16> {
        let said = said.iter().map(|(port, epoch)| Said { primary: server(*port), epoch: *epoch });
        sentinels.judge(said.collect(), &server(1), now).map(|address| address.port)
    }

    #[test]
    fn a_later_failover_is_believed_at_once_and_an_earlier_one_is_not() {
        let (sentinels, now) = (sentinels(), Instant::now());
        assert_eq!(judge(&sentinels, &[(1, 7), (2, 8), (1, 7)], now), Some(2));
        assert_eq!(judge(&sentinels, &[(2, 6), (1, 7), (2, 6)], now + DISOWNED_FOR * 2), None);
    }

    #[test]
    fn what_most_of_them_say_for_a_while_is_believed_whatever_they_count() {
        let (sentinels, begin) = (sentinels(), Instant::now());
        assert_eq!(judge(&sentinels, &[(2, 0), (2, 1)], begin), None);
        // One of them is where it was before: they are not done yet.
        assert_eq!(judge(&sentinels, &[(2, 0), (2, 1), (1, 7)], begin + DISOWNED_FOR), None);
        assert_eq!(judge(&sentinels, &[(2, 0), (2, 1)], begin + DISOWNED_FOR), None);
        assert_eq!(judge(&sentinels, &[(2, 0)], begin + DISOWNED_FOR * 2), None, "it may be cut off");
        assert_eq!(judge(&sentinels, &[(2, 0), (3, 0)], begin + DISOWNED_FOR * 2), None, "they differ");
        assert_eq!(judge(&sentinels, &[(2, 0), (2, 0)], begin + DISOWNED_FOR * 2), None);
        assert_eq!(judge(&sentinels, &[(2, 0), (2, 0)], begin + DISOWNED_FOR * 3), Some(2));
    }

    #[test]
    fn an_answer_is_read_by_the_names_of_its_fields() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let fields = ["name", "main", "ip", "10.0.0.1", "port", "6379", "runid", "x", "config-epoch", "7"];
        let primary = Address { host: "10.0.0.1".to_owned(), port: 6379 };
        assert_eq!(read(Value::Array(fields.map(bulk).into())), Some(Said { primary, epoch: 7 }));
        assert_eq!(read(Value::Array(fields[..4].iter().map(|text| bulk(text)).collect())), None);
        assert_eq!(read(Value::Nil), None);
    }
}
