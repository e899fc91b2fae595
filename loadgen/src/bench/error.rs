//! Why a measure has no figure.

use std::io;

/// A measure that failed. The other measures go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A socket could not be opened, or failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The broker closed a connection that should have stayed.
    #[error("the broker closed a connection ({0})")]
    Closed(&'static str),
    /// The broker said what MQTT does not allow here.
    #[error("the broker answered with what the protocol does not allow here")]
    Protocol,
    /// Connections that were to stay are gone, or are not served any more.
    #[error("{gone} of {connections} connections did not live to the end")]
    Gone {
        /// How many.
        gone: usize,
        /// Of how many.
        connections: usize,
    },
    /// Something did not come in time.
    #[error("{missing} of {what} did not come within {seconds} s")]
    Deadline {
        /// What was waited for.
        what: &'static str,
        /// How many are missing.
        missing: usize,
        /// The patience.
        seconds: u64,
    },
    /// The broker's process is gone, or is not ours to look at.
    #[error("cannot read /proc of process {0}")]
    Process(u32),
    /// A process has none of the threads that are to be told apart.
    #[error("no thread is named {0}*")]
    Threads(&'static str),
    /// A broker did not start.
    #[error("{name} did not start: {why}")]
    Start {
        /// Which one.
        name: String,
        /// In one line.
        why: String,
    },
}

impl BenchError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
