//! What of a run breaks a promise, and what its reader should only know.

use super::{Devices, Frames, LAG_US_TRUSTED_MAX, Percentiles, Pushes};

pub(super) fn faults(
    devices: &Devices,
    frames: &Frames,
    pushes: &Pushes,
    frames_expected: bool,
) -> Vec<String> {
    let silent = frames.duplicated - frames.duplicated_recognisable;
    [
        (frames.lost, "acknowledged frames are lost"),
        (frames.reordered, "frames are out of their device's order"),
        (silent, "frames are recorded twice and nothing in the record tells"),
        (frames.unexplained, "records were never sent, or were changed"),
        (pushes.lost, "pushes were promised and never came"),
        (pushes.contradicted, "pushes came against their outcome"),
        (pushes.unexplained, "pushes came that were never sent"),
        (devices.protocol_errors, "answers broke the protocol"),
        (devices.devices - devices.connected, "devices never got a connection"),
        (u64::from(frames_expected && frames.sent == 0), "run without a single frame: nothing is proven"),
        (
            u64::from(frames_expected && frames.sent > 0 && frames.found == 0),
            "log without a single frame of this run: nothing is proven",
        ),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect()
}

pub(super) fn remarks(
    devices: &Devices,
    frames: &Frames,
    pushes: &Pushes,
    own_lag: Percentiles,
) -> Vec<String> {
    let mut remarks: Vec<String> = [
        (frames.in_doubt, "frames were never answered (in doubt: neither kept nor lost)"),
        (frames.unsent, "frames were due and not sent before the end"),
        (frames.refused, "frames were refused by the gateway"),
        (frames.duplicated_recognisable, "frames are recorded again, recognisable as sent again"),
        (frames.originals_behind, "of them are originals behind the copy that says so"),
        (pushes.unknown, "push requests got no outcome"),
        (pushes.unsent, "pushes were due and not requested before the end"),
        (pushes.duplicated, "pushes came more than once (QoS 1 allows it after a lost acknowledgement)"),
        (devices.connects_failed, "connection attempts failed"),
        (devices.begun_anew, "sessions were gone when their device came back for them"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if own_lag.p99 > LAG_US_TRUSTED_MAX {
        remarks.push(format!(
            "the load tool itself was late (p99 {} ms): do not trust the latencies, send less or use more hosts",
            own_lag.p99 / 1_000
        ));
    }
    remarks
}
