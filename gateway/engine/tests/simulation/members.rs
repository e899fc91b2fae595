//! Members of one shared subscription's group: most of them persist, and all of them stop reading, vanish and come back elsewhere.
//!
//! What the group is owed must reach one of them, whatever becomes of the others, and none of it two of them while nobody dies.

use holdfast_wire::mqtt::{ProtocolVersion, QoS};

use crate::device::Device;
use crate::pushes::Told;
use crate::world::{DEVICES, World};

/// So many of them, behind the other devices.
const MEMBERS: usize = 6;
const PERSISTENT: usize = 5;
const FILTER: &str = "$share/group/site/#";

/// They publish nothing.
pub(crate) fn members() -> impl Iterator<Item = Device> {
    (0..MEMBERS).map(|number| {
        let version = if number.is_multiple_of(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
        let qos = if number % 3 == 1 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let filters = vec![(FILTER.to_owned(), qos)];
        Device::new(format!("member-{number}"), version, number < PERSISTENT, filters, String::new(), 0)
    })
}

impl World {
    fn a_member(&mut self) -> usize {
        DEVICES + self.random.below(MEMBERS)
    }

    /// One of them stops reading, or reads again, or vanishes; or all of them stop.
    pub(crate) fn trouble_a_member(&mut self) {
        if self.faults.members_stop {
            return self.stop_all_members();
        }
        let number = self.a_member();
        match self.random.below(6) {
            0..=2 => self.stop_reading(number),
            3 | 4 => self.read_again(number),
            _ => self.lose_connection(number),
        }
    }

    /// Until the faults end, unless their gateway finds them too slow.
    fn stop_all_members(&mut self) {
        if self.standing.iter().filter(|number| **number >= DEVICES).count() == PERSISTENT {
            (DEVICES..DEVICES + MEMBERS).for_each(|number| self.stop_reading(number));
        }
    }

    fn stop_reading(&mut self, number: usize) {
        self.tell(|| format!("device-{number} reads no more"));
        if let Some(socket) = &mut self.devices[number].socket {
            socket.reads = false;
        }
    }

    /// Whether a persistent member's subscription stands: then the group is owed what is published on a topic of its filter.
    pub(crate) fn is_owed_to_group(&self, topic: &str) -> bool {
        topic.starts_with("site/") && self.standing.iter().any(|number| *number >= DEVICES)
    }

    /// A message came to a member with QoS 2. Nobody else may have been given it, unless the bridge waited for the first in vain or nobody could know any more; also where
    /// the session of the first has ended (MQTT-4.8.2-5).
    pub(crate) fn check_given_once(&mut self, number: usize, payload: &[u8]) {
        if number < DEVICES {
            return;
        }
        let former = *self.given_exactly_once.entry(payload.to_vec()).or_insert(number);
        let is_excused = self.is_excused() || self.was_held_too_long(payload);
        assert!(
            former == number || is_excused,
            "the QoS 2 message {} went to device {former} and to device {number}",
            String::from_utf8_lossy(payload)
        );
    }

    /// Whether a group's stream held it until anyone might claim it, though a member had it.
    pub(crate) fn was_held_too_long(&self, payload: &[u8]) -> bool {
        let now_ms = self.now_ms();
        self.bridge.groups.held_until_ms.get(payload).is_some_and(|until_ms| *until_ms <= now_ms)
    }

    /// Whether something went wrong that may make two of one.
    pub(crate) fn is_excused(&self) -> bool {
        // Who waits for a former owner does so for half a second only.
        let is_late = || self.shards.iter().any(|shard| shard.engine.stats().handovers_late > 0);
        self.has_died || self.has_flapped || is_late()
    }

    /// A message that the group was owed and that none of its members got.
    pub(crate) fn missing_in_group(&self) -> Option<String> {
        let mut owed = self.published.iter().filter(|(payload, published)| {
            published.acknowledged
                && published.owed_to_group
                && !self.bridge.groups.in_doubt.contains(*payload)
        });
        let (payload, published) = owed
            .find(|(payload, _)| !self.received.iter().skip(DEVICES).any(|got| got.contains_key(*payload)))?;
        let is_stored = self.bridge.groups.stored.contains(payload);
        Some(format!(
            "the group misses {} of {}, stored: {is_stored}",
            String::from_utf8_lossy(payload),
            published.topic
        ))
    }

    /// A push that its device was promised and has not got.
    pub(crate) fn missing_push(&self) -> Option<String> {
        let mut promised = self.bridge.pushes.told.iter().filter(|(.., told)| *told != Told::Other);
        let (client, payload, told) = promised.find(|(client, payload, _)| {
            let number = self.devices.iter().position(|device| device.client == *client);
            !number.is_some_and(|number| self.received[number].contains_key(payload))
        })?;
        Some(format!("{client} misses {}, which was told as {told:?}", String::from_utf8_lossy(payload)))
    }

    /// What a device has acknowledged it has.
    pub(crate) fn check_told(&mut self) {
        for (client, payload, told) in
            &self.bridge.pushes.told[self.told_seen.min(self.bridge.pushes.told.len())..]
        {
            let number = self.devices.iter().position(|device| device.client == *client);
            let has_it = number.is_some_and(|number| self.received[number].contains_key(payload));
            let text = String::from_utf8_lossy(payload);
            assert!(
                *told != Told::Delivered || has_it,
                "{client} does not have {text}, which was told as delivered"
            );
        }
        self.told_seen = self.bridge.pushes.told.len();
    }
}
