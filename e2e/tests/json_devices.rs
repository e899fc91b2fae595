//! Devices that speak JSON over WebSocket (`docs/devices-json.md`), through tokio-tungstenite.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use holdfast_e2e::packet::{Connect, Version, acknowledge, kind, publish};
use holdfast_e2e::wait::PATIENCE;
use holdfast_e2e::{Client, Gateway, Setup};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// One connection of a device.
struct Device {
    socket: WebSocketStream<TcpStream>,
}

impl Device {
    /// Connects; `query` begins with `?` or is empty. Gives the welcome as well.
    async fn connect(ws: SocketAddr, id: &str, query: &str) -> (Self, Value) {
        let mut request = format!("ws://{ws}/v1/devices/{id}/socket{query}").into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", "holdfast.v1".parse().unwrap());
        let stream = TcpStream::connect(ws).await.unwrap();
        let (socket, response) = client_async(request, stream).await.expect("an upgrade");
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "holdfast.v1");
        let mut device = Self { socket };
        let welcome = device.receive().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        (device, welcome)
    }

    async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next text message.
    async fn receive(&mut self) -> Value {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message was due");
            match message.expect("the connection stands").expect("a sound WebSocket") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Everything until the end: the texts, then the close code.
    async fn receive_to_end(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut texts = Vec::new();
        let mut code = None;
        while let Some(message) =
            tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the end was due")
        {
            match message {
                Ok(Message::Text(text)) => texts.push(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Close(frame)) => code = frame.map(|frame| u16::from(frame.code)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        (texts, code)
    }

    async fn subscribe(&mut self, filter: &str) {
        self.send(json!({"type": "subscribe", "id": 60_000, "topics": [filter]})).await;
        assert_eq!(self.receive().await, json!({"type": "subscribed", "id": 60_000, "codes": [1]}));
    }
}

#[tokio::test]
async fn frames_are_acknowledged_and_stored_byte_for_byte() {
    let gateway = Gateway::start();
    let (mut device, welcome) = Device::connect(gateway.ws(), "sensor-7", "").await;
    assert_eq!((&welcome["client_id"], &welcome["session_present"]), (&json!("sensor-7"), &json!(false)));
    assert!(welcome["receive_maximum"].as_u64().is_some_and(|most| most > 0));
    let frame = r#"{"type":"frame","id":7,"topic":"accel","ts":1732150000123,"data":{"x": 0.020, "y":1e3}}"#;
    device.send_text(frame).await;
    assert_eq!(device.receive().await, json!({"type": "ack", "id": 7}));
    device.send_text(r#"{"type":"frame","id":8,"topic":"raw","data_base64":"AP8="}"#).await;
    assert_eq!(device.receive().await, json!({"type": "ack", "id": 8}));

    let frames = gateway.frames();
    let [first, second] = &frames[..] else { panic!("two frames were sent: {frames:?}") };
    assert_eq!((first.client_id.as_str(), first.topic.as_str()), ("sensor-7", "accel"));
    assert_eq!(first.payload(), br#"{"x": 0.020, "y":1e3}"#);
    assert_eq!((first.event_time, first.qos, first.packet_id), (Some(1_732_150_000_123), 1, Some(7)));
    assert_eq!(second.payload(), [0, 255]);
}

#[tokio::test]
async fn a_window_of_frames_is_acknowledged_in_order() {
    let gateway = Gateway::start();
    let (mut device, welcome) = Device::connect(gateway.ws(), "burst", "").await;
    let window = welcome["receive_maximum"].as_u64().unwrap().min(500) as u16;
    for round in 0..5 {
        for id in 1..=window {
            device.send(json!({"type": "frame", "id": id, "topic": "burst", "data": [round, id]})).await;
        }
        for id in 1..=window {
            assert_eq!(device.receive().await, json!({"type": "ack", "id": id}));
        }
    }
    assert_eq!(gateway.frames().len(), usize::from(window) * 5);
}

#[tokio::test]
async fn json_and_mqtt_devices_hear_each_other() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "json", "").await;
    device.subscribe("to/json").await;
    let mut client = Client::open(gateway.mqtt(), Version::V5, "mqtt");
    client.subscribe("to/mqtt", 1);

    client.send(&publish(Version::V5, 1, "to/json", 1, br#"{"rate":50}"#));
    let push = device.receive().await;
    assert_eq!((&push["type"], &push["topic"]), (&json!("push"), &json!("to/json")));
    assert_eq!(push["data"], json!({"rate": 50}));
    device.send(json!({"type": "ack", "id": push["id"]})).await;

    client.send(&publish(Version::V5, 1, "to/json", 2, b"\xff\x00"));
    let push = device.receive().await;
    assert_eq!(push["data_base64"], "/wA=");
    device.send(json!({"type": "ack", "id": push["id"]})).await;

    device.send(json!({"type": "frame", "id": 1, "topic": "to/mqtt", "data": {"a": 1}})).await;
    loop {
        let packet = client.receive();
        if packet.kind() == kind::PUBLISH {
            assert_eq!(packet.publish(Version::V5).payload, br#"{"a":1}"#);
            break;
        }
    }
    assert_eq!(device.receive().await, json!({"type": "ack", "id": 1}));
}

#[tokio::test]
async fn a_session_goes_on_and_unanswered_pushes_come_again() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "back", "?session_expiry_s=600").await;
    device.subscribe("to/back").await;
    let mut client = Client::open(gateway.mqtt(), Version::V311, "sender");
    client.send(&publish(Version::V311, 1, "to/back", 1, b"1"));
    let push = device.receive().await;
    assert_eq!(push["data"], 1);
    drop(device);
    client.receive_kind(kind::PUBACK);
    client.send(&publish(Version::V311, 1, "to/back", 2, b"2"));
    client.receive_kind(kind::PUBACK);
    let (mut device, welcome) = Device::connect(gateway.ws(), "back", "?session_expiry_s=600").await;
    assert_eq!(welcome["session_present"], true);
    let again = device.receive().await;
    assert_eq!((&again["data"], &again["dup"]), (&json!(1), &json!(true)));
    assert_eq!(device.receive().await["data"], 2);
    drop(device);
    let (_device, welcome) = Device::connect(gateway.ws(), "back", "?clean_start=true").await;
    assert_eq!(welcome["session_present"], false);
}

#[tokio::test]
async fn a_frame_sent_again_is_one_record() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "again", "?session_expiry_s=600").await;
    device.send(json!({"type": "frame", "id": 5, "topic": "t", "data": "once"})).await;
    device.receive().await;
    drop(device);
    let (mut device, _) = Device::connect(gateway.ws(), "again", "?session_expiry_s=600").await;
    device.send(json!({"type": "frame", "id": 5, "dup": true, "topic": "t", "data": "once"})).await;
    let ack = device.receive().await;
    assert_eq!((&ack["type"], &ack["id"]), (&json!("ack"), &json!(5)));
    assert_eq!(gateway.frames().len(), 1);
}

#[tokio::test]
async fn a_push_over_http_reaches_a_json_device() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "json", "").await;
    device.subscribe("devices/json/push").await;
    let body = br#"{"device":"json","payload":{"wake":true}}"#;
    let admin = gateway.admin();
    let pushing = tokio::task::spawn_blocking(move || {
        holdfast_e2e::request(admin, "POST", "/v1/push", &[("content-type", "application/json")], body)
    });
    let push = device.receive().await;
    assert_eq!(push["data"], json!({"wake": true}));
    device.send(json!({"type": "ack", "id": push["id"]})).await;
    let response = pushing.await.unwrap().unwrap();
    assert_eq!((response.status, &response.json()["outcome"]), (200, &json!("delivered")));
}

