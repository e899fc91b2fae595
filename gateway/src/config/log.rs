//! What is logged, and how.

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};

use super::error::ConfigError;

/// `[log]`: lines go to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list of directives by target such as
    /// `info,holdfast_gateway::link=debug`. Default `info`.
    pub level: String,
    /// `text` for people, `json` for machines: one object a line. Default `text`.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl LogConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.targets().map(drop).map_err(|why| {
            let allowed =
                format!("must be error, warn, info, debug, trace or off, or target=level pairs ({why})");
            ConfigError::new("log.level", &self.level, allowed)
        })
    }

    /// What passes. A word that stands alone is a level: as a target, which the library would take it for, a mistyped one silences everything.
    pub(crate) fn targets(&self) -> Result<Targets, String> {
        let no_level = |word: &&str| !word.contains('=') && word.parse::<LevelFilter>().is_err();
        match self.level.split(',').map(str::trim).find(|word| word.is_empty() || no_level(word)) {
            Some(word) => Err(format!("{word:?} is no level")),
            None => self.level.parse().map_err(|error: ParseError| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_rather_than_taken_for_a_target() {
        let line = |level: &str| {
            let config = LogConfig { level: level.into(), ..LogConfig::default() };
            config.check().err().map(|error| error.to_string())
        };
        for level in ["info", "WARN", "off", "info,holdfast_gateway::link=debug", "warn, holdfast=trace"] {
            assert_eq!(line(level), None, "{level}");
        }
        for level in ["warning", "loud", "", "info,holdfast_gateway::link", "info,a=loud"] {
            let line = line(level).expect(level);
            assert!(line.starts_with(&format!("log.level = {level}: must be error, warn, info")), "{line}");
        }
    }
}
