//! A bridge and its Kafka: starts that are refused in one line, and frames that Kafka will never take. What stands in Kafka afterwards is judged by
//! `clients/python/test_kafka.py`.

use std::net::TcpListener;

use holdfast_e2e::packet::{Version, kind, publish};
use holdfast_e2e::wait::until_true;
use holdfast_e2e::{Client, ClusterSetup, End, Kafka, Redis, RoleFailure, RoleSetup, unique, wait::PATIENCE};

/// A bridge of this Redis and this Kafka.
fn bridge(redis: &Redis, brokers: &str) -> RoleSetup {
    RoleSetup::bridge().argument("--kafka", brokers).argument("--store", redis.url())
}

/// The start fails, and whoever started it reads the reason in one line.
fn refused(setup: RoleSetup) -> String {
    let failure: RoleFailure = setup.try_start().expect_err("it must not start");
    assert_eq!(failure.status.code(), Some(2), "{failure}");
    let lines: Vec<_> = failure.stderr.lines().filter(|line| line.starts_with("holdfast: ")).collect();
    let [line] = lines[..] else { panic!("one line is wanted: {failure}") };
    line.to_owned()
}

fn assert_names(line: &str, what: &[&str]) {
    for what in what {
        assert!(line.contains(what), "`{what}` is not in: {line}");
    }
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let redis = Redis::any();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert_names(&refused(bridge(&redis, &address)), &[&address]);
}

#[test]
fn a_broker_that_accepts_and_says_nothing_is_named() {
    let redis = Redis::any();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_names(&refused(bridge(&redis, &address)), &[&address]);
}

#[test]
fn a_missing_topic_and_wrong_credentials_and_settings_of_ours_are_named() {
    // Its own Kafka, since the topic is missing there and a listener wants a password.
    let (redis, kafka) = (Redis::any(), Kafka::start(1));
    assert_names(&refused(bridge(&redis, &kafka.brokers())), &["holdfast.frames", "kafka.create_topics"]);

    let stranger = |password: &str| {
        bridge(&redis, &kafka.sasl_brokers())
            .set("kafka.create_topics", true)
            .set("kafka.settings.security.protocol", "SASL_PLAINTEXT")
            .set("kafka.settings.sasl.mechanism", "PLAIN")
            .set("kafka.settings.sasl.username", "holdfast")
            .set("kafka.settings.sasl.password", password)
    };
    let line = refused(stranger("wrong-secret"));
    assert_names(&line, &["sasl"]);
    assert!(!line.contains("wrong-secret"), "a password has no place in {line}");
    drop(stranger("holdfast").start());

    let line = refused(bridge(&redis, &kafka.brokers()).set("kafka.settings.acks", "1"));
    assert_names(&line, &["acks"]);
}

#[test]
fn a_frame_that_kafka_will_never_take_is_refused_and_holds_nobody_back() {
    // Kafka takes 1 MiB by default.
    let large = vec![b'x'; 1_500_000];
    let setup = ClusterSetup::new().any_services();
    let cluster = setup.set_gateways("mqtt.maximum_packet_size", 4 << 20).start();
    let mqtt = cluster.gateways[0].address("mqtt");

    let mut modern = Client::open(mqtt, Version::V5, &unique("modern"));
    modern.send(&publish(Version::V5, 1, "large", 1, &large));
    modern.send(&publish(Version::V5, 1, "small", 2, b"small"));
    let (first, second) = (modern.receive_kind(kind::PUBACK), modern.receive_kind(kind::PUBACK));
    assert_eq!(first.id(), 1);
    assert!(first.reason() >= 0x80, "{first:?}");
    assert_eq!((second.id(), second.reason()), (2, 0));

    // MQTT 3.1.1 has no way to refuse but the end of the connection.
    let mut old = Client::open(mqtt, Version::V311, &unique("old"));
    old.send(&publish(Version::V311, 1, "large", 1, &large));
    assert_eq!(old.poll(PATIENCE).unwrap_err(), End::Closed);

    let mut another = Client::open(mqtt, Version::V311, &unique("another"));
    another.send(&publish(Version::V311, 1, "small", 1, b"small"));
    assert_eq!(another.receive_kind(kind::PUBACK).id(), 1);
    until_true("the bridge to be ready all the while", PATIENCE, || {
        cluster.bridges[0].readiness() == Some(200)
    });
}
