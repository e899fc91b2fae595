//! Sends pushes to random devices through `POST /v1/push` and writes down each outcome.
//!
//! Open loop like the devices: each of a fixed number of requesters has its own schedule. A request that fails is
//! repeated under the same idempotency key, at the next of the addresses, as an honest sender would do it, until it has an
//! outcome or its time is over; then its outcome is unknown. A requester has one request at a time, so pushes fall behind while the other
//! end is away; those that are still behind when the fleet's drain is over are counted as not sent.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::Shared;
use super::http::{HttpClient, Response};
use crate::device::Control;
use crate::ledger::{PushOutcome, PushRecord, client_id};
use crate::payload::{Direction, Form, Stamp};
use crate::plan::FleetPlan;
use crate::random::Random;
use crate::schedule::{RateCurve, Schedule, Surge, whole};

/// From the first attempt to giving up.
const PATIENCE: Duration = Duration::from_secs(30);

/// For one answer: longer than a gateway waits for an outcome by its default. Beyond it whoever was asked is taken for wedged.
const ANSWER: Duration = Duration::from_secs(15);

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);

const PUSH_BYTES: usize = 200;

pub(super) struct Notifier {
    stop: watch::Sender<bool>,
    requesters: JoinSet<()>,
    records: Arc<Mutex<Vec<PushRecord>>>,
}

struct Requester {
    /// One for each address; the first is asked.
    clients: VecDeque<HttpClient>,
    shared: Arc<Shared>,
    records: Arc<Mutex<Vec<PushRecord>>>,
    client_id_prefix: String,
    first_device: u32,
    random: Random,
    schedule: Schedule,
    /// Place of the device and sequence of the push that is requested and has no outcome yet.
    unanswered: Option<(u32, u64)>,
}

#[derive(Serialize)]
struct Request<'a> {
    device: &'a str,
    payload: &'a str,
    qos: u8,
    id: &'a str,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    outcome: Cow<'a, str>,
}

impl Notifier {
    pub(super) fn start(plan: &FleetPlan, shared: &Arc<Shared>, control: &watch::Receiver<Control>) -> Self {
        // One for each push of a second, so that a second's delay of every answer does not yet make any late.
        let count = (whole(plan.pushes_per_s.ceil()) as u32).clamp(1, plan.push_requests_max);
        let ramp = Surge { start_ns: 0, length_ns: plan.first_frame_ns(), factor: 0.0 };
        let curve = RateCurve::new(plan.pushes_per_s / f64::from(count), &[ramp]);
        let records = Arc::new(Mutex::new(vec![PushRecord::default(); plan.devices as usize]));
        let mut requesters = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        for index in 0..count {
            let phase = (f64::from(index) + 0.5) / f64::from(count);
            let mut clients: VecDeque<_> =
                shared.targets.http.iter().map(|address| HttpClient::new(*address)).collect();
            clients.rotate_left(index as usize % clients.len());
            let requester = Requester {
                clients,
                shared: shared.clone(),
                records: records.clone(),
                client_id_prefix: plan.client_id_prefix.clone(),
                first_device: plan.first_device,
                random: Random::child(!plan.seed, u64::from(plan.first_device) << 32 | u64::from(index)),
                schedule: Schedule::new(curve.clone(), phase, plan.end_ns()),
                unanswered: None,
            };
            requesters.spawn(requester.run(plan.devices, control.clone(), stopped.clone()));
        }
        Self { stop, requesters, records }
    }

