//! A sink that behaves like Kafka on a bad day: three partitions, a bounded queue, and an operator who breaks things.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Lane, OnSettled, Sent, Sink, SinkHealth, Verdict};
use tokio::sync::Notify;

pub(crate) const PARTITIONS: u64 = 3;
/// Frames that are in the sink at once; beyond it `send` waits.
pub(crate) const ROOM: usize = 200;

/// A frame as it stands in the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) client: String,
    pub(crate) number: u64,
    pub(crate) resent: bool,
}

impl Stored {
    fn line(&self) -> String {
        format!("{} {} {}\n", self.client, self.number, self.resent)
    }

    /// As a journal has it.
    pub(crate) fn from_line(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        Self { client: word().to_owned(), number: word().parse().unwrap(), resent: word() == "true" }
    }
}

/// What is wrong with the broker.
#[derive(Debug, Default)]
struct Trouble {
    hangs: bool,
    /// Before each frame.
    delay: Duration,
    leaderless: HashSet<u64>,
    /// It lost its way, and gives back everything until it is told that this was seen.
    lost: bool,
    /// It takes no frames whose number this divides.
    refuses: Option<u64>,
}

impl Trouble {
    fn refuses(&self, number: u64) -> Option<u8> {
        self.refuses.is_some_and(|divisor| number.is_multiple_of(divisor)).then_some(0x97)
    }
}

struct Pending {
    frame: Stored,
    number_in_batch: u32,
    settled: Arc<Mutex<OnSettled>>,
}

#[derive(Default)]
struct World {
    trouble: Trouble,
    queue: VecDeque<Pending>,
    stored: Vec<Stored>,
    /// Counts withdrawals: a send that waits for room across one is over.
    round: u64,
    dice: u64,
    closed: bool,
    journal: Option<File>,
}

impl World {
    fn store(&mut self, frame: &Stored) {
        if let Some(journal) = &mut self.journal {
            // In one write, so that a kill leaves whole lines.
            journal.write_all(frame.line().as_bytes()).unwrap();
        }
        self.stored.push(frame.clone());
    }

    fn chance(&mut self, of: u64) -> bool {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33).is_multiple_of(of)
    }
}

/// The broker. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Broker(Arc<Inner>);

struct Inner {
    world: Mutex<World>,
    changed: Condvar,
    room: Notify,
}

fn partition(client: &str) -> u64 {
    client.bytes().map(u64::from).sum::<u64>() % PARTITIONS
}

impl Broker {
    pub(crate) fn start(seed: u64) -> Self {
        Self::run_in(World { dice: seed, ..World::default() })
    }

    /// One that outlives its process in a file.
    pub(crate) fn with_journal(seed: u64, journal: File) -> Self {
        Self::run_in(World { dice: seed, journal: Some(journal), ..World::default() })
    }

    fn run_in(world: World) -> Self {
        let world = Mutex::new(world);
        let broker = Self(Arc::new(Inner { world, changed: Condvar::new(), room: Notify::new() }));
        let stores = broker.clone();
        std::thread::spawn(move || stores.run());
        broker
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap()
    }

    fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        change(&mut self.world().trouble);
        self.0.changed.notify_all();
    }

    pub(crate) fn hang(&self) {
        self.trouble(|trouble| trouble.hangs = true);
    }

    pub(crate) fn slow(&self, delay: Duration) {
        self.trouble(|trouble| trouble.delay = delay);
    }

    pub(crate) fn leaderless(&self, partition: u64) {
        self.trouble(|trouble| _ = trouble.leaderless.insert(partition));
    }

    pub(crate) fn refuse(&self, divisor: u64) {
        self.trouble(|trouble| trouble.refuses = Some(divisor));
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        self.trouble(|trouble| *trouble = Trouble { lost: trouble.lost, ..Trouble::default() });
    }

    /// All is well again, and it waits so long before each frame.
    pub(crate) fn heal_slowly(&self, delay: Duration) {
        self.trouble(|trouble| *trouble = Trouble { lost: trouble.lost, delay, ..Trouble::default() });
    }

    /// Like a fatal error of a producer: what it holds comes back unasked.
    pub(crate) fn lose_its_way(&self) {
        let given_back = {
            let mut world = self.world();
            world.trouble.lost = true;
            give_back(&mut world)
        };
        settle(given_back);
        self.0.room.notify_waiters();
    }

    /// As if the process that feeds it had died: what it holds is stored or not, and nobody hears of it.
    pub(crate) fn forget(&self) {
        let mut world = self.world();
        drop(give_back(&mut world));
        world.trouble = Trouble::default();
    }

    pub(crate) fn close(&self) {
        self.world().closed = true;
        self.0.changed.notify_all();
    }

    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.world().stored.clone()
    }

    pub(crate) fn queued(&self) -> usize {
        self.world().queue.len()
    }

    fn run(&self) {
        let mut world = self.world();
        while !world.closed {
            let trouble = &world.trouble;
            let ready = if trouble.hangs {
                None
            } else {
                world
                    .queue
                    .iter()
                    .position(|pending| !trouble.leaderless.contains(&partition(&pending.frame.client)))
            };
            let Some(pending) = ready.and_then(|at| world.queue.remove(at)) else {
                world = self.0.changed.wait(world).unwrap();
                continue;
            };
            world.store(&pending.frame);
            let delay = world.trouble.delay;
            drop(world);
            settle([(pending, Verdict::Stored)]);
            self.0.room.notify_waiters();
            if !delay.is_zero() {
                // A slow broker, not a wait for something.
                std::thread::sleep(delay);
            }
            world = self.world();
        }
    }
}

