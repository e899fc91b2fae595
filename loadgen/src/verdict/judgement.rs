//! What of a run breaks a promise, or was planned and did not happen; and what its reader should only know.
//!
//! Whatever the plan names is a fault if it did not happen at all or was left undone in the end: a run that passes has done what its plan says. What is
//! no fault is a remark, and is no claim: refusals with a reason, copies that are marked, what `QoS` 0 does not promise, the tool's own lateness.

use super::{Devices, Frames, LAG_US_TRUSTED_MAX, Percentiles, Planned, Pushes};

/// A plan has happened if no more than one part in so many of its frames, or of its pushes, was due and is not sent. What was not sent cannot be lost.
const UNDONE_PART: u64 = 100;

pub(super) fn faults(devices: &Devices, frames: &Frames, pushes: &Pushes, planned: Planned) -> Vec<String> {
    let silent = frames.duplicated - frames.duplicated_recognisable;
    let unless = |done: u64, named: bool| u64::from(named && done == 0);
    let count = [
        (frames.lost, "acknowledged frames are lost"),
        (frames.reordered, "frames are out of their device's order"),
        (
            frames.scattered,
            "frames are in another partition than those of their device before: no reader has their order",
        ),
        (silent, "frames are recorded twice and nothing in the record tells"),
        (frames.unexplained, "records were never sent, or were changed"),
        (if planned.acks { frames.in_doubt } else { 0 }, "frames were never answered: neither kept nor lost"),
        (
            beyond_leeway(frames.unsent, frames.sent),
            "frames were due and never sent: the plan did not happen",
        ),
        (pushes.lost, "pushes were promised and never came"),
        (pushes.contradicted, "pushes came against their outcome"),
        (pushes.unexplained, "pushes came that were never sent"),
        (pushes.unknown, "push requests got no outcome"),
        (
            beyond_leeway(pushes.unsent, pushes.sent),
            "pushes were due and never requested: the plan did not happen",
        ),
        (devices.protocol_errors, "answers broke the protocol"),
        (devices.devices - devices.connected, "devices never got a connection"),
        (devices.connected.saturating_sub(devices.held), "devices had lost their connection in the end"),
        (
            if planned.subscriptions { devices.connected.saturating_sub(devices.subscribed) } else { 0 },
            "devices never got their subscription",
        ),
        (devices.begun_anew, "sessions were gone when their device came back for them"),
    ];
    let nothing = [
        (unless(devices.devices, true), "run without a device"),
        (unless(frames.sent, planned.frames), "run without a single frame"),
        (unless(frames.acked, planned.acks && frames.sent > 0), "run without a single acknowledgement"),
        (unless(frames.found, planned.frames && frames.sent > 0), "log without a single frame of this run"),
        (unless(pushes.sent, planned.pushes), "run without a single push"),
        (
            unless(pushes.delivered + pushes.queued, pushes.sent > 0),
            "run of whose pushes not a single one was accepted",
        ),
        (unless(devices.reconnects, planned.storms), "run whose storms cut nobody"),
    ];
    let count = count.into_iter().filter(|(count, _)| *count > 0);
    let nothing = nothing.into_iter().filter(|(is_so, _)| *is_so > 0);
    let count = count.map(|(count, what)| format!("{count} {what}"));
    count.chain(nothing.map(|(_, what)| format!("{what}: nothing is proven"))).collect()
}

