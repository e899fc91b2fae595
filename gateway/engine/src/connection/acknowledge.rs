//! What a publication is answered with once it is settled: PUBACK, PUBREC, or a JSON device's ack.
//!
//! A client that asked for receipts is told where the publication lies, in user properties where they may stand and fit.

use holdfast_wire::json::{self, Downlink, Error, ErrorCode, Id};
use holdfast_wire::mqtt::{AckProperties, PubAck, PubRec, ReasonCode};

use super::close::CloseReason;
use super::{Connection, Phase};
use crate::input::ConnectionId;
use crate::outbox::Outbox;
use crate::session::Protocol;
use crate::session::receipts::Receipt;
use crate::session::receiving::Due;
use crate::stats::Stats;

/// Sends the acknowledgements whose turn has come.
pub(crate) fn acknowledge(
    connection: &mut Connection,
    id: ConnectionId,
    outbox: &mut Outbox,
    stats: &mut Stats,
) -> Result<(), CloseReason> {
    if connection.doubted {
        return Ok(());
    }
    let framing = connection.framing();
    let Phase::Established(session) = &mut connection.phase else { return Ok(()) };
    while let Some(due) = session.receiving.next_due() {
        if due.reason_code == ReasonCode::SessionTakenOver as u8 {
            // The bridge has heard from the session's new owner; nothing is acknowledged here any more.
            return Err(CloseReason::Fenced);
        }
        if due.reason_code < 0x80 {
            stats.acknowledged += 1;
        } else {
            stats.refused += 1;
            if session.protocol == Protocol::V311 {
                return Err(CloseReason::PublicationRefused);
            }
        }
        let maximum = session.maximum_packet_size as usize;
        framing.send(outbox, id, |out| match session.protocol {
            Protocol::Json => write_ack(&due, out),
            Protocol::V311 | Protocol::V5 => write_packet(session.protocol, &due, maximum, out),
        });
    }
    Ok(())
}

fn write_ack(due: &Due, out: &mut Vec<u8>) {
    let id = Id::new(due.packet_id.get()).expect("a packet id is not zero");
    if due.reason_code >= 0x80 {
        let text = format!("the frame was refused for good (0x{:02x})", due.reason_code);
        return Error::new(ErrorCode::Refused, Some(id), text).downlink().encode(out);
    }
    let receipt = due.receipt.as_deref();
    let duplicate = receipt.is_some_and(|receipt| receipt.duplicate);
    let receipt = receipt.map(|receipt| json::Receipt {
        topic: (&*receipt.topic).into(),
        partition: receipt.partition,
        offset: receipt.offset,
    });
    Downlink::Ack { id, duplicate, receipt }.encode(out);
}

fn write_packet(protocol: Protocol, due: &Due, maximum_packet_size: usize, out: &mut Vec<u8>) {
    let start = out.len();
    if let Some(receipt) = &due.receipt {
        with_properties(receipt, |properties| encode(protocol, due, properties, out));
        if out.len() - start <= maximum_packet_size {
            return;
        }
        // Left out where the packet would be too large with it (MQTT-3.4.2-3, MQTT-3.5.2-3).
        out.truncate(start);
    }
    encode(protocol, due, AckProperties::default(), out);
}

fn encode(protocol: Protocol, due: &Due, properties: AckProperties<'_>, out: &mut Vec<u8>) {
    let version = protocol.version();
    let packet_id = due.packet_id;
    let reason_code = ReasonCode::from_u8(due.reason_code).unwrap_or(ReasonCode::ImplementationSpecificError);
    if due.exactly_once {
        PubRec { packet_id, reason_code, properties }.encode(version, out);
    } else {
        PubAck { packet_id, reason_code, properties }.encode(version, out);
    }
}

fn with_properties(receipt: &Receipt, encode: impl FnOnce(AckProperties<'_>)) {
    let (partition, offset) = (receipt.partition.to_string(), receipt.offset.to_string());
    let pairs = [
        ("kafka-topic", &*receipt.topic),
        ("kafka-partition", &partition),
        ("kafka-offset", &offset),
        ("duplicate", "true"),
    ];
    let said = if receipt.duplicate { &pairs[..] } else { &pairs[..3] };
    encode(AckProperties { reason_string: None, user_properties: said.into() });
}
