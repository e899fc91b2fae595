//! Bridges that come and go, and the moment from which devices are admitted.

use std::net::SocketAddr;

use holdfast_engine::Now;
use holdfast_wire::ids::BridgeId;
use mio::Interest;

use super::{Dialer, Listener, Phase, Shard, Source, new_link};

impl Shard {
    /// `addresses` are all bridges that are not within the process. One that is new is dialled; one that is missing is kept as long as its
    /// link stands. An index is used again only once its link is down, when the engine has moved everything off it.
    pub(super) fn know_bridges(&mut self, addresses: &[SocketAddr], now: Now) {
        for link in &mut self.links {
            if let Some(address) = link.address() {
                link.want(addresses.contains(&address), now);
            }
        }
        for address in addresses {
            if !self.links.iter().any(|link| link.address() == Some(*address)) {
                self.dial_another(*address);
            }
        }
    }

    fn dial_another(&mut self, address: SocketAddr) {
        // Shards, nodes and links fall out of step with one another.
        let seed = self.owner.node.0.rotate_left(u32::from(self.owner.shard.0));
        let dialer = Dialer::to_address(address, seed ^ u64::from(address.port()));
        if let Some(vacant) = self.links.iter_mut().find(|link| link.is_vacant()) {
            vacant.lead_to(dialer);
        } else if let Some(index) = self.engine.add_link() {
            self.links.push(new_link(index, dialer, &self.hello));
        } else {
            tracing::warn!(%address, "there are more bridges than a shard can have links to (64); this one is left out");
        }
    }

    /// Lets every link do what is due. Those to bridges that may have spoken already wait until silence may be judged.
    pub(super) fn handle_links_due(&mut self, judges: bool, now: Now) {
        for place in 0..self.links.len() {
            if self.links[place].next_due_ms().is_none_or(|due_ms| due_ms > now.monotonic_ms) {
                continue;
            }
            if !judges && self.links[place].awaits_word() {
                continue;
            }
            let reached = |bridge: BridgeId| self.links.iter().any(|link| link.bridge() == Some(bridge));
            if self.links[place].is_redundant(reached) {
                self.links[place].put_off(now);
            } else {
                self.links[place].handle_due(&mut self.engine, self.poll.registry(), now);
            }
        }
    }

    /// Takes connections from now on, unless the shard is about to end.
    pub(super) fn admit(&mut self, listeners: Vec<Listener>) {
        if self.phase != Phase::Serving {
            return;
        }
        for mut listener in listeners {
            let token = Source::Listener(self.listeners.len() as u16).token();
            if let Err(error) = self.poll.registry().register(&mut listener.socket, token, Interest::READABLE)
            {
                tracing::error!(%error, "the system refused a listener a place in a poll; this shard takes no connections there");
                continue;
            }
            // Some may have come before the poll was told to report them.
            listener.ready = true;
            self.listeners.push(listener);
        }
    }
}
