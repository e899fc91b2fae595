//! A publication on its way up, from a connection to its link. Its acknowledgement is in `acknowledge`.

use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{FixedHeader, PacketId, PubComp, PubRec, Publish, QoS, ReasonCode};

use super::close::CloseReason;
use super::{Connection, Phase};
use crate::input::{ConnectionId, Now};
use crate::session::Protocol;
use crate::session::receiving::Arrival;
use crate::shared::Shared;
use crate::uplink::{Frame, Kind};

/// Name of the user property in which an MQTT 5 device says when a frame was measured, in ms of Unix time.
pub(crate) const EVENT_TIME: &str = "event-time";

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// It is more than may be under way now. The packet is to be handed in again later, and nothing behind it before.
    Stalled,
}

/// A publication, whatever protocol it came by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publication<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) topic: &'a str,
    /// Present with QoS > 0.
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) expiry_s: Option<u32>,
    /// As `PublishProperties::encode_forwardable` writes them.
    pub(crate) properties: &'a [u8],
    pub(crate) event_time_ms: u64,
    pub(crate) payload: &'a [u8],
}

/// A PUBLISH came.
pub(crate) fn handle_publish(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    header: FixedHeader,
    body: &[u8],
    now: Now,
) -> Result<Taken, CloseReason> {
    let version = connection.protocol.version();
    let publish = Publish::decode(header, body, version)?;
    let mqtt = &shared.config.mqtt;
    if publish.qos > mqtt.maximum_qos {
        return Err(CloseReason::QosNotSupported);
    }
    if publish.retain && !mqtt.retain_available {
        return Err(CloseReason::RetainNotSupported);
    }
    // A client may not send subscription identifiers (MQTT-3.3.4-6).
    if !publish.properties.subscription_identifiers.is_empty() {
        return Err(CloseReason::ProtocolError);
    }
    let alias_maximum = mqtt.topic_alias_maximum;
    let Phase::Established(session) = &mut connection.phase else { return Ok(Taken::Yes) };
    // The aliases are lent out so that the topic can be borrowed from them while the session changes.
    let mut aliases = session.aliases.take();
    let topic = match publish.properties.topic_alias {
        None => publish.topic,
        Some(alias) if alias > alias_maximum => return Err(CloseReason::TopicAliasInvalid),
        Some(alias) => {
            let aliases = aliases.get_or_insert_default();
            if !publish.topic.is_empty() {
                aliases.learn(alias, publish.topic);
            }
            aliases.resolve(alias).ok_or(CloseReason::TopicAliasInvalid)?
        }
    };
    let mut properties = std::mem::take(&mut shared.scratch);
    properties.clear();
    publish.properties.encode_forwardable(&mut properties);
    let event_time = publish.properties.user_properties.find(EVENT_TIME);
    let publication = Publication {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic,
        packet_id: publish.packet_id,
        expiry_s: publish.properties.message_expiry_interval_s,
        properties: &properties,
        event_time_ms: event_time.and_then(|text| text.parse().ok()).unwrap_or(0),
        payload: publish.payload,
    };
    let taken = take(connection, id, shared, &publication, now);
    shared.scratch = properties;
    if let Some(session) = connection.session_mut() {
        session.aliases = aliases;
    }
    taken
}

/// Passes a publication on to the connection's link.
pub(crate) fn take(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    publication: &Publication<'_>,
    now: Now,
) -> Result<Taken, CloseReason> {
    let framing = connection.framing();
    let Phase::Established(session) = &mut connection.phase else { return Ok(Taken::Yes) };
    if let Some(packet_id) = publication.packet_id {
        let knows_no_maximum = session.protocol == Protocol::V311;
        match session.receiving.judge(packet_id, shared.config.mqtt.receive_maximum, knows_no_maximum) {
            Arrival::New => {}
            // Only the same one again may come under an id that is in use.
            Arrival::Pending if !publication.dup => return Err(CloseReason::ProtocolError),
            Arrival::Pending => return Ok(Taken::Yes),
            Arrival::Received => {
                let version = session.protocol.version();
                framing.send(&mut shared.outbox, id, |out| PubRec::success(packet_id).encode(version, out));
                return Ok(Taken::Yes);
            }
            // 3.1.1 cannot be told of the bound, so it is held back until an answer is out.
            Arrival::TooMany if knows_no_maximum => {
                shared.stats.paused += 1;
                connection.stalled = true;
                return Ok(Taken::Stalled);
            }
            Arrival::TooMany => return Err(CloseReason::ReceiveMaximumExceeded),
        }
    }
    shared.find_link(session);
    let frame = Frame {
        epoch: session.epoch,
        packet_id: publication.packet_id,
        dup: publication.dup,
        wants_receipt: publication.packet_id.is_some() && session.receiving.wants_receipts(),
        event_time_ms: publication.event_time_ms,
        message: Message {
            id: 0,
            topic: publication.topic,
            qos: publication.qos,
            retain: publication.retain,
            publisher: &session.client,
            published_at_ms: now.unix_ms,
            expires_at_ms: publication
                .expiry_s
                .map_or(0, |expiry_s| now.unix_ms + u64::from(expiry_s) * 1_000),
            properties: publication.properties,
            payload: publication.payload,
        },
    };
    let offered = session
        .link
        .is_some_and(|link| shared.uplinks.offer(link, id, Kind::of(publication.qos), false, &frame).is_ok());
    if !offered {
        let Some(_) = publication.packet_id else {
            shared.stats.dropped_no_credit += 1;
            return Ok(Taken::Yes);
        };
        shared.stats.paused += 1;
        let link = session.link;
        connection.stalled = true;
        if !std::mem::replace(&mut connection.waiting, true) {
            shared.uplinks.wait(link, id);
        }
        return Ok(Taken::Stalled);
    }
    session.unsettled += 1;
    if let Some(packet_id) = publication.packet_id {
        session.receiving.owe(packet_id, publication.qos == QoS::ExactlyOnce);
    }
    shared.stats.received[publication.qos as usize] += 1;
    shared.stats.received_bytes += publication.payload.len() as u64;
    Ok(Taken::Yes)
}

/// PUBREL came: the second half of QoS 2 upwards.
pub(crate) fn handle_release(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: PacketId,
    now: Now,
) {
    let framing = connection.framing();
    let Some(session) = connection.session_mut() else { return };
    let known = session.receiving.release(packet_id);
    if known && session.touch() {
        shared.unsaved.push_back((now.monotonic_ms, id));
    }
    // An unknown id is answered all the same: the PUBCOMP may have been lost with an earlier connection. 3.1.1 cannot say more.
    let reason_code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
    let version = session.protocol.version();
    framing.send(&mut shared.outbox, id, |out| {
        PubComp::with_reason(packet_id, reason_code).encode(version, out);
    });
}
