//! A node whose process may open no further file, in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_gateway::NodeConfig;

use crate::client::Client;
use crate::{World, http, wait_until};

/// Files that the process may open: enough for the node and some dozens of connections.
const FILES: usize = 80;

#[test]
fn connections_beyond_the_limit_of_open_files_wait_and_cost_no_cpu() {
    let (mut node, stdin, address, _) = start_child("serve_until_stdin_ends");
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
fn a_node_that_knows_its_limit_refuses_connections_and_keeps_files_for_itself() {
    let (mut node, stdin, address, admin) = start_child("serve_within_the_limit");
    // Far more than there are files, all idle; those that are refused hear it at once.
    let mut all: Vec<Client> = (0..2 * FILES).map(|_| Client::open(address)).collect();
    all.last_mut().expect("there is one").expect_end();
    assert_eq!(http::get(admin, "/livez").status, 200);
    let text = http::get(admin, "/metrics").body;
    let pauses = text.lines().find(|line| line.starts_with("holdfast_accept_pauses_total "));
    assert!(pauses.is_none_or(|line| line.ends_with(" 0")), "it never ran out of files: {pauses:?}");

    drop(all);
    wait_until("one more is taken", || {
        let mut late = Client::open(address);
        let sent = late.stream.write_all(&crate::client::connect_311("late"));
        sent.is_ok() && late.read_or_end().is_some_and(|packet| packet.first == crate::client::CONNACK)
    });
    drop(stdin);
    node.wait().unwrap();
}

#[test]
#[ignore = "runs as the other process of the first test"]
fn serve_until_stdin_ends() {
    serve(None);
}

#[test]
#[ignore = "runs as the other process of the second test"]
fn serve_within_the_limit() {
    serve(Some(FILES as u64));
}

fn serve(open_files_max: Option<u64>) {
    let within = |node: NodeConfig| NodeConfig { open_files_max, ..node };
    let world = World::start_as(within, |config| config.shards = 1);
    // Not by a macro: the test harness would keep it.
    let line = format!("listening on {} {}\n", world.mqtt(), world.admin());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn start_child(serves: &str) -> (Child, ChildStdin, SocketAddr, SocketAddr) {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {FILES} && exec \"$0\" --ignored --exact few_files::{serves}"))
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mqtt, admin) = lines
        .find_map(|line| {
            let line = line.unwrap();
            let (mqtt, admin) = line.strip_prefix("listening on ")?.split_once(' ')?;
            Some((mqtt.parse().unwrap(), admin.parse().unwrap()))
        })
        .expect("the node says where it listens");
    // Nobody reads on, and a full pipe would stop the node.
    std::thread::spawn(move || lines.for_each(drop));
    (child, stdin, mqtt, admin)
}

/// User and system time of a process, in hundredths of a second.
fn cpu_ticks(child: &Child) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    behind_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
