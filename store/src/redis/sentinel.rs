//! Which server is the primary, as sentinels know it.
//!
//! All of them are asked each time, and the one that knows the latest failover is believed: one that was cut off still
//! names the former primary.

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

/// The sentinels of one primary.
pub(super) struct Sentinels {
    name: String,
    login: Login,
    all: Vec<Sentinel>,
    /// The number of the latest failover that anyone told of when the present primary was found.
    latest: Cell<u64>,
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
        }
    }

    /// What they say was right: the primary serves.
    pub(super) fn believe(&self, said: &Said) {
        self.latest.set(said.epoch);
    }

    /// The address of a primary that took the place of the one that is believed in. Some hear of a failover after it was done,
    /// and name the former one until then.
    pub(super) async fn successor(&self, dialler: &Dialler) -> Option<Address> {
        let said = self.primary(dialler).await.ok()?;
        (said.epoch > self.latest.get()).then_some(said.primary)
    }

    /// The primary, as the one says that knows the latest failover.
    pub(super) async fn primary(&self, dialler: &Dialler) -> Result<Said, OpenError> {
        let mut until = Instant::now() + dialler.deadline / 2;
        let asked = self.all.iter().map(|sentinel| self.ask(sentinel, dialler));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut latest, mut why) = (None::<Said>, "none of them answers".to_owned());
        while let Ok(Some(answer)) = timeout_at(until, asked.next()).await {
            match answer {
                Ok(said) => {
                    latest = match latest {
                        Some(known) if known.epoch >= said.epoch => Some(known),
                        _ => Some(said),
                    };
                    until = until.min(Instant::now() + OTHERS_WITHIN);
                }
                Err(refusal) => why = refusal,
            }
        }
        let server = dialler.url.shown();
        latest.ok_or(OpenError::RedisSentinels { server, why })
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
