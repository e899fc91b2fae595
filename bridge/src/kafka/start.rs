//! What is made sure of before anything listens: that the brokers answer and know us, that the topics are there, and what they promise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer, ProducerContext};
use rustc_hash::FxHashSet;

use super::config::KafkaConfig;
use super::delivery::{Troubles, log};
use super::error::{KafkaStartError, one_line};
use super::topics::{Takes, Topic};
use crate::uplink::topic_map::TopicMap;
use crate::uplink::topic_template::is_topic_name;

/// One try of a question to the brokers; between tries it is looked whether they refuse us.
const TRY: Duration = Duration::from_millis(500);
/// How long a question may take once the brokers have answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a broker takes by default, where it does not tell.
pub(super) const RECORD_BYTES_MAX: usize = 1_048_588;

/// What was found.
pub(super) struct Found {
    /// Those that are named in the configuration: the default first.
    pub(super) topics: Vec<Topic>,
    /// Every topic there is, if templates may lead to them.
    pub(super) existing: FxHashSet<Box<str>>,
    pub(super) map: TopicMap,
    pub(super) brokers: Arc<Brokers>,
}

/// Answers questions about the cluster; blocks.
pub(super) struct Brokers {
    client: BaseProducer<Asking>,
    native: ClientConfig,
    /// What topics are made and described with. Its thread wakes many times a second, and after the start it is seldom asked: open only while it is.
    admin: Mutex<Option<Arc<Admin>>>,
}

type Admin = AdminClient<DefaultClientContext>;

