//! The way up: what one link's uplinks owe, to whom, and when they are settled (promise P1).
//!
//! A frame that nobody listens to goes straight into the batch of its turn; nothing is kept of it but its sequence. What matches filters or is
//! to be retained also waits in `owed`. All that becomes of frames (stored by the sink, answered by the store, fanned out, joined to one that was
//! pending) comes back as [`Event`]s in the link's [`Inbox`], so that this state has one owner and no lock.
//!
//! While the sink has no room for a batch, the frames behind it lie in `waiting` as they came. A frame is matched with filters when it is pushed, not when it is
//! read, so one that waited is also heard by who subscribed meanwhile; before a SUBACK nobody is owed anything, and behind it no frame is missed. What is
//! acknowledged was pushed, so this takes nothing from P1.
//!
//! Start with [`Uplinks::handle`], then [`Uplinks::hear`].

pub(crate) mod dedupe;
pub(crate) mod inbox;
mod owed;
mod questions;
mod receipts;
pub(crate) mod sending;
pub(crate) mod topic_map;
pub(crate) mod topic_template;
mod waiting;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_wire::ids::NodeId;
use holdfast_wire::link::{Handover, Positions, Settled, ToGateway, Uplink, WILL_BYTES_MAX};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::{QoS, ReasonCode};
use holdfast_wire::store::{Reply, Request, StoreError};

use crate::core::Core;
use crate::fanout::{FanOut, LinkId, Owes, untold_streams};
use crate::link::Peer;
use crate::log::LogRecord;
use crate::metrics as names;
use crate::sink::{Lane, OnSettled, SinkClosed, Verdict};
use crate::store_requests::is_temporary;
use dedupe::{Dedupe, Frame, Seen, Ticket};
use inbox::{Event, Inbox};
pub(crate) use owed::part;
use owed::{Owed, OwedTicket};
use questions::{Question, Questions};
use receipts::{Fate, Receipts};
use sending::{Sending, Sent};
use waiting::Waiting;
use window::Window;

/// An uplink that is not settled: what its settlement needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    sequence: u64,
    /// Bytes of the record, for the window.
    bytes: u32,
    is_will: bool,
    wants_receipt: bool,
    dedupe: Option<Ticket>,
}

/// Who waits for a pending frame that was sent again: an uplink of some link.
#[derive(Debug)]
pub(crate) struct Waiter {
    inbox: Arc<Inbox>,
    arrival: Arrival,
}

/// Whose uplinks they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) node: NodeId,
    pub(crate) link: LinkId,
    /// Frames that each of its devices may send again.
    pub(crate) receive_maximum: u16,
}

/// One link's uplinks, from their arrival to their settlement. Bounded by the link's window: [`Uplinks::has_room`] says whether to read on.
pub(crate) struct Uplinks {
    /// None while it sends, and once the sink is closed.
    lane: Option<Box<dyn Lane>>,
    /// Behind what the lane sends.
    waiting: Waiting,
    unsettled: Unsettled,
}

/// What has arrived and is not settled.
struct Unsettled {
    core: Arc<Core>,
    origin: Origin,
    inbox: Arc<Inbox>,
    /// Empty but for its place.
    events: Vec<Event>,
    /// Frames pushed into the lane and not sent off.
    gathered: Vec<InBatch>,
    /// Consecutive ones, from `first_batch`; the front is never done.
    batches: VecDeque<SentBatch>,
    first_batch: u64,
    /// Vectors of stored batches, to be used again; as many as were ever in flight at once.
    spare: Vec<Vec<InBatch>>,
    window: Window,
    receipts: Receipts,
    owed: Owed,
    questions: Questions,
    fan_out: FanOut,
    count: u64,
    bytes: u64,
    /// Those of wills among them.
    will_bytes: u64,
    /// Frames that the sink dropped and that were not counted yet.
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct InBatch {
    arrival: Arrival,
    /// It owes more than the sink.
    owed: Option<OwedTicket>,
}

#[derive(Debug)]
struct SentBatch {
    frames: Vec<InBatch>,
    /// Frames that the sink has not spoken of.
    left: usize,
}

impl Uplinks {
    /// Those of one link, whose news arrive in `inbox`. Within the runtime.
    pub(crate) fn new(core: Arc<Core>, origin: Origin, inbox: Arc<Inbox>) -> Self {
        let lane = core.sink.lane();
        let unsettled = Unsettled {
            origin,
            events: Vec::new(),
            questions: Questions::new(Arc::clone(&core.store), Arc::clone(&inbox)),
            fan_out: FanOut::new(&core, origin.link, &inbox),
            gathered: Vec::new(),
            batches: VecDeque::new(),
            first_batch: 0,
            spare: Vec::new(),
            window: Window::default(),
            receipts: Receipts::default(),
            owed: Owed::default(),
            count: 0,
            bytes: 0,
            will_bytes: 0,
            dropped: 0,
            core,
            inbox,
        };
        Self { lane: Some(lane), waiting: Waiting::default(), unsettled }
    }

