//! Reading a log, also while it is written: `log cat`, `log tail`, `log verify`, the ledger of the demo.

use std::path::{Path, PathBuf};

use super::mark::Mark;
use super::record::LogRecord;
use super::segment::{self, Opening, SegmentReader, Step};
use super::{LogError, lock};

/// What a reader comes upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record.
    Record(LogRecord<'a>),
    /// Something that once was records and cannot be read; reading goes on behind it.
    Damaged(Damage),
}

/// A place in a log that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// First offset of the segment: its file's name.
    pub segment: u64,
    /// Where in the file it begins, in bytes.
    pub position: u64,
    /// How many bytes were passed over.
    pub bytes: u64,
    /// First offset that is missing.
    pub first_missing: u64,
    /// How many records are missing.
    pub missing: u64,
}

/// Reads a log from its oldest record on. Takes no lock, so it never stands in the writer's way; it stops before a record that is not
/// complete and finds it there, complete, when asked again.
#[derive(Debug)]
pub struct LogReader {
    directory: PathBuf,
    segment: Option<SegmentReader>,
    /// First offset of the segment behind it, if there was one when it was opened; else the greatest number.
    next_segment: u64,
    /// No record below this offset is given out (any more): a segment may repeat the uncompleted end of the one before.
    expected: u64,
}

enum Found {
    Record(u64),
    Damaged(Damage),
    Nothing,
}

impl LogReader {
    /// Starts at the oldest record; in a spool at the oldest that has not been drained. A directory without segments is an empty log.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        Self::open_from(directory, Mark::read(directory))
    }

    /// Starts at the first record with this offset or a later one.
    pub fn open_from(directory: &Path, offset: u64) -> Result<Self, LogError> {
        segment::list(directory)?;
        Ok(Self { directory: directory.to_owned(), segment: None, next_segment: u64::MAX, expected: offset })
    }

    /// The next entry; `None` if there is none yet. Asking again later goes on from there.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, LogError> {
        let offset = match self.find()? {
            Found::Record(offset) => offset,
            Found::Damaged(damage) => return Ok(Some(Entry::Damaged(damage))),
            Found::Nothing => return Ok(None),
        };
        let record = self.segment.as_ref().and_then(|segment| segment.record(offset));
        let Some(record) = record else {
            let segment = self.segment.as_ref().map_or(0, |segment| segment.first_offset);
            let position = self.segment.as_ref().map_or(0, SegmentReader::position);
            return Ok(Some(Entry::Damaged(Damage {
                segment,
                position,
                bytes: 0,
                first_missing: offset,
                missing: 1,
            })));
        };
        Ok(Some(Entry::Record(record)))
    }

    fn find(&mut self) -> Result<Found, LogError> {
        // Bytes passed over since the last record, and where they began.
        let mut skipped: Option<(u64, u64)> = None;
        loop {
            let Some(segment) = &mut self.segment else {
                let firsts = segment::list(&self.directory)?;
                // The segment that holds the wanted offset is the last one that begins at or before it. If the oldest begins
                // behind it, retention took what was before.
                let at = firsts.partition_point(|&first| first <= self.expected).saturating_sub(1);
                let Some(&first) = firsts.get(at) else { return Ok(Found::Nothing) };
                if !self.enter(first)? {
                    return Ok(Found::Nothing);
                }
                self.expected = self.expected.max(first);
                continue;
            };
            let unreadable = |error| LogError::directory(&self.directory, "read", error);
            let first = segment.first_offset;
            let position = segment.position();
            let step = segment.step().map_err(unreadable)?;
            if let Step::Record(offset) = step {
                // A write that failed and could not be cut off: the next segment has what was completed.
                if offset >= self.next_segment {
                    if !self.enter(self.next_segment)? {
                        return Ok(Found::Nothing);
                    }
                    continue;
                }
                if offset < self.expected {
                    continue;
                }
                if offset == self.expected && skipped.is_none() {
                    self.expected += 1;
                    return Ok(Found::Record(offset));
                }
                segment.step_back();
                let (position, bytes) = skipped.unwrap_or((position, 0));
                let (first_missing, missing) = (self.expected, offset - self.expected);
                self.expected = offset;
                return Ok(Found::Damaged(Damage {
                    segment: first,
                    position,
                    bytes,
                    first_missing,
                    missing,
                }));
            }

            // Listed after the step: if there is a later segment, this one is complete by now, but not
            // necessarily when the step was made.
            let firsts = segment::list(&self.directory)?;
            let next = firsts.get(firsts.partition_point(|&other| other <= first)).copied();
            if step == Step::Broken {
                let limit = next.unwrap_or(u64::MAX);
                match segment.resynchronise(self.expected, limit).map_err(unreadable)? {
                    Some(0) => continue,
                    Some(bytes) => {
                        skipped = Some((position, bytes));
                        continue;
                    }
                    None => {}
                }
            } else if next.is_some() && segment.file_bytes().map_err(unreadable)? > position {
                continue;
            }
            let Some(next) = next else { return Ok(Found::Nothing) };
            let bytes = segment.file_bytes().map_err(unreadable)?.saturating_sub(position);
            if !self.enter(next)? {
                return Ok(Found::Nothing);
            }
            // Leftovers behind the last synced record are no loss: the next segment has what was completed.
            if step == Step::Broken && self.expected < next {
                let (first_missing, missing) = (self.expected, next - self.expected);
                self.expected = next;
                return Ok(Found::Damaged(Damage {
                    segment: first,
                    position,
                    bytes,
                    first_missing,
                    missing,
                }));
            }
        }
    }

    /// `false` if the segment has gone meanwhile: retention took it, and a later listing will show where to go on.
    fn enter(&mut self, first: u64) -> Result<bool, LogError> {
        let later = segment::list(&self.directory)?.into_iter().find(|&other| other > first);
        match SegmentReader::open(&self.directory, first) {
            Ok((reader, Opening::Ours)) => self.segment = Some(reader),
            Ok((_, Opening::Foreign(found))) => {
                let file = segment::path(&self.directory, first);
                return Err(LogError::Version { file, found, known: segment::FORMAT_VERSION });
            }
            Ok((reader, Opening::Broken)) => {
                // A header that is being written, or damaged: with records behind it, they tell.
                if reader.file_bytes().map_err(|error| LogError::directory(&self.directory, "read", error))?
                    <= segment::HEADER_BYTES
                {
                    return Ok(false);
                }
                self.segment = Some(reader);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(LogError::directory(&self.directory, "read", error)),
        }
        self.next_segment = later.unwrap_or(u64::MAX);
        Ok(true)
    }
}

