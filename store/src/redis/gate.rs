//! Keeps a partition's commands in order while its slot moves from one server to another (rule 1 of the contract).
//!
//! ```text
//!            a bounce, a new route, or a server that was not told of the beginning
//!     open ──────────────────────────────────────────────────────────────> moving: commands are held back
//!      ^                                                                     │
//!      └── the new server has answered; all that was held leaves in order ───┘   or nothing leads there: all are refused
//! ```
//!
//! A server that bounces a command has not carried it out, so it is held and sent again. Those behind it wait, until nothing
//! is on its way on the former route: so none overtakes another. One that others have overtaken already, as a slot
//! can come back while it is on its way, is refused; also if that happens while it is held.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use redis::{Cmd, Value};
use tokio::sync::{Notify, oneshot};
use tokio::task::unconstrained;

use super::link::{Failure, Link, Wire};
use super::partition::Partition;

/// A command that is on its way.
pub(super) type Flight = Pin<Box<dyn Future<Output = Landing>>>;

/// What came of it, and the connection that it was sent on.
pub(super) type Landing = (Result<Value, Failure>, Rc<Wire>);

/// One partition's.
pub(super) struct Gate {
    partition: Partition,
    link: RefCell<Option<Rc<Link>>>,
    /// Commands by their number, while it moves. Never more than requests that wait for an answer.
    held: RefCell<Option<BTreeMap<u64, Held>>>,
    next: Cell<u64>,
    /// The highest number that a server has, or may have, carried out.
    carried_out: Cell<Option<u64>>,
    in_flight: Cell<usize>,
    landed: Notify,
}

struct Held {
    command: Cmd,
    leaves: oneshot::Sender<Result<Flight, Failure>>,
}

impl Gate {
    pub(super) fn new(partition: Partition) -> Self {
        Self {
            partition,
            link: RefCell::new(None),
            held: RefCell::new(None),
            next: Cell::new(0),
            carried_out: Cell::new(None),
            in_flight: Cell::new(0),
            landed: Notify::new(),
        }
    }

    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    /// Where the partition is; none if nobody has it.
    pub(super) fn link(&self) -> Option<Rc<Link>> {
        self.link.borrow().clone()
    }

    pub(super) fn set_link(&self, link: Option<Rc<Link>>) {
        *self.link.borrow_mut() = link;
    }

    /// The place of one more command.
    pub(super) fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    /// The connection to send on now. `None`: it moves.
    pub(super) fn way(&self) -> Result<Option<Rc<Wire>>, Failure> {
        if self.held.borrow().is_some() {
            return Ok(None);
        }
        match &*self.link.borrow() {
            Some(link) => match link.wire() {
                Ok(wire) => Ok(wire.has_begun(self.partition).then_some(wire)),
                Err(_) if link.is_coming() => Ok(None),
                Err(why) => Err(Failure::Away(why)),
            },
            None => Err(Failure::Away(format!("nobody serves partition {}", self.partition.0).into())),
        }
    }

    /// Begins to hold commands back. Gives whether it did not yet.
    pub(super) fn close(&self) -> bool {
        let mut held = self.held.borrow_mut();
        let was_open = held.is_none();
        held.get_or_insert_default();
        was_open
    }

    /// Sends a command on its way.
    pub(super) async fn send(&self, number: u64, wire: Rc<Wire>, command: &Cmd) -> Landing {
        let mut way = OnItsWay::new(self, number);
        let outcome = wire.send(command).await;
        if matches!(outcome, Err(Failure::Bounced(_))) {
            wire.set_begun(self.partition, false);
            way.bounced = true;
        }
        drop(way);
        (outcome, wire)
    }

    /// Waits until the command may leave again.
    pub(super) async fn hold(&self, number: u64, command: Cmd) -> Result<Flight, Failure> {
        if self.is_overtaken(number) {
            return Err(overtaken());
        }
        let (leaves, left) = oneshot::channel();
        self.held.borrow_mut().get_or_insert_default().insert(number, Held { command, leaves });
        let _place = Place { gate: self, number };
        left.await.unwrap_or_else(|_| Err(Failure::Away("the store has ended".into())))
    }

