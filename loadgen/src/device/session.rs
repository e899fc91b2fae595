//! A device's side of its session: which frames are due, which are unanswered, what is sent again. Pure: time is an
//! argument, nothing is written anywhere.
//!
//! ```text
//!            due, window free           PUBACK / ack / PUBREC
//!   schedule ───────────────> in flight ─────────────────────> acked   (PUBREC: released until PUBCOMP)
//!                              │     ▲
//!              connection lost │     │ admitted: sent again in order, same packet id and DUP if the
//!                              └─────┘ session is there, as a new frame if it is gone
//! ```

use std::collections::VecDeque;

use holdfast_wire::mqtt::PacketId;

use crate::ledger::DeviceRecord;
use crate::payload::{Direction, Stamp};
use crate::schedule::Schedule;

/// What the device is to write next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// A frame; without a packet id at `QoS` 0.
    Frame { stamp: Stamp, packet_id: Option<PacketId>, dup: bool },
    /// PUBREL of a `QoS` 2 frame that was received and not completed before the connection was lost.
    Release(PacketId),
}

/// What a device's answer to a frame amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Acknowledged, this many ns after it was due.
    Acked { latency_ns: u64 },
    /// Refused with a reason.
    Refused,
    /// The second half of a `QoS` 2 exchange; nothing new for the ledger.
    Completed,
    /// Nothing was asked under this packet id.
    Unexpected,
}

/// Fixed facts of the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionOptions {
    pub(crate) run: u64,
    pub(crate) device: u32,
    pub(crate) qos: u8,
    pub(crate) inflight_max: u16,
    /// Unix time of the start of the run, ns.
    pub(crate) origin_unix_ns: u64,
}

/// The session of one device.
#[derive(Debug)]
pub(crate) struct Session {
    options: SessionOptions,
    schedule: Schedule,
    /// In the order of their first sending. At most `inflight_max`; when full, frames wait in the schedule.
    inflight: VecDeque<Inflight>,
    /// How many of `inflight`, from the front, are written on the present connection.
    on_wire: usize,
    /// The gateway's receive maximum on this connection.
    receive_maximum: u16,
    next_packet_id: PacketId,
    was_kept: bool,
    record: DeviceRecord,
}

#[derive(Debug, Clone, Copy)]
struct Inflight {
    packet_id: PacketId,
    stamp: Stamp,
    intended_ns: u64,
    released: bool,
    /// Written at least once, so that the next writing is a repetition.
    sent: bool,
}

impl Session {
    pub(crate) fn new(options: SessionOptions, schedule: Schedule) -> Self {
        Self {
            options,
            schedule,
            inflight: VecDeque::new(),
            on_wire: 0,
            receive_maximum: u16::MAX,
            next_packet_id: PacketId::MIN,
            was_kept: false,
            record: DeviceRecord::default(),
        }
    }

    /// A connection was admitted. Everything unanswered is sent again before anything new [MQTT-4.4.0-1].
    pub(crate) fn handle_admitted(&mut self, session_present: bool, receive_maximum: Option<u16>) {
        self.on_wire = 0;
        self.receive_maximum = receive_maximum.unwrap_or(u16::MAX);
        self.was_kept = session_present;
        if !session_present {
            // What the gateway had received in full is done; there is no state left to release.
            self.inflight.retain(|inflight| !inflight.released);
        }
        self.record.connects += 1;
    }

    /// What to write now, if anything. Call until `None`.
    pub(crate) fn poll_sending(&mut self, now_ns: u64) -> Option<Sending> {
        if let Some(inflight) = self.inflight.get(self.on_wire) {
            if self.on_wire >= usize::from(self.receive_maximum) {
                return None;
            }
            let inflight = *inflight;
            self.on_wire += 1;
            return Some(self.send_again(inflight));
        }
        if self.inflight.len() >= self.window() || self.next_due_ns().is_none_or(|due| due > now_ns) {
            return None;
        }
        let (sequence, intended_ns) = self.schedule.take()?;
        let stamp = Stamp {
            direction: Direction::Up,
            run: self.options.run,
            device: self.options.device,
            sequence,
            intended_ns: self.options.origin_unix_ns + intended_ns,
            sent_ns: self.options.origin_unix_ns + now_ns,
        };
        self.record.frames.sent(sequence);
        let packet_id = (self.options.qos > 0).then(|| self.take_packet_id());
        if let Some(packet_id) = packet_id {
            self.inflight.push_back(Inflight { packet_id, stamp, intended_ns, released: false, sent: true });
            self.on_wire += 1;
        }
        Some(Sending::Frame { stamp, packet_id, dup: false })
    }

