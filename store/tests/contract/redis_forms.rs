//! Servers that stand together: a primary with its replicas and three sentinels, and a cluster.

use std::sync::OnceLock;
use std::time::Duration;

use crate::redis_server::{RedisServer, free_port, until};

/// The name that the sentinels have for their primary.
pub(crate) const NAME: &str = "main";

/// A primary, its replicas, and three sentinels, of which two decide.
pub(crate) struct SentinelTrio {
    /// The first one was the primary when it began.
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl SentinelTrio {
    /// Waits until the replicas follow and the sentinels know them and each other. A primary that is silent for so long is dead.
    pub(crate) fn start(replicas: usize, down_after: Duration) -> Self {
        let primary = RedisServer::start("");
        let follow = format!("--replicaof 127.0.0.1 {} {FAST}", primary.port());
        let mut servers = vec![primary];
        servers.extend((0..replicas).map(|_| RedisServer::start(&follow)));
        until("the replicas follow", || followers(&servers[0]) == replicas);
        let configuration = format!(
            "sentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {NAME} {}\n\
             sentinel failover-timeout {NAME} 3000\n",
            servers[0].port(),
            down_after.as_millis()
        );
        let start = |_| RedisServer::configured(free_port(), "--sentinel", &configuration);
        let sentinels: Vec<_> = (0..3).map(start).collect();
        for sentinel in &sentinels {
            until("the sentinels know each other", || {
                let known = |name| ask_primary(sentinel, name).parse::<usize>().unwrap_or(0);
                known("num-slaves") == replicas && known("num-other-sentinels") == 2
            });
        }
        Self { servers, sentinels }
    }

    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis+sentinel://{}/{NAME}", sentinels.join(","))
    }

    /// Tells a sentinel to give the primary's place to a replica, though it lives.
    pub(crate) fn fail_over(&self) {
        redis::cmd("SENTINEL").arg("FAILOVER").arg(NAME).exec(&mut self.sentinels[0].connection()).unwrap();
    }

    /// Sets the sentinels up again, for a server on this port: they count its failovers from 0.
    pub(crate) fn monitor_anew(&self, port: u16) {
        for sentinel in &self.sentinels {
            let mut connection = sentinel.connection();
            redis::cmd("SENTINEL").arg("REMOVE").arg(NAME).exec(&mut connection).unwrap();
            let mut monitor = redis::cmd("SENTINEL");
            monitor.arg("MONITOR").arg(NAME).arg("127.0.0.1").arg(port).arg(2).exec(&mut connection).unwrap();
        }
    }

    /// The port of the primary, as the first sentinel knows it.
    pub(crate) fn primary_port(&self) -> u16 {
        ask_primary(&self.sentinels[0], "port").parse().unwrap()
    }
}

fn ask_primary(sentinel: &RedisServer, field: &str) -> String {
    let mut question = redis::cmd("SENTINEL");
    let said: Vec<String> = question.arg("MASTER").arg(NAME).query(&mut sentinel.connection()).unwrap();
    let pair = said.chunks_exact(2).find(|pair| pair[0] == field);
    pair.map(|pair| pair[1].clone()).unwrap_or_default()
}

/// Replicas begin to follow at once, not when several have come.
const FAST: &str = "--repl-diskless-sync-delay 0";

/// How many replicas have all that a server had when they came.
fn followers(server: &RedisServer) -> usize {
    let info: String = redis::cmd("INFO").arg("replication").query(&mut server.connection()).unwrap();
    info.lines().filter(|line| line.contains("state=online")).count()
}

/// Three primaries, and replicas.
pub(crate) struct Cluster {
    /// The primaries first, in the order of their slots.
    pub(crate) nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Waits until all slots are served, and until there is a replica for each primary that `replicas_of` names.
    pub(crate) fn start(replicas_of: &[usize], arguments: &str) -> Self {
        let node = |_| {
            let arguments = format!(
                "--cluster-enabled yes --cluster-node-timeout 2000 --cluster-port {} {FAST} {arguments}",
                free_port()
            );
            RedisServer::start(&arguments)
        };
        let this = Self { nodes: (0..3 + replicas_of.len()).map(node).collect() };
        for (number, node) in this.nodes.iter().enumerate() {
            let mut connection = node.connection();
            cluster(&["SET-CONFIG-EPOCH", &(number + 1).to_string()]).exec(&mut connection).unwrap();
            if number < 3 {
                let (first, last) = (number * 16_384 / 3, (number + 1) * 16_384 / 3 - 1);
                let slots = ["ADDSLOTSRANGE", &first.to_string(), &last.to_string()];
                cluster(&slots).exec(&mut connection).unwrap();
            }
        }
        let mut first = this.nodes[0].connection();
        for node in &this.nodes[1..] {
            let bus: Vec<String> =
                redis::cmd("CONFIG").arg("GET").arg("cluster-port").query(&mut node.connection()).unwrap();
            let meet = ["MEET", "127.0.0.1", &node.port().to_string(), &bus[1]];
            cluster(&meet).exec(&mut first).unwrap();
        }
        let all_know = || this.nodes.iter().all(|node| known_nodes(node) == this.nodes.len());
        until("the nodes know each other", all_know);
        for (replica, number) in this.nodes[3..].iter().zip(replicas_of) {
            let primary = this.id_of(*number);
            until("the replica is one", || {
                cluster(&["REPLICATE", &primary]).exec(&mut replica.connection()).is_ok()
            });
        }
        for number in replicas_of {
            let wanted = replicas_of.iter().filter(|other| *other == number).count();
            until("the replicas follow", || followers(&this.nodes[*number]) == wanted);
        }
        until("all slots are served", || this.nodes.iter().all(is_ok));
        this
    }

    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// The name of a node in the cluster.
    pub(crate) fn id_of(&self, number: usize) -> String {
        cluster(&["MYID"]).query(&mut self.nodes[number].connection()).unwrap()
    }
}

/// A command about a cluster.
pub(crate) fn cluster(arguments: &[&str]) -> redis::Cmd {
    let mut command = redis::cmd("CLUSTER");
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

fn cluster_info(node: &RedisServer) -> String {
    cluster(&["INFO"]).query(&mut node.connection()).unwrap()
}

fn known_nodes(node: &RedisServer) -> usize {
    let info = cluster_info(node);
    let count = info.lines().find_map(|line| line.strip_prefix("cluster_known_nodes:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Whether all slots are served, as a node knows it.
pub(crate) fn is_ok(node: &RedisServer) -> bool {
    let info = cluster_info(node);
    info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
}

/// The sentinels that the tests of this process share, with their primary. However busy the machine is, nobody is taken for dead.
pub(crate) fn shared_trio() -> &'static SentinelTrio {
    static TRIO: OnceLock<SentinelTrio> = OnceLock::new();
    TRIO.get_or_init(|| SentinelTrio::start(1, Duration::from_mins(10)))
}

/// The cluster that the tests of this process share, likewise.
pub(crate) fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&[], "--cluster-node-timeout 60000"))
}
