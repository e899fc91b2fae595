//! Wills of sessions whose owner died, on the way that all frames take: into the sink, into streams, to those who listen.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_wire::ids::{ClientId, Epoch, NodeId};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::store::{DueWill, Reply, Request, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::core::{Core, now_ms};
use crate::fanout::Publication;
use crate::log::LogRecord;
use crate::metrics as names;
use crate::sink::Verdict;
use crate::store_requests::{Retries, ask, ask_until_taken, is_temporary};

/// How often the store is asked for wills that have fallen due.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Wills that are on their way at once.
const WILLS_MAX: u32 = 256;
/// How long one of them waits for room in the store.
const ROOM_WITHIN: Duration = Duration::from_secs(30);

/// Publishes what falls due while this bridge is the one that reaps. A sink that takes nothing holds up this task and nothing else.
pub(super) async fn keep_publishing(core: &Arc<Core>, leads: watch::Receiver<bool>) {
    let mut rounds = tokio::time::interval(ASK_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stored = Stored::default();
    loop {
        rounds.tick().await;
        if !*leads.borrow() {
            // They are given to whoever leads now.
            stored = Stored::default();
        }
        while *leads.borrow() && publish_due(core, &mut stored).await {}
    }
}

/// Wills that the sink has and that are on their way to streams and listeners, at most [`WILLS_MAX`].
#[derive(Default)]
struct Stored {
    telling: JoinSet<(ClientId, u64)>,
    names: HashSet<(ClientId, u64)>,
}

impl Stored {
    fn forget_told(&mut self) {
        while let Some(told) = self.telling.try_join_next() {
            if let Ok(name) = told {
                self.names.remove(&name);
            }
        }
    }

    fn add(&mut self, core: &Arc<Core>, due: DueWill, message: SharedMessage) {
        let (core, name) = (Arc::clone(core), (due.client.clone(), due.number));
        self.names.insert(name.clone());
        self.telling.spawn(async move {
            tell(&core, due, message, ROOM_WITHIN).await;
            name
        });
    }
}

/// Publishes some; whether there may be more.
async fn publish_due(core: &Arc<Core>, stored: &mut Stored) -> bool {
    stored.forget_told();
    let wills_max = WILLS_MAX.saturating_sub(stored.names.len() as u32);
    if wills_max == 0 {
        return false;
    }
    let given = match ask(&*core.store, Request::DueWills { wills_max }).await {
        Ok(Reply::Wills(wills)) => wills,
        Ok(_) => return false,
        Err(error) => {
            tracing::debug!(%error, "wills that fell due cannot be read");
            return false;
        }
    };
    let may_be_more = given.len() == wills_max as usize;
    let mut wills = given;
    // One that is not heard by all after a while is given again; it is still on its way.
    wills.retain(|due| !stored.names.contains(&(due.client.clone(), due.number)));
    let now_ms = now_ms();
    let messages: Vec<_> =
        wills.iter().map(|due| SharedMessage::new(&due.will.published(due.number, now_ms))).collect();
    let done = store(core, &wills, &messages).await;
    for ((due, message), done) in wills.into_iter().zip(messages).zip(done) {
        // What the sink could not store now, the store gives again later.
        if done {
            stored.add(core, due, message);
        }
    }
    may_be_more
}

/// Stores what the topic map wants stored; says of each whether the sink is done with it.
async fn store(core: &Core, wills: &[DueWill], messages: &[SharedMessage]) -> Vec<bool> {
    let mut done = vec![true; wills.len()];
    let mut lane = core.sink.lane();
    let mut pushed = Vec::new();
    for (at, (due, message)) in wills.iter().zip(messages).enumerate() {
        let message = message.view();
        if core.topic_map.stores(message.topic) {
            let record = LogRecord {
                offset: 0,
                // In the place of the node that died, the bridge that speaks for it.
                node: NodeId(core.bridge.0),
                epoch: Epoch(due.number),
                packet_id: None,
                dup: false,
                resent: false,
                event_time_ms: 0,
                message,
            };
            lane.push(&record, false);
            pushed.push(at);
            done[at] = false;
        }
    }
    if pushed.is_empty() {
        return done;
    }
    // Each frame is in one run, so there are never more runs than frames.
    let (verdicts, mut settled) = mpsc::channel(pushed.len());
    let tell = move |frames, verdict| {
        // Whoever asked is there for as long as anything can be said.
        let _ = verdicts.try_send((frames, verdict));
    };
    if lane.send(Box::new(tell)).await.is_err() {
        return done;
    }
    let mut left = pushed.len();
    while left > 0
        && let Some((frames, verdict)) = settled.recv().await
    {
        for at in frames.start as usize..frames.end as usize {
            left -= 1;
            // One that is refused for good is heard by those who listen all the same.
            if let Some(at) = pushed.get(at) {
                done[*at] = verdict != Verdict::Withdrawn;
            }
        }
    }
    done
}

/// Brings one that is stored to streams and listeners, to each once, and strikes it out. It waits for the store as long as that takes: let go now, it would be
/// stored again. For room in it it waits `room_within`, as others wait for its place here; then those hear it who are there.
async fn tell(core: &Arc<Core>, due: DueWill, message: SharedMessage, room_within: Duration) {
    let mut publication = Publication::new(message);
    let (mut retries, began) = (Retries::new(), Instant::now());
    let heard = loop {
        match publication.publish(core).await {
            Err(full @ StoreError::Full(_)) if began.elapsed() >= room_within => {
                break publication.go_live(core).await.and(Err(full));
            }
            Err(error) if is_temporary(&error) => retries.wait().await,
            heard => break heard,
        }
    };
    let DueWill { client, number, .. } = due;
    let struck_out =
        ask_until_taken(&*core.store, Request::WillPublished { client: client.clone(), number }).await;
    match heard.map(drop).and(struck_out.map(drop)) {
        Ok(()) => metrics::counter!(names::REAPED_WILLS).increment(1),
        Err(error) => tracing::warn!(%client, %error, "a will is stored, but not heard by all"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use holdfast_store::{Bounds, MemoryStore, ReplyTo, Store, clock};
    use holdfast_wire::ids::{Owner, ShardId};
    use holdfast_wire::link::InterestKind;
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;
    use holdfast_wire::store::WillRecord;

    use super::*;
    use crate::BridgeConfig;
    use crate::link::Peer;
    use crate::log::{Log, LogConfig};
    use crate::sink::LogSink;

    /// A store that has no room for a retained message until it was asked so often.
    struct Full {
        store: MemoryStore,
        refusals: AtomicU32,
    }

    impl Store for Full {
        fn submit(&self, request: Request, reply: ReplyTo) {
            let one_less = |left: u32| left.checked_sub(1);
            if matches!(request, Request::Retain { .. })
                && self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
            {
                return reply(Err(StoreError::Full("disk".to_owned())));
            }
            self.store.submit(request, reply);
        }
    }

    /// Tells of a retained will; whether a subscriber heard it, and how many refusals were left.
    async fn told(refusals: u32, room_within: Duration) -> (bool, u32) {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(directory.path(), LogConfig::default()).unwrap();
        let store = MemoryStore::new(clock::system(), Bounds::default());
        let store = Arc::new(Full { store, refusals: refusals.into() });
        let sink = Arc::new(LogSink::new(Arc::new(log)));
        let links = mpsc::channel(1).0;
        let core = Core::new(BridgeConfig::default(), Arc::clone(&store) as _, sink, links).unwrap();
        let core = Arc::new(core);
        let subscriber = Arc::new(Peer::new(core.next_link(), Owner { node: NodeId(1), shard: ShardId(0) }));
        core.peers.opened(&subscriber);
        core.change_interests(|interests| {
            interests.announce(subscriber.link, InterestKind::Filter, "status/#", false);
        });
        let message = SharedMessage::new(&Message {
            id: 0,
            topic: "status/d",
            qos: QoS::AtLeastOnce,
            retain: true,
            publisher: "d",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: b"gone",
        });
        let will = WillRecord { message: message.clone(), delay_s: 0, expiry_s: u32::MAX };
        tell(&core, DueWill { client: ClientId::new("d"), number: 1, will }, message, room_within).await;
        let heard = tokio::time::timeout(Duration::from_secs(30), subscriber.take(&mut Vec::new())).await;
        (heard.is_ok(), store.refusals.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_will_waits_for_room_in_the_store() {
        assert_eq!(told(2, Duration::MAX).await, (true, 0));
    }

    #[tokio::test]
    async fn a_will_that_has_waited_long_enough_for_room_goes_to_those_who_are_there() {
        assert_eq!(told(u32::MAX, Duration::ZERO).await, (true, u32::MAX - 1));
    }
}
