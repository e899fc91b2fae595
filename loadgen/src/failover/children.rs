//! The parent's side of the parts: starts them, sums up what they tell, gives them the word, and joins their ledgers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::part::{END, Order};
use super::{FailoverError, LOOK};
use crate::bench::Reexec;
use crate::cluster::Cluster;
use crate::fleet::{FleetResult, Snapshot};
use crate::plan::FleetPlan;

/// All parts. They end with this value.
pub(super) struct Parts {
    parts: Vec<Part>,
    folder: TempDir,
}

struct Part {
    child: Child,
    /// Its end is the end of the part.
    stdin: Option<ChildStdin>,
    ledger: PathBuf,
    told: Arc<Mutex<Snapshot>>,
}

impl Parts {
    pub(super) fn start(
        plans: &[FleetPlan],
        cluster: &Cluster,
        reexec: &Reexec,
    ) -> Result<Self, FailoverError> {
        let folder = TempDir::with_prefix("holdfast-loadgen-parts-").map_err(io("temporary folder"))?;
        let gateways = cluster.gateways.iter().filter_map(|gateway| Some((gateway.mqtt()?, gateway.ws()?)));
        let gateways: Vec<_> = gateways.collect();
        let http: Vec<_> = cluster.bridges.iter().filter_map(crate::cluster::Role::push).collect();
        let mut parts = Self { parts: Vec::new(), folder };
        for (index, plan) in plans.iter().enumerate() {
            let ledger = parts.folder.path().join(format!("ledger-{index}"));
            let file = parts.folder.path().join(format!("order-{index}"));
            let order = Order { plan: plan.clone(), gateways: gateways.clone(), http: http.clone(), ledger };
            let text = serde_json::to_vec(&order).expect("plain fields always serialise");
            std::fs::write(&file, text).map_err(io("order of a part"))?;
            let mut command = Command::new(&reexec.program);
            command.args(&reexec.arguments).arg("part").arg(file);
            parts.parts.push(Part::start(command, order.ledger)?);
        }
        Ok(parts)
    }

    /// What all of them saw when they last told.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.parts.iter().fold(Snapshot::default(), |sum, part| {
            sum + *part.told.lock().unwrap_or_else(PoisonError::into_inner)
        })
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.parts.iter().map(|part| part.child.id()).collect()
    }

    /// How one ended that should not have.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.parts.iter_mut().find_map(|part| part.child.try_wait().ok().flatten())?;
        Some(format!("a part of the fleet ended with {status}"))
    }

    /// Gives the word, waits for all, and joins what they have to show.
    pub(super) fn finish(mut self, within: Duration) -> Result<FleetResult, FailoverError> {
        for part in &mut self.parts {
            if let Some(mut stdin) = part.stdin.take() {
                writeln!(stdin, "{END}").map_err(io("word to a part"))?;
            }
        }
        let deadline = Instant::now() + within;
        let mut joined: Option<FleetResult> = None;
        for part in &mut self.parts {
            let status = loop {
                if let Some(status) = part.child.try_wait().map_err(io("part"))? {
                    break status;
                }
                if Instant::now() >= deadline {
                    let waited = within.as_secs();
                    let why = format!("a part of the fleet did not end within {waited} s");
                    return Err(FailoverError::Stuck(why));
                }
                sleep(LOOK);
            };
            if !status.success() {
                return Err(FailoverError::Stuck(format!("a part of the fleet ended with {status}")));
            }
            let result = FleetResult::read(&part.ledger)?;
            match &mut joined {
                Some(joined) => joined.join(result).map_err(|error| FailoverError::Ledger(error.into()))?,
                None => joined = Some(result),
            }
        }
        joined.ok_or_else(|| FailoverError::Stuck("there were no parts".to_owned()))
    }
}

impl Part {
    fn start(mut command: Command, ledger: PathBuf) -> Result<Self, FailoverError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(io("part of the fleet"))?;
        let told = Arc::new(Mutex::new(Snapshot::default()));
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            let told = Arc::clone(&told);
            // Ends with the part, which closes the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if let Ok(snapshot) = serde_json::from_str(&line) {
                        *told.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
                    }
                }
            });
        }
        Ok(Self { child, stdin, ledger, told })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Errors here mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> FailoverError {
    let what = what.to_owned();
    move |source| FailoverError::Io { what, source }
}