    /// Whether the shard is read from. One that keeps to its window is, whatever the sink does: it passes it by a frame, by wills of [`WILL_BYTES_MAX`], and by what
    /// it moves here from a link that it lost, and what it says besides is to be heard. From twice the window on, not counting those wills, nothing is read until
    /// something is settled.
    pub(crate) fn has_room(&self) -> bool {
        let window = u64::from(self.unsettled.core.config.window_bytes);
        let wills = (self.unsettled.will_bytes + self.waiting.will_bytes()).min(WILL_BYTES_MAX as u64);
        self.unsettled.bytes + self.waiting.bytes() - wills < 2 * window
    }

    /// Whether everything that arrived is settled.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled.count == 0 && self.waiting.is_empty()
    }

    /// An uplink arrived in a record of `bytes`, or it `waited` and is the first that does.
    pub(crate) fn handle(&mut self, uplink: &Uplink<'_>, bytes: usize, now_ms: u64, waited: bool) {
        match &mut self.lane {
            Some(lane) if waited || self.waiting.is_empty() => {
                self.unsettled.handle(lane.as_mut(), uplink, bytes, now_ms);
            }
            _ => self.waiting.push_frame(uplink, now_ms),
        }
    }

    /// A handover must not overtake frames of its client: once it is told, the client speaks over another link (P3). Keeps it behind them, if any wait.
    pub(crate) fn keep_behind_frames(&mut self, handover: &Handover<'_>) -> bool {
        let waits = self.waiting.has_frames_of(handover.client);
        if waits {
            self.waiting.push_handover(handover);
        }
        waits
    }

    /// Sends off what was gathered in this turn, and sees to those that owe the sink nothing. False if nothing is to be sent, or the lane sends already.
    pub(crate) fn begin_sending(&mut self, sending: &mut Sending) -> bool {
        let Some(lane) = self.lane.take() else { return false };
        match self.unsettled.begin_batch() {
            Some(settled) => sending.begin(lane, settled),
            None => self.lane = Some(lane),
        }
        self.lane.is_none()
    }

    /// The sink has taken a batch, or it is closed.
    pub(crate) fn handle_sent(&mut self, (lane, sent): Sent) -> Result<(), SinkClosed> {
        sent?;
        self.lane = Some(lane);
        Ok(())
    }

    /// Records that waited and whose turn it is; none while the lane sends.
    pub(crate) fn take_waiting(&mut self) -> Option<Vec<u8>> {
        self.lane.as_ref().and_then(|_| self.waiting.take())
    }

    /// Lets go of what waits: its shard has another link here, and goes on over that.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Lets go of what waits and is acknowledged at its end: the shard, or the devices if it is gone too, say it again to whichever bridge they turn to. Frames
    /// with QoS 0 nobody says again.
    pub(crate) fn forget_what_is_said_again(&mut self) {
        self.waiting.forget_what_is_said_again();
    }

    /// Takes in what has become of frames, and tells the shard.
    pub(crate) fn hear(&mut self, peer: &Peer) {
        self.unsettled.hear(peer);
    }

