//! What is done once when a log is opened: find its end, and cut off what a crash left half written.

use std::path::Path;
use std::time::SystemTime;

use super::LogError;
use super::files::{Files, SegmentFile};
use super::retention::Closed;
use super::segment::{self, HEADER_BYTES, Opening, SegmentReader, Step};

/// What an opened log was found to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments, the active one included.
    pub segments: usize,
    /// Offset of the next record: one more than the records ever stored.
    pub next_offset: u64,
    /// Records read in the last segment.
    pub records: u64,
    /// Bytes of a record that was never completed, and is gone.
    pub cut_bytes: u64,
    /// Bytes of damage inside the last segment, left as they are; records behind them are kept.
    pub damaged_bytes: u64,
}

/// Where appending goes on.
pub(super) struct Tail {
    pub(super) closed: Vec<Closed>,
    /// None: the next record begins a new segment.
    pub(super) active: Option<Active>,
    pub(super) next_offset: u64,
}

impl Tail {
    /// Goes on at a later offset, in a segment of its own.
    pub(super) fn begin_at(&mut self, offset: u64) {
        if let Some(active) = self.active.take() {
            self.closed.push(Closed {
                first_offset: active.first_offset,
                bytes: active.bytes,
                written_at: SystemTime::now(),
            });
        }
        self.next_offset = offset;
    }
}

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) file: Box<dyn SegmentFile>,
    pub(super) first_offset: u64,
    /// Bytes that are synced; a record that is not completed lies behind them.
    pub(super) bytes: u64,
}

/// Only the last segment can hold records that were not completed: a segment is left only after its last sync.
pub(super) fn recover(directory: &Path, files: &mut dyn Files) -> Result<(Tail, Recovered), LogError> {
    let mut firsts = segment::list(directory)?;
    let mut recovered = Recovered { next_offset: 1, ..Recovered::default() };
    let mut active = None;
    while let Some(&last) = firsts.last() {
        let unreadable = |error| LogError::directory(directory, "read", error);
        let unwritable = |error| LogError::directory(directory, "repaired", error);
        let path = segment::path(directory, last);
        let (mut reader, opening) = SegmentReader::open(directory, last).map_err(unreadable)?;
        match opening {
            Opening::Ours => {}
            Opening::Foreign(found) => {
                return Err(LogError::Version { file: path, found, known: segment::FORMAT_VERSION });
            }
            Opening::Broken if reader.file_bytes().map_err(unreadable)? <= HEADER_BYTES => {
                // The crash came while this segment was begun; nothing in it was ever completed.
                recovered.cut_bytes += reader.file_bytes().map_err(unreadable)?;
                std::fs::remove_file(&path).map_err(unwritable)?;
                files.sync_directory(directory).map_err(unwritable)?;
                recovered.next_offset = last;
                firsts.pop();
                continue;
            }
            Opening::Broken => recovered.damaged_bytes += HEADER_BYTES,
        }
        let scanned = scan(&mut reader, last).map_err(unreadable)?;
        recovered.records = scanned.records;
        recovered.damaged_bytes += scanned.damaged_bytes;
        recovered.next_offset = scanned.next_offset.max(recovered.next_offset);
        let file_bytes = reader.file_bytes().map_err(unreadable)?;
        if file_bytes > scanned.good_bytes {
            recovered.cut_bytes += file_bytes - scanned.good_bytes;
            let mut file = files.open(&path).map_err(unwritable)?;
            file.truncate(scanned.good_bytes).and_then(|()| file.sync()).map_err(unwritable)?;
        }
        // A damaged segment is never appended to: what is in it stays as it is for whoever wants to look.
        if recovered.damaged_bytes == 0 {
            let file = files.open(&path).map_err(unwritable)?;
            active = Some(Active { file, first_offset: last, bytes: scanned.good_bytes });
            firsts.pop();
        }
        break;
    }
    recovered.segments = firsts.len() + usize::from(active.is_some());
    let closed = firsts.iter().filter_map(|&first| Closed::of(directory, first)).collect();
    Ok((Tail { closed, active, next_offset: recovered.next_offset }, recovered))
}

struct Scanned {
    records: u64,
    next_offset: u64,
    good_bytes: u64,
    damaged_bytes: u64,
}

/// Reads all records. Something broken with records behind it is damage and stays; with none behind it, it is the torn tail.
fn scan(reader: &mut SegmentReader, first_offset: u64) -> std::io::Result<Scanned> {
    let mut scanned =
        Scanned { records: 0, next_offset: first_offset, good_bytes: reader.position(), damaged_bytes: 0 };
    loop {
        match reader.step()? {
            Step::Record(offset) => {
                scanned.records += 1;
                scanned.next_offset = offset + 1;
                scanned.good_bytes = reader.position();
            }
            Step::End => return Ok(scanned),
            Step::Broken => match reader.resynchronise(scanned.next_offset, u64::MAX)? {
                Some(skipped) => scanned.damaged_bytes += skipped,
                None => return Ok(scanned),
            },
        }
    }
}
