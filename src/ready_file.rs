//! The ready file: where a process listens, for whoever started it. It is there once devices (a bridge: links) are admitted, and goes
//! when the process drains.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What stands in it; null where a listener is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// MQTT over TCP.
    pub(crate) mqtt: Option<SocketAddr>,
    /// WebSocket.
    pub(crate) ws: Option<SocketAddr>,
    /// Metrics, health, device lookup.
    pub(crate) admin: Option<SocketAddr>,
    /// `POST /v1/push`; in `dev` the admin address.
    pub(crate) push: Option<SocketAddr>,
    /// Links of gateways, where a bridge is a process of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<SocketAddr>,
    /// The process.
    pub(crate) pid: u32,
    /// Its node id, or bridge id.
    pub(crate) node: String,
}

impl Ready {
    /// Reads it back; an error while it is not there.
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }
}

/// A ready file that will be: its place was tried before anything was opened.
#[derive(Debug)]
pub(crate) struct ReadyFile {
    file: PathBuf,
    half: PathBuf,
    /// What stands in it is ours.
    is_published: bool,
}

impl ReadyFile {
    /// Tries the place, and takes away what a process that was killed left there; that of one that runs is not touched before ours is published.
    pub(crate) fn prepare(file: PathBuf) -> io::Result<Self> {
        let mut half = file.clone().into_os_string();
        half.push(".part");
        let half = PathBuf::from(half);
        fs::write(&half, "")?;
        // From here on dropping it tidies up.
        let prepared = Self { file, half, is_published: false };
        if is_of_running_process(&prepared.file) {
            return Ok(prepared);
        }
        match fs::remove_file(&prepared.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(prepared),
        }
    }

    /// Writes it under another name and renames it, so that nobody sees half of it.
    pub(crate) fn publish(&mut self, ready: &Ready) -> io::Result<()> {
        fs::write(&self.half, serde_json::to_vec(ready)?)?;
        fs::rename(&self.half, &self.file)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // One of them is there, unless whoever started us took it away.
        let _ = fs::remove_file(&self.half);
        if self.is_published {
            let _ = fs::remove_file(&self.file);
        }
    }
}

/// In a container a process that was killed may have had our own id.
fn is_of_running_process(file: &Path) -> bool {
    Ready::read(file).is_ok_and(|ready| {
        ready.pid != std::process::id() && Path::new(&format!("/proc/{}", ready.pid)).exists()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let ready = Ready {
            mqtt: Some("127.0.0.1:1883".parse().unwrap()),
            ws: None,
            admin: Some("127.0.0.1:9090".parse().unwrap()),
            push: Some("127.0.0.1:9090".parse().unwrap()),
            link: None,
            pid: 7,
            node: "00000000000000ab".to_owned(),
        };
        fs::write(&path, "left by a process that was killed").unwrap();
        let mut file = ReadyFile::prepare(path.clone()).unwrap();
        assert!(!path.exists());
        file.publish(&ready).unwrap();
        assert_eq!(Ready::read(&path).unwrap(), ready);
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn that_of_a_process_that_runs_outlives_a_start_that_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        // The first process of the machine runs as long as any does.
        let other = r#"{"mqtt":null,"ws":null,"admin":null,"push":null,"pid":1,"node":"x"}"#;
        fs::write(&path, other).unwrap();
        drop(ReadyFile::prepare(path.clone()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), other);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
