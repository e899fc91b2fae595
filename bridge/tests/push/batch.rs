//! `POST /v1/push/batch`: a push a line, a result a line.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::config::PushConfig;
use holdfast_store::{Bounds, MemoryStore, ReplyTo, Store, StreamBounds, clock};
use holdfast_wire::link::{InterestKind, Outcome};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, StoreError};
use serde_json::{Value, json};

use crate::api::{Api, as_lines, bounded, deliver, numbered};
use crate::shard::{DEADLINE, Heard, Rig, memory_store, owner};

const BATCH: &str = "POST /v1/push/batch";

/// Until a line that must come has come.
fn by_line(lines: &[Value], number: u64) -> &Value {
    lines.iter().find(|line| line["line"] == number).unwrap()
}

#[test]
fn each_line_has_a_result_and_the_last_one_counts_them() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("here", owner(1), &[]);
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    let body = as_lines([
        json!({ "device": "here", "payload": "1", "id": "first" }),
        json!({ "device": "away", "payload": "1" }),
        json!({ "device": "nobody", "payload": "1" }),
        json!({ "device": "d", "payload": "1", "qos": 9 }),
        json!({ "topic": "t", "payload": "1" }),
    ]);
    let answer = api.lines(BATCH, &format!("{body}\n\nno JSON"));
    deliver(&mut shard, 1);
    let lines = answer.rest();
    assert_eq!(lines.len(), 7, "{lines:?}");
    let expected = json!({ "line": 1, "id": "first", "outcome": "delivered" });
    assert_eq!(by_line(&lines, 1), &expected);
    assert_eq!(by_line(&lines, 2)["outcome"], "queued");
    assert_eq!(by_line(&lines, 3)["reason"], "no_such_session");
    assert_eq!(by_line(&lines, 4)["problem"]["type"], "/v1/problems/invalid");
    assert_eq!(by_line(&lines, 5)["outcome"], "accepted");
    assert_eq!(by_line(&lines, 8)["problem"]["type"], "/v1/problems/malformed");
    let outcomes = json!({ "delivered": 1, "queued": 1, "expired": 0, "refused": 1, "accepted": 1 });
    let reasons = json!({ "no_such_session": 1 });
    let end = json!({ "end": true, "pushes": 4, "problems": 2, "outcomes": outcomes, "reasons": reasons });
    assert_eq!(lines.last(), Some(&end));
}

#[test]
fn a_push_in_a_batch_is_a_push_like_any_other() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let push = json!({ "device": "d", "payload": "1", "id": "same" });
    let answer = api.lines(BATCH, &as_lines([&push, &push]));
    deliver(&mut shard, 1);
    let lines = answer.rest();
    assert_eq!((&lines[0]["outcome"], &lines[1]["outcome"]), (&json!("delivered"), &json!("delivered")));
    assert_eq!(api.post(&push).1["outcome"], "delivered", "it is remembered");
    let other = json!({ "device": "d", "payload": "2", "id": "same" });
    let lines = api.lines(BATCH, &as_lines([other])).rest();
    assert_eq!(lines[0]["problem"]["type"], "/v1/problems/id-reused");

    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    for payload in ["1", "2"] {
        let push =
            json!({ "device": "away", "payload": payload, "collapse_key": "k", "ttl_s": 60, "qos": 2 });
        assert_eq!(api.lines(BATCH, &as_lines([push])).rest()[0]["outcome"], "queued");
    }
    assert_eq!(rig.stream(StreamKey::Device("away".into())), ["2"]);
}

#[test]
fn results_come_as_they_are_known() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let pushes = [json!({ "device": "d", "payload": "slow" }), json!({ "device": "d", "payload": "fast" })];
    let mut answer = api.lines(BATCH, &as_lines(&pushes));
    let mut numbers = [0; 2];
    for _ in 0..2 {
        let (delivery, _, payload) = numbered(shard.hear());
        numbers[usize::from(payload == "fast")] = delivery;
    }
    shard.report(numbers[1], Outcome::Delivered);
    assert_eq!(answer.next().unwrap()["line"], 2);
    shard.report(numbers[0], Outcome::QueueFull);
    assert_eq!(answer.next().unwrap()["reason"], "queue_full");
    assert_eq!(answer.next().unwrap()["end"], true);
    assert_eq!(answer.next(), None);
}

