"""What MQTT 3.1.1 and MQTT 5 have in common, with paho-mqtt in each of them."""

import pytest

from device import until

BOTH = pytest.mark.parametrize("version", [4, 5], ids=["v311", "v5"])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])


@BOTH
@QOS
def test_a_message_arrives_as_it_was_published(device, name, version, qos):
    receiver = device(f"{name}-r", version)
    assert receiver.subscribe(f"{name}/up", qos) == qos
    device(f"{name}-s", version).publish(f"{name}/up", bytes(range(256)), qos)
    message = receiver.receive()
    assert (message.topic, message.payload, message.qos, message.retain) == (f"{name}/up", bytes(range(256)), qos, False)


@BOTH
@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_the_lower_qos_of_publisher_and_subscriber_holds(device, name, version, published, granted):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(name, granted)
    device(f"{name}-s", version).publish(name, b"x", published)
    assert receiver.receive().qos == min(published, granted)


@BOTH
@QOS
def test_hundreds_in_flight_keep_their_order(device, name, version, qos):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(name, qos)
    sender = device(f"{name}-s", version)
    mids = [sender.send(name, str(number), qos) for number in range(500)]
    for mid in mids:
        sender.acknowledged(mid)
    assert receiver.payloads(500) == [str(number).encode() for number in range(500)]


@BOTH
def test_a_large_payload_passes_whole(device, name, version):
    payload = bytes(range(256)) * 800
    receiver = device(f"{name}-r", version)
    receiver.subscribe(name, 1)
    device(f"{name}-s", version).publish(name, payload, 1)
    assert receiver.receive().payload == payload


