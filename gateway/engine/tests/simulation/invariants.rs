//! The promises: what holds after each step, and what everyone has once the world has come to rest.

use std::collections::BTreeSet;

use holdfast_wire::mqtt::QoS;

use crate::device::{Noticed, sequence};
use crate::herald::Herald;
use crate::world::World;

impl World {
    pub(crate) fn judge(&mut self, number: usize, noticed: Noticed) {
        self.tell(|| format!("device-{number} {noticed}"));
        match noticed {
            Noticed::Subscribed if self.devices[number].persistent && self.devices[number].is_known() => {
                self.standing.insert(number);
            }
            Noticed::Subscribed => {}
            Noticed::Acknowledged(payload) => {
                // P1 and P2.
                let is_stored = self.bridge.sink.iter().any(|stored| stored.payload == payload);
                assert!(is_stored, "{} was acknowledged and is not in the sink", text(&payload));
                let is_settled = self.bridge.settled.contains(&payload);
                assert!(is_settled, "{} was acknowledged before the bridge settled it", text(&payload));
                if let Some(published) = self.published.get_mut(&payload) {
                    published.acknowledged = true;
                }
            }
            Noticed::Received { payload, qos } => {
                if payload.starts_with(b"hostile") {
                    return;
                }
                if qos == QoS::ExactlyOnce {
                    self.check_given_once(number, &payload);
                }
                let times = self.received[number].entry(payload.clone()).or_default();
                *times += 1;
                let times = *times;
                let is_exact = qos == QoS::ExactlyOnce && self.devices[number].persistent;
                // What a member did not take in time is claimed by another.
                let is_excused = self.is_excused() || self.was_held_too_long(&payload);
                assert!(
                    !is_exact || times == 1 || is_excused,
                    "device {number} was sent the QoS 2 message {} {times} times",
                    text(&payload)
                );
            }
        }
    }

    /// What holds at any moment.
    pub(crate) fn check(&mut self) {
        self.excuse_those_who_left();
        self.check_nobody_is_forgotten();
        self.check_wills();
        self.check_told();
        for device in &self.devices {
            let mut epochs = BTreeSet::new();
            for shard in &self.shards {
                if let Some(view) = shard.engine.device(&device.client) {
                    // P5: at most one of those that believe they own a session is right, and the store can tell which.
                    assert!(
                        epochs.insert(view.epoch),
                        "{} has two owners in epoch {}",
                        device.client,
                        view.epoch
                    );
                    assert!(view.inflight <= 4, "{} has {} inflight", device.client, view.inflight);
                    assert!(view.pending <= 6 + 3, "{} has {} pending", device.client, view.pending);
                }
            }
        }
    }

    /// A will is published once, not before its delay has passed, and not if its client came back by then.
    fn check_wills(&mut self) {
        // Links and bridges that are lost take the answer with them that a will was stored, and it is sent again; it has no packet id to know it by.
        let is_exact = !self.faults.bridge_dies && !self.faults.links_flap && !self.has_forgotten;
        let is_timely = is_exact && !self.faults.store_fails;
        let now_ms = self.now_ms();
        for at in self.sink_seen..self.bridge.sink.len() {
            let stored = self.bridge.sink[at].clone();
            self.hear_of_herald(&stored.client, &stored.payload, is_timely);
            let Some(word) = self.last_words.get_mut(&stored.client) else { continue };
            let client = &stored.client;
            word.published += 1;
            assert!(!is_exact || word.published == 1 || word.may_be_doubled, "{client} has two wills");
            assert!(
                !is_timely || !word.is_cancelled || word.may_be_doubled,
                "{client} came back and has a will all the same"
            );
            if let Some(died_ms) = word.died_ms {
                let is_late = now_ms >= died_ms + word.delay_ms;
                assert!(!is_timely || is_late || word.may_be_doubled, "the will of {client} is early");
            }
        }
        self.sink_seen = self.bridge.sink.len();
    }

    /// A will that was owed to the world and has not been published.
    pub(crate) fn unspoken(&self) -> Option<String> {
        let is_exact = !self.faults.bridge_dies && !self.faults.links_flap && !self.has_forgotten;
        let herald = self.heralds.iter().find_map(Herald::unspoken);
        if let Some(unspoken) = herald.filter(|_| is_exact && !self.faults.store_fails) {
            return Some(unspoken);
        }
        let mut words = self.last_words.iter();
        let (client, word) = words.find(|(_, word)| {
            let is_owed = word.died_ms.is_some() && !word.may_be_lost && !word.is_cancelled;
            is_exact && is_owed && word.published == 0
        })?;
        Some(format!("the will of {client} was not published: {word:?}"))
    }

