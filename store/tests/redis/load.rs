//! A load of appends, and what came of each: so that a fault in the middle of it can be judged by what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{RedisOptions, RedisStore, Store};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Offset, StreamKey};

use crate::world::{ALICE, text_of};

/// Appends that wait for their answer at once.
const IN_FLIGHT: usize = 64;
/// A busy machine may let a failover wait.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Devices whose streams are appended to, in as many partitions as there are by chance.
const DEVICES: usize = 24;

pub(crate) fn connect(url: &str) -> RedisStore {
    RedisStore::connect(url, RedisOptions::default()).unwrap_or_else(|error| panic!("{url}: {error}"))
}

pub(crate) fn ask(store: &RedisStore, request: Request) -> Result<Reply, StoreError> {
    let (answered, answers) = mpsc::sync_channel(1);
    store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    answers.recv_timeout(PATIENCE).expect("an answer always comes")
}

/// Asks until it is carried out; all that is answered until then is that the store is unavailable.
pub(crate) fn ask_until_done(store: &RedisStore, request: &Request) -> Reply {
    let started = Instant::now();
    loop {
        match ask(store, request.clone()) {
            Ok(reply) => return reply,
            Err(StoreError::Unavailable(why)) => assert!(started.elapsed() < PATIENCE, "still: {why}"),
            Err(error) => panic!("{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn open(store: &RedisStore, client: &str) -> Epoch {
    let client = ClientId::new(client);
    let request = Request::Open { client, owner: ALICE, clean_start: false, expiry_s: 3_600, will: None };
    let Reply::Opened(opened) = ask_until_done(store, &request) else { panic!("it opens") };
    opened.epoch
}

pub(crate) fn message(text: &str) -> SharedMessage {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    SharedMessage::new(&Message {
        id: 1,
        topic: "t",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "",
        published_at_ms: u64::try_from(now.as_millis()).unwrap(),
        expires_at_ms: 0,
        properties: &[],
        payload: text.as_bytes(),
    })
}

/// All messages of a stream.
pub(crate) fn read(store: &RedisStore, stream: &StreamKey) -> Vec<(Offset, String)> {
    let mut all: Vec<(Offset, String)> = Vec::new();
    loop {
        let after = all.last().map_or(0, |(offset, _)| *offset);
        let request =
            Request::Read { stream: stream.clone(), after, messages_max: 1_000, bytes_max: u32::MAX };
        let Reply::Messages { messages, .. } = ask_until_done(store, &request) else { panic!("it reads") };
        if messages.is_empty() {
            return all;
        }
        all.extend(messages.into_iter().map(|(offset, message)| (offset, text_of(&message))));
    }
}

/// Devices, what was appended for them, and what was answered.
pub(crate) struct Load<'a> {
    store: &'a RedisStore,
    epochs: BTreeMap<String, Epoch>,
    next: usize,
    acknowledged: BTreeSet<usize>,
    refused: BTreeSet<usize>,
    /// By device.
    last_acknowledged: Vec<Instant>,
    longest_silence: Duration,
    answered: mpsc::Sender<(usize, Result<Reply, StoreError>)>,
    answers: mpsc::Receiver<(usize, Result<Reply, StoreError>)>,
    waiting: usize,
}

impl<'a> Load<'a> {
    /// Opens the devices' sessions.
    pub(crate) fn new(store: &'a RedisStore) -> Self {
        let (answered, answers) = mpsc::channel();
        let clients = (0..DEVICES).map(|number| format!("device-{number}"));
        let epochs = clients.map(|client| (client.clone(), open(store, &client))).collect();
        Self {
            store,
            epochs,
            next: 0,
            acknowledged: BTreeSet::new(),
            refused: BTreeSet::new(),
            last_acknowledged: vec![Instant::now(); DEVICES],
            longest_silence: Duration::ZERO,
            answered,
            answers,
            waiting: 0,
        }
    }

    /// Goes on until so many more are acknowledged for each device.
    pub(crate) fn run(&mut self, appends: usize) {
        let started = Instant::now();
        let begin = self.next;
        self.last_acknowledged.fill(Instant::now());
        let mut missing = vec![appends; DEVICES];
        while missing.iter().any(|appends| *appends > 0) {
            assert!(started.elapsed() < PATIENCE, "still missing: {missing:?}");
            while self.waiting < IN_FLIGHT {
                self.append();
            }
            if let Some(number) = self.take_answer().filter(|number| *number >= begin) {
                let missing = &mut missing[number % DEVICES];
                *missing = missing.saturating_sub(1);
            }
        }
        while self.waiting > 0 {
            self.take_answer();
        }
    }

    fn append(&mut self) {
        let (number, answered) = (self.next, self.answered.clone());
        let streams = vec![stream_of(number)];
        let message = message(&number.to_string());
        let request = Request::Append { streams, message, collapse_key: None };
        self.next += 1;
        self.waiting += 1;
        self.store.submit(request, Box::new(move |answer| drop(answered.send((number, answer)))));
    }

    /// Gives which append was acknowledged.
    fn take_answer(&mut self) -> Option<usize> {
        let (number, answer) = self.answers.recv_timeout(PATIENCE).expect("an answer always comes");
        self.waiting -= 1;
        match answer {
            Ok(Reply::Appended { at, .. }) => {
                assert_eq!(at.len(), 1, "the session of {number} is there");
                self.acknowledged.insert(number);
                let last = &mut self.last_acknowledged[number % DEVICES];
                self.longest_silence = self.longest_silence.max(last.elapsed());
                *last = Instant::now();
                Some(number)
            }
            Ok(other) => panic!("{other:?}"),
            Err(StoreError::Unavailable(_)) => {
                self.refused.insert(number);
                // Not a busy loop of refusals.
                std::thread::sleep(Duration::from_millis(1));
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The longest time for which nothing was acknowledged for some device.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.longest_silence
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }

    /// Everything that was acknowledged is there, once, in the order in which it was asked, and nothing else but what may or may
    /// not have been carried out.
    pub(crate) fn check(&self) {
        let mut found = BTreeSet::new();
        for device in 0..DEVICES {
            let texts = read(self.store, &stream_of(device));
            let numbers: Vec<usize> = texts.iter().map(|(_, text)| text.parse().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "device {device}: {numbers:?}");
            let offsets: Vec<_> = texts.iter().map(|(offset, _)| *offset).collect();
            assert!(offsets.iter().zip(1..).all(|(offset, place)| *offset == place), "{offsets:?}");
            found.extend(numbers);
        }
        let lost: Vec<_> = self.acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let more: Vec<_> = found.difference(&self.acknowledged).collect();
        assert!(more.iter().all(|number| self.refused.contains(number)), "nobody asked for {more:?}");
    }

    /// For each device whether its session was found, or the store unavailable, and how long that took.
    pub(crate) fn lookup_each(&self) -> Vec<(bool, Duration)> {
        let lookup = |client: &String| {
            let asked = Instant::now();
            match ask(self.store, Request::Lookup { client: ClientId::new(client) }) {
                Ok(Reply::Session(session)) => (session.is_some(), asked.elapsed()),
                Err(StoreError::Unavailable(_)) => (false, asked.elapsed()),
                other => panic!("{other:?}"),
            }
        };
        self.epochs.keys().map(lookup).collect()
    }

    /// Each session is there, and is opened with an epoch that is larger than the former one.
    pub(crate) fn check_epochs(&self) {
        for (client, former) in &self.epochs {
            let request = Request::Open {
                client: ClientId::new(client),
                owner: ALICE,
                clean_start: false,
                expiry_s: 3_600,
                will: None,
            };
            let Reply::Opened(opened) = ask_until_done(self.store, &request) else { panic!("it opens") };
            assert!(opened.session.is_some(), "{client} is there");
            assert!(opened.epoch > *former, "{client}: {:?} after {former:?}", opened.epoch);
        }
    }
}

/// The stream that an append of this number goes to.
fn stream_of(number: usize) -> StreamKey {
    StreamKey::Device(format!("device-{}", number % DEVICES).into())
}