    /// When [`poll_sending`](Self::poll_sending) will have something new, if no answer comes before; `None`: not
    /// before an answer, or never.
    pub(crate) fn next_sending_ns(&self) -> Option<u64> {
        if self.on_wire < self.inflight.len() {
            return (self.on_wire < usize::from(self.receive_maximum)).then_some(0);
        }
        if self.inflight.len() >= self.window() { None } else { self.next_due_ns() }
    }

    /// PUBACK, or the JSON ack or error of a frame.
    pub(crate) fn handle_ack(&mut self, packet_id: PacketId, refused: bool, now_ns: u64) -> Answer {
        let Some(inflight) = self.remove(packet_id, false) else { return Answer::Unexpected };
        if refused {
            self.record.frames.refused(inflight.stamp.sequence);
            return Answer::Refused;
        }
        self.record.frames.acked(inflight.stamp.sequence);
        Answer::Acked { latency_ns: now_ns.saturating_sub(inflight.intended_ns) }
    }

    /// PUBREC: the gateway owns the frame now, so this is its acknowledgement. The caller answers with PUBREL
    /// unless it was refused.
    pub(crate) fn handle_received(&mut self, packet_id: PacketId, refused: bool, now_ns: u64) -> Answer {
        if refused || self.options.qos != 2 {
            return self.handle_ack(packet_id, refused, now_ns);
        }
        let on_wire = self.on_wire;
        let Some(inflight) =
            self.inflight.iter_mut().take(on_wire).find(|inflight| inflight.packet_id == packet_id)
        else {
            return Answer::Unexpected;
        };
        inflight.released = true;
        let (sequence, intended_ns) = (inflight.stamp.sequence, inflight.intended_ns);
        if self.record.frames.acked(sequence) {
            Answer::Acked { latency_ns: now_ns.saturating_sub(intended_ns) }
        } else {
            Answer::Completed
        }
    }

    /// PUBCOMP.
    pub(crate) fn handle_completed(&mut self, packet_id: PacketId) -> Answer {
        self.remove(packet_id, true).map_or(Answer::Unexpected, |_| Answer::Completed)
    }

    /// A push arrived. `Some`: it is ours, and came for the first time.
    pub(crate) fn handle_push(&mut self, payload: &[u8]) -> Option<Stamp> {
        let stamp = match Stamp::decode(payload) {
            // A kept session may still hold pushes of an earlier run.
            Ok(stamp) if stamp.run != self.options.run => return None,
            Ok(stamp) if stamp.direction == Direction::Down && stamp.device == self.options.device => stamp,
            _ => {
                self.record.pushes.received_unexplained();
                return None;
            }
        };
        self.record.pushes.received(stamp.sequence).then_some(stamp)
    }

    /// Nothing more is due from `end_ns` on.
    pub(crate) fn end_at(&mut self, end_ns: u64) {
        self.schedule.end_at(end_ns);
    }

