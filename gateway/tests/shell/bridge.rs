//! The other end of the links: greets, knows every interest at once, holds no retained message, and settles what the test tells
//! it to settle.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};

use holdfast_wire::ids::BridgeId;
use holdfast_wire::link::{
    Deliver, LINK_VERSION, Settled, Takeover, Target, ToBridge, ToGateway, Welcome, next_record,
};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::QoS;

use crate::DEADLINE;

pub(crate) struct Bridge {
    links: Vec<UnixStream>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    uplinks: Mutex<Vec<Uplink>>,
    changed: Condvar,
    /// Whoever has it writes a record to a link: the kernel may put two that are written at once into one another.
    writing: Mutex<()>,
}

/// An uplink as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) shard: usize,
    pub(crate) sequence: u64,
    pub(crate) client: String,
    pub(crate) payload: Vec<u8>,
}

/// What shards may have unsettled, in bytes.
pub(crate) const WINDOW_BYTES: u32 = 64 * 1024;

impl Bridge {
    /// A bridge for `shards` shards, and their ends of the links.
    pub(crate) fn new(shards: u16) -> (Self, Vec<UnixStream>) {
        let seen = Arc::<Seen>::default();
        let (mut links, mut ends) = (Vec::new(), Vec::new());
        for shard in 0..usize::from(shards) {
            let (ours, theirs) = UnixStream::pair().expect("a socket pair");
            let (stream, seen) = (ours.try_clone().expect("a handle"), Arc::clone(&seen));
            std::thread::spawn(move || answer(shard, stream, &seen));
            links.push(ours);
            ends.push(theirs);
        }
        (Self { links, seen }, ends)
    }

    /// Waits until at least `count` uplinks have come.
    pub(crate) fn wait_for_uplinks(&self, count: usize) -> Vec<Uplink> {
        let uplinks = self.seen.uplinks.lock().expect("no panic");
        let (uplinks, timeout) = self
            .seen
            .changed
            .wait_timeout_while(uplinks, DEADLINE, |uplinks| uplinks.len() < count)
            .expect("no panic");
        assert!(!timeout.timed_out(), "{} of {count} uplinks came", uplinks.len());
        uplinks.clone()
    }

    /// Says that everything that owes the uplink has it.
    pub(crate) fn settle(&self, uplink: &Uplink) {
        let settled = Settled { first: uplink.sequence, last: uplink.sequence, reason_code: 0 };
        self.say(uplink.shard, &ToGateway::Settled(settled));
    }

    /// Sends a QoS 0 message to the subscribers of all shards; blocks while they take no more.
    pub(crate) fn deliver(&self, topic: &str, payload: &[u8]) {
        let message = Message {
            id: 1,
            topic,
            qos: QoS::AtMostOnce,
            retain: false,
            publisher: "",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload,
        };
        let deliver = Deliver { delivery: 0, target: Target::Subscribers, positions: vec![], message };
        for shard in 0..self.links.len() {
            self.say(shard, &ToGateway::Deliver(deliver.clone()));
        }
    }

    /// Writes bytes that are no record.
    pub(crate) fn say_garbage(&self, shard: usize) {
        (&self.links[shard]).write_all(b"GET / HTTP/1.1\r\n\r\n").expect("the shard reads");
    }

    /// Cuts all links.
    pub(crate) fn cut(&self) {
        for link in &self.links {
            let _ = link.shutdown(std::net::Shutdown::Both);
        }
    }

    fn say(&self, shard: usize, record: &ToGateway<'_>) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let _writing = self.seen.writing.lock().expect("no panic");
        (&self.links[shard]).write_all(&bytes).expect("the shard reads");
    }
}

/// Answers one shard until its link ends.
fn answer(shard: usize, mut stream: UnixStream, seen: &Seen) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let mut answers = Vec::new();
        let mut rest = &bytes[..];
        while let Some(raw) = next_record(&mut rest).expect("the shard sends records") {
            match ToBridge::decode(raw).expect("the shard sends known records") {
                ToBridge::Hello(_) => {
                    let welcome =
                        Welcome { version: LINK_VERSION, bridge: BridgeId(7), window_bytes: WINDOW_BYTES };
                    ToGateway::Welcome(welcome).encode(&mut answers);
                }
                ToBridge::Interest(interest) => {
                    ToGateway::InterestKnown(interest.token).encode(&mut answers);
                }
                ToBridge::RetainedRead(read) => {
                    ToGateway::RetainedEnd { token: read.token, more: false }.encode(&mut answers);
                }
                ToBridge::Uplink(uplink) => {
                    seen.uplinks.lock().expect("no panic").push(Uplink {
                        shard,
                        sequence: uplink.sequence,
                        client: uplink.message.publisher.to_owned(),
                        payload: uplink.message.payload.to_vec(),
                    });
                    seen.changed.notify_all();
                }
                // A bridge that cannot reach the former owner says so.
                ToBridge::Takeover(takeover) => {
                    let Takeover { client, epoch, .. } = takeover;
                    ToGateway::NotLinked { client, epoch }.encode(&mut answers);
                }
                ToBridge::Report(_)
                | ToBridge::Handover(_)
                | ToBridge::HandoverSettled(_)
                | ToBridge::Event(_)
                | ToBridge::Alive => {}
            }
        }
        let left = rest.len();
        bytes.drain(..bytes.len() - left);
        if !answers.is_empty() {
            let _writing = seen.writing.lock().expect("no panic");
            if stream.write_all(&answers).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
        }
    }
}
