"""What stands in Kafka once a device has heard its acknowledgement, read by a client that is not ours."""

import json
import os
import time
from contextlib import ExitStack

import pytest
from websockets.sync.client import connect

from device import PATIENCE
from records import Topic

BOTH = pytest.mark.parametrize("version", [4, 5], ids=["v311", "v5"])


@pytest.fixture
def topic():
    """The topic that frames go to."""
    topic = Topic()
    yield topic
    topic.close()


@pytest.fixture
def json_device():
    """Makes devices without an MQTT library: `json_device(client_id, query)`."""
    with ExitStack() as sockets:

        def make(client_id, query=""):
            url = f"ws://{os.environ['E2E_WS']}/v1/devices/{client_id}/socket{query}"
            return JsonDevice(sockets.enter_context(connect(url, subprotocols=["holdfast.v1"], compression=None)))

        yield make


class JsonDevice:
    """A device that was welcomed."""

    def __init__(self, socket):
        self.socket = socket
        assert self.receive()["type"] == "welcome"

    def receive(self):
        return json.loads(self.socket.recv(timeout=PATIENCE))

    def send(self, text):
        """Sends a message, byte for byte, and gives the answer."""
        self.socket.send(text)
        return self.receive()


def now_ms():
    return time.time_ns() // 1_000_000


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
def test_an_acknowledged_frame_is_a_record_with_its_devices_key(device, topic, name, version, qos):
    before = now_ms()
    assert device(name, version).publish(f"sensors/{name}/accel", b"\x00\xff\x10", qos) == 0
    [record] = topic.of(name, 1)
    assert record.value == b"\x00\xff\x10"
    assert record.header("topic") == f"sensors/{name}/accel"
    assert record.header("client-id") == name
    assert record.header("qos") == str(qos)
    assert 1 <= int(record.header("packet-id")) <= 65_535
    assert record.header("dup") is None and record.header("resent") is None
    assert record.header("session") and record.header("node")
    # Without an event time the record's time is that of arrival.
    assert before - 1 <= record.timestamp <= now_ms() + 1
    assert int(record.header("received-at")) == record.timestamp


@BOTH
def test_the_frames_of_a_device_stand_in_one_partition_in_the_order_of_sending(device, topic, name, version):
    sender = device(name, version)
    sent = [sender.send("sensors/order", str(number).encode()) for number in range(200)]
    for mid in sent:
        assert sender.acknowledged(mid) == 0
    records = topic.of(name, 200)
    assert [int(record.value) for record in records] == list(range(200))
    assert len({record.partition for record in records}) == 1


def test_what_mqtt_5_says_beside_the_payload_is_in_the_headers(device, topic, name):
    properties = {
        "ContentType": "application/cbor",
        "ResponseTopic": "answers/here",
        "CorrelationData": b"\x00\x01\xfe",
        "UserProperty": [("site", "7"), ("unit", "m/s²"), ("site", "8"), ("event-time", "1732150000123")],
    }
    assert device(name, 5).publish("sensors/properties", b"cbor", 1, **properties) == 0
    [record] = topic.of(name, 1)
    assert record.header("content-type") == "application/cbor"
    assert record.header("response-topic") == "answers/here"
    assert record.raw("correlation-data") == b"\x00\x01\xfe"
    assert record.all("u-site") == ["7", "8"]
    assert record.header("u-unit") == "m/s²"
    assert record.timestamp == 1_732_150_000_123
    assert abs(int(record.header("received-at")) - now_ms()) < 60_000


def test_a_json_device_has_its_data_in_kafka_byte_for_byte(json_device, topic, name):
    device = json_device(name)
    data = '{ "x": 0.020,"y":1e3 }'
    frame = f'{{"type":"frame","id":7,"topic":"accel","ts":1732150000123,"data":{data}}}'
    assert device.send(frame) == {"type": "ack", "id": 7}
    [record] = topic.of(name, 1)
    assert record.value.decode() == data
    assert record.header("topic") == "accel"
    assert record.header("qos") == "1"
    assert record.header("packet-id") == "7"
    assert record.header("content-type") == "application/json"
    assert record.timestamp == 1_732_150_000_123


def test_binary_data_of_a_json_device_is_decoded(json_device, topic, name):
    assert json_device(name).send('{"type":"frame","id":1,"topic":"raw","data_base64":"AP8Q"}')["type"] == "ack"
    [record] = topic.of(name, 1)
    assert record.value == b"\x00\xff\x10"


def test_a_receipt_names_the_place_where_the_record_stands(json_device, topic, name):
    device = json_device(name, "?receipt=offset")
    receipt = device.send('{"type":"frame","id":1,"topic":"accel","data":1}')["receipt"]
    [record] = topic.of(name, 1)
    assert receipt == {"topic": "holdfast.frames", "partition": record.partition, "offset": record.offset}


def test_a_receipt_comes_in_the_user_properties_of_a_puback(device, topic, name):
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    asks = Properties(PacketTypes.CONNECT)
    asks.UserProperty = ("holdfast-receipt", "offset")
    sender = device(name, 5, connect_properties=asks, connect=False)
    heard = []
    said = sender.client.on_publish

    def listen(client, userdata, mid, code, properties):
        heard.append(dict(properties.UserProperty))
        said(client, userdata, mid, code, properties)

    sender.client.on_publish = listen
    sender.connect()
    assert sender.publish("sensors/receipt", b"1", 1) == 0
    [record] = topic.of(name, 1)
    [receipt] = heard
    assert receipt["kafka-topic"] == "holdfast.frames"
    assert (int(receipt["kafka-partition"]), int(receipt["kafka-offset"])) == (record.partition, record.offset)


def test_a_frame_sent_again_after_a_reconnect_is_one_record(json_device, topic, name):
    frame = '{"type":"frame","id":3,"topic":"once","data":1}'
    assert json_device(name, "?receipt=offset").send(frame)["type"] == "ack"
    # The device did not hear the answer, comes back and sends it again.
    again = json_device(name, "?receipt=offset").send(frame.replace('"id":3', '"id":3,"dup":true'))
    assert again["type"] == "ack" and again["duplicate"] is True
    device = json_device(name)
    assert device.send('{"type":"frame","id":4,"topic":"once","data":2}')["type"] == "ack"
    assert [record.value for record in topic.of(name, 2)] == [b"1", b"2"]


def test_a_frame_of_qos_0_arrives_too(device, topic, name):
    device(name, 4).publish("sensors/unasked", b"0", 0)
    [record] = topic.of(name, 1)
    assert record.header("qos") == "0"
    assert record.header("packet-id") is None
