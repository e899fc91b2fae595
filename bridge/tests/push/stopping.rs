//! What becomes of pushes when their bridge stops: those that have begun come to their outcome, and each other one is told that it was not done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use holdfast_bridge::BridgeHandle;
use holdfast_bridge::config::PushConfig;
use holdfast_wire::link::Outcome;
use holdfast_wire::session_record::StreamKey;
use serde_json::{Value, json};

use crate::api::{Api, as_lines, bounded, numbered};
use crate::shard::{DEADLINE, Heard, Rig, owner};

const BATCH: &str = "POST /v1/push/batch";

/// Drains in the background.
fn shut_down(bridge: &BridgeHandle, within: Duration) -> Receiver<bool> {
    let (tell, drained) = channel();
    let bridge = bridge.clone();
    std::thread::spawn(move || tell.send(bridge.shutdown(within)));
    drained
}

/// Drains in the background, and waits until pushes are refused: something that has begun must keep the bridge until then.
fn drain(bridge: &BridgeHandle, api: &Api, within: Duration) -> Receiver<bool> {
    let drained = shut_down(bridge, within);
    let begun = Instant::now();
    let (status, problem) = loop {
        let answer = api.post(&json!({ "device": "nobody", "payload": 1 }));
        if answer.0 != 404 {
            break answer;
        }
        assert!(begun.elapsed() < DEADLINE, "pushes are still taken");
    };
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/stopping")));
    drained
}

fn by_line(lines: &[Value], number: u64) -> &Value {
    lines.iter().find(|line| line["line"] == number).unwrap()
}

#[test]
fn a_batch_comes_to_its_end_and_says_of_each_line_whether_it_was_done() {
    // The third line is not looked at before one of the others has its outcome, and by then pushes are refused.
    let rig = bounded(PushConfig { stream_in_flight_max: 2, ..PushConfig::default() });
    let (api, mut shard) = (Api::served_by(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let pushes = as_lines((0..3).map(|number| json!({ "device": "d", "payload": number })));
    // More is to come, and never does.
    let mut batch = api.open(BATCH, pushes.len() * 2);
    batch.send(pushes.as_bytes());
    let begun = [numbered(shard.hear()).0, numbered(shard.hear()).0];
    let drained = drain(&rig.bridge, &api, DEADLINE);
    for number in begun {
        shard.report(number, Outcome::Delivered);
    }
    let lines = batch.rest();
    for number in [1, 2] {
        assert_eq!(by_line(&lines, number)["outcome"], "delivered");
    }
    assert_eq!(by_line(&lines, 3)["problem"]["type"], "/v1/problems/stopping");
    let end = lines.last().unwrap();
    assert_eq!((&end["end"], &end["pushes"], &end["problems"]), (&json!(true), &json!(2), &json!(1)));
    assert_eq!(end["problem"]["type"], "/v1/problems/stopping", "it was not read to its end");
    assert!(drained.recv_timeout(DEADLINE).unwrap(), "there was time for all");
    assert_eq!(shard.hear(), Heard::Closed);
}

#[test]
fn a_sender_that_never_ends_does_not_keep_the_bridge_from_its_end() {
    let rig = Rig::start();
    let api = Api::served_by(&rig);
    let push = as_lines([json!({ "device": "nobody", "payload": 1 })]);
    let mut batch = api.open(BATCH, push.len() * 1_000_000);
    batch.send(push.as_bytes());
    assert_eq!(batch.next().unwrap()["reason"], "no_such_session");
    let drained = drain(&rig.bridge, &api, DEADLINE);
    let begun = Instant::now();
    let (end, drained_early) = loop {
        // Ten lines a second: it is never silent.
        let drained_early = drained.recv_timeout(Duration::from_millis(100)).ok();
        if drained_early.is_none() {
            batch.send(push.as_bytes());
        }
        let line = batch.next().unwrap();
        if line["end"] == true {
            break (line, drained_early);
        }
        assert_eq!(line["problem"]["type"], "/v1/problems/stopping");
        assert!(begun.elapsed() < DEADLINE, "it is still read");
    };
    assert_eq!(end["problem"]["type"], "/v1/problems/stopping");
    drop(batch);
    assert!(
        drained_early.unwrap_or_else(|| drained.recv_timeout(DEADLINE).unwrap()),
        "there was time for all"
    );
}

#[test]
fn a_request_that_never_comes_whole_does_not_keep_the_bridge_from_its_end() {
    let rig = Rig::start();
    let api = Api::served_by(&rig);
    let mut half = TcpStream::connect(api.address).unwrap();
    half.write_all(b"GET /readyz HTTP/1.1\r\nHo").unwrap();
    let without_end = api.open("POST /v1/devices", 100);
    assert!(shut_down(&rig.bridge, DEADLINE).recv_timeout(DEADLINE).unwrap(), "there was time for all");
    half.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap_or(0), 0, "it is closed, or reset");
    without_end.ended();
}

#[test]
fn what_no_device_acknowledged_is_kept_for_its_session_or_refused() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::served_by(&rig), rig.shard(1));
    rig.session("lasting", owner(1), &["devices/lasting/push"]);
    rig.session("passing", owner(1), &[]);
    let body = as_lines(["lasting", "passing"].map(|device| json!({ "device": device, "payload": 1 })));
    let batch = api.lines(BATCH, &body);
    let asked = api.post_later(json!({ "device": "lasting", "payload": 2 }));
    for _ in 0..3 {
        numbered(shard.hear());
    }
    let drained = drain(&rig.bridge, &api, Duration::from_secs(8));
    let lines = batch.rest();
    assert_eq!(by_line(&lines, 1)["outcome"], "queued");
    assert_eq!(by_line(&lines, 2)["reason"], "no_such_session");
    assert_eq!((&lines[2]["end"], &lines[2]["problem"]), (&json!(true), &Value::Null));
    assert_eq!(asked.join().unwrap().1["outcome"], "queued");
    assert!(drained.recv_timeout(DEADLINE).unwrap(), "there was time for all");
    let mut kept = rig.stream(StreamKey::Device("lasting".into()));
    kept.sort();
    assert_eq!(kept, ["1", "2"]);
}

#[test]
fn an_outcome_that_is_known_is_told_to_the_end() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::served_by(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let known = json!({ "device": "nobody", "payload": 1, "id": "known" });
    assert_eq!(api.post(&known).0, 404);
    let under_way = json!({ "device": "d", "payload": 1, "id": "under way" });
    let asked = api.post_later(under_way.clone());
    let (number, ..) = numbered(shard.hear());
    let drained = drain(&rig.bridge, &api, DEADLINE);
    assert_eq!(api.post(&known).1["reason"], "no_such_session");
    let (status, problem) = api.request(BATCH, "", "");
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/stopping")));
    shard.report(number, Outcome::Delivered);
    assert_eq!(asked.join().unwrap().1["outcome"], "delivered");
    assert!(drained.recv_timeout(DEADLINE).unwrap());
}
