//! SUBSCRIBE and UNSUBSCRIBE, and the same for JSON devices.
//!
//! ```text
//!  SUBSCRIBE ─> shard's tables ─> persistent: the store ─┐
//!                      └─> announced to every bridge ────┴─ all have answered ─> SUBACK ─> retained messages
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;

use holdfast_wire::json::{Downlink, Id};
use holdfast_wire::mqtt::{
    AckProperties, PacketId, QoS, ReasonCode, RetainHandling, SubAck, Subscribe, UnsubAck, Unsubscribe,
};
use holdfast_wire::session_record::{Cursor, StreamKey};
use holdfast_wire::store::Request;
use holdfast_wire::topic::{parse_shared, personal_level};

use super::transport::Framing;
use super::{Connection, Phase, retained, streams};
use crate::input::ConnectionId;
use crate::requests::{Asked, PendingSubscribe, UnsubscribeAnswer};
use crate::session::retained::RetainedRead;
use crate::session::subscription::{Options, Subscription};
use crate::session::{Protocol, Session};
use crate::shared::Shared;
use crate::topics::interest::Waiter;
use crate::topics::subscribers::Subscriber;

/// SUBSCRIBEs and UNSUBSCRIBEs of one connection that bridges and store are still to take up. A further one waits, and what follows it.
pub(crate) const UNANSWERED_MAX: u8 = 8;

/// So many filters of one SUBSCRIBE are looked at even where a session may hold fewer: some may be refused for other reasons, or replace another.
const FILTERS_COMPARED_MIN: usize = 64;

/// One filter of a SUBSCRIBE, whatever protocol it came by. The filter follows the grammar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) filter: &'a str,
    pub(crate) options: Options,
    pub(crate) retain_handling: RetainHandling,
    /// 0: none.
    pub(crate) identifier: u32,
    /// A code that refuses it, found out already.
    pub(crate) refused: Option<u8>,
}

/// Whether a SUBSCRIBE or UNSUBSCRIBE has to wait for answers to those before it: while bridges or store are slow, a client could make us
/// remember any number of them. It is handed in again once one is answered.
pub(crate) fn must_wait(connection: &mut Connection, shared: &mut Shared) -> bool {
    let must_wait = connection.session().is_some_and(|session| session.asking >= UNANSWERED_MAX);
    if must_wait {
        shared.stats.paused += 1;
        connection.stalled = true;
    }
    must_wait
}

/// A SUBSCRIBE packet. Returns waiters that this woke: the SUBSCRIBE itself, if it need not wait.
pub(crate) fn handle_subscribe(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet: &Subscribe<'_>,
) -> Vec<Waiter> {
    let identifier = packet.properties.subscription_identifier.unwrap_or(0);
    let wanted = packet.filters.iter().map(|(filter, options)| Wanted {
        filter,
        options: options.into(),
        retain_handling: options.retain_handling,
        identifier,
        refused: None,
    });
    subscribe(connection, id, shared, packet.packet_id.get(), wanted)
}

/// Takes up subscriptions; the answer follows once everyone knows them.
pub(crate) fn subscribe<'a>(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: u16,
    wanted: impl Iterator<Item = Wanted<'a>>,
) -> Vec<Waiter> {
    let ticket = shared.number();
    let Phase::Established(session) = &mut connection.phase else { return Vec::new() };
    let mut pending = PendingSubscribe {
        connection: id,
        packet_id,
        codes: Vec::new(),
        // One for this function, so that nothing is answered before it has ended.
        waits: 1,
        retained: Vec::new(),
    };
    let mut records = Vec::new();
    let mut is_saved = false;
    let filters_max = (shared.config.limits.subscriptions_max as usize).max(FILTERS_COMPARED_MIN);
    for (index, wanted) in wanted.enumerate() {
        let code = if index >= filters_max {
            // More than a session can hold: not even compared with those it holds, or one packet could keep the shard busy for long.
            refusal_code(session.protocol, ReasonCode::QuotaExceeded)
        } else {
            wanted.refused.unwrap_or_else(|| judge(session, shared, &wanted))
        };
        pending.codes.push(code);
        if code >= 0x80 {
            continue;
        }
        let subscription = Subscription {
            filter: wanted.filter.into(),
            identifier: wanted.identifier,
            options: wanted.options,
            personal: personal_level(wanted.filter, &session.client).is_some(),
        };
        records.push(subscription.record());
        let is_new = session.subscriptions.iter().all(|held| *held.filter != *wanted.filter);
        let waiter = Waiter::Subscribe(ticket);
        pending.waits += u32::from(hold(session, id, shared, subscription, waiter, &mut is_saved));
        let asks_retained = match wanted.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // A shared subscription is sent no retained messages (section 4.8.2).
        if asks_retained && parse_shared(wanted.filter).is_none() {
            let read = RetainedRead::new(wanted.filter.into(), wanted.options, wanted.identifier);
            pending.retained.push(read);
        }
    }
    if session.durable.is_some() && !records.is_empty() {
        pending.waits += 1;
        let request = Request::Subscribe {
            client: session.client.clone(),
            epoch: session.epoch,
            subscriptions: records,
        };
        shared.ask(Asked::Subscribe(ticket), request);
    }
    session.asking += 1;
    shared.subscribes.insert(ticket, pending);
    vec![Waiter::Subscribe(ticket)]
}

