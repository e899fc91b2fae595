//! What may be pushed, and what becomes of it.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use holdfast_wire::ids::ClientId;
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{PublishProperties, QoS};
use holdfast_wire::store::StoreError;
use holdfast_wire::topic::validate_name;
use rustc_hash::FxHasher;

use super::outcome::PushOutcome;
use crate::core::{Core, now_ms};

/// Longest collapse key, in bytes.
pub const COLLAPSE_KEY_BYTES_MAX: usize = 256;

/// Longest name of a group, in bytes.
pub const GROUP_BYTES_MAX: usize = 128;

/// A push as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PushRequest {
    /// Whom it is for.
    pub target: PushTarget,
    /// Topic of a push to a device or a group; none: the configured one. Ignored for a push to a topic.
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
    /// For a push to a device or a group: it takes the place of what waits in the device's stream under the same key, 1 to
    /// [`COLLAPSE_KEY_BYTES_MAX`] bytes.
    pub collapse_key: Option<String>,
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
    /// Every client that is in the group of this name while its members are walked.
    Group(String),
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
    /// The request is not JSON.
    #[error("{0}")]
    Malformed(String),
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
    /// Whether it can be carried out as it stands.
    pub(super) fn check(&self, core: &Core) -> Result<(), PushError> {
        match &self.target {
            PushTarget::Device(client) => self.topic_for(core, client).map(drop)?,
            PushTarget::Topic(topic) => validate_name(topic).map_err(|error| invalid("topic", &error))?,
            PushTarget::Group(group) => {
                check_group(group).map_err(|why| invalid("group", &why))?;
                if let Some(topic) = &self.topic {
                    validate_name(topic).map_err(|error| invalid("topic", &error))?;
                }
            }
        }
        if self.ttl_s == Some(0) {
            return Err(invalid("ttl_s", &"a push lives at least 1 second"));
        }
        let is_too_long = |text: &String| text.len() > usize::from(u16::MAX) || text.contains('\0');
        if self.content_type.as_ref().is_some_and(is_too_long) {
            return Err(invalid("content_type", &"at most 65535 bytes, none of them 0"));
        }
        match &self.collapse_key {
            Some(key) if key.is_empty() || key.len() > COLLAPSE_KEY_BYTES_MAX => {
                Err(invalid("collapse_key", &format_args!("1 to {COLLAPSE_KEY_BYTES_MAX} bytes")))
            }
            Some(_) if matches!(self.target, PushTarget::Topic(_)) => Err(invalid(
                "collapse_key",
                &"subscribers of a topic stand at different places of its stream; push to a device or a group",
            )),
            _ => Ok(()),
        }
    }

    /// Where a push to this client is published.
    pub(super) fn topic_for(&self, core: &Core, client: &str) -> Result<Cow<'_, str>, PushError> {
        if client.is_empty() || client.len() > ClientId::BYTES_MAX {
            return Err(invalid("device", &"a client id has 1 to 65535 bytes"));
        }
        if let Some(topic) = &self.topic {
            validate_name(topic).map_err(|error| invalid("topic", &error))?;
            return Ok(Cow::Borrowed(topic));
        }
        let topic = core.config.push.topic.replace("{client_id}", client);
        if let Err(error) = validate_name(&topic) {
            let why = format!("{client:?} cannot stand in push.topic ({error}); name a topic");
            return Err(invalid("device", &why));
        }
        Ok(Cow::Owned(topic))
    }

    /// The message to deliver; [`PushRequest::check`] found nothing wrong. Its time to live counts from `asked_ms`.
    pub(super) fn message(&self, core: &Core, topic: &str, asked_ms: u64) -> SharedMessage {
        let now_ms = now_ms();
        let mut properties = Vec::new();
        PublishProperties { content_type: self.content_type.as_deref(), ..PublishProperties::default() }
            .encode_forwardable(&mut properties);
        SharedMessage::new(&Message {
            id: core.next_message_id(),
            topic,
            qos: self.qos,
            retain: self.retain && matches!(self.target, PushTarget::Topic(_)),
            publisher: "",
            published_at_ms: now_ms,
            expires_at_ms: self.expires_at_ms(asked_ms),
            properties: &properties,
            payload: &self.payload,
        })
    }

    /// 0: never.
    pub(super) fn expires_at_ms(&self, asked_ms: u64) -> u64 {
        self.ttl_s.map_or(0, |ttl_s| asked_ms + u64::from(ttl_s) * 1_000)
    }

    /// Tells a repetition from another push under the same id.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = FxHasher::default();
        Self { id: None, wait: Duration::ZERO, ..self.clone() }.hash(&mut hasher);
        hasher.finish()
    }
}

/// Whether a group may have this name: one that stands in a path and in a key as it is.
pub(super) fn check_group(name: &str) -> Result<(), String> {
    let is_known = |character: char| character.is_ascii_alphanumeric() || "._-:".contains(character);
    if name.is_empty() || name.len() > GROUP_BYTES_MAX || !name.chars().all(is_known) {
        return Err(format!("a group's name is 1 to {GROUP_BYTES_MAX} of A-Z a-z 0-9 . _ - :"));
    }
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err("a group's name begins with a letter or a digit".to_owned());
    }
    Ok(())
}

/// Whether a client may have this id (MQTT-1.5.4).
pub(super) fn check_client(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > ClientId::BYTES_MAX || id.contains('\0') {
        return Err(format!("a client id has 1 to {} bytes, none of them 0", ClientId::BYTES_MAX));
    }
    Ok(())
}

fn invalid(what: &str, why: &dyn std::fmt::Display) -> PushError {
    PushError::Invalid(format!("{what}: {why}"))
}
