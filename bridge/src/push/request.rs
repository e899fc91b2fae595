//! What may be pushed, and what becomes of it.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{PublishProperties, QoS};
use holdfast_wire::store::StoreError;
use holdfast_wire::topic::validate_name;
use rustc_hash::FxHasher;

use crate::core::{Core, now_ms};

/// A push as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PushRequest {
    /// Whom it is for.
    pub target: PushTarget,
    /// Topic of a push to a device; none: the configured one. Ignored for a push to a topic.
    pub topic: Option<String>,
    /// The application's bytes.
    pub payload: Vec<u8>,
    /// With QoS 0 it is never queued.
    pub qos: QoS,
    /// Seconds from now after which it is of no use; none: never.
    pub ttl_s: Option<u32>,
    /// MQTT 5 content type.
    pub content_type: Option<String>,
    /// For a push to a topic: also keep it as the topic's retained message.
    pub retain: bool,
    /// Identity: the same id is pushed once, whoever asks how often. None: a fresh one is drawn.
    pub id: Option<String>,
    /// How long to wait for the outcome, at most [`crate::config::PushConfig::wait_max`].
    pub wait: Duration,
}

/// Whom a push is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PushTarget {
    /// The device with this client id.
    Device(String),
    /// All that subscribe to this topic.
    Topic(String),
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushOutcome {
    /// The device acknowledged it, or it was QoS 0 and handed to its socket.
    Delivered,
    /// The device is away; its session keeps it.
    Queued,
    /// It was not acknowledged before its time passed. The device may have got it in the last moment.
    Expired,
    /// It will not reach the device.
    Refused(Refusal),
    /// A push to a topic is durable where it has to be and sent to all that hear it.
    Accepted {
        /// Shards that were sent it.
        shards: usize,
        /// Streams of persistent sessions that hold it.
        streams: usize,
    },
}

/// Why a push will not reach its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its queue is full.
    QueueFull,
    /// It holds no subscription that matches the topic.
    NotSubscribed,
    /// There is no session of this client id that is connected or could keep it.
    NoSuchSession,
    /// The session rests, and with this QoS, the push's or the subscription's, nothing is kept for it.
    NotConnected,
    /// It takes only smaller packets.
    TooLarge,
    /// It answered with an error.
    ByDevice,
}

impl PushOutcome {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Queued => "queued",
            Self::Expired => "expired",
            Self::Refused(_) => "refused",
            Self::Accepted { .. } => "accepted",
        }
    }
}

impl Refusal {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::NotSubscribed => "not_subscribed",
            Self::NoSuchSession => "no_such_session",
            Self::NotConnected => "not_connected",
            Self::TooLarge => "too_large",
            Self::ByDevice => "refused_by_device",
        }
    }
}

/// The answer to a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushAnswer {
    /// Its id, given or drawn.
    pub id: String,
    /// What became of it.
    pub outcome: PushOutcome,
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The request cannot be carried out as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The id was used for another push.
    #[error("the id {0:?} was used for another push")]
    IdReused(String),
    /// Too many pushes are in flight.
    #[error("too many pushes are in flight")]
    Busy,
    /// The session store cannot say where the push has to go, or not keep a push to a topic; whoever asks again pushes anew.
    #[error("{0}")]
    Store(StoreError),
    /// The store did not confirm that it keeps the push, and may do so all the same. It is asked on, so there will be an outcome.
    #[error("the store cannot take push {id:?} now; its outcome is not known: ask again with the same id")]
    Held {
        /// The push's id.
        id: String,
    },
    /// Its outcome is not known yet. Asking again with the same id waits on.
    #[error("the outcome of push {id:?} is not known yet")]
    StillInFlight {
        /// The push's id.
        id: String,
    },
    /// The bridge stopped.
    #[error("the bridge is stopping")]
    Stopped,
}

impl PushRequest {
    /// The message to deliver, checked. Its time to live counts from `asked_ms`.
    pub(super) fn message(&self, core: &Core, asked_ms: u64) -> Result<SharedMessage, PushError> {
        let now_ms = now_ms();
        let invalid =
            |what: &str, why: &dyn std::fmt::Display| Err(PushError::Invalid(format!("{what}: {why}")));
        let from_template;
        let topic = match (&self.target, &self.topic) {
            (PushTarget::Device(client), _) if client.is_empty() || client.len() > usize::from(u16::MAX) => {
                return invalid("device", &"a client id has 1 to 65535 bytes");
            }
            (PushTarget::Topic(topic), _) | (PushTarget::Device(_), Some(topic)) => topic,
            (PushTarget::Device(client), None) => {
                from_template = core.config.push.topic.replace("{client_id}", client);
                if let Err(error) = validate_name(&from_template) {
                    let why = format!("{client:?} cannot stand in push.topic ({error}); name a topic");
                    return invalid("device", &why);
                }
                &from_template
            }
        };
        if let Err(error) = validate_name(topic) {
            return invalid("topic", &error);
        }
        if self.ttl_s == Some(0) {
            return invalid("ttl_s", &"a push lives at least 1 second");
        }
        if self
            .content_type
            .as_ref()
            .is_some_and(|text| text.len() > usize::from(u16::MAX) || text.contains('\0'))
        {
            return invalid("content_type", &"at most 65535 bytes, none of them 0");
        }
        let mut properties = Vec::new();
        PublishProperties { content_type: self.content_type.as_deref(), ..PublishProperties::default() }
            .encode_forwardable(&mut properties);
        Ok(SharedMessage::new(&Message {
            id: core.next_message_id(now_ms),
            topic,
            qos: self.qos,
            retain: self.retain && matches!(self.target, PushTarget::Topic(_)),
            publisher: "",
            published_at_ms: now_ms,
            expires_at_ms: self.ttl_s.map_or(0, |ttl_s| asked_ms + u64::from(ttl_s) * 1_000),
            properties: &properties,
            payload: &self.payload,
        }))
    }

    /// Tells a repetition from another push under the same id.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = FxHasher::default();
        Self { id: None, wait: Duration::ZERO, ..self.clone() }.hash(&mut hasher);
        hasher.finish()
    }
}
