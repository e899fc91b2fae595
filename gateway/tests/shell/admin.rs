//! The admin server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_gateway::{LinkTarget, Node, NodeConfig};
use holdfast_store::{MemoryStore, ReplyTo, Store};
use holdfast_wire::store::Request;

use crate::bridge::Bridge;
use crate::{World, config, http, memory, wait_until};

#[test]
fn a_node_that_serves_is_live_and_ready_and_says_what_it_holds() {
    let world = World::start();
    let _client = world.connect("device");
    assert_eq!(http::get(world.admin(), "/livez").status, 200);
    let ready = http::get(world.admin(), "/readyz");
    assert_eq!(ready.status, 200);
    let body = ready.json();
    assert_eq!(body["connections"], 1);
    assert_eq!(body["node"], world.node.node().to_string());
    assert_eq!(
        (&body["links"], &body["store"], &body["draining"]),
        (&true.into(), &true.into(), &false.into())
    );
}

#[test]
fn a_node_that_admits_nobody_yet_is_not_ready_and_speaks_of_no_devices() {
    let settings = config().validate().expect("the configuration is valid");
    let (_bridge, ends) = Bridge::new(settings.shards);
    let links = vec![LinkTarget::Pair(ends)];
    let mut node = Node::start(NodeConfig::new(settings), memory(), links).expect("the node starts");
    let admin = node.addresses().admin.expect("it listens");
    let ready = http::get(admin, "/readyz");
    assert_eq!(ready.status, 503);
    let reason = ready.json()["reason"].to_string();
    assert!(reason.starts_with("\"devices are not admitted yet"), "{reason}");
    node.admit().expect("the listeners open");
    wait_until("it is ready", || http::get(admin, "/readyz").status == 200);
}

#[test]
fn a_sink_that_cannot_store_shows_and_takes_nobody_out() {
    let stores = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&stores);
    let sink_stores = move || asked.load(Ordering::Relaxed);
    let world =
        World::start_as(|node| NodeConfig { sink_stores: Some(Box::new(sink_stores)), ..node }, |_| ());
    assert_eq!(http::get(world.admin(), "/readyz").json()["sink"], true);
    stores.store(false, Ordering::Relaxed);
    let ready = http::get(world.admin(), "/readyz");
    assert_eq!((ready.status, &ready.json()["sink"]), (200, &false.into()));
    assert!(ready.body.contains("the sink cannot store"), "{}", ready.body);
}

/// A store of which a part may be away, the leases among it.
struct InParts {
    memory: Arc<MemoryStore>,
    is_partly_away: AtomicBool,
    answers_leases: AtomicBool,
}

impl Store for InParts {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if self.answers_leases.load(Ordering::Acquire) || !matches!(request, Request::RenewLease { .. }) {
            self.memory.submit(request, reply);
        }
    }

    fn is_partly_away(&self) -> bool {
        self.is_partly_away.load(Ordering::Acquire)
    }
}

#[test]
fn a_store_of_which_a_part_does_not_answer_leaves_every_node_ready_and_each_says_so() {
    let store = Arc::new(InParts {
        memory: memory(),
        is_partly_away: AtomicBool::new(false),
        answers_leases: AtomicBool::new(true),
    });
    let world = World::start_on(Arc::clone(&store) as Arc<dyn Store>, |node| node, |_| ());
    assert_eq!(http::get(world.admin(), "/readyz").json()["reason"], "");
    store.is_partly_away.store(true, Ordering::Release);
    store.answers_leases.store(false, Ordering::Release);
    let silent_at = Instant::now();
    wait_until("the lease is old", || {
        let ready = http::get(world.admin(), "/readyz");
        assert_eq!((ready.status, &ready.json()["store"]), (200, &true.into()), "{}", ready.body);
        assert!(ready.body.contains("a part of the session store does not answer"), "{}", ready.body);
        silent_at.elapsed() > Duration::from_secs(4)
    });
    // Now nothing of it does.
    store.is_partly_away.store(false, Ordering::Release);
    let ready = http::get(world.admin(), "/readyz");
    assert_eq!((ready.status, &ready.json()["store"]), (503, &false.into()), "{}", ready.body);
    assert!(ready.body.contains("\"the session store does not answer"), "{}", ready.body);
}

