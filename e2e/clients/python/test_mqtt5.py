"""What only MQTT 5 has, with paho-mqtt."""

import time

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from device import until


def test_properties_pass_through_in_order(device, name):
    receiver = device(f"{name}-r")
    receiver.subscribe(name, 1)
    device(f"{name}-s").publish(
        name, b"{}", 1,
        PayloadFormatIndicator=1,
        ContentType="application/json",
        ResponseTopic=f"{name}/answer",
        CorrelationData=b"\x00\xff42",
        UserProperty=[("a", "1"), ("b", "2"), ("a", "3"), ("", "empty name")],
    )
    properties = receiver.receive().properties
    assert properties.PayloadFormatIndicator == 1
    assert properties.ContentType == "application/json"
    assert properties.ResponseTopic == f"{name}/answer"
    assert properties.CorrelationData == b"\x00\xff42"
    assert properties.UserProperty == [("a", "1"), ("b", "2"), ("a", "3"), ("", "empty name")]


def test_a_request_finds_its_response(device, name):
    responder = device(f"{name}-responder")
    responder.subscribe(f"{name}/request", 1)
    requester = device(f"{name}-requester")
    requester.subscribe(f"{name}/response", 1)
    requester.send(f"{name}/request", b"2+2", ResponseTopic=f"{name}/response", CorrelationData=b"7")
    request = responder.receive()
    responder.publish(request.properties.ResponseTopic, b"4", CorrelationData=request.properties.CorrelationData)
    response = requester.receive()
    assert (response.payload, response.properties.CorrelationData) == (b"4", b"7")


def test_no_local_spares_the_publisher(device, name):
    both = device(f"{name}-b")
    both.subscribe(name, 1, noLocal=True)
    both.publish(name, b"mine")
    other = device(f"{name}-o")
    other.publish(name, b"theirs")
    assert both.receive().payload == b"theirs"


def test_retain_as_published_keeps_the_flag(device, name):
    keeps = device(f"{name}-k")
    keeps.subscribe(name, 1, retainAsPublished=True)
    clears = device(f"{name}-c")
    clears.subscribe(name, 1, retainAsPublished=False)
    sender = device(f"{name}-s")
    sender.publish(name, b"x", 1, retain=True)
    assert keeps.receive().retain is True
    assert clears.receive().retain is False


def test_retain_handling_says_when_retained_messages_come(device, name):
    sender = device(f"{name}-s")
    sender.publish(f"{name}/kept", b"kept", 1, retain=True)
    receiver = device(f"{name}-r")
    # 2: never.
    receiver.subscribe(f"{name}/kept", 1, retainHandling=2)
    receiver.nothing_more(sender, f"{name}/kept")
    # 1: only with a new subscription, and this one is there already.
    receiver.subscribe(f"{name}/kept", 1, retainHandling=1)
    receiver.nothing_more(sender, f"{name}/kept")
    receiver.unsubscribe(f"{name}/kept")
    receiver.subscribe(f"{name}/kept", 1, retainHandling=1)
    assert receiver.receive().retain is True
    # 0: each time.
    receiver.subscribe(f"{name}/kept", 1, retainHandling=0)
    assert receiver.receive().retain is True


def test_subscription_identifiers_come_with_each_message(device, name):
    receiver = device(f"{name}-r")
    receiver.subscribe(f"{name}/a", 1, identifier=1)
    receiver.subscribe(f"{name}/#", 1, identifier=268_435_455)
    sender = device(f"{name}-s")
    sender.publish(f"{name}/b", b"one")
    assert receiver.receive().properties.SubscriptionIdentifier == [268_435_455]
    sender.publish(f"{name}/a", b"both")
    sender.publish(f"{name}/b", b"end")
    identifiers = []
    while (message := receiver.receive()).payload != b"end":
        identifiers += message.properties.SubscriptionIdentifier
    assert sorted(identifiers) == [1, 268_435_455]


def test_a_shared_subscription_gives_each_message_to_one(device, name):
    members = [device(f"{name}-{number}") for number in range(3)]
    for member in members:
        assert member.subscribe(f"$share/group/{name}/#", 1) == 1
    everyone = device(f"{name}-everyone")
    everyone.subscribe(f"{name}/#", 1)
    sender = device(f"{name}-s")
    for number in range(90):
        sender.publish(f"{name}/work", str(number))
    assert len(everyone.payloads(90)) == 90
    until("90 messages in the group", lambda: sum(m.messages.qsize() for m in members) >= 90)
    heard = [m.payloads(m.messages.qsize()) for m in members]
    assert sorted(int(payload) for part in heard for payload in part) == list(range(90))
    assert all(heard), "a member got nothing"


