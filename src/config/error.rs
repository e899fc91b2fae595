//! What is wrong with a configuration, in one line that names key, value and what is allowed.

use std::path::PathBuf;

use super::layers::Source;

/// Why a configuration is refused. Every variant displays as one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("--config {}: {error}; it must be a TOML file that this process may read", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        /// Which.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// `--set` without a value.
    #[error("--set {0}: must be KEY=VALUE")]
    NotAPair(String),
    /// A path or variable that cannot be a value.
    #[error("{0}: the value is not UTF-8")]
    NotUtf8(String),
    /// A key that does not exist. Its value is not shown: it may be a secret under a misspelt name.
    #[error("{key}: no such key{hint} (from {source_of_it})")]
    UnknownKey {
        /// The key as it was given.
        key: String,
        /// The nearest name, and what else there is.
        hint: String,
        /// Who gave it.
        source_of_it: Source,
    },
    /// A value that the key cannot have.
    #[error("{key} = {value}: {allowed} (from {source_of_it})")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What would be accepted.
        allowed: String,
        /// Who gave it.
        source_of_it: Source,
    },
    /// Defaults that do not go together with what was given.
    #[error(transparent)]
    Default(holdfast_gateway::config::ConfigError),
}
