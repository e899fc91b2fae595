//! Wills on their way through this shard's window, and what waits for them.
//!
//! ```text
//!   left by a connection that ends here ───────────────────────────> published ── settled, or long enough on its way ──> its session is closed (`last_words`)
//!   answered with an opening here ── the former owner owes it, ────> published ── settled, or long enough on its way ──> struck out
//!             │                      or cannot say                                                                         ^
//!             └── the former owner has published it, or its client had said goodbye ───────────────────────────────────────┘
//! ```
//! Until then the store holds each will as well, for the death of this gateway. The first kind is behind an open session: a new owner that comes meanwhile is
//! told that nothing is owed once it is settled, so that its client speaks after it. The second is published before anything else
//! of its client, on that client's link; the store gives to a bridge what is not struck out [`OPENER_WILL_S`](holdfast_wire::store::OPENER_WILL_S) after the
//! opening, too late for a gateway that lives. So a frame that cannot be settled now, as Kafka is away, is left to this shard's window alone after
//! [`SETTLED_MS_MAX`]. Where bridges take so little that even wills have no room ([`WILL_BYTES_MAX`](crate::uplink::WILL_BYTES_MAX)), the first kind goes to the store with the
//! session, and the second is not struck out: a bridge publishes both once it can. What is lost is the will of a gateway that dies while the sink takes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::store::{DueWill, Opened, Request};

use crate::input::{ConnectionId, Now};
use crate::requests::Asked;
use crate::shared::Shared;
use crate::uplink::Kind;
use crate::will;

/// How long a will's frame is waited for, in ms. With the store's deadline for an opening and the wait for the former owner it is below the time for which the
/// store leaves a will to its opener.
const SETTLED_MS_MAX: u64 = 2_000;
/// How soon the store is asked again to strike out what it could not, in ms.
const AGAIN_MS: u64 = 1_000;
/// Wills on their way, and as many that the store could not strike out. Beyond it one is not waited for, or left to be published again.
const WILLS_MAX: usize = 10_000;

/// Wills that were answered with an opening, that are published and that the store still has.
#[derive(Debug, Default)]
pub(crate) struct Wills {
    /// By the connection that opened the session of the one which left it.
    on_their_way: BTreeMap<ConnectionId, (ClientId, u64)>,
    /// Until when their frames are waited for, in that order. Some are settled.
    until_ms: VecDeque<(u64, ConnectionId)>,
    /// To be struck out again, and when, in that order.
    again: VecDeque<(u64, ClientId, u64)>,
    /// What openings were answered and need not be published any more, until the store has answered that it knows: should it answer one of them to the client's
    /// next connection as well, that is nothing new.
    dealt_with: BTreeSet<(ClientId, u64)>,
}

impl Wills {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let until_ms = self.until_ms.front().map(|(until_ms, _)| *until_ms);
        let again_ms = self.again.front().map(|(again_ms, ..)| *again_ms);
        until_ms.into_iter().chain(again_ms).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.on_their_way.is_empty() && self.again.is_empty()
    }

    /// False if it is not to be waited for.
    fn wait(&mut self, opener: ConnectionId, client: ClientId, number: u64, now: Now) -> bool {
        if self.on_their_way.len() >= WILLS_MAX || self.on_their_way.contains_key(&opener) {
            return false;
        }
        self.until_ms.push_back((now.monotonic_ms + SETTLED_MS_MAX, opener));
        self.on_their_way.insert(opener, (client, number));
        true
    }
}

impl Shared {
    /// A client connects again here: what it left is closed first, and its next words are behind its will in any case.
    pub(crate) fn close_before_opening(&mut self, client: &ClientId) {
        self.close_left(client);
        if self.closing.last_before(client, Epoch(u64::MAX)).is_none() {
            return;
        }
        // What the store could not close: behind the opening it would be refused.
        while let Some(closing) = self.unclosed.take_of(client) {
            self.close_once_more(closing);
        }
    }

    /// Publishes the will that an opening owes, if there is one.
    pub(crate) fn publish_owed(&mut self, opener: ConnectionId, opened: &mut Opened, now: Now) {
        if let Some(due) = opened.will.take() {
            self.publish_for(opener, due, now);
        }
    }

    /// Publishes a will that nobody else does, on behalf of the connection that opened the session. Not if it cannot be sent now: the store gives to a
    /// bridge what is not struck out.
    pub(crate) fn publish_for(&mut self, opener: ConnectionId, due: DueWill, now: Now) {
        let DueWill { client, number, will } = due;
        if !will::has_room(self, &client) {
            return;
        }
        will::publish(self, opener, &client, Kind::OwedWill, &will, number, now);
        self.wills.dealt_with.insert((client.clone(), number));
        if !self.wills.wait(opener, client.clone(), number, now) {
            self.strike_out(client, number);
        }
    }

    /// The frame of a will that was answered with this connection's opening was settled, or is waited for no longer.
    pub(crate) fn handle_spoken(&mut self, opener: ConnectionId) {
        if let Some((client, number)) = self.wills.on_their_way.remove(&opener) {
            self.strike_out(client, number);
        }
    }

    /// Tells the store that a will needs to be published no more.
    pub(crate) fn strike_out(&mut self, client: ClientId, number: u64) {
        self.wills.dealt_with.insert((client.clone(), number));
        let request = Request::WillPublished { client: client.clone(), number };
        self.ask(Asked::WillPublished(client, number), request);
    }

    /// The store has struck it out, or could not.
    pub(crate) fn handle_struck_out(&mut self, client: ClientId, number: u64, is_done: bool, now: Now) {
        let wills = &mut self.wills;
        if is_done || wills.again.len() >= WILLS_MAX {
            wills.dealt_with.remove(&(client, number));
        } else {
            wills.again.push_back((now.monotonic_ms + AGAIN_MS, client, number));
        }
    }

    /// The store repeats itself: what it answers to an opening was answered to an earlier one of this client here, which has told its former owner.
    pub(crate) fn is_answered_again(&mut self, client: &ClientId, opened: &Opened) -> bool {
        let Some(number) = opened.will.as_ref().map(|due| due.number) else { return false };
        self.wills.dealt_with.contains(&(client.clone(), number)) || self.awaits_will(client, number)
    }

    /// Goes on without what has been on its way for long enough, and asks again for what the store could not.
    pub(crate) fn go_on_with_wills(&mut self, now: Now) {
        while let Some((_, opener)) =
            self.wills.until_ms.pop_front_if(|(until_ms, _)| *until_ms <= now.monotonic_ms)
        {
            self.handle_spoken(opener);
        }
        while let Some((_, client, number)) =
            self.wills.again.pop_front_if(|(again_ms, ..)| *again_ms <= now.monotonic_ms)
        {
            self.strike_out(client, number);
        }
    }
}
