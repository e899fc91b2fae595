//! The book of events: which connections began and ended. Best effort; frames never wait for it.

use std::sync::Arc;

use holdfast_wire::ids::Owner;
use holdfast_wire::link::{Event, EventKind};
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
    node: String,
    shard: u16,
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
    fn of(shard: Owner, event: &Event<'a>) -> Self {
        let mut line = Self {
            event: "taken_over",
            client_id: event.client,
            epoch: event.epoch.0,
            node: shard.node.to_string(),
            shard: shard.shard.0,
            at: event.at_ms,
            protocol: None,
            session_present: None,
            session_expiry_s: None,
            reason: None,
            session_ended: None,
        };
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
}

impl EventBook for Book {
    fn note(&self, shard: Owner, event: &Event<'_>) {
        // Texts and numbers alone: there is nothing that could not be written.
        let line = serde_json::to_vec(&Line::of(shard, event)).unwrap_or_default();
        Self::note(self, event.client, &line);
    }
}
