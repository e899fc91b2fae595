//! The last word of a client that did not say goodbye.
//!
//! One without a delay is published here as its connection ends; one with a delay goes to the store with the session
//! ([`Request::Close`](holdfast_wire::store::Request::Close)) and is published by a bridge unless its client comes back before. Who has lost a session to
//! another owner publishes nothing: that is the new owner's business, or the reaper's. What waits for a will on its way is in `wills`.

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt;
use holdfast_wire::store::WillRecord;

use crate::input::{ConnectionId, Now};
use crate::shared::Shared;
use crate::uplink::{Frame, Kind};

/// A will as CONNECT gave it, with `published_at_ms` of that moment.
pub(crate) fn from_connect(will: &mqtt::Will<'_>, client: &str, now: Now) -> WillRecord {
    let mut properties = Vec::new();
    will.properties.encode_forwardable(&mut properties);
    let message = SharedMessage::new(&Message {
        id: 0,
        topic: will.topic,
        qos: will.qos,
        retain: will.retain,
        publisher: client,
        published_at_ms: now.unix_ms,
        expires_at_ms: 0,
        properties: &properties,
        payload: will.payload,
    });
    WillRecord {
        message,
        delay_s: will.properties.delay_interval_s.unwrap_or(0),
        expiry_s: will.properties.message_expiry_interval_s.unwrap_or(u32::MAX),
    }
}

/// Whether a will can be sent now. If not, it is left to the store.
pub(crate) fn has_room(shared: &mut Shared, client: &str) -> bool {
    let has_room = shared.uplinks.takes_will(shared.link_for(client));
    shared.stats.wills_left += u64::from(!has_room);
    has_room
}

/// Sends a will the way of all frames, behind those of its client, under the epoch of the connection that left it, on behalf of the one that is there or was last. It passes the window's
/// bound, and waits as an orphan where there is no link: who could be held back is gone, or has yet to say its first word. For those that [`has_room`].
pub(crate) fn publish(
    shared: &mut Shared,
    id: ConnectionId,
    client: &ClientId,
    kind: Kind,
    will: &WillRecord,
    number: u64,
    now: Now,
) {
    let frame = Frame {
        epoch: Epoch(number),
        packet_id: None,
        dup: false,
        wants_receipt: false,
        event_time_ms: 0,
        message: will.published(number, now.unix_ms),
    };
    let link = shared.link_for(client);
    match link {
        Some(link) => {
            let offered: Result<(), _> = shared.uplinks.offer(link, id, kind, true, &frame);
            debug_assert!(offered.is_ok(), "a forced frame is always taken");
        }
        None => shared.uplinks.orphan(id, kind, &frame),
    }
    shared.last_words.note(id, client, link, 1);
    shared.stats.wills += 1;
}
