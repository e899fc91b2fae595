//! A bridge that is killed at random moments of outages of its sink, and a spool on a file system that is really full.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use holdfast_bridge::sink::{Sink, Verdict};
use holdfast_bridge::spool::{OutageConfig, OutageSink};
use holdfast_wire::mqtt::QoS;
use tokio::sync::Semaphore;

use crate::broker::{Broker, Stored, assert_kept, has_all};
use crate::devices::{record, until};

const CHILD_DIRECTORY: &str = "HOLDFAST_TEST_SPOOL_DIRECTORY";
const CHILD_NEXT: &str = "HOLDFAST_TEST_SPOOL_NEXT";
const CHILD_SEED: &str = "HOLDFAST_TEST_SPOOL_SEED";
const LINKS: usize = 2;
/// Frames that a link may have unsettled: as many may be sent again after a kill.
const WINDOW: u64 = 100;

fn config(directory: &Path) -> OutageConfig {
    OutageConfig {
        outage_after: Duration::from_millis(5),
        bytes_max: OutageConfig::BYTES_MIN,
        ..OutageConfig::in_directory(&directory.join("spool"))
    }
}

/// Not a test of its own: the bridge that is killed. Says of each frame that it is acknowledged; what its sink stores stands in a journal.
#[test]
fn the_bridge_that_will_be_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let mut seed: u64 = std::env::var(CHILD_SEED).unwrap().parse().unwrap();
    let next = std::env::var(CHILD_NEXT).unwrap();
    let journal = File::options().append(true).create(true).open(directory.join("journal")).unwrap();
    let broker = Broker::with_journal(seed, journal);
    broker.hang();
    let sink = OutageSink::start(Arc::new(broker.clone()), &config(directory)).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    for (link, next) in next.split(' ').enumerate() {
        let lane = sink.lane();
        let next: u64 = next.parse().unwrap();
        runtime.spawn(async move {
            let (client, mut lane) = (format!("device-{link}"), lane);
            let window = Arc::new(Semaphore::new(WINDOW as usize));
            for number in next.. {
                let permit = Arc::clone(&window).acquire_owned().await.unwrap();
                let resent = number < next + WINDOW;
                lane.push(&record(&client, &number.to_le_bytes(), QoS::AtLeastOnce, resent), false);
                let mut permit = Some(permit);
                let client = client.clone();
                let settled = move |_, verdict| {
                    assert_eq!(verdict, Verdict::Stored);
                    writeln!(std::io::stdout(), "acknowledged {client} {number}").unwrap();
                    drop(permit.take());
                };
                lane.send(Box::new(settled)).await.unwrap();
            }
        });
    }
    loop {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match (seed >> 33) % 4 {
            0 => broker.hang(),
            1 => broker.lose_its_way(),
            _ => broker.heal(),
        }
        std::thread::sleep(Duration::from_millis((seed >> 40) % 20));
    }
}

fn journal(directory: &Path) -> Vec<Stored> {
    let lines = BufReader::new(File::open(directory.join("journal")).unwrap()).lines();
    lines.map(|line| Stored::from_line(&line.unwrap())).collect()
}

#[test]
fn whatever_was_acknowledged_before_a_kill_reaches_the_sink_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<String, Vec<Range<u64>>> =
        (0..LINKS).map(|link| (format!("device-{link}"), std::iter::once(0..0).collect())).collect();
    let mut seed = 0x9e37_79b9_u64;
    for round in 0..25 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let next: Vec<String> =
            (0..LINKS).map(|link| acknowledged[&format!("device-{link}")][0].end.to_string()).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::the_bridge_that_will_be_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, directory.path())
            .env(CHILD_NEXT, next.join(" "))
            .env(CHILD_SEED, seed.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let wanted = 1 + (seed >> 33) % 3_000;
        let mut lines = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // The last line may be cut short.
            let Ok(line) = line else { break };
            let mut words = line.split(' ');
            let Some("acknowledged") = words.next() else { continue };
            let (Some(client), Some(Ok(number))) = (words.next(), words.next().map(str::parse::<u64>)) else {
                continue;
            };
            let range = &mut acknowledged.get_mut(client).unwrap()[0];
            if range.end == number {
                range.end += 1;
            }
            lines += 1;
            if lines == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(lines >= wanted, "the bridge ended by itself in round {round}");
    }
    // A last one drains what is left.
    let broker = Broker::start(1);
    let sink = OutageSink::start(Arc::new(broker.clone()), &config(directory.path())).unwrap();
    let mut stored = Vec::new();
    until("all stored", || {
        stored = journal(directory.path());
        stored.extend(broker.stored());
        has_all(&stored, &acknowledged)
    });
    drop(sink);
    broker.close();
    assert_kept(&stored, &acknowledged);
}