    /// Waits until nothing is on its way.
    pub(super) async fn until_landed(&self) {
        while self.in_flight.get() > 0 {
            self.landed.notified().await;
        }
    }

    /// Opens: everything that was held leaves on this connection, in the order of its numbers; but for what was overtaken while it was
    /// held, by one that was on its way together with it and was not bounced.
    pub(super) fn open(self: &Rc<Self>, wire: &Rc<Wire>) {
        for (number, held) in self.held.take().unwrap_or_default() {
            if self.is_overtaken(number) {
                let _ = held.leaves.send(Err(overtaken()));
                continue;
            }
            let (gate, wire) = (Rc::clone(self), Rc::clone(wire));
            // A task that has used up its turn's budget would be told to wait before it has sent anything.
            let mut flight: Flight =
                Box::pin(unconstrained(async move { gate.send(number, wire, &held.command).await }));
            // Polled once it has its place on the connection; whoever waits for it polls on.
            if let Poll::Ready(outcome) = flight.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                flight = Box::pin(ready(outcome));
            }
            // Who asked may have given up in this moment; then it goes on its way alone.
            let _ = held.leaves.send(Ok(flight));
        }
    }

    /// Opens without a way: everything that was held is refused.
    pub(super) fn refuse(&self, why: &Rc<str>) {
        for held in self.held.take().unwrap_or_default().into_values() {
            let _ = held.leaves.send(Err(Failure::Away(Rc::clone(why))));
        }
    }

    /// Whether a later one has, or may have, been carried out.
    fn is_overtaken(&self, number: u64) -> bool {
        self.carried_out.get().is_some_and(|last| last > number)
    }
}

fn overtaken() -> Failure {
    Failure::Away("its slot has moved, and later requests were faster".into())
}

/// A command that a server may be carrying out.
struct OnItsWay<'a> {
    gate: &'a Gate,
    number: u64,
    bounced: bool,
}

impl<'a> OnItsWay<'a> {
    fn new(gate: &'a Gate, number: u64) -> Self {
        gate.in_flight.set(gate.in_flight.get() + 1);
        Self { gate, number, bounced: false }
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        let gate = self.gate;
        // One that nobody waits for any more may be carried out all the same.
        if !self.bounced {
            gate.carried_out.set(gate.carried_out.get().max(Some(self.number)));
        }
        gate.in_flight.set(gate.in_flight.get() - 1);
        if gate.in_flight.get() == 0 {
            gate.landed.notify_one();
        }
    }
}

/// A place among those that are held; given up when dropped.
struct Place<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(held) = &mut *self.gate.held.borrow_mut() {
            held.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
    use tokio::task::LocalSet;

    use super::*;

    const MOVED: &str = "-MOVED 1 127.0.0.1:1";
    const DONE: &str = "+OK";

