//! A node whose process may open no further file, in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::{World, wait_until};

/// Files that the process may open: enough for the node and some dozens of connections.
const FILES: usize = 80;

#[test]
fn connections_beyond_the_limit_of_open_files_wait_and_cost_no_cpu() {
    let (mut node, stdin, address) = start_child();
    let waiting: Vec<Client> = (0..2 * FILES).map(|_| Client::open(address)).collect();
    // It is full by now: this one is not answered until others leave.
    let mut late = Client::open(address);
    late.send(&crate::client::connect_311("late"));

    let (started, cpu_before) = (Instant::now(), cpu_ticks(&node));
    wait_until("half a second has passed", || started.elapsed() > Duration::from_millis(500));
    let spent = cpu_ticks(&node) - cpu_before;
    assert!(spent <= 10, "{spent} of 50 ticks were spent on connections that cannot be accepted");

    drop(waiting);
    assert_eq!(late.read().first, crate::client::CONNACK);
    late.ping();
    drop(stdin);
    node.wait().unwrap();
}

#[test]
#[ignore = "runs as the other process of the test above"]
fn serve_until_stdin_ends() {
    let world = World::start_with(|config| config.shards = 1);
    writeln!(std::io::stderr(), "listening on {}", world.mqtt()).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn start_child() -> (Child, ChildStdin, std::net::SocketAddr) {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {FILES} && exec \"$0\" --ignored --exact few_files::serve_until_stdin_ends"))
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines
        .find_map(|line| line.unwrap().strip_prefix("listening on ").map(|address| address.parse().unwrap()))
        .expect("the node says where it listens");
    // Nobody reads on, and a full pipe would stop the node.
    std::thread::spawn(move || lines.for_each(drop));
    (child, stdin, address)
}

/// User and system time of a process, in hundredths of a second.
fn cpu_ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
