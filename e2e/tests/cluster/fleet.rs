//! Two gateways, a bridge with a log, and a Redis between them.

use std::net::SocketAddr;

use holdfast_e2e::packet::{Connect, Version, acknowledge, kind, publish};
use holdfast_e2e::{Client, Redis, Role, RoleSetup};

pub(crate) struct Fleet {
    pub(crate) gateways: [Role; 2],
    /// Served by it until their end.
    _bridge: Role,
    pub(crate) redis: Redis,
}

impl Fleet {
    /// `settings` are the gateways'.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let redis = Redis::start();
        let bridge = bridge(&redis).start();
        let links = [bridge.address("link")];
        let gateway = || {
            let setup = gateway(&redis, &links);
            settings.iter().fold(setup, |setup, (key, value)| setup.set(key, value)).start()
        };
        Self { gateways: [gateway(), gateway()], _bridge: bridge, redis }
    }

    pub(crate) fn mqtt(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway].address("mqtt")
    }

    /// A publisher that is on no gateway that a test kills.
    pub(crate) fn publisher(&self, gateway: usize, version: Version) -> Publisher {
        let client = Client::open(self.mqtt(gateway), version, "publisher");
        Publisher { client, sent: 0 }
    }
}

/// Publishes, and waits until it is stored.
pub(crate) struct Publisher {
    client: Client,
    sent: u16,
}

impl Publisher {
    pub(crate) fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        self.sent += 1;
        self.client.send(&publish(self.client.version(), qos, topic, self.sent, payload.as_bytes()));
        if qos == 1 {
            assert_eq!(self.client.receive_kind(kind::PUBACK).id(), self.sent);
        } else {
            assert_eq!(self.client.receive_kind(kind::PUBREC).id(), self.sent);
            self.client.send(&acknowledge(kind::PUBREL, self.sent));
            assert_eq!(self.client.receive_kind(kind::PUBCOMP).id(), self.sent);
        }
    }
}

pub(crate) fn bridge(redis: &Redis) -> RoleSetup {
    RoleSetup::bridge().argument("--sink", "log").argument("--store", redis.url())
}

pub(crate) fn gateway(redis: &Redis, links: &[SocketAddr]) -> RoleSetup {
    let setup = RoleSetup::gateway().argument("--store", redis.url()).argument("--shards", 2);
    links.iter().fold(setup, |setup, link| setup.argument("--bridge", link))
}

/// A session that outlives its connection.
pub(crate) fn persistent(version: Version, client_id: &str) -> Connect {
    Connect::new(version, client_id).persistent()
}
