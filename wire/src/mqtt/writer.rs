//! The data types of section 1.5, written. Each body is described once, against [`Sink`], and runs twice: into
//! [`Measure`] for its length and then into the output, so a length can never disagree with what follows it.

use super::{MAX_REMAINING_LENGTH, PacketId, ProtocolVersion};

/// Where encoded bytes go.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// Values above [`MAX_REMAINING_LENGTH`] have no form; see [`encode_packet`] for why none comes here.
    fn variable_integer(&mut self, value: u32) {
        let mut rest = value.min(MAX_REMAINING_LENGTH);
        while rest >= 0x80 {
            self.u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.u8(rest as u8);
    }

    /// A field has room for 65,535 bytes; what is longer is cut there, so that the bytes after it keep their meaning.
    fn binary(&mut self, bytes: &[u8]) {
        let field = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        self.u16(field.len() as u16);
        self.put(field);
    }

    /// As [`binary`](Self::binary), cut between characters.
    fn string(&mut self, string: &str) {
        let end = string.floor_char_boundary(usize::from(u16::MAX));
        self.binary(&string.as_bytes()[..end]);
    }

    fn packet_id(&mut self, id: PacketId) {
        self.u16(id.get());
    }

    /// The block's length and the block.
    fn property_block(&mut self, block: &impl PropertyBlock)
    where
        Self: Sized,
    {
        let mut measure = Measure::default();
        block.write_properties(&mut measure);
        self.variable_integer(measure.saturated());
        block.write_properties(self);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts instead of writing.
#[derive(Default)]
pub(super) struct Measure {
    length: usize,
}

impl Measure {
    pub(super) fn saturated(&self) -> u32 {
        u32::try_from(self.length).unwrap_or(u32::MAX)
    }
}

impl Sink for Measure {
    fn put(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
    }
}

/// The properties of a packet, without their length.
pub(super) trait PropertyBlock {
    fn write_properties(&self, sink: &mut impl Sink);

    fn has_properties(&self) -> bool {
        let mut measure = Measure::default();
        self.write_properties(&mut measure);
        measure.length > 0
    }
}

/// Everything after the fixed header.
pub(super) trait Body {
    fn write_body(&self, version: ProtocolVersion, sink: &mut impl Sink);

    fn body_length(&self, version: ProtocolVersion) -> u32 {
        let mut measure = Measure::default();
        self.write_body(version, &mut measure);
        measure.saturated()
    }
}

/// Appends one packet. A body beyond [`MAX_REMAINING_LENGTH`] has no encoding: nothing is written. Callers never
/// come near it, as each compares lengths with a maximum packet size first.
pub(super) fn encode_packet(first_byte: u8, body: &impl Body, version: ProtocolVersion, out: &mut Vec<u8>) {
    let length = body.body_length(version);
    debug_assert!(length <= MAX_REMAINING_LENGTH, "a packet of {length} bytes has no encoding");
    if length > MAX_REMAINING_LENGTH {
        return;
    }
    out.reserve(5 + length as usize);
    out.u8(first_byte);
    out.variable_integer(length);
    body.write_body(version, out);
}

/// Bytes that a variable byte integer takes, 1 to 4.
pub(super) const fn variable_integer_length(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x001F_FFFF => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_are_written_in_their_shortest_form() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (16_384, &[0x80, 0x80, 0x01]),
            (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            let mut out = Vec::new();
            out.variable_integer(value);
            assert_eq!(out, bytes);
            assert_eq!(variable_integer_length(value), bytes.len());
        }
    }

    #[test]
    fn a_string_too_long_for_its_field_is_cut_between_characters() {
        let mut out = Vec::new();
        out.string(&"é".repeat(40_000));
        assert_eq!(out.len(), 2 + 65_534);
        assert!(std::str::from_utf8(&out[2..]).is_ok());
    }
}
