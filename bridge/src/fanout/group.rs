//! One message for one member of a shared subscription's group: another shard, then the group's stream, if the first does not take it.

use std::sync::Arc;

use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::Request;
use tokio::sync::oneshot;

use super::interest::{LinkId, share};
use crate::core::Core;
use crate::metrics as names;
use crate::store_requests::ask_until_taken;

/// A message with QoS > 0 on its way to a member.
struct Way {
    core: Arc<Core>,
    group: Box<str>,
    filter: Box<str>,
    message: SharedMessage,
    positions: Positions,
    tried: Vec<LinkId>,
}

/// Sends the message to the member whose turn it is; says whether a shard took it. With QoS > 0 its report is awaited in the background, and
/// it goes elsewhere if it has to. Waits while too many reports are awaited.
pub(super) async fn deliver(
    core: &Arc<Core>,
    group: &str,
    filter: &str,
    message: &SharedMessage,
    positions: &Positions,
) -> bool {
    let mut way = Way {
        core: Arc::clone(core),
        group: group.into(),
        filter: filter.into(),
        message: message.clone(),
        positions: positions.clone(),
        tried: Vec::new(),
    };
    if message.view().qos == QoS::AtMostOnce {
        return way.send(false).await.is_some();
    }
    let Ok(permit) = Arc::clone(&core.group_deliveries).acquire_owned().await else { return false };
    let first = way.send(true).await;
    let taken = first.is_some();
    tokio::spawn(async move {
        way.see_through(first).await;
        drop(permit);
    });
    taken
}

impl Way {
    /// Sends it to the next member that was not tried; none if there is none. The receiver brings the report.
    async fn send(&mut self, reported: bool) -> Option<oneshot::Receiver<Outcome>> {
        loop {
            let pick = |interests: &super::InterestTable| {
                interests.pick_member(&self.group, &self.filter, &self.tried)
            };
            let link = self.core.read_interests(pick)?;
            self.tried.push(link);
            let Some(peer) = self.core.peers.of_link(link) else { continue };
            let (delivery, report) = if reported { peer.expect_report() } else { (0, oneshot::channel().1) };
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

    async fn see_through(mut self, first: Option<oneshot::Receiver<Outcome>>) {
        let mut report = first;
        while let Some(awaited) = report {
            match awaited.await {
                // The last three end it too: another member could do no better, or must not be asked [MQTT-4.8.2-6].
                Ok(
                    Outcome::Delivered
                    | Outcome::Kept
                    | Outcome::Expired
                    | Outcome::TooLarge
                    | Outcome::RefusedByDevice,
                ) => return,
                Ok(
                    Outcome::NotHere | Outcome::NotSubscribed | Outcome::QueueFull | Outcome::ConnectionLost,
                )
                | Err(_) => report = self.send(true).await,
            }
        }
        let durable =
            |interests: &super::InterestTable| interests.is_group_durable(&self.group, &self.filter);
        if self.core.read_interests(durable) {
            let stream = StreamKey::Filter(share(&self.group, &self.filter).into());
            let request = Request::Append { streams: vec![stream], message: self.message.clone() };
            if ask_until_taken(&*self.core.store, request).await.is_ok() {
                return;
            }
        }
        metrics::counter!(names::GROUP_DROPPED).increment(1);
    }
}
