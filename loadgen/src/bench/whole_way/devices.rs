//! Connections that publish at `QoS` 1 and wait for their PUBACKs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use holdfast_wire::mqtt::{PacketType, QoS};

use super::{Meter, Phase, Swarm, WayPlan, WayTarget};
use crate::bench::measures::{frame_topic, latencies_us};
use crate::bench::swarm::PATIENCE;
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, Processes, packets};

const TICK: Duration = Duration::from_millis(1);

/// Connects on their way at once.
const CONNECTS: usize = 512;

pub(super) fn run(plan: &WayPlan, target: &WayTarget, rate: Option<u32>) -> Result<Phase, BenchError> {
    let mut swarm = Swarm::to(target.mqtt, Carrier::Tcp)?;
    let connections = if rate.is_some() { plan.connections } else { plan.flat_out_connections };
    swarm.connect(connections, CONNECTS)?;
    let payload = vec![b'x'; plan.payload_bytes];
    let frames: Vec<Vec<u8>> = (0..connections)
        .map(|index| packets::publish(&frame_topic(index), QoS::AtLeastOnce, &payload))
        .collect();
    let mut processes = target.processes.clone();
    processes.push(("devices", Processes::new(vec![std::process::id()])));
    match rate {
        Some(rate) => at_rate(plan, &mut swarm, frames, &processes, f64::from(rate)),
        None => flat_out(plan, &mut swarm, frames, &processes),
    }
}

/// An open loop. A frame's latency counts from the moment it was due, not from the one at which a late driver sent it.
fn at_rate(
    plan: &WayPlan,
    swarm: &mut Swarm,
    mut frames: Vec<Vec<u8>>,
    processes: &[(&'static str, Processes)],
    rate: f64,
) -> Result<Phase, BenchError> {
    swarm.pace(TICK)?;
    let connections = frames.len();
    // When each unacknowledged frame of a connection was due; acknowledgements come in their order [MQTT-4.6.0-2].
    let mut owed: Vec<VecDeque<Instant>> = vec![VecDeque::new(); connections];
    let (mut sent, mut acked) = (0_u64, 0_u64);
    let (mut latencies, mut late) = (latencies_us(), latencies_us());
    let start = Instant::now();
    let mut measured = None;
    let mut settling = false;
    let deadline = start + plan.warm_up + plan.duration + PATIENCE;
    while !settling || acked < sent {
        let elapsed = start.elapsed();
        if measured.is_none() && elapsed >= plan.warm_up {
            measured = Some((Meter::start(processes)?, Instant::now(), acked));
            latencies.reset();
            late.reset();
        }
        settling = elapsed >= plan.warm_up + plan.duration;
        if settling {
            swarm.check(deadline, "PUBACKs", (sent - acked) as usize)?;
        }
        // By the clock of this turn: what falls due meanwhile is the next one's, or a driver that is too slow would never hear an answer.
        let now = start + elapsed;
        while !settling && due(start, sent, rate) <= now {
            let index = sent as usize % connections;
            let round = sent / connections as u64;
            packets::set_packet_id(&mut frames[index], (round % 60_000 + 1) as u16);
            let due = due(start, sent, rate);
            late.saturating_record(now.saturating_duration_since(due).as_micros() as u64);
            owed[index].push_back(due);
            swarm.send(index, &frames[index])?;
            sent += 1;
        }
        swarm.turn(settling.then_some(TICK), |link, kind, _| {
            if kind == PacketType::PubAck {
                acked += 1;
                let due = owed[link.index].pop_front().ok_or(BenchError::Protocol)?;
                latencies.saturating_record(due.elapsed().as_micros() as u64);
            }
            Ok(())
        })?;
    }
    let (meter, since, acked_before) = measured.ok_or(BenchError::Protocol)?;
    Ok(Phase {
        frames: acked - acked_before,
        seconds: since.elapsed().as_secs_f64(),
        cpu_us: meter.stop()?,
        latencies_us: latencies,
        late_us: late,
    })
}

fn due(start: Instant, sequence: u64, rate: f64) -> Instant {
    start + Duration::from_secs_f64(sequence as f64 / rate)
}

/// A window of frames on each connection; each acknowledgement makes room for the next.
fn flat_out(
    plan: &WayPlan,
    swarm: &mut Swarm,
    mut frames: Vec<Vec<u8>>,
    processes: &[(&'static str, Processes)],
) -> Result<Phase, BenchError> {
    for (link, frame) in swarm.links.iter_mut().zip(&mut frames) {
        for packet_id in 1..=plan.inflight {
            packets::set_packet_id(frame, packet_id);
            link.queue(frame);
        }
        link.flush()?;
    }
    let mut acked = 0_u64;
    let start = Instant::now();
    let mut measured = None;
    while start.elapsed() < plan.warm_up + plan.duration + PATIENCE {
        match &measured {
            Some((_, since, before)) if !plan.goes_on(*since, acked - before) => break,
            None if start.elapsed() >= plan.warm_up && acked > 0 => {
                measured = Some((Meter::start(processes)?, Instant::now(), acked));
            }
            _ => {}
        }
        swarm.turn(Some(Duration::from_millis(10)), |link, kind, packet| {
            if kind == PacketType::PubAck {
                acked += 1;
                // The id that has become free is the next one.
                let packet_id = packets::ack_packet_id(packet).ok_or(BenchError::Protocol)?;
                packets::set_packet_id(&mut frames[link.index], packet_id);
                link.queue(&frames[link.index]);
            }
            Ok(())
        })?;
    }
    let (meter, since, acked_before) = measured.ok_or(BenchError::Protocol)?;
    let phase = Phase {
        frames: acked - acked_before,
        seconds: since.elapsed().as_secs_f64(),
        cpu_us: meter.stop()?,
        latencies_us: latencies_us(),
        late_us: latencies_us(),
    };
    // What is on its way is owed an answer; a gateway that forgets one has no figure.
    let owed = acked + plan.unsettled_max();
    let deadline = Instant::now() + PATIENCE;
    while acked < owed {
        swarm.check(deadline, "PUBACKs", (owed - acked) as usize)?;
        swarm.turn(Some(TICK), |_, kind, _| {
            acked += u64::from(kind == PacketType::PubAck);
            Ok(())
        })?;
    }
    Ok(phase)
}