/// Checks topics that are not for frames, each with the key that names it, and makes those that lack if it may.
pub(super) fn check_topics(
    config: &KafkaConfig,
    topics: &[(&'static str, &str)],
) -> Result<(), KafkaStartError> {
    if topics.is_empty() {
        return Ok(());
    }
    if config.brokers.trim().is_empty() {
        return Err(KafkaStartError::NoBrokers);
    }
    for &(key, name) in topics {
        if !is_topic_name(name) {
            return Err(KafkaStartError::TopicName { key, name: name.to_owned() });
        }
    }
    let brokers = Brokers::ask(config)?;
    brokers.reach(config, config.start_within)?;
    topics.iter().try_for_each(|(_, name)| brokers.topic_or_create(name, config).map(|_| ()))
}

impl Brokers {
    /// Those of a configuration, in which nothing is wrong that one can see without them.
    pub(super) fn of(config: &KafkaConfig) -> Result<Self, KafkaStartError> {
        config.check()?;
        Self::ask(config)
    }

    fn ask(config: &KafkaConfig) -> Result<Self, KafkaStartError> {
        let native = config.native(None)?;
        let client = native.create_with_context(Asking::default())?;
        Ok(Self { client, native, admin: Mutex::default() })
    }

    /// Checks everything once a broker answers, and makes the topics that lack if it may.
    pub(super) fn find(
        self: &Arc<Self>,
        config: &KafkaConfig,
        within: Duration,
    ) -> Result<Found, KafkaStartError> {
        let found = self.check(config, within);
        self.rest();
        found
    }

    fn check(self: &Arc<Self>, config: &KafkaConfig, within: Duration) -> Result<Found, KafkaStartError> {
        self.reach(config, within)?;
        let map = map(config)?;
        let mut names = vec![&*config.topic];
        let named = map.templates().filter_map(|template| template.fixed());
        for name in named.chain(config.dead_letter.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut topics = Vec::new();
        for name in names {
            let replicas = self.topic_or_create(name, config)?;
            topics.push(self.describe(name, replicas));
        }
        let any_made_of_levels = map.templates().any(|template| template.fixed().is_none());
        let existing = if any_made_of_levels { self.all_topics()? } else { FxHashSet::default() };
        Ok(Found { topics, existing, map, brokers: Arc::clone(self) })
    }

    /// Waits until a broker answers, or it is clear that none will.
    fn reach(&self, config: &KafkaConfig, within: Duration) -> Result<(), KafkaStartError> {
        let deadline = Instant::now() + within;
        loop {
            let Err(error) = self.metadata(Some(&config.topic), TRY) else { return Ok(()) };
            // The reasons come as events.
            self.client.poll(Duration::from_millis(20));
            let brokers = config.brokers.clone();
            let (code, reason) = match self.client.context().troubles.last() {
                Some((code, reason)) => (Some(code), reason),
                None => (None, one_line(&error.to_string())),
            };
            match code {
                Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                    return Err(KafkaStartError::Credentials { brokers, reason });
                }
                Some(Code::SSL) => return Err(KafkaStartError::Tls { brokers, reason }),
                _ if Instant::now() >= deadline => {
                    return Err(KafkaStartError::Unreachable { brokers, reason });
                }
                _ => {}
            }
        }
    }

    /// How many replicas a topic has; it is made if it may be.
    fn topic_or_create(&self, name: &str, config: &KafkaConfig) -> Result<usize, KafkaStartError> {
        match self.replicas(name)? {
            Ok(replicas) => return Ok(replicas),
            Err(Code::UnknownTopic | Code::UnknownTopicOrPartition) if config.create_topics => {}
            Err(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                return Err(KafkaStartError::NoSuchTopic(name.to_owned()));
            }
            Err(Code::TopicAuthorizationFailed) => {
                return Err(KafkaStartError::NotAuthorized(name.to_owned()));
            }
            // A leader is being found; librdkafka waits for it.
            Err(_) => return Ok(1),
        }
        self.create(name, config)?;
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            match self.replicas(name)? {
                Ok(replicas) => return Ok(replicas),
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(code) => {
                    let (topic, reason) = (name.to_owned(), code.to_string());
                    return Err(KafkaStartError::Create { topic, reason });
                }
            }
        }
    }

    /// Nothing more is to be made or described for now. Blocks for up to 0.1 s.
    pub(super) fn rest(&self) {
        let admin = self.admin_place().take();
        // Whoever else still waits for its answer has a handle.
        drop(admin);
    }

    fn admin(&self) -> Result<Arc<Admin>, KafkaError> {
        let mut place = self.admin_place();
        if let Some(admin) = &*place {
            return Ok(Arc::clone(admin));
        }
        let admin = Arc::new(self.native.create()?);
        *place = Some(Arc::clone(&admin));
        Ok(admin)
    }

    fn admin_place(&self) -> MutexGuard<'_, Option<Arc<Admin>>> {
        self.admin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a topic; it is fine if it exists. [`Self::rest`] is to follow.
    pub(super) fn create(&self, name: &str, config: &KafkaConfig) -> Result<(), KafkaStartError> {
        let topic = NewTopic::new(name, config.partitions, TopicReplication::Fixed(config.replicas));
        let failed =
            |reason: String| KafkaStartError::Create { topic: name.to_owned(), reason: one_line(&reason) };
        let admin = self.admin().map_err(|error| failed(error.to_string()))?;
        let made = wait(admin.create_topics([&topic], &options()));
        match made.map_err(|error| failed(error.to_string()))?.pop() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed))) => Err(failed(
                "our user may not create topics; allow it to, or create the topic by hand".to_owned(),
            )),
            Some(Err((_, code))) => Err(failed(code.to_string())),
            _ => {
                tracing::info!(topic = name, partitions = config.partitions, "a Kafka topic was made");
                Ok(())
            }
        }
    }

    pub(super) fn all_topics(&self) -> Result<FxHashSet<Box<str>>, KafkaStartError> {
        let metadata = self.metadata(None, ANSWER_WITHIN)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().into()).collect())
    }

    /// The replicas of a topic's weakest partition, or why it cannot be used.
    fn replicas(&self, name: &str) -> Result<Result<usize, Code>, KafkaStartError> {
        let metadata = self.metadata(Some(name), ANSWER_WITHIN)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let Some(topic) = topic else { return Ok(Err(Code::UnknownTopic)) };
        if let Some(error) = topic.error() {
            return Ok(Err(error.into()));
        }
        let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
        Ok(replicas.ok_or(Code::LeaderNotAvailable))
    }

    /// What a topic takes; says aloud if its acks=all promises little.
    fn describe(&self, name: &str, replicas: usize) -> Topic {
        let settings = self.settings(name);
        if settings.is_none() {
            tracing::info!(
                topic = name,
                "Kafka does not tell us the topic's settings; its defaults are assumed"
            );
        }
        let in_sync = settings.as_ref().and_then(|of| number(of, "min.insync.replicas")).unwrap_or(1);
        if replicas < 2 {
            tracing::warn!(
                topic = name,
                "the topic has one replica: what is acknowledged is lost with its broker; give it three, and min.insync.replicas=2",
            );
        } else if in_sync < 2 {
            tracing::warn!(
                topic = name,
                replicas,
                "min.insync.replicas is 1: a frame may be acknowledged that a single broker holds; set it to 2",
            );
        }
        let defaults = Takes { record_bytes_max: RECORD_BYTES_MAX, before_ms_max: u64::MAX };
        Topic::new(name.into(), settings.as_ref().map_or(defaults, takes))
    }

    /// What a topic takes, if the brokers tell. Blocks for up to 10 s. [`Self::rest`] is to follow.
    pub(super) fn takes(&self, name: &str) -> Option<Takes> {
        self.settings(name).as_ref().map(takes)
    }

    fn settings(&self, name: &str) -> Option<ConfigResource> {
        let admin = self.admin().ok()?;
        let described = wait(admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options()));
        described.ok()?.pop()?.ok()
    }

    fn metadata(&self, topic: Option<&str>, within: Duration) -> Result<Metadata, KafkaError> {
        self.client.client().fetch_metadata(topic, within)
    }
}

