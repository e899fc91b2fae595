//! All connections of the shard, by slot. Pages, so that growing moves nothing.

use super::{Connection, Phase};
use crate::input::ConnectionId;

const PAGE: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Connections {
    pages: Vec<Box<[Connection]>>,
    free: Vec<u32>,
    live: u32,
}

impl Connections {
    /// Connections that are not free.
    pub(crate) fn len(&self) -> u32 {
        self.live
    }

    /// Takes a free slot; the caller sets its phase.
    pub(crate) fn take(&mut self) -> (ConnectionId, &mut Connection) {
        if self.free.is_empty() {
            let first = (self.pages.len() * PAGE) as u32;
            self.pages.push((0..PAGE).map(|_| Connection::free(0)).collect());
            self.free.extend((first..first + PAGE as u32).rev());
        }
        let slot = self.free.pop().expect("a page was added above if there was none");
        self.live += 1;
        let connection = &mut self.pages[slot as usize / PAGE][slot as usize % PAGE];
        (ConnectionId { slot, generation: connection.generation }, connection)
    }

    /// Frees a slot. Its next tenant has another generation.
    pub(crate) fn release(&mut self, id: ConnectionId) {
        let connection = &mut self.pages[id.slot as usize / PAGE][id.slot as usize % PAGE];
        debug_assert_eq!(connection.generation, id.generation);
        *connection = Connection::free(id.generation.wrapping_add(1));
        self.free.push(id.slot);
        self.live -= 1;
    }

    /// The connection, if it is still the same tenant.
    pub(crate) fn find(&self, id: ConnectionId) -> Option<&Connection> {
        let connection = self.pages.get(id.slot as usize / PAGE)?.get(id.slot as usize % PAGE)?;
        (connection.generation == id.generation && !matches!(connection.phase, Phase::Free))
            .then_some(connection)
    }

    pub(crate) fn find_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let connection = self.pages.get_mut(id.slot as usize / PAGE)?.get_mut(id.slot as usize % PAGE)?;
        (connection.generation == id.generation && !matches!(connection.phase, Phase::Free))
            .then_some(connection)
    }

    /// Whoever is in the slot.
    pub(crate) fn at(&self, slot: u32) -> Option<(ConnectionId, &Connection)> {
        let connection = self.pages.get(slot as usize / PAGE)?.get(slot as usize % PAGE)?;
        let id = ConnectionId { slot, generation: connection.generation };
        (!matches!(connection.phase, Phase::Free)).then_some((id, connection))
    }

    /// Slots that exist; a walk over them skips the free ones.
    pub(crate) fn slots(&self) -> u32 {
        (self.pages.len() * PAGE) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_under_another_generation() {
        let mut connections = Connections::default();
        let (first, connection) = connections.take();
        connection.phase = Phase::Greeting;
        connections.release(first);
        let (second, connection) = connections.take();
        connection.phase = Phase::Greeting;
        assert_eq!(first.slot, second.slot);
        assert!(connections.find(first).is_none());
        assert!(connections.find(second).is_some());
        assert_eq!(connections.len(), 1);
    }

    #[test]
    fn slots_are_dense() {
        let mut connections = Connections::default();
        let slots: Vec<_> = (0..3_000)
            .map(|_| {
                let (id, connection) = connections.take();
                connection.phase = Phase::Greeting;
                id.slot
            })
            .collect();
        assert_eq!(slots, (0..3_000).collect::<Vec<_>>());
    }
}
