//! Host names that mean what a test says, to one process alone: it sees a hosts file of the test's own in place of the system's, by a mount that
//! nobody else sees.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A hosts file, gone with this value. Resolvers read it anew at each look-up.
#[derive(Debug)]
pub struct Names {
    folder: TempDir,
}

impl Names {
    /// With no name in it; none where the kernel lets us mount nothing.
    ///
    /// # Panics
    /// When the system's temporary folder cannot be written.
    pub fn new() -> Option<Self> {
        let folder =
            TempDir::with_prefix("holdfast-names-").expect("the system's temporary folder is writable");
        let this = Self { folder };
        this.set("localhost", &[]);
        let mut probe = resolve(&this.path(), Path::new("true"));
        let outcome = probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        outcome.is_ok_and(|status| status.success()).then_some(this)
    }

    /// From now on `name` has these addresses, and no other name has any.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        let lines: Vec<_> = addresses.iter().map(|address| format!("{address} {name}\n")).collect();
        // In place, as what is mounted is this file and not its name.
        fs::write(self.path(), lines.concat()).expect("a file of our own");
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }
}

/// A command that becomes `program`, with the names of a [`Names::path`]; its arguments follow. It stays one process, so that signals meet the program.
pub(crate) fn resolve(hosts: &Path, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    command.arg(hosts).arg(program);
    command
}
