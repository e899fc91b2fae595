//! UTF-8 checked as it arrives: a piece may end inside a character, and the first byte that cannot belong to any
//! text is refused at once (RFC 6455, section 8.1).
//!
//! ```text
//!             C2..DF                      80..BF
//!   Start ─────────────────────> Tail1 ──────────> Start
//!     │ E1..EC EE EF    ┌──────────^ 80..BF
//!     ├──────────────> Tail2 <───── Tail3 <── F1..F3
//!     ├ E0 ─> AfterE0 ─ A0..BF ─> Tail1      no overlong form
//!     ├ ED ─> AfterEd ─ 80..9F ─> Tail1      no surrogate
//!     ├ F0 ─> AfterF0 ─ 90..BF ─> Tail2      no overlong form
//!     └ F4 ─> AfterF4 ─ 80..8F ─> Tail2      nothing above U+10FFFF
//! ```

/// What the bytes so far allow next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Utf8 {
    /// Between two characters.
    #[default]
    Start,
    /// One, two or three further bytes of any value 80..BF.
    Tail1,
    Tail2,
    Tail3,
    /// After a first byte whose second is restricted.
    AfterE0,
    AfterEd,
    AfterF0,
    AfterF4,
}

impl Utf8 {
    /// The state after `bytes`, or `None` once they cannot be UTF-8.
    pub(super) fn feed(self, bytes: &[u8]) -> Option<Self> {
        let mut state = self;
        let mut rest = bytes;
        // Finish the character that the last piece left open, then let the standard library take the bulk.
        while state != Self::Start {
            let Some((&byte, tail)) = rest.split_first() else { return Some(state) };
            state = state.step(byte)?;
            rest = tail;
        }
        match std::str::from_utf8(rest) {
            Ok(_) => Some(Self::Start),
            Err(error) if error.error_len().is_some() => None,
            Err(error) => rest[error.valid_up_to()..].iter().try_fold(state, |state, &byte| state.step(byte)),
        }
    }

    /// Whether a message may end here.
    pub(super) fn is_complete(self) -> bool {
        self == Self::Start
    }

    fn step(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Start, 0x00..=0x7F) | (Self::Tail1, 0x80..=0xBF) => Some(Self::Start),
            (Self::Start, 0xC2..=0xDF)
            | (Self::Tail2, 0x80..=0xBF)
            | (Self::AfterE0, 0xA0..=0xBF)
            | (Self::AfterEd, 0x80..=0x9F) => Some(Self::Tail1),
            (Self::Start, 0xE1..=0xEC | 0xEE | 0xEF)
            | (Self::Tail3, 0x80..=0xBF)
            | (Self::AfterF0, 0x90..=0xBF)
            | (Self::AfterF4, 0x80..=0x8F) => Some(Self::Tail2),
            (Self::Start, 0xF1..=0xF3) => Some(Self::Tail3),
            (Self::Start, 0xE0) => Some(Self::AfterE0),
            (Self::Start, 0xED) => Some(Self::AfterEd),
            (Self::Start, 0xF0) => Some(Self::AfterF0),
            (Self::Start, 0xF4) => Some(Self::AfterF4),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_character_is_taken_byte_by_byte() {
        for character in
            ['\0', 'a', '\u{7F}', '\u{80}', 'é', '\u{7FF}', '\u{800}', '\u{D7FF}', '\u{E000}', '\u{FFFF}']
                .into_iter()
                .chain(['\u{10000}', '😀', '\u{10FFFF}'])
        {
            let mut buffer = [0; 4];
            let end = character
                .encode_utf8(&mut buffer)
                .bytes()
                .try_fold(Utf8::Start, |state, byte| state.feed(&[byte]));
            assert_eq!(end, Some(Utf8::Start), "{character:?}");
        }
    }

    #[test]
    fn what_no_text_can_begin_with_is_refused_at_its_first_wrong_byte() {
        for (valid, wrong) in [
            (&b""[..], 0x80),
            (b"", 0xC0),
            (b"", 0xC1),
            (b"", 0xF5),
            (b"", 0xFF),
            (b"\xE0", 0x9F),
            (b"\xED", 0xA0),
            (b"\xF0", 0x8F),
            (b"\xF4", 0x90),
            (b"\xCE\xBA\xE1\xBD", 0x41),
        ] {
            let state = Utf8::Start.feed(valid).expect("the prefix may still become text");
            assert_eq!(state.feed(&[wrong]), None, "{valid:x?} {wrong:x}");
            assert_eq!(Utf8::Start.feed(&[valid, &[wrong]].concat()), None, "{valid:x?} {wrong:x} at once");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_verdict_of_the_standard_library(
            bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 0..24), any::<String>().prop_map(String::into_bytes)],
            at in any::<proptest::sample::Index>(),
        ) {
            let at = at.index(bytes.len() + 1);
            let end = Utf8::Start.feed(&bytes[..at]).and_then(|state| state.feed(&bytes[at..]));
            prop_assert_eq!(end.is_some_and(Utf8::is_complete), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
