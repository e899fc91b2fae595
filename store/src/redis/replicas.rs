//! Waiting until replicas have what was written.
//!
//! `WAIT` holds up its whole connection until they say so, and speaks for all that was written on it before. So one is under way at
//! a time, and the next speaks for everyone who has come meanwhile: their number does not matter, and what they wait is at most two
//! ways to a replica and back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use redis::Value;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::link::{Failure, Wire};

type Outcome = Result<u64, Rc<str>>;

/// Who waits for the replicas, on one connection.
#[derive(Default)]
pub(super) struct Replicas {
    /// For the next `WAIT`. At most one for each request that waits for its answer.
    waiting: RefCell<Vec<oneshot::Sender<Outcome>>>,
    is_asking: Cell<bool>,
}

impl Replicas {
    /// Returns once `wanted` replicas have all that was written on `wire` until now, or says after `within` that they have not.
    pub(super) async fn have_it(wire: &Rc<Wire>, wanted: u32, within: Duration) -> Result<(), String> {
        let (said, outcome) = oneshot::channel();
        wire.replicas().waiting.borrow_mut().push(said);
        if !wire.replicas().is_asking.replace(true) {
            spawn_local(Self::ask(Rc::clone(wire), wanted, within));
        }
        match outcome.await {
            Ok(Ok(have)) if have >= u64::from(wanted) => Ok(()),
            Ok(Ok(have)) => Err(format!("only {have} of {wanted} replicas have it")),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err("nobody asked the replicas".to_owned()),
        }
    }

    async fn ask(wire: Rc<Wire>, wanted: u32, within: Duration) {
        let mut command = redis::cmd("WAIT");
        command.arg(wanted).arg(u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1));
        loop {
            let waiting = wire.replicas().waiting.take();
            if waiting.is_empty() {
                return wire.replicas().is_asking.set(false);
            }
            // A connection may be lost without a word, and those who wait have deadlines, but this has none.
            let outcome: Outcome = match timeout(within * 4, wire.send(&command)).await {
                Ok(Ok(Value::Int(have))) => Ok(u64::try_from(have).unwrap_or(0)),
                Ok(Ok(_)) => Err("the server answered WAIT without a number".into()),
                Ok(Err(Failure::Refused(error))) => Err(error.to_string().into()),
                Ok(Err(Failure::Away(why) | Failure::Lost(why) | Failure::Bounced(why))) => Err(why),
                Err(_) => Err("the server did not answer WAIT".into()),
            };
            for said in waiting {
                // Who asked may have given up.
                let _ = said.send(outcome.clone());
            }
        }
    }
}
