//! Frames that outlive their connection: what ended connections had on their way to bridges, and wills, until they are settled; and what waits for that.
//!
//! All frames of a client that are on their way lie on one link, or they could overtake one another when bridges come and go (promise P3). So a will goes the way
//! of what its client said before, and so does what the client says next here. Before it speaks elsewhere they are settled: until then its session stays open in the store, so
//! that a new owner has to ask for it, and is not told ([`takeover::handed_over`](crate::takeover::handed_over)). Whichever bridge serves the client there, neither
//! a frame of ours nor a will ("offline") comes behind the first word of its next connection ("online").
//!
//! ```text
//!   frames of ended connections ── all are settled, or long enough on their way ──> the session is closed; its next owner is told
//! ```

use std::collections::{BTreeMap, VecDeque};

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::store::Progress;

use crate::input::{ConnectionId, LinkIndex, Now};
use crate::requests::Closing;
use crate::session::Session;
use crate::shared::Shared;

/// How long a session stays open for its client's frames, in ms: a sink that takes nothing keeps none open for longer.
const SETTLED_MS_MAX: u64 = 2_000;
/// Sessions that stay open for that. Beyond it one is closed at once.
const CLOSING_MAX: usize = 10_000;

/// What is on its way: never more entries than frames in windows, and of those that wait for a link.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    /// Whose frames they are, and how many.
    by_connection: BTreeMap<ConnectionId, (ClientId, u32)>,
    by_client: BTreeMap<ClientId, OnTheirWay>,
    /// Sessions that are closed once nothing of their client is on its way, and how far they came. At most [`CLOSING_MAX`].
    closing: BTreeMap<(ClientId, Epoch), (Closing, Progress)>,
    /// Until when, in that order; some are closed. One for each session that ended within that time.
    closing_until_ms: VecDeque<(u64, (ClientId, Epoch))>,
}

/// Of one client.
#[derive(Debug)]
struct OnTheirWay {
    frames: u32,
    /// None: they wait for a link.
    link: Option<LinkIndex>,
}

impl LastWords {
    /// When there is something to do, in ms of the monotonic clock.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.closing_until_ms.front().map(|(until_ms, _)| *until_ms)
    }

    /// Whether nothing waits for them.
    pub(crate) fn are_heard(&self) -> bool {
        self.closing.is_empty()
    }

    /// Frames of a connection that are on their way over this link.
    pub(crate) fn note(
        &mut self,
        connection: ConnectionId,
        client: &ClientId,
        link: Option<LinkIndex>,
        frames: u32,
    ) {
        if frames == 0 {
            return;
        }
        self.by_connection.entry(connection).or_insert_with(|| (client.clone(), 0)).1 += frames;
        let of_client = self.by_client.entry(client.clone()).or_insert(OnTheirWay { frames: 0, link });
        of_client.frames += frames;
        of_client.link = link;
    }

    /// One of them is settled, or lost for good. Gives its client if that was the last one.
    pub(crate) fn settle(&mut self, connection: ConnectionId) -> Option<ClientId> {
        let (client, frames) = self.by_connection.get_mut(&connection)?;
        *frames -= 1;
        let of_client = self.by_client.get_mut(client)?;
        of_client.frames -= 1;
        let is_last = of_client.frames == 0;
        if is_last {
            self.by_client.remove(client);
        }
        if *frames > 0 {
            return None;
        }
        let (client, _) = self.by_connection.remove(&connection)?;
        is_last.then_some(client)
    }

    /// One of them goes over another link, with all others of its client, or waits for one.
    pub(crate) fn follow(&mut self, connection: ConnectionId, to: Option<LinkIndex>) {
        if let Some((client, _)) = self.by_connection.get(&connection)
            && let Some(of_client) = self.by_client.get_mut(client)
        {
            of_client.link = to;
        }
    }

    /// Whether anything of this client is on its way.
    pub(crate) fn has_any_of(&self, client: &str) -> bool {
        self.by_client.contains_key(client)
    }

    fn link_of(&self, client: &str) -> Option<LinkIndex> {
        self.by_client.get(client).and_then(|of_client| of_client.link)
    }
}

