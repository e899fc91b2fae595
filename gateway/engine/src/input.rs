//! The small values in which the shell tells what happened.

/// A moment, by two clocks. The monotonic one drives every timer; the other is only written down for people and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds since an arbitrary moment; never goes back.
    pub monotonic_ms: u64,
    /// Milliseconds of Unix time; may jump.
    pub unix_ms: u64,
}

/// One connection. The slot is dense and used again; the generation tells its successive tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Index into the shell's and the engine's tables.
    pub slot: u32,
    /// Which tenant of the slot.
    pub generation: u32,
}

/// Index into the configured bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkIndex(pub u16);

/// What a socket was accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// MQTT straight on TCP (or TLS).
    Mqtt,
    /// HTTP upgrade to WebSocket: MQTT on `/mqtt`, the JSON device protocol on `/v1/devices/{client_id}/socket`.
    WebSocket,
}

/// How a socket came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEnd {
    /// The peer closed its side.
    Fin,
    /// The peer or the network cut it.
    Reset,
    /// The kernel gave up on a peer that acknowledges nothing (`TCP_USER_TIMEOUT`).
    TimedOut,
    /// It did not take what it was sent, and more than the bound was waiting for it.
    Overflowed,
    /// `Action::Close` was carried out.
    ByUs,
}

/// What the store said of the node's right to own sessions, its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseWord {
    /// The answer to [`Action::AskLease`](crate::Action::AskLease): it was renewed since, and the store knew it. No renewal that began before is
    /// still without its answer.
    Renewed,
    /// It was renewed, but the store did not know it although it had been renewed before: the store has lost its data.
    Forgotten,
    /// The node was declared dead: it has lost all its sessions, for ever.
    Buried,
    /// It was renewed, and had not been for a while, as the store did not answer.
    Recovered,
    /// There was no answer in time. The store may or may not have renewed it.
    Unanswered,
}

/// Why a socket is not taken; the shell closes it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptRefused {
    /// `limits.connections_max` is reached.
    Full,
    /// `limits.half_open_max` connections have not finished their CONNECT.
    TooManyHalfOpen,
    /// The node drains.
    Draining,
}
