//! The Kafka topics that frames go to: which one a frame's topic leads to, and how names that templates make become topics.
//!
//! A name is asked for once; afterwards a lane knows its topic. One thread makes missing topics, or looks whether somebody else has made them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::config::KafkaConfig;
use super::error::{KafkaStartError, Refusal};
use super::start::{Brokers, Found};
use crate::uplink::topic_map::{SinkName, TopicMap};

/// Names that may wait for the thread; one that finds it full is asked for again with its next frame.
const ASKED_MAX: usize = 64;
/// How often it is looked whether topics have appeared that somebody else makes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A topic, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    /// Bytes of a single record.
    pub(super) record_bytes_max: usize,
    /// How far a timestamp may lie back, in ms.
    pub(super) before_ms_max: u64,
}

/// All topics of a sink.
pub(super) struct Topics {
    default: Arc<Topic>,
    dead_letter: Option<Arc<Topic>>,
    map: TopicMap,
    known: Arc<RwLock<Known>>,
    /// That of `known`.
    generation: Arc<AtomicU64>,
    /// What each topic takes that was found at the start.
    record_bytes_max: Box<[usize]>,
    may_create: bool,
    /// Those that are named in the configuration, and as many as may come into being by templates.
    count_max: usize,
    asks: Option<SyncSender<Arc<str>>>,
}

#[derive(Default)]
struct Known {
    topics: FxHashMap<Arc<str>, Arc<Topic>>,
    /// Grows when one is forgotten that could not be made: lanes forget theirs.
    generation: Arc<AtomicU64>,
    /// Names that the brokers have, as of the last look. Without leave to make topics only these are believed, so that a device cannot fill our
    /// tables with names.
    existing: FxHashSet<Box<str>>,
}

impl Known {
    fn forget(&mut self, name: &str) {
        self.topics.remove(name);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }
}

impl Topics {
    pub(super) fn start(config: &KafkaConfig, found: Found) -> Result<Self, KafkaStartError> {
        let Found { topics, existing, map, brokers } = found;
        let record_bytes_max = topics.iter().map(|topic| topic.record_bytes_max).collect();
        let topics: FxHashMap<_, _> =
            topics.into_iter().map(|topic| (Arc::clone(&topic.name), Arc::new(topic))).collect();
        let named = topics.len();
        let default = topics.get(&*config.topic).map(Arc::clone);
        let default = default.ok_or_else(|| KafkaStartError::NoSuchTopic(config.topic.clone()))?;
        let dead_letter = config.dead_letter.as_deref().and_then(|name| topics.get(name)).map(Arc::clone);
        let generation = Arc::<AtomicU64>::default();
        let known = Known { topics, generation: Arc::clone(&generation), existing };
        let known = Arc::new(RwLock::new(known));
        let asks = if map.templates().any(|template| template.fixed().is_none()) {
            let (asks, asked) = sync_channel(ASKED_MAX);
            let keeper =
                Keeper { config: config.clone(), brokers, known: Arc::clone(&known), looked: Instant::now() };
            std::thread::Builder::new()
                .name("kafka-topics".into())
                .spawn(move || keeper.run(&asked))
                .map_err(|error| KafkaStartError::Other(format!("no thread can be started: {error}")))?;
            Some(asks)
        } else {
            None
        };
        let (may_create, count_max) = (config.create_topics, named + config.topics_max);
        Ok(Self {
            default,
            dead_letter,
            map,
            known,
            generation,
            record_bytes_max,
            may_create,
            count_max,
            asks,
        })
    }

    pub(super) fn record_bytes_max(&self) -> &[usize] {
        &self.record_bytes_max
    }

    pub(super) fn dead_letter(&self) -> Option<&Arc<Topic>> {
        self.dead_letter.as_ref()
    }

    /// The topic of this name, and whether it may be remembered.
    fn find(&self, name: &str) -> Result<(Arc<Topic>, bool), Refusal> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = known.topics.get(name) {
            return Ok((Arc::clone(topic), true));
        }
        let exists = known.existing.contains(name);
        drop(known);
        let ask =
            |name: &Arc<str>| self.asks.as_ref().is_some_and(|asks| asks.try_send(Arc::clone(name)).is_ok());
        let name = Arc::<str>::from(name);
        if !exists && !self.may_create {
            ask(&name);
            return Err(Refusal::NoSuchTopic);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.topics.len() >= self.count_max {
            return Err(Refusal::TooManyTopics);
        }
        // What it takes is not looked up: most topics take what the default one takes, and the brokers know better.
        let topic = Arc::new(Topic { name: Arc::clone(&name), ..(*self.default).clone() });
        // librdkafka keeps its records until it is made.
        let asked = exists || ask(&name);
        if asked {
            known.topics.insert(name, Arc::clone(&topic));
        }
        Ok((topic, asked))
    }
}

