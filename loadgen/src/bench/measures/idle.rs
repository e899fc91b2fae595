//! Bytes per idle connection: what memory grows by between a thousand connections and many.

use super::push_topic;
use crate::bench::swarm::{PATIENCE, Swarm};
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, BenchPlan, Figure, Target};

use holdfast_wire::mqtt::QoS;

pub(super) fn run(
    plan: &BenchPlan,
    target: &Target,
    carrier: Carrier,
    subscribed: bool,
) -> Result<Vec<Figure>, BenchError> {
    let mut swarm = Swarm::new(target, carrier)?;
    let grow = |swarm: &mut Swarm, from: usize, to: usize| {
        swarm.connect(to, plan.connects_in_flight)?;
        if subscribed {
            swarm.subscribe(from..to, push_topic, QoS::AtLeastOnce)?;
        }
        target.processes.memory_at_rest()
    };
    // The first connections pay for what every further one shares: pools, tables, code that is paged in.
    let before = grow(&mut swarm, 0, plan.idle_from)?;
    let after = grow(&mut swarm, plan.idle_from, plan.idle_to)?;
    let grown = after.resident_bytes as f64 - before.resident_bytes as f64;
    // A broker that sheds connections would hold fewer bytes for each that was opened.
    let gone = plan.idle_to - swarm.roll_call(PATIENCE)?;
    if gone > 0 {
        return Err(BenchError::Gone { gone, connections: plan.idle_to });
    }
    let bytes = grown / (plan.idle_to - plan.idle_from).max(1) as f64;
    let (key, title) = match (carrier, subscribed) {
        (Carrier::Tcp, false) => ("idle_bytes", "user-space bytes per idle MQTT connection"),
        (Carrier::Tcp, true) => ("idle_subscribed_bytes", "... with one subscription"),
        (Carrier::WebSocketMqtt, _) => ("idle_websocket_bytes", "... MQTT over WebSocket"),
        (Carrier::WebSocketJson, _) => ("idle_json_bytes", "... JSON over WebSocket"),
    };
    Ok(vec![Figure::less(key, title, bytes)])
}
