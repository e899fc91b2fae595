//! The process's limit of open files: each connection takes one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system lets this process, and says how many files it may have open now. Shells and
/// containers often start processes with 1,024, for the sake of programs that use `select`.
pub(crate) fn raise() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}
