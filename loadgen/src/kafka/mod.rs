//! Kafka, as the load tool needs it: a topic read back as records for the ledger, and librdkafka's own producer to measure a bridge against. The only
//! folder of this crate that names rdkafka.

mod ending;
#[cfg(test)]
pub(crate) mod mock;
mod producer;
mod reader;

pub(crate) use self::producer::{DeviceRecords, Now};
pub use self::producer::{OwnProducer, ProducerError, ProducerPlan};
pub(crate) use self::reader::written;
pub use self::reader::{KafkaReadError, KafkaSource, read};