    /// Once everything is settled there is no reason to leave bytes unread, so whoever had to wait must have been woken. Asking is what made it wait,
    /// so asking again changes nothing.
    fn check_nobody_is_forgotten(&mut self) {
        if !self.bridge.up || !self.bridge.is_idle() {
            return;
        }
        for device in &self.devices {
            let Some(socket) = device.socket.as_ref().filter(|socket| socket.is_ready()) else { continue };
            let shard = &mut self.shards[socket.shard];
            let is_settled = !shard.is_still() && shard.has_heard_all() && !shard.has_questions();
            assert!(!is_settled || !shard.engine.may_read(socket.id), "{} waits to be read", device.client);
        }
    }

    pub(crate) fn check_at_rest(&self) {
        // P3, and P4 as long as the bridge has lived.
        for device in &self.devices {
            let mut seen = BTreeSet::new();
            let mut last = 0;
            for stored in self.bridge.sink.iter().filter(|stored| stored.client == device.client) {
                let is_tracked = self.published.contains_key(&stored.payload);
                let is_first = seen.insert(stored.payload.clone());
                assert!(is_first || self.has_died, "{} is in the sink twice", text(&stored.payload));
                if is_first && is_tracked {
                    let sequence = sequence(&stored.payload);
                    assert!(sequence > last, "{} overtook {last}", text(&stored.payload));
                    last = sequence;
                }
            }
        }
        // Whoever is connected stands in the book, and whoever stands there is connected: unless a link took an entry with it, or
        // it was told by two.
        if !self.has_died && !self.has_flapped && !self.faults.newcomers {
            let standing = self.bridge.book.iter().filter(|(_, ended)| !**ended);
            let standing = standing.map(|((_, client, epoch), _)| (client.clone(), *epoch));
            let views = self.devices.iter().flat_map(|device| {
                let views = self.shards.iter().filter_map(|shard| shard.engine.device(&device.client));
                views.map(|view| (device.client.clone(), view.epoch))
            });
            assert_eq!(standing.collect::<BTreeSet<_>>(), views.collect());
        }
        // P6: what was not lost with its link has been reported, once (the bridge checks that it is not twice).
        assert!(
            self.bridge.awaited.is_empty(),
            "{} deliveries were never reported",
            self.bridge.awaited.len()
        );
        assert_eq!(self.missing(), None);
        assert_eq!(self.missing_push(), None);
        assert_eq!(self.missing_in_group(), None);
    }

    /// A message that a persistent subscriber was owed and did not get.
    pub(crate) fn missing(&self) -> Option<String> {
        self.published.iter().filter(|(_, published)| published.acknowledged).find_map(
            |(payload, published)| {
                let subscriber = published
                    .owed_to
                    .iter()
                    .find(|subscriber| !self.received[**subscriber].contains_key(payload))?;
                Some(format!("device {subscriber} misses {} of {}", text(payload), published.topic))
            },
        )
    }

    pub(crate) fn describe(&self) -> String {
        let devices: Vec<_> = self
            .devices
            .iter()
            .filter(|device| !device.is_done())
            .map(|device| {
                format!(
                    "{} sent {} of {} connected {}",
                    device.client,
                    device.sent,
                    device.frames,
                    device.is_connected()
                )
            })
            .collect();
        let views: Vec<_> = self
            .devices
            .iter()
            .flat_map(|device| self.shards.iter().filter_map(|shard| shard.engine.device(&device.client)))
            .filter(|view| view.inflight + view.pending + view.owed > 0)
            .collect();
        let bridge = self.bridge.is_idle();
        let still: Vec<_> =
            self.shards.iter().map(|shard| (shard.is_still(), shard.engine.connections())).collect();
        let unspoken = self.unspoken();
        format!(
            "devices {devices:?}, views {views:?}, bridge idle {bridge}, shards {still:?}, {unspoken:?}, {:?}, {:?}, {:?}, {} without a report",
            self.missing(),
            self.missing_push(),
            self.missing_in_group(),
            self.bridge.awaited.len()
        )
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
