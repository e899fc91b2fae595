//! Wills that fell due because a session was opened here.
//!
//! ```text
//!   answered with the opening ── the former owner owes it, or cannot say ──> published ── settled, or long enough on its way ──> struck out
//!             └───────── the former owner has published it, or its client had said goodbye ──────────────────────────────────────────^
//! ```
//! It is published before anything else of its client, on the link of that client. The store gives to a bridge what is not struck out
//! [`OPENER_WILL_S`](holdfast_wire::store::OPENER_WILL_S) after the opening: too late for a gateway that lives, as the client has spoken since. So a will is
//! struck out once its frame is settled, and a frame that cannot be settled now (Kafka is away) is left to this shard's window alone after [`SETTLED_MS_MAX`].
//! A gateway that dies before leaves it to the bridge; what is lost is the will of an opening whose gateway dies while the sink takes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{DueWill, Opened, Request};

use crate::input::{ConnectionId, Now};
use crate::requests::Asked;
use crate::shared::Shared;
use crate::will;

/// How long a will's frame is waited for before it is struck out all the same, in ms. With the store's deadline for the opening and the wait for the former
/// owner it is below the time for which the store leaves a will to its opener.
const SETTLED_MS_MAX: u64 = 2_000;
/// How soon the store is asked again to strike out what it could not, in ms.
const AGAIN_MS: u64 = 1_000;
/// Wills on their way, and as many that the store could not strike out. Beyond it one is struck out at once, or left to be published again.
const WILLS_MAX: usize = 10_000;

/// Wills that are published and not struck out.
#[derive(Debug, Default)]
pub(crate) struct OpenerWills {
    /// By the connection that opened their session: whose, and the number.
    on_their_way: BTreeMap<ConnectionId, (ClientId, u64)>,
    /// Until when their frames are waited for, in that order. Some are settled.
    until_ms: VecDeque<(u64, ConnectionId)>,
    /// To be struck out again, and when, in that order.
    again: VecDeque<(u64, ClientId, u64)>,
    /// All that need not be published any more, until the store has answered that it knows: should it answer one of them to the client's next connection as
    /// well, that is nothing new.
    dealt_with: BTreeSet<(ClientId, u64)>,
}

impl OpenerWills {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let until_ms = self.until_ms.front().map(|(until_ms, _)| *until_ms);
        let again_ms = self.again.front().map(|(again_ms, ..)| *again_ms);
        until_ms.into_iter().chain(again_ms).min()
    }

    /// The frame of a will was settled.
    pub(crate) fn settled(&mut self, opener: ConnectionId) -> Option<(ClientId, u64)> {
        self.on_their_way.remove(&opener)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.on_their_way.is_empty()
    }
}

impl Shared {
    /// Publishes a will that nobody else does, on behalf of the connection that opened the session.
    pub(crate) fn publish_for(&mut self, opener: ConnectionId, due: DueWill, now: Now) {
        will::publish(self, opener, &due.will, due.number, now);
        let wills = &mut self.opener_wills;
        wills.dealt_with.insert((due.client.clone(), due.number));
        if wills.on_their_way.len() >= WILLS_MAX || wills.on_their_way.contains_key(&opener) {
            return self.strike_out(due.client, due.number);
        }
        wills.until_ms.push_back((now.monotonic_ms + SETTLED_MS_MAX, opener));
        wills.on_their_way.insert(opener, (due.client, due.number));
    }

    /// Publishes the will that an opening owes, if there is one.
    pub(crate) fn publish_owed(&mut self, opener: ConnectionId, opened: &mut Opened, now: Now) -> bool {
        let due = opened.will.take();
        let owes = due.is_some();
        if let Some(due) = due {
            self.publish_for(opener, due, now);
        }
        owes
    }

    /// Tells the store that a will needs to be published no more.
    pub(crate) fn strike_out(&mut self, client: ClientId, number: u64) {
        self.opener_wills.dealt_with.insert((client.clone(), number));
        let request = Request::WillPublished { client: client.clone(), number };
        self.ask(Asked::WillPublished(client, number), request);
    }

    /// The store has struck it out, or could not.
    pub(crate) fn handle_struck_out(&mut self, client: ClientId, number: u64, is_done: bool, now: Now) {
        let wills = &mut self.opener_wills;
        if is_done || wills.again.len() >= WILLS_MAX {
            wills.dealt_with.remove(&(client, number));
        } else {
            wills.again.push_back((now.monotonic_ms + AGAIN_MS, client, number));
        }
    }

    /// The store repeats itself: what it answers to an opening was answered to an earlier one of this client here, which has told its former owner.
    pub(crate) fn is_answered_again(&mut self, client: &ClientId, opened: &Opened) -> bool {
        let Some(number) = opened.will.as_ref().map(|due| due.number) else { return false };
        self.opener_wills.dealt_with.contains(&(client.clone(), number)) || self.awaits_will(client, number)
    }

    /// Strikes out what has been on its way for long enough, and what the store could not.
    pub(crate) fn strike_out_due(&mut self, now: Now) {
        while let Some((_, opener)) =
            self.opener_wills.until_ms.pop_front_if(|(until_ms, _)| *until_ms <= now.monotonic_ms)
        {
            if let Some((client, number)) = self.opener_wills.settled(opener) {
                self.strike_out(client, number);
            }
        }
        while let Some((_, client, number)) =
            self.opener_wills.again.pop_front_if(|(again_ms, ..)| *again_ms <= now.monotonic_ms)
        {
            self.strike_out(client, number);
        }
    }
}
