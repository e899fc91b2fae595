//! What keeps a sink from starting: one clear line each, in time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_bridge::kafka::{KafkaConfig, KafkaSink};
use holdfast_bridge::sink::Sink;

use crate::rig::{Broker, DEADLINE, Way, create_replicated, frame, guarded, name, read, shared};
use crate::warnings::{listen, said_of};

/// The line, which came in time.
fn refusal(config: KafkaConfig) -> String {
    let begun = Instant::now();
    let line = KafkaSink::start(config).unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(8), "{line} after {:?}", begun.elapsed());
    assert!(!line.contains('\n'), "{line}");
    line
}

fn bare(brokers: &str, topic: &str) -> KafkaConfig {
    let start_within = Duration::from_secs(3);
    KafkaConfig { brokers: brokers.into(), topic: topic.into(), start_within, ..KafkaConfig::default() }
}

fn sasl(password: &str) -> BTreeMap<String, String> {
    sasl_over("sasl_plaintext", password)
}

fn sasl_over(protocol: &str, password: &str) -> BTreeMap<String, String> {
    [
        ("security.protocol", protocol),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "holdfast"),
        ("sasl.password", password),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[test]
fn a_missing_topic_is_named_and_made_if_that_is_allowed() {
    let topic = name("missing");
    let line = refusal(bare(&shared().brokers, &topic));
    assert!(
        line.starts_with(&format!("the Kafka topic \"{topic}\" does not exist: create it, or set")),
        "{line}"
    );
    let config = KafkaConfig { create_topics: true, partitions: 5, ..bare(&shared().brokers, &topic) };
    let sink = KafkaSink::start(config).unwrap();
    let mut way = Way::into(&sink);
    way.push(&frame("d", "t", b"x"), false);
    way.send();
    way.verdicts();
    assert_eq!(read(&shared().brokers, &topic, 1).len(), 1);
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = refusal(bare(&closed.to_string(), "t"));
    assert!(line.starts_with(&format!("no Kafka broker answers at {closed} (")), "{line}");
    assert!(line.contains("refused"), "{line}");
}

#[test]
fn whoever_keeps_frames_elsewhere_gets_a_sink_without_a_broker_but_not_with_a_wrong_password() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sink = KafkaSink::start_or_await(bare(&closed.to_string(), "t")).unwrap();
    assert!(!sink.has_begun());
    assert!(sink.trouble().unwrap().starts_with(&format!("no Kafka broker answers at {closed} (")));
    let wrong = KafkaConfig { settings: sasl("wrong"), ..bare(&guarded().sasl, "t") };
    let line = KafkaSink::start_or_await(wrong).unwrap_err().to_string();
    assert!(line.starts_with(&format!("Kafka at {} refuses our credentials (", guarded().sasl)), "{line}");
    let line = KafkaSink::start_or_await(bare(&shared().brokers, &name("missing"))).unwrap_err().to_string();
    assert!(line.starts_with("the Kafka topic \"missing-"), "{line}");
}

#[test]
fn a_broker_that_accepts_and_never_answers_is_named() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let line = refusal(bare(&address.to_string(), "t"));
    assert!(line.starts_with(&format!("no Kafka broker answers at {address} (")), "{line}");
}

#[test]
fn wrong_credentials_are_told_at_once_and_right_ones_go_through() {
    let topic = name("sasl");
    crate::rig::create(&guarded().brokers, &topic, &[]);
    let config = |password| KafkaConfig { settings: sasl(password), ..bare(&guarded().sasl, &topic) };
    let line = refusal(config("wrong"));
    assert!(line.starts_with(&format!("Kafka at {} refuses our credentials (", guarded().sasl)), "{line}");
    KafkaSink::start(KafkaConfig { start_within: DEADLINE, ..config("holdfast") }).unwrap();
}

#[test]
fn tls_with_a_broker_that_has_none_is_told() {
    let settings = BTreeMap::from([("security.protocol".to_owned(), "ssl".to_owned())]);
    let line = refusal(KafkaConfig { settings, ..bare(&shared().brokers, "t") });
    assert!(
        line.starts_with("no TLS with Kafka at ") || line.starts_with("no Kafka broker answers"),
        "{line}"
    );
}

