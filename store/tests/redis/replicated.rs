//! A server that answers only what a replica has, which comes and goes.

use crate::redis_server::{RedisServer, until};
use crate::world::Bench;

pub(crate) struct Replicated {
    pub(crate) bench: Bench,
    server: RedisServer,
    replica: Option<RedisServer>,
}

impl Replicated {
    pub(crate) fn start() -> Self {
        let server = RedisServer::start("--repl-diskless-sync-delay 0");
        let bench = Bench::redis_at(&format!("{}?replicas=1", server.url()));
        let mut replicated = Self { bench, server, replica: None };
        replicated.gets_a_replica();
        replicated
    }

    pub(crate) fn gets_a_replica(&mut self) {
        self.replica = Some(RedisServer::start(&format!("--replicaof 127.0.0.1 {}", self.server.port())));
        until("there is a replica", || self.has_replica());
    }

    pub(crate) fn loses_its_replica(&mut self) {
        self.replica = None;
        until("the replica is gone", || !self.has_replica());
    }

    fn has_replica(&self) -> bool {
        let info: String =
            redis::cmd("INFO").arg("replication").query(&mut self.server.connection()).unwrap();
        info.contains("state=online")
    }

    /// How many debts of this kind sessions have written down.
    pub(crate) fn owed(&self, kind: &[u8]) -> usize {
        let mut connection = self.server.connection();
        let due = self.bench.keys().into_iter().filter(|key| key.ends_with(":due"));
        let due = due.flat_map(|key| {
            redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query::<Vec<Vec<u8>>>(&mut connection).unwrap()
        });
        due.filter(|member| member.starts_with(kind)).count()
    }
}
