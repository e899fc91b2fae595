//! What a fleet has to show: its ledger and its latencies. As a file too, so that the parts of a fleet that ran in several processes are judged
//! together, and a run can be judged later.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::ledger::{JoinError, Ledger, ObservedRecord};
use crate::verdict::{Latencies, Planned, Verdict};

/// Of the files; another one is refused.
const VERSION: u32 = 2;

/// What a fleet has to show.
#[derive(Debug, Clone)]
pub struct FleetResult {
    /// The devices' side; give it every record of the log with [`FleetResult::observe`].
    pub ledger: Ledger,
    /// In us.
    pub latencies: Latencies,
    planned: Planned,
}

/// A ledger that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFileError {
    /// The file itself.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is no ledger.
    #[error("not a ledger: {0}")]
    Format(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("a ledger of version {0}; this program knows {VERSION}")]
    Version(u32),
    /// A latency beyond any that is measured.
    #[error("not a ledger: a latency of {0} us")]
    Latency(u64),
    /// Parts of different fleets.
    #[error("{0}")]
    Parts(#[from] JoinError),
}

#[derive(Serialize, Deserialize)]
struct Written<L> {
    holdfast_ledger: u32,
    planned: Planned,
    ack_us: Vec<(u64, u64)>,
    push_us: Vec<(u64, u64)>,
    back_us: Vec<(u64, u64)>,
    own_lag_us: Vec<(u64, u64)>,
    ledger: L,
}

impl FleetResult {
    pub(crate) fn new(ledger: Ledger, latencies: Latencies, planned: Planned) -> Self {
        Self { ledger, latencies, planned }
    }

    /// One record of the log; see [`Ledger::observe`].
    pub fn observe(&mut self, record: ObservedRecord<'_>) {
        self.ledger.observe(record);
    }

    /// Judges. All of the log must have been observed.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.ledger, &self.latencies, self.planned)
    }

    /// Takes in the part of the same fleet whose devices follow.
    pub fn join(&mut self, next: Self) -> Result<(), JoinError> {
        self.ledger.join(next.ledger)?;
        self.latencies.add(&next.latencies);
        self.planned.add(next.planned);
        Ok(())
    }

    /// Writes it to a file, for [`FleetResult::read`].
    pub fn write(&self, path: &Path) -> Result<(), LedgerFileError> {
        let Latencies { ack, push, back, own_lag } = &self.latencies;
        let written = Written {
            holdfast_ledger: VERSION,
            planned: self.planned,
            ack_us: counts(ack),
            push_us: counts(push),
            back_us: counts(back),
            own_lag_us: counts(own_lag),
            ledger: &self.ledger,
        };
        let mut file = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut file, &written)?;
        file.flush()?;
        Ok(())
    }

    /// Reads what [`FleetResult::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, LedgerFileError> {
        let mut latencies = Latencies::default();
        let read: Written<Ledger> = serde_json::from_reader(BufReader::new(File::open(path)?))?;
        if read.holdfast_ledger != VERSION {
            return Err(LedgerFileError::Version(read.holdfast_ledger));
        }
        let Latencies { ack, push, back, own_lag } = &mut latencies;
        let all =
            [(ack, read.ack_us), (push, read.push_us), (back, read.back_us), (own_lag, read.own_lag_us)];
        for (histogram, counts) in all {
            for (us, count) in counts {
                histogram.record_n(us, count).map_err(|_| LedgerFileError::Latency(us))?;
            }
        }
        Ok(Self::new(read.ledger, latencies, read.planned))
    }
}

/// Each value that occurs, and how often.
fn counts(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    let recorded = histogram.iter_recorded();
    recorded.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{DeviceRecord, PushOutcome};

    const PLANNED: Planned =
        Planned { frames: true, acks: true, pushes: true, subscriptions: true, storms: false };

    /// A fleet of one device, which sent `sent` frames and saw all but the last acknowledged.
    fn part(first_device: u32, sent: u64) -> FleetResult {
        let mut device = DeviceRecord { connects: 2, resumed: 1, ..DeviceRecord::default() };
        for sequence in 0..sent {
            device.frames.sent(sequence);
        }
        for sequence in 1..sent {
            device.frames.acked(sequence - 1);
        }
        device.pushes.answered(0, PushOutcome::Queued);
        let mut latencies = Latencies::default();
        latencies.back.saturating_record(u64::from(first_device) * 1_000 + 5);
        FleetResult::new(
            Ledger::new(9, "d-", vec![device]).with_first_device(first_device),
            latencies,
            PLANNED,
        )
    }

    #[test]
    fn parts_that_were_written_are_judged_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        part(3, 5).write(&file("a")).unwrap();
        part(4, 7).write(&file("b")).unwrap();
        let mut whole = FleetResult::read(&file("a")).unwrap();
        assert_eq!(whole.ledger, part(3, 5).ledger);
        whole.join(FleetResult::read(&file("b")).unwrap()).unwrap();
        let verdict = whole.verdict();
        assert_eq!((verdict.devices.devices, verdict.devices.resumed, verdict.frames.lost), (2, 2, 4 + 6));
        assert_eq!((verdict.pushes.lost, verdict.back_latency_us.count), (2, 2));
        assert!((4_005..4_010).contains(&verdict.back_latency_us.max), "{:?}", verdict.back_latency_us);
    }

    #[test]
    fn parts_of_different_fleets_are_refused() {
        let mut whole = part(0, 1);
        assert_eq!(whole.join(part(2, 1)), Err(JoinError::Apart { end: 1, begin: 2 }));
        let mut other = part(1, 1);
        other.ledger = Ledger::new(10, "d-", Vec::new()).with_first_device(1);
        assert_eq!(whole.join(other), Err(JoinError::Foreign(9, 10)));
    }

    #[test]
    fn a_ledger_that_was_cut_off_is_refused_wherever_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        part(0, 3).write(&path).unwrap();
        let text = std::fs::read(&path).unwrap();
        for length in 0..text.len() {
            std::fs::write(&path, &text[..length]).unwrap();
            let error = FleetResult::read(&path).unwrap_err();
            assert!(matches!(error, LedgerFileError::Format(_)), "{length}: {error}");
        }
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        for (text, line) in [("{", "not a ledger: EOF"), ("[]", "not a ledger: ")] {
            std::fs::write(&path, text).unwrap();
            let error = FleetResult::read(&path).unwrap_err().to_string();
            assert!(error.starts_with(line), "{error}");
        }
        part(0, 1).write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"holdfast_ledger\":2", "\"holdfast_ledger\":1")).unwrap();
        let error = FleetResult::read(&path).unwrap_err().to_string();
        assert_eq!(error, "a ledger of version 1; this program knows 2");
    }
}
