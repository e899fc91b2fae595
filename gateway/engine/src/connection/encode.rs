//! A message as the packet or text that a client is sent. One that goes to many is encoded once for each protocol, QoS and framing.

use std::borrow::Cow;

use holdfast_wire::json::{Data, Id, PushBody, write_push_head};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{PacketId, PublishProperties, QoS, publish};

use super::publish::EVENT_TIME;
use super::transport::Framing;
use crate::input::{ConnectionId, Now};
use crate::outbox::{Outbox, Run};
use crate::session::aliases::Outbound;
use crate::session::sending::Item;
use crate::session::{Protocol, Session};

/// A message that is delivered to one or many, with what is made of it only once.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) message: Message<'a>,
    /// Made when the first queue keeps it.
    kept: Option<SharedMessage>,
    /// Encodings that receivers share; only worth it for several. Valid until the outbox is flushed.
    encodings: Option<Vec<(Encoding, Encoded)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Encoding {
    framing: Framing,
    protocol: Protocol,
    qos: QoS,
    retain: bool,
}

/// Bytes before and after the packet id, and how many there are in all.
#[derive(Clone, Copy, Debug)]
struct Encoded {
    head: Run,
    tail: Run,
    length: usize,
}

impl<'a> Outgoing<'a> {
    /// For one receiver.
    pub(crate) fn single(message: Message<'a>) -> Self {
        Self { message, kept: None, encodings: None }
    }

    /// For many receivers; `kept` is the message itself, if there is one already.
    pub(crate) fn many(message: Message<'a>, kept: Option<SharedMessage>) -> Self {
        Self { message, kept, encodings: Some(Vec::new()) }
    }

    pub(crate) fn keep(&mut self) -> SharedMessage {
        self.kept.get_or_insert_with(|| SharedMessage::new(&self.message)).clone()
    }
}

/// What stands around a message in its packet.
pub(crate) struct Wrapping<'a> {
    pub(crate) qos: QoS,
    pub(crate) id: Option<PacketId>,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: &'a [u32],
}

pub(crate) fn wrapped(item: &Item, packet_id: PacketId, dup: bool) -> Wrapping<'_> {
    Wrapping {
        qos: item.qos,
        id: Some(packet_id),
        dup,
        retain: item.retain,
        subscription_ids: &item.subscription_ids,
    }
}

/// Puts a packet into the outbox; false if the client does not take packets of this size.
pub(crate) fn write(
    session: &mut Session,
    framing: Framing,
    id: ConnectionId,
    outbox: &mut Outbox,
    outgoing: &mut Outgoing<'_>,
    packet: &Wrapping<'_>,
    now: Now,
) -> bool {
    if session.protocol == Protocol::Json {
        return write_json(framing, id, outbox, outgoing, packet);
    }
    if let Some(encodings) = &mut outgoing.encodings
        && packet.subscription_ids.is_empty()
        && !packet.dup
    {
        let encoding =
            Encoding { framing, protocol: session.protocol, qos: packet.qos, retain: packet.retain };
        let encoded = match encodings.iter().find(|(known, _)| *known == encoding) {
            Some((_, encoded)) => *encoded,
            None => {
                let encoded = encode_once(encoding, outbox, &outgoing.message, now);
                encodings.push((encoding, encoded));
                encoded
            }
        };
        if encoded.length > session.maximum_packet_size as usize {
            return false;
        }
        outbox.append_run(id, encoded.head);
        if let Some(packet_id) = packet.id {
            outbox.append(id, |out| out.extend_from_slice(&packet_id.get().to_be_bytes()));
        }
        outbox.append_run(id, encoded.tail);
        return true;
    }
    let message = &outgoing.message;
    let version = session.protocol.version();
    let expiry_s = message.expiry_left_s(now.unix_ms);
    let length = |topic: &str, alias| {
        publish::encoded_len(
            version,
            packet.dup,
            packet.qos,
            packet.retain,
            topic,
            packet.id,
            message.properties,
            expiry_s,
            alias,
            packet.subscription_ids,
            message.payload,
        )
    };
    // Judged in full: an alias that is introduced makes it three bytes longer, and must not be introduced in vain.
    if length(message.topic, Some(1)) > session.maximum_packet_size as usize {
        return false;
    }
    let outbound = match session.alias_maximum {
        0 => Outbound::Plain,
        maximum => session.aliases.get_or_insert_default().outbound(message.topic, maximum),
    };
    let (topic, alias) = match outbound {
        Outbound::Plain => (message.topic, None),
        Outbound::Introduce(alias) => (message.topic, Some(alias)),
        Outbound::Known(alias) => ("", Some(alias)),
    };
    outbox.append(id, |out| {
        framing.write_header(out, length(topic, alias));
        publish::encode_parts(
            out,
            version,
            packet.dup,
            packet.qos,
            packet.retain,
            topic,
            packet.id,
            message.properties,
            expiry_s,
            alias,
            packet.subscription_ids,
            message.payload,
        );
    });
    true
}