def test_two_shared_groups_each_get_all(device, name):
    first, second = device(f"{name}-1"), device(f"{name}-2")
    first.subscribe(f"$share/one/{name}", 1)
    second.subscribe(f"$share/two/{name}", 1)
    device(f"{name}-s").publish(name, b"x")
    assert first.receive().payload == second.receive().payload == b"x"


def test_no_retained_message_greets_a_shared_subscription(device, name):
    sender = device(f"{name}-s")
    sender.publish(name, b"kept", retain=True)
    member = device(f"{name}-m")
    member.subscribe(f"$share/group/{name}", 1)
    member.nothing_more(sender, name)


def test_a_message_expires_in_the_queue(device, name):
    receiver = device(f"{name}-r", clean=False)
    receiver.subscribe(name, 1)
    receiver.leave()
    sender = device(f"{name}-s")
    sent = time.monotonic()
    sender.publish(name, b"soon", MessageExpiryInterval=1)
    sender.publish(name, b"later", MessageExpiryInterval=600)
    until("one second to pass", lambda: time.monotonic() > sent + 2.1)
    receiver.connect()
    message = receiver.receive()
    assert message.payload == b"later"
    # What is passed on is what remains (MQTT-3.3.2-6).
    assert 500 < message.properties.MessageExpiryInterval <= 599


def test_a_retained_message_expires(device, name):
    sender = device(f"{name}-s")
    sent = time.monotonic()
    sender.publish(name, b"soon", retain=True, MessageExpiryInterval=1)
    until("one second to pass", lambda: time.monotonic() > sent + 2.1)
    receiver = device(f"{name}-r")
    receiver.subscribe(name, 1)
    receiver.nothing_more(sender, name)


def test_a_session_expires(device, name):
    receiver = device(f"{name}-r", clean=False, expiry_s=1)
    receiver.subscribe(name, 1)
    receiver.leave()
    left = time.monotonic()
    until("one second to pass", lambda: time.monotonic() > left + 2.1)
    flags, _, _ = receiver.connect()
    assert flags.session_present is False


def test_expiry_zero_ends_the_session_with_the_connection(device, name):
    receiver = device(f"{name}-r", clean=False, expiry_s=0)
    receiver.leave()
    flags, _, _ = receiver.connect()
    assert flags.session_present is False


def test_disconnect_may_change_the_session_expiry(device, name):
    receiver = device(f"{name}-r", clean=False, expiry_s=600)
    receiver.leave(SessionExpiryInterval=0)
    flags, _, _ = receiver.connect()
    assert flags.session_present is False


def test_a_will_waits_for_its_delay_and_a_return_takes_it_back(device, name):
    watcher = device(f"{name}-w")
    watcher.subscribe(f"{name}/#", 1)
    delay = Properties(PacketTypes.WILLMESSAGE)
    delay.WillDelayInterval = 2
    will = {"topic": f"{name}/will", "payload": b"gone", "qos": 1, "properties": delay}
    lost = device(f"{name}-l", clean=False, will=will)
    cut = time.monotonic()
    lost.cut()
    assert watcher.receive().payload == b"gone"
    assert time.monotonic() - cut > 1.5
    lost.connect()
    lost.cut()
    lost.connect()
    back = time.monotonic()
    until("the delay to pass", lambda: time.monotonic() > back + 2.5)
    watcher.nothing_more(device(f"{name}-s"), f"{name}/last")


def test_a_will_comes_at_once_when_the_session_ends_before_its_delay(device, name):
    watcher = device(f"{name}-w")
    watcher.subscribe(f"{name}/will", 1)
    delay = Properties(PacketTypes.WILLMESSAGE)
    delay.WillDelayInterval = 3600
    will = {"topic": f"{name}/will", "payload": b"gone", "qos": 1, "properties": delay}
    device(f"{name}-l", expiry_s=0, will=will).cut()
    assert watcher.receive().payload == b"gone"


def test_will_properties_arrive(device, name):
    watcher = device(f"{name}-w")
    watcher.subscribe(f"{name}/will", 1)
    block = Properties(PacketTypes.WILLMESSAGE)
    block.ContentType = "text/plain"
    block.UserProperty = [("why", "cut"), ("when", "now")]
    device(f"{name}-l", will={"topic": f"{name}/will", "payload": b"x", "qos": 1, "properties": block}).cut()
    message = watcher.receive()
    assert message.properties.ContentType == "text/plain"
    assert message.properties.UserProperty == [("why", "cut"), ("when", "now")]


