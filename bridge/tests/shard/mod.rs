//! A shard as the bridge sees it, played over a socket pair, and a bridge with a log and a store in memory to talk to.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use holdfast_bridge::log::{Entry, Log, LogConfig, LogReader};
use holdfast_bridge::sink::LogSink;
use holdfast_bridge::{Bridge, BridgeConfig, BridgeHandle};
use holdfast_store::{Bounds, MemoryStore, Store, clock};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::link::{
    Deliver, Hello, Interest, InterestKind, LINK_VERSION, Outcome, Report, Settled, Target, ToBridge,
    ToGateway, Uplink, next_record,
};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{PacketId, PublishProperties, QoS};
use holdfast_wire::session_record::{Cursor, SubscriptionRecord};
use holdfast_wire::store::{Progress, Reply, Request, StoreError};

/// Longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running bridge, its log and its store.
pub(crate) struct Rig {
    pub(crate) bridge: BridgeHandle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) directory: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::start_with(BridgeConfig::default(), memory_store())
    }

    pub(crate) fn start_with(config: BridgeConfig, store: Arc<dyn Store>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(directory.path(), LogConfig::default()).unwrap();
        let sink = Arc::new(LogSink::new(Arc::new(log)));
        let bridge = Bridge::start(config, Arc::clone(&store), sink).unwrap();
        Self { bridge, store, directory }
    }

    pub(crate) fn shard(&self, node: u64) -> Shard {
        Shard::open(&self.bridge, node)
    }

    /// Payloads in the log, in order.
    pub(crate) fn logged(&self) -> Vec<String> {
        logged(self.directory.path())
    }

    pub(crate) fn ask(&self, request: Request) -> Result<Reply, StoreError> {
        let (reply, replied) = mpsc::channel();
        self.store.submit(
            request,
            Box::new(move |answer| {
                let _ = reply.send(answer);
            }),
        );
        replied.recv_timeout(DEADLINE).unwrap()
    }

    /// A session connected to a shard, persistent if it has filters.
    pub(crate) fn session(&self, client: &str, shard: Owner, filters: &[&str]) -> Epoch {
        let client = ClientId::new(client);
        let expiry_s = if filters.is_empty() { 0 } else { 3_600 };
        let open =
            Request::Open { client: client.clone(), owner: shard, clean_start: false, expiry_s, will: None };
        let Ok(Reply::Opened(opened)) = self.ask(open) else { panic!("the session opens") };
        let record = |filter: &&str| SubscriptionRecord {
            filter: (*filter).into(),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            identifier: 0,
        };
        let subscriptions = filters.iter().map(record).collect();
        self.ask(Request::Subscribe { client, epoch: opened.epoch, subscriptions }).unwrap();
        opened.epoch
    }

    /// The session's connection ends; it rests.
    pub(crate) fn rest(&self, client: &str, epoch: Epoch) {
        let client = ClientId::new(client);
        let close =
            Request::Close { client, epoch, expiry_s: 3_600, progress: Progress::default(), will: None };
        self.ask(close).unwrap();
    }

    /// Payloads that a member of a group claims.
    pub(crate) fn claim(&self, client: &str, epoch: Epoch, filter: &str) -> Vec<String> {
        let (client, filter) = (ClientId::new(client), filter.into());
        // From its cursor on, which is behind that.
        let claim =
            Request::Claim { client, epoch, filter, after: 0, messages_max: 1_000, bytes_max: 1 << 20 };
        let Ok(Reply::Messages { messages, .. }) = self.ask(claim) else { panic!("it is a member") };
        messages.iter().map(|(_, message)| text(message.view().payload)).collect()
    }

    /// Payloads in a stream.
    pub(crate) fn stream(&self, stream: holdfast_wire::session_record::StreamKey) -> Vec<String> {
        let read = Request::Read { stream, after: 0, messages_max: 1_000, bytes_max: 1 << 20 };
        let Ok(Reply::Messages { messages, .. }) = self.ask(read) else { panic!("the stream is read") };
        messages.iter().map(|(_, message)| text(message.view().payload)).collect()
    }
}

pub(crate) fn memory_store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(clock::system(), Bounds::default()))
}

