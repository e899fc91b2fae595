"""The records of a Kafka topic, read with librdkafka's Python client and none of Holdfast's code."""

import os
import time

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, Consumer, TopicPartition

from device import PATIENCE


class Record:
    """One record, its headers as texts where they are text."""

    def __init__(self, message):
        self.key = message.key().decode()
        self.value = message.value()
        self.partition = message.partition()
        self.offset = message.offset()
        kind, self.timestamp = message.timestamp()
        assert kind == TIMESTAMP_CREATE_TIME
        self.headers = message.headers() or []

    def header(self, name):
        """Its value as text; a header that is there twice is a mistake, one that is not there is None."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else None

    def all(self, name):
        """The values of all headers of a name, in their order."""
        return [value.decode() for key, value in self.headers if key == name]

    def raw(self, name):
        """Bytes of a header that is there once."""
        [value] = [value for key, value in self.headers if key == name]
        return value


class Topic:
    """Reads a topic from its first record, in all partitions."""

    def __init__(self, name="holdfast.frames"):
        self.consumer = Consumer({
            "bootstrap.servers": os.environ["E2E_KAFKA"],
            # Wanted by the client even for a consumer that joins no group.
            "group.id": "test",
            "enable.auto.commit": False,
        })
        partitions = self.consumer.list_topics(name, timeout=PATIENCE).topics[name].partitions
        self.consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for partition in partitions])
        self.seen = []

    def of(self, key, count):
        """Waits for `count` records of a key, in the order in which they stand there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = [record for record in self.seen if record.key == key]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} records of {key}"
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.seen.append(Record(message))

    def close(self):
        """The end of the test."""
        self.consumer.close()
