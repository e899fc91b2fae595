//! How far a spool has been drained: an offset in a small file beside the segments.
//!
//! Written in place, into two slots by turns: a write that is torn leaves the other slot, and a disk that is full does not refuse it. A mark that
//! is behind, or gone, only means that records are drained a second time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: &[u8; 8] = b"HOLDMARK";
/// Magic, offset, CRC of both.
const SLOT_BYTES: usize = 20;
/// Slots lie in sectors of their own.
const SLOT_EVERY: u64 = 512;

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    drained: u64,
    next_slot: u64,
}

impl Mark {
    /// The file's name.
    pub(crate) const NAME: &str = "drained";

    /// The mark of a directory; 0 where there is none, as in a log that is no spool.
    pub(crate) fn read(directory: &Path) -> u64 {
        File::open(directory.join(Self::NAME)).ok().and_then(|file| read_slots(&file)).unwrap_or(0)
    }

    /// Opens the mark of a directory, creating it if need be.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join(Self::NAME))?;
        let drained = read_slots(&file).unwrap_or(0);
        let mut mark = Self { file, drained, next_slot: 0 };
        // Both slots, so that the file has its blocks before the disk is full.
        mark.write(drained)?;
        mark.write(drained)?;
        mark.sync()?;
        Ok(mark)
    }

    /// Offset below which everything has been drained.
    pub(crate) fn drained(&self) -> u64 {
        self.drained
    }

    /// Everything below `drained` has been. Survives the end of the process at once, a power cut after [`Mark::sync`].
    pub(crate) fn write(&mut self, drained: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(drained), self.next_slot * SLOT_EVERY)?;
        self.next_slot ^= 1;
        self.drained = drained;
        Ok(())
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn slot(drained: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&drained.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..16]);
    slot[16..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn read_slots(file: &File) -> Option<u64> {
    [0, SLOT_EVERY]
        .into_iter()
        .filter_map(|at| {
            let mut found = [0; SLOT_BYTES];
            file.read_exact_at(&mut found, at).ok()?;
            let drained = u64::from_le_bytes(*found[8..].first_chunk()?);
            (found == slot(drained)).then_some(drained)
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again_and_a_torn_write_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(directory.path()), 0);
        let mut mark = Mark::open(directory.path()).unwrap();
        for drained in [5, 9] {
            mark.write(drained).unwrap();
            assert_eq!(Mark::read(directory.path()), drained);
        }
        drop(mark);
        let path = directory.path().join(Mark::NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_EVERY as usize + 10] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Mark::read(directory.path()), 5);
        std::fs::write(&path, b"something else").unwrap();
        assert_eq!(Mark::open(directory.path()).unwrap().drained(), 0);
    }
}