/// What a whole log was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records that can be read.
    pub records: u64,
    /// Offset of the first of them; 0 if there is none.
    pub first_offset: u64,
    /// Offset of the last of them; 0 if there is none.
    pub last_offset: u64,
    /// Every place that cannot be read.
    pub damage: Vec<Damage>,
}

/// Reads a whole log and says what is wrong with it. A record that is not complete at the very end is not counted as damage.
pub fn verify(directory: &Path) -> Result<Verdict, LogError> {
    let mut reader = LogReader::open(directory)?;
    let mut verdict = Verdict::default();
    while let Some(entry) = reader.next_entry()? {
        match entry {
            Entry::Record(record) => {
                verdict.records += 1;
                verdict.last_offset = record.offset;
                if verdict.first_offset == 0 {
                    verdict.first_offset = record.offset;
                }
            }
            Entry::Damaged(damage) => verdict.damage.push(damage),
        }
    }
    Ok(verdict)
}

/// Whether a log is, or was, in `directory`: it has a segment, or the lock of a writer that has stored nothing yet.
pub fn is_log(directory: &Path) -> Result<bool, LogError> {
    Ok(directory.join(lock::NAME).is_file() || !segment::list(directory)?.is_empty())
}

/// Offset that the next record will have: where `log tail` begins to count back from. Reads the last segment only.
pub fn next_offset(directory: &Path) -> Result<u64, LogError> {
    let Some(last) = segment::list(directory)?.pop() else { return Ok(1) };
    let mut reader = LogReader::open_from(directory, last)?;
    let mut next = last;
    while let Some(entry) = reader.next_entry()? {
        if let Entry::Record(record) = entry {
            next = record.offset + 1;
        }
    }
    Ok(next)
}
