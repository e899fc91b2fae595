//! Sends one message to all that hear it live.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use holdfast_wire::link::{Deliver, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::StreamKey;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::group::{self, Kept};
use super::interest::{LinkId, share};
use super::owner::Whereabouts;
use crate::core::Core;
use crate::link::Peer;
use crate::metrics as names;
use crate::uplink::inbox::{Event, Inbox};
use crate::uplink::part;

/// Lookups of owners that the messages behind the first one begin ahead of their turn, on one link: a store that is far away costs them all one way there and back.
const AHEAD_MAX: usize = 256;

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
    step: Step,
}

enum Step {
    /// Others are before it.
    Waits(SharedMessage, Positions),
    Goes(Pin<Box<dyn Future<Output = Reached> + Send>>),
}

/// Where devices are, by client id, as it was asked before the message's turn.
type Found = Vec<(Box<str>, JoinHandle<Whereabouts>)>;

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
        tokio::spawn(see_through(Arc::clone(core), origin, jobs, Arc::clone(inbox)));
        Self { core: Arc::clone(core), origin, inbox: Arc::clone(inbox), waiting, unsent: 0 }
    }

    /// Sends `message` to everyone who hears it; `positions` say where it stands in streams. Returns the sum of the parts that are done with it:
    /// none if not everyone has it; then [`Event::FannedOut`] follows, for [`FanOut::handle_sent`]. Without `GROUP`, [`Event::Groups`] follows.
    pub(crate) fn send(&mut self, ticket: u64, message: SharedMessage, positions: Positions) -> u8 {
        let mut step = Step::Waits(message, positions);
        if self.unsent == 0 {
            let mut sending = step.begin(&self.core, self.origin, false);
            // Whoever it waits for wakes nobody here; the task asks again.
            if let Poll::Ready(reached) = sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return watch(&self.inbox, ticket, reached);
            }
            step = Step::Goes(sending);
        }
        self.unsent += 1;
        // An error would mean that the bridge is being torn down; nobody is left to hear it.
        match self.waiting.send(Job { ticket, step }) {
            Ok(()) => 0,
            Err(_) => part::FANOUT,
        }
    }

    /// A message that had to wait has been sent to everyone.
    pub(crate) fn handle_sent(&mut self) {
        self.unsent -= 1;
    }
}

impl Step {
    /// Its future, which does nothing before its turn; `ahead`: but to ask the store.
    fn begin(
        self,
        core: &Arc<Core>,
        origin: LinkId,
        ahead: bool,
    ) -> Pin<Box<dyn Future<Output = Reached> + Send>> {
        match self {
            Self::Goes(sending) => sending,
            Self::Waits(message, positions) => {
                let found = if ahead { look_up(core, &message) } else { Found::new() };
                let core = Arc::clone(core);
                Box::pin(async move { fan_out_to(&core, &message, &positions, Some(origin), found).await })
            }
        }
    }
}

async fn see_through(
    core: Arc<Core>,
    origin: LinkId,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    inbox: Arc<Inbox>,
) {
    let mut begun = VecDeque::new();
    let begin = |job: Job| (job.ticket, job.step.begin(&core, origin, true));
    loop {
        let may_begin = begun.len() < AHEAD_MAX;
        let Some((ticket, sending)) = begun.front_mut() else {
            let Some(job) = jobs.recv().await else { return };
            begun.push_back(begin(job));
            continue;
        };
        tokio::select! {
            biased;
            reached = sending => {
                let done = watch(&inbox, *ticket, reached);
                inbox.push(Event::FannedOut { ticket: *ticket, done });
                begun.pop_front();
            }
            Some(job) = jobs.recv(), if may_begin => begun.push_back(begin(job)),
        }
    }
}

/// Asks where the devices are that hear a message on a topic of their own.
fn look_up(core: &Arc<Core>, message: &SharedMessage) -> Found {
    let view = message.view();
    let hearers = core.read_interests(|interests| interests.hearers(view.topic));
    let others = hearers.devices.into_iter().filter(|(client, _)| *view.publisher != **client);
    others
        .map(|(client, _)| {
            let (core, device) = (Arc::clone(core), client.clone());
            (client, tokio::spawn(async move { core.owners.find(&*core.store, &device).await }))
        })
        .collect()
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
    fan_out_to(core, message, positions, origin, Found::new()).await
}

