//! Which node of a cluster has which partition, as its nodes know it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use tokio::time::timeout;

use super::connect::Dialler;
use super::partition::{PARTITIONS, Partition};
use super::url::Address;
use crate::open_error::OpenError;

const SLOTS: u16 = 16_384;

/// Where each partition is.
#[derive(Clone, Debug)]
pub(super) struct Map {
    /// By the partition's number; none if nobody serves its slot.
    pub(super) primaries: Vec<Option<Address>>,
    /// All nodes, replicas as well.
    pub(super) nodes: BTreeSet<Address>,
    /// How much of the cluster's history the node knew that drew it.
    age: (bool, u64),
}

/// Nodes that may know the map: never more than the URL names and the latest map has, however often the others' addresses change.
pub(super) struct Known {
    seeds: BTreeSet<Address>,
    latest: RefCell<BTreeSet<Address>>,
}

impl Known {
    pub(super) fn new(seeds: &[Address]) -> Self {
        Self { seeds: seeds.iter().cloned().collect(), latest: RefCell::default() }
    }

    /// Takes the nodes of a map in the place of the former one's.
    pub(super) fn learn(&self, map: &Map) {
        self.latest.borrow_mut().clone_from(&map.nodes);
    }

    pub(super) fn all(&self) -> BTreeSet<Address> {
        &self.seeds | &*self.latest.borrow()
    }
}

/// Asks these connections, and if none answers, these nodes. The one that knows most of the cluster's history is believed.
pub(super) async fn draw(
    dialler: &Dialler,
    known: Vec<(Address, MultiplexedConnection)>,
    nodes: &BTreeSet<Address>,
) -> Result<Map, OpenError> {
    let within = dialler.deadline / 4;
    let asked = known.into_iter().map(|(address, mut connection)| async move {
        timeout(within, ask(&address, &mut connection)).await.ok()?.ok().flatten()
    });
    if let Some(map) = latest(join_all(asked).await) {
        return Ok(map);
    }
    let dialled = join_all(nodes.iter().map(|node| timeout(within * 2, dial_and_ask(dialler, node)))).await;
    let (mut maps, mut why) = (Vec::new(), None);
    for outcome in dialled {
        match outcome {
            Ok(Ok(map)) => maps.push(Some(map)),
            Ok(Err(error)) => why = Some(error),
            Err(_) => {}
        }
    }
    let unreachable = |why| OpenError::RedisUnreachable { server: dialler.url.shown(), why };
    latest(maps).ok_or_else(|| match why {
        Some(OpenError::RedisUnreachable { why, .. }) => unreachable(why),
        Some(error) => error,
        None => unreachable("none of its nodes answers".to_owned()),
    })
}

fn latest(maps: Vec<Option<Map>>) -> Option<Map> {
    maps.into_iter().flatten().max_by_key(|map| map.age)
}

async fn dial_and_ask(dialler: &Dialler, node: &Address) -> Result<Map, OpenError> {
    let asked = async {
        let mut connection = dialler.connect(node, &dialler.url.login, 0).await?;
        ask(node, &mut connection).await
    };
    let drawn = asked.await.map_err(|error| dialler.refused(node, &error))?;
    drawn.ok_or_else(|| OpenError::RedisRefused {
        server: node.to_string(),
        why: "it does not say who serves which slots".to_owned(),
    })
}

async fn ask(node: &Address, connection: &mut MultiplexedConnection) -> RedisResult<Option<Map>> {
    let info = redis::cmd("CLUSTER").arg("INFO").query_async::<String>(connection).await?;
    let slots = redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(connection).await?;
    let field = |name| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let epoch = field("cluster_current_epoch:").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    Ok(read(node, &slots, (field("cluster_state:") == Some("ok"), epoch)))
}

