//! The window down: what was accepted for the client and is not settled with it.
//!
//! ```text
//!            room in the window                QoS 1: PUBACK
//!  pending ────────────────────> inflight ───────────────────────> settled
//!                                   │ QoS 2: PUBREC     PUBCOMP       ^
//!                                   └─────────────> AwaitingPubComp ──┘
//! ```

use std::collections::VecDeque;
use std::ops::RangeBounds;

use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::{PacketId, QoS};
use holdfast_wire::session_record::{Cursor, InflightRecord, InflightState, Offset};

use super::durable::StreamState;
use crate::uplink::ReportTo;

/// A message for one client, with what that client's subscriptions make of it. QoS > 0.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) message: SharedMessage,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Box<[u32]>,
    /// Whom to tell the outcome.
    pub(crate) report: Option<ReportTo>,
    /// Its places in the session's streams: index into `Durable::streams`, and offset.
    pub(crate) positions: Box<[(u16, Offset)]>,
}

impl Item {
    /// What it counts against `limits.pending_bytes_max`.
    pub(crate) fn bytes(&self) -> usize {
        self.message.as_bytes().len()
    }
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Inflight {
    pub(crate) packet_id: PacketId,
    pub(crate) state: InflightState,
    /// It was sent on an earlier connection and is to be sent again on this one, before anything new.
    pub(crate) resend: bool,
    /// None once only PUBCOMP is awaited.
    pub(crate) item: Option<Item>,
}

/// Both queues.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// Bounded by the client's receive maximum and `limits.inflight_max`.
    pub(crate) inflight: VecDeque<Inflight>,
    /// Bounded by `limits.pending_messages_max` and `limits.pending_bytes_max`.
    pub(crate) pending: VecDeque<Item>,
    pub(crate) pending_bytes: usize,
}

impl Sending {
    pub(crate) fn is_empty(&self) -> bool {
        self.inflight.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn find(&self, packet_id: PacketId) -> Option<usize> {
        self.inflight.iter().position(|inflight| inflight.packet_id == packet_id)
    }

    pub(crate) fn push_pending(&mut self, item: Item) {
        self.pending_bytes += item.bytes();
        self.pending.push_back(item);
    }

    pub(crate) fn pop_pending(&mut self) -> Option<Item> {
        let item = self.pending.pop_front()?;
        self.pending_bytes -= item.bytes();
        Some(item)
    }

    /// Drops what is pending from this stream; the caller looks at each first.
    pub(crate) fn drop_pending(&mut self, stream: u16, mut look: impl FnMut(&Item)) {
        self.pending.retain(|item| {
            let stays = item.positions.iter().all(|(of, _)| *of != stream);
            if !stays {
                self.pending_bytes -= item.bytes();
                look(item);
            }
            stays
        });
    }

    /// No message settles a place in this stream any longer.
    pub(crate) fn forget_stream(&mut self, stream: u16) {
        self.forget_places(stream, ..);
    }

    /// No message settles one of these places in it.
    pub(crate) fn forget_places(&mut self, stream: u16, places: impl RangeBounds<Offset>) {
        let goes = |(of, offset): &(u16, Offset)| *of == stream && places.contains(offset);
        let inflight = self.inflight.iter_mut().filter_map(|inflight| inflight.item.as_mut());
        for item in inflight.chain(&mut self.pending) {
            if item.positions.iter().any(goes) {
                item.positions = item.positions.iter().copied().filter(|position| !goes(position)).collect();
            }
        }
    }

    /// The inflight messages as the store keeps them.
    pub(crate) fn inflight_records(&self, streams: &[StreamState]) -> Vec<InflightRecord> {
        self.inflight
            .iter()
            .map(|inflight| InflightRecord {
                packet_id: inflight.packet_id,
                state: inflight.state,
                subscription_ids: inflight
                    .item
                    .as_ref()
                    .map_or_else(Box::default, |item| item.subscription_ids.clone()),
                retain: inflight.item.as_ref().is_some_and(|item| item.retain),
                message: inflight.item.as_ref().map(|item| item.message.clone()),
                positions: inflight
                    .item
                    .iter()
                    .flat_map(|item| &item.positions)
                    .map(|(stream, offset)| Cursor {
                        stream: streams[usize::from(*stream)].key.clone(),
                        acked: *offset,
                    })
                    .collect(),
            })
            .collect()
    }
}
