//! One record on its way to its outcome and its receipt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message};
use serde::Deserialize;

use crate::config::PushTopicConfig;
use crate::core::{Core, now_ms};
use crate::kafka::book::Book;
use crate::metrics as names;
use crate::push::{PushError, PushRequest, PushTarget, Receipt, Refusal, Source, Terms, body, until_known};

/// Longest id, and longest target, that a receipt repeats of what is no push, in bytes; and longest explanation. A receipt that its topic
/// does not take would hold up the partition.
const ID_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 65_535;
const DETAIL_CHARS_MAX: usize = 500;

/// What all pushes of the topic share.
pub(super) struct Carrier {
    core: Arc<Core>,
    receipts: Option<Arc<Book>>,
    topic: String,
    acknowledged_within: Duration,
}

/// A record that was read.
pub(super) struct Read {
    partition: i32,
    offset: i64,
    /// When it was asked for, in ms of Unix time.
    asked_ms: u64,
    push: Result<PushRequest, NoPush>,
}

/// Why a record is no push, and what could be made out of it for its sender.
struct NoPush {
    reason: Refusal,
    detail: String,
    names: Names,
}

/// Identity and target, of whatever names them.
#[derive(Default, Deserialize)]
struct Names {
    id: Option<String>,
    device: Option<String>,
    topic: Option<String>,
    group: Option<String>,
}

impl Names {
    fn within_bounds(self) -> Self {
        let short =
            |name: Option<String>, bytes_max| name.filter(|name| !name.is_empty() && name.len() <= bytes_max);
        Self {
            id: short(self.id, ID_BYTES_MAX),
            device: short(self.device, TARGET_BYTES_MAX),
            topic: short(self.topic, TARGET_BYTES_MAX),
            group: short(self.group, TARGET_BYTES_MAX),
        }
    }
}

impl Carrier {
    pub(super) fn new(core: Arc<Core>, receipts: Option<Arc<Book>>, config: &PushTopicConfig) -> Self {
        let acknowledged_within = config.acknowledged_within;
        Self { core, receipts, topic: config.topic.clone(), acknowledged_within }
    }

    /// Understands a record, or why it is no push.
    pub(super) fn read(&self, record: &BorrowedMessage<'_>) -> Read {
        let now_ms = now_ms();
        let asked_ms = record.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok());
        let json = record.payload().unwrap_or_default();
        let bytes_max = self.core.config.push.body_bytes_max;
        let push = if json.len() > bytes_max {
            let detail =
                format!("{} bytes; a push has at most {bytes_max} (push.body_bytes_max)", json.len());
            Err(NoPush { reason: Refusal::TooLarge, detail, names: Names::default() })
        } else if json.is_empty() {
            let detail = "a record without a value (a tombstone) is no push; nothing is taken back by it";
            Err(NoPush { reason: Refusal::Invalid, detail: detail.to_owned(), names: Names::default() })
        } else {
            body::read(json, Duration::ZERO).map_err(|error| {
                let names: Names = serde_json::from_slice(json).unwrap_or_default();
                let names = names.within_bounds();
                NoPush { reason: Refusal::Invalid, detail: error.to_string(), names }
            })
        };
        Read {
            partition: record.partition(),
            offset: record.offset(),
            // A sender whose clock runs ahead gets no more time than others.
            asked_ms: asked_ms.map_or(now_ms, |asked_ms| asked_ms.min(now_ms)),
            push,
        }
    }

    /// Brings a record to its outcome and stores the receipt. False if the bridge stops before that.
    pub(super) async fn carry(&self, read: Read) -> bool {
        let Read { partition, offset, asked_ms, push } = read;
        let source = Source { topic: &self.topic, partition, offset };
        let place = || format!("{}/{partition}/{offset}", self.topic);
        let push = match push {
            Ok(push) => push,
            Err(no_push) => {
                let id = no_push.names.id.clone().unwrap_or_else(place);
                self.refuse(&id, &no_push, source).await;
                return true;
            }
        };
        let id = push.id.clone().unwrap_or_else(place);
        let target = push.target.clone();
        let acknowledged_within = Some(self.acknowledged_within);
        let terms = Terms { asked_ms, acknowledged_within, has_receipt: true, is_remembered: true };
        let known = until_known(&self.core, &id, push, terms).await;
        let (reason, error) = match known {
            Ok(outcome) => {
                metrics::counter!(names::PUSH_RECORDS, "result" => "carried_out").increment(1);
                let receipt = Receipt::of(&id, &target, outcome, now_ms());
                self.write(&Receipt { source: Some(source), ..receipt }).await;
                return true;
            }
            Err(PushError::Stopped) => return false,
            Err(error @ PushError::IdReused(_)) => (Refusal::IdReused, error),
            Err(error @ PushError::Store(_)) => (Refusal::Store, error),
            Err(error) => (Refusal::Invalid, error),
        };
        let mut names = Names { id: Some(id.clone()), ..Names::default() };
        match target {
            PushTarget::Device(device) => names.device = Some(device),
            PushTarget::Topic(topic) => names.topic = Some(topic),
            PushTarget::Group(group) => names.group = Some(group),
        }
        let names = names.within_bounds();
        self.refuse(&id, &NoPush { reason, detail: error.to_string(), names }, source).await;
        true
    }

    async fn refuse(&self, id: &str, no_push: &NoPush, source: Source<'_>) {
        let NoPush { reason, detail, names } = no_push;
        let detail: String = detail.chars().take(DETAIL_CHARS_MAX).collect();
        metrics::counter!(names::PUSH_RECORDS, "result" => "refused").increment(1);
        self.complain(&format!(
            "the record at partition {}, offset {} is refused: {detail}",
            source.partition, source.offset
        ));
        let receipt = Receipt {
            device: names.device.as_deref(),
            topic: names.topic.as_deref(),
            group: names.group.as_deref(),
            detail: Some(&detail),
            source: Some(source),
            ..Receipt::refused(id, *reason, now_ms())
        };
        self.write(&receipt).await;
    }

    async fn write(&self, receipt: &Receipt<'_>) {
        if let Some(receipts) = &self.receipts {
            receipts.write(receipt.key(), &receipt.json()).await;
        }
    }

    /// One line a minute.
    pub(super) fn complain(&self, what: &str) {
        if let Some(suppressed) = self.core.complaints.admit("pushes from Kafka", Instant::now()) {
            let suppressed = Some(suppressed).filter(|lines| *lines > 0);
            tracing::warn!(topic = self.topic, suppressed, "{what}");
        }
    }
}
