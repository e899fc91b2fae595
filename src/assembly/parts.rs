//! What more than one role opens, and why it cannot.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink, KafkaStartError};
use holdfast_bridge::log::{Log, LogConfig, LogError};
use holdfast_bridge::sink::Sink;
use holdfast_bridge::spool::{OutageConfig, OutageSink, Spool, SpoolError};
use holdfast_store::{OpenError, Options, Store};

use crate::config::without_password;

/// Why a process did not start; each displays as one line. Nothing is left open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The data directory cannot be made.
    #[error("data_dir = {}: {error}; it must be a directory that this process may write", directory.display())]
    DataDirectory {
        /// Which.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The store in it cannot be opened.
    #[error("data_dir = {}: {error}", directory.display())]
    OwnStore {
        /// Which data directory.
        directory: PathBuf,
        /// Why, and how to mend it.
        error: OpenError,
    },
    /// The store that `store.url` names cannot be opened.
    #[error("store.url = {url}: {error}")]
    Store {
        /// Without its password.
        url: String,
        /// Why, and how to mend it.
        error: OpenError,
    },
    /// The log in the data directory cannot be opened.
    #[error("data_dir = {}: {error}", directory.display())]
    Log {
        /// Which data directory.
        directory: PathBuf,
        /// Why, and how to mend it.
        error: LogError,
    },
    /// Kafka cannot be reached, or not be used as configured.
    #[error(transparent)]
    Kafka(#[from] KafkaStartError),
    /// The spool in the data directory cannot be opened.
    #[error("data_dir = {}: {error}", directory.display())]
    Spool {
        /// Which data directory.
        directory: PathBuf,
        /// Why, and how to mend it.
        error: SpoolError,
    },
    /// An address cannot be taken.
    #[error("{key} = {address}: {error}; choose another address, or end the process that holds it")]
    Listen {
        /// The key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The bridge does not start.
    #[error(transparent)]
    Bridge(#[from] holdfast_bridge::StartError),
    /// The gateway does not start: most often an address that is taken.
    #[error(transparent)]
    Node(#[from] holdfast_gateway::StartError),
    /// The system refused something that is not the configuration's fault.
    #[error("the system refused {what}: {error}")]
    System {
        /// Which resource.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

/// The store that `url` names; without one, that in the data directory, which is there already.
pub(super) fn open_store(
    url: Option<&str>,
    data_dir: &Path,
    options: Options,
) -> Result<Arc<dyn Store>, StartError> {
    let Some(url) = url else {
        let store = holdfast_store::EmbeddedStore::open(&data_dir.join("store"), options)
            .map_err(|error| StartError::OwnStore { directory: data_dir.to_owned(), error })?;
        return Ok(Arc::new(store));
    };
    holdfast_store::open(url, options)
        .map_err(|error| StartError::Store { url: without_password(url), error })
}

/// Makes the data directory if it is not there.
pub(super) fn make_data_dir(data_dir: &Path) -> Result<(), StartError> {
    fs::create_dir_all(data_dir)
        .map_err(|error| StartError::DataDirectory { directory: data_dir.to_owned(), error })
}

/// Opens the log in the data directory. It is closed when the last clone is dropped.
pub(super) fn open_log(data_dir: &Path, log: LogConfig) -> Result<Arc<Log>, StartError> {
    let (log, recovered) = Log::open(&data_dir.join("log"), log)
        .map_err(|error| StartError::Log { directory: data_dir.to_owned(), error })?;
    tracing::debug!(
        data_dir = %data_dir.display(),
        records = recovered.records,
        segments = recovered.segments,
        "the log is open"
    );
    Ok(Arc::new(log))
}

/// Opens the spool in the data directory, in which an earlier run may have left frames.
pub(super) fn open_spool(data_dir: &Path, outage: &OutageConfig) -> Result<Spool, StartError> {
    Spool::open(outage).map_err(|error| StartError::Spool { directory: data_dir.to_owned(), error })
}

/// Kafka as the sink, with the spool before it.
pub(super) struct KafkaParts {
    pub(super) sink: Arc<dyn Sink>,
    /// Its brokers did not answer yet.
    pub(super) is_awaited: bool,
}

/// Opens Kafka as the sink. The brokers have to answer by now, as their address may be wrong; but if the spool holds frames they were right
/// once, and devices need not wait for them.
pub(super) fn open_kafka(
    data_dir: &Path,
    kafka: KafkaConfig,
    spool: Spool,
) -> Result<KafkaParts, StartError> {
    let kafka = match spool.records() {
        0 => KafkaSink::start(kafka)?,
        _ => KafkaSink::start_or_await(kafka)?,
    };
    let is_awaited = !kafka.has_begun();
    let sink = OutageSink::start_with(Arc::new(kafka), spool)
        .map_err(|error| StartError::Spool { directory: data_dir.to_owned(), error })?;
    Ok(KafkaParts { sink: Arc::new(sink), is_awaited })
}
