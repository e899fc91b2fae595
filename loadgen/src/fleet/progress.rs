//! One line a second for whoever waits: redrawn on a terminal, one below the other elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{Shared, Snapshot};
use crate::plan::FleetPlan;

const PERIOD: Duration = Duration::from_secs(1);

/// How much is shown, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// One line that is redrawn if standard error is a terminal, else [`Progress::Lines`].
    Auto,
    /// A line each second.
    Lines,
    /// Nothing.
    Silent,
}

pub(super) struct Ticker {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Progress {
    pub(super) fn start(self, plan: FleetPlan, shared: Arc<Shared>) -> Ticker {
        let redraw = self == Self::Auto && std::io::stderr().is_terminal();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            if self != Self::Silent {
                show(&plan, &shared, redraw, stopped).await;
            }
        });
        Ticker { stop, task }
    }
}

impl Ticker {
    pub(super) async fn stop(self) {
        // Both fail only if the task is gone already, which is what is wanted.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn show(plan: &FleetPlan, shared: &Shared, redraw: bool, mut stopped: oneshot::Receiver<()>) {
    let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut before = Snapshot::default();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => {}
        }
        let now = shared.counters.snapshot();
        let line = line(plan, shared.clock.now_ns(), &before, &now);
        // A closed standard error is no reason to end a measurement.
        let _ = if redraw {
            write!(std::io::stderr(), "\r\x1b[K{line}")
        } else {
            writeln!(std::io::stderr(), "{line}")
        };
        before = now;
    }
    if redraw {
        let _ = writeln!(std::io::stderr());
    }
}

fn line(plan: &FleetPlan, now_ns: u64, before: &Snapshot, now: &Snapshot) -> String {
    let phase = match now_ns {
        ns if ns < plan.first_frame_ns() => "ramp",
        ns if ns < plan.end_ns() => "hold",
        _ => "drain",
    };
    format!(
        "{:>5.0} s  {phase:<5}  {:>6}/{} connected   frames {:>9} sent {:>9} acked {:>7}/s   pushes {:>7} sent {:>7} received",
        now_ns as f64 / 1e9,
        now.connected,
        plan.devices,
        now.frames_sent,
        now.frames_acked,
        now.frames_acked - before.frames_acked,
        now.pushes_sent,
        now.pushes_received,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_the_phase_and_the_rate_of_the_last_second() {
        let plan = FleetPlan { ramp_s: 2.0, duration_s: 10.0, ..FleetPlan::default() };
        let before = Snapshot { frames_acked: 100, ..Snapshot::default() };
        let now = Snapshot { frames_acked: 350, connected: 999, ..Snapshot::default() };
        let text = line(&plan, 3_000_000_000, &before, &now);
        assert!(text.contains("hold") && text.contains("999/1000") && text.contains("250/s"), "{text}");
        assert!(line(&plan, 13_000_000_000, &before, &now).contains("drain"));
    }
}
