//! MQTT 5.

use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, DisconnectReasonCode, Filter, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties, RetainForwardRule, SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions, StateError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Broker, EVENTS_MAX, soon};

struct Device {
    client: AsyncClient,
    packets: mpsc::Receiver<Packet>,
    /// Ends with its connection, so that two with one client id do not chase each other away.
    event_loop: JoinHandle<ConnectionError>,
}

impl Device {
    async fn connect(broker: &Broker, id: &str) -> Self {
        Self::with(broker, id, |_| ()).await.0
    }

    async fn with(broker: &Broker, id: &str, set: impl FnOnce(&mut MqttOptions)) -> (Self, ConnAck) {
        let address = broker.address();
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(5));
        options.set_outgoing_inflight_upper_limit(20);
        set(&mut options);
        let (client, mut event_loop) = AsyncClient::new(options, 64);
        let (into, packets) = mpsc::channel(EVENTS_MAX);
        let event_loop = tokio::spawn(async move {
            loop {
                match event_loop.poll().await {
                    // A device that is gone hears no more; its event loop is aborted with it.
                    Ok(Event::Incoming(packet)) => drop(into.send(packet).await),
                    Ok(Event::Outgoing(_)) => {}
                    Err(end) => return end,
                }
            }
        });
        let mut device = Self { client, packets, event_loop };
        let Packet::ConnAck(answer) = device.receive_packet().await else { panic!("not a CONNACK") };
        (device, answer)
    }

    async fn receive_packet(&mut self) -> Packet {
        self.receive(Some).await
    }

    /// The next that `choose` wants; the others pass.
    async fn receive<T>(&mut self, choose: impl Fn(Packet) -> Option<T>) -> T {
        // One deadline for all: answered pings come for ever.
        soon("a packet", async {
            loop {
                if let Some(chosen) = choose(self.packets.recv().await.expect("the event loop runs")) {
                    return chosen;
                }
            }
        })
        .await
    }

    async fn receive_publish(&mut self) -> Publish {
        self.receive(|packet| if let Packet::Publish(publish) = packet { Some(publish) } else { None }).await
    }

    async fn subscribe(&mut self, filter: Filter, identifier: Option<usize>) -> SubscribeReasonCode {
        let properties = SubscribeProperties { id: identifier, user_properties: Vec::new() };
        self.client.subscribe_many_with_properties([filter], properties).await.unwrap();
        self.receive(|packet| if let Packet::SubAck(ack) = packet { Some(ack) } else { None })
            .await
            .return_codes[0]
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    async fn publish(&mut self, topic: &str, retain: bool, payload: &str) -> PubAckReason {
        self.client.publish(topic, QoS::AtLeastOnce, retain, payload.to_owned()).await.unwrap();
        self.receive(|packet| if let Packet::PubAck(ack) = packet { Some(ack) } else { None }).await.reason
    }
}

impl Drop for Device {
    /// The connection is lost, without a DISCONNECT.
    fn drop(&mut self) {
        self.event_loop.abort();
    }
}

fn filter(path: &str) -> Filter {
    Filter::new(path, QoS::AtLeastOnce)
}

#[tokio::test]
async fn properties_pass_through_with_the_subscription_identifier() {
    let broker = Broker::start();
    let mut receiver = Device::connect(&broker, "v5-properties-receiver").await;
    receiver.subscribe(filter("v5/properties"), Some(7)).await;
    let sender = Device::connect(&broker, "v5-properties-sender").await;
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        response_topic: Some("v5/answer".to_owned()),
        correlation_data: Some(vec![0, 255].into()),
        user_properties: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    };
    let client = &sender.client;
    client
        .publish_with_properties("v5/properties", QoS::AtLeastOnce, false, "x", sent.clone())
        .await
        .unwrap();
    let heard = receiver.receive_publish().await.properties.expect("properties");
    assert_eq!(heard, PublishProperties { subscription_identifiers: vec![7], ..sent });
}

