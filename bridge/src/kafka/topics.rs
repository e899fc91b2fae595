//! The Kafka topics that frames go to: which one a frame's topic leads to, and how names that templates make become topics.
//!
//! A name is asked for once; afterwards a lane knows its topic. One thread makes missing topics, or looks whether somebody else has made them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::field::display;

use super::config::KafkaConfig;
use super::error::{KafkaStartError, Refusal};
use super::start::{Brokers, Found};
use crate::complaints::Complaints;
use crate::uplink::topic_map::{SinkName, TopicMap};

/// Names that may wait for the thread; one that finds it full is asked for again with its next frame.
const ASKED_MAX: usize = 64;
/// How often it is looked whether topics have appeared that somebody else makes.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So long an answer about what a topic takes is believed after a batch was refused.
const ASKED_FOR: Duration = Duration::from_secs(1);

/// A topic, and what it takes.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    record_bytes_max: AtomicUsize,
    before_ms_max: AtomicU64,
    /// Half of a batch that it refused though each of its records was thought to fit.
    batch_bytes_max: AtomicUsize,
    /// When the brokers were asked what it takes, if they were since the start, and whether they told.
    asked: Mutex<Option<(Instant, bool)>>,
}

/// What a topic takes, as its brokers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takes {
    /// Bytes of a single record, and of a batch.
    pub(super) record_bytes_max: usize,
    /// How far a timestamp may lie back, in ms.
    pub(super) before_ms_max: u64,
}

impl Topic {
    pub(super) fn new(name: Arc<str>, takes: Takes) -> Self {
        let Takes { record_bytes_max, before_ms_max } = takes;
        Self {
            name,
            record_bytes_max: record_bytes_max.into(),
            before_ms_max: before_ms_max.into(),
            batch_bytes_max: usize::MAX.into(),
            asked: Mutex::default(),
        }
    }

    /// Bytes of a single record.
    pub(super) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max.load(Ordering::Acquire)
    }

    /// How far a timestamp may lie back, in ms.
    pub(super) fn before_ms_max(&self) -> u64 {
        self.before_ms_max.load(Ordering::Acquire)
    }

    fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max.load(Ordering::Acquire).min(self.record_bytes_max())
    }

    fn takes(&self) -> Takes {
        Takes { record_bytes_max: self.record_bytes_max(), before_ms_max: self.before_ms_max() }
    }

    fn learn(&self, takes: Takes) {
        self.record_bytes_max.store(takes.record_bytes_max, Ordering::Release);
        self.before_ms_max.store(takes.before_ms_max, Ordering::Release);
    }

    /// It refused a batch of up to so many bytes: smaller ones are tried, unless it has told that it takes less. Whether it tells what it takes;
    /// asking blocks for up to 10 s.
    fn refused_batch(&self, brokers: &Brokers, bytes: usize) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let tells = match *asked {
            // Each record of the batch comes here.
            Some((at, told)) if at.elapsed() < ASKED_FOR => told,
            _ => {
                let takes = brokers.takes(&self.name);
                brokers.rest();
                takes.inspect(|takes| self.learn(*takes));
                takes.is_some()
            }
        };
        *asked = Some((Instant::now(), tells));
        if self.record_bytes_max() >= bytes {
            self.batch_bytes_max.fetch_min((bytes / 2).max(1), Ordering::AcqRel);
        }
        let (topic, to) = (&*self.name, self.batch_bytes_max());
        tracing::debug!(topic, from = bytes, to, tells, "a topic refuses a batch for its size");
        tells
    }
}

/// All topics of a sink.
pub(super) struct Topics {
    default: Arc<Topic>,
    dead_letter: Option<Arc<Topic>>,
    map: TopicMap,
    known: Arc<RwLock<Known>>,
    /// That of `known`.
    generation: Arc<AtomicU64>,
    brokers: Option<Arc<Brokers>>,
    may_create: bool,
    /// Those that are named in the configuration, and as many as may come into being by templates.
    count_max: usize,
    asks: Option<SyncSender<Arc<str>>>,
    complaints: Complaints,
}

