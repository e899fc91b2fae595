//! The interest table: who wants to hear a message, and which streams it owes itself to before its publisher hears an acknowledgement.
//!
//! Pure. Its size is that of the filters that shards announced and that persistent sessions hold; a shard's own limits bound the former.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_wire::link::InterestKind;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::topic::{FilterTree, parse_shared};

/// One link; never used again, so that what a lost link leaves behind cannot be taken for its successor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) u64);

/// All interests by filter.
#[derive(Debug, Default)]
pub(crate) struct InterestTable {
    filters: FilterTree<Interests>,
    /// Group and filter of shared subscriptions with readers.
    read_groups: HashSet<(Box<str>, Box<str>)>,
    /// Something was called durable that the store has not confirmed, or was missed once.
    unconfirmed: bool,
}

/// What is known of one filter.
#[derive(Debug, Default)]
struct Interests {
    filter: Box<str>,
    durable: Durability,
    links: Vec<LinkId>,
    groups: Vec<Group>,
    personal: Vec<Personal>,
}

/// Whether persistent sessions hold a filter with QoS > 0. Only the store knows when the last one lets go; a filter that it does not name twice in a
/// row, and that nobody announces in between, is durable no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Durability {
    #[default]
    No,
    Yes,
    MissedOnce,
}

impl Durability {
    fn holds(self) -> bool {
        self != Self::No
    }
}

#[derive(Debug)]
struct Group {
    name: Box<str>,
    durable: Durability,
    members: Vec<(LinkId, u32)>,
    /// Which of them said last that persistent sessions are among them.
    readers: Vec<LinkId>,
    /// Messages given to it so far; decides whose turn it is.
    turn: AtomicU32,
    /// Times that one of its readers was told; decides which of them is next.
    reader_turn: AtomicU32,
}

impl Group {
    fn forget(&mut self, link: LinkId) {
        self.members.retain(|(other, _)| *other != link);
        self.readers.retain(|other| *other != link);
    }
}

#[derive(Debug)]
struct Personal {
    level: u8,
    durable: bool,
    links: Vec<LinkId>,
}

/// What a message owes before it is acknowledged, and whether anyone hears it live.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Owes {
    /// Someone may hear it: it has to fan out.
    pub(crate) live: bool,
    /// Streams of filters that persistent sessions hold; none for QoS 0.
    pub(crate) streams: Vec<StreamKey>,
    /// The client whose persistent session may hold a personal filter that matches; none for QoS 0.
    pub(crate) device: Option<Box<str>>,
    /// A shared subscription of persistent sessions has a member connected: it is owed to that member, or else to the group's stream.
    pub(crate) group: bool,
}

/// Who hears a message live.
#[derive(Debug, Default)]
pub(crate) struct Hearers {
    /// Links with matching ordinary filters, each once.
    pub(crate) links: Vec<LinkId>,
    /// Group and filter of each shared subscription that matches and has members, or persistent sessions behind it.
    pub(crate) groups: Vec<(Box<str>, Box<str>)>,
    /// Devices that personal filters point to, with the links that announced such a filter, each once.
    pub(crate) devices: Vec<(Box<str>, Vec<LinkId>)>,
}

impl InterestTable {
    /// Whether nobody wants anything: the one question that a frame without hearers costs.
    pub(crate) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// A shard announced an interest; announcing again changes its weight or makes it durable.
    pub(crate) fn announce(&mut self, link: LinkId, kind: InterestKind<'_>, filter: &str, durable: bool) {
        self.unconfirmed |= durable;
        let interests = self.enter(filter);
        match kind {
            InterestKind::Filter => {
                add(&mut interests.links, link);
                if durable {
                    interests.durable = Durability::Yes;
                }
            }
            InterestKind::Shared { group: name, members } => {
                let group = interests.group(name);
                if durable {
                    group.durable = Durability::Yes;
                }
                group.forget(link);
                if members > 0 {
                    group.members.push((link, members));
                    group.readers.extend(durable.then_some(link));
                }
                self.note_readers(name, filter);
            }
            InterestKind::Personal { level } => {
                let personal = interests.personal(level);
                add(&mut personal.links, link);
                personal.durable |= durable;
            }
        }
    }

