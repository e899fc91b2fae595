//! Former owners that have not answered, and through which bridge each is asked.
//!
//! ```text
//!   through the bridge that serves the client ── it has no link of the former owner ──> through the next one ── nor has any other ──> gone on without
//!             │                        └─────────── the link is lost ───────────────────────────┘ ^
//!             └── the former owner answers, over the same bridge                                  └ unless a bridge is lost that may have passed it on
//! ```
//! One bridge is asked at a time: nearly always the first one has both owners, and what is handed over may be large.

use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::link::{Takeover, ToBridge};

use crate::input::LinkIndex;
use crate::remembered::Remembered;
use crate::shared::Shared;
use crate::topics::interest::LINKS_MAX;
use crate::uplink::Uplinks;

/// So many former owners are asked again, those of the sessions that came last: one that died without a word, or stands still, never answers, and whoever
/// waited has long gone on without it.
const ASKED_MAX: usize = 10_000;

/// Sessions taken over whose former owner has not answered.
#[derive(Debug, Default)]
pub(crate) struct FormerOwners(Remembered<FormerOwner>);

#[derive(Debug)]
struct FormerOwner {
    owner: Owner,
    /// The link over which it is being asked.
    through: Option<LinkIndex>,
    /// Links whose bridges do not reach it, by bit.
    not_through: u64,
    /// A link was lost over which it had been asked: it may have answered.
    may_be_told: bool,
}

impl FormerOwners {
    fn insert(&mut self, session: (ClientId, Epoch), former: FormerOwner) {
        self.0.insert(session, former);
        if self.0.len() > ASKED_MAX {
            self.0.remove_oldest();
        }
    }
}

const _: () = assert!(LINKS_MAX as u32 <= u64::BITS);

impl FormerOwner {
    fn new(owner: Owner) -> Self {
        Self { owner, through: None, not_through: 0, may_be_told: false }
    }

    /// Asks through the best bridge that has not refused to. False if there is none.
    fn ask(&mut self, (client, epoch): &(ClientId, Epoch), owner: Owner, uplinks: &mut Uplinks) -> bool {
        self.through = uplinks.choose_without(client, self.not_through);
        let Some(link) = self.through else { return false };
        let record = Takeover { client, epoch: *epoch, former: self.owner, owner };
        uplinks.say(link, &ToBridge::Takeover(record));
        true
    }
}

impl Shared {
    /// Tells a session's former owner, now (true) or once there is a link. It answers with a handover.
    pub(crate) fn say_takeover(&mut self, client: &ClientId, epoch: Epoch, former: Owner) -> bool {
        let session = (client.clone(), epoch);
        let mut former = FormerOwner::new(former);
        let is_said = former.ask(&session, self.owner, &mut self.uplinks);
        self.former_owners.insert(session, former);
        is_said
    }

    /// The former owner has answered. Gives it, if this was not known yet.
    pub(crate) fn handle_former_owner(&mut self, client: &ClientId, epoch: Epoch) -> Option<Owner> {
        self.former_owners.0.remove(&(client.clone(), epoch)).map(|former| former.owner)
    }

    /// A link came up: all who have not answered are asked anew, as what was said to them may be lost.
    pub(crate) fn say_takeovers_again(&mut self) {
        for (session, former) in self.former_owners.0.iter_mut() {
            *former = FormerOwner::new(former.owner);
            former.ask(session, self.owner, &mut self.uplinks);
        }
    }

    /// A link was lost: those who were asked over it are asked over another one, if there is one, or when it is back.
    pub(crate) fn say_takeovers_elsewhere(&mut self, lost: LinkIndex) {
        let asked = self.former_owners.0.iter_mut().filter(|(_, former)| former.through == Some(lost));
        for (session, former) in asked {
            former.may_be_told = true;
            former.ask(session, self.owner, &mut self.uplinks);
        }
    }

    /// A bridge does not reach the former owner. True if nobody does, so that it is not waited for.
    pub(crate) fn ask_elsewhere(&mut self, client: &ClientId, epoch: Epoch, link: LinkIndex) -> bool {
        let session = (client.clone(), epoch);
        let Some(former) = self.former_owners.0.find_mut(&session) else { return false };
        // Otherwise it answers a question that was put anew meanwhile.
        if former.through != Some(link) {
            return false;
        }
        former.not_through |= 1 << link.0;
        !former.ask(&session, self.owner, &mut self.uplinks) && !former.may_be_told
    }
}

#[cfg(test)]
mod tests {
    use holdfast_wire::ids::{NodeId, ShardId};

    use super::*;

    #[test]
    fn former_owners_that_never_answer_are_forgotten_beyond_a_bound() {
        let mut former_owners = FormerOwners::default();
        let gone = Owner { node: NodeId(7), shard: ShardId(0) };
        let session = |number| (ClientId::new(&format!("c{number}")), Epoch(1));
        for number in 0..=ASKED_MAX {
            former_owners.insert(session(number), FormerOwner::new(gone));
        }
        assert_eq!(former_owners.0.len(), ASKED_MAX);
        assert!(former_owners.0.find(&session(0)).is_none() && former_owners.0.find(&session(1)).is_some());
    }
}
