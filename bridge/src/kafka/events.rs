//! The book of events: which connections began and ended, and which sessions expired. Best effort; frames never wait for it.

use std::sync::Arc;

use holdfast_wire::ids::{Epoch, Owner};
use holdfast_wire::link::{Event, EventKind};
use holdfast_wire::store::ExpiredSession;
use serde::Serialize;

use super::book::{Book, LineCounters};
use super::config::KafkaConfig;
use super::error::KafkaStartError;
use super::start::check_topics;
use crate::books::EventBook;
use crate::bridge::BridgeHandle;
use crate::config::EventsConfig;
use crate::metrics as names;

/// Keeps the book, unless `config` names no topic. Blocks for up to `kafka.start_within`, and says what is wrong in one line. It is
/// kept for as long as the bridge runs.
pub fn keep_events(
    bridge: &BridgeHandle,
    kafka: &KafkaConfig,
    config: &EventsConfig,
) -> Result<(), KafkaStartError> {
    if config.topic.is_empty() {
        return Ok(());
    }
    check_topics(kafka, &[("events.topic", &*config.topic)])?;
    let events = |result| metrics::counter!(names::EVENTS, "result" => result);
    let counters = LineCounters { stored: events("stored"), dropped: events("dropped") };
    let book = Book::open(kafka, &config.topic, config.queue_records_max, counters)?;
    // One that was opened before stays.
    let _ = bridge.core().books.events.set(Arc::new(book));
    tracing::info!(topic = config.topic, "events of connections go to Kafka");
    Ok(())
}

/// An event as JSON; docs/pushes.md describes it.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    client_id: &'a str,
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u16>,
    /// ms of Unix time.
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_present: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_expiry_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ended: Option<bool>,
}

impl<'a> Line<'a> {
    fn new(event: &'static str, client_id: &'a str, epoch: Epoch, at: u64) -> Self {
        Self {
            event,
            client_id,
            epoch: epoch.0,
            node: None,
            shard: None,
            at,
            protocol: None,
            session_present: None,
            session_expiry_s: None,
            reason: None,
            session_ended: None,
        }
    }

    fn of(shard: Owner, event: &Event<'a>) -> Self {
        let mut line = Self::new("taken_over", event.client, event.epoch, event.at_ms);
        line.node = Some(shard.node.to_string());
        line.shard = Some(shard.shard.0);
        match event.kind {
            EventKind::Connected { protocol, session_present, session_expiry_s } => {
                line.event = "connected";
                line.protocol = Some(protocol);
                line.session_present = Some(session_present);
                line.session_expiry_s = Some(session_expiry_s);
            }
            EventKind::Disconnected { reason, session_ended } => {
                line.event = "disconnected";
                line.reason = Some(reason);
                line.session_ended = Some(session_ended);
            }
            EventKind::TakenOver => {}
        }
        line
    }

    /// One that nobody had connected.
    fn of_expired(session: &'a ExpiredSession) -> Self {
        Self::new("expired", &session.client, session.epoch, session.at_ms)
    }

    fn write(&self) -> Vec<u8> {
        // Texts and numbers alone: there is nothing that could not be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl EventBook for Book {
    fn note(&self, shard: Owner, event: &Event<'_>) {
        Self::note(self, event.client, &Line::of(shard, event).write());
    }

    fn note_expired(&self, session: &ExpiredSession) {
        Self::note(self, &session.client, &Line::of_expired(session).write());
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::ids::ClientId;

    use super::*;

    #[test]
    fn a_session_that_expired_has_no_node() {
        let session = ExpiredSession { client: ClientId::new("d"), epoch: Epoch(7), at_ms: 12 };
        let line = String::from_utf8(Line::of_expired(&session).write()).unwrap();
        assert_eq!(line, r#"{"event":"expired","client_id":"d","epoch":7,"at":12}"#);
    }
}
