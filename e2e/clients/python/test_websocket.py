"""paho-mqtt over WebSocket: a second implementation of frames and masks beside MQTT.js."""

import pytest

BOTH = pytest.mark.parametrize("version", [4, 5], ids=["v311", "v5"])


@BOTH
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_goes_from_websocket_to_tcp_and_back(device, name, version, qos):
    browser = device(f"{name}-browser", version, transport="websockets")
    browser.subscribe(f"{name}/down", qos)
    sensor = device(f"{name}-sensor", version)
    sensor.subscribe(f"{name}/up", qos)
    browser.publish(f"{name}/up", b"up", qos)
    assert sensor.receive().payload == b"up"
    sensor.publish(f"{name}/down", b"down", qos)
    assert browser.receive().payload == b"down"


@BOTH
def test_a_large_payload_passes_whole(device, name, version):
    payload = bytes(range(256)) * 800
    browser = device(name, version, transport="websockets")
    browser.subscribe(name, 1)
    browser.publish(name, payload, 1)
    assert browser.receive().payload == payload


@BOTH
def test_a_session_moves_between_the_transports(device, name, version):
    first = device(name, version, clean=False)
    first.subscribe(f"{name}/#", 1)
    first.leave()
    device(f"{name}-s", version).publish(f"{name}/a", b"meanwhile", 1)
    second = device(name, version, clean=False, transport="websockets")
    assert second.connack[0].session_present is True
    assert second.receive().payload == b"meanwhile"


@BOTH
def test_a_will_is_published_when_the_socket_is_lost(device, name, version):
    watcher = device(f"{name}-w", version)
    watcher.subscribe(name, 1)
    lost = device(f"{name}-l", version, transport="websockets", will={"topic": name, "payload": b"gone", "qos": 1})
    lost.cut()
    assert watcher.receive().payload == b"gone"
