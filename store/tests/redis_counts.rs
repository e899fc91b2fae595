//! Messages that a bound of the Redis store took are counted with their reason. Alone in its process, because counters are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[allow(dead_code, reason = "other tests use the rest of it")]
#[path = "contract/redis_server.rs"]
mod redis_server;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{Bounds, RedisOptions, RedisStore, Store, StreamBounds, WhenFull};
use holdfast_wire::ids::{ClientId, NodeId, Owner, ShardId};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use redis_server::RedisServer;

const DROPPED: &str = "holdfast_store_messages_dropped_total";

/// Messages that were dropped, by reason.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl Counts {
    fn of(&self, reason: &str) -> Arc<AtomicU64> {
        Arc::clone(self.0.lock().unwrap().entry(reason.to_owned()).or_default())
    }

    /// Those that are not zero, and zero again.
    fn take(&self) -> HashMap<String, u64> {
        let counts = self.0.lock().unwrap();
        let taken = counts.iter().map(|(reason, count)| (reason.clone(), count.swap(0, Ordering::AcqRel)));
        taken.filter(|(_, count)| *count > 0).collect()
    }
}

impl Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.labels().next() {
            Some(reason) if key.name() == DROPPED => Counter::from_arc(self.of(reason.value())),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn ask(store: &RedisStore, request: Request) -> Result<Reply, StoreError> {
    let (answered, answers) = mpsc::channel();
    store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    answers.recv().unwrap()
}

fn connect(store: &RedisStore, client: &str) {
    let (client, owner) = (ClientId::new(client), Owner { node: NodeId(1), shard: ShardId(0) });
    ask(store, Request::Open { client, owner, clean_start: false, expiry_s: 60, will: None }).unwrap();
}

fn append(store: &RedisStore, client: &str, published_at_ms: u64) {
    let message = SharedMessage::new(&Message {
        id: 1,
        topic: "t",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "",
        published_at_ms,
        expires_at_ms: 0,
        properties: &[],
        payload: &[7; 1_000],
    });
    let streams = vec![StreamKey::Device(client.into())];
    ask(store, Request::Append { streams, message, collapse_key: None }).unwrap();
}

/// Messages that are left for a device.
fn left(store: &RedisStore, client: &str) -> u64 {
    let stream = StreamKey::Device(client.into());
    let read = Request::Read { stream, after: 0, messages_max: 1_000, bytes_max: u32::MAX };
    let Ok(Reply::Messages { messages, .. }) = ask(store, read) else { panic!("it reads") };
    messages.len() as u64
}

#[test]
fn what_bounds_cost_in_redis_is_counted_with_its_reason() {
    const APPENDED: u64 = 10;
    let counts = Counts::default();
    metrics::set_global_recorder(counts.clone()).unwrap();
    let server = RedisServer::start("");
    let store = |prefix: &str, stream, message_bytes_max| {
        let bounds = Bounds { stream, message_bytes_max, ..Bounds::default() };
        let (clock, prefix): (holdfast_store::clock::Clock, _) = (Arc::new(|| 10_000), prefix.to_owned());
        let options = RedisOptions { bounds, prefix, clock: Some(clock), ..RedisOptions::default() };
        let store = RedisStore::connect(&server.url(), options).unwrap();
        connect(&store, "d");
        store
    };
    let counted = |reason: &str, count| HashMap::from([(reason.to_owned(), count)]);
    let stream = StreamBounds { messages_max: 3, age_ms_max: 1_000, ..StreamBounds::default() };

    for (when_full, reason) in [(WhenFull::DropOldest, "stream_full"), (WhenFull::DropNewest, "refused")] {
        let store = store(reason, StreamBounds { when_full, ..stream }, 1 << 20);
        (0..APPENDED).for_each(|_| append(&store, "d", 10_000));
        assert_eq!(left(&store, "d"), 3);
        assert_eq!(counts.take(), counted(reason, APPENDED - 3));
    }

    let wide = StreamBounds { messages_max: 1_000, ..stream };
    let full = store("store-full", wide, 7_700);
    (0..APPENDED).for_each(|_| append(&full, "d", 10_000));
    let kept = left(&full, "d");
    assert!((1..=7).contains(&kept), "seven fit: {kept}");
    assert_eq!(counts.take(), counted("store_full", APPENDED - kept));

    let old = store("too-old", wide, 1 << 20);
    append(&old, "d", 9_000);
    append(&old, "d", 10_000);
    // A sweep cuts it, or the next append does.
    let mut too_old = HashMap::new();
    redis_server::until("what is too old is counted", || {
        too_old.extend(counts.take());
        !too_old.is_empty()
    });
    assert_eq!(too_old, counted("too_old", 1));
    assert_eq!(left(&old, "d"), 1);
}
