//! CPU per connect, and how long until everyone is back after everyone was cut.

use std::time::Instant;

use super::cpu_figures;
use crate::bench::swarm::Swarm;
use crate::bench::web_socket::Carrier;
use crate::bench::{BenchError, BenchPlan, Figure, Target};

/// Connections that come before anything is measured.
const WARM_UP: usize = 500;

pub(super) fn run(plan: &BenchPlan, target: &Target) -> Result<Vec<Figure>, BenchError> {
    let mut swarm = Swarm::new(target, Carrier::Tcp)?;
    let warm_up = WARM_UP.min(plan.storm_connections / 2);
    swarm.connect(warm_up, plan.connects_in_flight)?;
    let before = target.processes.spent()?;
    swarm.connect(plan.storm_connections, plan.connects_in_flight)?;
    let spent = target.processes.spent()? - before;
    let gateway = ("connect_gateway_cpu_us", "CPU us per MQTT connect, gateway alone");
    let mut figures =
        cpu_figures(spent, (plan.storm_connections - warm_up) as u64, gateway, "connect_cpu_us");

    let cut = Instant::now();
    swarm.cut();
    swarm.connect(plan.storm_connections, plan.connects_in_flight)?;
    let back_s = cut.elapsed().as_secs_f64();
    figures.push(Figure::less("storm_back_s", "all back after a cut, s", back_s));
    Ok(figures)
}
