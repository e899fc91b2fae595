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
    max_message_bytes: u32,
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
    /// `max_message_bytes` is refused at the header that announces the excess.
    pub const fn new(max_message_bytes: u32) -> Self {
        Self {
            pending: None,
            max_message_bytes,
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
        // At most 125 for a control frame; within `max_message_bytes` for data.
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
            .filter(|sum| *sum <= self.max_message_bytes)
            .ok_or(Error::MessageTooBig(self.max_message_bytes))?;
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
