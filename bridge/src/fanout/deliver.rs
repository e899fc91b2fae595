//! Sends one message to all that hear it live.

use std::sync::Arc;

use holdfast_wire::ids::ClientId;
use holdfast_wire::link::{Deliver, Positions, Target, ToGateway};
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request};
use tokio::sync::mpsc;

use super::group;
use super::interest::{LinkId, share};
use crate::core::Core;
use crate::metrics as names;
use crate::store_requests::ask_until_answered;
use crate::uplink::inbox::{Event, Inbox};

/// A message that may be heard now.
#[derive(Debug)]
pub(crate) struct FanOutJob {
    /// The uplink, which is told when everyone was sent it.
    pub(crate) ticket: u64,
    pub(crate) message: SharedMessage,
    /// Where it stands in streams.
    pub(crate) positions: Positions,
}

/// Jobs taken at once.
const JOBS_AT_ONCE: usize = 64;

/// Fans out one link's messages, in their order, until its uplinks are no more. A task of its own, so that a shard which does not read holds up
/// only what it is to hear.
pub(crate) async fn run(
    core: Arc<Core>,
    origin: LinkId,
    mut jobs: mpsc::UnboundedReceiver<FanOutJob>,
    inbox: Arc<Inbox>,
) {
    let mut taken = Vec::with_capacity(JOBS_AT_ONCE);
    let mut scratch = Vec::new();
    while jobs.recv_many(&mut taken, JOBS_AT_ONCE).await > 0 {
        for job in taken.drain(..) {
            fan_out(&core, &job.message, &job.positions, Some(origin), &mut scratch).await;
            inbox.push(Event::FannedOut(job.ticket));
        }
        if scratch.capacity() > SCRATCH_BYTES_KEPT {
            scratch = Vec::new();
        }
    }
}

/// A scratch buffer that one large message has grown beyond this is not kept.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// Sends `message` to every shard that hears it, waiting for those that read slowly; says how many shards that were. `origin` is the link that
/// brought it.
pub(crate) async fn fan_out(
    core: &Arc<Core>,
    message: &SharedMessage,
    positions: &Positions,
    origin: Option<LinkId>,
    scratch: &mut Vec<u8>,
) -> usize {
    let view = message.view();
    let hearers = core.read_interests(|interests| interests.hearers(view.topic));
    let mut shards = 0;
    let deliver = |target| {
        ToGateway::Deliver(Deliver { delivery: 0, target, positions: positions.clone(), message: view })
    };
    if !hearers.links.is_empty() {
        scratch.clear();
        deliver(Target::Subscribers).encode(scratch);
        for link in hearers.links {
            let Some(peer) = core.peers.of_link(link) else { continue };
            if peer.send(scratch).await.is_ok() {
                shards += 1;
            }
        }
        metrics::counter!(names::DELIVERIES, "target" => "subscribers").increment(shards as u64);
    }
    for (client, links) in &hearers.devices {
        // A device's own topic, as most personal ones are: its connection is where the message came from.
        let own = origin.filter(|origin| *view.publisher == **client && links.contains(origin));
        let peer = match own {
            Some(origin) => core.peers.of_link(origin),
            None => owner(core, client).await,
        };
        let Some(peer) = peer else { continue };
        if peer.send_record(&deliver(Target::Device(client))).await.is_ok() {
            shards += 1;
            metrics::counter!(names::DELIVERIES, "target" => "device").increment(1);
        }
    }
    for (group, filter) in hearers.groups {
        // It went to the group's stream because no member was there; whoever has come since reads it from there.
        let stream = share(&group, &filter);
        let stored = |position: &holdfast_wire::session_record::Cursor| matches!(&position.stream, StreamKey::Filter(name) if **name == *stream);
        if !positions.iter().any(stored) && group::deliver(core, &group, &filter, message, positions).await {
            shards += 1;
        }
    }
    shards
}

/// The link to the shard that holds this client's connection. Asked of the store each time: a remembered owner, or a remembered absence, could
/// miss a device whose SUBACK has already left.
async fn owner(core: &Core, client: &str) -> Option<Arc<crate::link::Peer>> {
    let request = Request::Lookup { client: ClientId::new(client) };
    match ask_until_answered(&*core.store, request).await {
        Ok(Reply::Session(Some(session))) => core.peers.of_shard(session.owner?),
        _ => None,
    }
}
