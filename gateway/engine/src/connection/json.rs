//! Devices that speak JSON over WebSocket: the same session and promises as MQTT QoS 1, in other words.

use std::borrow::Cow;

use holdfast_wire::ids::ClientId;
use holdfast_wire::json::{
    Data, Downlink, Error, ErrorCode, Frame, GoodbyeReason, Qos, SocketOptions, Uplink, Welcome, socket_path,
};
use holdfast_wire::mqtt::{PacketId, PublishProperties, QoS, ReasonCode, RetainHandling, UserProperties};
use holdfast_wire::topic::{validate_filter, validate_name};
use holdfast_wire::ws::Refusal;

use super::close::CloseReason;
use super::connect::OpenRequest;
use super::publish::{EVENT_TIME, Publication, Taken};
use super::subscribe::{self, Wanted};
use super::transport::Framing;
use super::{Connection, deliver, publish};
use crate::engine::Engine;
use crate::input::{ConnectionId, Now};
use crate::limits::EngineConfig;
use crate::session::subscription::Options;
use crate::session::{Protocol, Session};
use crate::shared::Shared;
use crate::topics::interest::Waiter;

/// Content type of what comes as `data`, unless the device says otherwise.
const JSON_CONTENT_TYPE: &str = "application/json";

/// The device in a socket's path, if it is one.
pub(crate) fn client_of_path(path: &str, bytes_max: u16) -> Result<Option<Cow<'_, str>>, Refusal> {
    match socket_path(path) {
        Some(client) if client.len() > usize::from(bytes_max) => {
            Err(Refusal::BadRequest("the client id is too long"))
        }
        client => Ok(client),
    }
}

/// What the query of a socket asks for.
pub(crate) fn open_request(
    client: &str,
    query: Option<&str>,
    config: &EngineConfig,
) -> Result<OpenRequest, Refusal> {
    let options = match query.map(SocketOptions::decode).transpose() {
        Ok(options) => options.unwrap_or_default(),
        Err(_) => return Err(Refusal::BadRequest("a value in the query is not valid")),
    };
    let mut session = Box::new(Session::new(ClientId::new(client), Protocol::Json));
    session.expiry_s = options
        .session_expiry_s
        .unwrap_or(config.json.session_expiry_s)
        .min(config.mqtt.session_expiry_s_max);
    session.keep_alive_s = options.keep_alive_s.unwrap_or(config.json.keep_alive_s);
    if options.receipt {
        session.receiving.ask_receipts();
    }
    session.send_maximum = options.receive_maximum.unwrap_or(u16::MAX).min(config.limits.inflight_max);
    Ok(OpenRequest {
        session,
        clean_start: options.clean_start,
        assigned_id: false,
        changed_expiry: false,
        changed_keep_alive: false,
    })
}

pub(crate) fn send_welcome(
    session: &Session,
    session_present: bool,
    framing: Framing,
    id: ConnectionId,
    shared: &mut Shared,
) {
    let welcome = Downlink::Welcome(Welcome {
        client_id: Cow::Borrowed(&session.client),
        session_present,
        session_expiry_s: session.expiry_s,
        keep_alive_s: session.keep_alive_s,
        receive_maximum: shared.config.mqtt.receive_maximum,
        message_bytes_max: shared.config.mqtt.maximum_packet_size,
    });
    framing.send(&mut shared.outbox, id, |out| welcome.encode(out));
}

/// Subscribes a JSON device to its pushes, if that is configured and it is not already.
pub(crate) fn subscribe_to_pushes(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
) -> Vec<Waiter> {
    let Some(session) = connection.session().filter(|session| session.protocol == Protocol::Json) else {
        return Vec::new();
    };
    let filter = shared.config.json.push_topic.replace("{client_id}", &session.client);
    let is_held = session.subscriptions.iter().any(|held| *held.filter == *filter);
    if is_held || validate_filter(&filter).is_err() {
        return Vec::new();
    }
    let wanted = Wanted {
        filter: &filter,
        options: Options { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false },
        retain_handling: RetainHandling::SendAtSubscribe,
        identifier: 0,
        refused: None,
    };
    // No request asked for it, so there is no id to answer.
    subscribe::subscribe(connection, id, shared, 0, std::iter::once(wanted))
}

/// What a JSON device hears before it is closed.
pub(crate) fn goodbye(reason: CloseReason, retry_after_ms: Option<u32>) -> Downlink<'static> {
    let reason = match reason {
        CloseReason::ServerShuttingDown => GoodbyeReason::Drain,
        CloseReason::SessionTakenOver | CloseReason::Fenced => GoodbyeReason::Takeover,
        CloseReason::KeepAliveTimeout => GoodbyeReason::KeepAliveTimeout,
        CloseReason::SlowConsumer => GoodbyeReason::SlowConsumer,
        CloseReason::WebSocketMessageTooLarge | CloseReason::PacketTooLarge => GoodbyeReason::TooLarge,
        CloseReason::ReceiveMaximumExceeded => GoodbyeReason::ReceiveMaximumExceeded,
        CloseReason::AdministrativeAction => GoodbyeReason::Administrative,
        CloseReason::StoreUnavailable | CloseReason::ConnectTimeout => GoodbyeReason::ServerBusy,
        _ => GoodbyeReason::ProtocolError,
    };
    Downlink::Goodbye { reason, retry_after_ms }
}

