//! `holdfast demo` when things go wrong: a demo that cannot fail would prove nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Starts a demo whose temporary files lie in `folder`, and waits until it says which process its gateway is.
fn start(folder: &std::path::Path) -> (std::process::Child, Pid, impl Iterator<Item = String>) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["demo", "--devices", "20", "--seconds", "60"])
        .env("TMPDIR", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let mut lines = BufReader::new(demo.stderr.take().unwrap()).lines().map_while(Result::ok);
    let gateway = lines
        .find_map(|line| line.split_once("the gateway is process ")?.1.trim().parse().ok())
        .expect("it says which process the gateway is");
    (demo, Pid::from_raw(gateway).unwrap(), lines)
}

#[test]
fn a_gateway_that_dies_fails_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let (mut demo, gateway, lines) = start(folder.path());
    kill_process(gateway, Signal::KILL).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    let last_words: Vec<String> = lines.collect();
    assert!(
        last_words.iter().any(|line| line.contains("the gateway ended with signal: 9")),
        "{last_words:?}"
    );
}

#[test]
fn an_interrupted_demo_says_so_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut demo, gateway, lines) = start(folder.path());
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1));
    assert!(lines.last().unwrap().contains("interrupted; nothing was judged"));
    assert!(kill_process(gateway, Signal::CONT).is_err(), "the gateway still runs");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
