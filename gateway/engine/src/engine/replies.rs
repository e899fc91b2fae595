//! What the store answers.

use holdfast_wire::mqtt::ReasonCode;
use holdfast_wire::store::{Reply, StoreError};

use super::Engine;
use crate::connection::close::CloseReason;
use crate::connection::{Connection, Phase, deliver, subscribe};
use crate::input::Now;
use crate::output::RequestId;
use crate::requests::Asked;
use crate::session::durable;
use crate::topics::interest::Waiter;
use crate::will;

impl Engine {
    /// The store answered, or failed to.
    pub fn handle_store_reply(&mut self, request: RequestId, result: Result<Reply, StoreError>, now: Now) {
        let Some(asked) = self.shared.asked.remove(&request) else { return };
        if matches!(&result, Err(error) if !matches!(error, StoreError::Fenced | StoreError::Gone)) {
            self.shared.stats.store_errors += 1;
        }
        match asked {
            Asked::Open(id, client, expiry_s) => match result {
                Ok(Reply::Opened(opened))
                    if self.connections.find(id).is_some_and(|c| matches!(c.phase, Phase::Opening(_))) =>
                {
                    self.handle_opened(id, opened, now);
                }
                Ok(Reply::Opened(opened)) => {
                    self.handle_opened_unclaimed(id, client, expiry_s, opened, now);
                }
                Ok(_) | Err(_) => {
                    self.end(id, CloseReason::StoreUnavailable, now);
                    self.forget_unclaimed(&client, id);
                }
            },
            Asked::Subscribe(ticket) => self.handle_subscribed(ticket, &result, now),
            Asked::Unsubscribe(id, filters, mut answer) => {
                if let Some(durable) = self
                    .connections
                    .find_mut(id)
                    .and_then(Connection::session_mut)
                    .and_then(|session| session.durable.as_mut())
                {
                    for filter in filters {
                        if let Some(place) =
                            durable.forgetting.iter().position(|forgotten| *forgotten == filter)
                        {
                            durable.forgetting.swap_remove(place);
                        }
                    }
                }
                if result.is_err() {
                    answer.codes.fill(u8::from(ReasonCode::ImplementationSpecificError));
                }
                if let Some(connection) = self.connections.find_mut(id)
                    && let Some(session) = connection.session_mut()
                {
                    session.asking -= 1;
                    let protocol = session.protocol;
                    subscribe::answer_unsubscribe(
                        protocol,
                        connection.framing(),
                        id,
                        &mut self.shared,
                        &answer,
                    );
                }
                self.end_if_fenced(id, &result, now);
                self.handle_answered(id, now);
            }
            Asked::Read(id, stream, read) => {
                self.shared.reads -= 1;
                let Some(connection) = self.connections.find_mut(id) else { return };
                let durable = connection.session_mut().and_then(|session| session.durable.as_ref());
                if durable.is_none_or(|durable| durable.reads != read) {
                    return;
                }
                match result {
                    Ok(Reply::Messages { messages, end }) => {
                        deliver::take_read(connection, id, &mut self.shared, stream, messages, end, now);
                    }
                    Ok(_) | Err(_) => {
                        // Tried again with the next save; the stream keeps what is in it.
                        if let Some(session) = connection.session_mut() {
                            if let Some(durable) = &mut session.durable {
                                durable.phase = durable::Phase::Reading { stream, asked: false };
                            }
                            deliver::touch(session, id, &mut self.shared, now);
                        }
                    }
                }
            }
            Asked::Save(id) => {
                if result.is_err()
                    && let Some(session) = self.connections.find_mut(id).and_then(Connection::session_mut)
                {
                    deliver::touch(session, id, &mut self.shared, now);
                }
                self.end_if_fenced(id, &result, now);
            }
            Asked::Close(closing) => match result {
                // It stays known here until its new owner has asked for it.
                Err(StoreError::Fenced | StoreError::Gone) => {}
                Err(StoreError::Unavailable(_) | StoreError::Full(_)) => self.close_again_later(closing, now),
                Ok(_) | Err(StoreError::Unreadable(_)) => {
                    self.shared.closing.remove(&(closing.client, closing.epoch));
                }
            },
            Asked::WillLookup(delayed) => {
                let reopened =
                    matches!(&result, Ok(Reply::Session(Some(info))) if info.epoch > delayed.epoch);
                if !reopened {
                    will::publish(&mut self.shared, &delayed.will, delayed.epoch, now);
                }
            }
        }
    }

    fn handle_subscribed(&mut self, ticket: u64, result: &Result<Reply, StoreError>, now: Now) {
        let Some(pending) = self.shared.subscribes.get_mut(&ticket) else { return };
        let id = pending.connection;
        if let Some(connection) = self.connections.find_mut(id) {
            let cursors = match result {
                Ok(Reply::Subscribed(cursors)) => Ok(cursors.clone()),
                Ok(_) | Err(_) => Err(()),
            };
            subscribe::take_stored(connection, cursors, &mut pending.codes);
            deliver::pump(connection, id, &mut self.shared, now);
        }
        self.end_if_fenced(id, result, now);
        self.wake(vec![Waiter::Subscribe(ticket)], now);
    }
}
