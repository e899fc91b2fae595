//! Which sink a frame's topic leads to: rules by topic filter, of which the first that matches decides.

use super::topic_template::{TemplateError, TopicTemplate};
use holdfast_wire::topic::{TopicError, matches, parse_shared, validate_filter};

/// One rule of the topic map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// Which topics it speaks of.
    pub filter: String,
    /// Where their frames go.
    pub sink: SinkName,
}

impl TopicRule {
    /// Says what is wrong with it, if anything is.
    pub fn check(&self) -> Result<(), TopicMapError> {
        let Self { filter, sink } = self;
        validate_filter(filter).map_err(|error| TopicMapError::Filter { filter: filter.clone(), error })?;
        if parse_shared(filter).is_some() {
            return Err(TopicMapError::Shared(filter.clone()));
        }
        match sink {
            SinkName::Kafka(template) => template.check_against(filter).map_err(|error| {
                let template = template.to_string();
                TopicMapError::Template { template, error }
            }),
            SinkName::Default | SinkName::None => Ok(()),
        }
    }
}

/// Where a rule sends frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkName {
    /// To the sink, in Kafka to its default topic: written `default`, or `log`.
    Default,
    /// Nowhere, written `none`: traffic that is only between devices.
    None,
    /// To the Kafka topic that this names, written `kafka:TEMPLATE`. To the log where there is no Kafka.
    Kafka(TopicTemplate),
}

impl std::str::FromStr for SinkName {
    type Err = TopicMapError;

    fn from_str(name: &str) -> Result<Self, TopicMapError> {
        match name {
            "default" | "log" => Ok(Self::Default),
            "none" => Ok(Self::None),
            other => match other.strip_prefix("kafka:") {
                Some(template) => template
                    .parse()
                    .map(Self::Kafka)
                    .map_err(|error| TopicMapError::Template { template: template.to_owned(), error }),
                None => Err(TopicMapError::Sink(other.to_owned())),
            },
        }
    }
}

/// Why a topic map is refused at the start; one line for an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicMapError {
    /// A filter that MQTT does not know.
    #[error("topic_map filter {filter:?} is not a topic filter: {error}")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        error: TopicError,
    },
    /// Shares are of subscriptions; frames have none.
    #[error("topic_map filter {0:?} is a shared subscription: write the part behind the group's name")]
    Shared(String),
    /// A sink that does not exist.
    #[error("topic_map sink {0:?} is unknown: use \"default\", \"none\" or \"kafka:TOPIC\"")]
    Sink(String),
    /// A Kafka topic that cannot be.
    #[error("topic_map sink \"kafka:{template}\" names no topic: {error}")]
    Template {
        /// The template.
        template: String,
        /// What is wrong with it.
        error: TemplateError,
    },
}

/// Rules that have been checked; the first one that matches decides.
#[derive(Clone, Debug)]
pub(crate) struct TopicMap {
    rules: Vec<TopicRule>,
}

impl TopicMap {
    pub(crate) fn new(rules: Vec<TopicRule>) -> Result<Self, TopicMapError> {
        rules.iter().try_for_each(TopicRule::check)?;
        Ok(Self { rules })
    }

    /// Where this topic's frames go; to the default if no rule speaks of it.
    pub(crate) fn sink(&self, topic: &str) -> &SinkName {
        let decides = |rule: &&TopicRule| rule.filter == "#" || matches(&rule.filter, topic);
        self.rules.iter().find(decides).map_or(&SinkName::Default, |rule| &rule.sink)
    }

    /// Whether a sink is to have this topic's frames.
    pub(crate) fn stores(&self, topic: &str) -> bool {
        *self.sink(topic) != SinkName::None
    }

    /// The templates of rules that lead to Kafka.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &TopicTemplate> {
        self.rules.iter().filter_map(|rule| match &rule.sink {
            SinkName::Kafka(template) => Some(template),
            SinkName::Default | SinkName::None => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter: &str, sink: SinkName) -> TopicRule {
        TopicRule { filter: filter.into(), sink }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let map =
            TopicMap::new(vec![rule("chat/important/#", SinkName::Default), rule("chat/#", SinkName::None)])
                .unwrap();
        assert_eq!(*map.sink("chat/room"), SinkName::None);
        assert_eq!(*map.sink("chat/important/room"), SinkName::Default);
        assert_eq!(*map.sink("accel"), SinkName::Default, "nothing is lost for want of a rule");
        assert!(map.stores("accel") && !map.stores("chat/room"));
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_in_one_line() {
        for filter in ["", "a/#/b", "$share/g/a"] {
            let error = TopicMap::new(vec![rule(filter, SinkName::Default)]).unwrap_err().to_string();
            assert!(error.starts_with("topic_map filter") && !error.contains('\n'), "{error}");
        }
        let error = |sink: &str| sink.parse::<SinkName>().unwrap_err().to_string();
        assert!(error("kafka").contains("\"default\", \"none\" or \"kafka:TOPIC\""));
        assert!(error("kafka:a b").starts_with("topic_map sink \"kafka:a b\" names no topic: the name"));
        let error = TopicMap::new(vec![rule("a/#", "kafka:x.{2}".parse().unwrap())]).unwrap_err();
        assert!(error.to_string().contains("{2} may be missing"), "{error}");
    }
}