async fn fan_out_to(
    core: &Arc<Core>,
    message: &SharedMessage,
    positions: &Positions,
    origin: Option<LinkId>,
    mut found: Found,
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
        let own = origin.filter(|_| *view.publisher == **client);
        let known = found.iter().position(|(known, _)| known == client).map(|at| found.swap_remove(at).1);
        for peer in holders(core, client, links, own, known).await {
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
/// the message if the client published it; `known` tells where it is, if somebody has asked.
async fn holders(
    core: &Core,
    client: &str,
    links: &[LinkId],
    own: Option<LinkId>,
    known: Option<JoinHandle<Whereabouts>>,
) -> Vec<Arc<Peer>> {
    if let Some(own) = own {
        // Its connection is there; if that shard did not announce the shape, it does not hear itself.
        return links.contains(&own).then(|| core.peers.of_link(own)).flatten().into_iter().collect();
    }
    let whereabouts = match known {
        // An error would mean that the bridge is being torn down.
        Some(known) => known.await.unwrap_or(Whereabouts::Unknown),
        None => core.owners.find(&*core.store, client).await,
    };
    match whereabouts {
        Whereabouts::At(owner) => core.peers.of_shard(owner).into_iter().collect(),
        Whereabouts::Nowhere => Vec::new(),
        Whereabouts::Unknown => {
            metrics::counter!(names::OWNERS_UNKNOWN).increment(1);
            // Those that do not hold it pass over the message.
            links.iter().filter_map(|link| core.peers.of_link(*link)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use holdfast_store::{ReplyTo, Store};
    use holdfast_wire::ids::{NodeId, Owner, ShardId};
    use holdfast_wire::link::InterestKind;
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;
    use holdfast_wire::store::Request;

    use super::*;
    use crate::BridgeConfig;
    use crate::log::{Log, LogConfig};
    use crate::sink::LogSink;

    /// A store so far away that nothing is answered yet.
    #[derive(Default)]
    struct Far(Mutex<Vec<(Request, ReplyTo)>>);

    impl Store for Far {
        fn submit(&self, request: Request, reply: ReplyTo) {
            self.0.lock().unwrap().push((request, reply));
        }
    }

    /// Messages for as many devices: how many of them the store is asked about before it has answered.
    async fn asked_at_once(devices: usize) -> usize {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(directory.path(), LogConfig::default()).unwrap();
        let far = Arc::new(Far::default());
        let sink = Arc::new(LogSink::new(Arc::new(log)));
        let store = Arc::clone(&far) as Arc<dyn Store>;
        let core = Arc::new(Core::new(BridgeConfig::default(), store, sink, mpsc::channel(1).0).unwrap());
        let hearer = Arc::new(Peer::new(core.next_link(), Owner { node: NodeId(1), shard: ShardId(0) }));
        core.peers.opened(&hearer);
        core.change_interests(|interests| {
            interests.announce(hearer.link, InterestKind::Personal { level: 1 }, "devices/+/push", false);
        });
        let inbox = Arc::default();
        let mut fan_out = FanOut::new(&core, core.next_link(), &inbox);
        for device in 0..devices {
            let message = SharedMessage::new(&Message {
                id: 1,
                topic: &format!("devices/{device}/push"),
                qos: QoS::AtMostOnce,
                retain: false,
                publisher: "publisher",
                published_at_ms: 0,
                expires_at_ms: 0,
                properties: &[],
                payload: &[],
            });
            assert_eq!(fan_out.send(device as u64, message, Positions::new()), 0, "it waits for the store");
        }
        for _ in 0..10 * devices {
            tokio::task::yield_now().await;
        }
        far.0.lock().unwrap().len()
    }

    #[tokio::test]
    async fn a_store_that_is_far_away_is_asked_about_messages_side_by_side() {
        // Where the machine stands still for as long as the store has to answer, it is left alone.
        let begun = Instant::now();
        while asked_at_once(20).await != 20 {
            assert!(begun.elapsed() < Duration::from_secs(30), "one after the other");
        }
        while asked_at_once(2 * AHEAD_MAX).await != AHEAD_MAX {
            assert!(begun.elapsed() < Duration::from_secs(30), "more than may be ahead");
        }
    }
}
