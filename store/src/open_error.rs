//! Why a store could not be opened.

use std::io;
use std::path::PathBuf;

/// Each variant's `Display` is one line that names what is wrong and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL names no store.
    #[error(
        "store '{url}' is not understood; allowed are memory:, embedded:DIR, redis://, rediss://, redis+sentinel://, redis+cluster://"
    )]
    UnknownUrl {
        /// What was asked for.
        url: String,
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
    /// The URL of a Redis store cannot be read; it is not shown, as it may hold a password.
    #[error(
        "the store's URL is not understood: {why}; it is redis://USER:PASSWORD@HOST:PORT/DB, redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME or redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT"
    )]
    RedisUrl {
        /// What is wrong with it.
        why: String,
    },
    /// A file that the URL names for TLS cannot be used.
    #[error("{} cannot be used for TLS with Redis: {why}; it must be a readable PEM file", file.display())]
    RedisCertificate {
        /// Which.
        file: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// Sentinels do not say which server serves.
    #[error(
        "no sentinel names a primary for {server}: {}; start them, or mend their addresses and the name",
        one_line(why)
    )]
    RedisSentinels {
        /// The primary's name, and the sentinels.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// No Redis server answers there.
    #[error("Redis at {server} cannot be reached: {}; start it, or mend the address", one_line(why))]
    RedisUnreachable {
        /// Its address and database.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// The server wants another password, or one at all.
    #[error(
        "Redis at {server} does not accept the user and password; give them as redis://USER:PASSWORD@HOST:PORT/DB"
    )]
    RedisPassword {
        /// Its address and database.
        server: String,
    },
    /// The server has no functions.
    #[error("Redis at {server} is too old ({version}); version 7 or later is needed")]
    RedisTooOld {
        /// Its address and database.
        server: String,
        /// What it says of itself.
        version: String,
    },
    /// The server only repeats what another one holds.
    #[error("Redis at {server} is a replica, which cannot be written; give the address of its master")]
    RedisReplica {
        /// Its address and database.
        server: String,
    },
    /// Another version of this program has written there.
    #[error(
        "{key} in Redis at {server} says format {found} and this version reads {known}; use the version that wrote it or give an empty database"
    )]
    RedisForeignFormat {
        /// Its address and database.
        server: String,
        /// Which key says so.
        key: String,
        /// What it says.
        found: String,
        /// What this version reads.
        known: u64,
    },
    /// The server answers, but not as it must.
    #[error("Redis at {server} cannot serve as a store: {}", one_line(why))]
    RedisRefused {
        /// Its address and database.
        server: String,
        /// What it said.
        why: String,
    },
    /// The system gives no further thread.
    #[error("the store's thread could not be started: {source}; raise the limit of threads")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// What a library says may have several.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