impl Shared {
    /// Closes a session in the store once nothing of its client is on its way.
    pub(crate) fn close_in_silence(&mut self, closing: Closing, progress: Progress, now: Now) {
        let words = &mut self.last_words;
        if !words.has_any_of(&closing.client) || words.closing.len() >= CLOSING_MAX {
            return self.ask_to_close(closing, progress);
        }
        let session = (closing.client.clone(), closing.epoch);
        words.closing_until_ms.push_back((now.monotonic_ms + SETTLED_MS_MAX, session.clone()));
        words.closing.insert(session, (closing, progress));
    }

    /// Nothing of this client is on its way any more.
    pub(crate) fn handle_silence(&mut self, client: &ClientId) {
        self.close_left(client);
        self.say_held_back(client);
    }

    /// Closes what was to be closed later.
    pub(crate) fn close_left(&mut self, client: &ClientId) {
        let all = (client.clone(), Epoch(0))..=(client.clone(), Epoch(u64::MAX));
        let left: Vec<_> = self.last_words.closing.extract_if(all, |_, _| true).collect();
        for (_, (closing, progress)) in left {
            self.ask_to_close(closing, progress);
        }
    }

    /// Closes what has stayed open for long enough.
    pub(crate) fn close_overdue(&mut self, now: Now) {
        let is_due = |due: &mut (u64, _)| due.0 <= now.monotonic_ms;
        while let Some((_, session)) = self.last_words.closing_until_ms.pop_front_if(is_due) {
            if let Some((closing, progress)) = self.last_words.closing.remove(&session) {
                self.ask_to_close(closing, progress);
            }
        }
    }

    /// The link for what a client, or somebody on its behalf, says next: that of what is on its way of ended connections, if there is anything.
    pub(crate) fn link_for(&self, client: &str) -> Option<LinkIndex> {
        self.last_words.link_of(client).or_else(|| self.uplinks.choose(client))
    }

    /// Finds the link anew that serves a session, if links came or went since it was found and nothing of its client is on its way.
    pub(crate) fn find_link(&self, session: &mut Session) {
        if session.unsettled > 0 || session.links_version == self.uplinks.version {
            return;
        }
        session.link = self.link_for(&session.client);
        // Until then it looks again each time.
        if !self.last_words.has_any_of(&session.client) {
            session.links_version = self.uplinks.version;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 1 }
    }

    #[test]
    fn a_client_is_silent_once_all_of_its_connections_are() {
        let (mut words, client) = (LastWords::default(), ClientId::new("c"));
        let link = Some(LinkIndex(2));
        words.note(connection(0), &client, link, 2);
        words.note(connection(1), &client, link, 1);
        words.note(connection(1), &client, link, 0);
        assert_eq!(words.settle(connection(0)), None);
        assert_eq!(words.settle(connection(0)), None);
        assert_eq!(words.settle(connection(0)), None, "it has no more");
        assert!(words.has_any_of("c"));
        assert_eq!(words.settle(connection(1)), Some(client));
        assert!(!words.has_any_of("c") && words.by_connection.is_empty());
    }

    #[test]
    fn the_last_settled_connection_need_not_be_the_last_one() {
        let (mut words, client) = (LastWords::default(), ClientId::new("c"));
        words.note(connection(0), &client, None, 1);
        words.note(connection(1), &client, None, 1);
        assert_eq!(words.settle(connection(1)), None);
        assert_eq!(words.settle(connection(0)), Some(client));
    }

    #[test]
    fn all_of_a_client_are_on_one_link() {
        let (mut words, client) = (LastWords::default(), ClientId::new("c"));
        words.note(connection(0), &client, Some(LinkIndex(2)), 1);
        words.note(connection(1), &ClientId::new("d"), Some(LinkIndex(2)), 1);
        words.follow(connection(0), None);
        assert_eq!((words.link_of("c"), words.link_of("d")), (None, Some(LinkIndex(2))));
        words.follow(connection(0), Some(LinkIndex(0)));
        words.follow(connection(7), Some(LinkIndex(1)));
        assert_eq!((words.link_of("c"), words.link_of("e")), (Some(LinkIndex(0)), None));
    }
}
