//! Reading: the bytes behind the handshake become pieces of messages and control frames.
//!
//! Bytes may come in any split. Payload of data frames is unmasked where it lies and handed on at once, piece by
//! piece; only a header or a control payload that arrives split is kept (at most 125 bytes, freed afterwards).
//!
//! ```text
//!              data frame            piece handed on
//!           ┌──────────────> Data ────────┐
//!   Header ─┤                 │ ^─────────┘
//!     ^     └──────────────> Control ── close ──> Ended   swallows everything further
//!     └── payload complete ───┘                     ^
//!                any error ─────────────────────────┘
//! ```
#![expect(
    clippy::mut_mut,
    reason = "input is a cursor that moves over bytes which are unmasked where they lie"
)]

use std::fmt;
use std::io::Cursor;
use std::ops::Deref;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::frame::CONTROL_BYTES_MAX;
use super::mask::unmask;
use super::utf8::Utf8;
use super::{CloseCode, Error};

/// Bytes of the longest header a client writes: two, a length of eight, a mask of four.
const HEADER_BYTES_MAX: usize = 14;

/// The reading side of one connection: 32 bytes, and no heap while no header or control frame lies split.
#[derive(Debug)]
pub struct Stream {
    /// What has arrived of a header or of a control payload.
    pending: Option<Box<Pending>>,
    /// Bound on the sum of a message's fragments.
    message_bytes_max: u32,
    /// Bytes of the message so far, the whole of the frame being read included.
    message_bytes: u32,
    /// Bytes of the current frame's payload that are still to come.
    payload_left: u32,
    /// The current frame's mask as it stands for the next payload byte.
    mask: [u8; 4],
    phase: Phase,
    /// The message whose fragments are being read, if one is open.
    message: Option<DataKind>,
    /// Whether the current data frame is the last of its message.
    is_final: bool,
    /// Meaningful while a text message is open.
    utf8: Utf8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Header,
    Data,
    Ping,
    Pong,
    Close,
    Ended,
}

/// What the next bytes mean.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// A piece of a message, unmasked in place. Empty only where it ends a message.
    Data {
        /// The kind of the whole message.
        kind: DataKind,
        /// The piece. Text is checked together with the pieces before it; a piece may end inside a character.
        bytes: &'b mut [u8],
        /// The message ends with this piece.
        end_of_message: bool,
    },
    /// To be answered with [`write_pong`](super::frame::write_pong) of the same payload.
    Ping(ControlPayload),
    /// A sign of life.
    Pong(ControlPayload),
    /// The peer closes, or answers our close. The caller echoes the code unless it has sent a close itself
    /// (RFC 6455, section 5.5.1); nothing further is read.
    Close {
        /// Why, if the peer says so.
        code: Option<CloseCode>,
        /// UTF-8, possibly empty.
        reason: ControlPayload,
    },
}

/// What a message consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// UTF-8, checked.
    Text,
    /// Bytes.
    Binary,
}

impl Stream {
    /// A stream at the first byte behind the handshake. A message whose fragments add up to more than
    /// `message_bytes_max` is refused at the header that announces the excess.
    pub const fn new(message_bytes_max: u32) -> Self {
        Self {
            pending: None,
            message_bytes_max,
            message_bytes: 0,
            payload_left: 0,
            mask: [0; 4],
            phase: Phase::Header,
            message: None,
            is_final: false,
            utf8: Utf8::Start,
        }
    }