#[test]
fn no_more_lines_are_read_than_the_window_has_room_for() {
    let rig = bounded(PushConfig { stream_in_flight_max: 2, ..PushConfig::default() });
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let pushes: Vec<_> = (0..5).map(|number| json!({ "device": "d", "payload": number })).collect();
    let mut answer = api.lines(BATCH, &as_lines(&pushes));
    let mut open = vec![numbered(shard.hear()).0, numbered(shard.hear()).0];
    for left in (0..5).rev() {
        // Each result lets one more line in.
        shard.report(open.remove(0), Outcome::Delivered);
        assert_eq!(answer.next().unwrap()["outcome"], "delivered");
        if left >= 2 {
            open.push(numbered(shard.hear()).0);
        }
        assert_eq!(open.len(), left.min(2));
    }
    assert_eq!(answer.next().unwrap()["pushes"], 5);
}

#[test]
fn a_line_that_is_too_long_costs_only_itself() {
    let rig = bounded(PushConfig { body_bytes_max: 100, ..PushConfig::default() });
    let api = Api::of(&rig);
    let long = "x".repeat(100_000);
    let fits = json!({ "device": "d", "payload": 1 });
    let lines = api.lines(BATCH, &format!("{fits}\n{long}\n{fits}")).rest();
    assert_eq!(by_line(&lines, 2)["problem"]["type"], "/v1/problems/too-large");
    assert_eq!(by_line(&lines, 3)["reason"], "no_such_session");
    assert_eq!((&lines[3]["pushes"], &lines[3]["problems"]), (&json!(2), &json!(1)));
}

#[test]
fn a_push_that_no_stream_can_hold_is_refused_instead_of_being_tried_for_ever() {
    let bounds = StreamBounds { bytes_max: 1_000, ..StreamBounds::default() };
    let store = Arc::new(MemoryStore::new(clock::system(), Bounds { stream: bounds, ..Bounds::default() }));
    let push = PushConfig { stream_bytes_max: 1_000, ..PushConfig::default() };
    let rig = Rig::start_with(BridgeConfig { push, ..BridgeConfig::default() }, store);
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    let epoch = rig.session("away", owner(1), &["devices/away/push", "news/#"]);
    rig.rest("away", epoch);
    rig.session("here", owner(1), &["devices/here/push"]);
    shard.announce(InterestKind::Filter, "news/#", true);
    let large = "x".repeat(1_000);
    let pushes = [
        json!({ "device": "away", "payload": large }),
        json!({ "topic": "news/today", "payload": large }),
        // Whom nothing is kept for gets it.
        json!({ "topic": "weather", "payload": large }),
        json!({ "device": "here", "payload": large }),
    ];
    let answer = api.lines(BATCH, &as_lines(&pushes));
    deliver(&mut shard, 1);
    let lines = answer.rest();
    for number in [1, 2] {
        let line = by_line(&lines, number);
        assert_eq!((&line["outcome"], &line["reason"]), (&json!("refused"), &json!("too_large")), "{line}");
    }
    assert_eq!(by_line(&lines, 3)["outcome"], "accepted");
    assert_eq!(by_line(&lines, 4)["outcome"], "delivered");
    assert_eq!(api.post(&pushes[0]).0, 413);
    assert_eq!(rig.stream(StreamKey::Filter("news/#".into())), [""; 0]);
}

#[test]
fn whoever_hangs_up_ends_what_has_not_begun() {
    let rig = bounded(PushConfig { stream_in_flight_max: 1, ..PushConfig::default() });
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("d", owner(1), &[]);
    let pushes: Vec<_> = (0..5).map(|number| json!({ "device": "d", "payload": number })).collect();
    let answer = api.lines(BATCH, &as_lines(&pushes));
    let (delivery, _, payload) = numbered(shard.hear());
    assert_eq!(payload, "0");
    answer.hang_up();
    // With 63 others there is a place once this one is over.
    let others: Vec<_> = (0..63).map(|_| api.open(BATCH, 1).begun()).collect();
    assert_eq!(api.request(BATCH, "", "").0, 503, "what has begun keeps the place");
    shard.report(delivery, Outcome::Delivered);
    let deadline = Instant::now() + DEADLINE;
    while api.request(BATCH, "", "").0 == 503 {
        assert!(Instant::now() < deadline, "the batch goes on");
        std::thread::yield_now();
    }
    drop(others);
    let sender = api.post_later(json!({ "device": "d", "payload": "after" }));
    let (delivery, _, payload) = numbered(shard.hear());
    assert_eq!(payload, "after", "no other line of the batch was pushed");
    shard.report(delivery, Outcome::Delivered);
    assert_eq!(sender.join().unwrap().0, 200);
}

