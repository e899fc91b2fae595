//! One message for one member of a shared subscription's group: another shard, then the group's stream, if the first does not take it.
//!
//! ```text
//!  member's turn ── taken ─────────────────────────────────────────────────────────> done
//!    ^    │
//!    │    ├── refused, or its link is lost: the next member; once all were tried ──> appended, and a member is told that it waits
//!    └────┘
//!         └── silent for a second ──> held in the stream ── taken ─────────────────> hold ended, done
//!                                                        └─ refused, or link lost ─> hold ended, and a member is told that it waits
//! ```
//!
//! Where persistent sessions hold the group, the message's publisher is not acknowledged before a member has taken it or the stream has it
//! (promise P1). A device may be slow or gone, so that wait has an end: then the stream holds the message for nobody to claim, as the member may still take
//! it, until that member's report comes. Should this bridge die meanwhile, or have too many others to await, the hold ends by itself, and
//! one of the members may have the message twice. Without persistent sessions the wait ends with the member's report, or once too many others are awaited.

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::{QoS, ReasonCode};
use holdfast_wire::session_record::{Offset, StreamKey};
use holdfast_wire::store::{Reply, Request};
use tokio::sync::oneshot;

use super::awaited::Place;
use super::interest::{LinkId, share};
use crate::core::Core;
use crate::link::Peer;
use crate::metrics as names;
use crate::store_requests::{Retries, ask, ask_until_answered, ask_until_taken};

/// How long a group of persistent sessions has for one of its members to take a message before its stream holds it.
const MEMBERS_WITHIN: Duration = Duration::from_secs(1);
/// For how long it holds it, in ms, if this bridge says nothing more: longer than most devices take to acknowledge or to be found dead.
const HELD_FOR_MS: u32 = 300_000;

/// Tells once a group has a message for good: 0, or the reason code that its publisher is to hear.
pub(crate) type Kept = oneshot::Receiver<u8>;

/// What became of a message at first.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// A shard took it.
    pub(super) taken: bool,
    /// The group is one of persistent sessions, and the message one that is stored.
    pub(super) kept: Option<Kept>,
}

/// A message with QoS > 0 on its way to a member.
struct Way {
    core: Arc<Core>,
    group: Box<str>,
    filter: Box<str>,
    message: SharedMessage,
    positions: Positions,
    tried: Vec<LinkId>,
    /// Of the member that it was sent to last.
    awaited: Option<Report>,
}

/// How a message's first second went.
enum First {
    Taken,
    /// No member could take it.
    Refused,
    /// A member may still take it.
    Silent,
    /// The same, and nobody listens to it any more.
    GivenUp,
}

/// What a member's shard will say of it; forgotten with this.
struct Report {
    peer: Arc<Peer>,
    /// 0 for a delivery without one.
    delivery: u64,
    outcome: oneshot::Receiver<Outcome>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.delivery != 0 {
            self.peer.forget_report(self.delivery);
        }
    }
}

/// Sends the message to the member whose turn it is. With QoS > 0 its report is awaited in the background, and it goes elsewhere if it has to. Waits only
/// for a shard that does not read.
pub(super) async fn deliver(
    core: &Arc<Core>,
    group: &str,
    filter: &str,
    message: &SharedMessage,
    positions: &Positions,
) -> Sent {
    let mut way = Way {
        core: Arc::clone(core),
        group: group.into(),
        filter: filter.into(),
        message: message.clone(),
        positions: positions.clone(),
        tried: Vec::new(),
        awaited: None,
    };
    if message.view().qos == QoS::AtMostOnce {
        return Sent { taken: way.send(false).await.is_some(), kept: None };
    }
    way.awaited = way.send(true).await;
    let taken = way.awaited.is_some();
    let durable = core.read_interests(|interests| interests.is_group_durable(group, filter));
    let (tell, kept) = oneshot::channel();
    let place = core.awaited_reports.enter();
    tokio::spawn(way.see_through(durable, place, tell));
    Sent { taken, kept: durable.then_some(kept) }
}

