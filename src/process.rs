//! What every role does around its own parts: logging, metrics, the ready file, signals, and an end that says how it went.

use std::path::PathBuf;
use std::process::ExitCode;

use holdfast_gateway::{DrainTrigger, Drained, logging, metrics};
use metrics_exporter_prometheus::PrometheusHandle;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::config::{Flags, Loaded, Role, Settings, changed, load};
use crate::failure::Failure;
use crate::open_files;
use crate::ready_file::{Ready, ReadyFile};
use crate::series;
use crate::signals::{drain_on_signal, on_reload_signal};
use crate::upkeep::Upkeep;
use crate::version;

/// A process of some role, around its parts.
pub(crate) struct Process {
    recorder: PrometheusHandle,
    /// How many files it may have open; none: any number.
    files: Option<u64>,
    ready_file: Option<ReadyFile>,
    _upkeep: Upkeep,
}

impl Process {
    /// Before any part starts. Nothing that a wrong configuration could do has been done by then. With `end_with` the process ends
    /// when that one, which started it, does.
    pub(crate) fn begin(role: Role, settings: &Settings, end_with: Option<i32>) -> Result<Self, Failure> {
        logging::init(&settings.log);
        if let Some(parent) = end_with {
            end_together(parent)?;
        }
        let files = open_files::raise_limit();
        let recorder = metrics::install_recorder().map_err(Failure::failed)?;
        version::show();
        series::begin(role, settings.sink_kind);
        let upkeep = Upkeep::start(recorder.clone()).map_err(Failure::failed)?;
        let ready_file = settings.ready_file.clone().map(prepare_ready_file).transpose()?;
        Ok(Self { recorder, files, ready_file, _upkeep: upkeep })
    }

    /// How many files it may have open; none: any number.
    pub(crate) fn open_files_max(&self) -> Option<u64> {
        self.files
    }

    /// What `/metrics` shows.
    pub(crate) fn recorder(&self) -> PrometheusHandle {
        self.recorder.clone()
    }

    /// Whoever waits for the ready file finds it.
    pub(crate) fn publish(&mut self, ready: &Ready) -> Result<(), Failure> {
        let Some(file) = &mut self.ready_file else { return Ok(()) };
        file.publish(ready).map_err(Failure::failed)
    }

    /// The ready file goes: nobody is admitted any more.
    pub(crate) fn withdraw(&mut self) {
        tracing::info!("draining");
        self.ready_file = None;
    }

    /// Connections are files, and the limit leaves `connections_max` of them to devices. Less than what somebody chose, or than anyone would want
    /// of a gateway, is worth a warning.
    pub(crate) fn say_open_files(
        &self,
        loaded: &Loaded,
        gateway: &holdfast_gateway::config::Settings,
        connections_max: usize,
    ) {
        let wanted = u64::from(gateway.shards) * u64::from(gateway.engine.limits.connections_max);
        let wanted =
            if loaded.is_set("limits.connections_max") { wanted } else { wanted.min(CONNECTIONS_WANTED) };
        let Some(files) = self.files.filter(|_| (connections_max as u64) < wanted) else { return };
        tracing::warn!(
            files,
            connections = connections_max,
            "the limit of open files (ulimit -n) leaves room for so many connections; further ones are refused"
        );
    }
}

/// All parts have started: from now on a signal drains, and a part that panics takes the whole process with it.
pub(crate) fn end_in_order(drain: &DrainTrigger) -> Result<(), Failure> {
    end_on_panic();
    drain_on_signal(drain.clone()).map_err(Failure::failed)
}

/// SIGHUP reads the configuration again, from where it came, and gives it to `apply`; one that is wrong changes nothing. Says which keys it takes up, and
/// which of those that the process began with (`begun`) have changed and wait for its next start.
pub(crate) fn reload_on_signal<F: Flags + Clone + Send + 'static>(
    flags: &F,
    role: Role,
    begun: &Loaded,
    apply: impl Fn(&Settings) + Send + 'static,
) -> Result<(), Failure> {
    let flags = flags.clone();
    let begun = begun.values().clone();
    let mut current = begun.clone();
    on_reload_signal(move || {
        let loaded = load(&flags, std::env::vars_os());
        let checked = loaded.and_then(|loaded| loaded.validate(role).map(|settings| (loaded, settings)));
        match checked {
            Ok((loaded, settings)) => {
                apply(&settings);
                let taken_up = changed(&current, loaded.values(), |key| role.takes_up(key));
                let waiting = changed(&begun, loaded.values(), |key| role.heeds(key) && !role.takes_up(key));
                current.clone_from(loaded.values());
                tracing::info!(taken_up, "the configuration was read again");
                if let Some(keys) = waiting {
                    tracing::warn!(
                        keys,
                        "these keys have other values than at the start, and wait for the next one"
                    );
                }
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was read again and is wrong; nothing changed");
            }
        }
    })
    .map_err(Failure::failed)
}

/// How a node's drain went, for the log and for whoever waits for the process.
pub(crate) fn say_drained(drained: Drained) -> Result<ExitCode, Failure> {
    if drained.buried {
        return Err(Failure::failed(
            "this node was declared dead while it did not run or could not reach the session store; its sessions belong to others, so it has ended: start it anew",
        ));
    }
    if drained.failed {
        return Err(Failure::failed("a shard could not go on, so the node ended; the log says why"));
    }
    if drained.complete {
        tracing::info!("drained: everyone heard a goodbye and nothing is owed");
    } else {
        tracing::warn!(
            cut = drained.cut,
            "the drain ran out of time; what was not acknowledged will be sent again"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Room for fewer connections than this is hardly what anyone meant: it is the limit of a login shell.
const CONNECTIONS_WANTED: u64 = 10_000;

/// Exit status after a panic (`EX_SOFTWARE` of sysexits).
const PANICKED: i32 = 70;

/// A part that has panicked would be missed by the others for ever: the process ends, and whoever supervises it starts a whole one. Nothing
/// that was acknowledged is lost by that.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(PANICKED);
    }));
}

/// So that a process that was started for somebody does not outlive them, however they end.
fn end_together(parent: i32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(Failure::failed)?;
    // It may have ended before the kernel was asked to tell.
    let parent_now = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent_now == Some(parent) { Ok(()) } else { Err(Failure::failed("who started this process is gone")) }
}

fn prepare_ready_file(file: PathBuf) -> Result<ReadyFile, Failure> {
    let shown = file.display().to_string();
    ReadyFile::prepare(file).map_err(|error| {
        Failure::refused(format!(
            "ready_file = {shown}: {error}; it must be a file that this process may write"
        ))
    })
}
