//! Why a store could not be opened.

use std::io;
use std::path::PathBuf;

/// Each variant's `Display` is one line that names what is wrong and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no store.
    #[error("store '{url}' is not understood; allowed are memory:, embedded:DIR")]
    UnknownUrl {
        /// What was asked for.
        url: String,
    },
    /// The URL names a store that will exist.
    #[error("store '{scheme}:' is not in this version yet; use embedded:DIR on one node")]
    NotYet {
        /// What was asked for.
        scheme: String,
    },
    /// The directory cannot be made, read or written.
    #[error("store directory {}: {source}; it must be a directory that this process may write", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("store directory {} is in use by {holder}; stop it or give this process a directory of its own", directory.display())]
    InUse {
        /// Which.
        directory: PathBuf,
        /// `process N` as the other one wrote it down, or `another process`.
        holder: String,
    },
    /// It was written by another version.
    #[error("{} has format {found} and this version reads {known}; use the version that wrote it or give an empty directory", file.display())]
    ForeignFormat {
        /// Which file.
        file: PathBuf,
        /// What it holds.
        found: u64,
        /// What this version reads.
        known: u64,
    },
    /// It cannot be read back.
    #[error("{} is damaged ({what}); restore it from a copy, or move it away to start empty", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where reading stopped.
        what: String,
    },
    /// The disk has no room for what opening must write.
    #[error("store directory {}: no space left on its disk ({source}); free some and start again", directory.display())]
    Full {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no further thread.
    #[error("the store's writer thread could not be started: {source}; raise the limit of threads")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}