    /// A shard withdrew an interest. What persistent sessions hold stays.
    pub(crate) fn withdraw(&mut self, link: LinkId, kind: InterestKind<'_>, filter: &str) {
        let Some(interests) = self.filters.get_mut(filter) else { return };
        match kind {
            InterestKind::Filter => interests.links.retain(|other| *other != link),
            InterestKind::Shared { group, .. } => {
                if let Some(group) = interests.groups.iter_mut().find(|known| *known.name == *group) {
                    group.forget(link);
                }
            }
            InterestKind::Personal { level } => {
                if let Some(personal) = interests.personal.iter_mut().find(|known| known.level == level) {
                    personal.links.retain(|other| *other != link);
                }
            }
        }
        if let InterestKind::Shared { group, .. } = kind {
            self.note_readers(group, filter);
        }
        self.prune(filter);
    }

    /// A link is gone, and its interests with it.
    pub(crate) fn link_lost(&mut self, link: LinkId) {
        let mut touched = Vec::new();
        self.filters.for_each(|filter, interests| {
            if interests.names(link) {
                touched.push(filter.to_owned());
            }
        });
        for filter in touched {
            if let Some(interests) = self.filters.get_mut(&filter) {
                interests.forget(link);
            }
            self.prune(&filter);
        }
        let Self { filters, read_groups, .. } = self;
        read_groups.retain(|(name, filter)| is_read(filters, name, filter));
    }

    /// A link has said how many members of a group it has; whether persistent sessions are among all of them.
    fn note_readers(&mut self, group: &str, filter: &str) {
        let key = (group.into(), filter.into());
        if is_read(&self.filters, group, filter) {
            self.read_groups.insert(key);
        } else {
            self.read_groups.remove(&key);
        }
    }

    /// Whether it knows a filter that a persistent session holds. Goes through all there are.
    pub(crate) fn holds_durable_ones(&self) -> bool {
        let mut holds = false;
        self.filters.for_each(|_, interests| {
            holds |= interests.durable.holds() || interests.groups.iter().any(|group| group.durable.holds());
        });
        holds
    }