/// Ranges: first slot, last slot, the primary, its replicas; of each node its address, port, and more.
fn read(asked: &Address, answer: &Value, age: (bool, u64)) -> Option<Map> {
    let Value::Array(ranges) = answer else { return None };
    let (mut owners, mut nodes) = (vec![None; usize::from(SLOTS)], BTreeSet::new());
    for range in ranges {
        let Value::Array(fields) = range else { return None };
        let [Value::Int(first), Value::Int(last), members @ ..] = &fields[..] else { return None };
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        for (place, member) in members.iter().enumerate() {
            // One whose address nobody knows yet cannot be dialled.
            let Some(address) = read_node(asked, member) else { continue };
            if place == 0 {
                owners.get_mut(first..=last)?.fill(Some(address.clone()));
            }
            nodes.insert(address);
        }
    }
    let owner = |number| owners[usize::from(slot_of(Partition(number)))].clone();
    Some(Map { primaries: (0..PARTITIONS).map(owner).collect(), nodes, age })
}

fn read_node(asked: &Address, node: &Value) -> Option<Address> {
    let Value::Array(fields) = node else { return None };
    let host = match fields.first()? {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok()?,
        Value::Nil => String::new(),
        _ => return None,
    };
    let Some(Value::Int(port)) = fields.get(1) else { return None };
    let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
    match host.as_str() {
        // It is where we asked.
        "" => Some(Address { host: asked.host.clone(), port }),
        "?" => None,
        _ => Some(Address { host, port }),
    }
}

/// The slot that all keys of a partition are in: of what stands between their braces.
fn slot_of(partition: Partition) -> u16 {
    crc16(partition.0.to_string().as_bytes()) % SLOTS
}

/// As the cluster's specification has it (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![
            Value::BulkString(host.into()),
            Value::Int(port),
            Value::BulkString(b"id".to_vec()),
        ])
    }

    #[test]
    fn slots_are_those_of_the_clusters_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(Partition(17)), crc16(b"17") % SLOTS);
    }

    #[test]
    fn a_map_names_the_primary_of_each_partition_and_all_nodes() {
        let asked = Address { host: "asked".to_owned(), port: 1 };
        let ranges = Value::Array(vec![
            Value::Array(vec![Value::Int(0), Value::Int(8_191), node("a", 1), node("b", 2)]),
            Value::Array(vec![Value::Int(8_192), Value::Int(16_000), node("", 3), node("?", 4)]),
        ]);
        let map = read(&asked, &ranges, (true, 1)).unwrap();
        let shown: Vec<_> = map.nodes.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["a:1", "asked:3", "b:2"]);
        for number in 0..PARTITIONS {
            let expected = match slot_of(Partition(number)) {
                0..=8_191 => Some("a:1"),
                8_192..=16_000 => Some("asked:3"),
                _ => None,
            };
            let primary = map.primaries[usize::from(number)].as_ref().map(Address::to_string);
            assert_eq!(primary.as_deref(), expected, "{number}");
        }
        assert!(map.primaries.contains(&None));
    }

    #[test]
    fn nodes_that_are_gone_from_the_map_are_forgotten_and_those_of_the_url_are_not() {
        let address = |host: &str| Address { host: host.to_owned(), port: 1 };
        let map = |host: &str| {
            let ranges = Value::Array(vec![Value::Array(vec![
                Value::Int(0),
                Value::Int(i64::from(SLOTS) - 1),
                node(host, 1),
            ])]);
            read(&address("asked"), &ranges, (true, 1)).unwrap()
        };
        let known = Known::new(&[address("seed")]);
        for number in 0..100 {
            known.learn(&map(&format!("pod-{number}")));
        }
        assert_eq!(known.all(), BTreeSet::from([address("pod-99"), address("seed")]));
    }

    #[test]
    fn what_no_cluster_answers_is_no_map() {
        let asked = Address { host: "asked".to_owned(), port: 1 };
        for ranges in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(0), Value::Int(20_000), node("a", 1)])]),
            Value::Array(vec![Value::Array(vec![Value::Int(9), Value::Int(1), node("a", 1)])]),
        ] {
            assert!(read(&asked, &ranges, (true, 1)).is_none(), "{ranges:?}");
        }
    }
}
