//! A broker within this process, for tests: librdkafka's own, which keeps records in memory.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

/// Far more than any of it takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// It ends with this value.
pub(crate) struct MockKafka(MockCluster<'static, DefaultProducerContext>);

impl MockKafka {
    pub(crate) fn start(topic: &str, partitions: i32) -> Self {
        let cluster = MockCluster::new(1).expect("a mock starts");
        cluster.create_topic(topic, partitions, 1).expect("the topic is new");
        Self(cluster)
    }

    pub(crate) fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// All of one key, in their order.
    pub(crate) fn produce(&self, topic: &str, key: &str, payloads: impl IntoIterator<Item = Vec<u8>>) {
        let config = ClientConfig::new().set("bootstrap.servers", self.brokers()).clone();
        let producer: BaseProducer = config.create().expect("the settings are valid");
        for payload in payloads {
            producer.send(BaseRecord::to(topic).key(key).payload(&payload)).expect("there is room");
        }
        producer.flush(PATIENCE).expect("the mock takes everything");
    }
}