    /// Whether [`InterestTable::durable_filters`] would change something even for a list that is the same as before.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed
    }

    /// What the store says persistent sessions hold, in place of what it said before.
    pub(crate) fn durable_filters(&mut self, filters: &[Box<str>]) {
        // Everything durable was missed, unless the list names it.
        let mut touched = Vec::new();
        self.filters.for_each(|filter, interests| {
            if interests.durable.holds() || interests.groups.iter().any(|group| group.durable.holds()) {
                touched.push(filter.to_owned());
            }
        });
        let named: HashSet<&str> = filters.iter().map(|filter| &**filter).collect();
        let mut unconfirmed = false;
        let mut missed = |durable: &mut Durability, name: &str| {
            *durable = match *durable {
                _ if named.contains(name) => Durability::Yes,
                Durability::Yes => Durability::MissedOnce,
                Durability::MissedOnce | Durability::No => Durability::No,
            };
            unconfirmed |= *durable == Durability::MissedOnce;
        };
        for filter in touched {
            if let Some(interests) = self.filters.get_mut(&filter) {
                missed(&mut interests.durable, &filter);
                for group in &mut interests.groups {
                    missed(&mut group.durable, &share(&group.name, &filter));
                }
            }
            self.prune(&filter);
        }
        self.unconfirmed = unconfirmed;
        for filter in filters {
            match parse_shared(filter) {
                Some(shared) => self.enter(shared.filter).group(shared.group).durable = Durability::Yes,
                None => self.enter(filter).durable = Durability::Yes,
            }
        }
    }

    /// What a message on this topic owes before its publisher hears an acknowledgement.
    pub(crate) fn owes(&self, topic: &str, qos: QoS) -> Owes {
        let mut owes = Owes::default();
        if self.filters.is_empty() {
            return owes;
        }
        let stored = qos > QoS::AtMostOnce;
        self.filters.for_each_match(topic, |interests| {
            owes.live |= !interests.links.is_empty() || !interests.personal.is_empty();
            if stored && interests.durable.holds() {
                owes.streams.push(StreamKey::Filter(interests.filter.clone()));
            }
            for group in &interests.groups {
                owes.live |= !group.members.is_empty();
                // With a member connected somewhere the group's stream is only the way out if none of them takes it.
                let durable = stored && group.durable.holds();
                owes.group |= durable && !group.members.is_empty();
                if durable && group.members.is_empty() {
                    owes.streams.push(StreamKey::Filter(share(&group.name, &interests.filter).into()));
                }
            }
            for personal in interests.personal.iter().filter(|personal| stored && personal.durable) {
                owes.device = level(topic, personal.level).map(Into::into).or(owes.device.take());
            }
        });
        owes
    }

    /// Who hears a message on this topic live.
    pub(crate) fn hearers(&self, topic: &str) -> Hearers {
        let mut hearers = Hearers::default();
        self.filters.for_each_match(topic, |interests| {
            hearers.links.extend_from_slice(&interests.links);
            for group in &interests.groups {
                // A durable one whose members have all left since the message came takes it into its stream.
                if group.members.is_empty() && !group.durable.holds() {
                    continue;
                }
                hearers.groups.push((group.name.clone(), interests.filter.clone()));
            }
            for personal in &interests.personal {
                let Some(client) = level(topic, personal.level).filter(|client| !client.is_empty()) else {
                    continue;
                };
                match hearers.devices.iter_mut().find(|(known, _)| **known == *client) {
                    Some((_, links)) => links.extend_from_slice(&personal.links),
                    None => hearers.devices.push((client.into(), personal.links.clone())),
                }
            }
        });
        for links in hearers.devices.iter_mut().map(|(_, links)| links).chain([&mut hearers.links]) {
            links.sort_unstable();
            links.dedup();
        }
        hearers
    }

    /// Whose turn it is in a group, by weight, leaving out those that were tried.
    pub(crate) fn pick_member(&self, group: &str, filter: &str, tried: &[LinkId]) -> Option<LinkId> {
        let group = self.filters.get(filter)?.groups.iter().find(|known| *known.name == *group)?;
        let open = || group.members.iter().filter(|(link, _)| !tried.contains(link));
        let weight: u64 = open().map(|(_, members)| u64::from(*members)).sum();
        if weight == 0 {
            return None;
        }
        let mut turn = u64::from(group.turn.fetch_add(1, Ordering::Relaxed)) % weight;
        for (link, members) in open() {
            match turn.checked_sub(u64::from(*members)) {
                Some(left) => turn = left,
                None => return Some(*link),
            }
        }
        None
    }

    /// Links with persistent members of a group, to be told that its stream may hold something: each time another one comes first.
    pub(crate) fn readers_in_turn(&self, group: &str, filter: &str) -> Vec<LinkId> {
        let groups = self.filters.get(filter).map_or(&[][..], |interests| &interests.groups);
        let Some(group) = groups.iter().find(|known| *known.name == *group) else { return Vec::new() };
        let mut readers = group.readers.clone();
        if !readers.is_empty() {
            let turn = group.reader_turn.fetch_add(1, Ordering::Relaxed) as usize;
            readers.rotate_left(turn % group.readers.len());
        }
        readers
    }

    /// Group and filter of each shared subscription that has persistent members connected.
    pub(crate) fn groups_with_readers(&self) -> Vec<(Box<str>, Box<str>)> {
        self.read_groups.iter().cloned().collect()
    }

    /// Whether persistent sessions hold the shared subscription.
    pub(crate) fn is_group_durable(&self, group: &str, filter: &str) -> bool {
        let interests = self.filters.get(filter);
        let group =
            interests.and_then(|interests| interests.groups.iter().find(|known| *known.name == *group));
        group.is_some_and(|group| group.durable.holds())
    }

    fn enter(&mut self, filter: &str) -> &mut Interests {
        let interests = self.filters.insert(filter);
        if interests.filter.is_empty() {
            interests.filter = filter.into();
        }
        interests
    }

    fn prune(&mut self, filter: &str) {
        let Some(interests) = self.filters.get_mut(filter) else { return };
        interests.groups.retain(|group| group.durable.holds() || !group.members.is_empty());
        interests.personal.retain(|personal| personal.durable || !personal.links.is_empty());
        if !interests.durable.holds()
            && interests.links.is_empty()
            && interests.groups.is_empty()
            && interests.personal.is_empty()
        {
            self.filters.remove(filter);
        }
    }
}

