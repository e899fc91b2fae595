//! What became of a push, as a line in a book.

use schemars::JsonSchema;
use serde::Serialize;

use super::outcome::{PushOutcome, Refusal, Told};
use super::request::PushTarget;

/// A receipt: what `pushes.receipts_topic` holds of a push.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Receipt<'a> {
    /// The push's, or the place of its record as topic/partition/offset.
    pub(crate) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<&'a str>,
    #[serde(flatten)]
    pub(crate) told: Told,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a str>,
    /// When the outcome was known, in ms of Unix time.
    pub(crate) at: u64,
    /// Where the push came from, if not by HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source<'a>>,
}

/// A record that was a push.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Source<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl<'a> Receipt<'a> {
    pub(crate) fn of(id: &'a str, target: &'a PushTarget, outcome: PushOutcome, at: u64) -> Self {
        let (mut device, mut topic, mut group) = (None, None, None);
        match target {
            PushTarget::Device(name) => device = Some(&**name),
            PushTarget::Topic(name) => topic = Some(&**name),
            PushTarget::Group(name) => group = Some(&**name),
        }
        Self { id, device, topic, group, told: outcome.into(), detail: None, at, source: None }
    }

    /// Of what was no push.
    pub(crate) fn refused(id: &'a str, reason: Refusal, at: u64) -> Self {
        let told = PushOutcome::Refused(reason).into();
        Self { id, device: None, topic: None, group: None, told, detail: None, at, source: None }
    }

    /// Receipts of one device stay in order.
    pub(crate) fn key(&self) -> &'a str {
        self.device.unwrap_or(self.id)
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        // Texts and numbers alone: there is nothing that could not be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