#[tokio::test]
async fn mistakes_are_explained_and_the_connection_goes_on() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "wrong", "").await;
    let cases = [
        ("not json", Value::Null, "malformed_json"),
        ("[1]", Value::Null, "malformed_json"),
        (r#"{"type":"frame","id":1,"data":1}"#, json!(1), "invalid_message"),
        (r#"{"type":"frame","id":2,"topic":"a","data":1,"extra":1}"#, json!(2), "invalid_message"),
        (r#"{"type":"frame","id":0,"topic":"a","data":1}"#, Value::Null, "invalid_message"),
        (r#"{"type":"fly","id":3}"#, json!(3), "unknown_type"),
        (r#"{"type":"frame","id":4,"topic":"a/#","data":1}"#, json!(4), "topic_invalid"),
    ];
    for (text, id, code) in cases {
        device.send_text(text).await;
        let error = device.receive().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{text}: {error}");
        assert_eq!(error["id"], id, "{text}");
        assert!(error["message"].is_string());
    }
    device.send(json!({"type": "ping"})).await;
    assert_eq!(device.receive().await, json!({"type": "pong"}));
    assert!(gateway.frames().is_empty());
}

#[tokio::test]
async fn silence_ends_with_a_goodbye() {
    let gateway = Gateway::start();
    let (mut device, welcome) = Device::connect(gateway.ws(), "silent", "?keep_alive_s=1").await;
    assert_eq!(welcome["keep_alive_s"], 1);
    let (heard, _) = device.receive_to_end().await;
    assert_eq!(heard.last().map(|last| &last["reason"]), Some(&json!("keep_alive_timeout")), "{heard:?}");
}

#[tokio::test]
async fn a_takeover_by_an_mqtt_client_says_goodbye() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "same", "").await;
    let _client = Client::open(gateway.mqtt(), Version::V5, "same");
    let (heard, code) = device.receive_to_end().await;
    assert_eq!(heard.last().map(|last| &last["reason"]), Some(&json!("takeover")), "{heard:?}");
    assert!(code.is_some());
}

#[tokio::test]
async fn a_drain_says_goodbye_with_a_time_to_come_back() {
    let gateway = Setup::new().set("drain.deadline_ms", 5000).start();
    let (mut device, _) = Device::connect(gateway.ws(), "drained", "").await;
    gateway.terminate();
    let (heard, code) = device.receive_to_end().await;
    let goodbye = heard.last().expect("a goodbye");
    assert_eq!((&goodbye["type"], &goodbye["reason"]), (&json!("goodbye"), &json!("drain")));
    assert_eq!(code, Some(1012));
}

#[tokio::test]
async fn more_in_flight_than_the_receive_maximum_ends_with_a_goodbye() {
    let gateway = Setup::new().set("mqtt.receive_maximum", 2).start();
    let (mut device, _) = Device::connect(gateway.ws(), "greedy", "").await;
    // One write, so that none can be answered in between.
    for id in 1..=50 {
        let frame = json!({"type": "frame", "id": id, "topic": "t", "data": id});
        device.socket.feed(Message::text(frame.to_string())).await.unwrap();
    }
    device.socket.flush().await.unwrap();
    let (heard, _) = device.receive_to_end().await;
    assert_eq!(
        heard.last().map(|last| &last["reason"]),
        Some(&json!("receive_maximum_exceeded")),
        "{heard:?}"
    );
}

#[tokio::test]
async fn an_mqtt_client_hears_the_session_of_a_json_device() {
    let gateway = Gateway::start();
    let (mut device, _) = Device::connect(gateway.ws(), "both", "?session_expiry_s=600").await;
    device.subscribe("to/both").await;
    device.socket.close(None).await.unwrap();
    device.receive_to_end().await;
    let mut sender = Client::open(gateway.mqtt(), Version::V5, "sender");
    sender.send(&publish(Version::V5, 1, "to/both", 1, b"kept"));
    sender.receive_kind(kind::PUBACK);
    let (mut client, answer) =
        Client::connect(gateway.mqtt(), &Connect::new(Version::V5, "both").persistent());
    assert!(answer.session_present(), "one client id, one session");
    let push = client.receive_publish();
    assert_eq!(push.payload, b"kept");
    client.send(&acknowledge(kind::PUBACK, push.id));
    assert!(client.poll(Duration::from_millis(200)).is_err());
}
