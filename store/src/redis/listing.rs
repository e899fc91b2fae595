//! Sessions page by page.

use holdfast_wire::ids::{ClientId, Epoch, NodeId};

use super::dispatch::Worker;
use super::pages::{self, Part};
use super::partition::Partition;
use crate::contract::{Page, Reply, SessionEntry, StoreError};

impl Worker {
    /// Of one owner: partitions in which it owns nothing cost one look, the others a look at each of their sessions.
    pub(super) async fn list_sessions(
        &self,
        owner: Option<NodeId>,
        page: Option<&Page>,
        sessions_max: u32,
    ) -> Result<Reply, StoreError> {
        let ask = |partition, behind, most| self.sessions_of(partition, owner, behind, most);
        let (sessions, next) = pages::collect(page, sessions_max as usize, ask).await?;
        Ok(Reply::Sessions { sessions, next })
    }

    async fn sessions_of(
        &self,
        partition: Partition,
        owner: Option<NodeId>,
        behind: Option<ClientId>,
        most: usize,
    ) -> Result<Part<SessionEntry>, StoreError> {
        let node = owner.map(|node| node.0.to_be_bytes().to_vec()).unwrap_or_default();
        let call = self.server.call("sessions", partition).arg(self.now()).arg(node);
        let call = call.arg(u8::from(behind.is_some())).arg(behind.as_deref().unwrap_or_default());
        let mut answer = self.server.answer(call.arg(most)).await?;
        answer.word()?;
        let (goes_on, last) = (answer.number()? == 1, answer.text()?);
        let (mut list, mut found) = (answer.list()?, Vec::new());
        while !list.is_empty() {
            found.push(SessionEntry {
                client: ClientId::new(&list.text()?),
                owner: list.owner()?,
                epoch: Epoch(list.number()?),
                persistent: list.number()? == 1,
                since_ms: list.number()?,
            });
        }
        Ok(Part { found, goes_on_behind: goes_on.then(|| ClientId::new(&last)) })
    }
}
