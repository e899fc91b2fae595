//! What the bridges know of this shard's subscriptions.
//!
//! One announcement serves all sessions that hold a filter. A SUBSCRIBE waits until every live bridge has answered, so what is published
//! after its SUBACK is not missed, whichever bridge it goes through.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_wire::link::{Interest, InterestKind, ToBridge};
use holdfast_wire::topic::{parse_shared, personal_level, personal_shape};

use crate::input::{ConnectionId, LinkIndex};
use crate::uplink::Uplinks;

/// Links whose answers one interest can wait for: one bit each.
pub(crate) const LINKS_MAX: u16 = 64;

/// Who waits for the bridges to know a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A SUBSCRIBE, by ticket.
    Subscribe(u64),
    /// A resumed session.
    Resume(ConnectionId),
}

/// All interests of the shard.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    /// In order, so that a replay from a seed announces in the same order.
    table: BTreeMap<Key, Entry>,
    /// Announcements without all their answers.
    tokens: BTreeMap<u64, Key>,
    /// The last announcement to each link that came up, until it is answered: then its bridge knows all of them.
    barriers: BTreeSet<(u64, LinkIndex)>,
    last_token: u64,
}

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// The filter as subscribed, with `$share/{group}/` if shared.
    Filter(Box<str>),
    Personal(u8, Box<str>),
}

#[derive(Debug, Default)]
struct Entry {
    members: u32,
    /// Members that are persistent sessions with QoS > 0.
    durable_members: u32,
    announced_durable: bool,
    token: u64,
    /// Bits of the links that have not answered `token`.
    unanswered: u64,
    /// At most the SUBSCRIBEs and resumes that are under way.
    waiters: Vec<Waiter>,
}

impl Interests {
    /// A session of `client` takes up a filter. True if the waiter has to wait.
    pub(crate) fn add(
        &mut self,
        filter: &str,
        client: &str,
        durable: bool,
        waiter: Waiter,
        links: &mut Uplinks,
    ) -> bool {
        let key = Key::of(filter, client);
        let entry = self.table.entry(key.clone()).or_default();
        entry.members += 1;
        entry.durable_members += u32::from(durable);
        let must_say = entry.members == 1 || (durable && !entry.announced_durable);
        if must_say {
            entry.announced_durable |= durable;
            self.last_token += 1;
            self.tokens.remove(&entry.token);
            entry.token = self.last_token;
            entry.unanswered = 0;
            for link in links.live().collect::<Vec<_>>() {
                entry.unanswered |= 1 << link.0;
                links.say(link, &key.announcement(entry, true));
            }
            if entry.unanswered != 0 {
                self.tokens.insert(entry.token, key);
            }
        } else if matches!(&key, Key::Filter(filter) if parse_shared(filter).is_some()) {
            // The bridges weigh a shard's share of a group by its members.
            say_without_token(&key, entry, links);
        }
        if entry.unanswered == 0 {
            return false;
        }
        entry.waiters.push(waiter);
        true
    }

    /// A session gives a filter up. Returns those who waited for it and need not any longer.
    #[must_use]
    pub(crate) fn remove(
        &mut self,
        filter: &str,
        client: &str,
        durable: bool,
        links: &mut Uplinks,
    ) -> Vec<Waiter> {
        let key = Key::of(filter, client);
        let Some(entry) = self.table.get_mut(&key) else { return Vec::new() };
        entry.members -= 1;
        entry.durable_members -= u32::from(durable);
        if entry.members > 0 {
            if matches!(&key, Key::Filter(filter) if parse_shared(filter).is_some()) {
                // Bridges tell those links of what waits in the group's stream that have members to read it.
                entry.announced_durable = entry.durable_members > 0;
                say_without_token(&key, entry, links);
            }
            return Vec::new();
        }
        self.tokens.remove(&entry.token);
        entry.token = 0;
        for link in links.live().collect::<Vec<_>>() {
            links.say(link, &key.announcement(entry, false));
        }
        let entry = self.table.remove(&key).expect("it was found above");
        debug_assert!(entry.durable_members == 0);
        entry.waiters
    }

    /// A bridge knows the announcement with this token. Returns those who need not wait any longer.
    pub(crate) fn known(&mut self, token: u64, link: LinkIndex) -> Vec<Waiter> {
        let Some(entry) = self.tokens.get(&token).and_then(|key| self.table.get_mut(key)) else {
            return Vec::new();
        };
        entry.unanswered &= !(1 << link.0);
        if entry.unanswered != 0 {
            return Vec::new();
        }
        self.tokens.remove(&token);
        std::mem::take(&mut entry.waiters)
    }