    /// Tells the shard what was settled since the last time.
    pub(crate) fn tell(&mut self, peer: &Peer) {
        self.unsettled.tell(peer);
    }
}

impl Unsettled {
    fn handle(&mut self, lane: &mut dyn Lane, uplink: &Uplink<'_>, bytes: usize, now_ms: u64) {
        let mut message = uplink.message;
        let mut arrival = Arrival {
            sequence: uplink.sequence,
            bytes: bytes as u32,
            is_will: is_will(&message),
            wants_receipt: uplink.wants_receipt,
            dedupe: None,
        };
        self.count += 1;
        self.bytes += u64::from(arrival.bytes);
        self.will_bytes += arrival.will_bytes();
        if message.qos > QoS::AtMostOnce
            && let Some(packet_id) = uplink.packet_id
        {
            let frame = Frame {
                client: message.publisher,
                packet_id,
                epoch: uplink.epoch,
                again: uplink.dup || uplink.resent,
                topic: message.topic,
                payload: message.payload,
                remembered: self.origin.receive_maximum,
            };
            let waiter = || Waiter { inbox: Arc::clone(&self.inbox), arrival };
            let seen = self.core.dedupe().arrived(frame, waiter);
            match seen {
                Seen::New(ticket) => arrival.dedupe = Some(ticket),
                Seen::Settled(fate) => {
                    metrics::counter!(names::DEDUPE_HITS, "state" => "settled").increment(1);
                    self.settled(arrival, fate, true);
                    return;
                }
                Seen::Joined => {
                    metrics::counter!(names::DEDUPE_HITS, "state" => "pending").increment(1);
                    return;
                }
                Seen::Stale => {
                    metrics::counter!(names::DEDUPE_HITS, "state" => "stale").increment(1);
                    self.settled(arrival, Fate::refused(ReasonCode::SessionTakenOver as u8), false);
                    return;
                }
            }
        }
        if !is_will(&message) {
            message.id = self.core.next_message_id();
        }
        if message.published_at_ms == 0 {
            message.published_at_ms = now_ms;
        }
        let to_sink = self.core.topic_map.stores(message.topic);
        let owes = self.core.owes(message.topic, message.qos);
        let owed = self.owe(arrival, &message, owes, to_sink);
        if to_sink {
            let record = LogRecord {
                offset: 0,
                node: self.origin.node,
                epoch: uplink.epoch,
                packet_id: uplink.packet_id,
                dup: uplink.dup,
                resent: uplink.resent,
                event_time_ms: uplink.event_time_ms,
                message,
            };
            lane.push(&record, uplink.wants_receipt);
            self.gathered.push(InBatch { arrival, owed });
        } else if owed.is_none() {
            self.finish(arrival, Fate::default());
        }
    }

    /// Sees to what a frame owes beside the sink; none if that is nothing.
    fn owe(
        &mut self,
        arrival: Arrival,
        message: &Message<'_>,
        owes: Owes,
        to_sink: bool,
    ) -> Option<OwedTicket> {
        let stored = message.qos > QoS::AtMostOnce;
        let streams = !owes.streams.is_empty() || owes.device.is_some();
        if !owes.live && !streams && !message.retain {
            return None;
        }
        let shared = SharedMessage::new(message);
        if message.retain && !stored {
            // Nobody was promised that it is kept [MQTT-3.3.1-7].
            self.core.store.submit(Request::Retain { message: shared.clone() }, Box::new(drop));
        }
        let flag = |owed: bool, part: u8| if owed { part } else { 0 };
        let parts = flag(to_sink, part::SINK)
            | flag(streams, part::STREAMS)
            | flag(message.retain && stored, part::RETAIN)
            | flag(owes.live, part::FANOUT)
            | flag(owes.group, part::GROUP);
        if parts & !part::SINK == 0 {
            return None;
        }
        if owes.live {
            self.core.pace.note_delivery();
        }
        let ticket = self.owed.insert(arrival, shared.clone(), parts, stored);
        if let Some(client) = owes.device {
            let question = Question::Device { client, streams: owes.streams };
            self.questions.ask(ticket, question, shared.clone());
        } else if streams {
            self.questions.ask(ticket, Question::Streams(owes.streams), shared.clone());
        }
        if parts & part::RETAIN != 0 {
            self.questions.ask(ticket, Question::Retain, shared.clone());
        }
        if !stored && owes.live {
            self.fan_out(ticket, shared, Positions::new());
        }
        Some(ticket)
    }

