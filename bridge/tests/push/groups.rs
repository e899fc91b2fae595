//! Groups: their members, and pushes to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::config::PushConfig;
use holdfast_store::{Bounds, MemoryStore, ReplyTo, Store, clock};
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::Outcome;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Request, StoreError};
use serde_json::{Value, json};

use crate::api::{Api, as_lines, bounded, deliver, numbered};
use crate::shard::{Heard, Rig, memory_store, owner};

const MEMBERS: &str = "/v1/groups/fans/members";

/// All members, page by page; none if there is no such group.
fn members(api: &Api, limit: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut query = format!("?limit={limit}");
    loop {
        let (status, page) = api.request(&format!("GET {MEMBERS}{query}"), "", "");
        if status == 404 {
            assert_eq!(page["type"], "/v1/problems/not-found");
            return Vec::new();
        }
        assert_eq!((status, &page["group"]), (200, &json!("fans")));
        let members = page["members"].as_array().unwrap();
        assert!(members.len() <= limit);
        all.extend(members.iter().map(|member| member.as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => query = format!("?limit={limit}&page={next}"),
            None => return all,
        }
    }
}

fn put(api: &Api, clients: &Value) {
    assert_eq!(api.request(&format!("PUT {MEMBERS}"), &clients.to_string(), "").0, 200);
}

#[test]
fn members_come_and_go() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let (status, problem) = api.request(&format!("GET {MEMBERS}"), "", "");
    assert_eq!((status, &problem["type"]), (404, &json!("/v1/problems/not-found")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().starts_with("no such group"), "{problem}");
    let (_, answer) = api.request(&format!("PUT {MEMBERS}"), r#"["a","b","ü x"]"#, "");
    assert_eq!(answer, json!({ "group": "fans", "given": 3, "added": 3 }));
    let (_, answer) =
        api.request(&format!("PUT {MEMBERS}"), r#"["b","c"]"#, "Content-Type: application/json\r\n");
    assert_eq!(answer["added"], 1);
    let (_, answer) = api.request(&format!("DELETE {MEMBERS}"), r#"["a","nobody"]"#, "");
    assert_eq!(answer, json!({ "group": "fans", "given": 2, "removed": 1 }));
    assert_eq!(
        members(&api, 2).into_iter().collect::<BTreeSet<_>>(),
        ["b", "c", "ü x"].map(String::from).into()
    );
    assert_eq!(api.request("DELETE /v1/groups/fans", "", "").0, 204);
    assert_eq!(members(&api, 10), [""; 0]);
    assert_eq!(api.request("DELETE /v1/groups/fans", "", "").0, 204, "it does no harm again");
}

#[test]
fn members_come_as_lines_of_any_number() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let text = as_lines((0..2_500).map(|number| format!("device {number}")));
    let (_, answer) = api.request(&format!("PUT {MEMBERS}"), &text, "Content-Type: text/plain\r\n");
    assert_eq!(answer, json!({ "group": "fans", "given": 2_500, "added": 2_500 }));
    let json = as_lines((0..1_001).map(|number| format!("\"device {number}\"")));
    let (_, answer) =
        api.request(&format!("DELETE {MEMBERS}"), &json, "Content-Type: application/x-ndjson\r\n");
    assert_eq!(answer["removed"], 1_001);
    assert_eq!(members(&api, 1_000).into_iter().collect::<BTreeSet<_>>().len(), 1_499);
}

#[test]
fn a_wrong_line_says_where_it_is_and_what_was_done_before() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let text = as_lines((0..1_500).map(|number| format!("\"{number}\"")));
    let text = format!("{text}\n7\n");
    let (status, problem) =
        api.request(&format!("PUT {MEMBERS}"), &text, "Content-Type: application/x-ndjson\r\n");
    assert_eq!((status, &problem["line"]), (400, &json!(1_502)), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.ends_with("the store was given 1000 client ids, and 1000 were added"), "{detail}");
    // Made again, it does no harm.
    let text = text.replace("\n7\n", "\n\"7\"\n");
    let (_, answer) = api.request(&format!("PUT {MEMBERS}"), &text, "Content-Type: application/x-ndjson\r\n");
    assert_eq!((&answer["given"], &answer["added"]), (&json!(1_501), &json!(500)));
}

#[test]
fn a_group_that_would_grow_too_large_is_refused() {
    let bounds = Bounds { group_members_max: 3, ..Bounds::default() };
    let store = Arc::new(MemoryStore::new(clock::system(), bounds));
    let rig = Rig::start_with(BridgeConfig::default(), store);
    let api = Api::of(&rig);
    put(&api, &json!(["a", "b"]));
    let (status, problem) = api.request(&format!("PUT {MEMBERS}"), r#"["b","c","d"]"#, "");
    assert_eq!((status, &problem["type"]), (507, &json!("/v1/problems/store-full")), "{problem}");
    let told = "the group has 2 of at most 3 members (store.group_members_max): 1 more fit; the store was given 3 client ids, and 0 were added";
    assert!(problem["detail"].as_str().unwrap().ends_with(told), "{problem}");
    assert_eq!(members(&api, 10).len(), 2, "its page was not taken in");
}

#[test]
fn a_push_to_a_group_reaches_each_member_and_counts_what_became_of_them() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    rig.session("here", owner(1), &[]);
    let epoch = rig.session("away", owner(1), &["devices/away/push"]);
    rig.rest("away", epoch);
    put(&api, &json!(["here", "away", "nobody", "a+b"]));
    let push = json!({ "group": "fans", "payload": "goal", "id": "goal-1" });
    let sender = api.post_later(push.clone());
    let (delivery, topic, payload) = numbered(shard.hear());
    assert_eq!((&*topic, &*payload), ("devices/here/push", "goal"));
    shard.report(delivery, Outcome::Delivered);
    let outcomes = json!({ "delivered": 1, "queued": 1, "expired": 0, "refused": 2 });
    let reasons = json!({ "no_such_session": 1, "invalid": 1 });
    let expected =
        json!({ "id": "goal-1", "outcome": "done", "members": 4, "outcomes": outcomes, "reasons": reasons });
    assert_eq!(sender.join().unwrap(), (200, expected.clone()));
    assert_eq!(api.post(&push), (200, expected), "it is pushed once");
    assert_eq!(rig.stream(StreamKey::Device("away".into())), ["goal"]);
    let (status, answer) = api.post(&json!({ "group": "nobodys", "payload": "1" }));
    assert_eq!((status, &answer["reason"]), (404, &json!("no_such_group")));
}

#[test]
fn members_outcomes_come_as_they_are_known() {
    let rig = Rig::start();
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    for client in ["slow", "fast"] {
        rig.session(client, owner(1), &[]);
    }
    put(&api, &json!(["slow", "fast"]));
    let push = json!({ "group": "fans", "topic": "scores", "payload": "1", "id": "x" });
    let mut answer = api.lines("POST /v1/push?results=stream", &push.to_string());
    let mut numbers = [0; 2];
    for _ in 0..2 {
        let Heard::Deliver { delivery, target, topic, .. } = shard.hear() else { panic!("no delivery") };
        assert_eq!(topic, "scores");
        numbers[usize::from(target == "fast")] = delivery;
    }
    shard.report(numbers[1], Outcome::Delivered);
    assert_eq!(answer.next().unwrap(), json!({ "device": "fast", "outcome": "delivered" }));
    shard.report(numbers[0], Outcome::TooLarge);
    let slow = json!({ "device": "slow", "outcome": "refused", "reason": "too_large" });
    assert_eq!(answer.next().unwrap(), slow);
    let end = answer.next().unwrap();
    assert_eq!((&end["outcome"], &end["members"], answer.next()), (&json!("done"), &json!(2), None));
    let again = api.lines("POST /v1/push?results=stream", &push.to_string()).rest();
    assert_eq!(again, [end], "of what is over, the whole is known");
}

#[test]
fn a_push_to_a_group_goes_on_when_its_sender_has_gone() {
    let rig = bounded(PushConfig { stream_in_flight_max: 1, ..PushConfig::default() });
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    for client in ["a", "b", "c"] {
        rig.session(client, owner(1), &[]);
    }
    put(&api, &json!(["a", "b", "c"]));
    let push = json!({ "group": "fans", "payload": "1", "id": "x", "wait_ms": 0 });
    assert_eq!(api.post(&push).0, 504);
    drop(api.lines("POST /v1/push?results=stream", &push.to_string()));
    deliver(&mut shard, 3);
    let patient = json!({ "group": "fans", "payload": "1", "id": "x" });
    assert_eq!(api.post(&patient).1["outcomes"]["delivered"], 3);
}

/// Counts the pages that are asked for.
struct Paged {
    store: Arc<dyn Store>,
    pages: AtomicUsize,
}

impl Store for Paged {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if let Request::GroupMembers { members_max, .. } = request {
            assert!(members_max <= 1_000, "a page is small");
            self.pages.fetch_add(1, Ordering::AcqRel);
        }
        self.store.submit(request, reply);
    }
}

#[test]
fn a_group_of_a_hundred_thousand_is_walked_page_by_page_through_a_small_window() {
    const MEMBERS_COUNT: usize = 100_000;
    const WINDOW: usize = 50;
    let store = Arc::new(Paged { store: memory_store(), pages: AtomicUsize::new(0) });
    let push = PushConfig { stream_in_flight_max: WINDOW, ..PushConfig::default() };
    let config = BridgeConfig { push, ..BridgeConfig::default() };
    let rig = Rig::start_with(config, Arc::clone(&store) as Arc<dyn Store>);
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    let names = || (0..MEMBERS_COUNT).map(|number| format!("device-{number}"));
    assert_eq!(
        api.request(&format!("PUT {MEMBERS}"), &as_lines(names()), "Content-Type: text/plain\r\n").0,
        200
    );
    // One in ten is connected; nobody knows the others.
    let connected = names().step_by(10);
    connected.for_each(|client| {
        rig.session(&client, owner(1), &[]);
    });
    let mut answer = api.lines("POST /v1/push?results=stream", r#"{"group":"fans","payload":1}"#);
    let reading = std::thread::spawn(move || {
        let (mut devices, mut last) = (BTreeSet::new(), Value::Null);
        while let Some(line) = answer.next() {
            match line["device"].as_str() {
                Some(device) => assert!(devices.insert(device.to_owned()), "{device} has one outcome"),
                None => last = line,
            }
        }
        (devices.len(), last)
    });
    let mut open = Vec::new();
    for heard in 1..=MEMBERS_COUNT / 10 {
        open.push(numbered(shard.hear()).0);
        assert!(open.len() <= WINDOW, "no more are on their way than the window has room for");
        if open.len() == WINDOW || heard == MEMBERS_COUNT / 10 {
            open.drain(..).for_each(|delivery| shard.report(delivery, Outcome::Delivered));
        }
    }
    let (devices, whole) = reading.join().unwrap();
    assert_eq!((devices, &whole["members"]), (MEMBERS_COUNT, &json!(MEMBERS_COUNT)));
    assert_eq!(whole["outcomes"]["delivered"], MEMBERS_COUNT / 10);
    assert_eq!(whole["reasons"]["no_such_session"], MEMBERS_COUNT / 10 * 9);
    assert!(store.pages.load(Ordering::Acquire) >= MEMBERS_COUNT / 1_000);
}

#[test]
fn a_member_that_does_not_acknowledge_does_not_hold_up_the_others_for_ever() {
    let push = PushConfig {
        stream_in_flight_max: 1,
        acknowledged_within: std::time::Duration::from_millis(50),
        ..PushConfig::default()
    };
    let rig = bounded(push);
    let (api, mut shard) = (Api::of(&rig), rig.shard(1));
    for client in ["a", "b"] {
        rig.session(client, owner(1), &[]);
    }
    put(&api, &json!(["a", "b"]));
    let sender = api.post_later(json!({ "group": "fans", "payload": "1" }));
    shard.hear();
    shard.hear();
    assert_eq!(sender.join().unwrap().1["outcomes"]["expired"], 2);
}

#[test]
fn a_batch_may_hold_pushes_to_groups() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    put(&api, &json!(["a", "b"]));
    let body = "{\"group\":\"fans\",\"payload\":1}\n".repeat(3);
    let lines = api.lines("POST /v1/push/batch", &body).rest();
    assert_eq!((&lines[0]["members"], &lines[3]["outcomes"]["done"]), (&json!(2), &json!(3)), "{lines:?}");
}

#[test]
fn a_store_that_is_away_when_a_group_is_named_is_told_and_later_waited_for() {
    let store = Arc::new(Fickle { store: memory_store(), is_away: AtomicBool::new(true) });
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let api = Api::of(&rig);
    put(&api, &json!(["a"]));
    let push = json!({ "group": "fans", "payload": "1", "id": "x" });
    let (status, problem) = api.post(&push);
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/store-away")));
    store.is_away.store(false, Ordering::Release);
    assert_eq!(api.post(&push).1["reasons"]["no_such_session"], 1, "nothing came of the first");
}

/// Names the members of the first page alone while it is broken.
struct Broken {
    store: Arc<dyn Store>,
    is_broken: AtomicBool,
}

impl Store for Broken {
    fn submit(&self, request: Request, reply: ReplyTo) {
        match request {
            Request::GroupMembers { page: Some(_), .. } if self.is_broken.load(Ordering::Acquire) => {
                reply(Err(StoreError::Unreadable("it has another format".to_owned())));
            }
            request => self.store.submit(request, reply),
        }
    }
}

#[test]
fn a_group_whose_members_cannot_be_read_to_their_end_is_not_done() {
    let store = Arc::new(Broken { store: memory_store(), is_broken: AtomicBool::new(true) });
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    let api = Api::of(&rig);
    let names = as_lines((0..1_500).map(|number| format!("device-{number}")));
    assert_eq!(api.request(&format!("PUT {MEMBERS}"), &names, "Content-Type: text/plain\r\n").0, 200);
    let push = json!({ "group": "fans", "payload": 1, "id": "x" });
    let (status, problem) = api.post(&push);
    assert_eq!((status, &problem["type"]), (503, &json!("/v1/problems/store-unreadable")), "{problem}");
    let lines = api.lines("POST /v1/push?results=stream", &push.to_string()).rest();
    assert_eq!(lines.len(), 1_001, "those that were named have their outcome");
    assert_eq!(lines[1_000]["problem"]["type"], "/v1/problems/store-unreadable");
    store.is_broken.store(false, Ordering::Release);
    let (status, answer) = api.post(&push);
    assert_eq!((status, &answer["members"]), (200, &json!(1_500)), "the id is free for another try");
}

/// Cannot name members while it is away; each lookup of `a` fails once.
struct Fickle {
    store: Arc<dyn Store>,
    is_away: AtomicBool,
}

impl Store for Fickle {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let away = match &request {
            Request::GroupMembers { .. } => self.is_away.load(Ordering::Acquire),
            Request::Lookup { client } if *client == ClientId::new("a") => {
                !self.is_away.swap(true, Ordering::AcqRel)
            }
            _ => false,
        };
        if away {
            reply(Err(StoreError::Unavailable("it is away".to_owned())));
        } else {
            self.store.submit(request, reply);
        }
    }
}
