//! Whose fault it is when Kafka does not take a record, and what its publisher hears; and why a sink does not start.
//!
//! What may succeed later librdkafka tries again by itself. What it reports is final for the record (refused, the next ones go on), or
//! it has lost its way (the frames come back to us, and a fresh producer begins).

use holdfast_wire::mqtt::ReasonCode;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Why a record is refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLarge,
    NoSuchTopic,
    TooManyTopics,
    NotAuthorized,
    /// The levels of the frame's topic make no name that a Kafka topic could have.
    InvalidName,
    Invalid,
}

impl Refusal {
    /// What its publisher hears. MQTT has no code for "too large" in a PUBACK (section 3.4.2.1).
    pub(super) fn reason_code(self) -> u8 {
        let code = match self {
            Self::TooLarge | Self::TooManyTopics => ReasonCode::QuotaExceeded,
            Self::NoSuchTopic | Self::InvalidName => ReasonCode::TopicNameInvalid,
            Self::NotAuthorized => ReasonCode::NotAuthorized,
            Self::Invalid => ReasonCode::ImplementationSpecificError,
        };
        code as u8
    }

    /// Its name in metrics, logs and the dead letter's header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too large",
            Self::NoSuchTopic => "no such topic",
            Self::TooManyTopics => "too many topics",
            Self::NotAuthorized => "not authorized",
            Self::InvalidName => "invalid topic name",
            Self::Invalid => "invalid",
        }
    }

    /// What an operator may do about it.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::TooLarge => "raise the topic's max.message.bytes, or lower mqtt.maximum_packet_size",
            Self::NoSuchTopic => "create it, or set kafka.create_topics = true",
            Self::TooManyTopics => "raise kafka.topics_max",
            Self::NotAuthorized => "allow our user to Describe and Write it",
            Self::InvalidName => {
                "a Kafka topic has letters, digits, '.', '_' and '-' alone: let topic_map name another one for such frames"
            }
            Self::Invalid => "see what the topic asks of its records (timestamps, format)",
        }
    }
}

impl Refusal {
    /// What would mend it, if an operator can while the bridge runs.
    pub(super) fn trouble(self, topic: &str) -> Option<KafkaStartError> {
        match self {
            Self::NoSuchTopic => Some(KafkaStartError::NoSuchTopic(topic.to_owned())),
            Self::NotAuthorized => Some(KafkaStartError::NotAuthorized(topic.to_owned())),
            Self::TooLarge | Self::TooManyTopics | Self::InvalidName | Self::Invalid => None,
        }
    }
}

/// What an error of a single record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// There is no room in librdkafka's queue: wait.
    Full,
    /// This record will never be taken.
    Refused(Refusal),
    /// Nothing is known against the record; it is ours again.
    Withdrawn,
}

impl From<Code> for Meaning {
    fn from(code: Code) -> Self {
        match code {
            Code::QueueFull => Self::Full,
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
                Self::Refused(Refusal::TooLarge)
            }
            Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownPartition
            | Code::InvalidTopic => Self::Refused(Refusal::NoSuchTopic),
            Code::TopicAuthorizationFailed => Self::Refused(Refusal::NotAuthorized),
            Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::PolicyViolation
            | Code::UnsupportedForMessageFormat
            | Code::UnsupportedCompressionType => Self::Refused(Refusal::Invalid),
            _ => Self::Withdrawn,
        }
    }
}

impl From<&KafkaError> for Meaning {
    fn from(error: &KafkaError) -> Self {
        error.rdkafka_error_code().map_or(Self::Withdrawn, Self::from)
    }
}