def test_disconnect_with_will_message_publishes_it(device, name):
    watcher = device(f"{name}-w")
    watcher.subscribe(f"{name}/will", 1)
    leaves = device(f"{name}-l", will={"topic": f"{name}/will", "payload": b"with will", "qos": 1})
    leaves.client.disconnect(reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
    assert watcher.receive().payload == b"with will"


def test_topic_aliases_stand_for_topics_on_the_way_up(device, name):
    receiver = device(f"{name}-r")
    receiver.subscribe(f"{name}/long/topic", 1)
    sender = device(f"{name}-s")
    assert sender.connack[2].TopicAliasMaximum >= 1
    sender.publish(f"{name}/long/topic", b"first", TopicAlias=1)
    # Paho refuses an empty topic but for an alias.
    sender.publish("", b"second", TopicAlias=1)
    heard = receiver.receive(2)
    assert [(m.topic, m.payload) for m in heard] == [(f"{name}/long/topic", b"first"), (f"{name}/long/topic", b"second")]


def test_topic_aliases_are_used_on_the_way_down_only_if_allowed(device, name):
    properties = Properties(PacketTypes.CONNECT)
    properties.TopicAliasMaximum = 10
    receiver = device(f"{name}-r", connect_properties=properties)
    receiver.subscribe(f"{name}/#", 0)
    sender = device(f"{name}-s")
    for number in range(20):
        sender.publish(f"{name}/topic", str(number), 0)
    # With an alias, paho gives an empty topic after the first: both are the specification's.
    heard = receiver.receive(20)
    assert [m.payload for m in heard] == [str(number).encode() for number in range(20)]
    assert heard[0].topic == f"{name}/topic"


def test_the_servers_limits_are_announced(device, name):
    properties = device(name).connack[2]
    assert 1 <= properties.ReceiveMaximum <= 65_535
    assert properties.TopicAliasMaximum >= 1
    assert getattr(properties, "MaximumQoS", 2) == 2
    assert getattr(properties, "RetainAvailable", 1) == 1
    assert getattr(properties, "WildcardSubscriptionAvailable", 1) == 1
    assert getattr(properties, "SubscriptionIdentifierAvailable", 1) == 1
    assert getattr(properties, "SharedSubscriptionAvailable", 1) == 1


def test_the_clients_receive_maximum_bounds_what_is_in_flight(device, name):
    properties = Properties(PacketTypes.CONNECT)
    properties.ReceiveMaximum = 3
    receiver = device(f"{name}-r", connect_properties=properties, manual_ack=True)
    receiver.subscribe(name, 1)
    sender = device(f"{name}-s")
    for number in range(10):
        sender.publish(name, str(number))
    first = receiver.receive(3)
    # A ping comes back after whatever was sent before it.
    pongs: list[str] = []
    receiver.client.on_log = lambda _c, _u, _level, text: pongs.append(text) if "PINGRESP" in text else None
    receiver.client._send_pingreq()
    until("the ping's answer", lambda: pongs)
    assert receiver.messages.empty(), "a fourth came before the first was acknowledged"
    for message in first:
        receiver.client.ack(message.mid, message.qos)
    rest = []
    while len(rest) < 7:
        message = receiver.receive()
        receiver.client.ack(message.mid, message.qos)
        rest.append(message.payload)
    assert rest == [str(number).encode() for number in range(3, 10)]


def test_what_is_larger_than_the_client_takes_is_not_sent(device, name):
    properties = Properties(PacketTypes.CONNECT)
    properties.MaximumPacketSize = 200
    receiver = device(f"{name}-r", connect_properties=properties)
    receiver.subscribe(name, 1)
    sender = device(f"{name}-s")
    sender.publish(name, b"x" * 1000)
    sender.publish(name, b"fits")
    assert receiver.receive().payload == b"fits"


def test_unsubscribe_says_what_it_found(device, name):
    receiver = device(name)
    receiver.subscribe(f"{name}/there", 1)
    assert [code.value for code in receiver.unsubscribe(f"{name}/there")] == [0]
    assert [code.value for code in receiver.unsubscribe(f"{name}/not-there")] == [0x11]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_publish_that_nobody_hears_is_acknowledged(device, name, qos):
    # 0x10 says that there was no subscriber; a server may say 0 as well.
    assert device(name).publish(f"{name}/nobody", b"x", qos) in (0, 0x10)


def test_enhanced_authentication_with_an_unknown_method_is_refused(device, name):
    properties = Properties(PacketTypes.CONNECT)
    properties.AuthenticationMethod = "no such method"
    _, code, _ = device(name, connect=False, connect_properties=properties).try_connect()
    assert code.value in (0x8C, 0x87)
