//! The admin address: metrics, health, device lookup.

use holdfast_e2e::packet::{Connect, Version, kind};
use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Client, Gateway};
use serde_json::Value;

#[test]
fn metrics_are_prometheus_text_and_name_no_client() {
    let gateway = Gateway::start();
    let mut client = Client::open(gateway.mqtt(), Version::V5, "a-client-with-a-name");
    client.ping();
    let response = gateway.http("GET", "/metrics", &[], b"");
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let text = String::from_utf8(response.body).unwrap();
    assert!(text.contains("# TYPE holdfast_"));
    assert!(!text.contains("a-client-with-a-name"));
}

#[test]
fn a_goodbye_and_a_cut_are_counted_under_their_reasons() {
    let gateway = Gateway::start();
    Client::open(gateway.mqtt(), Version::V5, "polite").leave();
    Client::open(gateway.mqtt(), Version::V311, "rude").cut();
    for reason in ["client_disconnected", "peer_closed"] {
        until_true(reason, PATIENCE, || gateway.metrics().closed(reason) == 1);
    }
}

#[test]
fn a_device_can_be_looked_up() {
    let gateway = Gateway::start();
    assert_eq!(gateway.http("GET", "/v1/devices/nobody", &[], b"").status, 404);
    let connect = Connect::new(Version::V5, "site/7").keep_alive_s(60).persistent();
    let (mut client, _) = Client::connect(gateway.mqtt(), &connect);
    client.subscribe("a/#", 1);
    let device = |gateway: &Gateway| -> Value {
        let response = gateway.http("GET", "/v1/devices/site%2F7", &[], b"");
        assert_eq!(response.status, 200);
        response.json()
    };
    let there = device(&gateway);
    assert_eq!(there["connected"], true, "{there}");
    assert_eq!(there["keep_alive_s"], 60, "{there}");
    client.leave();
    until_true("the session to rest", PATIENCE, || device(&gateway)["connected"] == false);
}

#[test]
fn a_device_can_be_disconnected() {
    let gateway = Gateway::start();
    let mut client = Client::open(gateway.mqtt(), Version::V5, "device");
    assert_eq!(gateway.http("DELETE", "/v1/devices/device", &[], b"").status / 100, 2);
    let goodbye = client.receive_to_end();
    assert_eq!(goodbye.last().map(|last| (last.kind(), last.reason())), Some((kind::DISCONNECT, 0x98)));
    assert_eq!(gateway.http("DELETE", "/v1/devices/nobody", &[], b"").status, 404);
}

#[test]
fn what_does_not_exist_is_not_found() {
    let gateway = Gateway::start();
    assert_eq!(gateway.http("GET", "/no/such/page", &[], b"").status, 404);
    assert_eq!(gateway.http("POST", "/metrics", &[], b"").status, 405);
}