#[test]
fn what_nobody_can_answer_is_a_problem_too() {
    let world = World::start();
    for (method, path, status) in [
        ("GET", "/v1/devices/%ff", 400),
        ("DELETE", "/v1/devices/%ff", 400),
        ("GET", "/v1/devices/%zz", 400),
        ("GET", "/readyz?%", 400),
        ("POST", "/v1/devices/device", 405),
        ("GET", "/drain", 405),
        ("GET", "/nowhere", 404),
    ] {
        let answer = http::request(world.admin(), method, path);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.json()["status"], status, "{method} {path}");
    }
}

#[test]
fn a_head_that_is_refused_before_anybody_reads_it_is_a_problem_too() {
    let world = World::start();
    let headers = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect::<Vec<_>>().concat();
    for (request, status, kind) in [
        ("no HTTP at all\r\n\r\n".to_owned(), 400, "malformed"),
        (format!("GET /livez HTTP/1.1\r\n{headers}\r\n"), 431, "head-too-large"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(65_535)), 414, "address-too-long"),
    ] {
        let answer = http::send(world.admin(), &request);
        let told = (answer.status, answer.json()["type"].clone());
        assert_eq!(told, (status, format!("/v1/problems/{kind}").into()));
    }
}

#[test]
fn what_a_problem_means_is_told_at_its_address() {
    let world = World::start();
    let problem = http::get(world.admin(), "/nowhere").json();
    let meaning = http::get(world.admin(), problem["type"].as_str().expect("a problem has a type"));
    assert_eq!((meaning.status, &meaning.json()["title"]), (200, &problem["title"]));
    assert_eq!(http::get(world.admin(), "/v1/problems/nonsense").status, 404);
}

#[test]
fn whoever_asks_a_gateway_for_what_a_bridge_answers_is_sent_there() {
    let world = World::start();
    for (method, path, kind) in [
        ("GET", "/v1/devices", "method-not-allowed"),
        ("POST", "/v1/push", "not-found"),
        ("GET", "/v1/openapi.json", "not-found"),
    ] {
        let problem = http::request(world.admin(), method, path).json();
        assert_eq!(problem["type"], format!("/v1/problems/{kind}"), "{method} {path}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("a bridge lists devices"), "{method} {path}: {detail}");
    }
}

#[test]
fn an_operator_can_disconnect_a_device() {
    let world = World::start();
    let mut client = world.connect("device");
    assert_eq!(http::request(world.admin(), "DELETE", "/v1/devices/device").status, 204);
    client.expect_end();
    wait_until("it is gone", || http::request(world.admin(), "DELETE", "/v1/devices/device").status == 404);
}

#[test]
fn the_metrics_count_why_connections_ended() {
    let world = World::start();
    let mut client = world.connect("device");
    // A second CONNECT is a protocol error (MQTT-3.1.0-2).
    client.send(&crate::client::connect_311("device"));
    client.expect_end();
    let counted = |line: &str| {
        line.strip_prefix("holdfast_connections_closed_total{reason=\"second_connect\"} ")
            .is_some_and(|count| count != "0")
    };
    wait_until("it is counted", || http::get(world.admin(), "/metrics").body.lines().any(counted));
    let text = http::get(world.admin(), "/metrics").body;
    for name in [
        "holdfast_connections{shard=\"1\"}",
        "holdfast_links_up{shard=\"0\"}",
        "# TYPE holdfast_sockets gauge",
    ] {
        assert!(text.contains(name), "{name} is missing in {text}");
    }
}
