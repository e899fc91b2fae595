//! Many devices and one notifier against one gateway or several, for the length of a plan.
//!
//! ```text
//!   ramp ──> hold (bursts, storms, pushes) ──> drain ──> goodbye
//! ```
//!
//! [`run`] is the whole of it; [`Fleet`] is the same in steps, for tests that kill things meanwhile. The result
//! holds the ledger, to which the caller reads the log before it asks for the verdict.

mod counters;
mod http;
mod notifier;
mod progress;
mod result;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::counters::Counters;
pub use self::counters::Snapshot;
use self::notifier::Notifier;
pub use self::progress::Progress;
pub use self::result::{FleetResult, LedgerFileError};
use crate::clock::Clock;
use crate::device::{Control, Device};
use crate::ledger::{DeviceRecord, Ledger};
use crate::plan::{FleetPlan, PlanError};
use crate::random::Random;
use crate::schedule::whole;
use crate::verdict::Latencies;

/// How often the fleet looks whether everything owed has come, while it drains.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What a fleet talks to.
#[derive(Debug, Clone)]
pub struct Targets {
    /// At least one. A device begins with the one that its index falls on and takes the next at each reconnect, so that sessions move.
    pub gateways: Vec<Gateway>,
    /// Where `POST /v1/push` is; a push that one does not answer goes to the next. Without any no pushes are sent, and a plan that names pushes fails.
    pub http: Vec<SocketAddr>,
}

/// Where a gateway listens.
#[derive(Debug, Clone, Copy)]
pub struct Gateway {
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
    /// WebSocket: `/mqtt` and `/v1/devices/{client_id}/socket`.
    pub ws: SocketAddr,
}

impl Targets {
    /// A single gateway, with pushes through `http` if there is one.
    pub fn one(mqtt: SocketAddr, ws: SocketAddr, http: Option<SocketAddr>) -> Self {
        Self { gateways: vec![Gateway { mqtt, ws }], http: http.into_iter().collect() }
    }
}

/// What all tasks of a fleet share.
pub(crate) struct Shared {
    pub(crate) run: u64,
    pub(crate) clock: Clock,
    pub(crate) targets: Targets,
    pub(crate) counters: Counters,
    pub(crate) connects: Semaphore,
    latencies: Mutex<Latencies>,
}

impl Shared {
    pub(crate) fn new(plan: &FleetPlan, targets: Targets) -> Self {
        let clock = Clock::start();
        // 53 bits: readers that take JSON numbers for floating point still see the same run.
        let run = plan.run.unwrap_or_else(|| Random::new(clock.unix_ns(0)).next() >> 11);
        Self {
            run,
            clock,
            targets,
            counters: Counters::default(),
            connects: Semaphore::new(plan.connects_max as usize),
            latencies: Mutex::default(),
        }
    }

    pub(crate) fn acked(&self, latency_ns: u64) {
        self.counters.frames_acked.add(1);
        self.with_latencies(|latencies| latencies.ack.saturating_record(us(latency_ns)));
    }

    pub(crate) fn pushed(&self, latency_ns: u64) {
        self.counters.pushes_received.add(1);
        self.with_latencies(|latencies| latencies.push.saturating_record(us(latency_ns)));
    }

    pub(crate) fn came_back(&self, after: Duration) {
        self.counters.came_back.add(1);
        self.with_latencies(|latencies| latencies.back.saturating_record(after.as_micros() as u64));
    }

    pub(crate) fn lagged(&self, late: Duration) {
        self.with_latencies(|latencies| latencies.own_lag.saturating_record(late.as_micros() as u64));
    }