impl Engine {
    /// A piece of a text message.
    pub(crate) fn read_text(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        end_of_message: bool,
        now: Now,
    ) -> Result<(), CloseReason> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        let whole = match connection.partial.take() {
            None if end_of_message => return self.take_text(id, bytes, now),
            None => Box::new(bytes.to_vec()),
            Some(mut begun) => {
                begun.extend_from_slice(bytes);
                begun
            }
        };
        if end_of_message {
            return self.take_text(id, &whole, now);
        }
        connection.partial = Some(whole);
        Ok(())
    }

    fn take_text(&mut self, id: ConnectionId, text: &[u8], now: Now) -> Result<(), CloseReason> {
        // The stream has checked it; a message that reads otherwise is not one to go on with.
        let text = std::str::from_utf8(text).map_err(|_| CloseReason::WebSocketInvalidText)?;
        let Some(connection) = self.connections.find_mut(id) else { return Ok(()) };
        let taken = if connection.takes_packets() {
            connection.hear(now.monotonic_ms);
            self.handle_message(id, text, now)?
        } else {
            Taken::Stalled
        };
        if taken == Taken::Stalled
            && let Some(websocket) =
                self.connections.find_mut(id).and_then(|connection| connection.websocket.as_mut())
        {
            websocket.waiting.push(text.into());
        }
        Ok(())
    }

    /// Messages that have waited, as far as they can be taken now.
    pub(crate) fn take_waiting_texts(&mut self, id: ConnectionId, now: Now) -> Result<(), CloseReason> {
        let Some(websocket) =
            self.connections.find_mut(id).and_then(|connection| connection.websocket.as_mut())
        else {
            return Ok(());
        };
        // Those that stall again are put back in the same order.
        for text in std::mem::take(&mut websocket.waiting) {
            self.take_text(id, text.as_bytes(), now)?;
        }
        Ok(())
    }

    fn handle_message(&mut self, id: ConnectionId, text: &str, now: Now) -> Result<Taken, CloseReason> {
        let Some(connection) = self.connections.find_mut(id) else { return Ok(Taken::Yes) };
        let shared = &mut self.shared;
        let framing = connection.framing();
        let refuse = |shared: &mut Shared, error: &Error| {
            framing.send(&mut shared.outbox, id, |out| error.downlink().encode(out));
            Ok(Taken::Yes)
        };
        match Uplink::decode(text) {
            Err(error) => refuse(shared, &error),
            Ok(Uplink::Frame(frame)) => match judge_frame(&frame) {
                Ok(()) => take_frame(connection, id, shared, &frame, now),
                Err(error) => refuse(shared, &error),
            },
            Ok(Uplink::Subscribe { .. } | Uplink::Unsubscribe { .. })
                if subscribe::must_wait(connection, shared) =>
            {
                Ok(Taken::Stalled)
            }
            Ok(Uplink::Subscribe { id: request, topics }) => {
                let wanted = topics.iter().map(|topic| Wanted {
                    filter: &topic.filter,
                    options: Options {
                        qos: match topic.qos {
                            Qos::AtMostOnce => QoS::AtMostOnce,
                            Qos::AtLeastOnce => QoS::AtLeastOnce,
                        },
                        no_local: false,
                        retain_as_published: false,
                    },
                    retain_handling: RetainHandling::SendAtSubscribe,
                    identifier: 0,
                    refused: validate_filter(&topic.filter)
                        .is_err()
                        .then_some(u8::from(ReasonCode::TopicFilterInvalid)),
                });
                let woken = subscribe::subscribe(connection, id, shared, request.get(), wanted);
                self.wake(woken, now);
                Ok(Taken::Yes)
            }
            Ok(Uplink::Unsubscribe { id: request, topics }) => {
                let filters = topics.iter().map(|filter| &**filter);
                let woken = subscribe::unsubscribe(connection, id, shared, request.get(), filters);
                self.wake(woken, now);
                Ok(Taken::Yes)
            }
            Ok(Uplink::Ack { id: push }) => {
                deliver::handle_acknowledged(
                    connection,
                    id,
                    shared,
                    PacketId::from(push),
                    ReasonCode::Success,
                    now,
                );
                Ok(Taken::Yes)
            }
            Ok(Uplink::Ping) => {
                framing.send(&mut shared.outbox, id, |out| Downlink::Pong.encode(out));
                Ok(Taken::Yes)
            }
        }
    }
}

fn judge_frame(frame: &Frame<'_>) -> Result<(), Error> {
    validate_name(&frame.topic).map_err(|error| {
        Error::new(ErrorCode::TopicInvalid, frame.id, format!("the topic is not valid: {error}"))
    })
}

fn take_frame(
    connection: &mut Connection,
    id: ConnectionId,
    shared: &mut Shared,
    frame: &Frame<'_>,
    now: Now,
) -> Result<Taken, CloseReason> {
    let default_type = matches!(frame.data, Data::Json(_)).then_some(JSON_CONTENT_TYPE);
    let event_time = frame.event_time_ms.map(|ms| ms.to_string());
    let user_property = [(EVENT_TIME, event_time.as_deref().unwrap_or_default())];
    let known = if event_time.is_some() { &user_property[..] } else { &[] };
    let properties = PublishProperties {
        content_type: frame.content_type.as_deref().or(default_type),
        user_properties: UserProperties::from(known),
        ..PublishProperties::default()
    };
    let mut encoded = std::mem::take(&mut shared.scratch);
    encoded.clear();
    properties.encode_forwardable(&mut encoded);
    let publication = Publication {
        dup: frame.dup,
        qos: if frame.id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
        retain: frame.retain && shared.config.mqtt.retain_available,
        topic: &frame.topic,
        packet_id: frame.id.map(PacketId::from),
        expiry_s: None,
        properties: &encoded,
        event_time_ms: frame.event_time_ms.unwrap_or(0),
        payload: frame.data.as_bytes(),
    };
    let taken = publish::take(connection, id, shared, &publication, now);
    shared.scratch = encoded;
    taken
}
