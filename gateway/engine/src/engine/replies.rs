//! What the store answers.

use holdfast_wire::link::Outcome;
use holdfast_wire::mqtt::ReasonCode;
use holdfast_wire::store::{Reply, StoreError};

use super::Engine;
use crate::connection::{Connection, deliver, streams, subscribe};
use crate::input::{ConnectionId, Now};
use crate::output::RequestId;
use crate::requests::{Asked, Closing};
use crate::topics::interest::Waiter;

impl Engine {
    /// The store answered, or failed to.
    pub fn handle_store_reply(&mut self, request: RequestId, result: Result<Reply, StoreError>, now: Now) {
        let Some(asked) = self.shared.asked.remove(&request) else { return };
        if matches!(&result, Err(error) if !is_loss(error)) {
            self.shared.stats.store_errors += 1;
        }
        if let Err(StoreError::Unavailable(_)) = &result {
            self.shared.ownership.note_failure(now);
        }
        match asked {
            Asked::Open(open) => self.handle_open_answer(request, open, result, now),
            Asked::Stray(client, expiry_s) => self.handle_stray(client, expiry_s, result, now),
            Asked::Subscribe(ticket) => self.handle_subscribed(ticket, request, result, now),
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
                if result.as_ref().is_err_and(|error| !is_loss(error)) {
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
                self.doubt_if_lost(id, request, &result, now);
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
                        streams::take_read(connection, id, &mut self.shared, stream, messages, end, now);
                    }
                    result => {
                        let blocked = connection.blocked;
                        if let Some(session) = connection.session_mut() {
                            let durable = session.durable.as_mut();
                            if durable.is_some_and(|durable| durable.ask_later(stream)) {
                                streams::read_on(session, id, &mut self.shared, blocked);
                            }
                            deliver::touch(session, id, &mut self.shared, now);
                        }
                        // A claim is a write.
                        self.doubt_if_lost(id, request, &result, now);
                    }
                }
            }
            Asked::Save(id) => {
                if result.is_ok() {
                    let session = self.connections.find(id).and_then(Connection::session);
                    if let Some((client, epoch)) =
                        session.map(|session| (session.client.clone(), session.epoch))
                    {
                        self.shared.confirm_saved(&client, epoch);
                    }
                } else if let Some(session) = self.connections.find_mut(id).and_then(Connection::session_mut)
                {
                    deliver::touch(session, id, &mut self.shared, now);
                }
                self.doubt_if_lost(id, request, &result, now);
            }
            Asked::Restore(id) => self.handle_restored(id, request, result, now),
            Asked::Probe(id) => self.handle_probed(id, &result, now),
            Asked::Close(closing) => match result {
                // It stays known here until its new owner has asked for it.
                Err(StoreError::Fenced) => self.forget_soon(closing.client, closing.epoch, now),
                Err(StoreError::Gone) => {
                    self.shared.report_settled(&closing.client, closing.epoch, Outcome::InDoubt);
                    if closing.will.is_some() && !closing.is_brought_back {
                        self.bring_back_for_its_will(closing);
                    } else {
                        self.forget_soon(closing.client, closing.epoch, now);
                    }
                }
                Err(StoreError::Unavailable(_) | StoreError::Full(_)) => self.close_again_later(closing, now),
                Ok(_) | Err(StoreError::Unreadable(_)) => {
                    let Closing { client, epoch, expiry_s, .. } = &closing;
                    if result.is_ok() && *expiry_s > 0 {
                        self.shared.report_settled(client, *epoch, Outcome::Kept);
                        self.shared.confirm_saved(client, *epoch);
                    } else {
                        self.shared.report_settled(client, *epoch, Outcome::InDoubt);
                    }
                    self.shared.closing.remove(&(closing.client, closing.epoch));
                }
            },
            Asked::WillPublished(client, number) => {
                self.shared.handle_struck_out(client, number, result.is_ok(), now);
            }
        }
    }

    fn handle_subscribed(
        &mut self,
        ticket: u64,
        request: RequestId,
        result: Result<Reply, StoreError>,
        now: Now,
    ) {
        let Some(pending) = self.shared.subscribes.get_mut(&ticket) else { return };
        let id = pending.connection;
        if let Err(error) = &result
            && is_loss(error)
            && self.connections.find(id).is_some_and(|connection| connection.session().is_some())
        {
            return self.doubt(id, request, error, Some(ticket), now);
        }
        if let Some(connection) = self.connections.find_mut(id) {
            let cursors = match result {
                Ok(Reply::Subscribed(cursors)) => Ok(cursors),
                Ok(_) | Err(_) => Err(()),
            };
            subscribe::take_stored(connection, cursors, &mut pending.codes);
            deliver::pump(connection, id, &mut self.shared, now);
        }
        self.wake(vec![Waiter::Subscribe(ticket)], now);
    }

    fn doubt_if_lost(
        &mut self,
        id: ConnectionId,
        request: RequestId,
        result: &Result<Reply, StoreError>,
        now: Now,
    ) {
        if let Err(error) = result
            && is_loss(error)
        {
            self.doubt(id, request, error, None, now);
        }
    }
}

/// Whether the store says that a session is not ours.
fn is_loss(error: &StoreError) -> bool {
    matches!(error, StoreError::Fenced | StoreError::Gone)
}