    fn with_latencies<T>(&self, then: impl FnOnce(&mut Latencies) -> T) -> T {
        // A histogram is sound at every step, so a panic of another holder changes nothing.
        then(&mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn us(ns: u64) -> u64 {
    ns / 1_000
}

/// A fleet at work.
pub struct Fleet {
    plan: FleetPlan,
    shared: Arc<Shared>,
    control: watch::Sender<Control>,
    devices: JoinSet<(u32, DeviceRecord)>,
    notifier: Option<Notifier>,
}

/// Runs a plan from its ramp to the last goodbye, within a tokio runtime with time and net.
pub async fn run(plan: FleetPlan, targets: Targets, progress: Progress) -> Result<FleetResult, PlanError> {
    let fleet = Fleet::start(plan, targets)?;
    let ticker = progress.start(fleet.plan.clone(), fleet.shared.clone());
    let result = fleet.finish().await;
    ticker.stop().await;
    Ok(result)
}

impl Fleet {
    /// Starts the devices and the notifier, within a tokio runtime. A gateway that is not there yet is waited for.
    pub fn start(plan: FleetPlan, targets: Targets) -> Result<Self, PlanError> {
        plan.check()?;
        plan.check_gateways(targets.gateways.len())?;
        let shared = Arc::new(Shared::new(&plan, targets));
        let control = watch::Sender::new(Control { cuts: 0, end_ns: plan.end_ns(), closing: false });
        let curve = plan.rate_curve();
        let mut devices = JoinSet::new();
        for index in 0..plan.devices {
            let device = plan.first_device + index;
            let device = Device::new(device, &plan, curve.clone(), shared.clone(), control.subscribe());
            let ramp_ns = plan.first_frame_ns() as f64 * f64::from(index) / f64::from(plan.devices);
            let first_connect = shared.clock.instant(whole(ramp_ns));
            devices.spawn(async move { (index, device.run(first_connect).await) });
        }
        let pushes = plan.pushes_per_s > 0.0 && !shared.targets.http.is_empty();
        let notifier = pushes.then(|| Notifier::start(&plan, &shared, &control.subscribe()));
        Ok(Self { plan, shared, control, devices, notifier })
    }

    /// Live numbers.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.counters.snapshot()
    }

    /// Cuts every connection at once; the devices come back.
    pub fn storm(&self) {
        self.control.send_modify(|control| control.cuts += 1);
    }

    /// Ends the hold now: nothing more is due. [`Fleet::finish`] then drains.
    pub fn end(&self) {
        let now_ns = self.shared.clock.now_ns();
        self.control.send_modify(|control| control.end_ns = control.end_ns.min(now_ns));
    }

    /// Waits for the end of the hold, drains, closes all devices and gathers what they wrote down. Takes no longer
    /// than the plan's duration, its drain and a goodbye, even if the gateway is gone for good.
    pub async fn finish(mut self) -> FleetResult {
        self.hold().await;
        // One patience for all: a gateway that is gone must not be waited for by each push and each device in turn.
        let deadline = Instant::now() + self.plan.drain();
        let pushes = match self.notifier.take() {
            Some(notifier) => notifier.finish(deadline).await,
            None => Vec::new(),
        };
        self.drain(&pushes, deadline).await;
        self.control.send_modify(|control| control.closing = true);
        let mut records = vec![DeviceRecord::default(); self.plan.devices as usize];
        while let Some(joined) = self.devices.join_next().await {
            // A device that panicked leaves an empty page, which the verdict shows as one that never connected.
            if let Ok((index, record)) = joined {
                records[index as usize] = record;
            }
        }
        for (record, pushed) in records.iter_mut().zip(pushes) {
            record.pushes.join(pushed);
        }
        let ledger = Ledger::new(self.shared.run, self.plan.client_id_prefix.clone(), records)
            .with_first_device(self.plan.first_device);
        let latencies = self.shared.with_latencies(|latencies| latencies.clone());
        FleetResult::new(ledger, latencies, self.plan.planned())
    }

    async fn hold(&self) {
        for storm_ns in self.plan.storms_ns() {
            if self.sleep_until_ns(storm_ns).await {
                return;
            }
            self.storm();
        }
        self.sleep_until_ns(u64::MAX).await;
    }

    /// True: the end came before that moment.
    async fn sleep_until_ns(&self, moment_ns: u64) -> bool {
        let mut control = self.control.subscribe();
        loop {
            let end_ns = control.borrow_and_update().end_ns;
            tokio::select! {
                () = sleep_until(self.shared.clock.instant(moment_ns.min(end_ns))) => return end_ns <= moment_ns,
                // Storms change the control too; the loop then sleeps on.
                _ = control.changed() => {}
            }
        }
    }

    /// Until every device is connected, every frame answered and every promised push there, or the plan's patience is over.
    async fn drain(&self, pushes: &[crate::ledger::PushRecord], deadline: Instant) {
        use crate::ledger::PushOutcome::{Delivered, Queued};
        let promised: u64 =
            pushes.iter().map(|push| push.outcome_count(Delivered) + push.outcome_count(Queued)).sum();
        loop {
            let now = self.snapshot();
            let devices = u64::from(self.plan.devices);
            let settled =
                now.connected >= devices && now.settled >= devices && now.pushes_received >= promised;
            if settled || Instant::now() >= deadline {
                return;
            }
            sleep_until(Instant::now() + DRAIN_LOOK).await;
        }
    }
}
