//! MQTT 3.1.1.

use std::time::Duration;

use rumqttc::{AsyncClient, ConnAck, Event, LastWill, MqttOptions, Packet, Publish, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Broker, EVENTS_MAX, soon};

struct Device {
    client: AsyncClient,
    packets: mpsc::Receiver<Packet>,
    event_loop: JoinHandle<()>,
}

impl Device {
    async fn connect(broker: &Broker, id: &str) -> Self {
        Self::with(broker, id, |_| ()).await.0
    }

    async fn with(broker: &Broker, id: &str, set: impl FnOnce(&mut MqttOptions)) -> (Self, ConnAck) {
        let address = broker.address();
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(5)).set_inflight(20);
        set(&mut options);
        let (client, mut event_loop) = AsyncClient::new(options, 64);
        let (into, packets) = mpsc::channel(EVENTS_MAX);
        let event_loop = tokio::spawn(async move {
            // An error ends the connection; the next poll makes a new one.
            while !into.is_closed() {
                if let Ok(Event::Incoming(packet)) = event_loop.poll().await
                    && into.send(packet).await.is_err()
                {
                    return;
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

    async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).await.unwrap();
        self.receive(|packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
    }

    /// Publishes and waits for the end of the exchange.
    async fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: &str) {
        self.client.publish(topic, qos, retain, payload).await.unwrap();
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.receive(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
            }
            QoS::ExactlyOnce => {
                self.receive(|packet| matches!(packet, Packet::PubComp(_)).then_some(())).await;
            }
        }
    }
}

impl Drop for Device {
    /// The connection is lost, without a DISCONNECT.
    fn drop(&mut self) {
        self.event_loop.abort();
    }
}

#[tokio::test]
async fn a_thousand_messages_arrive_in_order_with_each_qos() {
    let broker = Broker::start();
    let mut receiver = Device::connect(&broker, "v4-order-receiver").await;
    receiver.subscribe("v4/order/#", QoS::ExactlyOnce).await;
    let sender = Device::connect(&broker, "v4-order-sender").await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for number in 0..1000 {
            sender.client.publish("v4/order/x", qos, false, number.to_string()).await.unwrap();
        }
        for number in 0..1000 {
            let publish = receiver.receive_publish().await;
            assert_eq!((publish.payload.as_ref(), publish.qos), (number.to_string().as_bytes(), qos));
        }
    }
}

#[tokio::test]
async fn a_session_resumes_with_what_came_meanwhile() {
    let broker = Broker::start();
    let keep = |options: &mut MqttOptions| {
        options.set_clean_session(false);
    };
    let (mut receiver, first) = Device::with(&broker, "v4-resume-receiver", keep).await;
    assert!(!first.session_present);
    receiver.subscribe("v4/resume", QoS::AtLeastOnce).await;
    drop(receiver);
    let mut sender = Device::connect(&broker, "v4-resume-sender").await;
    for number in 0..50 {
        sender.publish("v4/resume", QoS::AtLeastOnce, false, &number.to_string()).await;
    }
    let (mut receiver, second) = Device::with(&broker, "v4-resume-receiver", keep).await;
    assert!(second.session_present);
    for number in 0..50 {
        assert_eq!(receiver.receive_publish().await.payload, number.to_string().as_bytes());
    }
}

#[tokio::test]
async fn a_will_tells_of_a_lost_connection() {
    let broker = Broker::start();
    let mut watcher = Device::connect(&broker, "v4-will-watcher").await;
    watcher.subscribe("v4/will", QoS::ExactlyOnce).await;
    let (lost, _) = Device::with(&broker, "v4-will-lost", |options| {
        options.set_last_will(LastWill::new("v4/will", "gone", QoS::ExactlyOnce, false));
    })
    .await;
    drop(lost);
    let will = watcher.receive_publish().await;
    assert_eq!((will.payload.as_ref(), will.qos), (b"gone".as_slice(), QoS::ExactlyOnce));
}

#[tokio::test]
async fn a_retained_message_greets_and_can_be_removed() {
    let broker = Broker::start();
    let mut sender = Device::connect(&broker, "v4-retain-sender").await;
    sender.publish("v4/retain/a", QoS::AtLeastOnce, true, "kept").await;
    sender.publish("v4/retain/b", QoS::AtLeastOnce, true, "kept").await;
    sender.publish("v4/retain/a", QoS::AtLeastOnce, true, "").await;
    let mut receiver = Device::connect(&broker, "v4-retain-receiver").await;
    receiver.client.subscribe("v4/retain/#", QoS::AtLeastOnce).await.unwrap();
    let greeting = receiver.receive_publish().await;
    assert_eq!((greeting.topic.as_str(), greeting.retain), ("v4/retain/b", true));
}
