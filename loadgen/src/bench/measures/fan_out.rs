//! One publisher, everyone subscribes: CPU per delivery, and how long until the last one has it.

use std::time::{Duration, Instant};

use holdfast_wire::mqtt::{PacketType, QoS};

use super::{cpu_each, payload};
use crate::bench::swarm::{PATIENCE, Swarm};
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, BenchPlan, Figure, Target, packets};

const TOPIC: &str = "bench/broadcast";

/// Messages before the measured ones.
const WARM_UP: usize = 5;

pub(super) fn run(plan: &BenchPlan, target: &Target) -> Result<Vec<Figure>, BenchError> {
    let mut swarm = Swarm::new(target, Carrier::Tcp)?;
    let publisher = plan.connections;
    swarm.connect(plan.connections + 1, plan.connects_in_flight)?;
    swarm.subscribe(0..plan.connections, |_| TOPIC.to_owned(), QoS::AtMostOnce)?;
    let message = packets::publish(TOPIC, QoS::AtMostOnce, &payload(plan));
    let mut spread = Duration::ZERO;
    let mut cpu = target.processes.cpu()?;
    for round in 0..WARM_UP + plan.fan_out_messages {
        if round == WARM_UP {
            cpu = target.processes.cpu()?;
            spread = Duration::ZERO;
        }
        let start = Instant::now();
        swarm.send(publisher, &message)?;
        let mut missing = plan.connections;
        let deadline = start + PATIENCE;
        while missing > 0 {
            swarm.check(deadline, "deliveries", missing)?;
            swarm.turn(Some(Duration::from_millis(100)), |_, kind, _| {
                // A second copy is not a delivery that was asked for.
                if kind == PacketType::Publish {
                    missing = missing.checked_sub(1).ok_or(BenchError::Protocol)?;
                }
                Ok(())
            })?;
        }
        spread += start.elapsed();
    }
    let deliveries = (plan.fan_out_messages * plan.connections) as u64;
    let each = cpu_each(target.processes.cpu()? - cpu, deliveries);
    let last_ms = spread.as_secs_f64() * 1_000.0 / plan.fan_out_messages.max(1) as f64;
    Ok(vec![
        Figure::less("fan_out_cpu_us", "CPU us per delivery, 1 to all", each),
        Figure::less("fan_out_last_ms", "... until the last has it, ms", last_ms),
    ])
}
