//! Calls of our functions: each goes to the server that has its partition, and comes back as an answer or as the caller's kind of error.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

use redis::{Arg, Cmd, ErrorKind, RedisError, ServerErrorKind, ToRedisArgs, Value};
use tracing::info;

use super::answer::Answer;
use super::connect::Dialler;
use super::gate::{Gate, Landing};
use super::library::Library;
use super::link::{Failure, Wire};
use super::metrics;
use super::partition::{PARTITIONS, Partition};
use super::replicas::Replicas;
use super::routes::Routes;
use crate::contract::StoreError;
use crate::open_error::OpenError;

/// Changes that nobody is told of, or that are done again if they are lost: they wait for no replica. `leave` and `rest` are not among them, since once
/// `done` or `rested` has struck them out, in another slot and perhaps on another server, nobody would do them again.
const UNCONFIRMED: [&str; 13] = [
    "begin",
    "sweep",
    "done",
    "rested",
    "advance",
    "lower",
    "cut",
    "renew",
    "retire",
    "recount",
    "give_back",
    "take_expired",
    "youth",
];

/// The servers, as one.
pub(super) struct Server {
    routes: Rc<Routes>,
    library: Rc<Library>,
    keys: Vec<String>,
    /// Replicas that must have a change before it is answered.
    replicas: u32,
    /// The functions that change something that may not be lost.
    confirmed: HashSet<Vec<u8>>,
    /// Whether one said that its memory is full since it was last asked.
    pressed: Cell<bool>,
}

impl Server {
    /// Dials for the first time.
    pub(super) async fn open(
        dialler: Dialler,
        prefix: &str,
        replicas: u32,
        begins_young: bool,
    ) -> Result<Self, OpenError> {
        metrics::describe();
        let library = Rc::new(Library::new());
        let keys: Vec<_> = (0..PARTITIONS).map(|number| Partition(number).key(prefix)).collect();
        let replicas = dialler.url.replicas.unwrap_or(replicas);
        let mut confirmed = library.writing();
        for function in UNCONFIRMED {
            confirmed.remove(library.function(function).as_bytes());
        }
        let shown = dialler.url.shown();
        let routes = Rc::new(Routes::open(dialler, Rc::clone(&library), keys.clone(), begins_young).await?);
        info!(server = shown, "the session store is in Redis");
        Ok(Self { routes, library, keys, replicas, confirmed, pressed: Cell::new(false) })
    }

    /// A call of one of our functions on a partition; what is given to it follows with [`Call::arg`].
    pub(super) fn call(&self, function: &str, partition: Partition) -> Call {
        let mut command = redis::cmd("FCALL");
        command.arg(self.library.function(function)).arg(1).arg(&self.keys[partition.index()]);
        Call(command)
    }

    /// The name of a key of a partition, for plain commands.
    pub(super) fn key(&self, partition: Partition, kind: &str) -> String {
        format!("{}:{kind}", self.keys[partition.index()])
    }

    /// Sends a call; by the time this has been polled once, it has its place behind those before it of the same partition.
    pub(super) async fn answer(&self, call: Call) -> Result<Answer, StoreError> {
        Answer::new(self.send(&call.0).await?)
    }