/// Takes everything out of the queue. For each partition some of the first frames were stored all the same.
fn give_back(world: &mut World) -> Vec<(Pending, Verdict)> {
    world.round += 1;
    let queue = std::mem::take(&mut world.queue);
    let mut ended = HashSet::new();
    let mut given_back = Vec::new();
    for pending in queue {
        let partition = partition(&pending.frame.client);
        if !ended.contains(&partition) && !world.chance(4) {
            world.store(&pending.frame);
        } else {
            ended.insert(partition);
        }
        given_back.push((pending, Verdict::Withdrawn));
    }
    given_back
}

fn settle(verdicts: impl IntoIterator<Item = (Pending, Verdict)>) {
    for (pending, verdict) in verdicts {
        let number = pending.number_in_batch;
        (pending.settled.lock().unwrap())(number..number + 1, verdict);
    }
}

impl Sink for Broker {
    fn lane(&self) -> Box<dyn Lane> {
        Box::new(BrokerLane { broker: self.clone(), gathered: Vec::new() })
    }

    fn health(&self) -> SinkHealth {
        SinkHealth { kind: "log", stores: true, spool: None }
    }

    fn withdraw(&self) {
        let given_back = {
            let mut world = self.world();
            world.trouble.lost = false;
            give_back(&mut world)
        };
        settle(given_back);
        self.0.room.notify_waiters();
    }
}

struct BrokerLane {
    broker: Broker,
    gathered: Vec<Stored>,
}

impl Lane for BrokerLane {
    fn push(&mut self, frame: &LogRecord<'_>, _: bool) {
        self.gathered.push(Stored {
            client: frame.message.publisher.to_owned(),
            number: u64::from_le_bytes(*frame.message.payload.first_chunk().unwrap()),
            resent: frame.resent,
        });
    }

    fn refuses(&mut self, frame: &LogRecord<'_>) -> Option<u8> {
        let number = u64::from_le_bytes(*frame.message.payload.first_chunk().unwrap());
        self.broker.world().trouble.refuses(number)
    }

    fn send(&mut self, settled: OnSettled) -> Sent<'_> {
        let frames = std::mem::take(&mut self.gathered);
        let round = self.broker.world().round;
        Box::pin(async move {
            let settled = Arc::new(Mutex::new(settled));
            let count = frames.len() as u32;
            for (number_in_batch, frame) in (0..).zip(frames) {
                let refused = self.broker.world().trouble.refuses(frame.number);
                if let Some(reason_code) = refused {
                    (settled.lock().unwrap())(
                        number_in_batch..number_in_batch + 1,
                        Verdict::Refused(reason_code),
                    );
                    continue;
                }
                loop {
                    let room = self.broker.0.room.notified();
                    tokio::pin!(room);
                    room.as_mut().enable();
                    let over = {
                        let mut world = self.broker.world();
                        let over = world.trouble.lost || world.round != round;
                        if !over && world.queue.len() < ROOM {
                            let settled = Arc::clone(&settled);
                            world.queue.push_back(Pending { frame, number_in_batch, settled });
                            self.broker.0.changed.notify_all();
                            break;
                        }
                        over
                    };
                    if over {
                        (settled.lock().unwrap())(number_in_batch..count, Verdict::Withdrawn);
                        return Ok(());
                    }
                    room.await;
                }
            }
            Ok(())
        })
    }
}

/// Whether the broker has all that was acknowledged.
pub(crate) fn has_all(stored: &[Stored], acknowledged: &HashMap<String, Vec<Range<u64>>>) -> bool {
    let stored: HashSet<(&str, u64)> = stored.iter().map(|frame| (&*frame.client, frame.number)).collect();
    acknowledged.iter().all(|(client, ranges)| {
        ranges.iter().cloned().flatten().all(|number| stored.contains(&(client, number)))
    })
}

/// Panics unless each client's frames came in order, each frame that was acknowledged is there, and what is there twice says so.
#[track_caller]
pub(crate) fn assert_kept(stored: &[Stored], acknowledged: &HashMap<String, Vec<Range<u64>>>) {
    let mut seen = HashSet::new();
    for frame in stored {
        let is_first = seen.insert((&frame.client, frame.number));
        assert!(is_first || frame.resent, "{frame:?} is there twice and does not say so");
    }
    assert_kept_by_kafka(stored, acknowledged);
}

/// The same of a broker that may write an original behind its copy (docs/records.md, "The rare copy"): of what is there twice all but one say so.
#[track_caller]
pub(crate) fn assert_kept_by_kafka(stored: &[Stored], acknowledged: &HashMap<String, Vec<Range<u64>>>) {
    let mut seen: HashMap<&str, HashSet<u64>> = HashMap::new();
    let mut unmarked: HashSet<(&str, u64)> = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for (at, frame) in stored.iter().enumerate() {
        let is_second = !frame.resent && !unmarked.insert((&frame.client, frame.number));
        assert!(!is_second, "{frame:?} is there twice and neither says so");
        if !seen.entry(&frame.client).or_default().insert(frame.number) {
            continue;
        }
        if let Some(before) = last.insert(&frame.client, frame.number) {
            assert!(before < frame.number, "place {at}: {frame:?} comes behind {before}");
        }
    }
    for (client, ranges) in acknowledged {
        let seen = seen.get(client.as_str()).cloned().unwrap_or_default();
        let lost: Vec<u64> =
            ranges.iter().cloned().flatten().filter(|number| !seen.contains(number)).collect();
        assert!(lost.is_empty(), "{client}: {lost:?} were acknowledged and are gone");
    }
}
