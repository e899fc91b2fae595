//! What every store counts of the messages that its bounds cost.

use std::sync::Once;

use metrics::counter;

const DROPPED: &str = "holdfast_store_messages_dropped_total";

/// Why a message left a stream, or did not come into it, before its readers had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It reached the age that a stream allows.
    TooOld,
    /// It was among the oldest of a full stream.
    StreamFull,
    /// The store was full, and its stream held most.
    StoreFull,
    /// Its stream was full and keeps what it has.
    Refused,
    /// It was a will, and those that wait to be published took all the room they may have.
    Will,
}

impl Dropped {
    fn label(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::StreamFull => "stream_full",
            Self::StoreFull => "store_full",
            Self::Refused => "refused",
            Self::Will => "will",
        }
    }
}

/// Tells the recorder what the names mean; once a process.
pub(crate) fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        metrics::describe_counter!(DROPPED, "Messages that a bound took from those who had yet to read them");
    });
}

/// Counts messages; none leaves no trace.
pub(crate) fn count_dropped(why: Dropped, messages: u64) {
    if messages > 0 {
        counter!(DROPPED, "reason" => why.label()).increment(messages);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use holdfast_wire::ids::{ClientId, NodeId, Owner, ShardId};
    use holdfast_wire::message::{Message, SharedMessage};
    use holdfast_wire::mqtt::QoS;
    use holdfast_wire::session_record::StreamKey;
    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

    use crate::contract::{Bounds, Request, Store, StreamBounds, WhenFull};
    use crate::memory::MemoryStore;

    /// Counters by their only label.
    #[derive(Default)]
    struct Counted(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Recorder for Counted {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let reason = key.labels().map(|label| label.value().to_owned()).collect();
            Counter::from_arc(Arc::clone(self.0.lock().unwrap().entry(reason).or_default()))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    fn connect(store: &MemoryStore, client: &str) {
        let (client, owner) = (ClientId::new(client), Owner { node: NodeId(1), shard: ShardId(0) });
        let open = Request::Open { client, owner, clean_start: false, expiry_s: 60, will: None };
        store.submit(open, Box::new(drop));
    }

    fn append(store: &MemoryStore, client: &str, published_at_ms: u64) {
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
        store.submit(Request::Append { streams, message, collapse_key: None }, Box::new(drop));
    }

    /// Appends five messages for each of three devices, of which a stream takes three and all streams seven, and elsewhere one that is
    /// old already.
    fn dropped(when_full: WhenFull) -> HashMap<String, u64> {
        let stream =
            StreamBounds { messages_max: 3, age_ms_max: 1_000, when_full, ..StreamBounds::default() };
        let bounds = Bounds { stream, message_bytes_max: 7_700, ..Bounds::default() };
        let counted = Counted::default();
        metrics::with_local_recorder(&counted, || {
            let store = MemoryStore::new(Arc::new(|| 10_000), bounds);
            for client in ["a", "b", "c"] {
                connect(&store, client);
                (0..5).for_each(|_| append(&store, client, 10_000));
            }
            let another = MemoryStore::new(Arc::new(|| 10_000), bounds);
            connect(&another, "d");
            append(&another, "d", 9_000);
        });
        let counted = counted.0.into_inner().unwrap();
        counted.into_iter().map(|(reason, count)| (reason, count.load(Ordering::Relaxed))).collect()
    }

    #[test]
    fn what_bounds_cost_is_counted_with_its_reason() {
        let expected = |reasons: &[(&str, u64)]| {
            reasons.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect::<HashMap<_, _>>()
        };
        let oldest = dropped(WhenFull::DropOldest);
        assert_eq!(oldest, expected(&[("stream_full", 6), ("store_full", 2), ("too_old", 1)]));
        let newest = dropped(WhenFull::DropNewest);
        assert_eq!(newest, expected(&[("refused", 6), ("store_full", 2), ("too_old", 1)]));
    }
}
