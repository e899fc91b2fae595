//! Which sink a frame's topic leads to.

use holdfast_wire::topic::{TopicError, matches, parse_shared, validate_filter};

/// One rule of the topic map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRule {
    /// Which topics it speaks of.
    pub filter: String,
    /// Where their frames go.
    pub sink: SinkName,
}

/// Where a rule sends frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkName {
    /// To the local log.
    Log,
    /// Nowhere: traffic that is only between devices.
    None,
}

impl std::str::FromStr for SinkName {
    type Err = TopicMapError;

    fn from_str(name: &str) -> Result<Self, TopicMapError> {
        match name {
            "log" => Ok(Self::Log),
            "none" => Ok(Self::None),
            other => Err(TopicMapError::Sink(other.to_owned())),
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
    #[error("topic_map sink {0:?} is unknown: use \"log\" or \"none\"")]
    Sink(String),
}

/// Rules that have been checked; the first one that matches decides.
#[derive(Clone, Debug)]
pub(crate) struct TopicMap {
    rules: Vec<TopicRule>,
}

impl TopicMap {
    pub(crate) fn new(rules: Vec<TopicRule>) -> Result<Self, TopicMapError> {
        for TopicRule { filter, .. } in &rules {
            validate_filter(filter)
                .map_err(|error| TopicMapError::Filter { filter: filter.clone(), error })?;
            if parse_shared(filter).is_some() {
                return Err(TopicMapError::Shared(filter.clone()));
            }
        }
        Ok(Self { rules })
    }

    /// Where this topic's frames go; to the log if no rule speaks of it.
    pub(crate) fn sink(&self, topic: &str) -> SinkName {
        let decides = |rule: &&TopicRule| rule.filter == "#" || matches(&rule.filter, topic);
        self.rules.iter().find(decides).map_or(SinkName::Log, |rule| rule.sink)
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
            TopicMap::new(vec![rule("chat/important/#", SinkName::Log), rule("chat/#", SinkName::None)])
                .unwrap();
        assert_eq!(map.sink("chat/room"), SinkName::None);
        assert_eq!(map.sink("chat/important/room"), SinkName::Log);
        assert_eq!(map.sink("accel"), SinkName::Log, "nothing is lost for want of a rule");
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_in_one_line() {
        for filter in ["", "a/#/b", "$share/g/a"] {
            let error = TopicMap::new(vec![rule(filter, SinkName::Log)]).unwrap_err().to_string();
            assert!(error.starts_with("topic_map filter") && !error.contains('\n'), "{error}");
        }
        assert!("kafka".parse::<SinkName>().unwrap_err().to_string().contains("\"log\" or \"none\""));
    }
}