    /// A server that gives these answers, one to each command, and what it was asked.
    async fn server(answers: &'static [&'static str]) -> (Rc<Wire>, Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = ConnectionAddr::Tcp("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
        let (heard, asked) = channel();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            // Behind the array's length, and the command's name with its own, and one more length.
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            for answer in answers {
                let Some(number) = lines.nth(4) else { break };
                // The test may have heard enough.
                let _ = heard.send(number);
                writeln!(writer, "{answer}\r").unwrap();
            }
            lines.for_each(drop);
        });
        let settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        let info = address.into_connection_info().unwrap().set_redis_settings(settings);
        let connection = Client::open(info).unwrap().get_multiplexed_async_connection().await.unwrap();
        (Rc::new(Wire::new(connection)), asked)
    }

    fn command(number: u64) -> Cmd {
        let mut command = redis::cmd("PING");
        command.arg(number);
        command
    }

    fn run(story: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, story);
    }

    #[test]
    fn what_was_bounced_leaves_before_what_came_behind_it() {
        run(async {
            let (former, _) = server(&[MOVED, MOVED]).await;
            let (latter, asked) = server(&[DONE; 4]).await;
            let gate = Rc::new(Gate::new(Partition(0)));
            let sent = (0..2).map(|number| {
                let (gate, former) = (Rc::clone(&gate), Rc::clone(&former));
                async move { gate.send(number, former, &command(number)).await.0 }
            });
            for outcome in join_all(sent).await {
                assert!(matches!(outcome, Err(Failure::Bounced(_))), "{outcome:?}");
            }
            assert!(gate.close());
            // Held in any order.
            let held = [3, 1, 0, 2].map(|number| {
                let gate = Rc::clone(&gate);
                async move { gate.hold(number, command(number)).await.unwrap().await.0 }
            });
            let mut held = Box::pin(join_all(held));
            assert!((&mut held).now_or_never().is_none());
            gate.until_landed().await;
            gate.open(&latter);
            assert!(held.await.iter().all(Result::is_ok));
            assert_eq!(asked.iter().take(4).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
        });
    }

    #[test]
    fn one_that_was_overtaken_is_refused() {
        run(async {
            let (wire, _) = server(&[MOVED, DONE]).await;
            let gate = Rc::new(Gate::new(Partition(0)));
            assert!(matches!(gate.send(0, Rc::clone(&wire), &command(0)).await.0, Err(Failure::Bounced(_))));
            assert!(gate.send(1, wire, &command(1)).await.0.is_ok(), "its slot has come back");
            assert!(matches!(gate.hold(0, command(0)).await, Err(Failure::Away(_))));
        });
    }

    #[test]
    fn one_that_is_overtaken_while_it_is_held_is_refused() {
        run(async {
            let (former, _) = server(&[MOVED, DONE]).await;
            let (latter, asked) = server(&[DONE]).await;
            let gate = Rc::new(Gate::new(Partition(0)));
            let (first, second) = (command(0), command(1));
            let mut bounced = Box::pin(gate.send(0, Rc::clone(&former), &first));
            let mut faster = Box::pin(gate.send(1, former, &second));
            assert!((&mut bounced).now_or_never().is_none());
            assert!((&mut faster).now_or_never().is_none(), "both are on their way");
            assert!(matches!(bounced.await.0, Err(Failure::Bounced(_))));
            gate.close();
            let mut held = Box::pin(gate.hold(0, command(0)));
            let mut behind = Box::pin(gate.hold(2, command(2)));
            assert!((&mut held).now_or_never().is_none() && (&mut behind).now_or_never().is_none());
            assert!(faster.await.0.is_ok());
            gate.until_landed().await;
            gate.open(&latter);
            assert!(matches!(held.await, Err(Failure::Away(_))));
            assert!(behind.await.unwrap().await.0.is_ok());
            assert_eq!(asked.recv().unwrap(), "2");
        });
    }

    #[test]
    fn who_is_held_when_nothing_leads_there_is_refused() {
        run(async {
            let gate = Gate::new(Partition(0));
            assert!(matches!(gate.way(), Err(Failure::Away(_))), "it has no link");
            gate.close();
            let mut held = Box::pin(gate.hold(0, command(0)));
            assert!((&mut held).now_or_never().is_none());
            gate.refuse(&"gone".into());
            assert!(matches!(held.await, Err(Failure::Away(why)) if &*why == "gone"));
        });
    }

    #[test]
    fn who_gives_up_while_it_is_held_is_not_sent() {
        run(async {
            let (wire, asked) = server(&[DONE]).await;
            let gate = Rc::new(Gate::new(Partition(0)));
            gate.close();
            assert!(gate.hold(0, command(0)).now_or_never().is_none());
            let mut stays = Box::pin(gate.hold(1, command(1)));
            assert!((&mut stays).now_or_never().is_none());
            gate.open(&wire);
            assert!(stays.await.unwrap().await.0.is_ok());
            assert_eq!(asked.recv().unwrap(), "1");
        });
    }
}
