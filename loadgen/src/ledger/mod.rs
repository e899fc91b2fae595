//! What is known of every frame and every push: the devices' side, and what was found.
//!
//! Devices write down what they sent and what was acknowledged; the notifier writes down each push and its outcome;
//! afterwards the contents of the log are read past [`Ledger::observe`]. Nothing here trusts a counter of the
//! gateway. Pure: no socket, no clock. Memory is one [`DeviceRecord`] per device, whatever the length of the run.
//!
//! Start with [`Ledger::observe`]; [`crate::verdict`] draws the conclusions.

mod frames;
mod pushes;

pub use frames::FrameRecord;
pub use pushes::{PushOutcome, PushRecord};

use crate::payload::{Direction, PayloadError, Stamp};

/// Faults that are kept with their whereabouts; beyond that they are only counted.
pub const FINDINGS_MAX: usize = 50;

/// What one device knows and what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceRecord {
    /// Its frames.
    pub frames: FrameRecord,
    /// The pushes to it.
    pub pushes: PushRecord,
    /// Times it was admitted (CONNACK, or the WebSocket of a JSON device).
    pub connects: u64,
    /// Attempts that were refused or cut before that.
    pub connects_failed: u64,
    /// Times it came back after a loss and found its session.
    pub resumed: u64,
    /// Times it came back after a loss, and the session that it wanted kept was gone.
    pub begun_anew: u64,
    /// Times its subscription was granted.
    pub subscriptions: u64,
    /// Whether it had a connection when the fleet said goodbye.
    pub held: bool,
    /// Whether a frame was acknowledged after it last came back; false if it never had to.
    pub acked_again: bool,
    /// Bytes from the gateway that its protocol does not allow, or an answer to something never asked.
    pub protocol_errors: u64,
}

impl DeviceRecord {
    /// It was admitted again after a loss.
    pub fn came_back(&mut self, session_present: bool, keeps_session: bool) {
        self.resumed += u64::from(session_present);
        self.begun_anew += u64::from(keeps_session && !session_present);
        self.acked_again = false;
    }

    /// A frame was acknowledged; true for the first one after it came back.
    pub fn acked_after_return(&mut self) -> bool {
        let has_returned = self.resumed + self.begun_anew > 0;
        has_returned && !std::mem::replace(&mut self.acked_again, has_returned)
    }
}

/// One record of the log, as its reader found it.
#[derive(Debug, Clone, Copy)]
pub struct ObservedRecord<'a> {
    /// The key, which is the client id.
    pub client_id: &'a str,
    /// The value, byte for byte.
    pub payload: &'a [u8],
    /// Whether the record says of itself that the device had sent it before (DUP, or resent by its gateway).
    pub resent: bool,
    /// Kafka partition; 0 for the local log.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
}

/// A kind of fault that is found in a record of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Acknowledged and not found.
    Lost,
    /// Found again.
    Duplicated,
    /// Found for the first time after a later one.
    Reordered,
    /// Found in another partition than the first frame of its device.
    Scattered,
    /// Changed on its way.
    Corrupted,
    /// Of this run, but never sent by this client.
    NeverSent,
    /// A push that was answered `delivered` or `queued` and never came.
    PushLost,
    /// A push that was answered `expired` or `refused` and came all the same.
    PushContradicted,
}

/// One fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// Whose frame or push.
    pub client_id: String,
    /// Which one, if its stamp could be read.
    pub sequence: Option<u64>,
    /// Where it was found, `(partition, offset)`; a lost one was not.
    pub at: Option<(u32, u64)>,
}

/// Parts that are not of one fleet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Their frames carry different runs, or their devices other names.
    #[error("run {0} and run {1} are not parts of one fleet")]
    Foreign(u64, u64),
    /// Devices are missing between two parts, or stand in both.
    #[error("one part ends before device {end} and the next begins with {begin}")]
    Apart {
        /// Index behind the last device of the one.
        end: u32,
        /// Index of the first device of the other.
        begin: u32,
    },
}

/// The ledger of one run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ledger {
    run: u64,
    client_id_prefix: String,
    /// Index of the first device, which has the first place.
    first_device: u32,
    devices: Vec<DeviceRecord>,
    corrupted: u64,
    never_sent: u64,
    foreign: u64,
    findings: Vec<Finding>,
}

impl Ledger {
    /// A ledger over what the devices wrote down; their index is their place.
    pub fn new(run: u64, client_id_prefix: impl Into<String>, devices: Vec<DeviceRecord>) -> Self {
        Self {
            run,
            client_id_prefix: client_id_prefix.into(),
            first_device: 0,
            devices,
            corrupted: 0,
            never_sent: 0,
            foreign: 0,
            findings: Vec::new(),
        }
    }

    /// The same for devices whose indices begin here: a part of a fleet.
    #[must_use]
    pub fn with_first_device(self, first_device: u32) -> Self {
        Self { first_device, ..self }
    }