    /// Reads as far as the next event and advances `input` behind it; `None` once `input` is used up.
    ///
    /// After an error or a close frame everything further is swallowed: the caller sends its close frame and
    /// ends the connection.
    pub fn read<'b>(&mut self, input: &mut &'b mut [u8]) -> Result<Option<Event<'b>>, Error> {
        let event = self.read_event(input);
        if matches!(event, Err(_) | Ok(Some(Event::Close { .. }))) {
            self.phase = Phase::Ended;
            self.pending = None;
        }
        event
    }

    /// Whether a close frame or an error has ended this stream.
    pub const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Bytes on the heap at this moment: zero unless a header or a control frame lies split.
    pub const fn heap_bytes(&self) -> usize {
        if self.pending.is_some() { size_of::<Pending>() } else { 0 }
    }

    fn read_event<'b>(&mut self, input: &mut &'b mut [u8]) -> Result<Option<Event<'b>>, Error> {
        loop {
            match self.phase {
                Phase::Header => {
                    if !self.read_header(input)? {
                        return Ok(None);
                    }
                }
                Phase::Data => {
                    if self.payload_left > 0 && input.is_empty() {
                        return Ok(None);
                    }
                    if let Some(event) = self.read_data(input)? {
                        return Ok(Some(event));
                    }
                }
                Phase::Ping => return Ok(self.read_control(input).map(Event::Ping)),
                Phase::Pong => return Ok(self.read_control(input).map(Event::Pong)),
                Phase::Close => return self.read_control(input).map(close_event).transpose(),
                Phase::Ended => {
                    *input = &mut [];
                    return Ok(None);
                }
            }
        }
    }

    /// True once a header is complete and taken; false if `input` ended before.
    fn read_header(&mut self, input: &mut &mut [u8]) -> Result<bool, Error> {
        let mut header = [0; HEADER_BYTES_MAX];
        let mut len = match &self.pending {
            Some(pending) => {
                header[..pending.bytes().len()].copy_from_slice(pending.bytes());
                pending.bytes().len()
            }
            None => 0,
        };
        // Each byte is judged as soon as it is there: a header that is wrong already does not wait for its rest.
        for wanted in HeaderPart::ALL {
            let until = wanted.end(&header);
            let piece = take(input, until.saturating_sub(len));
            header[len..len + piece.len()].copy_from_slice(piece);
            len += piece.len();
            if len < until {
                if len > 0 {
                    self.pending.get_or_insert_default().replace(&header[..len]);
                }
                return Ok(false);
            }
            match wanted {
                HeaderPart::First => self.check_first_byte(header[0])?,
                HeaderPart::Second => check_second_byte(header[0], header[1])?,
                HeaderPart::Rest => {}
            }
        }
        self.pending = None;
        self.begin_frame(&header[..len])?;
        Ok(true)
    }

    fn check_first_byte(&self, first: u8) -> Result<(), Error> {
        if first & 0x70 != 0 {
            return Err(Error::ReservedBits);
        }
        match OpCode::from(first & 0x0F) {
            OpCode::Data(Data::Reserved(opcode)) | OpCode::Control(Control::Reserved(opcode)) => {
                Err(Error::ReservedOpcode(opcode))
            }
            OpCode::Control(_) if first & 0x80 == 0 => Err(Error::FragmentedControl),
            OpCode::Data(Data::Continue) if self.message.is_none() => Err(Error::NothingToContinue),
            OpCode::Data(Data::Text | Data::Binary) if self.message.is_some() => {
                Err(Error::MessageInsideMessage)
            }
            OpCode::Data(_) | OpCode::Control(_) => Ok(()),
        }
    }

    fn begin_frame(&mut self, bytes: &[u8]) -> Result<(), Error> {
        // Complete, masked and of an assigned opcode, as checked on the way here.
        let Ok(Some((header, payload_len))) = FrameHeader::parse(&mut Cursor::new(bytes)) else {
            return Err(Error::ReservedOpcode(bytes[0] & 0x0F));
        };
        // RFC 6455, section 5.2: in its shortest form, and the highest bit of the eight bytes is zero.
        if header.len(payload_len) != bytes.len() || payload_len >> 63 != 0 {
            return Err(Error::LengthForm);
        }
        self.mask = header.mask.ok_or(Error::NotMasked)?;
        self.phase = match header.opcode {
            OpCode::Control(Control::Close) => Phase::Close,
            OpCode::Control(Control::Ping) => Phase::Ping,
            OpCode::Control(_) => Phase::Pong,
            OpCode::Data(kind) => {
                self.begin_data(kind, header.is_final, payload_len)?;
                Phase::Data
            }
        };
        // At most 125 for a control frame; within `message_bytes_max` for data.
        self.payload_left = payload_len as u32;
        Ok(())
    }

    fn begin_data(&mut self, kind: Data, is_final: bool, payload_len: u64) -> Result<(), Error> {
        match kind {
            Data::Text => self.message = Some(DataKind::Text),
            Data::Binary => self.message = Some(DataKind::Binary),
            Data::Continue | Data::Reserved(_) => {}
        }
        self.is_final = is_final;
        self.message_bytes = u64::from(self.message_bytes)
            .checked_add(payload_len)
            .and_then(|sum| u32::try_from(sum).ok())
            .filter(|sum| *sum <= self.message_bytes_max)
            .ok_or(Error::MessageTooBig(self.message_bytes_max))?;
        Ok(())
    }

    /// The next piece, or `None` for an empty fragment inside a message, which tells nobody anything.
    fn read_data<'b>(&mut self, input: &mut &'b mut [u8]) -> Result<Option<Event<'b>>, Error> {
        let bytes = self.take_payload(input);
        let kind = self.message.expect("a data frame is read only inside a message");
        let end_of_frame = self.payload_left == 0;
        let end_of_message = end_of_frame && self.is_final;
        if kind == DataKind::Text {
            self.utf8 = self.utf8.feed(bytes).ok_or(Error::InvalidUtf8)?;
            if end_of_message && !self.utf8.is_complete() {
                return Err(Error::InvalidUtf8);
            }
        }
        if end_of_frame {
            self.phase = Phase::Header;
        }
        if end_of_message {
            self.message = None;
            self.message_bytes = 0;
        }
        let says_something = end_of_message || !bytes.is_empty();
        Ok(says_something.then_some(Event::Data { kind, bytes, end_of_message }))
    }

    /// The payload of the current control frame once it is complete.
    fn read_control(&mut self, input: &mut &mut [u8]) -> Option<ControlPayload> {
        let piece = self.take_payload(input);
        if self.payload_left > 0 {
            if !piece.is_empty() || self.pending.is_some() {
                self.pending.get_or_insert_default().append(piece);
            }
            return None;
        }
        self.phase = Phase::Header;
        let mut payload = self.pending.take().map_or_else(Pending::default, |pending| *pending);
        payload.append(piece);
        Some(ControlPayload(payload))
    }

    fn take_payload<'b>(&mut self, input: &mut &'b mut [u8]) -> &'b mut [u8] {
        let piece = take(input, self.payload_left as usize);
        self.payload_left -= piece.len() as u32;
        self.mask = unmask(piece, self.mask);
        piece
    }
}

