//! What happens when the disk fails: a file whose room is taken away and given back, and one that stands still.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{StreamKey, SubscriptionRecord};
use redb::{Database, DatabaseError, StorageBackend, backends::FileBackend};

use super::disk::{Medium, builder};
use super::journal::COMMIT_DEADLINE;
use super::{Directory, EmbeddedStore};
use crate::Options;
use crate::contract::{Reply, Request, Store, StoreError};

const DEADLINE: Duration = Duration::from_secs(30);
const OWNER: Owner = Owner { node: NodeId(1), shard: ShardId(0) };

/// A disk that a test can fill and stop.
#[derive(Clone, Debug, Default)]
struct Weather {
    full: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
    /// Writes that are still let through once it is full: the failure may come anywhere in a commit.
    grace: Arc<AtomicU64>,
    /// Writes wait for as long as it is true.
    stalled: Arc<(Mutex<bool>, Condvar)>,
}

impl Weather {
    fn stall(&self, stalled: bool) {
        *self.stalled.0.lock().unwrap() = stalled;
        self.stalled.1.notify_all();
    }

    fn write_allowed(&self) -> io::Result<()> {
        drop(self.stalled.1.wait_while(self.stalled.0.lock().unwrap(), |stalled| *stalled).unwrap());
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("the device does not answer"));
        }
        let spend = |left: u64| left.checked_sub(1);
        if self.full.load(Ordering::SeqCst)
            && self.grace.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_err()
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct WeatheredFile {
    file: FileBackend,
    weather: Weather,
}

impl StorageBackend for WeatheredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.weather.write_allowed()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.weather.write_allowed()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.weather.write_allowed()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

struct WeatheredMedium {
    file: std::path::PathBuf,
    weather: Weather,
}

impl Medium for WeatheredMedium {
    fn open(&self) -> Result<Database, DatabaseError> {
        let file =
            std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&self.file)?;
        let file = FileBackend::new(file)?;
        builder().create_with_backend(WeatheredFile { file, weather: self.weather.clone() })
    }
}

fn store(directory: &std::path::Path, weather: &Weather) -> EmbeddedStore {
    store_with_deadline(directory, weather, COMMIT_DEADLINE)
}

fn store_with_deadline(directory: &std::path::Path, weather: &Weather, deadline: Duration) -> EmbeddedStore {
    let medium = WeatheredMedium { file: directory.join("store.redb"), weather: weather.clone() };
    let directory = Directory::lock(directory).unwrap();
    EmbeddedStore::on(Box::new(medium), directory, Options::default(), deadline).unwrap()
}

fn ask(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    let (answered, answers) = mpsc::sync_channel(1);
    store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    answers.recv_timeout(DEADLINE).expect("an answer always comes")
}

fn open(store: &dyn Store, client: &str, expiry_s: u32) -> Result<Epoch, StoreError> {
    match ask(store, open_request(client, expiry_s))? {
        Reply::Opened(opened) => Ok(opened.epoch),
        other => panic!("{other:?}"),
    }
}

fn open_request(client: &str, expiry_s: u32) -> Request {
    let client = ClientId::new(client);
    Request::Open { client, owner: OWNER, clean_start: false, expiry_s, will: None }
}

fn append(store: &dyn Store, text: &str) -> Result<Reply, StoreError> {
    let message = SharedMessage::new(&Message {
        id: 1,
        topic: "a",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "",
        published_at_ms: crate::clock::system()(),
        expires_at_ms: 0,
        properties: &[],
        payload: text.as_bytes(),
    });
    ask(store, Request::Append { streams: vec![StreamKey::Filter("a".into())], message, collapse_key: None })
}

fn subscribe(store: &dyn Store) {
    let epoch = open(store, "reader", 3_600).unwrap();
    let subscriptions = vec![SubscriptionRecord {
        filter: "a".into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    }];
    ask(store, Request::Subscribe { client: ClientId::new("reader"), epoch, subscriptions }).unwrap();
}

fn texts(store: &dyn Store) -> Vec<String> {
    let stream = StreamKey::Filter("a".into());
    let read = Request::Read { stream, after: 0, messages_max: u32::MAX, bytes_max: u32::MAX };
    let Ok(Reply::Messages { messages, .. }) = ask(store, read) else { panic!("a read is answered") };
    messages.iter().map(|(_, message)| String::from_utf8(message.view().payload.to_vec()).unwrap()).collect()
}

