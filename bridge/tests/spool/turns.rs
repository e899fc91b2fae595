//! Links that wait for the way to open go in the order in which they came: a device may go on over another while its frame waits in the first (P3).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Lane, OnSettled, Sent, Sink, SinkClosed, SinkHealth, Verdict};
use holdfast_bridge::spool::{OutageConfig, OutageSink};
use holdfast_bridge::{Bridge, BridgeConfig};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Handover, ToBridge, Uplink};
use holdfast_wire::mqtt::QoS;

use crate::devices::{record, until};
use crate::shard::{Heard, Rig, memory_store, owner, uplink};

/// A sink that answers nothing while it is away, and gives nothing back before it is told to. Clones are the same one.
#[derive(Clone)]
struct Mute(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    away: bool,
    gives_back: bool,
    unanswered: Vec<(Vec<u8>, OnSettled)>,
    stored: Vec<u8>,
}

impl World {
    fn store(&mut self, frames: &[u8], settled: &mut OnSettled) {
        self.stored.extend(frames);
        settled(0..frames.len() as u32, Verdict::Stored);
    }
}

impl Mute {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn come_back(&self) {
        let mut world = self.world();
        world.away = false;
        for (frames, mut settled) in std::mem::take(&mut world.unanswered) {
            world.store(&frames, &mut settled);
        }
    }
}

impl Sink for Mute {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(MuteLane { sink: self.clone(), gathered: Vec::new() })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: true, spool: None }
    }

    fn withdraw(&self) {
        let mut world = self.world();
        if world.gives_back {
            for (frames, mut settled) in std::mem::take(&mut world.unanswered) {
                settled(0..frames.len() as u32, Verdict::Withdrawn);
            }
        }
    }
}

struct MuteLane {
    sink: Mute,
    gathered: Vec<u8>,
}

impl Lane for MuteLane {
    fn push(&mut self, frame: &LogRecord<'_>, _: bool) {
        self.gathered.push(frame.message.payload[0]);
    }

    fn send(&mut self, mut settled: OnSettled) -> Sent<'_> {
        let frames = std::mem::take(&mut self.gathered);
        let mut world = self.sink.world();
        if world.away {
            world.unanswered.push((frames, settled));
        } else {
            world.store(&frames, &mut settled);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A task that was told and has not run.
#[derive(Default)]
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Told {
    fn is_told(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Sends a frame of one and the same client off.
fn send(lane: &mut dyn Lane, frame: u8) -> Sent<'_> {
    lane.push(&record("c", &[frame], QoS::AtLeastOnce, false), false);
    lane.send(Box::new(|_, _| {}))
}

fn poll(sent: &mut Sent<'_>, told: &Arc<Told>) -> Poll<Result<(), SinkClosed>> {
    let waker = Waker::from(Arc::clone(told));
    sent.as_mut().poll(&mut Context::from_waker(&waker))
}

/// A spool whose way is closed: its sink has frame 0 and neither stores it nor gives it back.
fn closed() -> (tempfile::TempDir, Mute, OutageSink) {
    let directory = tempfile::tempdir().unwrap();
    let config = OutageConfig {
        outage_after: Duration::from_millis(40),
        ..OutageConfig::in_directory(&directory.path().join("spool"))
    };
    let primary = Mute(Arc::new(Mutex::new(World { away: true, ..World::default() })));
    let sink = OutageSink::start(Arc::new(primary.clone()), &config).unwrap();
    let mut lane = sink.lane();
    assert_eq!(poll(&mut send(&mut *lane, 0), &Arc::default()), Poll::Ready(Ok(())));
    until("the way is closed", || sink.health().spool.unwrap().state == "withdrawing");
    (directory, primary, sink)
}

#[test]
fn who_comes_as_the_way_opens_goes_behind_who_was_told_and_has_not_run() {
    let (_directory, primary, sink) = closed();
    let told = [(); 3].map(|()| Arc::new(Told::default()));
    let mut lanes = [(); 3].map(|()| sink.lane());
    let [one, two, three] = &mut lanes;
    let mut sent = [send(&mut **one, 1), send(&mut **two, 2), send(&mut **three, 3)];
    assert_eq!(poll(&mut sent[0], &told[0]), Poll::Pending);
    assert_eq!(poll(&mut sent[1], &told[1]), Poll::Pending);
    primary.world().gives_back = true;
    until("the way is open", || told[..2].iter().all(|told| told.is_told()));

    assert_eq!(poll(&mut sent[2], &told[2]), Poll::Pending, "it has just come");
    assert_eq!(poll(&mut sent[1], &told[1]), Poll::Pending, "it was not the first");
    for (sent, told) in sent.iter_mut().zip(&told) {
        until("it is told", || told.is_told());
        assert_eq!(poll(sent, told), Poll::Ready(Ok(())));
    }
    primary.come_back();
    until("all are stored", || primary.world().stored.len() == 4);
    assert_eq!(primary.world().stored, [0, 1, 2, 3]);
}

#[test]
fn a_link_that_ends_while_it_waits_gives_up_its_turn() {
    let (_directory, primary, sink) = closed();
    let told = [(); 2].map(|()| Arc::new(Told::default()));
    let (mut one, mut two) = (sink.lane(), sink.lane());
    let (mut first, mut second) = (send(&mut *one, 1), send(&mut *two, 2));
    assert_eq!(poll(&mut first, &told[0]), Poll::Pending);
    assert_eq!(poll(&mut second, &told[1]), Poll::Pending);
    primary.world().gives_back = true;
    until("the way is open", || told[1].0.swap(false, Ordering::SeqCst));
    assert_eq!(poll(&mut second, &told[1]), Poll::Pending);
    drop(first);
    assert!(told[1].is_told());
    assert_eq!(poll(&mut second, &told[1]), Poll::Ready(Ok(())));
}

#[test]
fn a_shard_that_dials_again_while_the_way_is_closed_has_its_frames_stored_in_order() {
    let (directory, primary, sink) = closed();
    let store = memory_store();
    let bridge = Bridge::start(BridgeConfig::default(), Arc::clone(&store), Arc::new(sink)).unwrap();
    let rig = Rig { bridge, store, directory };
    let mut shard = rig.shard(1);
    let mut other = rig.shard(2);
    shard.publish(uplink(1, "t", "1"));
    let (owner, epoch) = (owner(2), Epoch(8));
    shard.say(&ToBridge::Handover(Handover { client: "e", epoch, owner, session: b"", owes_will: false }));
    assert!(matches!(other.hear(), Heard::Handover { .. }), "what came before it waits for the way");
    let mut newer = rig.shard(1);
    while shard.hear() != Heard::Closed {}
    newer.publish(Uplink { resent: true, ..uplink(1, "t", "1") });
    newer.publish(uplink(2, "t", "2"));
    primary.world().gives_back = true;
    newer.until_settled(2);
    primary.come_back();
    until("all are stored", || primary.world().stored.len() == 3);
    assert_eq!(primary.world().stored, [0, b'1', b'2']);
}