/// Tells one shard that the stream of a group may hold what nobody has claimed, another one each time.
fn tell_that_it_waits(core: &Core, group: &str, filter: &str) {
    let readers = core.read_interests(|interests| interests.readers_in_turn(group, filter));
    readers.into_iter().any(|link| tell_reader(core, link, group, filter));
}

/// Tells all shards with persistent members, if anything stands in the stream of a group: the members of the one that was told may all stand still.
pub(crate) async fn remind(core: &Core, group: &str, filter: &str) {
    let stream = StreamKey::Filter(share(group, filter).into());
    let any = Request::Read { stream, after: 0, messages_max: 1, bytes_max: 1 };
    // A store that cannot answer is asked the next time.
    if let Ok(Reply::Messages { messages, .. }) = ask(&*core.store, any).await
        && !messages.is_empty()
    {
        for link in core.read_interests(|interests| interests.readers_in_turn(group, filter)) {
            tell_reader(core, link, group, filter);
        }
    }
}

/// False if it cannot be told.
fn tell_reader(core: &Core, link: LinkId, group: &str, filter: &str) -> bool {
    let record = ToGateway::GroupWaits { group, filter };
    core.peers.of_link(link).is_some_and(|peer| peer.send_ahead(&record))
}

impl Way {
    /// Sends it to the next member that was not tried; none if there is none.
    async fn send(&mut self, reported: bool) -> Option<Report> {
        loop {
            let pick = |interests: &super::InterestTable| {
                interests.pick_member(&self.group, &self.filter, &self.tried)
            };
            let link = self.core.read_interests(pick)?;
            self.tried.push(link);
            let Some(peer) = self.core.peers.of_link(link) else { continue };
            let (delivery, outcome) = if reported { peer.expect_report() } else { (0, oneshot::channel().1) };
            let report = Report { peer: Arc::clone(&peer), delivery, outcome };
            let record = ToGateway::Deliver(Deliver {
                delivery,
                target: Target::Group { group: &self.group, filter: &self.filter },
                positions: self.positions.clone(),
                message: self.message.view(),
            });
            if peer.send_record(&record).await.is_ok() {
                metrics::counter!(names::DELIVERIES, "target" => "group").increment(1);
                return Some(report);
            }
        }
    }

    /// Until a member has it, or the stream of a durable group, or nobody will. What a durable group waits for beyond its place is bounded by whoever waits
    /// for it in turn: uplinks by their link's window, pushes and wills by their number in flight.
    async fn see_through(mut self, durable: bool, mut place: Place, tell: oneshot::Sender<u8>) {
        let first = tokio::select! {
            biased;
            taken = self.offer() => if taken { First::Taken } else { First::Refused },
            () = place.gave_way() => {
                metrics::counter!(names::GROUP_REPORTS_GIVEN_UP).increment(1);
                First::GivenUp
            }
            () = tokio::time::sleep(MEMBERS_WITHIN), if durable => First::Silent,
        };
        let reason_code = match first {
            First::Refused if durable => {
                drop(place);
                self.append_it().await
            }
            First::Silent | First::GivenUp if durable => match self.keep(self.hold()).await {
                Ok(at) if matches!(first, First::Silent) => {
                    // Nobody waits where no persistent session does.
                    let _ = tell.send(0);
                    return match at {
                        Some(at) => self.see_hold_end(at, place).await,
                        // It has the members alone, like one of a group that is not durable.
                        None => self.see_offer_end(place).await,
                    };
                }
                Ok(_) => 0,
                Err(Refused) => dropped(),
            },
            First::Refused => dropped(),
            // Otherwise the member that it was sent to may still take it, and nobody was promised more.
            First::Taken | First::Silent | First::GivenUp => 0,
        };
        let _ = tell.send(reason_code);
    }

    fn stream(&self) -> Box<str> {
        share(&self.group, &self.filter).into()
    }

    fn append(&self) -> Request {
        let streams = vec![StreamKey::Filter(self.stream())];
        Request::Append { streams, message: self.message.clone(), collapse_key: None }
    }

