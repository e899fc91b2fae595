//! Ledgers made by hand, and what is concluded from them.

use super::*;
use crate::ledger::{DeviceRecord, FindingKind, ObservedRecord, PushOutcome};
use crate::payload::{Direction, Form, Stamp};

const RUN: u64 = 42;

/// Frames at `QoS` 1 to subscribed devices.
const PLANNED: Planned =
    Planned { frames: true, acks: true, subscriptions: true, pushes: false, storms: false };

fn frame(device: u32, sequence: u64) -> Vec<u8> {
    payload(RUN, Direction::Up, device, sequence)
}

fn payload(run: u64, direction: Direction, device: u32, sequence: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let stamp = Stamp { direction, run, device, sequence, intended_ns: 1, sent_ns: 2 };
    stamp.encode(if device.is_multiple_of(2) { Form::Binary } else { Form::Json }, 128, &mut out);
    out
}

/// A device that connected, subscribed, and stayed.
fn device() -> DeviceRecord {
    DeviceRecord { connects: 1, subscriptions: 1, held: true, ..DeviceRecord::default() }
}

/// Two devices; each sent four frames and saw all of them acknowledged.
fn ledger() -> Ledger {
    let mut device = device();
    for sequence in 0..4 {
        device.frames.sent(sequence);
        assert!(device.frames.acked(sequence));
    }
    Ledger::new(RUN, "dev-", vec![device.clone(), device])
}

fn observe(ledger: &mut Ledger, client_id: &str, payload: &[u8], resent: bool) {
    ledger.observe(ObservedRecord { client_id, payload, resent, partition: 0, offset: 7 });
}

fn observe_all(ledger: &mut Ledger, device: u32, sequences: &[u64]) {
    for sequence in sequences {
        observe(ledger, &format!("dev-{device}"), &frame(device, *sequence), false);
    }
}

fn judge(ledger: &Ledger) -> Verdict {
    Verdict::of(ledger, &Latencies::default(), PLANNED)
}

/// A run that is sound but for what `harm` does to its second device.
fn harmed(harm: impl FnOnce(&mut Ledger)) -> Verdict {
    let mut ledger = ledger();
    observe_all(&mut ledger, 0, &[0, 1, 2, 3]);
    harm(&mut ledger);
    judge(&ledger)
}

fn kinds(verdict: &Verdict) -> Vec<FindingKind> {
    verdict.findings.iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_sound_run_passes() {
    let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 2, 3]));
    assert!(verdict.passed, "{verdict}");
    assert_eq!(verdict.exit_status(), 0);
    let frames = verdict.frames;
    assert_eq!((frames.sent, frames.acked, frames.found, frames.in_doubt), (8, 8, 8, 0));
}

#[test]
fn an_acknowledged_frame_that_is_missing_is_lost() {
    let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 3]));
    assert_eq!(verdict.faults, ["1 acknowledged frames are lost"]);
    assert_eq!(verdict.findings[0].sequence, Some(2));
    assert_eq!(verdict.findings[0].client_id, "dev-1");
    assert_eq!(verdict.exit_status(), 1);
}

#[test]
fn a_frame_that_comes_after_a_later_one_is_out_of_order() {
    let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 2, 1, 3]));
    assert_eq!(kinds(&verdict), [FindingKind::Reordered]);
    assert!(!verdict.passed);
}

#[test]
fn a_device_whose_frames_are_in_two_partitions_has_no_order() {
    let verdict = harmed(|ledger| {
        for (sequence, partition) in [(0, 3), (1, 3), (2, 4), (3, 4)] {
            let payload = &frame(1, sequence);
            ledger.observe(ObservedRecord {
                client_id: "dev-1",
                payload,
                resent: false,
                partition,
                offset: sequence,
            });
        }
    });
    assert_eq!(kinds(&verdict), [FindingKind::Scattered, FindingKind::Scattered]);
    assert_eq!((verdict.frames.scattered, verdict.faults.len()), (2, 1));
}

#[test]
fn a_second_copy_is_a_duplicate_and_not_a_disorder() {
    let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 2, 3, 2]));
    assert_eq!(kinds(&verdict), [FindingKind::Duplicated]);
    assert_eq!((verdict.frames.duplicated, verdict.frames.reordered), (1, 0));
    assert!(!verdict.passed);
}

#[test]
fn a_copy_that_says_it_was_sent_again_may_stand_before_the_other() {
    let mut ledger = ledger();
    for device in 0..2 {
        observe_all(&mut ledger, device, &[0, 1, 2]);
        observe(&mut ledger, &format!("dev-{device}"), &frame(device, 3), true);
    }
    observe_all(&mut ledger, 0, &[3]);
    let verdict = judge(&ledger);
    assert!(verdict.passed, "{verdict}");
    assert_eq!((verdict.frames.duplicated_recognisable, verdict.frames.originals_behind), (1, 1));
}

#[test]
fn a_second_copy_that_says_it_was_sent_again_is_no_fault() {
    let verdict = harmed(|ledger| {
        observe_all(ledger, 1, &[0, 1, 2, 3]);
        observe(ledger, "dev-1", &frame(1, 3), true);
    });
    assert!(verdict.passed, "{verdict}");
    assert_eq!((verdict.frames.duplicated, verdict.frames.duplicated_recognisable), (1, 1));
}

#[test]
fn a_changed_byte_is_unexplained_and_its_frame_lost() {
    let verdict = harmed(|ledger| {
        observe_all(ledger, 1, &[0, 1, 2]);
        let mut broken = frame(1, 3);
        broken[100] ^= 1;
        observe(ledger, "dev-1", &broken, false);
    });
    assert_eq!(kinds(&verdict), [FindingKind::Corrupted, FindingKind::Lost]);
    assert_eq!((verdict.frames.unexplained, verdict.frames.lost), (1, 1));
}

