//! What a ledger adds up to: of its devices, their frames, and the pushes to them.

use serde::Serialize;

use crate::ledger::{Ledger, PushOutcome, PushRecord};

/// Connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// In the fleet.
    pub devices: u64,
    /// Admitted at least once.
    pub connected: u64,
    /// Connected when the fleet said goodbye.
    pub held: u64,
    /// Granted their subscription at least once.
    pub subscribed: u64,
    /// Admissions after the first.
    pub reconnects: u64,
    /// ... that found the session of before.
    pub resumed: u64,
    /// ... that did not, although the device wanted it kept.
    pub begun_anew: u64,
    /// Attempts that failed.
    pub connects_failed: u64,
    /// Answers that their protocol does not allow.
    pub protocol_errors: u64,
}

/// Frames. `sent = acked + refused + in_doubt`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Frames {
    /// Sent at least once.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Refused with a reason code.
    pub refused: u64,
    /// Sent, never answered: may be found or not. At `QoS` 0 all of them.
    pub in_doubt: u64,
    /// Due and not sent before the end.
    pub unsent: u64,
    /// Sent again.
    pub resent: u64,
    /// Different frames in the log.
    pub found: u64,
    /// Acknowledged and not in the log.
    pub lost: u64,
    /// In the log more than once.
    pub duplicated: u64,
    /// ... of which the record says that it was sent before, or the session was gone.
    pub duplicated_recognisable: u64,
    /// ... of which the record says nothing, but an earlier copy of it does.
    pub originals_behind: u64,
    /// In the log for the first time behind a later one.
    pub reordered: u64,
    /// In another partition than the first frame of their device.
    pub scattered: u64,
    /// In the log and never sent, or changed.
    pub unexplained: u64,
    /// Records of other runs and other clients.
    pub foreign: u64,
}

/// Pushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pushes {
    /// Requested.
    pub sent: u64,
    /// Due and not requested before the end.
    pub unsent: u64,
    /// Answered `delivered`.
    pub delivered: u64,
    /// Answered `queued`.
    pub queued: u64,
    /// Answered `expired`.
    pub expired: u64,
    /// Answered `refused`.
    pub refused: u64,
    /// Not answered.
    pub unknown: u64,
    /// Received by their device.
    pub received: u64,
    /// Promised and not received.
    pub lost: u64,
    /// Received more than once.
    pub duplicated: u64,
    /// Received against their outcome.
    pub contradicted: u64,
    /// Received and never sent.
    pub unexplained: u64,
}

pub(super) fn sum_devices(ledger: &Ledger) -> Devices {
    ledger.devices().iter().fold(Devices::default(), |sum, device| Devices {
        devices: sum.devices + 1,
        connected: sum.connected + u64::from(device.connects > 0),
        held: sum.held + u64::from(device.held),
        subscribed: sum.subscribed + u64::from(device.subscriptions > 0),
        reconnects: sum.reconnects + device.connects.saturating_sub(1),
        resumed: sum.resumed + device.resumed,
        begun_anew: sum.begun_anew + device.begun_anew,
        connects_failed: sum.connects_failed + device.connects_failed,
        protocol_errors: sum.protocol_errors + device.protocol_errors,
    })
}

pub(super) fn sum_frames(ledger: &Ledger) -> Frames {
    let start = Frames {
        lost: ledger.lost_count(),
        unexplained: ledger.never_sent() + ledger.corrupted(),
        foreign: ledger.foreign(),
        ..Frames::default()
    };
    ledger.devices().iter().map(|device| &device.frames).fold(start, |sum, frames| {
        let (duplicated, recognisable) = frames.duplicated_count();
        let answered = frames.acked_count() + frames.refused_count();
        Frames {
            sent: sum.sent + frames.sent_count(),
            acked: sum.acked + frames.acked_count(),
            refused: sum.refused + frames.refused_count(),
            in_doubt: sum.in_doubt + frames.sent_count().saturating_sub(answered),
            unsent: sum.unsent + frames.unsent_count(),
            resent: sum.resent + frames.resent_count(),
            found: sum.found + frames.found_count(),
            duplicated: sum.duplicated + duplicated,
            duplicated_recognisable: sum.duplicated_recognisable + recognisable,
            originals_behind: sum.originals_behind + frames.originals_behind_count(),
            reordered: sum.reordered + frames.reordered_count(),
            scattered: sum.scattered + frames.scattered_count(),
            ..sum
        }
    })
}

pub(super) fn sum_pushes(ledger: &Ledger) -> Pushes {
    let answered = |pushes: &PushRecord| {
        use PushOutcome::{Delivered, Expired, Queued, Refused};
        [Delivered, Queued, Expired, Refused].map(|outcome| pushes.outcome_count(outcome)).iter().sum::<u64>()
    };
    ledger.devices().iter().map(|device| &device.pushes).fold(Pushes::default(), |sum, pushes| Pushes {
        sent: sum.sent + pushes.sent_count(),
        unsent: sum.unsent + pushes.unsent_count(),
        delivered: sum.delivered + pushes.outcome_count(PushOutcome::Delivered),
        queued: sum.queued + pushes.outcome_count(PushOutcome::Queued),
        expired: sum.expired + pushes.outcome_count(PushOutcome::Expired),
        refused: sum.refused + pushes.outcome_count(PushOutcome::Refused),
        unknown: sum.unknown + pushes.sent_count().saturating_sub(answered(pushes)),
        received: sum.received + pushes.received_count(),
        lost: sum.lost + pushes.lost_count(),
        duplicated: sum.duplicated + pushes.duplicated_count(),
        contradicted: sum.contradicted + pushes.contradicted_count(),
        unexplained: sum.unexplained + pushes.unexplained_count(),
    })
}