/// What becomes of a frame that its topic refuses.
pub(super) mod fate {
    pub(in super::super) const BURIED: &str = "it goes to kafka.dead_letter";
    pub(in super::super) const TOLD: &str = "its device hears so";
    pub(in super::super) const ACKNOWLEDGED: &str = "it was acknowledged before";
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
            let keeper = Keeper {
                config: config.clone(),
                brokers: Arc::clone(&brokers),
                known: Arc::clone(&known),
                looked: Instant::now(),
            };
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
            brokers: Some(brokers),
            may_create,
            count_max,
            asks,
            complaints: Complaints::default(),
        })
    }

    /// The largest record that any of them takes; none if there may be topics of which that is not known yet.
    pub(super) fn record_bytes_max(&self) -> Option<usize> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.topics.values().map(|topic| topic.record_bytes_max()).max().filter(|_| self.asks.is_none())
    }

    /// The largest batch that all of them take.
    pub(super) fn batch_bytes_max(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.topics.values().map(|topic| topic.batch_bytes_max()).min().unwrap_or(usize::MAX)
    }

    /// A topic refused a batch of up to so many bytes for its size; batches will be smaller. Whether what its records may have is known better now:
    /// asks the brokers, which blocks for up to 10 s.
    pub(super) fn refused_batch(&self, name: &str, bytes: usize) -> bool {
        let topic = self.known.read().unwrap_or_else(PoisonError::into_inner).topics.get(name).cloned();
        topic.zip(self.brokers.as_ref()).is_some_and(|(topic, brokers)| topic.refused_batch(brokers, bytes))
    }

    pub(super) fn dead_letter(&self) -> Option<&Arc<Topic>> {
        self.dead_letter.as_ref()
    }

    /// Says that a frame of so many bytes is refused, by this topic as far as it has a name, and what would mend it: one line a minute for each
    /// reason.
    pub(super) fn complain(
        &self,
        refusal: Refusal,
        topic: &str,
        bytes: usize,
        fate: &str,
        error: Option<&KafkaError>,
    ) {
        let Some(suppressed) = self.complaints.admit(refusal.name(), Instant::now()) else { return };
        let suppressed = Some(suppressed).filter(|lines| *lines > 0);
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let bytes_max = known.topics.get(topic).map(|topic| topic.record_bytes_max());
        drop(known);
        let (reason, remedy, error) = (refusal.name(), refusal.remedy(), error.map(display));
        tracing::warn!(
            topic,
            reason,
            bytes,
            bytes_max,
            error,
            suppressed,
            "Kafka does not take a frame, {fate}: {remedy}"
        );
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
        // Until the brokers have told, it is thought to take what the default one takes; and librdkafka keeps its records until it is made.
        let topic = Arc::new(Topic::new(Arc::clone(&name), self.default.takes()));
        let asked = ask(&name);
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

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(super) fn dead_letter(&self) -> Option<&Arc<Topic>> {
        self.topics.dead_letter()
    }

    /// What [`Self::find`] made of the last topic that a template speaks of.
    pub(super) fn last_name(&self) -> &str {
        &self.name
    }

    /// The Kafka topic for frames of this topic.
    pub(super) fn find(&mut self, topic: &str) -> Result<Arc<Topic>, Refusal> {
        let SinkName::Kafka(template) = self.topics.map.sink(topic) else {
            return Ok(Arc::clone(&self.topics.default));
        };
        if !template.fill(topic, &mut self.name) {
            if self.name.is_empty() {
                // Whoever reads of it sees at least where it would have come from.
                self.name.push_str(&template.to_string());
            }
            return Err(Refusal::InvalidName);
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

/// Makes topics, or looks for those that others make, and asks what they take.
struct Keeper {
    config: KafkaConfig,
    brokers: Arc<Brokers>,
    known: Arc<RwLock<Known>>,
    looked: Instant,
}

impl Keeper {
    fn run(mut self, asked: &Receiver<Arc<str>>) {
        while let Ok(name) = asked.recv() {
            for name in std::iter::once(name).chain(asked.try_iter()) {
                self.handle(&name);
            }
            self.brokers.rest();
        }
    }

    fn handle(&mut self, name: &str) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let (topic, exists) = (known.topics.get(name).cloned(), known.existing.contains(name));
        drop(known);
        if self.config.create_topics
            && !exists
            && let Err(error) = self.brokers.create(name, &self.config)
        {
            tracing::error!(topic = name, %error, "a topic of the topic map cannot be made");
            self.known.write().unwrap_or_else(PoisonError::into_inner).forget(name);
            return;
        }
        if let Some(topic) = topic {
            // Where they do not tell, the first batch that is refused does.
            self.brokers.takes(name).inspect(|takes| topic.learn(*takes));
        } else if !self.config.create_topics && self.looked.elapsed() >= LOOK_EVERY {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::topic_map::TopicRule;

    const NAME: &str = "site-7";

    /// Topics with one rule, and where a keeper would hear of names; it has room for one.
    fn topics() -> (Arc<Topics>, Receiver<Arc<str>>) {
        let rule = TopicRule { filter: "site/+".into(), sink: "kafka:site-{2}".parse().unwrap() };
        let takes = Takes { record_bytes_max: 1_000, before_ms_max: u64::MAX };
        let default = Topic::new("frames".into(), takes);
        let (asks, asked) = sync_channel(1);
        let known = Known::default();
        let generation = Arc::clone(&known.generation);
        let topics = Topics {
            default: Arc::new(default),
            dead_letter: None,
            map: TopicMap::new(vec![rule]).unwrap(),
            known: Arc::new(RwLock::new(known)),
            generation,
            brokers: None,
            may_create: true,
            count_max: 10,
            asks: Some(asks),
            complaints: Complaints::default(),
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
    fn a_level_that_no_topic_may_have_in_its_name_is_told_from_a_topic_that_is_missing() {
        let (topics, _asked) = topics();
        let mut routes = Routes::new(topics);
        for (topic, name) in [("site/a b", "site-a b"), ("site/\u{e4}", "site-\u{e4}")] {
            assert_eq!(routes.find(topic).unwrap_err(), Refusal::InvalidName);
            assert_eq!(routes.last_name(), name);
        }
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
