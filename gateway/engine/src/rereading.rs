//! Reading streams again after a link was lost or came up.
//!
//! What a bridge put into a stream while it could not reach this shard is not delivered live any more, and nothing may follow that would show the gap.
//! So once the bridge at a new link knows everything that this shard wants (it answers the last interest, a barrier), each persistent
//! session reads its streams once from where it stands. Sessions are visited in slices, and only so many read at a time: a store must bear it.

use crate::connection::streams;
use crate::engine::Engine;
use crate::shared::Shared;

/// Reads of streams that the store has not answered. More do not begin here; those of resuming sessions do, and count.
const READS_MAX: u32 = 256;
/// Connections that one turn visits.
const VISITS_MAX: u32 = 4_096;

/// A walk over all connections.
#[derive(Debug, Default)]
pub(crate) struct Rereading {
    next_slot: u32,
    /// Slots still to be visited.
    left: u32,
}

impl Shared {
    fn may_reread(&self) -> bool {
        self.rereading.left > 0 && self.reads < READS_MAX
    }
}

impl Engine {
    /// Every session that is here now has to read its streams again. One that was visited already, on a walk under way, is visited once more.
    pub(crate) fn read_streams_again(&mut self) {
        self.shared.rereading.left = self.connections.slots();
    }

    /// Whether [`Engine::go_on_rereading`] has something to do.
    pub(crate) fn has_rereading(&self) -> bool {
        self.shared.may_reread()
    }

    /// The next slice.
    pub(crate) fn go_on_rereading(&mut self) {
        let Self { connections, shared, .. } = self;
        let mut visits = VISITS_MAX;
        while visits > 0 && shared.may_reread() {
            visits -= 1;
            let slot = shared.rereading.next_slot % connections.slots();
            shared.rereading.next_slot = slot + 1;
            shared.rereading.left -= 1;
            let Some(id) = connections.at(slot).map(|(id, _)| id) else { continue };
            let Some(connection) = connections.find_mut(id) else { continue };
            let blocked = connection.blocked;
            let Some(session) = connection.session_mut() else { continue };
            let Some(durable) = &mut session.durable else { continue };
            durable.read_all_again();
            streams::read_on(session, id, shared, blocked);
        }
    }
}