#[tokio::test]
async fn subscription_options_are_obeyed() {
    let broker = Broker::start();
    let mut both = Device::connect(&broker, "v5-options-both").await;
    both.publish("v5/options", true, "kept").await;
    let own = Filter { nolocal: true, retain_forward_rule: RetainForwardRule::Never, ..filter("v5/options") };
    both.subscribe(own, None).await;
    both.publish("v5/options", false, "own").await;
    let mut other = Device::connect(&broker, "v5-options-other").await;
    other.publish("v5/options", false, "foreign").await;
    assert_eq!(both.receive_publish().await.payload, "foreign");
}

#[tokio::test]
async fn a_shared_group_takes_each_message_once() {
    let broker = Broker::start();
    let mut one = Device::connect(&broker, "v5-shared-1").await;
    let mut two = Device::connect(&broker, "v5-shared-2").await;
    for member in [&mut one, &mut two] {
        member.subscribe(filter("$share/group/v5/shared"), None).await;
    }
    let mut sender = Device::connect(&broker, "v5-shared-sender").await;
    for number in 0..40 {
        sender.publish("v5/shared", false, &number.to_string()).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 40 {
        let publish = tokio::select! {
            publish = one.receive_publish() => publish,
            publish = two.receive_publish() => publish,
        };
        heard.push(String::from_utf8(publish.payload.to_vec()).unwrap().parse::<u32>().unwrap());
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_delayed_will_is_taken_back_by_a_return() {
    let broker = Broker::start();
    let mut watcher = Device::connect(&broker, "v5-will-watcher").await;
    watcher.subscribe(filter("v5/will"), None).await;
    let delayed = |options: &mut MqttOptions| {
        let properties = LastWillProperties {
            delay_interval: Some(600),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        };
        options.set_last_will(LastWill::new("v5/will", "gone", QoS::AtLeastOnce, false, Some(properties)));
        options.set_clean_start(false).set_session_expiry_interval(Some(600));
    };
    let (lost, _) = Device::with(&broker, "v5-will-lost", delayed).await;
    drop(lost);
    let (mut back, answer) = Device::with(&broker, "v5-will-lost", delayed).await;
    assert!(answer.session_present);
    back.publish("v5/will", false, "I am back").await;
    assert_eq!(watcher.receive_publish().await.payload, "I am back");
}

#[tokio::test]
async fn the_loser_of_a_takeover_hears_why() {
    let broker = Broker::start();
    let mut first = Device::connect(&broker, "v5-takeover").await;
    let _second = Device::connect(&broker, "v5-takeover").await;
    // A DISCONNECT from the server is an error of the event loop.
    let end = soon("the end of the first connection", &mut first.event_loop).await.unwrap();
    let ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) = end else {
        panic!("{end}")
    };
    assert_eq!(reason_code, DisconnectReasonCode::SessionTakenOver);
}

#[tokio::test]
async fn a_receive_maximum_of_one_still_lets_everything_through() {
    let broker = Broker::start();
    let (mut receiver, _) = Device::with(&broker, "v5-window-receiver", |options| {
        options.set_receive_maximum(Some(1));
    })
    .await;
    receiver.subscribe(filter("v5/window"), None).await;
    let mut sender = Device::connect(&broker, "v5-window-sender").await;
    for number in 0..100 {
        sender.publish("v5/window", false, &number.to_string()).await;
    }
    for number in 0..100 {
        assert_eq!(receiver.receive_publish().await.payload, number.to_string());
    }
}

#[tokio::test]
async fn the_server_says_what_it_can() {
    let broker = Broker::start();
    let (_device, answer) = Device::with(&broker, "", |_| ()).await;
    let properties = answer.properties.expect("limits");
    assert!(properties.assigned_client_identifier.is_some_and(|id| !id.is_empty()));
    assert!(properties.topic_alias_max.is_some_and(|most| most > 0));
}
