//! librdkafka's own producer with the records that a bridge would write: what Kafka takes on this machine, how soon, and for how much CPU, when
//! nothing stands in front of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

const POLL: Duration = Duration::from_millis(20);

/// Records that wait for their reports; full: whoever sends waits. As many as a bridge has room for.
const QUEUE_RECORDS_MAX: &str = "200000";

/// How it is set up; a bridge beside it must be given the same.
#[derive(Debug, Clone)]
pub struct ProducerPlan {
    /// `HOST:PORT,…`
    pub brokers: String,
    /// Where the records go; it exists.
    pub topic: String,
    /// librdkafka's `linger.ms`.
    pub linger_ms: u32,
    /// `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: String,
    /// librdkafka's `batch.size`.
    pub batch_bytes_max: u32,
}

/// Why a record did not get there.
#[derive(Debug, thiserror::Error)]
#[error("librdkafka's own producer: {0}")]
pub struct ProducerError(KafkaError);

/// A producer with acks=all and idempotence, and the thread that hears its reports.
pub struct OwnProducer {
    producer: Arc<BaseProducer<Reports>>,
    topic: String,
    over: Arc<AtomicBool>,
    poller: Option<JoinHandle<()>>,
}

struct Reports {
    origin: Instant,
    settled: AtomicU64,
    latencies_us: Mutex<Histogram<u64>>,
    failed: Mutex<Option<KafkaError>>,
}

/// What stays the same in the records of one device.
pub(crate) struct DeviceRecords {
    pub(crate) client_id: String,
    pub(crate) topic: String,
    pub(crate) id: String,
    pub(crate) packet_id: String,
}

/// The time of arrival, told once for the records of a burst.
pub(crate) struct Now {
    ms: i64,
    text: String,
}

impl Now {
    pub(crate) fn read() -> Self {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        Self { ms, text: ms.to_string() }
    }
}

impl OwnProducer {
    /// Connects in the background.
    pub fn start(plan: &ProducerPlan) -> Result<Self, ProducerError> {
        let mut native = ClientConfig::new();
        for (name, value) in [
            ("bootstrap.servers", plan.brokers.as_str()),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("message.timeout.ms", "0"),
            // The bridge's, so that a device's records lie in the same partition.
            ("partitioner", "murmur2_random"),
            ("compression.type", &plan.compression),
            ("linger.ms", &plan.linger_ms.to_string()),
            ("batch.size", &plan.batch_bytes_max.to_string()),
            ("queue.buffering.max.messages", QUEUE_RECORDS_MAX),
        ] {
            native.set(name, value);
        }
        let reports = Reports {
            origin: Instant::now(),
            settled: AtomicU64::new(0),
            latencies_us: Mutex::new(latencies()),
            failed: Mutex::new(None),
        };
        let producer: BaseProducer<Reports> = native.create_with_context(reports).map_err(ProducerError)?;
        let producer = Arc::new(producer);
        let over = Arc::new(AtomicBool::new(false));
        let (polled, stop) = (Arc::clone(&producer), Arc::clone(&over));
        let poller = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                polled.poll(POLL);
            }
        });
        Ok(Self { producer, topic: plan.topic.clone(), over, poller: Some(poller) })
    }

    /// When its clock began.
    pub(crate) fn origin(&self) -> Instant {
        self.producer.context().origin
    }

    /// Records that Kafka has; an error once one was refused.
    pub(crate) fn settled(&self) -> Result<u64, ProducerError> {
        let context = self.producer.context();
        match locked(&context.failed).take() {
            Some(error) => Err(ProducerError(error)),
            None => Ok(context.settled.load(Ordering::Acquire)),
        }
    }

    /// Forgets the latencies so far and hands them out, in us.
    pub(crate) fn take_latencies(&self) -> Histogram<u64> {
        std::mem::replace(&mut *locked(&self.producer.context().latencies_us), latencies())
    }

    /// Hands a record over that was due at `due`, from which its latency counts. False: librdkafka's queue is full.
    pub(crate) fn send(
        &self,
        device: &DeviceRecords,
        payload: &[u8],
        now: &Now,
        due: Instant,
    ) -> Result<bool, ProducerError> {
        let texts = [
            ("topic", device.topic.as_str()),
            ("client-id", &device.client_id),
            ("qos", "1"),
            ("id", &device.id),
            ("packet-id", &device.packet_id),
            ("session", "1"),
            ("node", "0000000000000abc"),
            ("received-at", &now.text),
        ];
        let mut headers = OwnedHeaders::new_with_capacity(texts.len());
        for (key, value) in texts {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let due_ns = due.saturating_duration_since(self.origin()).as_nanos() as usize;
        let record = BaseRecord::with_opaque_to(&self.topic, due_ns)
            .key(&device.client_id)
            .payload(payload)
            .timestamp(now.ms)
            .headers(headers);
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(ProducerError(error)),
        }
    }
}

impl Drop for OwnProducer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // A poller that panicked has nothing more to tell.
        let _ = self.poller.take().map(JoinHandle::join);
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due_ns: usize) {
        if let Err((error, _)) = result {
            *locked(&self.failed) = Some(error.clone());
            return;
        }
        let latency = self.origin.elapsed().saturating_sub(Duration::from_nanos(due_ns as u64));
        locked(&self.latencies_us).saturating_record(latency.as_micros() as u64);
        self.settled.fetch_add(1, Ordering::Release);
    }
}

/// Up to a minute in us.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds are valid")
}

/// What is behind the lock is sound at every step.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