/// The reason code for one filter.
fn judge(session: &Session, shared: &Shared, wanted: &Wanted<'_>) -> u8 {
    let mqtt = &shared.config.mqtt;
    let is_shared = parse_shared(wanted.filter).is_some();
    let refusal = if is_shared && !mqtt.shared_subscription_available {
        Some(ReasonCode::SharedSubscriptionsNotSupported)
    } else if !mqtt.wildcard_subscription_available && wanted.filter.contains(['+', '#']) {
        Some(ReasonCode::WildcardSubscriptionsNotSupported)
    } else if !mqtt.subscription_identifier_available && wanted.identifier != 0 {
        Some(ReasonCode::SubscriptionIdentifiersNotSupported)
    } else if session.subscriptions.len() >= shared.config.limits.subscriptions_max as usize
        && session.subscriptions.iter().all(|held| *held.filter != *wanted.filter)
    {
        Some(ReasonCode::QuotaExceeded)
    } else {
        None
    };
    match refusal {
        Some(code) => refusal_code(session.protocol, code),
        // Granted as asked for: clients may be sent QoS 2 even where they may not publish with it.
        None => u8::from(wanted.options.qos),
    }
}

fn refusal_code(protocol: Protocol, code: ReasonCode) -> u8 {
    match protocol {
        // 3.1.1 knows one code for all refusals.
        Protocol::V311 => u8::from(ReasonCode::UnspecifiedError),
        Protocol::V5 | Protocol::Json => u8::from(code),
    }
}

/// Puts a subscription into the session and the shard's tables. True if the waiter has to wait for bridges.
pub(crate) fn hold(
    session: &mut Session,
    id: ConnectionId,
    shared: &mut Shared,
    subscription: Subscription,
    waiter: Waiter,
    is_saved: &mut bool,
) -> bool {
    let durable = session.durable.is_some() && subscription.options.qos > QoS::AtMostOnce;
    let client = session.client.clone();
    let held = session.subscriptions.iter().position(|held| held.filter == subscription.filter);
    let was_durable = held.is_some_and(|index| {
        session.durable.is_some() && session.subscriptions[index].options.qos > QoS::AtMostOnce
    });
    let subscriber = Subscriber { id, identifier: subscription.identifier, options: subscription.options };
    if !subscription.personal {
        let subscribers = if parse_shared(&subscription.filter).is_some() {
            shared.subscriptions.groups.entry(subscription.filter.clone()).or_default()
        } else {
            shared.subscriptions.tree.insert(&subscription.filter)
        };
        if durable && subscribers.stream.is_none() {
            subscribers.stream = Some(subscription.filter.clone());
        }
        subscribers.put(subscriber);
    }
    // Announced before the former hold is given up, so that the last one does not withdraw what is wanted again at once.
    let waits = shared.interests.add(&subscription.filter, &client, durable, waiter, &mut shared.uplinks);
    match held {
        Some(index) => {
            if was_durable && !durable {
                leave_stream(session, id, shared, &subscription.filter, is_saved);
            }
            let woken =
                shared.interests.remove(&subscription.filter, &client, was_durable, &mut shared.uplinks);
            debug_assert!(woken.is_empty(), "the new hold keeps the interest");
            session.subscriptions[index] = subscription;
        }
        None => session.subscriptions.push(subscription),
    }
    waits
}

