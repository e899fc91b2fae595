//! Which server is the primary, as sentinels know it.
//!
//! All of them are asked each time, and the one that knows the latest failover is believed: one that was cut off still
//! names the former primary. For the same reason what is older than what was believed before is not, at a redial either.
//! Sentinels that were set up again count failovers from 0, so what most of them say with one voice for a while is believed as well.

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

/// How long the others are waited for once most have answered. Fewer may all have been cut off.
const OTHERS_WITHIN: Duration = Duration::from_millis(200);

/// For how long none of those that answer has named the present primary when it is left for the one that they do name, though they know of no later
/// failover. Longer than word of a failover takes to reach them all, and than they let a primary be one that should not.
const DISOWNED_FOR: Duration = Duration::from_secs(10);

/// The sentinels of one primary.
pub(super) struct Sentinels {
    name: String,
    login: Login,
    all: Vec<Sentinel>,
    /// The primary that serves, or did last, with the latest failover that anyone told of when it was found.
    believed: RefCell<Option<Said>>,
    /// Since when none of them has named it.
    disowned: Cell<Option<Instant>>,
}

struct Sentinel {
    address: Address,
    /// Kept from one question to the next.
    connection: RefCell<Option<MultiplexedConnection>>,
}

/// What a sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
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
            believed: RefCell::new(None),
            disowned: Cell::new(None),
        }
    }

    /// What they say was right: the primary serves.
    pub(super) fn believe(&self, said: Said) {
        self.disowned.set(None);
        let mut believed = self.believed.borrow_mut();
        match &mut *believed {
            // Who knows less and names the same one is no reason to believe others who know less.
            Some(known) if known.primary == said.primary => known.epoch = known.epoch.max(said.epoch),
            _ => *believed = Some(said),
        }
    }

    /// The address of a primary that took the place of the one that serves. Some hear of a failover after it was done,
    /// and name the former one until then.
    pub(super) async fn successor(&self, dialler: &Dialler) -> Option<Address> {
        let said = self.ask_all(dialler).await.ok()?;
        self.successor_among(said, Instant::now())
    }

    fn successor_among(&self, said: Vec<Said>, now: Instant) -> Option<Address> {
        let disowned = self.is_disowned(&said, now);
        let newest = latest_of(said)?;
        let later = self.believed.borrow().as_ref().is_none_or(|known| newest.epoch > known.epoch);
        (later || disowned).then_some(newest.primary)
    }

    /// The primary, as the one says that knows the latest failover. An error as well while they know only of an earlier one than is known here, and name
    /// another primary than served last: it would take what is lost as soon as it hears that it is none.
    pub(super) async fn primary(&self, dialler: &Dialler) -> Result<Said, OpenError> {
        let none = |why| OpenError::RedisSentinels { server: dialler.url.shown(), why };
        let said = self.ask_all(dialler).await.map_err(none)?;
        self.primary_among(said, Instant::now()).map_err(none)
    }

    fn primary_among(&self, said: Vec<Said>, now: Instant) -> Result<Said, String> {
        let disowned = self.is_disowned(&said, now);
        let newest = latest_of(said).ok_or("none of them answers")?;
        match &*self.believed.borrow() {
            Some(known) if newest.epoch < known.epoch && newest.primary != known.primary && !disowned => Err(
                format!("those that answer name {}, which {} has replaced", newest.primary, known.primary),
            ),
            _ => Ok(newest),
        }
    }

    /// Whether most of them have named with one voice, for a while, another primary than the one that is believed in.
    fn is_disowned(&self, said: &[Said], now: Instant) -> bool {
        let believed = self.believed.borrow();
        let Some((known, first)) = believed.as_ref().zip(said.first()) else { return false };
        let all_alike = said.iter().all(|one| one.primary == first.primary);
        if !all_alike || first.primary == known.primary {
            self.disowned.set(None);
            return false;
        }
        // A few that were cut off from the others know less than whoever said last what the primary is.
        if !self.are_most(said.len()) {
            return false;
        }
        let since = self.disowned.get().unwrap_or(now);
        self.disowned.set(Some(since));
        now >= since + DISOWNED_FOR
    }

    fn are_most(&self, count: usize) -> bool {
        count * 2 > self.all.len()
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
                    if self.are_most(all.len()) {
                        until = until.min(Instant::now() + OTHERS_WITHIN);
                    }
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
        if let Some(mut connection) = kept
            && let Ok(said) = self.ask_over(&mut connection).await
        {
            *sentinel.connection.borrow_mut() = Some(connection);
            return Ok(said);
        }
        let mut connection = dialler.connect(&sentinel.address, &self.login, 0).await?;
        let said = self.ask_over(&mut connection).await?;
        *sentinel.connection.borrow_mut() = Some(connection);
        Ok(said)
    }

    /// Who leads a failover counts it from the moment on in which the successor is one, but has the former primary in its list until all replicas follow. So the
    /// number is read there, and behind it the address, which is asked for by itself: that is not of an earlier failover than the number.
    async fn ask_over(&self, connection: &mut MultiplexedConnection) -> Result<Option<Said>, RedisError> {
        let question = |what: &str| {
            let mut question = redis::cmd("SENTINEL");
            question.arg(what).arg(&self.name);
            question
        };
        let fields = question("MASTER").query_async::<Value>(connection).await?;
        let address = question("GET-MASTER-ADDR-BY-NAME").query_async::<Value>(connection).await?;
        Ok(read(fields, address))
    }
}

