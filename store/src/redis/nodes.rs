//! Leases of nodes, and which nodes died while they owned sessions.

use futures_util::future::join_all;
use holdfast_wire::ids::NodeId;

use super::answer::Answer;
use super::dispatch::Worker;
use super::partition::Partition;
use crate::contract::{Reply, StoreError};

impl Worker {
    pub(super) async fn renew_lease(&self, node: NodeId, for_ms: u32) -> Result<Reply, StoreError> {
        let call = self.server.call("renew", Partition::FIRST).arg(self.now());
        self.server.answer(call.arg(&node.0.to_be_bytes()[..]).arg(for_ms)).await?.word()?;
        Ok(Reply::Renewed { known: true })
    }

    /// Those of the nodes without a lease that own something in some partition. The others are forgotten.
    pub(super) async fn dead_nodes(&self) -> Result<Reply, StoreError> {
        let mut answer =
            self.server.answer(self.server.call("expired", Partition::FIRST).arg(self.now())).await?;
        answer.word()?;
        let mut list = answer.list()?;
        let mut expired = Vec::new();
        while !list.is_empty() {
            expired.push(list.bytes()?);
        }
        if expired.is_empty() {
            return Ok(Reply::Nodes(Vec::new()));
        }
        let mut owns = vec![false; expired.len()];
        for counts in join_all(Partition::all().map(|partition| self.owned(partition, &expired))).await {
            let mut counts = counts?;
            for owns in &mut owns {
                *owns |= counts.bytes_or_nil()?.is_some();
            }
        }
        let (mut dead, mut idle) = (Vec::new(), self.server.call("retire", Partition::FIRST).arg(self.now()));
        for (node, owns) in expired.into_iter().zip(owns) {
            match <[u8; 8]>::try_from(&*node) {
                Ok(id) if owns => dead.push(NodeId(u64::from_be_bytes(id))),
                _ => idle = idle.arg(node),
            }
        }
        self.server.answer(idle).await?.word()?;
        dead.sort_unstable();
        Ok(Reply::Nodes(dead))
    }

    async fn owned(&self, partition: Partition, nodes: &[Vec<u8>]) -> Result<Answer, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.server.key(partition, "own"));
        for node in nodes {
            command.arg(&**node);
        }
        Answer::new(self.server.send(&command).await?)
    }
}
