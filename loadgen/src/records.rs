//! The contents of the log as lines of JSON, one record a line (`holdfast log cat DIR --json`). Read as text, so that
//! the load tool needs to know nothing of how the log is kept.

use std::borrow::Cow;
use std::io::{self, BufRead};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::ledger::ObservedRecord;

/// Bytes of the longest line; a longer one is an error, not a reason to grow.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The fields that the ledger needs; others may stand beside them.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    #[serde(borrow)]
    payload_base64: Cow<'a, str>,
    offset: u64,
    #[serde(default)]
    partition: u32,
    #[serde(default)]
    dup: bool,
    #[serde(default)]
    resent: bool,
}

/// Hands each record to `observe`; returns how many there were. A line that cannot be read is an error: a log that
/// is only half understood proves nothing.
pub fn read(mut lines: impl BufRead, mut observe: impl FnMut(ObservedRecord<'_>)) -> io::Result<u64> {
    let mut text = Vec::new();
    let mut count = 0;
    loop {
        text.clear();
        let length = io::Read::take(&mut lines, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if length == 0 {
            return Ok(count);
        }
        count += 1;
        let invalid =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("record {count}: {why}"));
        let line: Line<'_> = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        let payload =
            STANDARD.decode(line.payload_base64.as_bytes()).map_err(|error| invalid(error.to_string()))?;
        observe(ObservedRecord {
            client_id: &line.client_id,
            payload: &payload,
            resent: line.dup || line.resent,
            partition: line.partition,
            offset: line.offset,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client id, payload, resent, offset.
    type Parsed = (String, Vec<u8>, bool, u64);

    fn parse(text: &str) -> io::Result<Vec<Parsed>> {
        let mut records = Vec::new();
        read(text.as_bytes(), |record| {
            let payload = record.payload.to_vec();
            records.push((record.client_id.to_owned(), payload, record.resent, record.offset));
        })?;
        Ok(records)
    }

    #[test]
    fn each_line_is_a_record_whatever_else_it_says() {
        let text = "{\"client_id\":\"a\",\"topic\":\"t\",\"dup\":true,\"offset\":3,\"payload_base64\":\"aGk=\"}\n\
                    {\"client_id\":\"b\\\"\",\"dup\":false,\"offset\":4,\"payload_base64\":\"\"}";
        let records = parse(text).unwrap();
        assert_eq!(records[0], ("a".to_owned(), b"hi".to_vec(), true, 3));
        assert_eq!(records[1], ("b\"".to_owned(), Vec::new(), false, 4));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_with_its_number() {
        let good = "{\"client_id\":\"a\",\"offset\":3,\"payload_base64\":\"aGk=\"}\n";
        for bad in [
            "{",
            "{\"client_id\":\"a\"}",
            "{\"client_id\":\"a\",\"offset\":3,\"payload_base64\":\"!\"}",
            "\n",
        ] {
            let error = parse(&format!("{good}{bad}")).unwrap_err().to_string();
            assert!(error.starts_with("record 2: "), "{error}");
        }
    }
}
