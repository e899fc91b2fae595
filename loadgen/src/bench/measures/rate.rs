//! CPU per message at a fixed rate: an open loop over many connections, each sending rarely, as devices do.

use std::time::{Duration, Instant};

use holdfast_wire::mqtt::{PacketType, QoS};

use super::{cpu_figures, frame_topic, latencies_us, payload};
use crate::bench::swarm::{PATIENCE, Swarm};
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, BenchPlan, Figure, Target, packets};
use crate::schedule::whole;

const TICK: Duration = Duration::from_millis(1);

pub(super) fn run(plan: &BenchPlan, target: &Target, qos: QoS) -> Result<Vec<Figure>, BenchError> {
    let mut swarm = Swarm::new(target, Carrier::Tcp)?;
    swarm.connect(plan.connections, plan.connects_in_flight)?;
    let payload = payload(plan);
    let mut frames: Vec<Vec<u8>> =
        (0..plan.connections).map(|index| packets::publish(&frame_topic(index), qos, &payload)).collect();
    swarm.pace(TICK)?;

    let mut latencies = latencies_us();
    let mut acked = 0_u64;
    let mut sent = 0_u64;
    let start = Instant::now();
    let mut measured_from = None;
    let end = plan.warm_up + plan.duration;
    while start.elapsed() < end {
        let elapsed = start.elapsed();
        if measured_from.is_none() && elapsed >= plan.warm_up {
            measured_from = Some((target.processes.spent()?, sent));
            latencies.reset();
        }
        let due = whole(elapsed.as_secs_f64() * plan.rate);
        while sent < due {
            let index = sent as usize % plan.connections;
            let round = sent / plan.connections as u64;
            if qos == QoS::AtLeastOnce {
                packets::set_packet_id(&mut frames[index], (round % 60_000 + 1) as u16);
            }
            swarm.links[index].at = Some(Instant::now());
            swarm.send(index, &frames[index])?;
            sent += 1;
        }
        swarm.turn(None, |link, kind, _| {
            if kind == PacketType::PubAck {
                acked += 1;
                if let Some(at) = link.at.take() {
                    latencies.saturating_record(at.elapsed().as_micros() as u64);
                }
            }
            Ok(())
        })?;
    }
    let (before, sent_before) = measured_from.ok_or(BenchError::Protocol)?;
    settle(&mut swarm, qos, sent, &mut acked)?;
    let spent = target.processes.spent()? - before;
    let count = sent - sent_before;
    if qos == QoS::AtMostOnce {
        let gateway = ("qos0_gateway_cpu_us", "CPU us per QoS 0 message at a fixed rate, gateway alone");
        return Ok(cpu_figures(spent, count, gateway, "qos0_cpu_us"));
    }
    let gateway = ("qos1_gateway_cpu_us", "CPU us per QoS 1 message at a fixed rate, gateway alone");
    let mut figures = cpu_figures(spent, count, gateway, "qos1_cpu_us");
    figures.extend([
        Figure::less("qos1_ack_p50_us", "... ack p50 us", latencies.value_at_quantile(0.5) as f64),
        Figure::less("qos1_ack_p99_us", "... ack p99 us", latencies.value_at_quantile(0.99) as f64),
    ]);
    Ok(figures)
}

/// Until the broker has read all of it: by its acknowledgements, or by its answers to a ping behind the last message.
fn settle(swarm: &mut Swarm, qos: QoS, sent: u64, acked: &mut u64) -> Result<(), BenchError> {
    let deadline = Instant::now() + PATIENCE;
    if qos == QoS::AtLeastOnce {
        while *acked < sent {
            swarm.check(deadline, "PUBACKs", (sent - *acked) as usize)?;
            swarm.turn(Some(TICK), |_, kind, _| {
                *acked += u64::from(kind == PacketType::PubAck);
                Ok(())
            })?;
        }
        return Ok(());
    }
    ping_all(swarm)
}

/// A PINGREQ on each connection, and all answers: everything before it was read.
fn ping_all(swarm: &mut Swarm) -> Result<(), BenchError> {
    let ping = packets::pingreq();
    for index in 0..swarm.links.len() {
        swarm.send(index, &ping)?;
    }
    swarm.expect("PINGRESPs", PacketType::PingResp, swarm.links.len())
}
