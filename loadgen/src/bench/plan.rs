//! What is measured, and how much of it.

use std::time::Duration;

use super::Target;

/// One kind of measurement; each gives one to three figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Measure {
    /// Bytes per idle MQTT connection.
    Idle,
    /// ... with one subscription.
    IdleSubscribed,
    /// ... over WebSocket.
    IdleWebSocket,
    /// ... JSON over WebSocket; Holdfast only.
    IdleJson,
    /// CPU per `QoS` 0 message at a fixed rate.
    RateQos0,
    /// CPU per `QoS` 1 message at a fixed rate.
    RateQos1,
    /// `QoS` 1 as fast as it goes.
    FlatOutQos1,
    /// `QoS` 0 as fast as it goes.
    FlatOutQos0,
    /// One publisher, all subscribe.
    FanOut,
    /// To random devices, each with its own topic, at `QoS` 0.
    Push,
    /// ... at `QoS` 1.
    PushQos1,
    /// All connections are cut and return; also CPU per connect.
    Storm,
}

/// How much of each. The defaults are the budgets' (docs: SPECIFICATION.md).
#[derive(Debug, Clone)]
pub struct BenchPlan {
    /// What is measured, in this order.
    pub measures: Vec<Measure>,
    /// Idle connections that warm the broker up before memory is read first.
    pub idle_from: usize,
    /// Idle connections when memory is read again. With the driver's other files it stays below its fd limit.
    pub idle_to: usize,
    /// Connections of the rate, fan-out and push measures.
    pub connections: usize,
    /// Messages a second of the rate measures, over all connections.
    pub rate: f64,
    /// Payload bytes.
    pub payload_bytes: usize,
    /// Connections flat out.
    pub flat_out_connections: usize,
    /// Unacknowledged messages of each connection flat out.
    pub inflight: u16,
    /// Messages fanned out, one after the other.
    pub fan_out_messages: usize,
    /// Pushes a second.
    pub push_rate: f64,
    /// Connections that publish the pushes.
    pub push_publishers: usize,
    /// Connections cut at once.
    pub storm_connections: usize,
    /// Connects on their way at once.
    pub connects_in_flight: usize,
    /// Time before the measured part of rate, flat-out and push measures.
    pub warm_up: Duration,
    /// Length of the measured part.
    pub duration: Duration,
}

impl Default for BenchPlan {
    fn default() -> Self {
        Self {
            measures: Measure::ALL.to_vec(),
            idle_from: 1_000,
            idle_to: 18_000,
            connections: 5_000,
            rate: 20_000.0,
            payload_bytes: 128,
            flat_out_connections: 1_000,
            inflight: 16,
            fan_out_messages: 60,
            push_rate: 5_000.0,
            push_publishers: 4,
            storm_connections: 10_000,
            connects_in_flight: 512,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(8),
        }
    }
}

impl BenchPlan {
    /// The same shape at a tenth of the size and a quarter of the time: to see that everything runs, not for figures.
    pub fn quick() -> Self {
        Self {
            idle_from: 200,
            idle_to: 2_000,
            connections: 500,
            rate: 5_000.0,
            flat_out_connections: 100,
            fan_out_messages: 20,
            push_rate: 1_000.0,
            storm_connections: 1_000,
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs(2),
            ..Self::default()
        }
    }
}

impl Measure {
    /// All, in the order of the table.
    pub const ALL: [Self; 12] = [
        Self::Idle,
        Self::IdleSubscribed,
        Self::IdleWebSocket,
        Self::IdleJson,
        Self::RateQos0,
        Self::RateQos1,
        Self::FanOut,
        Self::FlatOutQos1,
        Self::FlatOutQos0,
        Self::Push,
        Self::PushQos1,
        Self::Storm,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Idle => "idle connections",
            Self::IdleSubscribed => "idle connections with one subscription",
            Self::IdleWebSocket => "idle MQTT connections over WebSocket",
            Self::IdleJson => "idle JSON connections",
            Self::RateQos0 => "QoS 0 at a fixed rate",
            Self::RateQos1 => "QoS 1 at a fixed rate",
            Self::FlatOutQos1 => "QoS 1 flat out",
            Self::FlatOutQos0 => "QoS 0 flat out",
            Self::FanOut => "fan-out",
            Self::Push => "push to random devices at QoS 0",
            Self::PushQos1 => "push to random devices at QoS 1",
            Self::Storm => "return of all connections",
        }
    }

    /// Whether this broker has what is measured.
    pub fn applies_to(self, target: &Target) -> bool {
        match self {
            Self::IdleWebSocket => target.ws.is_some(),
            Self::IdleJson => target.ws.is_some() && target.json,
            _ => true,
        }
    }
}
