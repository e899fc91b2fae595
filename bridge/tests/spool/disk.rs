//! A spool on a file system that is really full.

use std::io::{Write, stderr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_bridge::log::verify;
use holdfast_bridge::sink::Sink;
use holdfast_bridge::spool::{OutageConfig, OutageSink};

use crate::broker::{Broker, assert_kept, has_all};
use crate::devices::{Devices, WINDOW, until};

/// A file system of 1 MiB; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// What the system says where the test may not mount one.
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(directory.path())
            .output()
            .map_err(|error| error.to_string())?;
        if mount.status.success() {
            return Ok(Self(directory));
        }
        let said = String::from_utf8_lossy(&mount.stderr);
        Err(said.lines().next().unwrap_or("no reason given").to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_outage_of_the_spool_and_ends_with_that_of_the_sink_or_its_own() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(missing) => {
            // `released` in the crate tells of a log that refuses. Not by `eprintln!`: of a test that passes nobody would see it.
            let _ =
                writeln!(stderr(), "NOT TRIED: a spool on a full disk: no tmpfs can be mounted ({missing})");
            return;
        }
    };
    for ballast_kib in [1_000, 700] {
        let config = OutageConfig {
            outage_after: Duration::from_millis(40),
            ..OutageConfig::in_directory(&disk.0.path().join("spool"))
        };
        let broker = Broker::start(1);
        let sink = Arc::new(OutageSink::start(Arc::new(broker.clone()), &config).unwrap());
        let ballast = disk.0.path().join("ballast");
        // As much of it as fits.
        let _ = std::fs::write(&ballast, vec![0; ballast_kib << 10]);
        let devices = Devices::new(1, 5);
        let stop = Arc::new(AtomicBool::new(false));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let link: Arc<dyn Sink> = Arc::clone(&sink) as _;
        runtime.spawn(devices.clone().publish(link, 20, Arc::clone(&stop), u64::MAX));
        until("acknowledged", || devices.acknowledged_count() > 500);
        broker.hang();
        until("the spool takes nothing", || sink.health().spool.is_some_and(|spool| !spool.stores));
        until("devices are held back", || devices.unacknowledged_count() >= WINDOW);
        // The disk stays full, the sink comes back.
        broker.heal();
        let held = devices.acknowledged_count();
        until("devices go on", || devices.acknowledged_count() > held + 2_000);
        // Both at once, and this time the disk has room first.
        broker.hang();
        std::fs::remove_file(&ballast).unwrap();
        let held = devices.acknowledged_count();
        until("the spool takes frames", || devices.acknowledged_count() > held + 2_000);
        broker.heal();
        stop.store(true, Ordering::Release);
        until("all stored", || has_all(&broker.stored(), &devices.acknowledged()));
        assert_kept(&broker.stored(), &devices.acknowledged());
        until("the spool is empty", || verify(&config.directory).unwrap().records == 0);
        broker.close();
    }
}