    /// A link came up: it hears everything. Nobody waits for it who did not before.
    pub(crate) fn link_up(&mut self, link: LinkIndex, links: &mut Uplinks) {
        let mut left = self.table.len();
        for (key, entry) in &mut self.table {
            left -= 1;
            // The old token, if one is still waited for, so that its answer counts; otherwise nobody asks for an answer but that of the last.
            if entry.unanswered != 0 {
                entry.unanswered |= 1 << link.0;
            } else if left == 0 {
                self.last_token += 1;
                entry.token = self.last_token;
            } else {
                entry.token = 0;
            }
            if left == 0 {
                self.barriers.insert((entry.token, link));
            }
            links.say(link, &key.announcement(entry, true));
        }
    }

    /// Whether this answer means that the bridge at a link that came up now knows everything.
    pub(crate) fn is_barrier(&mut self, token: u64, link: LinkIndex) -> bool {
        self.barriers.remove(&(token, link))
    }

    /// Every bridge hears again which filters persistent sessions hold. Nobody waits for that.
    pub(crate) fn say_durable_again(&self, links: &mut Uplinks) {
        for (key, entry) in self.table.iter().filter(|(_, entry)| entry.durable_members > 0) {
            say_without_token(key, entry, links);
        }
    }

    /// A link was lost: nobody waits for it any longer.
    pub(crate) fn link_down(&mut self, link: LinkIndex) -> Vec<Waiter> {
        self.barriers.retain(|(_, waiting)| *waiting != link);
        let tokens: Vec<_> = self.tokens.keys().copied().collect();
        tokens.into_iter().flat_map(|token| self.known(token, link)).collect()
    }
}

fn say_without_token(key: &Key, entry: &Entry, links: &mut Uplinks) {
    for link in links.live().collect::<Vec<_>>() {
        let ToBridge::Interest(interest) = key.announcement(entry, true) else { continue };
        links.say(link, &ToBridge::Interest(Interest { token: 0, ..interest }));
    }
}

impl Key {
    fn of(filter: &str, client: &str) -> Self {
        match personal_level(filter, client) {
            Some(level) => Self::Personal(level, personal_shape(filter, level).into()),
            None => Self::Filter(filter.into()),
        }
    }