pub(crate) fn logged(directory: &Path) -> Vec<String> {
    let mut reader = LogReader::open(directory).unwrap();
    let mut payloads = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let Entry::Record(record) = entry else { panic!("{entry:?}") };
        payloads.push(text(record.message.payload));
    }
    payloads
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits for a state.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn owner(node: u64) -> Owner {
    Owner { node: NodeId(node), shard: ShardId(0) }
}

pub(crate) fn message<'a>(topic: &'a str, qos: QoS, payload: &'a str) -> Message<'a> {
    Message {
        id: 0,
        topic,
        qos,
        retain: false,
        publisher: "publisher",
        // The bridge fills it in.
        published_at_ms: 0,
        expires_at_ms: 0,
        properties: &[],
        payload: payload.as_bytes(),
    }
}

pub(crate) fn uplink<'a>(sequence: u64, topic: &'a str, payload: &'a str) -> Uplink<'a> {
    Uplink {
        sequence,
        epoch: Epoch(1),
        packet_id: PacketId::new(sequence as u16),
        dup: false,
        resent: false,
        wants_receipt: false,
        event_time_ms: 0,
        message: message(topic, QoS::AtLeastOnce, payload),
    }
}

pub(crate) fn stored(first: u64, last: u64) -> Settled {
    Settled { first, last, reason_code: 0 }
}

/// A record of the bridge that outlives its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Refused(String),
    Settled(Settled),
    /// Sequence, whether it is a duplicate, topic, partition, offset.
    SettledAt(u64, bool, String, i32, i64),
    InterestKnown(u64),
    Retained {
        token: u64,
        topic: String,
        payload: String,
    },
    RetainedEnd {
        token: u64,
        more: bool,
    },
    Deliver {
        delivery: u64,
        target: String,
        positions: Vec<Cursor>,
        topic: String,
        payload: String,
    },
    Takeover {
        client: String,
        epoch: Epoch,
    },
    Handover {
        client: String,
        epoch: Epoch,
        session: Vec<u8>,
        owes_will: bool,
    },
    HandoverSettled {
        client: String,
        epoch: Epoch,
        outcome: Outcome,
    },
    NotLinked {
        client: String,
        epoch: Epoch,
    },
    Disconnect(String),
    /// Share name and filter.
    GroupWaits(String),
    Closed,
}

impl Heard {
    /// A delivery without report and positions.
    pub(crate) fn deliver(target: &str, topic: &str, payload: &str) -> Self {
        Self::Deliver {
            delivery: 0,
            target: target.into(),
            positions: vec![],
            topic: topic.into(),
            payload: payload.into(),
        }
    }
}

/// A delivery with all that its device sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) number: u64,
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) expires_at_ms: u64,
    pub(crate) content_type: Option<String>,
}

/// The shard's end of a link.
pub(crate) struct Shard {
    pub(crate) owner: Owner,
    pub(crate) stream: UnixStream,
    bytes: Vec<u8>,
}

impl Shard {
    pub(crate) fn open(bridge: &BridgeHandle, node: u64) -> Self {
        let mut shard = Self::dial(bridge, node);
        let hello = Hello { version: LINK_VERSION, shard: owner(node), receive_maximum: 32, secret: b"" };
        shard.say(&ToBridge::Hello(hello));
        shard.read_record(|record| assert!(matches!(record, ToGateway::Welcome(_)), "{record:?}")).unwrap();
        shard
    }

