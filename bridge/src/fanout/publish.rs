//! A message of our own, such as a push to a topic, takes the same way as a device's publication, without the sink: streams first, then live.

use std::sync::Arc;

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

/// Publishes; an error means that nobody was promised anything and it may be tried again.
pub(crate) async fn publish(core: &Arc<Core>, message: &SharedMessage) -> Result<Published, StoreError> {
    let view = message.view();
    let owes = core.owes(view.topic, view.qos);
    let mut streams = owes.streams;
    if let Some(client) = owes.device {
        let lookup = Request::Lookup { client: ClientId::new(&client) };
        if let Reply::Session(session) = ask(&*core.store, lookup).await? {
            streams.extend(device_stream(&client, view.topic, session.as_ref(), &streams));
        }
    }
    let (mut positions, mut streams_full) = (Positions::new(), 0);
    if !streams.is_empty() {
        let append = Request::Append { streams, message: message.clone(), collapse_key: None };
        if let Reply::Appended { at, full } = ask(&*core.store, append).await? {
            (positions, streams_full) = (at, full.len());
        }
    }
    if view.retain {
        ask(&*core.store, Request::Retain { message: message.clone() }).await?;
    }
    let reached = fan_out(core, message, &positions, None).await;
    let shards = reached.shards;
    if reached.kept().await != 0 {
        return Err(StoreError::Unavailable("a group's stream did not take the message".to_owned()));
    }
    Ok(Published { shards, streams: positions.len(), streams_full })
}

/// The stream of a device whose persistent session holds, with QoS > 0, a filter that matches and that none of `streams` covers.
pub(crate) fn device_stream(
    client: &str,
    topic: &str,
    session: Option<&SessionInfo>,
    streams: &[StreamKey],
) -> Option<StreamKey> {
    let session = session.filter(|session| session.persistent)?;
    let uncovered = session.subscriptions.iter().any(|subscription| {
        subscription.qos > QoS::AtMostOnce
            && matches(&subscription.filter, topic)
            && !streams
                .iter()
                .any(|stream| matches!(stream, StreamKey::Filter(filter) if *filter == subscription.filter))
    });
    uncovered.then(|| StreamKey::Device(client.into()))
}
