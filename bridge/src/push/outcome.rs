//! What becomes of a push, and how it is told: in an answer, a line of a batch, a receipt.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

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
        /// Streams that did not take it, as they are full and keep what they have.
        streams_full: usize,
    },
    /// The push of every member of a group has its outcome.
    Done(Tally),
}

/// Why a push will not reach its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Too much waits for it already, and nothing of that gives way.
    QueueFull,
    /// It holds no subscription that matches the topic.
    NotSubscribed,
    /// There is no session of this client id that is connected or could keep it.
    NoSuchSession,
    /// The session rests, and with this QoS, the push's or the subscription's, nothing is kept for it.
    NotConnected,
    /// It takes only smaller packets; or a stream that would have to keep the push holds only smaller ones. In a receipt also: the record is larger than
    /// a push may be.
    TooLarge,
    /// It answered with an error.
    #[serde(rename = "refused_by_device")]
    ByDevice,
    /// The group has no members.
    NoSuchGroup,
    /// Of a group's member: its client id cannot stand in `push.topic`. In a receipt: the record is no push.
    Invalid,
    /// In a receipt: the id belongs to another push.
    IdReused,
    /// Of a group's member, or in a receipt: the session store holds what this release cannot read.
    Store,
}

/// How many pushes came to which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    delivered: u64,
    queued: u64,
    expired: u64,
    accepted: u64,
    done: u64,
    refused: [u64; Refusal::ALL.len()],
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
            Self::Done(_) => "done",
        }
    }
}

impl Refusal {
    /// All there are, in their order.
    const ALL: [Self; 10] = [
        Self::QueueFull,
        Self::NotSubscribed,
        Self::NoSuchSession,
        Self::NotConnected,
        Self::TooLarge,
        Self::ByDevice,
        Self::NoSuchGroup,
        Self::Invalid,
        Self::IdReused,
        Self::Store,
    ];
}

impl Tally {
    /// One more push has its outcome.
    pub fn count(&mut self, outcome: PushOutcome) {
        let counter = match outcome {
            PushOutcome::Delivered => &mut self.delivered,
            PushOutcome::Queued => &mut self.queued,
            PushOutcome::Expired => &mut self.expired,
            PushOutcome::Accepted { .. } => &mut self.accepted,
            PushOutcome::Done(_) => &mut self.done,
            PushOutcome::Refused(refusal) => &mut self.refused[refusal as usize],
        };
        *counter += 1;
    }

    /// All that were counted.
    pub fn pushes(&self) -> u64 {
        self.delivered + self.queued + self.expired + self.accepted + self.done + self.refused()
    }

    fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// By outcome.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            delivered: self.delivered,
            queued: self.queued,
            expired: self.expired,
            refused: self.refused(),
            accepted: Some(self.accepted).filter(|accepted| *accepted > 0),
            done: Some(self.done).filter(|done| *done > 0),
        }
    }

    /// Those that were refused, by reason; none if there are none.
    pub(crate) fn reasons(&self) -> Option<BTreeMap<Refusal, u64>> {
        let reasons = Refusal::ALL.into_iter().zip(self.refused).filter(|(_, refused)| *refused > 0);
        Some(reasons.collect::<BTreeMap<_, _>>()).filter(|reasons| !reasons.is_empty())
    }
}

/// The word for an outcome. `delivered`: the device acknowledged it (QoS 0: it was handed to its socket). `queued`: the device is away, its
/// session keeps it. `expired`: it was not acknowledged before its time passed. `refused`: it will not arrive, `reason` says why. `accepted`: to a
/// topic, stored where it has to be and sent to all that hear it. `done`: to a group, `outcomes` counts what became of its members' pushes.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "the schema of `PushOutcome::name`")]
pub(crate) enum Outcome {
    Delivered,
    Queued,
    Expired,
    Refused,
    Accepted,
    Done,
}

/// Pushes by their outcome.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Counts {
    pub(crate) delivered: u64,
    pub(crate) queued: u64,
    pub(crate) expired: u64,
    pub(crate) refused: u64,
    /// Pushes to topics, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accepted: Option<u64>,
    /// Pushes to groups, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) done: Option<u64>,
}

/// An outcome in words.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Told {
    #[schemars(with = "Outcome")]
    pub(crate) outcome: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Refusal>,
    /// To a topic: shards of gateways that were sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shards: Option<usize>,
    /// To a topic: streams of persistent sessions that hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams: Option<usize>,
    /// To a topic: streams that are full and did not take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) streams_full: Option<usize>,
    /// To a group: its members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) members: Option<u64>,
    /// To a group: its members' pushes by their outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcomes: Option<Counts>,
    /// To a group: those that were refused, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasons: Option<BTreeMap<Refusal, u64>>,
}

impl From<PushOutcome> for Told {
    fn from(outcome: PushOutcome) -> Self {
        let mut told = Self {
            outcome: outcome.name(),
            reason: None,
            shards: None,
            streams: None,
            streams_full: None,
            members: None,
            outcomes: None,
            reasons: None,
        };
        match outcome {
            PushOutcome::Delivered | PushOutcome::Queued | PushOutcome::Expired => {}
            PushOutcome::Refused(refusal) => told.reason = Some(refusal),
            PushOutcome::Accepted { shards, streams, streams_full } => {
                (told.shards, told.streams) = (Some(shards), Some(streams));
                told.streams_full = (streams_full > 0).then_some(streams_full);
            }
            PushOutcome::Done(tally) => {
                (told.members, told.outcomes) = (Some(tally.pushes()), Some(tally.counts()));
                told.reasons = tally.reasons();
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tally_tells_outcomes_and_reasons() {
        let mut tally = Tally::default();
        for outcome in [PushOutcome::Queued, PushOutcome::Delivered, PushOutcome::Queued] {
            tally.count(outcome);
        }
        for refusal in Refusal::ALL {
            tally.count(PushOutcome::Refused(refusal));
        }
        tally.count(PushOutcome::Refused(Refusal::ByDevice));
        assert_eq!(tally.pushes(), 14);
        let told = serde_json::to_value(Told::from(PushOutcome::Done(tally))).unwrap();
        assert_eq!(
            (&told["members"], &told["outcomes"]),
            (&json!(14), &json!({ "delivered": 1, "queued": 2, "expired": 0, "refused": 11 }))
        );
        assert_eq!(
            (&told["reasons"]["refused_by_device"], &told["reasons"]["store"]),
            (&json!(2), &json!(1))
        );
        assert_eq!(told["reasons"].as_object().unwrap().len(), Refusal::ALL.len());
    }
}
