//! The last word of a client that did not say goodbye.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt;
use holdfast_wire::store::WillRecord;

use crate::input::{ConnectionId, Now};
use crate::shared::Shared;
use crate::uplink::{Frame, Kind};

/// A will as CONNECT gave it.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    /// With `published_at_ms` of the CONNECT; set anew when it is published.
    pub(crate) message: SharedMessage,
    pub(crate) delay_s: u32,
    /// Message expiry from the moment of publication, in seconds.
    pub(crate) expiry_s: Option<u32>,
}

impl Will {
    pub(crate) fn new(will: &mqtt::Will<'_>, client: &str, now: Now) -> Self {
        let mut properties = Vec::new();
        will.properties.encode_forwardable(&mut properties);
        let message = SharedMessage::new(&Message {
            id: 0,
            topic: will.topic,
            qos: will.qos,
            retain: will.retain,
            publisher: client,
            published_at_ms: now.unix_ms,
            expires_at_ms: 0,
            properties: &properties,
            payload: will.payload,
        });
        Self {
            message,
            delay_s: will.properties.delay_interval_s.unwrap_or(0),
            expiry_s: will.properties.message_expiry_interval_s,
        }
    }

    pub(crate) fn record(&self) -> WillRecord {
        WillRecord {
            message: self.message.clone(),
            delay_s: self.delay_s,
            expiry_s: self.expiry_s.unwrap_or(u32::MAX),
        }
    }
}

/// A will whose session's connection has ended and whose delay runs (MQTT-3.1.3-9).
#[derive(Debug)]
pub(crate) struct DelayedWill {
    pub(crate) client: ClientId,
    /// A session opened since then has a higher one: then the will is not sent.
    pub(crate) epoch: Epoch,
    pub(crate) will: Will,
}

/// Stands where a frame's connection would: nobody is owed an answer.
const NOBODY: ConnectionId = ConnectionId { slot: u32::MAX, generation: u32::MAX };

/// Sends a will the way of all frames. It passes the window's bound, and waits as an orphan where there is no link: the connection that could
/// be held back is gone.
pub(crate) fn publish(shared: &mut Shared, will: &Will, epoch: Epoch, now: Now) {
    let stored = will.message.view();
    let expires_at_ms = will.expiry_s.map_or(0, |expiry_s| now.unix_ms + u64::from(expiry_s) * 1_000);
    let frame = Frame {
        epoch,
        packet_id: None,
        dup: false,
        wants_receipt: false,
        event_time_ms: 0,
        message: Message { published_at_ms: now.unix_ms, expires_at_ms, ..stored },
    };
    match shared.uplinks.choose(stored.publisher) {
        Some(link) => {
            let offered: Result<(), _> = shared.uplinks.offer(link, NOBODY, Kind::Will, true, &frame);
            debug_assert!(offered.is_ok(), "a forced frame is always taken");
        }
        None => shared.uplinks.orphan(NOBODY, Kind::Will, &frame),
    }
    shared.stats.wills += 1;
}