@BOTH
def test_an_empty_payload_is_a_message(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(name, 1)
    device(f"{name}-s", version).publish(name, b"", 1)
    assert receiver.receive().payload == b""


@BOTH
def test_wildcards_match_levels(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(f"{name}/+/temperature", 1)
    receiver.subscribe(f"{name}/all/#", 1)
    sender = device(f"{name}-s", version)
    for topic in ("a/temperature", "a/b/temperature", "a/humidity", "all", "all/x/y", "/temperature"):
        sender.publish(f"{name}/{topic}", topic)
    heard = receiver.payloads(4)
    assert heard == [b"a/temperature", b"all", b"all/x/y", b"/temperature"]
    receiver.nothing_more(sender, f"{name}/all")


@BOTH
def test_topics_with_a_dollar_are_hidden_from_leading_wildcards(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe("#", 1)
    receiver.subscribe("+/state", 1)
    sender = device(f"{name}-s", version)
    sender.publish(f"${name}/state", b"hidden")
    sender.publish(f"{name}/seen", b"seen")
    until("the message that may be seen", lambda: any(m.payload == b"seen" for m in list(receiver.messages.queue)))
    assert all(m.payload != b"hidden" for m in list(receiver.messages.queue))


@BOTH
def test_topics_are_unicode_and_case_sensitive(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(f"{name}/Raum Ä/温度", 1)
    sender = device(f"{name}-s", version)
    sender.publish(f"{name}/raum ä/温度", b"no")
    sender.publish(f"{name}/Raum Ä/温度", b"yes")
    assert receiver.receive().payload == b"yes"


@BOTH
def test_unsubscribed_is_unsubscribed(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(f"{name}/a", 1)
    receiver.subscribe(f"{name}/b", 1)
    receiver.unsubscribe(f"{name}/a")
    sender = device(f"{name}-s", version)
    sender.publish(f"{name}/a", b"no")
    sender.publish(f"{name}/b", b"yes")
    assert receiver.receive().payload == b"yes"


@BOTH
def test_a_retained_message_greets_later_subscribers(device, name, version):
    sender = device(f"{name}-s", version)
    sender.publish(f"{name}/state/1", b"old", 1, retain=True)
    sender.publish(f"{name}/state/1", b"new", 1, retain=True)
    sender.publish(f"{name}/state/2", b"other", 2, retain=True)
    receiver = device(f"{name}-r", version)
    receiver.subscribe(f"{name}/state/+", 2)
    heard = sorted((m.topic, m.payload, m.qos, m.retain) for m in receiver.receive(2))
    assert heard == [(f"{name}/state/1", b"new", 1, True), (f"{name}/state/2", b"other", 2, True)]
    # Live, it is an ordinary message again.
    sender.publish(f"{name}/state/1", b"live", 1, retain=True)
    assert receiver.receive().retain is False


@BOTH
def test_an_empty_retained_message_removes_it(device, name, version):
    sender = device(f"{name}-s", version)
    sender.publish(f"{name}/a", b"kept", 1, retain=True)
    sender.publish(f"{name}/a", b"", 1, retain=True)
    receiver = device(f"{name}-r", version)
    receiver.subscribe(f"{name}/#", 1)
    receiver.nothing_more(sender, f"{name}/b")


@BOTH
def test_a_persistent_session_keeps_subscriptions_and_messages(device, name, version):
    receiver = device(f"{name}-r", version, clean=False)
    assert receiver.connack[0].session_present is False
    receiver.subscribe(f"{name}/#", 2)
    receiver.leave()
    sender = device(f"{name}-s", version)
    for qos in (1, 2):
        sender.publish(f"{name}/while-away", f"qos {qos}", qos)
    flags, _, _ = receiver.connect()
    assert flags.session_present is True
    assert receiver.payloads(2) == [b"qos 1", b"qos 2"]
    sender.publish(f"{name}/live", b"live", 1)
    assert receiver.receive().payload == b"live"


@BOTH
def test_a_clean_start_forgets_the_session(device, name, version):
    first = device(f"{name}-r", version, clean=False)
    first.subscribe(f"{name}/#", 1)
    first.leave()
    sender = device(f"{name}-s", version)
    sender.publish(f"{name}/a", b"lost with the session")
    second = device(f"{name}-r", version, clean=True)
    assert second.connack[0].session_present is False
    second.subscribe(f"{name}/last", 1)
    second.nothing_more(sender, f"{name}/last")


@BOTH
def test_an_unacknowledged_message_comes_again_with_dup(device, name, version):
    receiver = device(f"{name}-r", version, clean=False, manual_ack=True)
    receiver.subscribe(name, 1)
    device(f"{name}-s", version).publish(name, b"take it", 1)
    assert receiver.receive().dup is False
    receiver.cut()
    flags, _, _ = receiver.connect()
    assert flags.session_present is True
    again = receiver.receive()
    assert (again.payload, again.dup) == (b"take it", True)


@BOTH
def test_the_same_client_id_takes_over(device, name, version):
    first = device(name, version)
    second = device(name, version)
    code = first.refused()
    if version == 5:
        assert code.value == 0x8E
    second.subscribe(name, 1)
    second.publish(name, b"I am here", 1)
    assert second.receive().payload == b"I am here"


@BOTH
def test_a_will_is_published_when_the_connection_is_lost(device, name, version):
    watcher = device(f"{name}-w", version)
    watcher.subscribe(f"{name}/will", 1)
    lost = device(f"{name}-l", version, will={"topic": f"{name}/will", "payload": b"gone", "qos": 1})
    lost.cut()
    message = watcher.receive()
    assert (message.payload, message.qos, message.retain) == (b"gone", 1, False)


@BOTH
def test_a_retained_will_stays(device, name, version):
    watcher = device(f"{name}-w", version)
    watcher.subscribe(f"{name}/will", 1)
    device(f"{name}-l", version, will={"topic": f"{name}/will", "payload": b"gone", "qos": 1, "retain": True}).cut()
    watcher.receive()
    late = device(f"{name}-late", version)
    late.subscribe(f"{name}/will", 1)
    message = late.receive()
    assert (message.payload, message.retain) == (b"gone", True)


@BOTH
def test_a_goodbye_takes_the_will_back(device, name, version):
    watcher = device(f"{name}-w", version)
    watcher.subscribe(f"{name}/#", 1)
    device(f"{name}-l", version, will={"topic": f"{name}/will", "payload": b"gone", "qos": 1}).leave()
    watcher.nothing_more(device(f"{name}-s", version), f"{name}/last")


@BOTH
def test_a_silent_client_is_cut_after_one_and_a_half_keep_alives(device, name, version):
    watcher = device(f"{name}-w", version)
    watcher.subscribe(f"{name}/will", 1)
    silent = device(name, version, keepalive=1, will={"topic": f"{name}/will", "payload": b"silent", "qos": 1})
    # Its loop stops: the socket stays open and no PINGREQ goes out.
    silent.client.loop_stop()
    assert watcher.receive().payload == b"silent"


@BOTH
def test_pings_keep_an_idle_connection(device, name, version):
    idle = device(f"{name}-i", version, keepalive=1)
    idle.subscribe(name, 1)
    pings = []
    idle.client.on_log = lambda _c, _u, _level, text: pings.append(text) if "PINGRESP" in text else None
    until("three answered pings", lambda: len(pings) >= 3)
    device(f"{name}-s", version).publish(name, b"still there", 1)
    assert idle.receive().payload == b"still there"


@BOTH
def test_a_client_id_is_assigned_to_who_has_none(device, name, version):
    nameless = device("", version)
    nameless.subscribe(name, 1)
    other = device("", version)
    other.publish(name, b"hello", 1)
    assert nameless.receive().payload == b"hello"
    if version == 5:
        assert nameless.connack[2].AssignedClientIdentifier
        assert nameless.connack[2].AssignedClientIdentifier != other.connack[2].AssignedClientIdentifier


@BOTH
def test_overlapping_subscriptions_give_the_highest_qos(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(f"{name}/#", 0)
    receiver.subscribe(f"{name}/a", 2)
    sender = device(f"{name}-s", version)
    sender.publish(f"{name}/a", b"x", 2)
    # One copy with the highest QoS, or one for each subscription (MQTT-3.3.4-2 leaves it to the server).
    assert receiver.receive().qos in (0, 2)
    sender.publish(f"{name}/b", b"end", 1)
    heard = []
    while not heard or heard[-1].payload != b"end":
        heard.append(receiver.receive())
    assert len(heard) <= 2


@BOTH
def test_a_second_subscribe_replaces_the_first(device, name, version):
    receiver = device(f"{name}-r", version)
    receiver.subscribe(name, 0)
    receiver.subscribe(name, 1)
    sender = device(f"{name}-s", version)
    sender.publish(name, b"x", 1)
    assert receiver.receive().qos == 1
    receiver.nothing_more(sender, name)


@BOTH
def test_a_subscriber_that_publishes_hears_itself(device, name, version):
    both = device(name, version)
    both.subscribe(name, 2)
    both.publish(name, b"me", 2)
    assert both.receive().payload == b"me"


@BOTH
def test_many_filters_in_one_subscribe_get_a_code_each(device, name, version):
    receiver = device(name, version)
    receiver.client.subscribe([(f"{name}/{number}", number % 3) for number in range(30)])
    codes = [code.value for code in receiver.subscribed.get(timeout=15)]
    assert codes == [number % 3 for number in range(30)]
