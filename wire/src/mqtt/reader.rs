//! The data types of section 1.5, read from a slice without copying.

use super::{DecodeError, FixedHeader, PacketId, ProtocolVersion};

/// What is left of a packet's body. Each method takes one field off its front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Opens a packet's body after checking that the header fits the version and the body.
    pub(super) fn open(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        header.check_for(version)?;
        match body.len().cmp(&(header.remaining_length as usize)) {
            std::cmp::Ordering::Less => Err(DecodeError::Truncated),
            std::cmp::Ordering::Equal => Ok(Self::new(body)),
            std::cmp::Ordering::Greater => Err(DecodeError::TrailingBytes),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not read yet.
    pub(super) const fn len(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes after the last field.
    pub(super) const fn finish(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (field, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer in its shortest form `[MQTT-1.5.5-1]`.
    pub(super) fn variable_integer(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || index == 0;
                return if shortest { Ok(value) } else { Err(DecodeError::VariableIntegerNotMinimal) };
            }
        }
        Err(DecodeError::VariableIntegerTooLong)
    }

    /// Binary data: a length of two bytes, then as many bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    /// A UTF-8 string without U+0000 `[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`. Other control characters are allowed;
    /// surrogates are not UTF-8 and fall with the rest.
    pub(super) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        let string = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)?;
        if bytes.contains(&0) { Err(DecodeError::NulInString) } else { Ok(string) }
    }

    /// A packet identifier, which is never zero `[MQTT-2.2.1-3]`.
    pub(super) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }

    /// A property block: its length, then as many bytes, not looked into.
    pub(super) fn property_block(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.variable_integer()?;
        self.bytes(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_are_read_as_table_1_1_gives_them() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x7F], 127),
            (&[0x80, 0x01], 128),
            (&[0xFF, 0x7F], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xFF, 0xFF, 0x7F], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0xFF, 0xFF, 0xFF, 0x7F], 268_435_455),
        ] {
            assert_eq!(Reader::new(bytes).variable_integer(), Ok(value));
        }
    }

    #[test]
    fn a_variable_byte_integer_is_refused_when_padded_cut_or_too_long() {
        let read = |bytes| Reader::new(bytes).variable_integer();
        assert_eq!(read(&[0x80, 0x00]), Err(DecodeError::VariableIntegerNotMinimal));
        assert_eq!(read(&[0x80]), Err(DecodeError::Truncated));
        assert_eq!(read(&[0x80, 0x80, 0x80, 0x80, 0x01]), Err(DecodeError::VariableIntegerTooLong));
    }

    #[test]
    fn a_string_is_utf8_without_nul() {
        // Section 1.5.4.1: "A" followed by U+2A6D4.
        let example = [0x00, 0x05, 0x41, 0xF0, 0xAA, 0x9B, 0x94];
        assert_eq!(Reader::new(&example).string(), Ok("A\u{2A6D4}"));
        assert_eq!(Reader::new(&[0, 1, 0]).string(), Err(DecodeError::NulInString));
        assert_eq!(Reader::new(&[0, 3, 0xED, 0xA0, 0x80]).string(), Err(DecodeError::InvalidUtf8));
        assert_eq!(Reader::new(&[0, 2, 0x41]).string(), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[0, 3, 0xEF, 0xBB, 0xBF]).string(), Ok("\u{FEFF}"));
    }
}
