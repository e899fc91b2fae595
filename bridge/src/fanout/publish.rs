//! A message of our own, such as a push to a topic, takes the same way as a device's publication, without the sink: streams first, then live.

use std::sync::Arc;

use futures_util::future::join_all;
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::Positions;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, SessionInfo, StoreError};
use holdfast_wire::topic::matches;

use super::deliver::fan_out;
use crate::core::Core;
use crate::store_requests::ask;

/// Whom a publication reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) shards: usize,
    pub(crate) streams: usize,
    /// Streams that keep what they have.
    pub(crate) streams_full: usize,
}

/// A message of our own on its way, over as many tries as it takes: what has answered is not asked again. So no stream has it twice because
/// another one was away.
#[derive(Debug)]
pub(crate) struct Publication {
    message: SharedMessage,
    /// Streams that have answered.
    answered: Vec<StreamKey>,
    positions: Positions,
    streams_full: usize,
    is_retained: bool,
}

impl Publication {
    pub(crate) fn new(message: SharedMessage) -> Self {
        Self {
            message,
            answered: Vec::new(),
            positions: Positions::new(),
            streams_full: 0,
            is_retained: false,
        }
    }

    pub(crate) fn message(&self) -> &SharedMessage {
        &self.message
    }

    /// Publishes, or goes on with it. A temporary error means that nobody was promised anything, and that it may be tried again; what went out
    /// live is never followed by one.
    pub(crate) async fn publish(&mut self, core: &Arc<Core>) -> Result<Published, StoreError> {
        self.append(core).await?;
        if self.message.view().retain && !self.is_retained {
            ask(&*core.store, Request::Retain { message: self.message.clone() }).await?;
            self.is_retained = true;
        }
        self.go_live(core).await
    }

    /// Goes out live, with the places that it has in streams by now: no more streams get it.
    pub(crate) async fn go_live(&mut self, core: &Arc<Core>) -> Result<Published, StoreError> {
        let reached = fan_out(core, &self.message, &self.positions, None).await;
        let shards = reached.shards;
        if reached.kept().await != 0 {
            // It was asked until it had room, so this is for good.
            return Err(StoreError::Unreadable("a group's stream did not take the message".to_owned()));
        }
        Ok(Published { shards, streams: self.positions.len(), streams_full: self.streams_full })
    }

    /// Whether a persistent session is to have it.
    pub(crate) async fn is_to_be_kept(&self, core: &Core) -> Result<bool, StoreError> {
        let view = self.message.view();
        Ok(core.owes(view.topic, view.qos).group || !self.streams(core).await?.is_empty())
    }

    /// Streams that it goes to.
    async fn streams(&self, core: &Core) -> Result<Vec<StreamKey>, StoreError> {
        let view = self.message.view();
        let owes = core.owes(view.topic, view.qos);
        let mut streams = owes.streams;
        if let Some(client) = owes.device {
            let lookup = Request::Lookup { client: ClientId::new(&client) };
            if let Reply::Session(session) = ask(&*core.store, lookup).await? {
                if session.is_none() && core.store.has_just_begun() {
                    return Err(has_lost_its_data());
                }
                let untold = untold_streams(session.as_ref(), view.topic, &streams);
                streams.extend(untold);
            }
        }
        Ok(streams)
    }

    /// Appends it to each stream that has not answered yet, by a request of its own, so that it is known which ones have it.
    async fn append(&mut self, core: &Core) -> Result<(), StoreError> {
        let mut streams = self.streams(core).await?;
        streams.retain(|stream| !self.answered.contains(stream));
        let asked = streams.iter().map(|stream| {
            let (streams, message) = (vec![stream.clone()], self.message.clone());
            ask(&*core.store, Request::Append { streams, message, collapse_key: None })
        });
        let answers = join_all(asked).await;
        let mut failed = None;
        for (stream, answer) in streams.into_iter().zip(answers) {
            match answer {
                Ok(Reply::Appended { at, full })
                    if at.is_empty() && full.is_empty() && core.store.has_just_begun() =>
                {
                    failed = Some(has_lost_its_data());
                }
                Ok(reply) => {
                    if let Reply::Appended { at, full } = reply {
                        self.positions.extend(at);
                        self.streams_full += full.len();
                    }
                    self.answered.push(stream);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Those to whom a message is owed are connected, and about to be written back.
pub(crate) fn has_lost_its_data() -> StoreError {
    StoreError::Unavailable("it has lost its data, and its sessions are not back yet".to_owned())
}

/// Streams that a message on this topic owes itself to because a device's persistent session reads them, beside `streams`. The store may tell of a filter up to a
/// minute after its SUBACK, but it has a stream from then on; so the messages of a topic stand in one stream, whoever knows its filter. In two of them a session that is
/// behind would read them one stream after the other, in another order than they came.
pub(crate) fn untold_streams(
    session: Option<&SessionInfo>,
    topic: &str,
    streams: &[StreamKey],
) -> Vec<StreamKey> {
    let Some(session) = session.filter(|session| session.persistent) else { return Vec::new() };
    let wanted = session
        .subscriptions
        .iter()
        .filter(|subscription| subscription.qos > QoS::AtMostOnce && matches(&subscription.filter, topic));
    let wanted = wanted.map(|subscription| StreamKey::Filter(subscription.filter.clone()));
    wanted.filter(|stream| !streams.contains(stream)).collect()
}
