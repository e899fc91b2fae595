//! Names of Kafka topics that are made of levels of a frame's topic: `sensors.{2}` makes `sensors.temperature` of `plant/temperature/7`.
//!
//! Pure. What it makes of a device's topic is checked like any other name: a device cannot write outside Kafka's alphabet.

use std::fmt;
use std::str::FromStr;

/// Longest name that Kafka takes.
const NAME_BYTES_MAX: usize = 249;

/// The name of a Kafka topic, with `{N}` for the Nth level of the frame's topic, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// Counted from 0.
    Level(usize),
}

/// Why a template is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no partner, or no number of a level stands between them.
    #[error("braces hold the number of a level, such as {{1}}")]
    Level,
    /// The text outside the braces could not be a topic's name.
    #[error(
        "the name of a Kafka topic has 1 to 249 letters, digits, '.', '_' and '-', and is not \".\" or \"..\""
    )]
    Name,
    /// A topic that matches the rule's filter need not have this level.
    #[error("{{{level}}} may be missing: not every topic that matches {filter:?} has {level} levels")]
    Missing {
        /// The level.
        level: usize,
        /// The rule's filter.
        filter: String,
    },
}

impl TopicTemplate {
    /// The name, if it is the same for every frame.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.pieces {
            [Piece::Text(name)] => Some(name),
            _ => None,
        }
    }

    /// Puts the name for a frame's topic in place of what is in `name`; false if that is not one Kafka knows, or the topic lacks a level.
    pub(crate) fn fill(&self, topic: &str, name: &mut String) -> bool {
        name.clear();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Level(level) => match topic.split('/').nth(*level) {
                    Some(text) => name.push_str(text),
                    None => return false,
                },
            }
        }
        is_topic_name(name)
    }

    /// Whether every topic that matches `filter` has the levels it asks for.
    pub(super) fn check_against(&self, filter: &str) -> Result<(), TemplateError> {
        let levels = filter.strip_suffix('#').map_or(filter, |before| before.trim_end_matches('/'));
        let levels = if levels.is_empty() { 0 } else { levels.split('/').count() };
        let missing = self.pieces.iter().find_map(|piece| match piece {
            Piece::Level(level) if *level >= levels => Some(level + 1),
            _ => None,
        });
        missing.map_or(Ok(()), |level| Err(TemplateError::Missing { level, filter: filter.to_owned() }))
    }
}

/// Whether Kafka takes this name for a topic.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

impl FromStr for TopicTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            let (level, behind) = behind.split_once('}').ok_or(TemplateError::Level)?;
            let level = level.parse::<usize>().ok().and_then(|level| level.checked_sub(1));
            pieces.push(Piece::Level(level.ok_or(TemplateError::Level)?));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        let template = Self { text: text.into(), pieces: pieces.into() };
        if text.contains('}') && template.fixed().is_some() {
            return Err(TemplateError::Level);
        }
        let is_part = |piece: &Piece| match piece {
            // Only a whole name may not be "." or "..".
            Piece::Text(text) => {
                is_topic_name(text) || (template.fixed().is_none() && is_topic_name(&format!("{text}x")))
            }
            Piece::Level(_) => true,
        };
        if template.pieces.is_empty() || !template.pieces.iter().all(is_part) {
            return Err(TemplateError::Name);
        }
        Ok(template)
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, topic: &str) -> Option<String> {
        let mut name = "what was there before".to_owned();
        template.parse::<TopicTemplate>().unwrap().fill(topic, &mut name).then_some(name)
    }

    #[test]
    fn levels_of_the_topic_become_part_of_the_name() {
        assert_eq!(filled("sensors.{2}", "plant/temperature/7").as_deref(), Some("sensors.temperature"));
        assert_eq!(filled("{1}-{2}.raw", "a/b").as_deref(), Some("a-b.raw"));
        assert_eq!(filled("holdfast.frames", "a").as_deref(), Some("holdfast.frames"));
        assert_eq!(filled("{1}..{1}", "a").as_deref(), Some("a..a"));
    }

    #[test]
    fn a_device_cannot_write_outside_kafkas_alphabet() {
        for topic in ["a b", "\u{e4}", "", ".", "{1}", "x\ny", &"x".repeat(250)] {
            assert_eq!(filled("{1}", topic), None, "{topic:?}");
        }
        assert_eq!(filled("{2}", "a"), None, "it has one level");
    }

    #[test]
    fn a_template_that_cannot_be_is_refused() {
        for text in ["", "a b", "\u{e4}", "..", "x/{1}"] {
            assert_eq!(text.parse::<TopicTemplate>(), Err(TemplateError::Name), "{text:?}");
        }
        for text in ["{0}", "{", "}", "{a}", "{1", "{}", "a}"] {
            assert_eq!(text.parse::<TopicTemplate>(), Err(TemplateError::Level), "{text:?}");
        }
    }

    #[test]
    fn a_level_that_a_matching_topic_may_lack_is_refused() {
        let check = |template: &str, filter| template.parse::<TopicTemplate>().unwrap().check_against(filter);
        assert_eq!(check("{2}", "a/+/#"), Ok(()));
        assert_eq!(check("{2}", "a/+"), Ok(()));
        assert_eq!(check("x", "#"), Ok(()));
        assert_eq!(check("{1}", "#"), Err(TemplateError::Missing { level: 1, filter: "#".into() }));
        assert_eq!(check("x.{3}", "a/+/#"), Err(TemplateError::Missing { level: 3, filter: "a/+/#".into() }));
    }
}