    /// Takes in the part of the same fleet that begins where this one ends.
    pub fn join(&mut self, next: Self) -> Result<(), JoinError> {
        if (self.run, &self.client_id_prefix) != (next.run, &next.client_id_prefix) {
            return Err(JoinError::Foreign(self.run, next.run));
        }
        let end = self.first_device + self.devices.len() as u32;
        if end != next.first_device {
            return Err(JoinError::Apart { end, begin: next.first_device });
        }
        self.devices.extend(next.devices);
        self.corrupted += next.corrupted;
        self.never_sent += next.never_sent;
        self.foreign += next.foreign;
        self.findings.extend(next.findings);
        self.findings.truncate(FINDINGS_MAX);
        Ok(())
    }

    /// Takes one record of the log. Records of one partition come in the order of their offsets; each record comes
    /// once.
    pub fn observe(&mut self, record: ObservedRecord<'_>) {
        let device = self.device_of(record.client_id);
        let stamp = match Stamp::decode(record.payload) {
            Ok(stamp) if stamp.run != self.run => {
                self.foreign += 1;
                return;
            }
            Ok(stamp) => stamp,
            // Anyone may use the gateway beside us, but not under the names of our devices.
            Err(PayloadError::Foreign) if device.is_none() => {
                self.foreign += 1;
                return;
            }
            Err(_) => {
                self.corrupted += 1;
                self.note(FindingKind::Corrupted, &record, None);
                return;
            }
        };
        let device = device.filter(|index| self.first_device + index == stamp.device);
        let sender = device.filter(|_| stamp.direction == Direction::Up);
        let Some(frames) = sender.map(|index| &mut self.devices[index as usize].frames) else {
            self.never_sent += 1;
            self.note(FindingKind::NeverSent, &record, Some(stamp.sequence));
            return;
        };
        match frames.found(stamp.sequence, record.resent, record.partition) {
            frames::Found::First | frames::Found::Again { explained: true } => {}
            frames::Found::Scattered => self.note(FindingKind::Scattered, &record, Some(stamp.sequence)),
            frames::Found::Reordered => self.note(FindingKind::Reordered, &record, Some(stamp.sequence)),
            frames::Found::Again { explained: false } => {
                self.note(FindingKind::Duplicated, &record, Some(stamp.sequence));
            }
            frames::Found::NeverSent => {
                self.never_sent += 1;
                self.note(FindingKind::NeverSent, &record, Some(stamp.sequence));
            }
        }
    }

    /// Frames that were acknowledged and not found so far: lost, once all of the log was observed.
    pub fn lost_count(&self) -> u64 {
        let ranges = self.devices.iter().flat_map(|device| device.frames.lost());
        ranges.map(|range| range.end - range.start).sum()
    }

    /// Which run this is; the same number is in each of its frames.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Index of the first device.
    pub fn first_device(&self) -> u32 {
        self.first_device
    }

    /// The devices, from the first on.
    pub fn devices(&self) -> &[DeviceRecord] {
        &self.devices
    }

    /// Records whose checksum does not fit, or that are no payload of ours under one of our client ids.
    pub fn corrupted(&self) -> u64 {
        self.corrupted
    }

    /// Records of this run that their client never sent.
    pub fn never_sent(&self) -> u64 {
        self.never_sent
    }

    /// Records of other runs and other clients: none of our business.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// The first [`FINDINGS_MAX`] faults: those met while observing, then losses.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        for (index, device) in self.devices.iter().enumerate() {
            let lost = device.frames.lost().into_iter().flatten().map(|at| (FindingKind::Lost, at));
            let pushes = device.pushes.findings();
            for (kind, sequence) in lost.chain(pushes) {
                if findings.len() >= FINDINGS_MAX {
                    return findings;
                }
                let client_id = client_id(&self.client_id_prefix, self.first_device + index as u32);
                findings.push(Finding { kind, client_id, sequence: Some(sequence), at: None });
            }
        }
        findings
    }

    /// Its place, if it is one of ours.
    fn device_of(&self, client_id: &str) -> Option<u32> {
        let digits = client_id.strip_prefix(&self.client_id_prefix)?;
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        let device: u32 = digits.parse().ok().filter(|_| canonical)?;
        let index = device.checked_sub(self.first_device)?;
        ((index as usize) < self.devices.len()).then_some(index)
    }

    fn note(&mut self, kind: FindingKind, record: &ObservedRecord<'_>, sequence: Option<u64>) {
        if self.findings.len() < FINDINGS_MAX {
            let client_id = record.client_id.to_owned();
            self.findings.push(Finding {
                kind,
                client_id,
                sequence,
                at: Some((record.partition, record.offset)),
            });
        }
    }
}

/// The client id of a device.
pub fn client_id(prefix: &str, device: u32) -> String {
    format!("{prefix}{device}")
}