/// One lane's memory of where frames go.
pub(super) struct Routes {
    topics: Arc<Topics>,
    /// No more than the sink has.
    known: FxHashMap<Arc<str>, Arc<Topic>>,
    /// Of the sink's topics, as of when `known` was empty.
    generation: u64,
    name: String,
}

impl Routes {
    pub(super) fn new(topics: Arc<Topics>) -> Self {
        Self { topics, known: FxHashMap::default(), generation: 0, name: String::new() }
    }

    /// The Kafka topic for frames of this topic.
    pub(super) fn find(&mut self, topic: &str) -> Result<Arc<Topic>, Refusal> {
        let SinkName::Kafka(template) = self.topics.map.sink(topic) else {
            return Ok(Arc::clone(&self.topics.default));
        };
        if !template.fill(topic, &mut self.name) {
            return Err(Refusal::NoSuchTopic);
        }
        let generation = self.topics.generation.load(Ordering::Acquire);
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.known.clear();
        }
        if let Some(topic) = self.known.get(&*self.name) {
            return Ok(Arc::clone(topic));
        }
        let (topic, may_be_remembered) = self.topics.find(&self.name)?;
        if may_be_remembered && self.known.len() < self.topics.count_max {
            self.known.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        }
        Ok(topic)
    }
}

/// Makes topics, or looks for those that others make.
struct Keeper {
    config: KafkaConfig,
    brokers: Brokers,
    known: Arc<RwLock<Known>>,
    looked: Instant,
}

impl Keeper {
    fn run(mut self, asked: &Receiver<Arc<str>>) {
        while let Ok(name) = asked.recv() {
            if self.config.create_topics {
                if let Err(error) = self.brokers.create(&name, &self.config) {
                    tracing::error!(topic = &*name, %error, "a topic of the topic map cannot be made");
                    self.known.write().unwrap_or_else(PoisonError::into_inner).forget(&name);
                }
            } else if self.looked.elapsed() >= LOOK_EVERY {
                self.looked = Instant::now();
                match self.brokers.all_topics() {
                    Ok(existing) => {
                        self.known.write().unwrap_or_else(PoisonError::into_inner).existing = existing;
                    }
                    Err(error) => tracing::warn!(%error, "it is not known which topics Kafka has"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::topic_map::TopicRule;

    const NAME: &str = "site-7";

    /// Topics with one rule, and where a keeper would hear of names; it has room for one.
    fn topics() -> (Arc<Topics>, Receiver<Arc<str>>) {
        let rule = TopicRule { filter: "site/+".into(), sink: "kafka:site-{2}".parse().unwrap() };
        let default = Topic { name: "frames".into(), record_bytes_max: 1_000, before_ms_max: u64::MAX };
        let (asks, asked) = sync_channel(1);
        let known = Known::default();
        let generation = Arc::clone(&known.generation);
        let topics = Topics {
            default: Arc::new(default),
            dead_letter: None,
            map: TopicMap::new(vec![rule]).unwrap(),
            known: Arc::new(RwLock::new(known)),
            generation,
            record_bytes_max: Box::default(),
            may_create: true,
            count_max: 10,
            asks: Some(asks),
        };
        (Arc::new(topics), asked)
    }

    #[test]
    fn a_name_that_found_no_place_is_asked_for_again_with_its_next_frame() {
        let (topics, asked) = topics();
        let mut routes = Routes::new(topics);
        for site in ["site/6", "site/7"] {
            routes.find(site).unwrap();
        }
        assert_eq!(asked.try_iter().map(|name| name.to_string()).collect::<Vec<_>>(), ["site-6"]);
        for _ in 0..2 {
            assert_eq!(&*routes.find("site/7").unwrap().name, NAME);
        }
        assert_eq!(asked.try_iter().map(|name| name.to_string()).collect::<Vec<_>>(), [NAME]);
    }

    #[test]
    fn a_topic_that_could_not_be_made_is_asked_for_again_by_lanes_that_knew_it() {
        let (topics, asked) = topics();
        let mut routes = Routes::new(Arc::clone(&topics));
        routes.find("site/7").unwrap();
        assert_eq!(asked.try_iter().count(), 1);
        topics.known.write().unwrap().forget(NAME);
        routes.find("site/7").unwrap();
        assert_eq!(asked.try_iter().count(), 1);
    }
}