/// Encodes a packet for everyone who is sent the same one but for its packet id.
fn encode_once(encoding: Encoding, outbox: &mut Outbox, message: &Message<'_>, now: Now) -> Encoded {
    let version = encoding.protocol.version();
    let placeholder = (encoding.qos > QoS::AtMostOnce).then_some(PacketId::MIN);
    let expiry_s = message.expiry_left_s(now.unix_ms);
    let length = publish::encoded_len(
        version,
        false,
        encoding.qos,
        encoding.retain,
        message.topic,
        placeholder,
        message.properties,
        expiry_s,
        None,
        &[],
        message.payload,
    );
    let overhead = encoding.framing.overhead(length);
    let whole = outbox.share(|out| {
        encoding.framing.write_header(out, length);
        publish::encode_parts(
            out,
            version,
            false,
            encoding.qos,
            encoding.retain,
            message.topic,
            placeholder,
            message.properties,
            expiry_s,
            None,
            &[],
            message.payload,
        );
    });
    let Some(_) = placeholder else {
        return Encoded { head: whole, tail: whole.after(whole.length()), length };
    };
    // Fixed header, topic with its length, packet id, the rest.
    let header = 1 + remaining_length_bytes(length);
    let id_at = overhead + header + 2 + message.topic.len();
    Encoded { head: whole.before(id_at), tail: whole.after(id_at + 2), length }
}

/// Bytes of the remaining length in a packet of this length.
fn remaining_length_bytes(packet_length: usize) -> usize {
    match packet_length {
        0..=129 => 1,
        130..=16_386 => 2,
        16_387..=2_097_155 => 3,
        _ => 4,
    }
}

fn write_json(
    framing: Framing,
    id: ConnectionId,
    outbox: &mut Outbox,
    outgoing: &mut Outgoing<'_>,
    packet: &Wrapping<'_>,
) -> bool {
    let message = &outgoing.message;
    let encoding = Encoding { framing, protocol: Protocol::Json, qos: packet.qos, retain: packet.retain };
    let known = outgoing
        .encodings
        .iter()
        .flatten()
        .find(|(known, _)| *known == encoding)
        .map(|(_, encoded)| encoded.tail);
    let body = known.unwrap_or_else(|| {
        let properties = PublishProperties::decode_block(message.properties).unwrap_or_default();
        let body = PushBody {
            topic: Cow::Borrowed(message.topic),
            event_time_ms: properties.user_properties.find(EVENT_TIME).and_then(|text| text.parse().ok()),
            retained: packet.retain,
            content_type: properties.content_type.map(Cow::Borrowed),
            data: Data::from_payload(message.payload),
        };
        let body = outbox.share(|out| body.encode(out));
        if let Some(encodings) = &mut outgoing.encodings {
            encodings.push((encoding, Encoded { head: body.before(0), tail: body, length: body.length() }));
        }
        body
    });
    let mut head = Vec::with_capacity(48);
    write_push_head(&mut head, packet.id.and_then(|id| Id::new(id.get())), packet.dup);
    outbox.append(id, |out| {
        framing.write_header(out, head.len() + body.length());
        out.extend_from_slice(&head);
    });
    outbox.append_run(id, body);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_of_the_remaining_length_is_told_from_the_packets_length() {
        for remaining in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let width = match remaining {
                0..=127 => 1,
                128..=16_383 => 2,
                16_384..=2_097_151 => 3,
                _ => 4,
            };
            assert_eq!(remaining_length_bytes(1 + width + remaining), width);
        }
    }
}