#[test]
fn a_frame_under_the_name_of_another_device_is_unexplained() {
    let verdict = harmed(|ledger| {
        observe_all(ledger, 1, &[0, 1, 2, 3]);
        observe(ledger, "dev-1", &frame(0, 3), false);
    });
    assert_eq!(kinds(&verdict), [FindingKind::NeverSent]);
}

#[test]
fn a_frame_under_a_name_that_is_not_in_the_fleet_is_unexplained() {
    for name in ["dev-2", "dev-01", "dev-+1", "other", ""] {
        let verdict = harmed(|ledger| {
            observe_all(ledger, 1, &[0, 1, 2, 3]);
            observe(ledger, name, &frame(1, 3), false);
        });
        assert_eq!(kinds(&verdict), [FindingKind::NeverSent], "{name}");
    }
}

#[test]
fn a_frame_that_was_never_sent_is_unexplained() {
    let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 2, 3, 5]));
    assert_eq!(kinds(&verdict), [FindingKind::NeverSent]);
}

#[test]
fn a_push_that_turns_up_among_the_frames_is_unexplained() {
    let verdict = harmed(|ledger| {
        observe_all(ledger, 1, &[0, 1, 2, 3]);
        observe(ledger, "dev-1", &payload(RUN, Direction::Down, 1, 0), false);
    });
    assert_eq!(kinds(&verdict), [FindingKind::NeverSent]);
}

#[test]
fn other_runs_and_other_clients_are_none_of_our_business() {
    let verdict = harmed(|ledger| {
        observe_all(ledger, 1, &[0, 1, 2, 3]);
        observe(ledger, "dev-1", &payload(RUN + 1, Direction::Up, 1, 0), false);
        observe(ledger, "thermostat", b"21.5", false);
    });
    assert!(verdict.passed, "{verdict}");
    assert_eq!(verdict.frames.foreign, 2);
}

#[test]
fn something_else_under_the_name_of_our_device_is_unexplained() {
    let verdict = harmed(|ledger| {
        observe_all(ledger, 1, &[0, 1, 2, 3]);
        observe(ledger, "dev-1", b"21.5", false);
    });
    assert_eq!(kinds(&verdict), [FindingKind::Corrupted]);
}

fn push_verdict(record: impl FnOnce(&mut DeviceRecord)) -> Verdict {
    let mut device = device();
    record(&mut device);
    // One that is beyond doubt.
    let sequence = device.pushes.requested();
    device.pushes.answered(sequence, PushOutcome::Delivered);
    assert!(device.pushes.received(sequence));
    let planned = Planned { frames: false, acks: false, pushes: true, ..PLANNED };
    Verdict::of(&Ledger::new(RUN, "dev-", vec![device]), &Latencies::default(), planned)
}

#[test]
fn a_push_that_was_promised_and_did_not_come_is_lost() {
    for outcome in [PushOutcome::Delivered, PushOutcome::Queued] {
        let verdict = push_verdict(|device| {
            device.pushes.answered(0, outcome);
            device.pushes.answered(1, outcome);
            assert!(device.pushes.received(1));
        });
        assert_eq!(verdict.faults, ["1 pushes were promised and never came"]);
        assert_eq!(verdict.findings[0].kind, FindingKind::PushLost);
    }
}

#[test]
fn a_push_that_came_against_its_outcome_is_a_fault() {
    for outcome in [PushOutcome::Expired, PushOutcome::Refused] {
        let verdict = push_verdict(|device| {
            device.pushes.answered(0, outcome);
            assert!(device.pushes.received(0));
        });
        assert_eq!(verdict.faults, ["1 pushes came against their outcome"]);
    }
}

#[test]
fn a_push_that_was_never_sent_is_a_fault() {
    let never_sent = push_verdict(|device| assert!(device.pushes.received(3)));
    assert_eq!(never_sent.faults, ["1 pushes came that were never sent"]);
    assert!(!push_verdict(|device| device.pushes.received_unexplained()).passed);
}

#[test]
fn a_push_whose_sender_never_heard_of_it_again_has_no_outcome() {
    let verdict = push_verdict(|device| {
        device.pushes.requested();
        device.pushes.answered(1, PushOutcome::Unknown);
    });
    assert_eq!(verdict.faults, ["2 push requests got no outcome"]);
}

#[test]
fn a_push_that_comes_twice_is_counted() {
    let verdict = push_verdict(|device| {
        device.pushes.answered(0, PushOutcome::Delivered);
        assert!(device.pushes.received(0));
        assert!(!device.pushes.received(0));
    });
    assert_eq!(verdict.pushes.duplicated, 1);
    assert!(verdict.passed);
}

#[test]
fn a_tool_that_is_late_itself_says_that_its_latencies_are_not_to_be_trusted() {
    let mut latencies = Latencies::default();
    latencies.own_lag.record_n(90_000, 100).unwrap();
    let mut ledger = ledger();
    observe_all(&mut ledger, 0, &[0, 1, 2, 3]);
    observe_all(&mut ledger, 1, &[0, 1, 2, 3]);
    let verdict = Verdict::of(&ledger, &latencies, PLANNED);
    assert!(verdict.passed && !verdict.trusted);
    assert!(verdict.to_string().contains("the load tool itself was late"), "{verdict}");
}

#[test]
fn the_json_form_holds_the_same_numbers() {
    let verdict = harmed(|ledger| observe_all(ledger, 1, &[0, 1, 3]));
    let json: serde_json::Value = serde_json::from_str(&verdict.to_json()).unwrap();
    assert_eq!(json["frames"]["lost"], 1);
    assert_eq!(json["passed"], false);
    assert_eq!(json["findings"][0]["kind"], "lost");
}