/// What the one says that knows the latest failover; of several, who answered first.
fn latest_of(said: Vec<Said>) -> Option<Said> {
    said.into_iter().reduce(|known, said| if said.epoch > known.epoch { said } else { known })
}

/// `fields`: names and values, one after the other; `address`: host and port.
fn read(fields: Value, address: Value) -> Option<Said> {
    let fields = Vec::<String>::from_redis_value(fields).ok()?;
    let (host, port) = <(String, u16)>::from_redis_value(address).ok().filter(|(_, port)| *port > 0)?;
    let mut pairs = fields.chunks_exact(2);
    let epoch =
        pairs.find(|pair| pair[0] == "config-epoch").and_then(|pair| pair[1].parse().ok()).unwrap_or(0);
    Some(Said { primary: Address { host, port }, epoch })
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
        sentinels.believe(Said { primary: server(1), epoch: 7 });
        sentinels
    }

    fn all(said: &[(u16, u64)]) -> Vec<Said> {
        said.iter().map(|(port, epoch)| Said { primary: server(*port), epoch: *epoch }).collect()
    }

    /// Whom the present primary is left for.
    fn judge(sentinels: &Sentinels, said: &[(u16, u64)], now: Instant) -> Option<u16> {
        sentinels.successor_among(all(said), now).map(|address| address.port)
    }

    /// Who is dialled while nobody serves.
    fn dialled(sentinels: &Sentinels, said: &[(u16, u64)], now: Instant) -> Option<u16> {
        sentinels.primary_among(all(said), now).ok().map(|said| said.primary.port)
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
    fn a_redial_does_not_go_back_to_a_primary_that_was_failed_over() {
        let (sentinels, begin) = (sentinels(), Instant::now());
        assert_eq!(dialled(&sentinels, &[(1, 7)], begin), Some(1));
        assert_eq!(dialled(&sentinels, &[(1, 7), (2, 8)], begin), Some(2));
        sentinels.believe(Said { primary: server(2), epoch: 8 });
        assert_eq!(dialled(&sentinels, &[(1, 7)], begin), None, "it was cut off");
        assert_eq!(dialled(&sentinels, &[(1, 7), (2, 8)], begin), Some(2));
        // However long only that one answers.
        assert_eq!(dialled(&sentinels, &[(1, 7)], begin + DISOWNED_FOR), None);
        assert_eq!(dialled(&sentinels, &[(1, 7)], begin + DISOWNED_FOR * 3), None);
        assert_eq!(
            dialled(&sentinels, &[(1, 7), (1, 7)], begin + DISOWNED_FOR * 3),
            None,
            "they may hear of it yet"
        );
    }

    #[test]
    fn a_redial_follows_sentinels_that_were_set_up_again() {
        let (sentinels, begin) = (sentinels(), Instant::now());
        // For the same server at once; what the cut off say is doubted still.
        assert_eq!(dialled(&sentinels, &[(1, 0), (1, 0), (1, 0)], begin), Some(1));
        sentinels.believe(Said { primary: server(1), epoch: 0 });
        assert_eq!(dialled(&sentinels, &[(2, 6)], begin), None);
        // For another one once most have named it for a while.
        assert_eq!(dialled(&sentinels, &[(2, 0), (2, 0)], begin), None);
        assert_eq!(dialled(&sentinels, &[(2, 0), (2, 0)], begin + DISOWNED_FOR), Some(2));
        sentinels.believe(Said { primary: server(2), epoch: 0 });
        assert_eq!(dialled(&sentinels, &[(3, 1)], begin + DISOWNED_FOR), Some(3));
    }

    #[test]
    fn an_answer_is_read_by_the_names_of_its_fields() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let all = |texts: &[&str]| Value::Array(texts.iter().map(|text| bulk(text)).collect());
        let fields = ["name", "main", "ip", "10.0.0.1", "port", "6379", "config-epoch", "7"];
        let primary = Address { host: "10.0.0.2".to_owned(), port: 6379 };
        // Who leads a failover has the former primary in its fields still.
        let said = read(all(&fields), all(&["10.0.0.2", "6379"]));
        assert_eq!(said, Some(Said { primary: primary.clone(), epoch: 7 }));
        assert_eq!(
            read(all(&fields[..6]), all(&["10.0.0.2", "6379"])),
            Some(Said { primary: primary.clone(), epoch: 0 })
        );
        assert_eq!(read(all(&fields), all(&["10.0.0.2", "0"])), None);
        assert_eq!(read(all(&fields), Value::Nil), None);
        assert_eq!(read(Value::Nil, all(&["10.0.0.2", "6379"])), Some(Said { primary, epoch: 0 }));
    }
}