#[test]
fn a_push_to_a_topic_is_appended_once_and_sent_once_over_many_tries() {
    let store = Arc::new(Halting { store: memory_store(), refusals: AtomicUsize::new(4) });
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("one", owner(1), &["news/#"]);
    rig.session("other", owner(1), &["news/+"]);
    shard.announce(InterestKind::Filter, "news/#", true);
    shard.announce(InterestKind::Filter, "news/+", true);
    let push = json!({ "topic": "news/1", "payload": "once", "retain": true, "id": "n" });
    let lines = api.lines(BATCH, &as_lines([push])).rest();
    assert_eq!((&lines[0]["outcome"], &lines[0]["streams"]), (&json!("accepted"), &json!(2)), "{lines:?}");
    assert_eq!(store.refusals.load(Ordering::Acquire), 0, "it was refused");
    for filter in ["news/#", "news/+"] {
        assert_eq!(rig.stream(StreamKey::Filter(filter.into())), ["once"], "{filter}");
    }
    let Heard::Deliver { positions, payload, .. } = shard.hear() else { panic!("no delivery") };
    assert_eq!((positions.len(), &*payload), (2, "once"));
    // Nothing but the first was ever sent.
    shard.announce(InterestKind::Filter, "x", false);
}

/// Twice it is away for one of two streams, then twice for what is retained.
struct Halting {
    store: Arc<dyn Store>,
    refusals: AtomicUsize,
}

impl Store for Halting {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let is_second = |streams: &[StreamKey]| streams.contains(&StreamKey::Filter("news/+".into()));
        let left = self.refusals.load(Ordering::Acquire);
        let refuses = match &request {
            Request::Append { streams, .. } => is_second(streams) && left > 2,
            Request::Retain { .. } => left > 0,
            _ => false,
        };
        if !refuses {
            return self.store.submit(request, reply);
        }
        self.refusals.fetch_sub(1, Ordering::AcqRel);
        let refuse = move |_| reply(Err(StoreError::Unavailable("a part of it is away".to_owned())));
        match request {
            // What it was asked beside that, it does.
            Request::Append { mut streams, message, collapse_key } => {
                streams.retain(|stream| !is_second(std::slice::from_ref(stream)));
                self.store.submit(Request::Append { streams, message, collapse_key }, Box::new(refuse));
            }
            _ => refuse(Ok(Reply::Done)),
        }
    }
}

#[test]
fn a_hundred_thousand_lines_go_through_a_small_window() {
    const LINES: usize = 100_000;
    let rig = bounded(PushConfig { stream_in_flight_max: 100, ..PushConfig::default() });
    let api = Api::of(&rig);
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    let line = "{\"device\":\"away\",\"payload\":1,\"collapse_key\":\"k\"}\n";
    let mut answer = api.open(BATCH, line.len() * LINES);
    let mut writer = answer.writer();
    let writing = std::thread::spawn(move || {
        let thousand = line.repeat(1_000);
        for _ in 0..LINES / 1_000 {
            writer.write_all(thousand.as_bytes()).unwrap();
        }
    });
    let mut results = 0;
    let end = loop {
        let result = answer.next().unwrap();
        if result["end"] == true {
            break result;
        }
        assert_eq!(result["outcome"], "queued");
        results += 1;
    };
    writing.join().unwrap();
    assert_eq!((results, &end["outcomes"]["queued"]), (LINES, &json!(LINES)));
    assert_eq!(rig.stream(StreamKey::Device("away".into())).len(), 1);
}

#[test]
fn a_client_that_reads_only_at_its_end_asks_for_the_counts() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let body = "{\"device\":\"nobody\",\"payload\":1}\n".repeat(20_000);
    let lines = api.lines(&format!("{BATCH}?results=counts"), &body).rest();
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["end"], &lines[0]["reasons"]["no_such_session"]), (&json!(true), &json!(20_000)));
}
