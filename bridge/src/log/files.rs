//! What the log needs of a file system; tests put one in its place that fails on demand.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::Path;

/// A segment open for appending.
pub(super) trait SegmentFile: Send {
    /// Appends some of the bytes and says how many.
    fn append(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Returns once what was appended would survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file back to `length` bytes; the next append goes there.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A directory of segments.
pub(super) trait Files: Send {
    /// Makes a new file; one that is already there is an error.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens a file to append to it.
    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>>;
    /// Returns once names made or removed in the directory would survive a power cut.
    fn sync_directory(&mut self, directory: &Path) -> io::Result<()>;
}

/// The system's files.
#[derive(Debug)]
pub(super) struct OsFiles;

impl Files for OsFiles {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn open(&mut self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn sync_directory(&mut self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

impl SegmentFile for File {
    fn append(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_vectored(slices)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