#[test]
fn frames_go_over_tls_and_over_sasl_within_it() {
    let ca = ("ssl.ca.location".to_owned(), guarded().ca.clone());
    let tls = BTreeMap::from([("security.protocol".to_owned(), "ssl".to_owned()), ca.clone()]);
    let mut sasl = sasl_over("sasl_ssl", "holdfast");
    sasl.extend([ca]);
    for (brokers, settings) in [(&guarded().ssl, tls), (&guarded().sasl_ssl, sasl)] {
        let topic = name("tls");
        crate::rig::create(&guarded().brokers, &topic, &[]);
        let config = KafkaConfig { settings, start_within: DEADLINE, ..bare(brokers, &topic) };
        let sink = KafkaSink::start(config).unwrap();
        let mut way = Way::into(&sink);
        way.push(&frame("d", "t", b"over TLS"), false);
        way.send();
        way.verdicts();
        assert_eq!(read(&guarded().brokers, &topic, 1)[0].text(), "over TLS");
    }
}

#[test]
fn a_broker_whose_certificate_nobody_vouches_for_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other-ca.pem");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=another CA",
        ])
        .arg("-keyout")
        .arg(directory.path().join("key.pem"))
        .arg("-out")
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let system: BTreeMap<_, _> = [("security.protocol".to_owned(), "ssl".to_owned())].into();
    let mut wrong = system.clone();
    wrong.insert("ssl.ca.location".to_owned(), other.to_str().unwrap().to_owned());
    for settings in [system, wrong] {
        let line = refusal(KafkaConfig { settings, ..bare(&guarded().ssl, "t") });
        assert!(line.starts_with(&format!("no TLS with Kafka at {} (", guarded().ssl)), "{line}");
        assert!(line.contains("certificate"), "{line}");
    }
    let missing = BTreeMap::from([
        ("security.protocol".to_owned(), "ssl".to_owned()),
        ("ssl.ca.location".to_owned(), "/nowhere/ca.pem".to_owned()),
    ]);
    let line = refusal(KafkaConfig { settings: missing, ..bare(&guarded().ssl, "t") });
    assert!(line.contains("ssl.ca.location"), "{line}");
    // Whoever speaks without TLS where there is some is told as well.
    let line = refusal(bare(&guarded().ssl, "t"));
    assert!(line.starts_with("no Kafka broker answers at "), "{line}");
}

#[test]
fn a_topic_that_a_single_broker_can_lose_is_warned_of() {
    listen();
    let brokers = Broker::start_many(3);
    let warned = |topic: &str, replicas, settings: &[(&str, &str)]| {
        create_replicated(&brokers.brokers, topic, replicas, settings);
        KafkaSink::start(bare(&brokers.brokers, topic)).unwrap();
        said_of(&format!("topic={topic:?}"))
    };
    let [line] = &*warned("lonely", 1, &[]) else { panic!("one line") };
    assert!(
        line.starts_with("the topic has one replica: what is acknowledged is lost with its broker"),
        "{line}"
    );
    let [line] = &*warned("hollow", 3, &[("min.insync.replicas", "1")]) else { panic!("one line") };
    assert!(
        line.starts_with("min.insync.replicas is 1: a frame may be acknowledged that a single broker holds"),
        "{line}"
    );
    assert!(line.contains("replicas=3"), "{line}");
    assert_eq!(warned("safe", 3, &[("min.insync.replicas", "2")]), [""; 0]);
}

#[test]
fn a_setting_that_librdkafka_does_not_know_is_named() {
    let settings = BTreeMap::from([("no.such.setting".to_owned(), "1".to_owned())]);
    let line = refusal(KafkaConfig { settings, ..bare(&shared().brokers, "t") });
    assert!(line.starts_with("kafka.settings.no.such.setting: "), "{line}");
    assert_eq!(refusal(bare(" ", "t")), "kafka.brokers names no broker: set it to host:port");
    assert!(
        refusal(bare("b:9092", "a b")).starts_with("kafka.topic = \"a b\" is not the name of a Kafka topic")
    );
}
