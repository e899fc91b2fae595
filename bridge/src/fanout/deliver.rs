//! Sends one message to all that hear it live.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use holdfast_wire::link::{Deliver, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::StreamKey;
use tokio::sync::mpsc;

use super::group::{self, Kept};
use super::interest::{LinkId, share};
use super::owner::Whereabouts;
use crate::core::Core;
use crate::link::Peer;
use crate::metrics as names;
use crate::uplink::inbox::{Event, Inbox};
use crate::uplink::part;

/// Fans out one link's messages, in their order. Mostly within [`FanOut::send`]; a message that has to wait, for a shard that does not read or
/// a store that is far away, goes on in a task of its own, and the later ones behind it: so it holds up only what is to be heard. Each of these waits has an
/// end: a shard is given up once it is stuck, the store is not waited for when it is away, and no member of a group is.
pub(crate) struct FanOut {
    core: Arc<Core>,
    origin: LinkId,
    inbox: Arc<Inbox>,
    waiting: mpsc::UnboundedSender<Job>,
    /// Messages with the task, until their news is handled.
    unsent: usize,
}

/// An uplink whose message is on its way to those who hear it.
struct Job {
    ticket: u64,
    sending: Pin<Box<dyn Future<Output = Reached> + Send>>,
}

/// Whom a message was sent to.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Shards.
    pub(crate) shards: usize,
    /// What becomes of it in each group of persistent sessions.
    pub(crate) groups: Vec<Kept>,
}

impl Reached {
    /// Waits until each group has it; 0, or the reason code of one that will not.
    pub(crate) async fn kept(self) -> u8 {
        let mut reason_code = 0;
        for kept in self.groups {
            // Nobody left to tell means that the bridge is being torn down.
            if let Ok(reason @ 1..) = kept.await {
                reason_code = reason;
            }
        }
        reason_code
    }
}

impl FanOut {
    /// For the link `origin`; what has to wait is told to its `inbox` when it is done.
    pub(crate) fn new(core: &Arc<Core>, origin: LinkId, inbox: &Arc<Inbox>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "what is in it is unsettled: the link's window is its bound"
        )]
        let (waiting, jobs) = mpsc::unbounded_channel();
        tokio::spawn(see_through(jobs, Arc::clone(inbox)));
        Self { core: Arc::clone(core), origin, inbox: Arc::clone(inbox), waiting, unsent: 0 }
    }

    /// Sends `message` to everyone who hears it; `positions` say where it stands in streams. Returns the sum of the parts that are done with it:
    /// none if not everyone has it; then [`Event::FannedOut`] follows, for [`FanOut::handle_sent`]. Without `GROUP`, [`Event::Groups`] follows.
    pub(crate) fn send(&mut self, ticket: u64, message: SharedMessage, positions: Positions) -> u8 {
        let (core, origin) = (Arc::clone(&self.core), Some(self.origin));
        let mut sending = Box::pin(async move { fan_out(&core, &message, &positions, origin).await });
        // Whoever it waits for wakes nobody here; the task asks again.
        if self.unsent == 0
            && let Poll::Ready(reached) = sending.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            return watch(&self.inbox, ticket, reached);
        }
        self.unsent += 1;
        // An error would mean that the bridge is being torn down; nobody is left to hear it.
        match self.waiting.send(Job { ticket, sending }) {
            Ok(()) => 0,
            Err(_) => part::FANOUT,
        }
    }

    /// A message that had to wait has been sent to everyone.
    pub(crate) fn handle_sent(&mut self) {
        self.unsent -= 1;
    }
}

async fn see_through(mut jobs: mpsc::UnboundedReceiver<Job>, inbox: Arc<Inbox>) {
    while let Some(job) = jobs.recv().await {
        let reached = job.sending.await;
        let done = watch(&inbox, job.ticket, reached);
        inbox.push(Event::FannedOut { ticket: job.ticket, done });
    }
}

/// The parts that are done once everyone was sent it; sees to it that the rest is told when it is.
fn watch(inbox: &Arc<Inbox>, ticket: u64, reached: Reached) -> u8 {
    if reached.groups.is_empty() {
        return part::FANOUT | part::GROUP;
    }
    let inbox = Arc::clone(inbox);
    tokio::spawn(async move {
        let reason_code = reached.kept().await;
        inbox.push(Event::Groups(ticket, reason_code));
    });
    part::FANOUT
}

/// Sends `message` to every shard that hears it, waiting for those that read slowly. `origin` is the link that brought it.
pub(crate) async fn fan_out(
    core: &Arc<Core>,
    message: &SharedMessage,
    positions: &Positions,
    origin: Option<LinkId>,
) -> Reached {
    let view = message.view();
    let hearers = core.read_interests(|interests| interests.hearers(view.topic));
    let mut reached = Reached::default();
    let deliver = |target| {
        ToGateway::Deliver(Deliver { delivery: 0, target, positions: positions.clone(), message: view })
    };
    if !hearers.links.is_empty() {
        let mut record = Vec::new();
        deliver(Target::Subscribers).encode(&mut record);
        for link in hearers.links {
            let Some(peer) = core.peers.of_link(link) else { continue };
            if peer.send(&record).await.is_ok() {
                reached.shards += 1;
            }
        }
        core.counters.to_subscribers.increment(reached.shards as u64);
    }
    for (client, links) in &hearers.devices {
        let record = deliver(Target::Device(client));
        for peer in holders(core, client, links, origin.filter(|_| *view.publisher == **client)).await {
            if peer.send_record(&record).await.is_ok() {
                reached.shards += 1;
                core.counters.to_devices.increment(1);
            }
        }
    }
    for (group, filter) in hearers.groups {
        // It went to the group's stream because no member was there; whoever has come since reads it from there.
        let stream = share(&group, &filter);
        let stored = |position: &holdfast_wire::session_record::Cursor| matches!(&position.stream, StreamKey::Filter(name) if **name == *stream);
        if positions.iter().any(stored) {
            continue;
        }
        let sent = group::deliver(core, &group, &filter, message, positions).await;
        reached.shards += usize::from(sent.taken);
        reached.groups.extend(sent.kept);
    }
    reached
}

/// Links to shards that may hold this client's connection and hear a topic of its own, whose shape `links` announced. `own` is the link that brought
/// the message if the client published it.
async fn holders(core: &Core, client: &str, links: &[LinkId], own: Option<LinkId>) -> Vec<Arc<Peer>> {
    if let Some(own) = own {
        // Its connection is there; if that shard did not announce the shape, it does not hear itself.
        return links.contains(&own).then(|| core.peers.of_link(own)).flatten().into_iter().collect();
    }
    match core.owners.find(&*core.store, client).await {
        Whereabouts::At(owner) => core.peers.of_shard(owner).into_iter().collect(),
        Whereabouts::Nowhere => Vec::new(),
        Whereabouts::Unknown => {
            metrics::counter!(names::OWNERS_UNKNOWN).increment(1);
            // Those that do not hold it pass over the message.
            links.iter().filter_map(|link| core.peers.of_link(*link)).collect()
        }
    }
}