/// The payload of a control frame: at most 125 bytes, by value, as they may have arrived in pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ControlPayload(Pending);

impl ControlPayload {
    /// The payload as text; empty if it is not. The reason of a close frame always is.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self).unwrap_or_default()
    }
}

impl Deref for ControlPayload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl fmt::Debug for ControlPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

fn close_event(payload: ControlPayload) -> Result<Event<'static>, Error> {
    let (code, reason) = match *payload {
        [] => return Ok(Event::Close { code: None, reason: payload }),
        [_] => return Err(Error::HalfCloseCode),
        [high, low, ref reason @ ..] => (u16::from_be_bytes([high, low]), reason),
    };
    let code = CloseCode::new(code).ok_or(Error::CloseCode(code))?;
    std::str::from_utf8(reason).map_err(|_| Error::InvalidUtf8)?;
    let mut text = Pending::default();
    text.append(reason);
    Ok(Event::Close { code: Some(code), reason: ControlPayload(text) })
}

/// The stretches of a header after each of which more can be checked.
#[derive(Clone, Copy)]
enum HeaderPart {
    First,
    Second,
    Rest,
}

impl HeaderPart {
    const ALL: [Self; 3] = [Self::First, Self::Second, Self::Rest];

    /// Where the part ends in a header whose earlier parts are there.
    fn end(self, header: &[u8; HEADER_BYTES_MAX]) -> usize {
        match (self, header[1] & 0x7F) {
            (Self::First, _) => 1,
            (Self::Second, _) => 2,
            (Self::Rest, 127) => HEADER_BYTES_MAX,
            (Self::Rest, 126) => 8,
            (Self::Rest, _) => 6,
        }
    }
}

fn check_second_byte(first: u8, second: u8) -> Result<(), Error> {
    // RFC 6455, section 5.1: a server closes the connection upon a frame that is not masked.
    if second & 0x80 == 0 {
        return Err(Error::NotMasked);
    }
    let is_control = first & 0x08 != 0;
    if is_control && usize::from(second & 0x7F) > CONTROL_BYTES_MAX {
        return Err(Error::ControlTooLong);
    }
    Ok(())
}

/// Up to `limit` bytes from the front of `input`.
fn take<'b>(input: &mut &'b mut [u8], limit: usize) -> &'b mut [u8] {
    let at = limit.min(input.len());
    let (front, rest) = std::mem::take(input).split_at_mut(at);
    *input = rest;
    front
}

/// A header or a control payload in the making: at most 125 bytes, by the checks on the header.
#[derive(Debug, Clone, Copy)]
struct Pending {
    len: u8,
    bytes: [u8; CONTROL_BYTES_MAX],
}

