//! What becomes of the records that a shard says.
//!
//! Nothing in here may wait: meanwhile no frame of the link would be settled, and nothing else that the shard says be heard. So nothing in here is asynchronous:
//! what needs time goes where it has its own, within a bound, and what finds no room there is answered at once.

use std::sync::Arc;

use holdfast_wire::link::{HandoverSettled, Interest, Takeover, ToBridge, ToGateway};
use holdfast_wire::topic::validate_filter;

use super::ending::Ending;
use super::peer::Peer;
use super::records::cut;
use crate::core::{Core, now_ms};
use crate::fanout::{LinkId, RetainedReads};
use crate::uplink::Uplinks;

/// What becomes of an open link's records.
pub(super) struct Intake {
    pub(super) core: Arc<Core>,
    pub(super) peer: Arc<Peer>,
    pub(super) uplinks: Uplinks,
    retained_reads: RetainedReads,
    /// Handovers that were read, encoded: they go once the frames before them are sent off. Of one read at most.
    handovers: Vec<u8>,
}

impl Intake {
    /// Of a link that is open. Within the runtime.
    pub(super) fn new(core: &Arc<Core>, peer: Arc<Peer>, uplinks: Uplinks) -> Self {
        let retained_reads = RetainedReads::new(core, &peer);
        Self { core: Arc::clone(core), peer, uplinks, retained_reads, handovers: Vec::new() }
    }

    /// Handles complete records, in a buffer or `waited` ones, and says how many bytes they have.
    pub(super) fn handle(&mut self, records: &[u8], waited: bool) -> Result<usize, Ending> {
        // It sends what follows over its new link, and what is left here would come behind that.
        if waited && self.is_replaced() {
            self.uplinks.forget_waiting();
            return Ok(records.len());
        }
        if !waited && self.peer.is_closed() {
            return Err(self.peer.gone().into());
        }
        let now_ms = now_ms();
        let mut rest = records;
        let mut uplinks = 0;
        while let Some((record, bytes)) = cut(&mut rest)? {
            match record {
                ToBridge::Uplink(uplink) => {
                    self.uplinks.handle(&uplink, bytes, now_ms, waited);
                    uplinks += 1;
                }
                ToBridge::Interest(interest) => handle_interest(&self.core, &self.peer, &interest)?,
                ToBridge::RetainedRead(read) => self.retained_reads.ask(read),
                ToBridge::Report(report) => {
                    self.core.pace.note_delivery();
                    self.peer.reported(report.delivery, report.outcome);
                }
                ToBridge::Takeover(takeover) => pass_on_takeover(&self.core, &self.peer, takeover),
                ToBridge::Handover(handover) if !waited && self.uplinks.keep_behind_frames(&handover) => {}
                ToBridge::Handover(_) => record.encode(&mut self.handovers),
                ToBridge::HandoverSettled(settled) => pass_on_settled(&self.core, settled),
                ToBridge::Event(event) => {
                    if let Some(events) = self.core.books.events.get() {
                        events.note(self.peer.shard, &event);
                    }
                }
                ToBridge::Alive => {}
                ToBridge::Hello(_) => return Err(Ending::OutOfPlace),
            }
        }
        if !waited && uplinks > 0 {
            self.core.counters.uplinks.increment(uplinks);
            self.core.pace.note_frames(uplinks);
        }
        Ok(records.len() - rest.len())
    }

    /// Tells new owners. One that is not linked, or takes nothing, goes on without us in a moment.
    pub(super) fn pass_on_handovers(&mut self) {
        let mut handovers = &self.handovers[..];
        // They were encoded here.
        while let Ok(Some((ToBridge::Handover(handover), _))) = cut(&mut handovers) {
            if let Some(owner) = self.core.peers.of_shard(handover.owner) {
                owner.send_ahead(&ToGateway::Handover(handover));
            }
        }
        self.handovers.clear();
    }

    /// Whether the shard has another link by now.
    fn is_replaced(&self) -> bool {
        self.core.peers.of_shard(self.peer.shard).is_some_and(|newer| newer.link != self.peer.link)
    }
}

/// Tells the former owner, or the new one that it cannot be told here: another bridge may have a link of it.
fn pass_on_takeover(core: &Core, peer: &Peer, takeover: Takeover<'_>) {
    let former = core.peers.of_shard(takeover.former);
    if !former.is_some_and(|former| former.send_ahead(&ToGateway::Takeover(takeover))) {
        let Takeover { client, epoch, .. } = takeover;
        peer.send_at_once(|out| ToGateway::NotLinked { client, epoch }.encode(out));
    }
}

/// Tells the former owner. One that is not linked any more has lost those who wait for its reports.
fn pass_on_settled(core: &Core, settled: HandoverSettled<'_>) {
    if let Some(former) = core.peers.of_shard(settled.former) {
        former.send_ahead(&ToGateway::HandoverSettled(settled));
    }
}

fn handle_interest(core: &Core, peer: &Peer, interest: &Interest<'_>) -> Result<(), Ending> {
    let link: LinkId = peer.link;
    validate_filter(interest.filter).map_err(|error| Ending::Filter(interest.filter.to_owned(), error))?;
    core.change_interests(|interests| {
        if interest.wanted {
            interests.announce(link, interest.kind, interest.filter, interest.durable);
        } else {
            interests.withdraw(link, interest.kind, interest.filter);
        }
    });
    if interest.token != 0 {
        peer.send_at_once(|out| ToGateway::InterestKnown(interest.token).encode(out));
    }
    Ok(())
}