/// A session reads the stream of this filter no more, and the store is about to hear of it. If it is a group's, the store gives to other members then what it
/// does not know to be settled: it is told before what was sent, once for all that are left together (`is_saved`).
fn leave_stream(
    session: &mut Session,
    id: ConnectionId,
    shared: &mut Shared,
    filter: &str,
    is_saved: &mut bool,
) {
    let Some(durable) = &mut session.durable else { return };
    if !*is_saved && durable.streams.iter().any(|stream| stream.is_group && stream.is_of(filter)) {
        *is_saved = true;
        durable.unsaved = false;
        let request = session.save_request();
        shared.ask(Asked::Save(id), request);
    }
    if let Some(durable) = &mut session.durable {
        durable.close_stream(&StreamKey::Filter(filter.into()), session.sending.as_deref_mut());
    }
}

/// Takes a subscription out of the shard's tables; the session's own list is the caller's.
#[must_use]
pub(crate) fn release(
    subscription: &Subscription,
    client: &str,
    persistent: bool,
    slot: u32,
    shared: &mut Shared,
) -> Vec<Waiter> {
    if !subscription.personal {
        if parse_shared(&subscription.filter).is_some() {
            if let Some(group) = shared.subscriptions.groups.get_mut(&subscription.filter)
                && group.remove(slot)
            {
                shared.subscriptions.groups.remove(&subscription.filter);
            }
        } else if let Some(subscribers) = shared.subscriptions.tree.get_mut(&subscription.filter)
            && subscribers.remove(slot)
        {
            shared.subscriptions.tree.remove(&subscription.filter);
        }
    }
    let durable = persistent && subscription.options.qos > QoS::AtMostOnce;
    shared.interests.remove(&subscription.filter, client, durable, &mut shared.uplinks)
}

/// Whether a session that holds these subscriptions, and has asked the store to forget those filters, reads a stream that the store has opened for it.
pub(crate) fn is_read(subscriptions: &[Subscription], forgetting: &[Box<str>], stream: &StreamKey) -> bool {
    let StreamKey::Filter(filter) = stream else { return true };
    let is_queued = |held: &Subscription| held.filter == *filter && held.options.qos > QoS::AtMostOnce;
    !forgetting.contains(filter) && subscriptions.iter().any(is_queued)
}

/// The store knows the subscriptions of a persistent session, or could not take them.
pub(crate) fn take_stored(connection: &mut Connection, result: Result<Vec<Cursor>, ()>, codes: &mut [u8]) {
    let Some(session) = connection.session_mut() else { return };
    if let Some(durable) = &mut session.durable
        && durable.left_unopened
    {
        durable.read_all_again();
    }
    match (result, &mut session.durable) {
        (Ok(cursors), Some(durable)) => {
            for cursor in cursors {
                let stands = match &cursor.stream {
                    StreamKey::Filter(filter) => {
                        !durable.forgetting.contains(filter)
                            && session
                                .subscriptions
                                .iter()
                                .any(|held| held.filter == *filter && held.options.qos > QoS::AtMostOnce)
                    }
                    StreamKey::Device(_) => true,
                };
                if stands {
                    durable.open_stream(cursor);
                }
            }
        }
        (Ok(_), None) => {}
        (Err(()), _) => {
            // The subscriptions hold while the connection lasts, but a resume would not find them: the client must not believe they stand.
            for code in codes.iter_mut().filter(|code| **code < 0x80) {
                *code = u8::from(match session.protocol {
                    Protocol::V311 => ReasonCode::UnspecifiedError,
                    Protocol::V5 | Protocol::Json => ReasonCode::ImplementationSpecificError,
                });
            }
        }
    }
}