fn map(config: &KafkaConfig) -> Result<TopicMap, KafkaStartError> {
    TopicMap::new(config.topic_map.clone()).map_err(|error| KafkaStartError::Other(error.to_string()))
}

fn takes(settings: &ConfigResource) -> Takes {
    let bytes = number(settings, "max.message.bytes").map_or(RECORD_BYTES_MAX, |bytes| bytes as usize);
    let before = number(settings, "message.timestamp.before.max.ms").unwrap_or(u64::MAX);
    Takes { record_bytes_max: bytes, before_ms_max: before }
}

fn number(settings: &ConfigResource, name: &str) -> Option<u64> {
    settings.get(name)?.value.as_ref()?.parse().ok()
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER_WITHIN)).operation_timeout(Some(ANSWER_WITHIN))
}

/// Notes why the brokers do not answer.
#[derive(Default)]
struct Asking {
    troubles: Troubles,
}

impl ClientContext for Asking {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.troubles.note(&error, reason);
    }
}

impl ProducerContext for Asking {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Blocks this thread until a future is done. librdkafka's threads complete it, so no runtime is needed.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever looks from outside whether the client is closed tells it by this name.
    #[test]
    fn the_client_that_makes_topics_has_a_thread_of_a_known_name_until_it_may_rest() {
        // Nobody listens there, which a client need not know to begin.
        let config = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), ..KafkaConfig::default() };
        let brokers = Brokers::of(&config).expect("nothing is wrong with it");
        let is_there = || {
            let threads = std::fs::read_dir("/proc/self/task").expect("this process has threads");
            // A thread may end while it is looked at.
            let mut names =
                threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
            names.any(|name| name.starts_with("admin client"))
        };
        let until = |state: bool| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while is_there() != state {
                assert!(Instant::now() < deadline, "still {}", !state);
                std::thread::yield_now();
            }
        };
        brokers.admin().expect("a client needs no broker to begin");
        until(true);
        brokers.rest();
        until(false);
    }
}
