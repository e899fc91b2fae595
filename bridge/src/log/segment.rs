//! Segments: their names, their header, and reading their records one by one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::LogError;
use super::record::{HEAD_BYTES, Head, LogRecord};

/// Version of the format of segments and records.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Bytes of a segment's header: magic, version, first offset, CRC of those.
pub(super) const HEADER_BYTES: u64 = 24;
const MAGIC: &[u8; 8] = b"HOLDFLOG";
const EXTENSION: &str = "log";
/// Read from a segment at once, in bytes, unless one record is larger.
const CHUNK_BYTES: usize = 256 << 10;

/// Where the segment that begins at `first_offset` lies.
pub(super) fn path(directory: &Path, first_offset: u64) -> PathBuf {
    directory.join(format!("{first_offset:020}.{EXTENSION}"))
}

/// First offsets of all segments, ascending. Files of other names are none of ours.
pub(super) fn list(directory: &Path) -> Result<Vec<u64>, LogError> {
    let unreadable = |error| LogError::directory(directory, "read", error);
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some((stem, EXTENSION)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        if stem.len() == 20 {
            firsts.extend(stem.parse::<u64>());
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// The header of a segment.
pub(super) fn header(first_offset: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&first_offset.to_le_bytes());
    let crc = crc32c::crc32c(&header[..20]);
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// A header of our version that agrees with the segment's name.
    Ours,
    /// A header of another version.
    Foreign(u32),
    /// No header, or half of one, or a damaged one.
    Broken,
}

fn opening(bytes: &[u8], first_offset: u64) -> Opening {
    if bytes == header(first_offset) {
        return Opening::Ours;
    }
    match bytes.split_first_chunk::<12>() {
        Some((head, _)) if head.starts_with(MAGIC) => {
            let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
            if version == FORMAT_VERSION { Opening::Broken } else { Opening::Foreign(version) }
        }
        _ => Opening::Broken,
    }
}

/// What stands where a record may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A record of this offset; [`SegmentReader::record`] reads it.
    Record(u64),
    /// Nothing: the segment ends here.
    End,
    /// Bytes that are no record, or not yet.
    Broken,
}

/// Reads one segment from front to back.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: File,
    pub(super) first_offset: u64,
    /// Bytes read ahead; the front belongs to file position `position`.
    buffer: Vec<u8>,
    /// How much of `buffer` has been passed.
    passed: usize,
    /// File position of `buffer[passed]`.
    position: u64,
    /// Body of the record that the last step found.
    body: std::ops::Range<usize>,
}

impl SegmentReader {
    pub(super) fn open(directory: &Path, first_offset: u64) -> io::Result<(Self, Opening)> {
        let file = File::open(path(directory, first_offset))?;
        let mut reader = Self { file, first_offset, buffer: Vec::new(), passed: 0, position: 0, body: 0..0 };
        reader.fill(HEADER_BYTES as usize)?;
        let length = reader.buffer.len().min(HEADER_BYTES as usize);
        let opening = opening(&reader.buffer[..length], first_offset);
        reader.skip(length);
        Ok((reader, opening))
    }

    /// File position behind the last record that was passed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Length of the file right now, in bytes.
    pub(super) fn file_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Looks at what stands at the current position and passes it if it is a record. At the end, or at something broken, nothing stays
    /// buffered: a writer may be at work there, and the next step shall see what it wrote.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        self.body = 0..0;
        let step = self.try_step()?;
        if !matches!(step, Step::Record(_)) {
            self.forget();
        }
        Ok(step)
    }

    fn try_step(&mut self) -> io::Result<Step> {
        if !self.fill(HEAD_BYTES)? {
            return Ok(if self.buffer.len() == self.passed { Step::End } else { Step::Broken });
        }
        let head = self.buffer[self.passed..].first_chunk::<HEAD_BYTES>().and_then(Head::read);
        let Some(head) = head else { return Ok(Step::Broken) };
        // Checked against the file before anything is reserved: a damaged length must not cost 256 MiB.
        let end = self.position + (HEAD_BYTES + head.body_bytes) as u64;
        if self.buffer.len() - self.passed < HEAD_BYTES + head.body_bytes && end > self.file_bytes()? {
            return Ok(Step::Broken);
        }
        if !self.fill(HEAD_BYTES + head.body_bytes)? {
            return Ok(Step::Broken);
        }
        let start = self.passed + HEAD_BYTES;
        let body = start..start + head.body_bytes;
        if !head.matches(&self.buffer[body.clone()]) {
            return Ok(Step::Broken);
        }
        self.skip(HEAD_BYTES + head.body_bytes);
        self.body = body;
        Ok(Step::Record(head.offset))
    }

    /// Returns to before the record that the last step passed.
    pub(super) fn step_back(&mut self) {
        let bytes = if self.body.is_empty() { 0 } else { HEAD_BYTES + self.body.len() };
        self.passed -= bytes;
        self.position -= bytes as u64;
        self.body = 0..0;
    }

    /// The record that the last step passed; `None` if its CRC is right and yet it cannot be understood.
    pub(super) fn record(&self, offset: u64) -> Option<LogRecord<'_>> {
        LogRecord::read_body(offset, &self.buffer[self.body.clone()]).ok()
    }

    /// Looks for the next record behind something broken: one with an offset from `expected` and below `limit`. Moves there and
    /// says how many bytes it left out; stays and says `None` if there is none.
    pub(super) fn resynchronise(&mut self, expected: u64, limit: u64) -> io::Result<Option<u64>> {
        self.forget();
        let length = self.file_bytes()?.saturating_sub(self.position) as usize;
        let mut rest = vec![0; length];
        let read = read_up_to(&self.file, &mut rest, self.position)?;
        rest.truncate(read);
        for skipped in 0..rest.len() {
            let Some(head) = rest[skipped..].first_chunk::<HEAD_BYTES>().and_then(Head::read) else {
                continue;
            };
            if head.offset < expected || head.offset >= limit {
                continue;
            }
            let body = rest[skipped + HEAD_BYTES..].get(..head.body_bytes);
            if body.is_some_and(|body| head.matches(body)) {
                self.position += skipped as u64;
                return Ok(Some(skipped as u64));
            }
        }
        Ok(None)
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.passed = 0;
    }

    fn skip(&mut self, bytes: usize) {
        self.passed += bytes;
        self.position += bytes as u64;
    }

    /// Sees to `wanted` bytes behind the current position being buffered; says whether the file has as many.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.buffer.len() - self.passed >= wanted {
            return Ok(true);
        }
        self.buffer.drain(..self.passed);
        self.passed = 0;
        let held = self.buffer.len();
        self.buffer.resize(wanted.max(CHUNK_BYTES).max(held), 0);
        let read = read_up_to(&self.file, &mut self.buffer[held..], self.position + held as u64)?;
        self.buffer.truncate(held + read);
        Ok(self.buffer.len() >= wanted)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], position + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