    /// What was gathered becomes a batch; who is to be told of it, unless it is empty.
    fn begin_batch(&mut self) -> Option<OnSettled> {
        self.advance();
        if self.gathered.is_empty() {
            return None;
        }
        let batch = self.first_batch + self.batches.len() as u64;
        let frames = std::mem::replace(&mut self.gathered, self.spare.pop().unwrap_or_default());
        self.batches.push_back(SentBatch { left: frames.len(), frames });
        let inbox = Arc::clone(&self.inbox);
        Some(Box::new(move |frames, verdict| inbox.push(Event::Sink { batch, frames, verdict })))
    }

    fn hear(&mut self, peer: &Peer) {
        let mut events = std::mem::take(&mut self.events);
        self.inbox.take(&mut events);
        self.handle_events(&mut events);
        self.events = events;
        self.tell(peer);
    }

    /// Takes in what has become of frames.
    fn handle_events(&mut self, events: &mut Vec<Event>) {
        let core = Arc::clone(&self.core);
        // Held over a run of the sink's words: it may speak of each frame by itself.
        let mut dedupe = None;
        for event in events.drain(..) {
            if !matches!(event, Event::Sink { .. }) {
                dedupe = None;
            }
            match event {
                Event::Sink { batch, frames, verdict } => {
                    self.handle_sink(dedupe.get_or_insert_with(|| core.dedupe()), batch, frames, verdict);
                }
                Event::Store { ticket, question, answer } => self.handle_store(ticket, question, answer),
                Event::Awaited { ticket, question, positions } => {
                    self.owed.stands_at(ticket, positions);
                    let lost = "it has lost its data, and its sessions are not back yet".to_owned();
                    self.handle_store(ticket, question, Err(StoreError::Unavailable(lost)));
                }
                Event::FannedOut { ticket, done } => {
                    self.fan_out.handle_sent();
                    self.owed.done(ticket, done, Fate::default());
                }
                Event::Groups(ticket, reason_code) => {
                    let fate = if reason_code == 0 { Fate::default() } else { Fate::refused(reason_code) };
                    self.owed.done(ticket, part::GROUP, fate);
                }
                Event::Joined(arrival, fate) => self.settled(arrival, fate, true),
            }
        }
        drop(dedupe);
        self.advance();
    }

    /// Fans out what may be heard now, and settles what owes nothing any more.
    fn advance(&mut self) {
        while let Some((ticket, message, positions)) = self.owed.poll_release() {
            self.fan_out(ticket, message, positions);
        }
        while let Some((arrival, fate)) = self.owed.poll_settled() {
            self.finish(arrival, fate);
        }
    }

    fn tell(&mut self, peer: &Peer) {
        if self.window.is_empty() && self.receipts.is_empty() {
            return;
        }
        let mut stored = 0;
        let mut refused = 0;
        peer.send_at_once(|out| {
            self.window.take(|run: Settled| {
                let count = run.last - run.first + 1;
                if run.reason_code == 0 {
                    stored += count;
                } else {
                    refused += count;
                }
                ToGateway::Settled(run).encode(out);
            });
            stored += self.receipts.take(out);
        });
        let dropped = self.dropped.min(stored);
        self.dropped -= dropped;
        self.core.counters.dropped.increment(dropped);
        stored -= dropped;
        self.core.counters.stored.increment(stored);
        self.core.counters.refused.increment(refused);
    }