    /// Waits until each push has its outcome, no longer than to the deadline; by device.
    pub(super) async fn finish(mut self, deadline: Instant) -> Vec<PushRecord> {
        let _ = timeout_at(deadline, self.join_all()).await;
        self.stop.send_replace(true);
        self.join_all().await;
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn join_all(&mut self) {
        while let Some(joined) = self.requesters.join_next().await {
            // Its pushes would be missing and nobody would know: better no verdict.
            if let Some(panic) = joined.err().and_then(|error| error.try_into_panic().ok()) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Requester {
    async fn run(
        mut self,
        devices: u32,
        control: watch::Receiver<Control>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let end = control.clone();
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.request_all(devices, control) => {}
        }
        if let Some((device, sequence)) = self.unanswered.take() {
            self.with_record(device, |record| record.answered(sequence, PushOutcome::Unknown));
        }
        self.schedule.end_at(end.borrow().end_ns);
        while self.schedule.take().is_some() {
            let device = self.random.below(devices);
            self.with_record(device, PushRecord::not_requested);
        }
    }

    async fn request_all(&mut self, devices: u32, mut control: watch::Receiver<Control>) {
        while let Some(due_ns) = self.schedule.next_due_ns() {
            let due = self.shared.clock.instant(due_ns);
            tokio::select! {
                changed = control.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.schedule.end_at(control.borrow_and_update().end_ns);
                }
                () = sleep_until(due) => {
                    self.schedule.take();
                    let device = self.random.below(devices);
                    self.push(device, due_ns).await;
                }
            }
        }
    }

    /// `index` is the device's place among those of this process.
    async fn push(&mut self, index: u32, due_ns: u64) {
        let sequence = self.with_record(index, PushRecord::requested);
        self.unanswered = Some((index, sequence));
        let device = self.first_device + index;
        self.shared.counters.pushes_sent.add(1);
        let clock = self.shared.clock;
        let stamp = Stamp {
            direction: Direction::Down,
            run: self.shared.run,
            device,
            sequence,
            intended_ns: clock.unix_ns(due_ns),
            sent_ns: clock.unix_ns(clock.now_ns()),
        };
        let mut payload = Vec::new();
        stamp.encode(Form::Json, PUSH_BYTES, &mut payload);
        let id = format!("{:x}-{device}-{sequence}", self.shared.run);
        // As text: what the device gets is the text, byte for byte, which an object would not promise.
        let request = Request {
            device: &client_id(&self.client_id_prefix, device),
            payload: &String::from_utf8_lossy(&payload),
            qos: 1,
            id: &id,
        };
        let json = serde_json::to_vec(&request).expect("plain fields always serialise");
        let deadline = Instant::now() + PATIENCE;
        let outcome = timeout_at(deadline, self.until_outcome(&json)).await.unwrap_or(PushOutcome::Unknown);
        self.unanswered = None;
        self.with_record(index, |record| record.answered(sequence, outcome));
    }

    async fn until_outcome(&mut self, json: &[u8]) -> PushOutcome {
        loop {
            if let Ok(Ok(response)) = timeout(ANSWER, self.clients[0].post("/v1/push", json)).await
                && let Some(outcome) = outcome_of(&response)
            {
                return outcome;
            }
            self.clients.rotate_left(1);
            sleep(RETRY).await;
        }
    }

    fn with_record<T>(&self, device: u32, then: impl FnOnce(&mut PushRecord) -> T) -> T {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        then(&mut records[device as usize])
    }
}

/// `None`: it is worth trying again.
fn outcome_of(response: &Response) -> Option<PushOutcome> {
    let named = serde_json::from_slice::<Answer<'_>>(&response.body).ok();
    match named.as_ref().map(|answer| &*answer.outcome) {
        Some("delivered") => Some(PushOutcome::Delivered),
        Some("queued") => Some(PushOutcome::Queued),
        Some("expired") => Some(PushOutcome::Expired),
        Some("refused") => Some(PushOutcome::Refused),
        _ if matches!(response.status, 429 | 500..) => None,
        // A success without an outcome breaks the interface: nothing is known of this push.
        _ if response.status < 400 => Some(PushOutcome::Unknown),
        _ => Some(PushOutcome::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, body: &str) -> Option<PushOutcome> {
        outcome_of(&Response { status, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn the_outcome_is_what_the_body_says_and_else_what_the_status_means() {
        assert_eq!(outcome(200, "{\"id\":\"7\",\"outcome\":\"delivered\"}"), Some(PushOutcome::Delivered));
        assert_eq!(outcome(202, "{\"outcome\":\"queued\",\"x\":1}"), Some(PushOutcome::Queued));
        assert_eq!(outcome(410, "{\"outcome\":\"expired\"}"), Some(PushOutcome::Expired));
        assert_eq!(
            outcome(429, "{\"outcome\":\"refused\",\"reason\":\"queue_full\"}"),
            Some(PushOutcome::Refused)
        );
        assert_eq!(outcome(404, "{\"title\":\"no such session\"}"), Some(PushOutcome::Refused));
        assert_eq!(outcome(200, "fine"), Some(PushOutcome::Unknown));
    }

    #[test]
    fn a_server_that_is_busy_or_broken_is_asked_again() {
        for status in [429, 500, 503] {
            assert_eq!(outcome(status, "{\"title\":\"later\"}"), None);
        }
    }
}