    /// Connects and says nothing.
    pub(crate) fn dial(bridge: &BridgeHandle, node: u64) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        bridge.accept(theirs);
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        ours.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { owner: owner(node), stream: ours, bytes: Vec::new() }
    }

    pub(crate) fn say(&mut self, record: &ToBridge<'_>) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    pub(crate) fn publish(&mut self, uplink: Uplink<'_>) {
        self.say(&ToBridge::Uplink(uplink));
    }

    /// Announces and waits until the bridge knows.
    pub(crate) fn announce(&mut self, kind: InterestKind<'_>, filter: &str, durable: bool) {
        self.say(&ToBridge::Interest(Interest { token: 9, wanted: true, kind, filter, durable }));
        assert_eq!(self.hear(), Heard::InterestKnown(9));
    }

    pub(crate) fn withdraw(&mut self, kind: InterestKind<'_>, filter: &str) {
        self.say(&ToBridge::Interest(Interest { token: 8, wanted: false, kind, filter, durable: false }));
        assert_eq!(self.hear(), Heard::InterestKnown(8));
    }

    pub(crate) fn report(&mut self, delivery: u64, outcome: Outcome) {
        self.say(&ToBridge::Report(Report { delivery, outcome }));
    }

    /// The next record; reminders of what waits for a group come at any time, and are passed over.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            match self.hear_any() {
                Heard::GroupWaits(_) => {}
                heard => return heard,
            }
        }
    }

    /// The next record that says what waits for a group, and that nothing else comes before it.
    pub(crate) fn hear_what_waits(&mut self) -> String {
        match self.hear_any() {
            Heard::GroupWaits(group) => group,
            other => panic!("{other:?}"),
        }
    }

    fn hear_any(&mut self) -> Heard {
        self.read_record(|record| match record {
            ToGateway::Refused(why) => Heard::Refused(why.into()),
            ToGateway::Settled(settled) => Heard::Settled(settled),
            ToGateway::SettledAt(at) => {
                Heard::SettledAt(at.sequence, at.duplicate, at.topic.to_owned(), at.partition, at.offset)
            }
            ToGateway::InterestKnown(token) => Heard::InterestKnown(token),
            ToGateway::RetainedMessage { token, message } => {
                Heard::Retained { token, topic: message.topic.into(), payload: text(message.payload) }
            }
            ToGateway::RetainedEnd { token, more } => Heard::RetainedEnd { token, more },
            ToGateway::Deliver(deliver) => Heard::Deliver {
                delivery: deliver.delivery,
                target: match deliver.target {
                    Target::Subscribers => "subscribers".into(),
                    Target::Device(client) => client.into(),
                    Target::Group { group, filter } => format!("{group}:{filter}"),
                },
                positions: deliver.positions,
                topic: deliver.message.topic.into(),
                payload: text(deliver.message.payload),
            },
            ToGateway::Takeover(takeover) => {
                Heard::Takeover { client: takeover.client.into(), epoch: takeover.epoch }
            }
            ToGateway::Handover(handover) => Heard::Handover {
                client: handover.client.into(),
                epoch: handover.epoch,
                session: handover.session.to_vec(),
                owes_will: handover.owes_will,
            },
            ToGateway::HandoverSettled(settled) => Heard::HandoverSettled {
                client: settled.client.into(),
                epoch: settled.epoch,
                outcome: settled.outcome,
            },
            ToGateway::NotLinked { client, epoch } => Heard::NotLinked { client: client.into(), epoch },
            ToGateway::Disconnect(client) => Heard::Disconnect(client.into()),
            ToGateway::GroupWaits { group, filter } => Heard::GroupWaits(format!("{group}:{filter}")),
            other => panic!("{other:?}"),
        })
        .unwrap_or(Heard::Closed)
    }

    /// The next record, a delivery.
    pub(crate) fn hear_delivery(&mut self) -> Delivered {
        let read = |record: ToGateway<'_>| {
            let (delivery, message) = match record {
                ToGateway::Deliver(Deliver { delivery, message, .. }) => (delivery, message),
                ToGateway::GroupWaits { .. } => return None,
                other => panic!("{other:?}"),
            };
            let properties = PublishProperties::decode_block(message.properties).unwrap();
            Some(Delivered {
                number: delivery,
                topic: message.topic.into(),
                payload: text(message.payload),
                qos: message.qos,
                retain: message.retain,
                expires_at_ms: message.expires_at_ms,
                content_type: properties.content_type.map(str::to_owned),
            })
        };
        loop {
            if let Some(delivered) = self.read_record(read).expect("the link stands") {
                return delivered;
            }
        }
    }

    /// Hears settlements until every sequence up to `last` is settled, all with 0.
    pub(crate) fn until_settled(&mut self, last: u64) {
        let mut left = last;
        while left > 0 {
            let Heard::Settled(run) = self.hear() else { continue };
            assert_eq!(run.reason_code, 0);
            left -= run.last - run.first + 1;
        }
    }

    /// None once the bridge has closed the link.
    fn read_record<T>(&mut self, read: impl FnOnce(ToGateway<'_>) -> T) -> Option<T> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            let mut rest = &self.bytes[..];
            if let Some(raw) = next_record(&mut rest).unwrap() {
                let heard = read(ToGateway::decode(raw).unwrap());
                let passed = self.bytes.len() - rest.len();
                self.bytes.drain(..passed);
                return Some(heard);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.bytes.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the bridge says nothing: {error}"),
            }
        }
    }
}
