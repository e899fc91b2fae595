//! A real Kafka, ways into it and out of it, and what came back.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::log::LogRecord;
use holdfast_bridge::sink::{Lane, Sink, Verdict};
use holdfast_wire::ids::{Epoch, NodeId};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, QoS};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A broker of our own, stopped with this process at the latest.
pub(crate) struct Broker {
    pub(crate) brokers: String,
    pub(crate) sasl: String,
    /// TLS, and SASL over it, with certificates that `ca` (a file) signed.
    pub(crate) ssl: String,
    pub(crate) sasl_ssl: String,
    pub(crate) ca: String,
    directory: PathBuf,
    _keep: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn start() -> Self {
        Self::start_many(1)
    }

    /// One or three, of which each may have a replica.
    pub(crate) fn start_many(brokers: usize) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let directory = keep.path().join("kafka");
        let lines = run(&directory, &["--tls", "--brokers", &brokers.to_string()]);
        let value = |name: &str| lines.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        Self {
            brokers: value("KAFKA_BROKERS="),
            sasl: value("KAFKA_SASL_BROKERS="),
            ssl: value("KAFKA_SSL_BROKERS="),
            sasl_ssl: value("KAFKA_SASL_SSL_BROKERS="),
            ca: value("KAFKA_CA="),
            directory,
            _keep: keep,
        }
    }

    /// What the environment names.
    fn foreign() -> Option<Self> {
        let brokers = std::env::var("KAFKA_BROKERS").ok()?;
        let keep = tempfile::tempdir().unwrap();
        let directory = keep.path().join("kafka");
        let nothing = String::new;
        let (sasl, ssl, sasl_ssl, ca) = (nothing(), nothing(), nothing(), nothing());
        Some(Self { brokers, sasl, ssl, sasl_ssl, ca, directory, _keep: keep })
    }

    /// Starts it again with what it has stored, after a signal has ended it.
    pub(crate) fn restart(&self) {
        run(&self.directory, &[]);
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.directory.join("broker-1/pid")).unwrap();
        assert!(Command::new("kill").args([&format!("-{name}"), pid.trim()]).status().unwrap().success());
    }
}

/// Gives the addresses.
fn run(directory: &std::path::Path, options: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/services/kafka.sh");
    let output = Command::new(script)
        .args(["start", "--while", &std::process::id().to_string()])
        .args(options)
        .arg(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for Broker {
    fn drop(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/services/kafka.sh");
        let _ = Command::new(script).arg("stop").arg(&self.directory).status();
    }
}

/// The broker that all tests share which leave it running: that of `KAFKA_BROKERS`, of which nothing but these addresses is known, or one of our own.
pub(crate) fn shared() -> &'static Broker {
    static FOREIGN: OnceLock<Option<Broker>> = OnceLock::new();
    FOREIGN.get_or_init(Broker::foreign).as_ref().unwrap_or_else(guarded)
}

/// One of our own that all tests share which leave it running, with its listeners for TLS and SASL.
pub(crate) fn guarded() -> &'static Broker {
    static GUARDED: OnceLock<Broker> = OnceLock::new();
    GUARDED.get_or_init(Broker::start)
}

