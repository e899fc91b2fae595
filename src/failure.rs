//! How a command fails: one line on standard error, and an exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    code: u8,
}

impl Failure {
    /// What was asked cannot be: a configuration, an argument, a place that is taken. Nothing was done. Exit code 2.
    pub(crate) fn refused(what: impl Display) -> Self {
        Self { line: what.to_string(), code: 2 }
    }

    /// It was begun and did not come to its end. Exit code 1.
    pub(crate) fn failed(what: impl Display) -> Self {
        Self { line: what.to_string(), code: 1 }
    }

    /// Says so.
    pub(crate) fn report(self) -> ExitCode {
        eprintln!("holdfast: {}", self.line);
        ExitCode::from(self.code)
    }
}