/// Why the Kafka sink does not start; one line that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaStartError {
    /// A setting that our promises stand on.
    #[error("kafka.settings.{name} cannot be set: {reason}")]
    Reserved {
        /// Its name.
        name: String,
        /// Why it is ours.
        reason: &'static str,
    },
    /// librdkafka does not know a setting, or not this value.
    #[error("kafka.settings.{name}: {reason}")]
    NotASetting {
        /// Its name.
        name: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The settings do not go together, or name what is not there.
    #[error("kafka.settings: {0}")]
    Setting(String),
    /// An address that is none.
    #[error("kafka.brokers: {0:?} is no broker: give HOST:PORT, and commas between several")]
    Broker(String),
    /// No broker was named.
    #[error("kafka.brokers names no broker: set it to host:port")]
    NoBrokers,
    /// The name of a topic is none.
    #[error("{key} = {name:?} is not the name of a Kafka topic: 1 to 249 letters, digits, '.', '_' and '-'")]
    TopicName {
        /// The key that has it.
        key: &'static str,
        /// The name.
        name: String,
    },
    /// No broker answered in time.
    #[error(
        "no Kafka broker answers at {brokers} ({reason}): check kafka.brokers and that a broker runs there{}",
        protocol_hint(reason)
    )]
    Unreachable {
        /// Where we looked.
        brokers: String,
        /// What librdkafka said last.
        reason: String,
    },
    /// The brokers do not know who we are.
    #[error(
        "Kafka at {brokers} refuses our credentials ({reason}): check sasl.username and sasl.password in kafka.settings"
    )]
    Credentials {
        /// Where.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// TLS did not come about.
    #[error("no TLS with Kafka at {brokers} ({reason}): check security.protocol and ssl.* in kafka.settings")]
    Tls {
        /// Where.
        brokers: String,
        /// What librdkafka said.
        reason: String,
    },
    /// A topic is missing and may not be made.
    #[error("the Kafka topic {0:?} does not exist: create it, or set kafka.create_topics = true")]
    NoSuchTopic(String),
    /// We may not write to a topic, or not even see it.
    #[error("Kafka does not let us use the topic {0:?}: allow our user to Describe and Write it")]
    NotAuthorized(String),
    /// A topic could not be made.
    #[error("the Kafka topic {topic:?} cannot be created: {reason}")]
    Create {
        /// Its name.
        topic: String,
        /// What the broker said.
        reason: String,
    },
    /// Something else.
    #[error("Kafka: {0}")]
    Other(String),
}

impl From<KafkaError> for KafkaStartError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, ..) | KafkaError::ClientCreation(reason) => {
                Self::Setting(one_line(&reason))
            }
            other => Self::Other(one_line(&other.to_string())),
        }
    }
}

/// A broker that wants TLS or SASL, or does not, hangs up on whoever begins otherwise.
fn protocol_hint(reason: &str) -> &'static str {
    const SIGNS: [&str; 9] = [
        "Disconnected",
        "ApiVersion",
        "SSL",
        "SASL",
        "security.protocol",
        "Connection reset",
        "Broken pipe",
        "in state UP",
        "in state AUTH",
    ];
    if SIGNS.iter().any(|sign| reason.contains(sign)) {
        "; a broker that hangs up may want TLS or SASL, or neither: set kafka.settings.security.protocol (plaintext, ssl, sasl_plaintext, sasl_ssl)"
    } else {
        ""
    }
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_against_the_record_itself_is_a_refusal() {
        assert_eq!(Meaning::from(Code::MessageSizeTooLarge), Meaning::Refused(Refusal::TooLarge));
        assert_eq!(Meaning::from(Code::UnknownTopic), Meaning::Refused(Refusal::NoSuchTopic));
        assert_eq!(Meaning::from(Code::QueueFull), Meaning::Full);
        for code in [
            Code::PurgeInflight,
            Code::PurgeQueue,
            Code::Fatal,
            Code::MessageTimedOut,
            Code::NotEnoughReplicas,
        ] {
            assert_eq!(Meaning::from(code), Meaning::Withdrawn, "{code:?}");
        }
    }

    #[test]
    fn a_refusal_has_a_reason_code_that_a_puback_may_carry() {
        let all = [
            Refusal::TooLarge,
            Refusal::NoSuchTopic,
            Refusal::TooManyTopics,
            Refusal::NotAuthorized,
            Refusal::InvalidName,
            Refusal::Invalid,
        ];
        assert_eq!(all.map(Refusal::reason_code), [0x97, 0x90, 0x97, 0x87, 0x90, 0x83]);
    }

    #[test]
    fn a_broker_that_hangs_up_may_want_another_protocol() {
        let line = |reason: &str| {
            let (brokers, reason) = ("kafka:9093".to_owned(), reason.to_owned());
            KafkaStartError::Unreachable { brokers, reason }.to_string()
        };
        let hangs_up =
            "Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol";
        for reason in [hangs_up, "Send failed: Broken pipe (after 0ms in state UP)"] {
            assert!(line(reason).contains("kafka.settings.security.protocol"), "{reason}");
        }
        assert!(
            !line("Connect to ipv4#127.0.0.1:1 failed: Connection refused").contains("security.protocol")
        );
    }
}