/// Whether persistent members of a group are connected.
fn is_read(filters: &FilterTree<Interests>, group: &str, filter: &str) -> bool {
    let groups = filters.get(filter).map_or(&[][..], |interests| &interests.groups);
    groups.iter().any(|known| *known.name == *group && !known.readers.is_empty())
}

impl Interests {
    fn group(&mut self, name: &str) -> &mut Group {
        let at = self.groups.iter().position(|group| *group.name == *name).unwrap_or_else(|| {
            self.groups.push(Group {
                name: name.into(),
                durable: Durability::No,
                members: Vec::new(),
                readers: Vec::new(),
                turn: AtomicU32::new(0),
                reader_turn: AtomicU32::new(0),
            });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    fn personal(&mut self, level: u8) -> &mut Personal {
        let at = self.personal.iter().position(|personal| personal.level == level).unwrap_or_else(|| {
            self.personal.push(Personal { level, durable: false, links: Vec::new() });
            self.personal.len() - 1
        });
        &mut self.personal[at]
    }

    fn names(&self, link: LinkId) -> bool {
        self.links.contains(&link)
            || self.groups.iter().any(|group| group.members.iter().any(|(other, _)| *other == link))
            || self.personal.iter().any(|personal| personal.links.contains(&link))
    }

    fn forget(&mut self, link: LinkId) {
        self.links.retain(|other| *other != link);
        for group in &mut self.groups {
            group.forget(link);
        }
        for personal in &mut self.personal {
            personal.links.retain(|other| *other != link);
        }
    }
}

/// The filter as a client subscribes to it and as its stream is named.
pub(crate) fn share(group: &str, filter: &str) -> String {
    format!("$share/{group}/{filter}")
}

fn level(topic: &str, level: u8) -> Option<&str> {
    topic.split('/').nth(usize::from(level))
}

fn add(links: &mut Vec<LinkId>, link: LinkId) {
    if !links.contains(&link) {
        links.push(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const C: LinkId = LinkId(3);

    fn filter(table: &mut InterestTable, link: LinkId, filter: &str, durable: bool) {
        table.announce(link, InterestKind::Filter, filter, durable);
    }

    fn shared(members: u32) -> InterestKind<'static> {
        InterestKind::Shared { group: "g", members }
    }

    #[test]
    fn a_shard_with_two_matching_filters_hears_a_message_once() {
        let mut table = InterestTable::default();
        filter(&mut table, A, "a/+", false);
        filter(&mut table, A, "a/#", false);
        filter(&mut table, B, "a/b", false);
        assert_eq!(table.hearers("a/b").links, [A, B]);
        assert!(table.owes("a/b", QoS::AtLeastOnce).live);
        assert_eq!(table.owes("c", QoS::AtLeastOnce), Owes::default());
    }

    #[test]
    fn what_is_withdrawn_or_lost_leaves_nothing_but_what_persistent_sessions_hold() {
        let mut table = InterestTable::default();
        filter(&mut table, A, "a", false);
        filter(&mut table, B, "a", true);
        table.announce(A, shared(2), "s", false);
        table.announce(A, InterestKind::Personal { level: 0 }, "+/push", false);
        table.withdraw(B, InterestKind::Filter, "a");
        assert_eq!(table.hearers("a").links, [A]);
        table.link_lost(A);
        assert!(!table.owes("a", QoS::AtLeastOnce).live);
        assert_eq!(table.owes("a", QoS::AtLeastOnce).streams, [StreamKey::Filter("a".into())]);
        assert!(table.owes("a", QoS::AtMostOnce).streams.is_empty(), "QoS 0 is never stored");
        assert_eq!(table.filters.len(), 1);
    }

    #[test]
    fn a_durable_filter_goes_once_the_store_misses_it_twice() {
        let mut table = InterestTable::default();
        table.durable_filters(&["a".into(), "$share/g/a".into()]);
        let streams = |table: &InterestTable| table.owes("a", QoS::AtLeastOnce).streams.len();
        assert_eq!(streams(&table), 2);
        table.durable_filters(&["a".into()]);
        assert!(table.is_unconfirmed());
        assert_eq!(streams(&table), 2, "it may have been subscribed after the store was asked");
        table.announce(A, shared(0), "a", true);
        table.durable_filters(&["a".into()]);
        assert_eq!(streams(&table), 2);
        table.durable_filters(&["a".into()]);
        assert_eq!(streams(&table), 1);
        assert!(!table.is_unconfirmed());
        table.durable_filters(&[]);
        table.durable_filters(&[]);
        assert!(table.is_empty());
    }

    #[test]
    fn a_group_is_served_by_weight() {
        let mut table = InterestTable::default();
        table.announce(A, shared(3), "s", false);
        table.announce(B, shared(1), "s", false);
        let picks =
            |table: &InterestTable| (0..400).filter(|_| table.pick_member("g", "s", &[]) == Some(A)).count();
        assert_eq!(picks(&table), 300);
        assert_eq!(table.pick_member("g", "s", &[A]), Some(B));
        assert_eq!(table.pick_member("g", "s", &[A, B]), None);
        table.announce(A, shared(0), "s", false);
        assert_eq!(picks(&table), 0);
    }

    #[test]
    fn links_with_persistent_members_of_a_group_take_turns() {
        let mut table = InterestTable::default();
        let told = |table: &InterestTable| table.readers_in_turn("g", "s");
        table.announce(A, shared(3), "s", false);
        assert!(told(&table).is_empty(), "no persistent session is there");
        assert!(table.groups_with_readers().is_empty());
        table.announce(B, shared(1), "s", true);
        assert_eq!(told(&table), [B]);
        assert_eq!(table.groups_with_readers(), [("g".into(), "s".into())]);
        table.announce(C, shared(1), "s", true);
        let mut turns = [told(&table), told(&table)];
        turns.sort_unstable();
        assert_eq!(turns, [[B, C], [C, B]]);
        table.link_lost(B);
        assert_eq!(told(&table), [C]);
        table.withdraw(C, shared(0), "s");
        assert!(told(&table).is_empty() && table.groups_with_readers().is_empty());
        table.announce(C, shared(1), "s", true);
        table.announce(C, shared(0), "s", true);
        assert!(table.groups_with_readers().is_empty());
    }

    #[test]
    fn a_durable_group_without_members_owes_its_stream() {
        let mut table = InterestTable::default();
        table.announce(A, shared(1), "s", true);
        let owes = table.owes("s", QoS::AtLeastOnce);
        assert!(owes.group && owes.streams.is_empty());
        assert!(!table.owes("s", QoS::AtMostOnce).group, "QoS 0 is never stored");
        table.link_lost(A);
        let owes = table.owes("s", QoS::AtLeastOnce);
        assert_eq!(owes.streams, [StreamKey::Filter("$share/g/s".into())]);
        assert!(!owes.live && !owes.group && table.is_group_durable("g", "s"));
        assert_eq!(table.hearers("s").groups.len(), 1, "for what was owed to a member that has left since");
    }

    #[test]
    fn a_personal_filter_leads_to_the_client_in_the_topic() {
        let mut table = InterestTable::default();
        table.announce(A, InterestKind::Personal { level: 1 }, "devices/+/push", false);
        table.announce(B, InterestKind::Personal { level: 1 }, "devices/+/push", true);
        let hearers = table.hearers("devices/d-1/push");
        assert_eq!(hearers.devices, [("d-1".into(), vec![A, B])]);
        assert!(hearers.links.is_empty());
        table.announce(B, InterestKind::Personal { level: 1 }, "devices/+/#", false);
        assert_eq!(table.hearers("devices/d-1/push").devices, hearers.devices);
        assert_eq!(table.owes("devices/d-1/push", QoS::AtLeastOnce).device, Some("d-1".into()));
        assert_eq!(table.owes("devices/d-1/push", QoS::AtMostOnce).device, None);
    }
}
