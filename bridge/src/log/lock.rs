//! One writer per directory: an advisory lock that ends with its process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::LogError;

/// The file that is locked.
pub(super) const NAME: &str = "lock";

/// Holds the lock as long as it lives.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Readers need no lock: segments only grow, and a reader stops before what is not complete.
    pub(super) fn take(directory: &Path) -> Result<Self, LogError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(NAME))
            .map_err(|error| LogError::directory(directory, "written to", error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LogError::Locked(directory.to_owned())),
            Err(TryLockError::Error(error)) => Err(LogError::directory(directory, "locked", error)),
        }
    }
}
