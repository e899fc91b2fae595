//! The binary under test and what the kernel tells of its process.

use std::env;
use std::fs;
use std::path::PathBuf;

/// `target/<profile>/holdfast`, beside the test that runs.
///
/// Cargo names the binary only to tests of its own package, and these are of another; `make test` builds it first.
///
/// # Panics
/// When it is not there, with what to do.
pub fn find_binary() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    test.ancestors().map(|folder| folder.join("holdfast")).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no binary `holdfast` beside {}: `cargo build --workspace --bins` makes it", test.display())
    })
}

/// Bytes of memory that a process holds.
///
/// # Panics
/// When it does not run.
pub fn resident_bytes(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line =
        status.lines().find(|line| line.starts_with("VmRSS:")).expect("a live process has resident memory");
    let kilobytes: u64 =
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("VmRSS in kB");
    kilobytes * 1024
}