    /// Every frame was sent and answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.inflight.is_empty() && self.next_due_ns().is_none()
    }

    /// A packet id for something else than a frame, free at the moment.
    pub(crate) fn take_packet_id(&mut self) -> PacketId {
        loop {
            let packet_id = self.next_packet_id;
            self.next_packet_id = PacketId::new(packet_id.get().wrapping_add(1)).unwrap_or(PacketId::MIN);
            // At most `inflight_max` are taken, which leaves at least one.
            if self.inflight.iter().all(|inflight| inflight.packet_id != packet_id) {
                return packet_id;
            }
        }
    }

    pub(crate) fn record(&mut self) -> &mut DeviceRecord {
        &mut self.record
    }

    /// The device's page of the ledger, and nothing more is done.
    pub(crate) fn finish(mut self) -> DeviceRecord {
        let mut unsent = 0;
        while self.schedule.take().is_some() {
            unsent += 1;
        }
        self.record.frames.left_unsent(unsent);
        self.record
    }

    fn window(&self) -> usize {
        usize::from(self.options.inflight_max.min(self.receive_maximum).min(u16::MAX - 1))
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.schedule.next_due_ns()
    }

    fn send_again(&mut self, inflight: Inflight) -> Sending {
        if inflight.released {
            return Sending::Release(inflight.packet_id);
        }
        let dup = self.was_kept && inflight.sent;
        if dup {
            self.record.frames.resent();
        } else {
            self.record.frames.republished(inflight.stamp.sequence);
        }
        Sending::Frame { stamp: inflight.stamp, packet_id: Some(inflight.packet_id), dup }
    }

    /// Answers come in order but for the exceptional one, so the search ends at the front.
    fn remove(&mut self, packet_id: PacketId, released: bool) -> Option<Inflight> {
        let index = self
            .inflight
            .iter()
            .take(self.on_wire)
            .position(|inflight| inflight.packet_id == packet_id && inflight.released == released)?;
        self.on_wire -= 1;
        self.inflight.remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Form;
    use crate::schedule::RateCurve;

    const S: u64 = 1_000_000_000;

    fn session(qos: u8, inflight_max: u16) -> Session {
        let options = SessionOptions { run: 1, device: 4, qos, inflight_max, origin_unix_ns: 1_000 * S };
        let schedule = Schedule::new(RateCurve::new(10.0, &[]), 0.0, S);
        let mut session = Session::new(options, schedule);
        session.handle_admitted(false, None);
        session
    }

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    /// `(sequence, packet id, dup)` of all that is to be written.
    fn sendings(session: &mut Session, now_ns: u64) -> Vec<(u64, u16, bool)> {
        std::iter::from_fn(|| session.poll_sending(now_ns))
            .map(|sending| match sending {
                Sending::Frame { stamp, packet_id, dup } => {
                    (stamp.sequence, packet_id.map_or(0, PacketId::get), dup)
                }
                Sending::Release(packet_id) => (u64::MAX, packet_id.get(), false),
            })
            .collect()
    }

    #[test]
    fn frames_leave_when_they_are_due_and_no_earlier() {
        let mut session = session(1, 8);
        assert_eq!(sendings(&mut session, 150_000_000), [(0, 1, false), (1, 2, false)]);
        assert_eq!(session.next_sending_ns(), Some(200_000_000));
    }

    #[test]
    fn a_full_window_holds_frames_back_and_their_latency_counts_from_when_they_were_due() {
        let mut session = session(1, 1);
        assert_eq!(sendings(&mut session, S / 2), [(0, 1, false)]);
        assert_eq!(session.next_sending_ns(), None);
        assert_eq!(session.handle_ack(id(1), false, S / 2), Answer::Acked { latency_ns: S / 2 });
        assert_eq!(sendings(&mut session, S / 2), [(1, 2, false)]);
        // Due at 0.1 s, sent at 0.5 s, acknowledged at 0.6 s.
        assert_eq!(session.handle_ack(id(2), false, 6 * S / 10), Answer::Acked { latency_ns: S / 2 });
    }

    #[test]
    fn the_gateways_receive_maximum_narrows_the_window() {
        let mut session = session(1, 8);
        session.handle_admitted(false, Some(2));
        assert_eq!(sendings(&mut session, S).len(), 2);
    }

    #[test]
    fn after_a_loss_unanswered_frames_are_sent_again_with_dup_and_the_same_ids_and_bytes() {
        let mut session = session(1, 3);
        let first: Vec<Sending> = std::iter::from_fn(|| session.poll_sending(S)).collect();
        session.handle_ack(id(1), false, S);
        session.handle_admitted(true, None);
        let again: Vec<Sending> = std::iter::from_fn(|| session.poll_sending(2 * S)).collect();
        assert_eq!(sendings(&mut session, 2 * S), []);
        let bytes = |sending: &Sending| {
            let Sending::Frame { stamp, packet_id, dup } = sending else { panic!("{sending:?}") };
            let mut out = Vec::new();
            stamp.encode(Form::Binary, 100, &mut out);
            (out, *packet_id, *dup)
        };
        assert_eq!(again.len(), 3);
        for (before, after) in first[1..].iter().zip(&again) {
            assert_eq!(bytes(before).0, bytes(after).0);
            assert_eq!(bytes(before).1, bytes(after).1);
            assert!(!bytes(before).2 && bytes(after).2);
        }
        // What follows is new.
        assert!(!bytes(&again[2]).2);
    }

    #[test]
    fn if_the_session_is_gone_they_are_sent_as_new_frames() {
        let mut session = session(1, 2);
        sendings(&mut session, S);
        session.handle_admitted(false, None);
        assert_eq!(sendings(&mut session, S), [(0, 1, false), (1, 2, false)]);
        assert_eq!(session.finish().frames.resent_count(), 2);
    }

    #[test]
    fn an_answer_to_what_this_connection_was_not_asked_is_unexpected() {
        let mut session = session(1, 4);
        assert_eq!(session.handle_ack(id(1), false, 0), Answer::Unexpected);
        sendings(&mut session, 0);
        session.handle_admitted(true, None);
        assert_eq!(session.handle_ack(id(1), false, 0), Answer::Unexpected);
        sendings(&mut session, 0);
        assert!(matches!(session.handle_ack(id(1), false, 0), Answer::Acked { .. }));
        assert_eq!(session.handle_ack(id(1), false, 0), Answer::Unexpected);
    }

    #[test]
    fn qos_2_counts_as_acknowledged_at_pubrec_and_is_released_again_after_a_loss() {
        let mut session = session(2, 4);
        assert_eq!(sendings(&mut session, 0), [(0, 1, false)]);
        assert!(matches!(session.handle_received(id(1), false, 5), Answer::Acked { latency_ns: 5 }));
        assert_eq!(session.handle_received(id(1), false, 6), Answer::Completed);
        session.handle_admitted(true, None);
        assert_eq!(session.poll_sending(0), Some(Sending::Release(id(1))));
        assert_eq!(session.handle_completed(id(1)), Answer::Completed);
        assert_eq!(session.handle_completed(id(1)), Answer::Unexpected);
    }

    #[test]
    fn packet_ids_in_flight_are_not_given_out_again() {
        let mut session = session(1, 4);
        sendings(&mut session, 0);
        session.next_packet_id = id(u16::MAX);
        assert_eq!(session.take_packet_id().get(), u16::MAX);
        assert_eq!(session.take_packet_id().get(), 2);
    }

    #[test]
    fn qos_0_keeps_nothing() {
        let mut session = session(0, 1);
        assert_eq!(sendings(&mut session, 2 * S).len(), 10);
        assert!(session.is_settled());
    }

    #[test]
    fn a_push_for_another_device_is_unexplained_and_one_of_an_earlier_run_is_ignored() {
        let mut session = session(1, 1);
        let stamp =
            Stamp { direction: Direction::Down, run: 1, device: 4, sequence: 0, intended_ns: 0, sent_ns: 0 };
        let mut push = |stamp: Stamp| {
            let mut payload = Vec::new();
            stamp.encode(Form::Json, 0, &mut payload);
            session.handle_push(&payload)
        };
        assert!(push(stamp).is_some());
        assert!(push(Stamp { device: 5, ..stamp }).is_none());
        assert!(push(Stamp { run: 2, ..stamp }).is_none());
        assert!(push(Stamp { direction: Direction::Up, ..stamp }).is_none());
        assert!(session.handle_push(b"hello").is_none());
        let pushes = session.finish().pushes;
        assert_eq!((pushes.received_count(), pushes.unexplained_count()), (1, 1 + 3));
    }

    #[test]
    fn what_was_due_and_not_sent_is_counted_at_the_end() {
        let mut session = session(1, 2);
        sendings(&mut session, S);
        assert!(!session.is_settled());
        assert_eq!(session.finish().frames.unsent_count(), 8);
    }
}
