//! What became of a push, as a line in a book.

use serde::Serialize;

use super::request::{PushOutcome, PushTarget};

/// A receipt; its JSON is described in docs/pushes.md.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Receipt<'a> {
    pub(crate) id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) topic: Option<&'a str>,
    pub(crate) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'a str>,
    /// Shards and streams of a push to a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shards: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<usize>,
    /// When the outcome was known, in ms of Unix time.
    pub(crate) at: u64,
    /// Where the push came from, if not by HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Source<'a>>,
}

/// A record that was a push.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Source<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl<'a> Receipt<'a> {
    pub(crate) fn of(id: &'a str, target: &'a PushTarget, outcome: PushOutcome, at: u64) -> Self {
        let (device, topic) = match target {
            PushTarget::Device(device) => (Some(&**device), None),
            PushTarget::Topic(topic) => (None, Some(&**topic)),
        };
        let mut receipt = Self { device, topic, ..Self::refused(id, None, at) };
        receipt.outcome = outcome.name();
        match outcome {
            PushOutcome::Refused(refusal) => receipt.reason = Some(refusal.name()),
            PushOutcome::Accepted { shards, streams } => {
                (receipt.shards, receipt.streams) = (Some(shards), Some(streams));
            }
            _ => {}
        }
        receipt
    }

    /// Of what was no push.
    pub(crate) fn refused(id: &'a str, reason: Option<&'static str>, at: u64) -> Self {
        Self {
            id,
            device: None,
            topic: None,
            outcome: "refused",
            reason,
            detail: None,
            shards: None,
            streams: None,
            at,
            source: None,
        }
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
