//! Word to the bridges that connections began and ended, for whoever keeps a book of them. Only if [`EngineConfig::events`] is set.
//!
//! Events are the first to go: they are dropped and counted while there is no bridge, or while more than an eighth of [`Limits::link_bytes_max`] waits for the
//! one that serves the client. Those on a link that is lost are gone with it.
//!
//! [`EngineConfig::events`]: crate::limits::EngineConfig::events
//! [`Limits::link_bytes_max`]: crate::limits::Limits::link_bytes_max

use holdfast_wire::link::{Event, EventKind, ToBridge};

use crate::connection::close::CloseReason;
use crate::input::Now;
use crate::session::Session;
use crate::shared::Shared;

impl Shared {
    /// The client was told that its session stands.
    pub(crate) fn tell_connected(&mut self, session: &Session, session_present: bool, now: Now) {
        let (protocol, session_expiry_s) = (session.protocol.name(), session.expiry_s);
        self.tell(session, EventKind::Connected { protocol, session_present, session_expiry_s }, now);
    }

    /// Its connection ended.
    pub(crate) fn tell_ended(&mut self, session: &Session, reason: CloseReason, now: Now) {
        let kind = match reason {
            CloseReason::SessionTakenOver | CloseReason::Fenced => EventKind::TakenOver,
            _ => EventKind::Disconnected { reason: reason.label(), session_ended: session.expiry_s == 0 },
        };
        self.tell(session, kind, now);
    }

    fn tell(&mut self, session: &Session, kind: EventKind<'_>, now: Now) {
        if !self.config.events {
            return;
        }
        let waiting_bytes_max = self.config.limits.link_bytes_max / 8;
        let chosen = self.uplinks.choose(&session.client);
        let Some(link) = chosen.filter(|link| self.uplinks.said_bytes(*link) < waiting_bytes_max) else {
            self.stats.events_dropped += 1;
            return;
        };
        let event = Event { client: &session.client, epoch: session.epoch, at_ms: now.unix_ms, kind };
        self.uplinks.say(link, &ToBridge::Event(event));
    }
}