    fn handle_sink(
        &mut self,
        dedupe: &mut Dedupe<Waiter>,
        batch: u64,
        range: std::ops::Range<u32>,
        verdict: Verdict,
    ) {
        let Some(at) = batch.checked_sub(self.first_batch).map(|at| at as usize) else { return };
        let Some(sent) = self.batches.get_mut(at) else { return };
        let frames = std::mem::take(&mut sent.frames);
        let spoken_of = frames.get(range.start as usize..range.end as usize).unwrap_or_default();
        sent.left -= spoken_of.len().min(sent.left);
        if verdict == Verdict::Dropped {
            self.dropped += spoken_of.len() as u64;
        }
        let fate = Fate::from(verdict);
        for frame in spoken_of {
            match frame.owed {
                None => self.finish_with(dedupe, frame.arrival, fate.clone()),
                Some(ticket) => self.owed.done(ticket, part::SINK, fate.clone()),
            }
        }
        self.batches[at].frames = frames;
        while let Some(done) = self.batches.pop_front_if(|sent| sent.left == 0) {
            self.first_batch += 1;
            let mut frames = done.frames;
            frames.clear();
            self.spare.push(frames);
        }
    }

    fn handle_store(&mut self, ticket: OwedTicket, question: Question, answer: Result<Reply, StoreError>) {
        let part = question.part();
        let Some(message) = self.owed.message(ticket).cloned() else { return };
        match (question, answer) {
            (question, Err(error)) if is_temporary(&error) => {
                return self.questions.handle_refused(ticket, question, message, &error);
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a frame is refused");
                let fate = Fate::refused(ReasonCode::ImplementationSpecificError as u8);
                self.owed.done(ticket, part, fate);
            }
            (Question::Device { client, streams }, Ok(Reply::Session(session))) => {
                let mut all = untold_streams(session.as_ref(), message.view().topic, &streams);
                all.extend(streams.iter().cloned());
                if !all.is_empty() {
                    let device = Question::Device { client, streams };
                    return self.questions.ask_on(ticket, device, Question::Streams(all), message);
                }
                self.owed.done(ticket, part, Fate::default());
            }
            (_, Ok(Reply::Appended { at: positions, .. })) => {
                self.owed.stands_at(ticket, positions);
                self.owed.done(ticket, part, Fate::default());
            }
            (_, Ok(_)) => self.owed.done(ticket, part, Fate::default()),
        }
        self.questions.handle_answered(ticket, part);
    }

    fn fan_out(&mut self, ticket: OwedTicket, message: SharedMessage, positions: Positions) {
        let done = self.fan_out.send(ticket, message, positions);
        if done != 0 {
            self.owed.done(ticket, done, Fate::default());
        }
    }

    fn finish(&mut self, arrival: Arrival, fate: Fate) {
        let core = Arc::clone(&self.core);
        self.finish_with(&mut core.dedupe(), arrival, fate);
    }

    /// Settles an uplink, and those that are the same frame sent again.
    fn finish_with(&mut self, dedupe: &mut Dedupe<Waiter>, arrival: Arrival, fate: Fate) {
        if let Some(ticket) = arrival.dedupe {
            for waiter in dedupe.settle(ticket, &fate) {
                waiter.inbox.push(Event::Joined(waiter.arrival, fate.clone()));
            }
        }
        self.settled(arrival, fate, false);
    }

    fn settled(&mut self, arrival: Arrival, fate: Fate, duplicate: bool) {
        match fate.receipt {
            Some(receipt) if arrival.wants_receipt && fate.reason_code == 0 => {
                self.receipts.push(arrival.sequence, duplicate, receipt);
            }
            _ => self.window.settle(arrival.sequence, fate.reason_code),
        }
        self.count -= 1;
        self.bytes -= u64::from(arrival.bytes);
        self.will_bytes -= arrival.will_bytes();
    }
}

impl Arrival {
    fn will_bytes(&self) -> u64 {
        if self.is_will { self.bytes.into() } else { 0 }
    }
}

/// A will brings its id, so that its copies are known; whatever else comes has none yet.
fn is_will(message: &Message<'_>) -> bool {
    message.id != 0
}
