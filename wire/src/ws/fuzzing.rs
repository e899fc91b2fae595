//! Bodies of the fuzz targets: plain functions, which tests run on seeds and on arbitrary bytes too.

use super::{DataKind, Error, Event, HandshakeStep, Stream, read_request};

/// Bound on a message in fuzzing: small, so that it is met often.
const MESSAGE_BYTES_MAX: u32 = 300;

/// Reads bytes as an upgrade request. The answer, whatever it is, can be written.
pub fn fuzz_handshake(bytes: &[u8]) {
    let mut response = Vec::new();
    match read_request(bytes) {
        HandshakeStep::NeedMore => {}
        HandshakeStep::Accepted(upgrade) => {
            assert!(upgrade.consumed <= bytes.len() && upgrade.path.starts_with('/'));
            upgrade.write_response(&mut response);
            assert!(response.starts_with(b"HTTP/1.1 101 ") && response.ends_with(b"\r\n\r\n"));
        }
        HandshakeStep::Refused(refusal) => {
            refusal.write_response(&mut response);
            assert!(response.starts_with(b"HTTP/1.1 4") || response.starts_with(b"HTTP/1.1 5"));
        }
    }
}

/// Reads bytes as frames, the first byte saying in pieces of which length: pieces change nothing.
pub fn fuzz_stream(bytes: &[u8]) {
    let Some((&piece_len, frames)) = bytes.split_first() else { return };
    let at_once = Transcript::of([frames]);
    let in_pieces = Transcript::of(frames.chunks(usize::from(piece_len).max(1)));
    assert_eq!(at_once, in_pieces);
}

/// What a stream of bytes says, however it was cut.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Transcript {
    pub(super) heard: Vec<Heard>,
    /// The message that was still open at the end; empty after an error, as how much of a bad message is handed on
    /// before the error depends on the cut.
    pub(super) open: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Message(DataKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Failed(Error),
}

impl Transcript {
    pub(super) fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut stream = Stream::new(MESSAGE_BYTES_MAX);
        let mut transcript = Self::default();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut input = &mut piece[..];
            loop {
                match stream.read(&mut input) {
                    Ok(Some(event)) => transcript.note(&event),
                    Ok(None) => break,
                    Err(error) => {
                        transcript.open.clear();
                        transcript.heard.push(Heard::Failed(error));
                    }
                }
            }
            assert!(input.is_empty(), "a stream leaves nothing to its caller");
        }
        transcript
    }

    fn note(&mut self, event: &Event<'_>) {
        self.heard.push(match event {
            Event::Data { kind, bytes, end_of_message } => {
                self.open.extend_from_slice(bytes);
                assert!(self.open.len() <= MESSAGE_BYTES_MAX as usize);
                if !end_of_message {
                    return;
                }
                let message = std::mem::take(&mut self.open);
                assert!(*kind == DataKind::Binary || std::str::from_utf8(&message).is_ok());
                Heard::Message(*kind, message)
            }
            Event::Ping(payload) => Heard::Ping(payload.to_vec()),
            Event::Pong(payload) => Heard::Pong(payload.to_vec()),
            Event::Close { code, reason } => {
                self.open.clear();
                Heard::Close(code.map(super::CloseCode::code), reason.as_str().to_owned())
            }
        });
    }
}
