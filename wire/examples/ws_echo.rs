//! `ws_echo HOST:PORT`: a WebSocket server that says back what it hears, text and binary, up to 16 MiB a message.
//!
//! It stands on exactly the layer that the gateway uses, so that public suites can judge that layer
//! (`wire/tests/autobahn/run.sh`). One thread for each connection: an example, not a way to hold many. Port 0 takes a
//! free port; the address really taken is printed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use holdfast_wire::ws::frame::{write_close, write_header, write_pong};
use holdfast_wire::ws::{DataKind, Event, HandshakeStep, Opcode, Stream, read_request};

/// Bytes of the longest message that is echoed; a longer one closes its connection with 1009.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// How long a peer that has been told to go may take before its socket is closed.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let Some(address) = std::env::args().nth(1) else {
        eprintln!("usage: ws_echo HOST:PORT");
        return ExitCode::from(2);
    };
    match serve(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ws_echo: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    io::stdout().flush()?;
    for socket in listener.incoming() {
        let socket = socket?;
        thread::spawn(move || {
            // A peer that vanishes has heard what it could; there is nobody left to tell.
            let _gone = echo(&socket);
        });
    }
    Ok(())
}

fn echo(mut socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some(mut first) = shake_hands(socket)? else { return goodbye(socket) };
    let mut conversation = Conversation::new();
    let mut out = Vec::new();
    let mut goes_on = conversation.hear(&mut first, &mut out);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        socket.write_all(&out)?;
        out.clear();
        if !goes_on {
            return goodbye(socket);
        }
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        goes_on = conversation.hear(&mut buffer[..len], &mut out);
    }
}

/// Answers the upgrade request; the bytes that came behind it, or `None` if it was refused.
fn shake_hands(mut socket: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let mut response = Vec::new();
    loop {
        let len = socket.read(&mut buffer)?;
        if len == 0 {
            return Ok(None);
        }
        received.extend_from_slice(&buffer[..len]);
        let rest = match read_request(&received) {
            HandshakeStep::NeedMore => continue,
            HandshakeStep::Accepted(upgrade) => {
                upgrade.write_response(&mut response);
                Some(received[upgrade.consumed..].to_vec())
            }
            HandshakeStep::Refused(refusal) => {
                refusal.write_response(&mut response);
                None
            }
        };
        socket.write_all(&response)?;
        return Ok(rest);
    }
}

/// Lets the peer read our last words: a socket closed over unread bytes would take them back with a reset.
fn goodbye(mut socket: &TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    socket.set_read_timeout(Some(GOODBYE_PATIENCE))?;
    let mut buffer = [0; 4096];
    while socket.read(&mut buffer)? > 0 {}
    Ok(())
}

struct Conversation {
    stream: Stream,
    /// The message so far, at most [`MESSAGE_BYTES_MAX`] as the stream sees to it.
    message: Vec<u8>,
}

impl Conversation {
    fn new() -> Self {
        Self { stream: Stream::new(MESSAGE_BYTES_MAX), message: Vec::new() }
    }

    /// Appends the answers; false once the last word is among them.
    fn hear(&mut self, mut input: &mut [u8], out: &mut Vec<u8>) -> bool {
        loop {
            match self.stream.read(&mut input) {
                Ok(Some(event)) => self.answer(event, out),
                Ok(None) => return !self.stream.has_ended(),
                Err(error) => {
                    write_close(out, Some(error.close_code()), &error.to_string());
                    return false;
                }
            }
        }
    }

    fn answer(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Data { kind, bytes, end_of_message } => {
                self.message.extend_from_slice(bytes);
                if end_of_message {
                    let opcode = match kind {
                        DataKind::Text => Opcode::Text,
                        DataKind::Binary => Opcode::Binary,
                    };
                    write_header(out, opcode, self.message.len());
                    out.append(&mut self.message);
                }
            }
            Event::Ping(payload) => write_pong(out, &payload),
            Event::Pong(_) => {}
            Event::Close { code, .. } => write_close(out, code, ""),
        }
    }
}
