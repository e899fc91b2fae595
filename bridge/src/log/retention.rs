//! Which closed segments go.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::LogConfig;
use super::segment;

/// A segment that is no longer appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) first_offset: u64,
    pub(super) bytes: u64,
    /// When it was last written.
    pub(super) written_at: SystemTime,
}

impl Closed {
    /// `None` if the file is gone or does not tell.
    pub(super) fn of(directory: &Path, first_offset: u64) -> Option<Self> {
        let metadata = std::fs::metadata(segment::path(directory, first_offset)).ok()?;
        Some(Self { first_offset, bytes: metadata.len(), written_at: metadata.modified().ok()? })
    }
}

/// Takes out of `closed` (oldest first) the segments that are beyond the bounds of size or age.
pub(super) fn expire(
    closed: &mut VecDeque<Closed>,
    active_bytes: u64,
    config: &LogConfig,
    now: SystemTime,
) -> Vec<Closed> {
    let mut total = active_bytes + closed.iter().map(|segment| segment.bytes).sum::<u64>();
    let mut gone = Vec::new();
    while let Some(&oldest) = closed.front() {
        let age = now.duration_since(oldest.written_at).unwrap_or(Duration::ZERO);
        if total <= config.retention_bytes_max && age <= config.retention_age_max {
            break;
        }
        total -= oldest.bytes;
        gone.push(oldest);
        closed.pop_front();
    }
    gone
}

/// Takes out of `closed` (oldest first) the segments of which every record lies below `released`; `active` is where the segment behind them begins.
pub(super) fn release(closed: &mut VecDeque<Closed>, active: u64, released: u64) -> Vec<Closed> {
    let ends = closed.iter().skip(1).map(|segment| segment.first_offset).chain([active]);
    let count = closed.iter().zip(ends).take_while(|&(_, end)| end <= released).count();
    closed.drain(..count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(sizes: &[(u64, u64)]) -> VecDeque<Closed> {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        sizes.iter().map(|&(bytes, s)| Closed { first_offset: s, bytes, written_at: at(s) }).collect()
    }

    #[test]
    fn the_oldest_go_first_and_only_as_many_as_need_be() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let config = LogConfig {
            retention_bytes_max: 25,
            retention_age_max: Duration::from_secs(50),
            ..LogConfig::default()
        };
        let mut closed = segments(&[(10, 90), (10, 91), (10, 92)]);
        assert_eq!(expire(&mut closed, 5, &config, now).len(), 1);
        assert_eq!(closed.len(), 2);
        let mut closed = segments(&[(1, 10), (1, 49), (1, 92)]);
        assert_eq!(expire(&mut closed, 1, &config, now).len(), 2);
        let mut closed = segments(&[]);
        assert!(expire(&mut closed, 1_000, &config, now).is_empty(), "the active segment never goes");
    }

    #[test]
    fn a_segment_is_released_with_its_last_record() {
        let mut closed = segments(&[(1, 1), (1, 10), (1, 20)]);
        assert!(release(&mut closed, 30, 9).is_empty());
        assert_eq!(release(&mut closed, 30, 20).len(), 2);
        assert_eq!(release(&mut closed, 30, 30).len(), 1);
    }
}
