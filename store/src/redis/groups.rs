//! Named groups of clients: each member in its client's partition, the count in that of the group's name.
//!
//! Whoever adds takes as many places first as it brings clients, and gives back afterwards what was not needed. If it dies between, the count
//! is too high; whoever is refused for it counts anew. So a group may have more members than it should only by what others bring in
//! while someone counts.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use holdfast_wire::ids::ClientId;

use super::answer::Word;
use super::dispatch::Worker;
use super::pages::{self, Part};
use super::partition::Partition;
use super::server::Call;
use crate::contract::{Page, Reply, StoreError, group_has_no_place, groups_have_no_place};

/// Clients that one call names at most; about a millisecond.
const CLIENTS_MAX: usize = 1_000;
/// Members of all groups together, as a multiple of what one may have.
const GROUPS_FULL_MAX: u64 = 16;

impl Worker {
    pub(super) async fn change_group(
        &self,
        group: &str,
        mut add: Vec<ClientId>,
        mut remove: Vec<ClientId>,
    ) -> Result<Reply, StoreError> {
        for clients in [&mut add, &mut remove] {
            clients.sort_unstable();
            clients.dedup();
        }
        add.retain(|client| remove.binary_search(client).is_err());
        let (add, remove) = (by_partition(&add), by_partition(&remove));
        let places = count(&add);
        self.reserve(group, places, &add, &remove).await?;
        // What frees places goes first, so that the bound holds at every moment.
        let removed = self.change("expel", group, &remove).await?;
        let added = self.change("enrol", group, &add).await?;
        self.give_back(group, places.saturating_sub(u64::from(added)) + u64::from(removed)).await?;
        Ok(Reply::GroupChanged { added, removed })
    }

    /// Takes places for all who come in.
    async fn reserve(
        &self,
        group: &str,
        places: u64,
        add: &Batches,
        remove: &Batches,
    ) -> Result<(), StoreError> {
        let most = u64::from(self.bounds.group_members_max);
        if places == 0 {
            return Ok(());
        }
        let ask = |most: u64| {
            let call = self.server.call("reserve", Partition::of_name(group)).arg(group);
            self.server.answer(call.arg(places).arg(most))
        };
        let all = self.room.borrow().group_members();
        if all + places <= most.saturating_mul(GROUPS_FULL_MAX) && ask(most).await?.word()? == Word::Ok {
            return Ok(());
        }
        // Places may be held by someone who died, some clients may be in it already, and others leave.
        let (members, known) = self.count_members(group, add).await?;
        let (_, leaving) = self.count_members(group, remove).await?;
        if (members + places).saturating_sub(known + leaving) > most {
            return Err(group_has_no_place(members, most));
        }
        let (all, all_max) = (self.room.borrow().group_members(), most.saturating_mul(GROUPS_FULL_MAX));
        if (all + places).saturating_sub(known + leaving) > all_max {
            return Err(groups_have_no_place(all, all_max));
        }
        let call = self.server.call("recount", Partition::of_name(group)).arg(group).arg(members);
        self.server.answer(call).await?.word()?;
        ask(u64::MAX >> 11).await?.word().map(drop)
    }

    async fn give_back(&self, group: &str, places: u64) -> Result<(), StoreError> {
        if places == 0 {
            return Ok(());
        }
        let call = self.server.call("give_back", Partition::of_name(group)).arg(group).arg(places);
        self.server.answer(call).await?.word().map(drop)
    }

    /// Members of the group, and how many of these clients are among them.
    async fn count_members(&self, group: &str, clients: &Batches) -> Result<(u64, u64), StoreError> {
        let asked = Partition::all().map(|partition| async move {
            let (mut members, mut known) = (0, 0);
            let none = vec![Vec::new()];
            for batch in clients.get(&partition).unwrap_or(&none) {
                let mut answer =
                    self.server.answer(self.name_clients("belong", partition, group, batch)).await?;
                answer.word()?;
                members = answer.number()?;
                known += answer.number()?;
            }
            Ok::<_, StoreError>((members, known))
        });
        let mut sum = (0, 0);
        for counted in join_all(asked).await {
            let (members, known) = counted?;
            sum = (sum.0 + members, sum.1 + known);
        }
        Ok(sum)
    }

    /// Has clients come in or leave. Gives how many did.
    async fn change(&self, function: &str, group: &str, clients: &Batches) -> Result<u32, StoreError> {
        let batches = clients.iter().flat_map(|(partition, all)| all.iter().map(|batch| (*partition, batch)));
        let changes = batches.map(|(partition, batch)| async move {
            let call = self.name_clients(function, partition, group, batch);
            let mut answer = self.server.answer(call).await?;
            answer.word()?;
            let changed = answer.number()?;
            self.room.borrow_mut().set_group_members(partition, answer.number()?);
            Ok::<_, StoreError>(changed as u32)
        });
        join_all(changes).await.into_iter().sum()
    }

    fn name_clients(&self, function: &str, partition: Partition, group: &str, clients: &[ClientId]) -> Call {
        let call = self.server.call(function, partition).arg(group);
        clients.iter().fold(call, |call, client| call.arg(&**client))
    }

    pub(super) async fn drop_group(&self, group: &str) -> Result<Reply, StoreError> {
        let asked = Partition::all().map(|partition| async move {
            let call = self.server.call("disband", partition).arg(group);
            let mut answer = self.server.answer(call).await?;
            answer.word()?;
            answer.number()?;
            self.room.borrow_mut().set_group_members(partition, answer.number()?);
            Ok::<_, StoreError>(())
        });
        join_all(asked).await.into_iter().collect::<Result<(), _>>()?;
        Ok(Reply::Done)
    }

    pub(super) async fn group_members(
        &self,
        group: &str,
        page: Option<&Page>,
        members_max: u32,
    ) -> Result<Reply, StoreError> {
        let ask = |partition, behind, most| self.members_of(partition, group, behind, most);
        let (clients, next) = pages::collect(page, members_max as usize, ask).await?;
        Ok(Reply::Members { clients, next })
    }

    async fn members_of(
        &self,
        partition: Partition,
        group: &str,
        behind: Option<ClientId>,
        most: usize,
    ) -> Result<Part<ClientId>, StoreError> {
        let call = self.server.call("members", partition).arg(group);
        let call = call.arg(u8::from(behind.is_some())).arg(behind.as_deref().unwrap_or_default());
        let mut answer = self.server.answer(call.arg(most.min(CLIENTS_MAX))).await?;
        answer.word()?;
        let goes_on = answer.number()? == 1;
        let (mut list, mut found) = (answer.list()?, Vec::new());
        while !list.is_empty() {
            found.push(ClientId::new(&list.text()?));
        }
        let goes_on_behind = if goes_on { found.last().cloned() } else { None };
        Ok(Part { found, goes_on_behind })
    }
}

/// Clients by their partition, in batches of what one call may name.
type Batches = BTreeMap<Partition, Vec<Vec<ClientId>>>;

fn by_partition(clients: &[ClientId]) -> Batches {
    let mut batches = Batches::new();
    for client in clients {
        let of_partition = batches.entry(Partition::of_client(client)).or_default();
        match of_partition.last_mut().filter(|batch| batch.len() < CLIENTS_MAX) {
            Some(batch) => batch.push(client.clone()),
            None => of_partition.push(vec![client.clone()]),
        }
    }
    batches
}

fn count(batches: &Batches) -> u64 {
    batches.values().flatten().map(|batch| batch.len() as u64).sum()
}
