//! Reading and writing the fixed-width little-endian fields of Holdfast's own formats: link records, messages
//! and session records. (MQTT's big-endian fields have their own reader in `mqtt`.)
//!
//! A [`Reader`] never reads past its end and never allocates; strings and byte runs borrow from the input.

/// Why bytes of one of our own formats were refused. The other end is another Holdfast process or a file it wrote, so
/// this is a defect, a foreign version or a damaged disk; never a device's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// The bytes end inside a field.
    #[error("ends inside a field")]
    Truncated,
    /// Bytes remain behind the last field.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    /// A text is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A field holds a value that this version does not know.
    #[error("unknown {field} {value}")]
    UnknownValue {
        /// The field's name.
        field: &'static str,
        /// What stood there.
        value: u64,
    },
}

/// A cursor over borrowed bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_integer {
    ($($name:ident -> $type:ty),*) => {$(
        /// Reads the next little-endian integer.
        pub fn $name(&mut self) -> Result<$type, CodingError> {
            let (field, rest) = self.rest.split_first_chunk().ok_or(CodingError::Truncated)?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*field))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    read_integer!(u8 -> u8, u16 -> u16, u32 -> u32, u64 -> u64);

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes the next `length` bytes as they are.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], CodingError> {
        let (field, rest) = self.rest.split_at_checked(length).ok_or(CodingError::Truncated)?;
        self.rest = rest;
        Ok(field)
    }

    /// Reads a run of bytes behind its four-byte length.
    pub fn bytes(&mut self) -> Result<&'a [u8], CodingError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// Reads a text behind its two-byte length.
    pub fn text(&mut self) -> Result<&'a str, CodingError> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length as usize)?).map_err(|_| CodingError::NotUtf8)
    }

    /// Says that the last field has been read.
    pub fn finish(self) -> Result<(), CodingError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(CodingError::TrailingBytes(more)),
        }
    }
}

/// Appends fields; the counterpart of [`Reader`].
pub trait Write {
    /// Appends one byte.
    fn put_u8(&mut self, value: u8);
    /// Appends a little-endian integer.
    fn put_u16(&mut self, value: u16);
    /// Appends a little-endian integer.
    fn put_u32(&mut self, value: u32);
    /// Appends a little-endian integer.
    fn put_u64(&mut self, value: u64);
    /// Appends a run of bytes behind its four-byte length.
    fn put_bytes(&mut self, value: &[u8]);
    /// Appends a text behind its two-byte length. `value` is at most 65,535 bytes: every text here was MQTT's first.
    fn put_text(&mut self, value: &str);
}

impl Write for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes(&mut self, value: &[u8]) {
        self.put_u32(value.len() as u32);
        self.extend_from_slice(value);
    }

    fn put_text(&mut self, value: &str) {
        debug_assert!(u16::try_from(value.len()).is_ok());
        self.put_u16(value.len() as u16);
        self.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_in_order() {
        let mut bytes = Vec::new();
        bytes.put_u8(1);
        bytes.put_u16(2);
        bytes.put_u32(3);
        bytes.put_u64(4);
        bytes.put_bytes(b"five");
        bytes.put_text("six");
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.bytes(), Ok(&b"five"[..]));
        assert_eq!(reader.text(), Ok("six"));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        let mut bytes = Vec::new();
        bytes.put_u32(u32::MAX);
        assert_eq!(Reader::new(&bytes).bytes(), Err(CodingError::Truncated));
        assert_eq!(Reader::new(&[0xff, 0xff]).text(), Err(CodingError::Truncated));
    }
}