    /// Sends a call, or a plain command whose first argument is a key of ours.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, StoreError> {
        let (outcome, wire) = self.fly(command).await.map_err(|failure| self.failed(failure, None))?;
        let value = outcome.map_err(|failure| self.failed(failure, Some(&wire)))?;
        if self.replicas > 0 && argument(command, 1).is_some_and(|function| self.confirmed.contains(function))
        {
            let within = self.routes.deadline() / 4;
            Replicas::have_it(&wire, self.replicas, within).await.map_err(StoreError::Unavailable)?;
        }
        Ok(value)
    }

    /// Sends a call whose answer is nobody's but the caller's to judge.
    pub(super) async fn land(&self, call: Call) -> Result<Value, Failure> {
        self.fly(&call.0).await?.0
    }

    /// For each server, one of the partitions that it has.
    pub(super) fn one_partition_of_each(&self) -> Vec<Partition> {
        self.routes.one_of_each()
    }

    async fn fly(&self, command: &Cmd) -> Result<Landing, Failure> {
        let partition = partition_of(command);
        let gate = self.routes.gate(partition);
        let number = gate.number();
        let mut landing = match gate.way()? {
            Some(wire) => gate.send(number, wire, command).await,
            None => self.fly_later(gate, partition, number, command).await?,
        };
        while matches!(landing.0, Err(Failure::Bounced(_))) {
            landing = self.fly_later(gate, partition, number, command).await?;
        }
        Ok(landing)
    }

    async fn fly_later(
        &self,
        gate: &Gate,
        partition: Partition,
        number: u64,
        command: &Cmd,
    ) -> Result<Landing, Failure> {
        if gate.close() {
            self.routes.open_gate_soon(partition);
        }
        let flight = gate.hold(number, command.clone()).await?;
        Ok(flight.await)
    }

    /// A request has had no answer within its deadline. Whether that is a server's fault shows in what else it answered.
    pub(super) fn handle_deadline(&self) {
        metrics::count_call(metrics::LOST);
        self.routes.lose_silent();
    }

    /// Whether memory has been full since this was last asked.
    pub(super) fn take_pressure(&self) -> bool {
        self.pressed.replace(false)
    }

    /// Whether a server came back without the data of some partition since this was last asked.
    pub(super) fn take_loss(&self) -> bool {
        self.routes.take_loss()
    }

    /// Keeps the connections up; for ever.
    pub(super) async fn keep_up(self: Rc<Self>) {
        Rc::clone(&self.routes).keep_up().await;
    }

    fn failed(&self, failure: Failure, wire: Option<&Rc<Wire>>) -> StoreError {
        match failure {
            Failure::Away(why) => {
                metrics::count_call(metrics::REFUSED);
                StoreError::Unavailable(why.to_string())
            }
            Failure::Bounced(why) => StoreError::Unavailable(why.to_string()),
            Failure::Lost(why) => {
                wire.inspect(|wire| self.routes.lose(wire, &why));
                StoreError::Unavailable(why.to_string())
            }
            Failure::Refused(error) => self.refused(&error, wire),
        }
    }

    fn refused(&self, error: &RedisError, wire: Option<&Rc<Wire>>) -> StoreError {
        let (code, detail) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
        let is_elsewhere = matches!(
            error.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown
            )
        );
        if is_elsewhere || matches!(code, "NOAUTH") || detail.contains("Function not found") {
            // Another server answers there now, or one that has lost everything: it is checked and given the functions like a new one.
            wire.inspect(|wire| self.routes.lose(wire, &error.to_string()));
        }
        if code == "OOM" {
            self.pressed.set(true);
        }
        match code {
            "OOM" | "MISCONF" => StoreError::Full(detail.to_owned()),
            "FOREIGN" => StoreError::Unreadable(detail.to_owned()),
            _ => StoreError::Unavailable(error.to_string()),
        }
    }
}

/// Whose partition a command is about: what stands between the braces of its key.
fn partition_of(command: &Cmd) -> Partition {
    let is_call = argument(command, 0).is_some_and(|name| name == b"FCALL");
    let key = argument(command, if is_call { 3 } else { 1 }).unwrap_or_default();
    let digits =
        key.iter().skip_while(|byte| **byte != b'{').skip(1).take_while(|byte| byte.is_ascii_digit());
    let number =
        digits.fold(0_u16, |number, digit| number.wrapping_mul(10).wrapping_add(u16::from(digit - b'0')));
    Partition(number % PARTITIONS)
}

fn argument(command: &Cmd, place: usize) -> Option<&[u8]> {
    match command.args_iter().nth(place)? {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    }
}

/// A command that is being put together.
pub(super) struct Call(Cmd);

impl Call {
    pub(super) fn arg(mut self, value: impl ToRedisArgs) -> Self {
        self.0.arg(value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_where_its_key_is() {
        let mut call = redis::cmd("FCALL");
        call.arg("holdfast_open").arg(1).arg("hf{217}").arg("a{3}");
        assert_eq!(partition_of(&call), Partition(217));
        let mut command = redis::cmd("HMGET");
        command.arg("test-1-hf{4}:own").arg("x{9}");
        assert_eq!(partition_of(&command), Partition(4));
    }
}
