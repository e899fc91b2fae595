"""Where the broker is, and devices that are gone after each test."""

import os
import uuid

import pytest

from device import Device

# Reads Kafka, which only a cluster has.
collect_ignore = [] if "E2E_KAFKA" in os.environ else ["test_kafka.py"]


def pytest_configure(config):
    for name in ("E2E_MQTT", "E2E_WS"):
        if name not in os.environ:
            raise pytest.UsageError(f"{name}=host:port names the broker to judge; `make test-python` starts one")


@pytest.fixture
def name():
    """A word that no other test uses, for client ids and topics."""
    return uuid.uuid4().hex[:12]


@pytest.fixture
def device():
    """Makes devices: `device(client_id, version=5, …)` is connected unless `connect=False`."""
    made = []

    def make(*arguments, **options):
        made.append(Device(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.vanish()