    fn announcement<'a>(&'a self, entry: &Entry, wanted: bool) -> ToBridge<'a> {
        let (kind, filter) = match self {
            Self::Personal(level, shape) => (InterestKind::Personal { level: *level }, &**shape),
            Self::Filter(filter) => match parse_shared(filter) {
                Some(shared) => {
                    (InterestKind::Shared { group: shared.group, members: entry.members }, shared.filter)
                }
                None => (InterestKind::Filter, &**filter),
            },
        };
        ToBridge::Interest(Interest {
            token: entry.token,
            wanted,
            kind,
            filter,
            durable: entry.announced_durable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::ids::BridgeId;
    use holdfast_wire::link::{Welcome, next_record};

    fn links(up: u16) -> Uplinks {
        let mut links = Uplinks::new(2);
        (0..up).for_each(|link| {
            links.up(
                LinkIndex(link),
                Welcome { version: 1, bridge: BridgeId(link.into()), window_bytes: 1 },
                |_| (),
            );
        });
        links
    }

    fn said(links: &mut Uplinks, link: u16) -> Vec<String> {
        let output = std::mem::take(links.output(LinkIndex(link)));
        let mut bytes = &output[..];
        let mut said = Vec::new();
        while let Some(raw) = next_record(&mut bytes).unwrap() {
            let ToBridge::Interest(interest) = ToBridge::decode(raw).unwrap() else {
                panic!("only interests are said")
            };
            let sign = if interest.wanted { '+' } else { '-' };
            let weight = match interest.kind {
                InterestKind::Shared { group, members } => format!(" {group}x{members}"),
                InterestKind::Personal { level } => format!(" @{level}"),
                InterestKind::Filter => String::new(),
            };
            let durable = if interest.durable { " durable" } else { "" };
            said.push(format!("{sign}{}{weight}{durable}", interest.filter));
        }
        said
    }

    #[test]
    fn the_first_subscriber_announces_and_the_last_one_withdraws() {
        let (mut interests, mut links) = (Interests::default(), links(1));
        assert!(interests.add("a/#", "c", false, Waiter::Subscribe(1), &mut links));
        assert!(interests.add("a/#", "d", false, Waiter::Subscribe(2), &mut links));
        assert_eq!(said(&mut links, 0), ["+a/#"]);
        assert_eq!(interests.known(1, LinkIndex(0)), [Waiter::Subscribe(1), Waiter::Subscribe(2)]);
        assert!(!interests.add("a/#", "e", false, Waiter::Subscribe(3), &mut links));
        assert!((0..3).all(|_| interests.remove("a/#", "c", false, &mut links).is_empty()));
        assert_eq!(said(&mut links, 0), ["-a/#"]);
    }

    #[test]
    fn a_subscriber_waits_for_every_live_bridge_but_not_for_one_that_dies() {
        let (mut interests, mut links) = (Interests::default(), links(2));
        assert!(interests.add("a", "c", false, Waiter::Subscribe(1), &mut links));
        assert_eq!(interests.known(1, LinkIndex(0)), []);
        links.down(LinkIndex(1), |_| ());
        assert_eq!(interests.link_down(LinkIndex(1)), [Waiter::Subscribe(1)]);
    }

    #[test]
    fn who_gives_up_a_filter_while_it_is_announced_is_released() {
        let (mut interests, mut links) = (Interests::default(), links(1));
        assert!(interests.add("a", "c", false, Waiter::Subscribe(1), &mut links));
        assert_eq!(interests.remove("a", "c", false, &mut links), [Waiter::Subscribe(1)]);
        assert_eq!(interests.known(1, LinkIndex(0)), []);
    }

    #[test]
    fn the_first_persistent_subscriber_announces_again() {
        let (mut interests, mut links) = (Interests::default(), links(1));
        interests.add("a", "c", false, Waiter::Subscribe(1), &mut links);
        interests.known(1, LinkIndex(0));
        assert!(interests.add("a", "d", true, Waiter::Subscribe(2), &mut links));
        assert_eq!(said(&mut links, 0), ["+a", "+a durable"]);
        assert_eq!(interests.known(2, LinkIndex(0)), [Waiter::Subscribe(2)]);
    }

    #[test]
    fn a_group_is_durable_here_for_as_long_as_a_persistent_member_is() {
        let (mut interests, mut links) = (Interests::default(), links(1));
        interests.add("$share/g/a", "c", false, Waiter::Subscribe(1), &mut links);
        interests.add("$share/g/a", "d", true, Waiter::Subscribe(2), &mut links);
        assert_eq!(said(&mut links, 0), ["+a gx1", "+a gx2 durable"]);
        let _ = interests.remove("$share/g/a", "d", true, &mut links);
        assert_eq!(said(&mut links, 0), ["+a gx1"]);
        interests.known(2, LinkIndex(0));
        assert!(interests.add("$share/g/a", "d", true, Waiter::Subscribe(3), &mut links));
        assert_eq!(said(&mut links, 0), ["+a gx2 durable"]);
    }

    #[test]
    fn all_devices_with_a_filter_of_their_own_are_one_announcement() {
        let (mut interests, mut links) = (Interests::default(), links(1));
        interests.add("devices/c/push", "c", false, Waiter::Subscribe(1), &mut links);
        interests.add("devices/d/push", "d", false, Waiter::Subscribe(2), &mut links);
        assert_eq!(said(&mut links, 0), ["+devices/+/push @1"]);
    }

    #[test]
    fn a_bridge_that_comes_up_hears_everything() {
        let (mut interests, mut links) = (Interests::default(), links(1));
        interests.add("a", "c", false, Waiter::Subscribe(1), &mut links);
        interests.add("$share/g/b", "c", true, Waiter::Subscribe(1), &mut links);
        links.up(LinkIndex(1), Welcome { version: 1, bridge: BridgeId(9), window_bytes: 1 }, |_| ());
        interests.link_up(LinkIndex(1), &mut links);
        assert_eq!(said(&mut links, 1), ["+b gx1 durable", "+a"]);
        assert_eq!(interests.known(1, LinkIndex(0)), [], "the new bridge has not answered");
        assert_eq!(interests.known(1, LinkIndex(1)), [Waiter::Subscribe(1)]);
    }
}
