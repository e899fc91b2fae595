//! Pushes to random devices, each on its own topic, at one `QoS` on both ways: CPU and latency of each. The devices
//! subscribe at `QoS` 1 in either case.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use holdfast_wire::mqtt::{PacketType, QoS};

use super::{cpu_each, latencies_us, payload, push_topic};
use crate::bench::swarm::{PATIENCE, Swarm};
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, BenchPlan, Figure, Target, packets};
use crate::random::Random;
use crate::schedule::whole;

/// Short, as each push is to leave at its own time and not in bunches.
const TICK: Duration = Duration::from_micros(200);

pub(super) fn run(plan: &BenchPlan, target: &Target, qos: QoS) -> Result<Vec<Figure>, BenchError> {
    let publishers = plan.push_publishers.max(1);
    let mut swarm = Swarm::new(target, Carrier::Tcp)?;
    swarm.connect(plan.connections + publishers, plan.connects_in_flight)?;
    swarm.subscribe(0..plan.connections, push_topic, QoS::AtLeastOnce)?;
    swarm.pace(TICK)?;

    let mut run = Run {
        random: Random::new(1),
        start: Instant::now(),
        sent: 0,
        received: 0,
        latencies: latencies_us(),
    };
    let mut body = payload(plan);
    body.resize(body.len().max(8), 0);
    let mut measured_from = None;
    while run.start.elapsed() < plan.warm_up + plan.duration {
        let elapsed = run.start.elapsed();
        if measured_from.is_none() && elapsed >= plan.warm_up {
            measured_from = Some((target.processes.cpu()?, run.sent));
            run.latencies.reset();
        }
        let due = whole(elapsed.as_secs_f64() * plan.push_rate);
        while run.sent < due {
            let publisher = plan.connections + run.sent as usize % publishers;
            let packet_id = run.sent / publishers as u64 % 60_000 + 1;
            let device = run.random.below(plan.connections as u32) as usize;
            body[..8].copy_from_slice(&(run.start.elapsed().as_nanos() as u64).to_be_bytes());
            let mut push = packets::publish(&push_topic(device), qos, &body);
            if qos == QoS::AtLeastOnce {
                packets::set_packet_id(&mut push, packet_id as u16);
            }
            swarm.send(publisher, &push)?;
            run.sent += 1;
        }
        run.turn(&mut swarm, None)?;
    }
    let (cpu, sent_before) = measured_from.ok_or(BenchError::Protocol)?;
    let deadline = Instant::now() + PATIENCE;
    while run.received < run.sent {
        swarm.check(deadline, "pushes", (run.sent - run.received) as usize)?;
        run.turn(&mut swarm, Some(TICK))?;
    }
    let each = cpu_each(target.processes.cpu()? - cpu, run.sent - sent_before);
    let (p50, p99) = (run.latencies.value_at_quantile(0.5), run.latencies.value_at_quantile(0.99));
    Ok(match qos {
        QoS::AtMostOnce => vec![
            Figure::less("push_cpu_us", "CPU us per push to a random device, QoS 0", each),
            Figure::less("push_p50_us", "... p50 us", p50 as f64),
            Figure::less("push_p99_us", "... p99 us", p99 as f64),
        ],
        _ => vec![
            Figure::less("push_qos1_cpu_us", "CPU us per push to a random device, QoS 1", each),
            Figure::less("push_qos1_p50_us", "... p50 us", p50 as f64),
            Figure::less("push_qos1_p99_us", "... p99 us", p99 as f64),
        ],
    })
}

struct Run {
    random: Random,
    start: Instant,
    sent: u64,
    received: u64,
    latencies: Histogram<u64>,
}

impl Run {
    fn turn(&mut self, swarm: &mut Swarm, timeout: Option<Duration>) -> Result<(), BenchError> {
        swarm.turn(timeout, |link, kind, packet| {
            if kind != PacketType::Publish {
                return Ok(());
            }
            let (_, packet_id, payload) = packets::split_publish(packet).ok_or(BenchError::Protocol)?;
            let stamp = payload.first_chunk().ok_or(BenchError::Protocol)?;
            let age = (self.start.elapsed().as_nanos() as u64).saturating_sub(u64::from_be_bytes(*stamp));
            self.latencies.saturating_record(age / 1_000);
            self.received += 1;
            packets::puback(packet_id, link.outbound());
            Ok(())
        })
    }
}
