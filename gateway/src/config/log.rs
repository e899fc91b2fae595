//! What is logged, and how.

use serde::{Deserialize, Serialize};

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
        self.level.parse::<tracing_subscriber::filter::Targets>().map(drop).map_err(|error| {
            let allowed =
                format!("must be error, warn, info, debug or trace, or target=level pairs ({error})");
            ConfigError::new("log.level", &self.level, allowed)
        })
    }
}