/// A name that no other test has, nor had one of an earlier run.
pub(crate) fn name(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static RUN: OnceLock<Duration> = OnceLock::new();
    let run = RUN.get_or_init(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    format!("{what}-{:x}-{}", run.as_millis(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn create(brokers: &str, topic: &str, settings: &[(&str, &str)]) {
    create_replicated(brokers, topic, 1, settings);
}

pub(crate) fn create_replicated(brokers: &str, topic: &str, replicas: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut new = NewTopic::new(topic, 3, TopicReplication::Fixed(replicas));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let made = runtime.block_on(admin.create_topics([&new], &AdminOptions::new())).unwrap();
    for made in made {
        made.unwrap();
    }
    // The broker knows of it a moment later than the controller that answered.
    until("the topic has leaders", || {
        let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE).unwrap();
        let partitions = metadata.topics()[0].partitions();
        partitions.len() == 3 && partitions.iter().all(|partition| partition.leader() >= 0)
    });
}

/// Changes a setting of a topic.
pub(crate) fn set(brokers: &str, topic: &str, name: &str, value: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(admin.alter_configs([&change], &AdminOptions::new())).unwrap().remove(0).unwrap();
    // The broker knows of it a moment later than the controller that answered.
    until("the topic has the setting", || {
        let (topic, options) = (ResourceSpecifier::Topic(topic), AdminOptions::new());
        let told = runtime.block_on(admin.describe_configs([&topic], &options)).unwrap().remove(0).unwrap();
        told.get(name).and_then(|entry| entry.value.as_deref()) == Some(value)
    });
}

pub(crate) fn delete(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let gone = runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new())).unwrap();
    for gone in gone {
        gone.unwrap();
    }
    // Before the broker has carried it out it stores records there.
    let asked = Instant::now();
    let is_there =
        || admin.inner().fetch_metadata(Some(topic), DEADLINE).unwrap().topics()[0].error().is_none();
    while is_there() {
        assert!(asked.elapsed() < DEADLINE, "the topic is gone");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A sink with a topic of its own, which exists.
pub(crate) fn config(broker: &Broker, topic: &str) -> KafkaConfig {
    create(&broker.brokers, topic, &[]);
    KafkaConfig { brokers: broker.brokers.clone(), topic: topic.into(), ..KafkaConfig::default() }
}

/// A lane, and what its sink has said of the frames that went through it.
pub(crate) struct Way {
    lane: Box<dyn Lane>,
    runtime: tokio::runtime::Runtime,
    pushed: usize,
    verdicts: Arc<Mutex<Vec<Option<Verdict>>>>,
}

impl Way {
    pub(crate) fn into(sink: &KafkaSink) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { lane: sink.lane(), runtime, pushed: 0, verdicts: Arc::default() }
    }

    /// As from a spool.
    pub(crate) fn carry_acknowledged(&mut self) {
        self.lane.carry_acknowledged(true);
    }

    pub(crate) fn push(&mut self, frame: &LogRecord<'_>, wants_receipt: bool) {
        self.lane.push(frame, wants_receipt);
        self.pushed += 1;
    }

    /// Sends off what was pushed; false if there was no room for it within a moment.
    pub(crate) fn send_within(&mut self, within: Duration) -> bool {
        let verdicts = Arc::clone(&self.verdicts);
        let first = verdicts.lock().unwrap().len();
        verdicts.lock().unwrap().resize(self.pushed, None);
        let sent = self.lane.send(Box::new(move |frames, verdict| {
            let mut verdicts = verdicts.lock().unwrap();
            for frame in frames {
                let told = verdicts[first + frame as usize].replace(verdict.clone());
                assert_eq!(told, None, "a frame has one verdict");
            }
        }));
        self.runtime
            .block_on(async { tokio::time::timeout(within, sent).await.is_ok_and(|sent| sent.is_ok()) })
    }

    pub(crate) fn send(&mut self) {
        assert!(self.send_within(DEADLINE), "there is room");
    }

    /// Every verdict, in the order of the frames.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let all = || self.verdicts.lock().unwrap().iter().cloned().collect::<Option<Vec<_>>>();
        until("every frame has a verdict", || all().is_some());
        all().unwrap()
    }

    pub(crate) fn told(&self) -> usize {
        self.verdicts.lock().unwrap().iter().flatten().count()
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) const NOW: u64 = 1_732_150_000_123;

pub(crate) fn frame<'a>(client: &'a str, topic: &'a str, payload: &'a [u8]) -> LogRecord<'a> {
    LogRecord {
        offset: 0,
        node: NodeId(0xabc),
        epoch: Epoch(7),
        packet_id: PacketId::new(9),
        dup: false,
        resent: false,
        event_time_ms: 0,
        message: Message {
            id: 0x77,
            topic,
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: client,
            published_at_ms: NOW,
            expires_at_ms: 0,
            properties: &[],
            payload,
        },
    }
}

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Record {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }
}

/// How many records a topic has.
pub(crate) fn count(brokers: &str, topic: &str) -> usize {
    let consumer = consumer(brokers);
    let records = |&id: &i32| {
        let (low, high) = consumer.fetch_watermarks(topic, id, DEADLINE).unwrap();
        usize::try_from(high - low).unwrap()
    };
    partitions(&consumer, topic).iter().map(records).sum()
}

/// The whole contents of a topic, which has so many records.
pub(crate) fn read(brokers: &str, topic: &str, expected: usize) -> Vec<Record> {
    assert_eq!(count(brokers, topic), expected, "the topic has so many records");
    let consumer = consumer(brokers);
    let mut all = rdkafka::TopicPartitionList::new();
    for id in partitions(&consumer, topic) {
        all.add_partition_offset(topic, id, rdkafka::Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut records = Vec::new();
    while records.len() < expected {
        let message = consumer.poll(DEADLINE).expect("a record is read").unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let headers = message.headers().map(|headers| {
            headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
        });
        records.push(Record {
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().unwrap(),
            key: text(message.key()),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
        });
    }
    records
}

fn consumer(brokers: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "tests").set("enable.auto.commit", "false");
    config.create().unwrap()
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
    metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()
}
