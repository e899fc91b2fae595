//! As fast as it goes. Driver and broker share the cores, so the figure is of both; the driver's part is small and
//! the same for every broker.

use std::time::{Duration, Instant};

use holdfast_wire::mqtt::{PacketType, QoS};

use super::{frame_topic, payload};
use crate::bench::swarm::{PATIENCE, Swarm};
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, BenchPlan, Figure, Target, packets};

/// Messages of one write at `QoS` 0; a ping stands behind them.
const BLOCK: usize = 256;

/// Blocks of one connection whose ping is not answered. The kernel would take gigabytes for a broker that is slower
/// than the flood, which it reads long after the flood has ended: Mosquitto needed more than a minute.
const BLOCKS_IN_FLIGHT: usize = 2;

/// A window of messages on each connection; each acknowledgement makes room for the next.
pub(super) fn qos1(plan: &BenchPlan, target: &Target) -> Result<Vec<Figure>, BenchError> {
    let mut swarm = open(plan, target)?;
    let mut frames = frames(plan, QoS::AtLeastOnce);
    for (link, frame) in swarm.links.iter_mut().zip(&mut frames) {
        for packet_id in 1..=plan.inflight {
            packets::set_packet_id(frame, packet_id);
            link.queue(frame);
        }
        link.flush()?;
    }
    let mut acked = 0_u64;
    let mut sending = true;
    let mut turn = |swarm: &mut Swarm, sending: bool, acked: &mut u64| {
        swarm.turn(Some(Duration::from_millis(10)), |link, kind, packet| {
            if kind == PacketType::PubAck {
                *acked += 1;
                if sending {
                    // The id that has become free is the next one.
                    let packet_id = packets::ack_packet_id(packet).ok_or(BenchError::Protocol)?;
                    packets::set_packet_id(&mut frames[link.index], packet_id);
                    link.queue(&frames[link.index]);
                }
            }
            Ok(())
        })
    };
    let start = Instant::now();
    while start.elapsed() < plan.warm_up {
        turn(&mut swarm, sending, &mut acked)?;
    }
    let (acked_before, measured_from) = (acked, Instant::now());
    while measured_from.elapsed() < plan.duration {
        turn(&mut swarm, sending, &mut acked)?;
    }
    let rate = (acked - acked_before) as f64 / measured_from.elapsed().as_secs_f64();
    // What is on its way is owed an answer; a broker that forgets one has no figure.
    sending = false;
    let owed = plan.flat_out_connections as u64 * u64::from(plan.inflight);
    let drained_from = acked;
    let deadline = Instant::now() + PATIENCE;
    while acked - drained_from < owed {
        swarm.check(deadline, "PUBACKs", (owed - (acked - drained_from)) as usize)?;
        turn(&mut swarm, sending, &mut acked)?;
    }
    Ok(vec![Figure::more("qos1_flat_out_per_s", "QoS 1 flat out, acks/s", rate)])
}

/// Blocks of messages with a ping behind each; its answer tells that the block was read and makes room for the next.
pub(super) fn qos0(plan: &BenchPlan, target: &Target) -> Result<Vec<Figure>, BenchError> {
    let mut swarm = open(plan, target)?;
    let blocks: Vec<Vec<u8>> = frames(plan, QoS::AtMostOnce)
        .into_iter()
        .map(|frame| [frame.repeat(BLOCK), packets::pingreq()].concat())
        .collect();
    for (link, block) in swarm.links.iter_mut().zip(&blocks) {
        for _ in 0..BLOCKS_IN_FLIGHT {
            link.queue(block);
        }
        link.flush()?;
    }
    let mut read = 0_u64;
    let turn = |swarm: &mut Swarm, sending: bool, read: &mut u64| {
        swarm.turn(Some(Duration::from_millis(10)), |link, kind, _| {
            if kind == PacketType::PingResp {
                *read += BLOCK as u64;
                if sending {
                    link.queue(&blocks[link.index]);
                }
            }
            Ok(())
        })
    };
    let start = Instant::now();
    while start.elapsed() < plan.warm_up {
        turn(&mut swarm, true, &mut read)?;
    }
    let (read_before, measured_from) = (read, Instant::now());
    while measured_from.elapsed() < plan.duration {
        turn(&mut swarm, true, &mut read)?;
    }
    let rate = (read - read_before) as f64 / measured_from.elapsed().as_secs_f64();
    let owed = (plan.flat_out_connections * BLOCKS_IN_FLIGHT * BLOCK) as u64;
    let drained_from = read;
    let deadline = Instant::now() + PATIENCE;
    while read - drained_from < owed {
        swarm.check(deadline, "messages", (owed - (read - drained_from)) as usize)?;
        turn(&mut swarm, false, &mut read)?;
    }
    Ok(vec![Figure::more("qos0_flat_out_per_s", "QoS 0 flat out, messages/s", rate)])
}

fn open(plan: &BenchPlan, target: &Target) -> Result<Swarm, BenchError> {
    let mut swarm = Swarm::new(target, Carrier::Tcp)?;
    swarm.connect(plan.flat_out_connections, plan.connects_in_flight)?;
    Ok(swarm)
}

fn frames(plan: &BenchPlan, qos: QoS) -> Vec<Vec<u8>> {
    let payload = payload(plan);
    (0..plan.flat_out_connections).map(|index| packets::publish(&frame_topic(index), qos, &payload)).collect()
}
