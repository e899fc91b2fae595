"""A device on paho-mqtt whose every event can be awaited with a deadline."""

import os
import queue
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# What anything may take: generous, as a machine may be busy.
PATIENCE = 15.0
# Where each transport is spoken; conftest.py says so where one is missing.
ADDRESSES = {"tcp": "E2E_MQTT", "websockets": "E2E_WS"}


class Device:
    """One client id with one connection at a time."""

    def __init__(self, client_id, version=5, *, clean=True, keepalive=60, expiry_s=None, will=None, connect=True,
                 connect_properties=None, manual_ack=False, transport="tcp", reconnect=False):
        protocol = {4: mqtt.MQTTv311, 5: mqtt.MQTTv5}[version]
        options = {} if version == 5 else {"clean_session": clean}
        self.version = version
        host, port = os.environ[ADDRESSES[transport]].rsplit(":", 1)
        self.address = {"host": host, "port": int(port)}
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol,
                                  transport=transport, manual_ack=manual_ack, reconnect_on_failure=reconnect, **options)
        if transport == "websockets":
            self.client.ws_set_options(path="/mqtt")
        self.clean = clean
        self.keepalive = keepalive
        self.properties = connect_properties or (Properties(PacketTypes.CONNECT) if version == 5 else None)
        if version == 5 and (expiry_s is not None or not clean):
            self.properties.SessionExpiryInterval = 3600 if expiry_s is None else expiry_s
        if will is not None:
            self.client.will_set(**will)
        self.messages = queue.Queue()
        self.connects = queue.Queue()
        self.disconnects = queue.Queue()
        self.subscribed = queue.Queue()
        self.unsubscribed = queue.Queue()
        self.published = {}
        self._published = threading.Condition()
        self.client.on_connect = lambda _c, _u, flags, code, props: self.connects.put((flags, code, props))
        self.client.on_disconnect = lambda _c, _u, _flags, code, props: self.disconnects.put((code, props))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.on_subscribe = lambda _c, _u, _mid, codes, _props: self.subscribed.put(codes)
        self.client.on_unsubscribe = lambda _c, _u, _mid, codes, _props: self.unsubscribed.put(codes)
        self.client.on_publish = self._on_publish
        if connect:
            self.connack = self.connect()

    def _on_publish(self, _client, _userdata, mid, code, _properties):
        with self._published:
            self.published[mid] = code
            self._published.notify_all()

    def connect(self, clean=None):
        """Connects and gives (flags, code, properties) of the CONNACK, which accepts."""
        flags, code, properties = self.try_connect(clean)
        assert not code.is_failure, code
        return flags, code, properties

    def try_connect(self, clean=None):
        """Connects and gives the CONNACK, whatever it says."""
        options = {}
        if self.version == 5:
            options = {"clean_start": self.clean if clean is None else clean, "properties": self.properties}
        self.client.connect(**self.address, keepalive=self.keepalive, **options)
        self.client.loop_start()
        return self.connects.get(timeout=PATIENCE)

    def subscribe(self, topic, qos=1, **options):
        """Subscribes and gives the code that was granted."""
        if options:
            identifier = options.pop("identifier", None)
            properties = None
            if identifier is not None:
                properties = Properties(PacketTypes.SUBSCRIBE)
                properties.SubscriptionIdentifier = identifier
            self.client.subscribe(topic, options=mqtt.SubscribeOptions(qos=qos, **options), properties=properties)
        else:
            self.client.subscribe(topic, qos)
        return self.subscribed.get(timeout=PATIENCE)[0].value

    def unsubscribe(self, topic):
        """Unsubscribes and waits for the answer."""
        self.client.unsubscribe(topic)
        return self.unsubscribed.get(timeout=PATIENCE)

    def publish(self, topic, payload, qos=1, retain=False, **properties):
        """Publishes and, with QoS above 0, waits for the end of the exchange; gives its reason code."""
        mid = self.send(topic, payload, qos, retain, **properties)
        return self.acknowledged(mid)

    def send(self, topic, payload, qos=1, retain=False, **properties):
        """Publishes and gives paho's id of the message."""
        block = None
        if properties:
            block = Properties(PacketTypes.PUBLISH)
            for key, value in properties.items():
                setattr(block, key, value)
        info = self.client.publish(topic, payload, qos=qos, retain=retain, properties=block)
        assert info.rc in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN), info.rc
        return info.mid

    def acknowledged(self, mid):
        """Waits until this message is settled; gives its reason code."""
        with self._published:
            assert self._published.wait_for(lambda: mid in self.published, PATIENCE), "no acknowledgement"
            return self.published[mid].value

    def receive(self, count=None):
        """The next message, or a list of the next `count`."""
        if count is None:
            return self.messages.get(timeout=PATIENCE)
        return [self.receive() for _ in range(count)]

    def payloads(self, count):
        """What the next `count` messages carry."""
        return [message.payload for message in self.receive(count)]

    def nothing_more(self, through, topic):
        """That nothing waits: a last message through a topic that this device is subscribed to is the next to come."""
        through.publish(topic, b"the last")
        message = self.receive()
        assert message.payload == b"the last", (message.topic, message.payload)

    def refused(self):
        """Waits for the server to end the connection; gives its code (a v5 DISCONNECT's, where there was one)."""
        return self.disconnects.get(timeout=PATIENCE)[0]

    def leave(self, **properties):
        """DISCONNECT, and waits until the connection is gone."""
        block = None
        if properties:
            block = Properties(PacketTypes.DISCONNECT)
            for key, value in properties.items():
                setattr(block, key, value)
        self.client.disconnect(**({"properties": block} if block else {}))
        self.disconnects.get(timeout=PATIENCE)
        self.client.loop_stop()

    def cut(self):
        """The network goes away: no DISCONNECT."""
        self.client.loop_stop()
        # Paho has no public way to lose a connection.
        self.client._sock_close()

    def vanish(self):
        """The end of the test."""
        self.client.on_disconnect = None
        self.client.disconnect()
        self.client.loop_stop()


def until(what, condition, patience=PATIENCE):
    """Waits for a state."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience} s in vain for {what}"
        time.sleep(0.01)