    fn hold(&self) -> Request {
        Request::Hold { filter: self.stream(), message: self.message.clone(), for_ms: HELD_FOR_MS }
    }

    /// No member could take it: it goes to the stream, for whoever has room first. Gives what its publisher hears.
    async fn append_it(&self) -> u8 {
        let Ok(Some(_)) = self.keep(self.append()).await else { return dropped() };
        tell_that_it_waits(&self.core, &self.group, &self.filter);
        0
    }

    /// Has the store keep it. Gives where it stands; nothing if the stream is full, or gone with the last persistent session.
    async fn keep(&self, request: Request) -> Result<Option<Offset>, Refused> {
        let store = &*self.core.store;
        let mut retries = Retries::new();
        loop {
            match ask_until_taken(store, request.clone()).await {
                // The group's sessions are about to be written back to a store that has lost its data, and their stream with them.
                Ok(Reply::Appended { at, full })
                    if at.is_empty() && full.is_empty() && store.has_just_begun() =>
                {
                    retries.wait().await;
                }
                Ok(Reply::Appended { at, .. }) => return Ok(at.first().map(|place| place.acked)),
                Ok(_) => return Ok(None),
                Err(error) => {
                    tracing::warn!(%error, "a message for a shared subscription is refused");
                    return Err(Refused);
                }
            }
        }
    }

    /// Until the member that may have it says whether it has. A report that is given up leaves the hold to its time.
    async fn see_hold_end(mut self, at: Offset, mut place: Place) {
        let Some(mut report) = self.awaited.take() else { return self.end_hold(at, false).await };
        tokio::select! {
            biased;
            taken = report.is_taken() => self.end_hold(at, taken).await,
            () = place.gave_way() => metrics::counter!(names::GROUP_REPORTS_GIVEN_UP).increment(1),
        }
    }

    /// Until a member has what its publisher was acknowledged though no stream has it.
    async fn see_offer_end(mut self, mut place: Place) {
        tokio::select! {
            biased;
            taken = self.offer() => if !taken { dropped(); },
            () = place.gave_way() => metrics::counter!(names::GROUP_REPORTS_GIVEN_UP).increment(1),
        }
    }

    async fn end_hold(&self, at: Offset, taken: bool) {
        let request = Request::EndHold { filter: self.stream(), at, taken };
        match ask_until_answered(&*self.core.store, request).await {
            Ok(_) if taken => {}
            Ok(_) => tell_that_it_waits(&self.core, &self.group, &self.filter),
            Err(error) => tracing::debug!(%error, "a hold in a group's stream is left to its time"),
        }
    }

    /// Offers it to one member after the other; whether one ended it. Whoever stops waiting finds the last one in `awaited`.
    async fn offer(&mut self) -> bool {
        while let Some(report) = &mut self.awaited {
            if report.is_taken().await {
                return true;
            }
            self.awaited = None;
            self.awaited = self.send(true).await;
        }
        false
    }
}

/// The store takes it neither now nor later.
struct Refused;

/// Nobody has it. Gives what its publisher hears, if it still waits.
fn dropped() -> u8 {
    metrics::counter!(names::GROUP_DROPPED).increment(1);
    ReasonCode::ImplementationSpecificError as u8
}

impl Report {
    /// Whether the member ended it. False if it goes elsewhere, as it does once the link is lost.
    async fn is_taken(&mut self) -> bool {
        match (&mut self.outcome).await {
            // The last four end it too: another member could do no better, or must not be asked [MQTT-4.8.2-5, MQTT-4.8.2-6].
            Ok(
                Outcome::Delivered
                | Outcome::Kept
                | Outcome::Expired
                | Outcome::TooLarge
                | Outcome::RefusedByDevice
                | Outcome::InDoubt,
            ) => true,
            Ok(Outcome::NotHere | Outcome::NotSubscribed | Outcome::QueueFull | Outcome::ConnectionLost)
            | Err(_) => false,
        }
    }
}
