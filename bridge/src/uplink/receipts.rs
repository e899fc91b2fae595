//! What a publisher hears of a frame, and the receipts that one link is told of.
//!
//! Pure. A frame that did not ask for a receipt costs nothing here.

use holdfast_wire::link::{SettledAt, ToGateway};
use holdfast_wire::mqtt::ReasonCode;

use crate::sink::{Receipt, Verdict};

/// What becomes of a frame, as its publisher hears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// 0: everything that owes it has it; otherwise the reason why it is refused for good.
    pub(crate) reason_code: u8,
    /// Where the sink keeps it, if somebody asked and the sink could tell.
    pub(crate) receipt: Option<Receipt>,
}

impl Fate {
    pub(crate) fn refused(reason_code: u8) -> Self {
        Self { reason_code, receipt: None }
    }
}

impl From<Verdict> for Fate {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            // Whose frame was dropped hears nothing of it: it was sent with QoS 0.
            Verdict::Stored | Verdict::Dropped => Self::default(),
            Verdict::StoredAt(receipt) => Self { reason_code: 0, receipt: Some(receipt) },
            Verdict::Refused(reason_code) => Self::refused(reason_code),
            // A sink that may withdraw is wrapped in one that keeps such frames; without it the publisher hears that it went wrong.
            Verdict::Withdrawn => Self::refused(ReasonCode::ImplementationSpecificError as u8),
        }
    }
}

/// Receipts that the shard was not told of yet: each of an unsettled uplink, so the link's window bounds them.
#[derive(Debug, Default)]
pub(super) struct Receipts(Vec<Owing>);

#[derive(Debug)]
struct Owing {
    sequence: u64,
    duplicate: bool,
    receipt: Receipt,
}

impl Receipts {
    pub(super) fn push(&mut self, sequence: u64, duplicate: bool, receipt: Receipt) {
        self.0.push(Owing { sequence, duplicate, receipt });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes them all as records of the link; gives their number.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) -> u64 {
        let told = self.0.len() as u64;
        for Owing { sequence, duplicate, receipt } in self.0.drain(..) {
            let Receipt { topic, partition, offset } = &receipt;
            let (partition, offset) = (*partition, *offset);
            ToGateway::SettledAt(SettledAt { sequence, duplicate, topic, partition, offset }).encode(out);
        }
        told
    }
}
