//! A session while its connection lives here. What outlives the connection is written to the store and dropped from
//! memory, so a resting session costs this shard nothing.
//!
//! `receiving` is the window up (`receipts` what it may carry back), `sending` the window down, `retained` what new subscriptions are still to be sent, `durable` how
//! a persistent session stands towards its streams.

pub(crate) mod aliases;
pub(crate) mod durable;
pub(crate) mod heard;
pub(crate) mod receipts;
pub(crate) mod receiving;
pub(crate) mod retained;
pub(crate) mod sending;
pub(crate) mod subscription;

use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::{PacketId, ProtocolVersion, QoS};
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Progress, Request, WillRecord};

use crate::input::LinkIndex;
use aliases::Aliases;
use durable::Durable;
use receiving::Receiving;
use retained::RetainedReads;
use sending::Sending;
use subscription::Subscription;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    V311,
    V5,
    Json,
}

impl Protocol {
    /// The version whose packet layout is used; JSON devices are never sent packets.
    pub(crate) fn version(self) -> ProtocolVersion {
        match self {
            Self::V5 => ProtocolVersion::V5,
            Self::V311 | Self::Json => ProtocolVersion::V311,
        }
    }

    /// The word for it, wherever it is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V311 => "mqtt-3.1.1",
            Self::V5 => "mqtt-5",
            Self::Json => "json",
        }
    }
}

impl From<ProtocolVersion> for Protocol {
    fn from(version: ProtocolVersion) -> Self {
        match version {
            ProtocolVersion::V311 => Self::V311,
            ProtocolVersion::V5 => Self::V5,
        }
    }
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientId,
    /// The fence; 0 until the store has opened the session.
    pub(crate) epoch: Epoch,
    pub(crate) connected_at_unix_ms: u64,
    pub(crate) receiving: Receiving,
    /// None while nothing is inflight or pending.
    pub(crate) sending: Option<Box<Sending>>,
    pub(crate) subscriptions: Vec<Subscription>,
    /// None while no new subscription waits for retained messages.
    pub(crate) retained: Option<Box<RetainedReads>>,
    /// None until the first alias is used.
    pub(crate) aliases: Option<Box<Aliases>>,
    /// Only for sessions that outlive their connection.
    pub(crate) durable: Option<Box<Durable>>,
    pub(crate) will: Option<Box<WillRecord>>,
    /// Largest packet that the client takes, in bytes.
    pub(crate) maximum_packet_size: u32,
    /// 0: the session ends with its connection.
    pub(crate) expiry_s: u32,
    /// Frames on their way that are not settled; while there are any, `link` stays.
    pub(crate) unsettled: u32,
    /// Messages with QoS > 0 that the client takes unacknowledged.
    pub(crate) send_maximum: u16,
    /// Aliases that the client takes from us.
    pub(crate) alias_maximum: u16,
    /// 0: no keep alive.
    pub(crate) keep_alive_s: u16,
    pub(crate) next_packet_id: u16,
    pub(crate) link: Option<LinkIndex>,
    /// `Uplinks::version` at which `link` was looked up.
    pub(crate) links_version: u16,
    pub(crate) protocol: Protocol,
    /// SUBSCRIBEs and UNSUBSCRIBEs without their answer; see [`subscribe::must_wait`].
    ///
    /// [`subscribe::must_wait`]: crate::connection::subscribe::must_wait
    pub(crate) asking: u8,
    /// MQTT 5: reason strings and user properties may stand in every packet (MQTT-3.1.2-29).
    pub(crate) problem_information: bool,
}

impl Session {
    /// A new session of `client`, with nothing in it.
    pub(crate) fn new(client: ClientId, protocol: Protocol) -> Self {
        Self {
            client,
            epoch: Epoch(0),
            connected_at_unix_ms: 0,
            receiving: Receiving::default(),
            sending: None,
            subscriptions: Vec::new(),
            retained: None,
            aliases: None,
            durable: None,
            will: None,
            maximum_packet_size: u32::MAX,
            expiry_s: 0,
            unsettled: 0,
            send_maximum: u16::MAX,
            alias_maximum: 0,
            keep_alive_s: 0,
            next_packet_id: 1,
            link: None,
            links_version: 0,
            protocol,
            asking: 0,
            problem_information: true,
        }
    }

    /// Messages inflight and pending.
    pub(crate) fn queued(&self) -> (usize, usize) {
        self.sending.as_ref().map_or((0, 0), |sending| (sending.inflight.len(), sending.pending.len()))
    }

    /// A packet id that is not in use (MQTT-2.2.1-3).
    pub(crate) fn unused_packet_id(&mut self) -> PacketId {
        // Terminates: inflight messages are bounded by `send_maximum`, and `limits.inflight_max` keeps that below 65,535.
        loop {
            let id = PacketId::new(self.next_packet_id).unwrap_or(PacketId::MIN);
            self.next_packet_id = id.next().get();
            let taken = self.sending.as_ref().is_some_and(|sending| sending.find(id).is_some());
            if !taken {
                return id;
            }
        }
    }

    /// Whether a subscription of this persistent session reads the stream, or will once the store has opened it.
    pub(crate) fn reads_filter(&self, stream: &StreamKey) -> bool {
        let StreamKey::Filter(filter) = stream else { return false };
        self.subscriptions.iter().any(|held| held.filter == *filter && held.options.qos > QoS::AtMostOnce)
    }

    /// How far this session has come, to be saved.
    pub(crate) fn progress(&self) -> Progress {
        let Some(durable) = &self.durable else { return Progress::default() };
        Progress {
            cursors: durable.cursors(self.sending.as_deref()),
            received: self.receiving.received_ids().collect(),
            inflight: self
                .sending
                .as_ref()
                .map_or_else(Vec::new, |sending| sending.inflight_records(&durable.streams)),
        }
    }

    /// The store is to know that.
    pub(crate) fn save_request(&self) -> Request {
        Request::Save { client: self.client.clone(), epoch: self.epoch, progress: self.progress() }
    }

    /// Notes that the store does not know all any more.
    pub(crate) fn touch(&mut self) -> bool {
        self.durable.as_mut().is_some_and(|durable| !std::mem::replace(&mut durable.unsaved, true))
    }
}
