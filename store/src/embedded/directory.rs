//! The directory of an embedded store: made if need be, and held by one process at a time.
//!
//! ```text
//! DIR/store.redb   everything
//! DIR/store.lock   locked while a process has the store open; holds its process id
//! ```
//!
//! The lock is a file of its own because the database is closed and opened again when its disk has failed it.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError};

use super::disk::{DiskError, Medium, builder};
use crate::open_error::OpenError;

const DATABASE: &str = "store.redb";
const LOCK: &str = "store.lock";

/// How long a lock may take to become free.
const PATIENCE: Duration = Duration::from_secs(1);

/// A directory that this process holds until it is dropped.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if it is not there, and takes it.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let blame = |source| OpenError::Directory { directory: path.to_owned(), source };
        fs::create_dir_all(path).map_err(blame)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(blame)?;
        match patiently(|| lock.try_lock(), |result| matches!(result, Err(TryLockError::WouldBlock))) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&mut lock);
                return Err(OpenError::InUse { directory: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(blame(source)),
        }
        // Who holds it is a courtesy to the next one: on a full disk it is left out.
        let _ = write_holder(&mut lock);
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The file in it.
    pub(super) fn medium(&self) -> Box<dyn Medium> {
        Box::new(InFile { directory: self.path.clone() })
    }

    /// Puts an error of its disk into an operator's words.
    pub(super) fn blame(&self, error: DiskError) -> OpenError {
        let file = self.path.join(DATABASE);
        match error {
            DiskError::ForeignFormat { found, known } => OpenError::ForeignFormat { file, found, known },
            DiskError::Damaged(what) => OpenError::Damaged { file, what },
            DiskError::Io(source) if is_full(&source) => {
                OpenError::Full { directory: self.path.clone(), source }
            }
            DiskError::Io(source) if is_damage(&source) => {
                OpenError::Damaged { file, what: source.to_string() }
            }
            DiskError::Io(source) => OpenError::Directory { directory: self.path.clone(), source },
            DiskError::InUse => {
                OpenError::InUse { directory: self.path.clone(), holder: "another process".to_owned() }
            }
        }
    }
}

/// Tries again for a moment. A process that was killed keeps its locks until it is gone, and a child that is just being
/// started holds its parent's; neither is a reason to refuse a restart.
fn patiently<T>(mut attempt: impl FnMut() -> T, is_in_use: impl Fn(&T) -> bool) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let result = attempt();
        if !is_in_use(&result) || Instant::now() >= give_up {
            return result;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the disk has no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn read_holder(lock: &mut File) -> String {
    // Bounded: anyone may have written into that file.
    let mut text = String::new();
    let _ = lock.take(20).read_to_string(&mut text);
    match text.trim().parse::<u32>() {
        Ok(id) => format!("process {id}"),
        Err(_) => "another process".to_owned(),
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

struct InFile {
    directory: PathBuf,
}

impl Medium for InFile {
    fn open(&self) -> Result<Database, DatabaseError> {
        let file = self.directory.join(DATABASE);
        let in_use = |result: &Result<_, _>| matches!(result, Err(DatabaseError::DatabaseAlreadyOpen));
        let database = patiently(|| builder().create(&file), in_use)?;
        // The name of a new file must be as durable as what will be in it.
        File::open(&self.directory)?.sync_all()?;
        Ok(database)
    }
}