pub(super) fn remarks(
    devices: &Devices,
    frames: &Frames,
    pushes: &Pushes,
    planned: Planned,
    own_lag: Percentiles,
) -> Vec<String> {
    let without_promise =
        if planned.frames && !planned.acks { frames.sent.saturating_sub(frames.found) } else { 0 };
    let mut remarks: Vec<String> = [
        (without_promise, "frames of QoS 0, which promises nothing, did not arrive"),
        (frames.unsent, "frames were due and never sent"),
        (pushes.unsent, "pushes were due and never requested"),
        (frames.refused, "frames were refused by the gateway"),
        (frames.duplicated_recognisable, "frames are recorded again, recognisable as sent again"),
        (frames.originals_behind, "of them are originals behind the copy that says so"),
        (pushes.refused, "pushes were refused"),
        (pushes.expired, "pushes expired"),
        (pushes.duplicated, "pushes came more than once (QoS 1 allows it after a lost acknowledgement)"),
        (devices.connects_failed, "connection attempts failed"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    for (named, what) in [(planned.frames, "frames"), (planned.pushes, "pushes")] {
        if !named {
            remarks.push(format!("no {what} were planned: nothing is said of them"));
        }
    }
    if own_lag.p99 > LAG_US_TRUSTED_MAX {
        remarks.push(format!(
            "the load tool itself was late (p99 {} ms): do not trust the latencies, send less or use more hosts",
            own_lag.p99 / 1_000
        ));
    }
    remarks
}

/// What was left undone, if that is more than a machine which is slow for a moment leaves at the end.
fn beyond_leeway(undone: u64, done: u64) -> u64 {
    if undone > (undone + done) / UNDONE_PART { undone } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Run {
        devices: Devices,
        frames: Frames,
        pushes: Pushes,
        planned: Planned,
    }

    type Harm = fn(&mut Run);

    /// Everything was planned, and happened.
    fn sound() -> Run {
        let devices = Devices {
            devices: 3,
            connected: 3,
            held: 3,
            subscribed: 3,
            reconnects: 3,
            resumed: 3,
            ..Devices::default()
        };
        let frames = Frames { sent: 10, acked: 10, found: 10, ..Frames::default() };
        let pushes = Pushes { sent: 4, delivered: 3, queued: 1, received: 4, ..Pushes::default() };
        let planned = Planned { frames: true, acks: true, pushes: true, subscriptions: true, storms: true };
        Run { devices, frames, pushes, planned }
    }

    fn faults_after(harm: impl FnOnce(&mut Run)) -> Vec<String> {
        let mut run = sound();
        harm(&mut run);
        faults(&run.devices, &run.frames, &run.pushes, run.planned)
    }

    fn remarks_after(change: impl FnOnce(&mut Run)) -> Vec<String> {
        let mut run = sound();
        change(&mut run);
        remarks(&run.devices, &run.frames, &run.pushes, run.planned, Percentiles::default())
    }

    #[test]
    fn a_few_frames_that_were_not_sent_are_a_remark() {
        let few = |run: &mut Run| (run.frames.sent, run.frames.unsent) = (990, 10);
        assert!(faults_after(few).is_empty());
        assert_eq!(remarks_after(few), ["10 frames were due and never sent"]);
        let many = |run: &mut Run| (run.frames.sent, run.frames.unsent) = (990, 11);
        assert_eq!(faults_after(many).len(), 1);
    }

    #[test]
    fn a_run_that_did_what_its_plan_says_has_no_fault_and_nothing_to_remark() {
        assert_eq!(faults_after(|_| ()), [""; 0]);
        assert_eq!(remarks_after(|_| ()), [""; 0]);
    }

    #[test]
    fn what_was_planned_and_never_happened_proves_nothing() {
        let nothing: [(&str, Harm); 8] = [
            ("run without a device", |run| run.devices = Devices { reconnects: 1, ..Devices::default() }),
            ("run without a single frame", |run| run.frames = Frames::default()),
            // A gateway that stores everything and acknowledges nothing; all that it refuses is answered.
            ("run without a single acknowledgement", |run| {
                run.frames = Frames { acked: 0, refused: 10, ..run.frames };
            }),
            ("log without a single frame of this run", |run| {
                run.frames = Frames { found: 0, ..run.frames };
            }),
            ("run without a single push", |run| run.pushes = Pushes::default()),
            ("run of whose pushes not a single one was accepted", |run| {
                run.pushes = Pushes { sent: 4, refused: 4, ..Pushes::default() };
            }),
            ("run of whose pushes not a single one was accepted", |run| {
                run.pushes = Pushes { sent: 4, expired: 4, ..Pushes::default() };
            }),
            ("run whose storms cut nobody", |run| run.devices.reconnects = 0),
        ];
        for (what, harm) in nothing {
            assert_eq!(faults_after(harm), [format!("{what}: nothing is proven")]);
        }
    }

    #[test]
    fn what_was_begun_and_is_not_done_in_the_end_is_a_fault() {
        let undone: [(&str, Harm); 8] = [
            ("1 frames were never answered: neither kept nor lost", |run| run.frames.in_doubt = 1),
            ("7 frames were due and never sent: the plan did not happen", |run| run.frames.unsent = 7),
            ("2 push requests got no outcome", |run| run.pushes.unknown = 2),
            ("5 pushes were due and never requested: the plan did not happen", |run| run.pushes.unsent = 5),
            ("1 devices never got a connection", |run| run.devices.devices = 4),
            ("1 devices had lost their connection in the end", |run| run.devices.held = 2),
            ("3 devices never got their subscription", |run| run.devices.subscribed = 0),
            ("1 sessions were gone when their device came back for them", |run| run.devices.begun_anew = 1),
        ];
        for (what, harm) in undone {
            assert_eq!(faults_after(harm), [what]);
        }
    }

    #[test]
    fn what_was_not_planned_is_not_missed_and_nothing_is_said_of_it() {
        let connections_only = |run: &mut Run| {
            run.frames = Frames::default();
            run.pushes = Pushes::default();
            run.devices.subscribed = 0;
            run.devices.reconnects = 0;
            run.planned = Planned::default();
        };
        assert_eq!(faults_after(connections_only), [""; 0]);
        let said = remarks_after(connections_only);
        assert_eq!(
            said,
            ["frames", "pushes"].map(|what| format!("no {what} were planned: nothing is said of them"))
        );
    }

    #[test]
    fn qos_0_owes_no_answer_and_what_is_missing_is_told() {
        let qos_0 = |run: &mut Run| {
            run.planned.acks = false;
            run.frames = Frames { acked: 0, in_doubt: 10, found: 6, ..run.frames };
        };
        assert_eq!(faults_after(qos_0), [""; 0]);
        assert_eq!(remarks_after(qos_0), ["4 frames of QoS 0, which promises nothing, did not arrive"]);
    }

    #[test]
    fn refusals_are_the_gateways_right_and_are_told() {
        let refused = |run: &mut Run| {
            run.frames = Frames { acked: 8, refused: 2, ..run.frames };
            run.pushes = Pushes { delivered: 1, refused: 1, expired: 1, ..run.pushes };
        };
        assert_eq!(faults_after(refused), [""; 0]);
        let said = remarks_after(refused);
        assert_eq!(
            said,
            ["2 frames were refused by the gateway", "1 pushes were refused", "1 pushes expired"]
        );
    }
}
