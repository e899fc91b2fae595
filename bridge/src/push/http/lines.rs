//! The lines of a body that is read as it comes: each has a bound, their number has none.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt;

/// A peer that sends nothing of a body for so long has forgotten it.
const SILENT_MAX: Duration = Duration::from_mins(5);

/// A line of a body, without its end, or none of it if it is longer than allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1; blank ones count as well, and are passed over.
    pub(super) number: u64,
    pub(super) text: Result<Vec<u8>, TooLong>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The connection, or its framing.
    Body,
    /// Nothing came for [`SILENT_MAX`].
    Silent,
}

/// Reads a body line by line. Needs a runtime with timers.
pub(super) struct LineReader {
    body: BodyDataStream,
    chunk: Bytes,
    lines: Lines,
}

impl LineReader {
    pub(super) fn new(body: Body, line_bytes_max: usize) -> Self {
        Self { body: body.into_data_stream(), chunk: Bytes::new(), lines: Lines::new(line_bytes_max) }
    }

    /// The next line that is not blank; none at the end. Nothing is lost if the caller stops waiting.
    pub(super) async fn next(&mut self) -> Result<Option<Line>, Broken> {
        loop {
            if let Some(line) = self.lines.take(&mut self.chunk) {
                return Ok(Some(line));
            }
            match tokio::time::timeout(SILENT_MAX, self.body.next()).await {
                Ok(Some(Ok(chunk))) => self.chunk = chunk,
                Ok(Some(Err(_))) => return Err(Broken::Body),
                Ok(None) => return Ok(self.lines.end()),
                Err(_) => return Err(Broken::Silent),
            }
        }
    }
}

/// Lines out of pieces.
#[derive(Debug)]
struct Lines {
    bytes_max: usize,
    number: u64,
    begun: Vec<u8>,
    is_too_long: bool,
}

impl Lines {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, number: 0, begun: Vec::new(), is_too_long: false }
    }

    /// Takes bytes off `piece` up to the end of the first line that is not blank; all of them if there is none.
    fn take(&mut self, piece: &mut Bytes) -> Option<Line> {
        while !piece.is_empty() {
            let end = piece.iter().position(|&byte| byte == b'\n');
            let part = piece.split_to(end.map_or(piece.len(), |end| end + 1));
            let part = part.strip_suffix(b"\n").unwrap_or(&part);
            if self.begun.len() + part.len() > self.bytes_max {
                self.is_too_long = true;
                self.begun = Vec::new();
            }
            if !self.is_too_long {
                self.begun.extend_from_slice(part);
            }
            if end.is_some()
                && let Some(line) = self.end()
            {
                return Some(line);
            }
        }
        None
    }

    /// Ends the line that has begun; none if it is blank.
    fn end(&mut self) -> Option<Line> {
        self.number += 1;
        let mut text = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.is_too_long) {
            return Some(Line { number: self.number, text: Err(TooLong) });
        }
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        (!text.trim_ascii().is_empty()).then_some(Line { number: self.number, text: Ok(text) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]], bytes_max: usize) -> Vec<Line> {
        let mut lines = Lines::new(bytes_max);
        let mut all = Vec::new();
        for piece in pieces {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(line) = lines.take(&mut piece) {
                all.push(line);
            }
            assert!(lines.begun.len() <= bytes_max);
        }
        all.extend(lines.end());
        all
    }

    fn line(number: u64, text: &str) -> Line {
        Line { number, text: Ok(text.into()) }
    }

    #[test]
    fn blank_lines_count_and_are_passed_over() {
        assert_eq!(lines(&[b"a\r\n\n \nb"], 9), [line(1, "a"), line(4, "b")]);
        assert_eq!(lines(&[b"\n\n"], 9), []);
    }

    #[test]
    fn a_line_that_is_too_long_costs_only_itself() {
        let too_long = Line { number: 2, text: Err(TooLong) };
        assert_eq!(lines(&[b"abc\nab", b"c", b"d", b"e\nx\n"], 3), [line(1, "abc"), too_long, line(3, "x")]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_pieces_end(text in "[ab\r\n]{0,40}", cuts in prop::collection::vec(0usize..40, 0..6)) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            prop_assert_eq!(lines(&pieces, 5), lines(&[text.as_bytes()], 5));
        }
    }
}