/// Asks again until it is taken; the store retries four times a second.
fn append_once_there_is_room(store: &dyn Store, text: &str) {
    let give_up = Instant::now() + DEADLINE;
    while let Err(refusal) = append(store, text) {
        assert!(Instant::now() < give_up, "still refused: {refusal}");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_without_a_restart_once_there_is_room() {
    // Wherever in a commit the room runs out.
    for grace in 0..14 {
        let directory = tempfile::tempdir().unwrap();
        let weather = Weather::default();
        let embedded = store(directory.path(), &weather);
        subscribe(&embedded);
        append(&embedded, "before").unwrap();

        weather.grace.store(grace, Ordering::SeqCst);
        weather.full.store(true, Ordering::SeqCst);
        // A commit or two may still fit.
        let mut acknowledged = vec!["before".to_owned()];
        let mut number = 0;
        let refusal = loop {
            let text = number.to_string();
            match append(&embedded, &text) {
                Ok(_) => acknowledged.push(text),
                Err(refusal) => break refusal,
            }
            number += 1;
        };
        assert!(matches!(refusal, StoreError::Full(_)), "{refusal:?}");
        assert!(matches!(open(&embedded, "kept", 60), Err(StoreError::Full(_))));
        assert!(open(&embedded, "clean", 0).is_ok(), "what needs no disk goes on");
        assert!(embedded.is_refusing());

        weather.full.store(false, Ordering::SeqCst);
        append_once_there_is_room(&embedded, "after");
        acknowledged.push("after".to_owned());
        assert!(!embedded.is_refusing());
        drop(embedded);

        let embedded = store(directory.path(), &weather);
        let stored = texts(&embedded);
        assert!(
            acknowledged.iter().all(|text| stored.contains(text)),
            "grace {grace}: {acknowledged:?} were acknowledged and {stored:?} are there"
        );
    }
}

#[test]
fn what_was_acknowledged_before_the_disk_filled_survives_a_death_while_it_is_full() {
    for grace in 0..14 {
        let directory = tempfile::tempdir().unwrap();
        let weather = Weather::default();
        let embedded = store(directory.path(), &weather);
        subscribe(&embedded);
        weather.grace.store(grace, Ordering::SeqCst);
        weather.full.store(true, Ordering::SeqCst);
        let mut acknowledged = Vec::new();
        while append(&embedded, &acknowledged.len().to_string()).is_ok() {
            acknowledged.push(acknowledged.len().to_string());
        }
        drop(embedded);
        weather.full.store(false, Ordering::SeqCst);
        let stored = texts(&store(directory.path(), &weather));
        assert!(acknowledged.iter().all(|text| stored.contains(text)), "grace {grace}: {stored:?}");
    }
}

#[test]
fn a_device_that_fails_is_not_mistaken_for_a_full_one() {
    let directory = tempfile::tempdir().unwrap();
    let weather = Weather::default();
    let embedded = store(directory.path(), &weather);
    subscribe(&embedded);
    weather.broken.store(true, Ordering::SeqCst);
    assert!(matches!(append(&embedded, "x"), Err(StoreError::Unavailable(_))));
    weather.broken.store(false, Ordering::SeqCst);
    append_once_there_is_room(&embedded, "y");
}

#[test]
fn a_disk_that_stands_still_is_answered_for_and_taken_back_when_it_moves() {
    let directory = tempfile::tempdir().unwrap();
    let weather = Weather::default();
    let embedded = store_with_deadline(directory.path(), &weather, Duration::from_millis(500));
    subscribe(&embedded);
    weather.stall(true);
    let (answered, answers) = mpsc::sync_channel(1);
    let open_kept = open_request("kept", 60);
    embedded.submit(open_kept, Box::new(move |answer| answered.send(answer).unwrap()));
    let give_up = Instant::now() + DEADLINE;
    let answer = loop {
        // Anyone's request sees that the deadline has passed.
        open(&embedded, "clean", 0).unwrap();
        if let Ok(answer) = answers.try_recv() {
            break answer;
        }
        assert!(Instant::now() < give_up, "nobody answers for the disk");
    };
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(matches!(append(&embedded, "meanwhile"), Err(StoreError::Unavailable(_))), "refused at once");
    weather.stall(false);
    append_once_there_is_room(&embedded, "after");
}

#[test]
fn the_journal_is_bounded_and_refuses_at_once_when_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let weather = Weather::default();
    let embedded = store(directory.path(), &weather);
    weather.stall(true);
    let refused = Arc::new(AtomicBool::new(false));
    let mut submitted = 0;
    while !refused.load(Ordering::SeqCst) {
        let refused = Arc::clone(&refused);
        embedded.submit(
            open_request("kept", 60),
            Box::new(move |answer| refused.store(answer.is_err(), Ordering::SeqCst)),
        );
        submitted += 1;
        assert!(submitted < 1_000_000, "it grows without a bound");
    }
    weather.stall(false);
}

#[test]
fn dropping_the_store_writes_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let weather = Weather::default();
    let embedded = store(directory.path(), &weather);
    subscribe(&embedded);
    let count = 500;
    let (answered, answers) = mpsc::sync_channel(count);
    for number in 0..count {
        let answered = answered.clone();
        embedded.submit(
            open_request(&number.to_string(), 60),
            Box::new(move |answer| answered.send(answer.is_ok()).unwrap()),
        );
    }
    drop(embedded);
    drop(answered);
    assert_eq!(answers.iter().filter(|ok| *ok).count(), count);
}
