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
    way: Way,
}

/// Where a process may mount something for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In a mount namespace: root may, unless a container has taken the right away.
    Mounts,
    /// In a user namespace around it, where everyone is root; unless the kernel gives none to users, or a container forbids it.
    MountsAsUser,
}

/// How a process sees the world by these names.
#[derive(Clone, Debug)]
pub(crate) struct View {
    hosts: PathBuf,
    way: Way,
}

impl Names {
    /// With no name in it. Where nothing can be mounted, what the system says to that, in one line.
    ///
    /// # Panics
    /// When the system's temporary folder cannot be written.
    pub fn new() -> Result<Self, String> {
        let folder =
            TempDir::with_prefix("holdfast-names-").expect("the system's temporary folder is writable");
        let mut this = Self { folder, way: Way::Mounts };
        this.set("localhost", &[]);
        let mut refusals = Vec::new();
        for way in [Way::Mounts, Way::MountsAsUser] {
            this.way = way;
            match this.view().refusal() {
                None => return Ok(this),
                Some(refusal) => refusals.push(refusal),
            }
        }
        refusals.dedup();
        Err(format!(
            "no process can be given names of its own, as nothing can be mounted ({})",
            refusals.join("; ")
        ))
    }

    /// From now on `name` has these addresses, and no other name has any.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        let lines: Vec<_> = addresses.iter().map(|address| format!("{address} {name}\n")).collect();
        // In place, as what is mounted is this file and not its name.
        fs::write(self.hosts(), lines.concat()).expect("a file of our own");
    }

    pub(crate) fn view(&self) -> View {
        View { hosts: self.hosts(), way: self.way }
    }

    fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }
}

impl View {
    /// A command that becomes `program`; its arguments follow. It stays one process, so that signals meet the program.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        if self.way == Way::MountsAsUser {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
        command.arg(&self.hosts).arg(program);
        command
    }

    /// Why no process can have it; none: one can.
    fn refusal(&self) -> Option<String> {
        match self.command(Path::new("true")).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                Some(String::from_utf8_lossy(&output.stderr).lines().collect::<Vec<_>>().join(", "))
            }
            Err(error) => Some(format!("unshare: {error}")),
        }
    }
}
