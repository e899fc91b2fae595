//! A part of the fleet in a process of its own: it does as its order says, tells what it sees in a line now and then, and ends by word.
//!
//! Down standard input comes `end`, once. Its end without that word means that the parent is gone, and nothing more is to be judged.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::FailoverError;
use crate::fleet::{Fleet, Gateway, Snapshot, Targets};
use crate::plan::FleetPlan;

/// How often it tells what it sees.
const TELL: Duration = Duration::from_millis(100);

/// The word.
pub(super) const END: &str = "end";

/// What a part is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) plan: FleetPlan,
    /// MQTT and WebSocket of each gateway.
    pub(super) gateways: Vec<(SocketAddr, SocketAddr)>,
    pub(super) http: Vec<SocketAddr>,
    /// Where its ledger is to be written.
    pub(super) ledger: PathBuf,
}

/// Carries out the order in this file.
pub fn serve(order: &Path) -> Result<(), FailoverError> {
    let failed = |source| FailoverError::Io { what: order.display().to_string(), source };
    let text = std::fs::read(order).map_err(failed)?;
    let order: Order = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(carry_out(order, listen()))
}

async fn carry_out(
    Order { plan, gateways, http, ledger }: Order,
    mut word: oneshot::Receiver<bool>,
) -> Result<(), FailoverError> {
    let gateways = gateways.into_iter().map(|(mqtt, ws)| Gateway { mqtt, ws }).collect();
    let fleet = Fleet::start(plan, Targets { gateways, http })?;
    let mut looks = tokio::time::interval(TELL);
    let is_told = loop {
        tokio::select! {
            said = &mut word => break said.unwrap_or(false),
            _ = looks.tick() => tell(fleet.snapshot()),
        }
    };
    if !is_told {
        return Err(FailoverError::Stuck("the process that started this part is gone".to_owned()));
    }
    fleet.end();
    fleet.finish().await.write(&ledger)?;
    Ok(())
}

/// Whoever listened may be gone, and then the word comes.
fn tell(snapshot: Snapshot) {
    let line = serde_json::to_string(&snapshot).expect("plain fields always serialise");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Whether the word came, once standard input has a line or ends.
fn listen() -> oneshot::Receiver<bool> {
    let (say, word) = oneshot::channel();
    // Never joined: it may wait for ever, and ends with the process.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        let _ = say.send(read.is_ok() && line.trim_end() == END);
    });
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_written_reads_back() {
        let address: SocketAddr = ([127, 0, 0, 1], 7).into();
        let plan = FleetPlan { return_weights: vec![3, 1], home_gateways: 1, ..FleetPlan::default() };
        let order =
            Order { plan, gateways: vec![(address, address)], http: vec![address], ledger: "l".into() };
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
    }

    #[test]
    fn a_part_without_its_order_says_which_file() {
        let error = serve(Path::new("/nowhere/order")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/order: "), "{error}");
    }
}
