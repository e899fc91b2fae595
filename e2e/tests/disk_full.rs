//! A full disk: acknowledgements stop, one clear log line, a metric; space back, work goes on; nothing acknowledged is
//! lost.
//!
//! Needs a file system that can be filled: a tmpfs of a few MiB, which only root may mount. Without it the test says so
//! and passes.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_e2e::packet::{Version, kind, publish};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, End, Setup, Witness, not_tried};
use tempfile::TempDir;

/// Larger than what the gateway creates at its start, small enough to be filled at once.
const SIZE: &str = "64m";

/// A mounted tmpfs, unmounted at the end.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Where mounting is not allowed, what the system says to that, in one line.
    fn mount() -> Result<Self, String> {
        let folder = TempDir::with_prefix("holdfast-e2e-disk-").unwrap();
        let options = format!("size={SIZE}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("mount exists");
        if mount.status.success() {
            return Ok(Self { folder });
        }
        let said = String::from_utf8_lossy(&mount.stderr);
        Err(format!("no tmpfs can be mounted ({})", said.lines().next().unwrap_or("no reason given")))
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte free; removing the file frees them.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            // Halves what does not fit, down to the last byte.
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(missing) => return not_tried("a full disk", &missing),
    };
    let mut gateway = Setup::new().data_dir(&disk.path().join("data")).start();
    let mut client = Client::open(gateway.mqtt(), Version::V5, "device");
    client.send(&publish(Version::V5, 1, "before", 1, b"before"));
    assert_eq!(client.receive_kind(kind::PUBACK).id(), 1);
    assert!(gateway.metrics().sum("holdfast_log_stalled", &[]) == 0);
    let said_before = gateway.stderr().lines().count();

    let ballast = disk.fill();
    // More than any slack of a preallocated block.
    let payload = vec![b'x'; 64 * 1024];
    for id in 2..=21 {
        client.send(&publish(Version::V5, 1, "during", id, &payload));
    }
    until_true("the metric to say that the log is stalled", PATIENCE, || {
        gateway.metrics().sum("holdfast_log_stalled", &[]) == 1
    });
    let mut acknowledged = 0;
    // Those that were stored before the disk was full are on their way, however busy the machine is.
    while let Ok(answer) = client.poll(Duration::from_secs(2)) {
        assert_eq!((answer.kind(), answer.reason() & 0x80), (kind::PUBACK, 0), "{answer:?}");
        acknowledged += 1;
    }
    assert!(acknowledged < 20, "acknowledged what cannot be on the disk");
    // It stays so: no acknowledgement, no end of the connection, no flood of words.
    assert_eq!(client.poll(Duration::from_secs(1)), Err(End::Silence));
    let said = gateway.stderr().lines().count() - said_before;
    assert!((1..=3).contains(&said), "{said} lines about it:\n{}", gateway.stderr());
    assert_eq!(gateway.http("GET", "/livez", &[], b"").status, 200);
    let ready = gateway.http("GET", "/readyz", &[], b"").json();
    assert_eq!(ready["sink"], false, "{ready}");

    fs::remove_file(ballast).unwrap();
    for id in acknowledged + 2..=21 {
        let answer = client.receive_kind(kind::PUBACK);
        assert_eq!((answer.id(), answer.reason() & 0x80), (id, 0));
    }
    until_true("the metric to say that the log works", PATIENCE, || {
        gateway.metrics().sum("holdfast_log_stalled", &[]) == 0
    });
    let ready = gateway.http("GET", "/readyz", &[], b"");
    assert_eq!((ready.status, &ready.json()["sink"]), (200, &true.into()));
    // Whoever comes now is served; a witness starts with a round trip.
    drop(Witness::start(gateway.mqtt()));

    gateway.kill();
    let found = gateway.frames().iter().filter(|frame| frame.client_id == "device").count();
    assert_eq!(found, 21, "frames of the device in the log");
}