/// Everyone knows: the answer, then what waits in streams of groups, and the retained messages.
pub(crate) fn finish(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    pending: PendingSubscribe,
) {
    let framing = connection.framing();
    let blocked = connection.blocked;
    let Some(session) = connection.session_mut() else { return };
    session.asking -= 1;
    if let Some(durable) = &mut session.durable
        && session.asking == 0
    {
        durable.left_unopened = false;
    }
    answer_subscribe(session.protocol, framing, id, shared, pending.packet_id, &pending.codes);
    if let Some(durable) = &mut session.durable {
        durable.claim_what_waits();
        streams::read_on(session, id, shared, blocked);
    }
    retained::begin(connection, id, shared, pending.retained);
}

fn answer_subscribe(
    protocol: Protocol,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: u16,
    codes: &[u8],
) {
    // The subscription that every JSON device begins with has no request to be answered.
    let Some(packet_id) = PacketId::new(packet_id) else { return };
    framing.send(&mut shared.outbox, id, |out| match protocol {
        Protocol::Json => {
            let id = Id::new(packet_id.get()).expect("a packet id is not zero");
            Downlink::Subscribed { id, codes: Cow::Borrowed(codes) }.encode(out);
        }
        Protocol::V311 | Protocol::V5 => {
            let properties = AckProperties::default();
            SubAck { packet_id, properties, reason_codes: codes }.encode(protocol.version(), out);
        }
    });
}

/// An UNSUBSCRIBE packet.
pub(crate) fn handle_unsubscribe(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet: &Unsubscribe<'_>,
) -> Vec<Waiter> {
    unsubscribe(connection, id, shared, packet.packet_id.get(), packet.filters.iter())
}

/// Gives subscriptions up. Returns waiters that this released.
pub(crate) fn unsubscribe<'a>(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    packet_id: u16,
    filters: impl Iterator<Item = &'a str>,
) -> Vec<Waiter> {
    let framing = connection.framing();
    let Phase::Established(session) = &mut connection.phase else { return Vec::new() };
    let mut woken = Vec::new();
    let mut codes = Vec::new();
    let mut removed: Vec<Box<str>> = Vec::new();
    let mut is_saved = false;
    // A packet may name hundreds of thousands of filters; compared one by one are only those that are held.
    let mut held: BTreeSet<Box<str>> = session.subscriptions.iter().map(|held| held.filter.clone()).collect();
    for filter in filters {
        let place = || session.subscriptions.iter().position(|held| *held.filter == *filter);
        let Some(index) = held.take(filter).and_then(|_| place()) else {
            codes.push(u8::from(ReasonCode::NoSubscriptionExisted));
            continue;
        };
        let subscription = session.subscriptions.swap_remove(index);
        woken.extend(release(&subscription, &session.client, session.durable.is_some(), id.slot, shared));
        leave_stream(session, id, shared, &subscription.filter, &mut is_saved);
        if let Some(reads) = &mut session.retained {
            reads.forget(&subscription.filter);
        }
        removed.push(subscription.filter);
        codes.push(u8::from(ReasonCode::Success));
    }
    session.subscriptions.shrink_to_fit();
    let answer = UnsubscribeAnswer { packet_id, codes };
    if session.durable.is_some() && !removed.is_empty() {
        session.asking += 1;
        if let Some(durable) = &mut session.durable {
            durable.forgetting.extend(removed.iter().cloned());
        }
        let request = Request::Unsubscribe {
            client: session.client.clone(),
            epoch: session.epoch,
            filters: removed.clone(),
        };
        shared.ask(Asked::Unsubscribe(id, removed, answer), request);
    } else {
        answer_unsubscribe(session.protocol, framing, id, shared, &answer);
    }
    woken
}

/// UNSUBACK.
pub(crate) fn answer_unsubscribe(
    protocol: Protocol,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
    answer: &UnsubscribeAnswer,
) {
    framing.send(&mut shared.outbox, id, |out| match (protocol, PacketId::new(answer.packet_id)) {
        (Protocol::Json, _) => {
            if let Some(id) = Id::new(answer.packet_id) {
                Downlink::Unsubscribed { id }.encode(out);
            }
        }
        (_, Some(packet_id)) => {
            let properties = AckProperties::default();
            UnsubAck { packet_id, properties, reason_codes: &answer.codes }.encode(protocol.version(), out);
        }
        (_, None) => {}
    });
}
