//! Leases of nodes, which nodes died while they owned sessions, and locks.

use futures_util::future::join_all;
use holdfast_wire::ids::NodeId;

use super::answer::{Answer, Word};
use super::dispatch::Worker;
use super::partition::Partition;
use crate::contract::{Reply, StoreError};

impl Worker {
    pub(super) async fn renew_lease(&self, node: NodeId, for_ms: u32) -> Result<Reply, StoreError> {
        let call = self.server.call("renew", Partition::FIRST).arg(self.now());
        let mut answer = self.server.answer(call.arg(&node.0.to_be_bytes()[..]).arg(for_ms)).await?;
        answer.word()?;
        // Another partition may have lost what it had, while the one with the leases has not.
        let (is_known, has_lost) = (answer.number()? == 1, self.server.take_loss());
        Ok(Reply::Renewed { known: is_known && !has_lost })
    }

    /// The partition with the leases speaks first. Nobody reaps before all the others know it too, so none of them lets the node open a
    /// session that was taken from it.
    pub(super) async fn bury(&self, node: NodeId) -> Result<Reply, StoreError> {
        self.bury_in(Partition::FIRST, node).await?;
        let others = Partition::all().filter(|partition| *partition != Partition::FIRST);
        for buried in join_all(others.map(|partition| self.bury_in(partition, node))).await {
            buried?;
        }
        Ok(Reply::Done)
    }

    async fn bury_in(&self, partition: Partition, node: NodeId) -> Result<(), StoreError> {
        let call = self.server.call("bury", partition).arg(self.now()).arg(&node.0.to_be_bytes()[..]);
        let call = call.arg(u8::from(partition == Partition::FIRST));
        match self.server.answer(call).await?.word()? {
            Word::Full => Err(StoreError::Full("too many nodes were buried within a day".to_owned())),
            _ => Ok(()),
        }
    }

    pub(super) async fn take_lock(&self, name: &str, holder: u64, for_ms: u32) -> Result<Reply, StoreError> {
        let call = self.server.call("lock", Partition::of_name(name)).arg(self.now()).arg(name);
        let mut answer = self.server.answer(call.arg(&holder.to_be_bytes()[..]).arg(for_ms)).await?;
        answer.word()?;
        Ok(Reply::Lock(answer.number()? == 1))
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
