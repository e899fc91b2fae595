//! One message for one member of a shared subscription's group: another shard, then the group's stream, if the first does not take it.
//!
//! Where persistent sessions hold the group, the message's publisher is not acknowledged before a member has taken it or the stream has it
//! (promise P1). A device may be slow or gone, so that wait has an end: then the stream takes the message although a member may still, and one of
//! them may read it again, which the store's contract allows (a message may reach two members and never none; but for one that may be with a member
//! whose session has ended, at QoS 2). What no member could take is told to one that reads the stream. Without persistent sessions the wait ends with
//! the member's report, or once too many others are awaited.

use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::{QoS, ReasonCode};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request};
use tokio::sync::oneshot;

use super::awaited::Place;
use super::interest::{LinkId, share};
use crate::core::Core;
use crate::link::Peer;
use crate::metrics as names;
use crate::store_requests::{Retries, ask_until_taken};

/// How long a group of persistent sessions has for one of its members to take a message before its stream does.
const MEMBERS_WITHIN: Duration = Duration::from_secs(1);

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
    };
    if message.view().qos == QoS::AtMostOnce {
        return Sent { taken: way.send(false).await.is_some(), kept: None };
    }
    let first = way.send(true).await;
    let taken = first.is_some();
    let durable = core.read_interests(|interests| interests.is_group_durable(group, filter));
    let (tell, kept) = oneshot::channel();
    let place = core.awaited_reports.enter();
    tokio::spawn(async move {
        let reason_code = way.see_through(first, durable, place).await;
        // Nobody waits where no persistent session does.
        let _ = tell.send(reason_code);
    });
    Sent { taken, kept: durable.then_some(kept) }
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

    /// Until a member has it, or the stream of a durable group, or nobody will; 0, or the reason code of a failure. What a durable group waits for beyond
    /// its place is bounded by whoever waits for it in turn: uplinks by their link's window, pushes and wills by their number in flight.
    async fn see_through(mut self, first: Option<Report>, durable: bool, mut place: Place) -> u8 {
        let mut refused = false;
        let taken = tokio::select! {
            biased;
            taken = self.offer(first) => {
                refused = !taken;
                taken
            }
            () = place.gave_way() => {
                metrics::counter!(names::GROUP_REPORTS_GIVEN_UP).increment(1);
                // The member that it was sent to may still take it, and nobody was promised more.
                !durable
            }
            () = tokio::time::sleep(MEMBERS_WITHIN), if durable => false,
        };
        drop(place);
        if taken {
            return 0;
        }
        if durable {
            let stream = StreamKey::Filter(share(&self.group, &self.filter).into());
            let request =
                Request::Append { streams: vec![stream], message: self.message.clone(), collapse_key: None };
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
                    Ok(Reply::Appended { at, .. }) if refused && !at.is_empty() => {
                        self.announce(at).await;
                        return 0;
                    }
                    Ok(_) => return 0,
                    Err(error) => {
                        tracing::warn!(%error, "a message for a shared subscription is refused");
                        break;
                    }
                }
            }
        }
        metrics::counter!(names::GROUP_DROPPED).increment(1);
        ReasonCode::ImplementationSpecificError as u8
    }

    /// Tells one member that the stream has what no member could take: it reads that once it has room. Otherwise it would stand there until a member's session is
    /// resumed. What a member has and has not acknowledged yet is not told, as it would come twice.
    async fn announce(&self, positions: Positions) {
        let reader = self.core.read_interests(|interests| interests.reader(&self.group, &self.filter));
        let Some(peer) = reader.and_then(|link| self.core.peers.of_link(link)) else { return };
        let record = ToGateway::Deliver(Deliver {
            delivery: 0,
            target: Target::Group { group: &self.group, filter: &self.filter },
            positions,
            message: self.message.view(),
        });
        // A link that is lost meanwhile makes those behind it read their streams.
        let _ = peer.send_record(&record).await;
    }

    /// Offers it to one member after the other; whether one ended it.
    async fn offer(&mut self, first: Option<Report>) -> bool {
        let mut report = first;
        while let Some(mut awaited) = report {
            match (&mut awaited.outcome).await {
                // The last four end it too: another member could do no better, or must not be asked [MQTT-4.8.2-5, MQTT-4.8.2-6].
                Ok(
                    Outcome::Delivered
                    | Outcome::Kept
                    | Outcome::Expired
                    | Outcome::TooLarge
                    | Outcome::RefusedByDevice
                    | Outcome::InDoubt,
                ) => return true,
                Ok(
                    Outcome::NotHere | Outcome::NotSubscribed | Outcome::QueueFull | Outcome::ConnectionLost,
                )
                | Err(_) => report = self.send(true).await,
            }
        }
        false
    }
}
