//! Figures of an MQTT broker: bytes per connection, CPU per message, rates, latencies, the return of a fleet.
//!
//! Knows a broker by its address and its process ids only, so that every broker is measured alike. The driver shares
//! the machine with what it measures and must cost far less: one thread, mio, prebuilt packets, no tokio.
//!
//! A benchmark counts answers and does not ask what became of each message: what was lost, doubled or changed is for `loadgen run` to find. But whoever
//! forgets one, or a connection, has no figure.
//!
//! [`run`] measures one broker, [`compare()`] several in turn and prints them side by side. Start with [`BenchPlan`],
//! then `swarm` (the connections) and the folder `measures` (one file for each kind of figure).

pub mod compare;
mod contender;
mod error;
mod floor;
mod goals;
mod markdown;
mod measures;
mod packets;
mod plan;
mod process;
#[cfg(feature = "rumqttd")]
mod reference;
pub mod silence;
mod swarm;
mod table;
mod web_socket;
pub mod whole_way;

use std::net::SocketAddr;

pub use self::compare::compare;
pub(crate) use self::contender::HOLDFAST_GATEWAY_THREADS;
pub use self::contender::{Contender, Reexec};
pub use self::error::BenchError;
pub use self::floor::serve as serve_floor;
pub use self::plan::{BenchPlan, Measure};
pub use self::process::{CpuTime, Memory, Processes, Spent};
#[cfg(feature = "rumqttd")]
pub use self::reference::serve as serve_rumqttd;
pub use self::table::{Better, Figure, Table};

/// A broker that runs.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the table calls it.
    pub name: String,
    /// MQTT over TCP.
    pub mqtt: SocketAddr,
    /// WebSocket, if it has one.
    pub ws: Option<SocketAddr>,
    /// Whether it speaks Holdfast's JSON protocol at `ws`.
    pub json: bool,
    /// The processes whose memory and CPU count.
    pub processes: Processes,
}

/// Measures one broker. A measure that fails leaves its reason in the table and the others go on.
pub fn run(plan: &BenchPlan, target: &Target, mut say: impl FnMut(&str)) -> Table {
    let mut table = Table::new(&target.name);
    for measure in &plan.measures {
        if !measure.applies_to(target) {
            continue;
        }
        say(&format!("{}: {}", target.name, measure.title()));
        match measures::run(*measure, plan, target) {
            Ok(figures) => {
                for figure in &figures {
                    say(&format!("  {:.2} {}", figure.value, figure.title));
                }
                table.extend(figures);
            }
            Err(error) => table.failed(*measure, &error),
        }
    }
    table
}
