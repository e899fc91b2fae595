//! Bytes of connections: whole packets are handled where they lie, a rest is kept until it may go on.

use holdfast_wire::mqtt::{FixedHeader, PacketType};

use super::Engine;
use crate::connection::Phase;
use crate::connection::close::CloseReason;
use crate::connection::publish::Taken;
use crate::input::{ConnectionId, Now};
use crate::output::Action;
use crate::session::Protocol;

impl Engine {
    /// MQTT bytes. What is not a whole packet, or may not be taken yet, is kept.
    pub(crate) fn read_packets(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), CloseReason> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        let Some(mut kept) = connection.partial.take() else {
            let used = self.take_packets(id, bytes, now)?;
            self.keep(id, &bytes[used..]);
            return Ok(());
        };
        kept.extend_from_slice(bytes);
        let used = self.take_packets(id, &kept, now)?;
        kept.drain(..used);
        if !kept.is_empty()
            && let Some(connection) = self.connections.find_mut(id)
        {
            connection.partial = Some(kept);
        }
        Ok(())
    }

    /// Keeps bytes until more come; an empty rest keeps nothing (promise P9).
    pub(crate) fn keep(&mut self, id: ConnectionId, bytes: &[u8]) {
        if !bytes.is_empty()
            && let Some(connection) = self.connections.find_mut(id)
            && !matches!(connection.phase, Phase::Closing)
        {
            connection.partial = Some(Box::new(bytes.to_vec()));
        }
    }

    /// Handles whole packets; returns how many bytes they had.
    fn take_packets(&mut self, id: ConnectionId, bytes: &[u8], now: Now) -> Result<usize, CloseReason> {
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.find_mut(id) else { return Ok(bytes.len()) };
            if !connection.takes_packets() {
                return Ok(at);
            }
            let is_greeting = matches!(connection.phase, Phase::Greeting);
            let Some(header) = FixedHeader::decode(&bytes[at..])? else { return Ok(at) };
            if is_greeting {
                if header.packet_type != PacketType::Connect {
                    return Err(CloseReason::NotConnectFirst);
                }
            } else {
                header.check_for(connection.protocol.version())?;
            }
            if header.packet_length() > self.shared.config.mqtt.maximum_packet_size as usize {
                return Err(CloseReason::PacketTooLarge);
            }
            let Some(packet) = bytes.get(at..at + header.packet_length()) else { return Ok(at) };
            connection.hear(now.monotonic_ms);
            let body = &packet[usize::from(header.header_length)..];
            if is_greeting {
                self.handle_connect(id, header, body, now)?;
            } else if self.handle_packet(id, header, body, now)? == Taken::Stalled {
                return Ok(at);
            }
            at += packet.len();
        }
    }

    /// Goes on with what a connection has kept.
    pub(crate) fn go_on(&mut self, id: ConnectionId, now: Now) {
        let read = match self.connections.find(id) {
            Some(connection) if connection.protocol == Protocol::Json => self.take_waiting_texts(id, now),
            Some(_) => self.read_packets(id, &[], now),
            None => return,
        };
        if let Err(reason) = read {
            self.end(id, reason, now);
        }
    }

    /// Lets connections go on that wait for their links, as long as there is room.
    pub(super) fn resume_waiting(&mut self, now: Now) {
        while let Some(id) = self.shared.uplinks.next_waiting() {
            if let Some(connection) = self.connections.find_mut(id) {
                connection.waiting = false;
                self.let_go_on(id, now);
            }
        }
    }

    /// Ends a stall: what was kept is taken, and unless that stalls again the socket is read again.
    pub(crate) fn let_go_on(&mut self, id: ConnectionId, now: Now) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        connection.stalled = false;
        connection.hear(now.monotonic_ms);
        self.go_on(id, now);
        if self.connections.find(id).is_some_and(|connection| !connection.stalled) {
            self.shared.actions.push_back(Action::ResumeRead(id));
        }
    }
}
