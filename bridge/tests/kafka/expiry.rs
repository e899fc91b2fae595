//! Sessions that expire stand in the book of events.

use holdfast_bridge::config::EventsConfig;
use holdfast_bridge::kafka::{KafkaConfig, keep_events};
use holdfast_wire::ids::ClientId;
use holdfast_wire::store::{Progress, Reply, Request};
use serde_json::{Value, json};

use crate::rig::{count, create, name, read, shared, until};
use crate::shard::{Rig, owner};

#[test]
fn a_session_that_expires_stands_in_the_book_of_events() {
    let topic = name("events");
    create(&shared().brokers, &topic, &[]);
    let rig = Rig::start();
    let kafka = KafkaConfig { brokers: shared().brokers.clone(), ..KafkaConfig::default() };
    keep_events(&rig.bridge, &kafka, &EventsConfig { topic: topic.clone(), ..EventsConfig::default() })
        .unwrap();
    let epoch = rig.session("d", owner(1), &["#"]);
    let (client, progress) = (ClientId::new("d"), Progress::default());
    let close = Request::Close { client: client.clone(), epoch, expiry_s: 1, progress, will: None };
    assert_eq!(rig.ask(close), Ok(Reply::Done));
    let Ok(Reply::Session(Some(rests))) = rig.ask(Request::Lookup { client }) else { panic!("it rests") };
    until("the event is there", || count(&kafka.brokers, &topic) == 1);
    let record = read(&kafka.brokers, &topic, 1).remove(0);
    let event: Value = serde_json::from_slice(&record.payload).unwrap();
    let at = rests.rests_until_ms.unwrap();
    assert_eq!(
        (&*record.key, event),
        ("d", json!({ "event": "expired", "client_id": "d", "epoch": epoch.0, "at": at }))
    );
}