impl Pending {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn replace(&mut self, bytes: &[u8]) {
        self.len = 0;
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let start = usize::from(self.len);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self { len: 0, bytes: [0; CONTROL_BYTES_MAX] }
    }
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Pending {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fuzzing::{Heard, Transcript};
    use super::super::{CloseCode, Opcode};
    use super::*;

    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    const FIN: u8 = 0x80;

    /// A client's frame with the length in its shortest form.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xFFFF => {
                bytes.push(0xFE);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0xFF);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&MASK);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(&mut bytes[start..], MASK);
        bytes
    }

    fn whole(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        frame(FIN | opcode as u8, payload)
    }

    fn part(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        frame(opcode as u8, payload)
    }

    fn heard(bytes: &[u8]) -> Vec<Heard> {
        Transcript::of([bytes]).heard
    }

    fn failure(bytes: &[u8]) -> Error {
        match heard(bytes).pop() {
            Some(Heard::Failed(error)) => error,
            other => panic!("{bytes:x?} should fail, but is {other:?}"),
        }
    }

    fn text(text: &str) -> Heard {
        Heard::Message(DataKind::Text, text.as_bytes().to_vec())
    }

    #[test]
    fn a_stream_is_small_and_owns_nothing_while_idle() {
        assert!(size_of::<Stream>() <= 32, "{}", size_of::<Stream>());
        let mut stream = Stream::new(1024);
        let mut bytes = [whole(Opcode::Text, b"Hello"), whole(Opcode::Ping, b"?")].concat();
        let mut input = &mut bytes[..];
        while stream.read(&mut input).expect("both are valid").is_some() {}
        assert_eq!(stream.heap_bytes(), 0);
    }

    #[test]
    fn what_arrives_split_is_freed_once_it_is_complete() {
        let mut stream = Stream::new(1024);
        let mut bytes = whole(Opcode::Ping, b"12345");
        let (mut header, rest) = bytes.split_at_mut(3);
        let (mut first, mut last) = rest.split_at_mut(5);
        assert_eq!(stream.read(&mut header), Ok(None));
        assert!((1..=128).contains(&stream.heap_bytes()));
        assert_eq!(stream.read(&mut first), Ok(None));
        assert!((1..=128).contains(&stream.heap_bytes()));
        assert!(matches!(stream.read(&mut last), Ok(Some(Event::Ping(payload))) if *payload == *b"12345"));
        assert_eq!(stream.heap_bytes(), 0);
    }

    /// RFC 6455, section 5.7: a single-frame masked text message, and the masked answer to a ping.
    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(heard(&hello), [text("Hello")]);
        let pong = [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(heard(&pong), [Heard::Pong(b"Hello".to_vec())]);
    }

    #[test]
    fn payload_is_handed_on_in_place_as_it_arrives() {
        let mut stream = Stream::new(1024);
        let mut bytes = whole(Opcode::Binary, b"0123456789");
        let (mut first, mut last) = bytes.split_at_mut(9);
        let Ok(Some(Event::Data { bytes, end_of_message, .. })) = stream.read(&mut first) else {
            panic!("a piece")
        };
        assert_eq!((&*bytes, end_of_message), (&b"012"[..], false));
        let Ok(Some(Event::Data { bytes, end_of_message, .. })) = stream.read(&mut last) else {
            panic!("a piece")
        };
        assert_eq!((&*bytes, end_of_message), (&b"3456789"[..], true));
        assert_eq!(stream.heap_bytes(), 0);
    }

    #[test]
    fn control_frames_come_between_the_fragments_of_a_message() {
        let bytes = [
            part(Opcode::Text, b"Hel"),
            whole(Opcode::Ping, b"are you there"),
            part(Opcode::Continuation, b""),
            whole(Opcode::Pong, b""),
            whole(Opcode::Continuation, b"lo"),
        ];
        let expected = [Heard::Ping(b"are you there".to_vec()), Heard::Pong(vec![]), text("Hello")];
        assert_eq!(heard(&bytes.concat()), expected);
    }

    #[test]
    fn an_empty_message_is_a_message() {
        assert_eq!(heard(&whole(Opcode::Text, b"")), [text("")]);
        let fragments = [part(Opcode::Text, b""), whole(Opcode::Continuation, b"")];
        assert_eq!(heard(&fragments.concat()), [text("")]);
    }

    #[test]
    fn a_character_may_be_cut_by_a_fragment_but_not_by_the_end() {
        let euro = "€".as_bytes();
        let fragments = [part(Opcode::Text, &euro[..1]), whole(Opcode::Continuation, &euro[1..])];
        assert_eq!(heard(&fragments.concat()), [text("€")]);
        assert_eq!(failure(&whole(Opcode::Text, &euro[..2])), Error::InvalidUtf8);
        let cut_by_end = [part(Opcode::Text, &euro[..2]), whole(Opcode::Continuation, b"")];
        assert_eq!(failure(&cut_by_end.concat()), Error::InvalidUtf8);
    }

    #[test]
    fn bad_text_is_refused_before_its_frame_is_complete() {
        let bytes = whole(Opcode::Text, b"\xCE\xBA\xF4\x90\x80\x80 and more");
        let up_to_the_wrong_byte = 6 + 4;
        assert_eq!(failure(&bytes[..up_to_the_wrong_byte]), Error::InvalidUtf8);
        assert_eq!(heard(&bytes[..up_to_the_wrong_byte - 1]), []);
    }

    #[test]
    fn a_close_frame_ends_the_stream() {
        let bytes = [whole(Opcode::Close, b"\x03\xE8bye"), whole(Opcode::Text, b"never heard")];
        assert_eq!(heard(&bytes.concat()), [Heard::Close(Some(1000), "bye".to_owned())]);
        assert_eq!(heard(&whole(Opcode::Close, b"")), [Heard::Close(None, String::new())]);
    }

    #[test]
    fn after_an_error_everything_is_swallowed() {
        let mut stream = Stream::new(1024);
        let mut bytes = [frame(0xF2, b""), whole(Opcode::Text, b"never heard")].concat();
        let mut input = &mut bytes[..];
        assert_eq!(stream.read(&mut input), Err(Error::ReservedBits));
        assert!(stream.has_ended());
        assert_eq!(stream.read(&mut input), Ok(None));
        assert!(input.is_empty());
    }

    #[test]
    fn what_breaks_the_protocol_is_refused_by_the_first_byte_that_shows_it() {
        for (bytes, error) in [
            (vec![0xC1], Error::ReservedBits),
            (vec![0x91], Error::ReservedBits),
            (vec![0x83], Error::ReservedOpcode(3)),
            (vec![0x8B], Error::ReservedOpcode(11)),
            (vec![0x09], Error::FragmentedControl),
            (vec![0x80], Error::NothingToContinue),
            (vec![0x81, 0x05], Error::NotMasked),
            (vec![0x89, 0xFE], Error::ControlTooLong),
            (vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0], Error::LengthForm),
            (vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0], Error::LengthForm),
            (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Error::LengthForm),
            ([part(Opcode::Text, b"a"), vec![0x81]].concat(), Error::MessageInsideMessage),
            (whole(Opcode::Close, b"\x03"), Error::HalfCloseCode),
            (whole(Opcode::Close, b"\x03\xED"), Error::CloseCode(1005)),
            (whole(Opcode::Close, b"\x03\xE8\xFF"), Error::InvalidUtf8),
        ] {
            assert_eq!(failure(&bytes), error, "{bytes:x?}");
            let shorter = Transcript::of([&bytes[..bytes.len() - 1]]);
            assert!(!matches!(shorter.heard.last(), Some(Heard::Failed(_))), "{bytes:x?}");
        }
    }

    #[test]
    fn a_message_too_big_is_refused_by_the_header_that_announces_it() {
        let mut stream = Stream::new(10);
        let mut bytes = [part(Opcode::Binary, &[0; 6]), part(Opcode::Continuation, &[0; 5])].concat();
        bytes.truncate(bytes.len() - 5);
        let mut input = &mut bytes[..];
        assert!(matches!(
            stream.read(&mut input),
            Ok(Some(Event::Data { bytes: &mut [_, _, _, _, _, _], .. }))
        ));
        assert_eq!(stream.read(&mut input), Err(Error::MessageTooBig(10)));
        assert_eq!(Error::MessageTooBig(10).close_code(), CloseCode::MESSAGE_TOO_BIG);
    }

    #[test]
    fn the_largest_length_that_can_be_written_is_only_a_message_too_big() {
        let mut stream = Stream::new(u32::MAX);
        let mut bytes = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
        assert_eq!(stream.read(&mut &mut bytes[..]), Err(Error::MessageTooBig(u32::MAX)));
    }

    #[test]
    fn each_message_has_the_whole_bound_to_itself() {
        let mut stream = Stream::new(10);
        let mut bytes = [whole(Opcode::Binary, &[0; 10]), whole(Opcode::Binary, &[0; 10])].concat();
        let mut input = &mut bytes[..];
        for _ in 0..2 {
            assert!(matches!(stream.read(&mut input), Ok(Some(Event::Data { end_of_message: true, .. }))));
        }
    }

    /// Mostly valid frames, so that a property gets past the first header.
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            8 => prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A]),
            1 => Just(0x88u8),
            1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..140),
            ".{0,40}".prop_map(String::into_bytes),
            Just(b"\x03\xE8done".to_vec()),
        ];
        (first, payload).prop_map(|(first, payload)| frame(first, &payload))
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            frames in prop::collection::vec(any_frame(), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = frames.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
            prop_assert_eq!(Transcript::of(pieces), Transcript::of([&bytes[..]]));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            super::super::fuzzing::fuzz_stream(&bytes);
        }
    }
}
