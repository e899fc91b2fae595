//! librdkafka's own producer at the same rates, from one thread of this process, whose whole CPU counts.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Meter, Phase, WayError, WayPlan, WayTarget};
use crate::bench::measures::{frame_topic, latencies_us};
use crate::bench::swarm::PATIENCE;
use crate::bench::{BenchError, Processes, packets};
use crate::kafka::{DeviceRecords, Now, OwnProducer};

/// As often as devices are driven.
const TICK: Duration = Duration::from_millis(1);

/// While librdkafka's queue is full.
const FULL: Duration = Duration::from_micros(50);

/// Records between two looks at the clock.
const BURST: u64 = 64;

pub(super) fn run(plan: &WayPlan, target: &WayTarget, rate: Option<u32>) -> Result<Phase, WayError> {
    let producer = OwnProducer::start(&target.producer)?;
    let connections = if rate.is_some() { plan.connections } else { plan.flat_out_connections };
    let devices: Vec<DeviceRecords> = (0..connections).map(device).collect();
    let payload = vec![b'x'; plan.payload_bytes];
    let mut processes = target.processes.clone();
    processes.push((OWN, Processes::new(vec![std::process::id()])));

    let start = Instant::now();
    let (mut sent, mut measured, mut late_us) = (0_u64, None, latencies_us());
    while start.elapsed() < plan.warm_up + plan.duration + PATIENCE {
        let settled = producer.settled()?;
        match &measured {
            Some((_, since, before)) if !plan.goes_on(*since, settled - before) => break,
            // Flat out the broker's first answers may be long in coming.
            None if start.elapsed() >= plan.warm_up && settled > 0 => {
                measured = Some((Meter::start(&processes)?, Instant::now(), settled));
                let _ = producer.take_latencies();
                late_us.reset();
            }
            _ => {}
        }
        let allowed = match rate {
            // One more than are due by now is not yet due.
            Some(rate) => crate::schedule::whole(start.elapsed().as_secs_f64() * f64::from(rate)),
            None => sent + BURST,
        };
        if sent >= allowed {
            sleep(TICK);
        }
        let (now, looked_at) = (Now::read(), Instant::now());
        while sent < allowed {
            let due = rate.map_or_else(Instant::now, |rate| {
                start + Duration::from_secs_f64(sent as f64 / f64::from(rate))
            });
            if rate.is_some() {
                late_us.saturating_record(looked_at.saturating_duration_since(due).as_micros() as u64);
            }
            if !producer.send(&devices[sent as usize % connections], &payload, &now, due)? {
                sleep(FULL);
                break;
            }
            sent += 1;
        }
    }
    let (meter, since, settled_before) = measured.ok_or(BenchError::Protocol)?;
    let mut settled = producer.settled()?;
    let deadline = Instant::now() + PATIENCE;
    // At a rate everything counts, as it does for devices; flat out the last ones would come alone.
    while rate.is_some() && settled < sent {
        if Instant::now() >= deadline {
            let missing = (sent - settled) as usize;
            return Err(BenchError::Deadline { what: "reports", missing, seconds: PATIENCE.as_secs() }.into());
        }
        sleep(TICK);
        settled = producer.settled()?;
    }
    Ok(Phase {
        frames: settled - settled_before,
        seconds: since.elapsed().as_secs_f64(),
        cpu_us: meter.stop()?,
        latencies_us: if rate.is_some() { producer.take_latencies() } else { latencies_us() },
        late_us,
    })
}

/// What the table calls this process.
pub(super) const OWN: &str = "librdkafka";

fn device(index: usize) -> DeviceRecords {
    DeviceRecords {
        client_id: packets::client_id(index),
        topic: frame_topic(index),
        id: format!("{:016x}", index as u64 + 0x1234_5678),
        packet_id: format!("{}", index % 60_000 + 1),
    }
}
