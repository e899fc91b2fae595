//! What gateways and bridges ask of the session store, and what it answers.
//!
//! Plain values, so that the engine can ask without knowing who answers. The `store` crate holds the rules that
//! every implementation keeps; the store may be far away, slow, shared by many nodes, or gone.

use std::hash::Hasher;

use rustc_hash::FxHasher;

use crate::ids::{ClientId, Epoch, NodeId, Owner};
use crate::message::{Message, SharedMessage};
use crate::mqtt::PacketId;
use crate::session_record::{Cursor, InflightRecord, Offset, SessionRecord, StreamKey, SubscriptionRecord};

/// Session expiry that never comes (MQTT-3.1.2.11.2: 0xFFFFFFFF).
pub const NEVER_EXPIRES_S: u32 = u32::MAX;

/// A question to the store. Writes of a session carry the epoch that [`Request::Open`] answered with and fail with
/// [`StoreError::Fenced`] once another owner opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A client connected: makes `owner` the owner of its session and raises the epoch. → [`Reply::Opened`];
    /// [`StoreError::Fenced`] if the owner is buried. A session of a buried owner is reaped first ([`Request::Reap`]), so that its will
    /// is not lost. A will that waits for its delay is struck out with a resume (MQTT-3.1.3-9). One that falls due by this opening, or fell due before
    /// and was given to nobody yet, is answered ([`Opened::will`]): that of a connection of another owner, without a delay or with a session
    /// that ends here, and one that waited for its delay when its session ends here. The owner's own connection before this one has none: its
    /// will was the owner's to publish.
    Open {
        /// Whose session.
        client: ClientId,
        /// Who takes it.
        owner: Owner,
        /// Discards what was there, with its queues.
        clean_start: bool,
        /// Session expiry in seconds; 0: the session ends with its connection, and nothing of it need be durable.
        expiry_s: u32,
        /// What to publish if the owner dies.
        will: Option<WillRecord>,
    },
    /// Adds or replaces subscriptions of a session with expiry > 0 and makes their streams. → [`Reply::Subscribed`]
    Subscribe {
        /// Whose session.
        client: ClientId,
        /// The fence.
        epoch: Epoch,
        /// A subscription with a filter that is already there replaces it and keeps its cursor.
        subscriptions: Vec<SubscriptionRecord>,
    },
    /// Removes subscriptions; a stream without readers goes with them. → [`Reply::Done`]
    Unsubscribe {
        /// Whose session.
        client: ClientId,
        /// The fence.
        epoch: Epoch,
        /// The filters as they were subscribed; unknown ones do no harm.
        filters: Vec<Box<str>>,
    },
    /// Writes down how far a connected session has come. Saved lazily: what is lost with a node is sent again. → [`Reply::Done`]
    Save {
        /// Whose session.
        client: ClientId,
        /// The fence.
        epoch: Epoch,
        /// How far.
        progress: Progress,
    },
    /// The connection ended. The session rests until it expires; with `expiry_s` 0 it is discarded. → [`Reply::Done`]; one that rests already
    /// goes on to rest, and its will stays as it is, but falls due with the session's end if that is earlier now. From a former owner it is
    /// [`StoreError::Fenced`], or [`StoreError::Gone`] once the session has ended, and without a will it strikes out the one that
    /// [`Request::Open`] took from that owner: the client had said goodbye.
    Close {
        /// Whose session.
        client: ClientId,
        /// The fence.
        epoch: Epoch,
        /// Seconds from now until it is discarded; [`NEVER_EXPIRES_S`] for never.
        expiry_s: u32,
        /// How far it came.
        progress: Progress,
        /// What is to be published after its delay, or with the session's end if that is earlier, unless the client comes back before
        /// ([`Request::DueWills`]). In place of the one that the session was opened with; none: nothing is, or it was published already.
        will: Option<WillRecord>,
    },
    /// Where is this client's session? → [`Reply::Session`]
    Lookup {
        /// Whose session.
        client: ClientId,
    },
    /// Appends a message to those of the streams that exist, each once, durably. → [`Reply::Appended`]
    Append {
        /// Candidates; a filter that no persistent session holds (any more), or a device without a persistent
        /// session, has no stream and is passed over.
        streams: Vec<StreamKey>,
        /// The message.
        message: SharedMessage,
        /// In a device's own stream it takes the place of what waits there under the same key: the older one is read no
        /// more. Streams of filters pass it over, as their readers stand at different places.
        collapse_key: Option<Box<str>>,
    },
    /// Reads on behind a cursor. → [`Reply::Messages`]
    Read {
        /// Which stream; that of a shared subscription's group is read with [`Request::Claim`].
        stream: StreamKey,
        /// The last offset already known.
        after: Offset,
        /// Most messages wanted.
        messages_max: u32,
        /// No further message is added once this many bytes are reached; the first one always comes.
        bytes_max: u32,
    },
    /// Reads on in the stream of a shared subscription's group, for one of its members: what it claimed before and is behind `after`, then what nobody has
    /// claimed, the oldest first. What is answered is that member's alone until it saves a cursor at or behind it ([`Request::Save`]), or gives it back as it rests,
    /// leaves or ends. Offsets are the member's own count of what it claimed, not the stream's. → [`Reply::Messages`], where `end` is the last message's offset,
    /// or the last that the member knows if there is none, and larger by at least one if there is more to claim now. [`StoreError::Fenced`] and
    /// [`StoreError::Gone`] as with [`Request::Save`]; nothing and `end` 0 if the session does not read the stream.
    Claim {
        /// Whose session.
        client: ClientId,
        /// The fence.
        epoch: Epoch,
        /// The shared subscription's filter, with `$share/`.
        filter: Box<str>,
        /// The last offset already known; at least the cursor that the store answered for this stream.
        after: Offset,
        /// Most messages wanted.
        messages_max: u32,
        /// No further message is added once this many bytes are reached; the first one always comes.
        bytes_max: u32,
    },
    /// Appends a message to the stream of a shared subscription's group as [`Request::Append`] does, but for nobody to claim: a member may have it already.
    /// → [`Reply::Appended`]
    Hold {
        /// The shared subscription's filter, with `$share/`.
        filter: Box<str>,
        /// The message.
        message: SharedMessage,
        /// After so many ms it may be claimed, if nobody says before what became of it.
        for_ms: u32,
    },
    /// Says what became of a message that is held. → [`Reply::Done`], also if it is held no longer.
    EndHold {
        /// The shared subscription's filter, with `$share/`.
        filter: Box<str>,
        /// Where it stands, as [`Reply::Appended`] had it.
        at: Offset,
        /// A member has it, so that nobody needs it any more; otherwise it may be claimed from now on.
        taken: bool,
    },
    /// Keeps the message as its topic's retained one, in place of the former; an empty payload removes it. → [`Reply::Done`]
    Retain {
        /// The message.
        message: SharedMessage,
    },
    /// Reads retained messages whose topic matches, in the order of their topics. → [`Reply::Retained`]
    ReadRetained {
        /// Which topics.
        filter: Box<str>,
        /// Only topics behind this one; none to begin.
        after: Option<Box<str>>,
        /// Most messages wanted.
        messages_max: u32,
        /// No further message is added once this many bytes are reached; the first one always comes.
        bytes_max: u32,
    },
    /// All filters that have a stream: what a starting bridge must append for. → [`Reply::Filters`]
    DurableFilters,
    /// Extends a node's right to own sessions. → [`Reply::Renewed`]; [`StoreError::Fenced`] once it was buried, for ever.
    RenewLease {
        /// Which node.
        node: NodeId,
        /// For how long from now, in ms.
        for_ms: u32,
    },
    /// Nodes whose lease ran out while they owned sessions, buried or not. → [`Reply::Nodes`]
    DeadNodes,
    /// Declares a node dead whose lease has run out, or that never had one: it can neither renew it nor open sessions any more, for at
    /// least a day. → [`Reply::Done`], also when it was buried before; [`StoreError::Fenced`] if its lease still runs, and nothing has changed.
    Bury {
        /// Which node.
        node: NodeId,
    },
    /// Takes a session from an owner that is dead: it rests for the expiry it was opened with from now on, or ends without one, and its
    /// will falls due after its delay or with the session's end. The epoch grows. → [`Reply::Done`], also if its owner closed it and it rests
    /// already, which changes nothing; [`StoreError::Fenced`] if another owner has it by now or it was reaped before, [`StoreError::Gone`] if
    /// it has ended.
    Reap {
        /// Whose session.
        client: ClientId,
        /// Its epoch under the dead owner.
        epoch: Epoch,
    },
    /// Wills that have fallen due: of sessions that were reaped, or closed with one, or opened by someone who did not strike out what it was
    /// answered for [`OPENER_WILL_S`]. Each is given again after [`WILL_AGAIN_S`], until [`Request::WillPublished`]
    /// strikes it out; none whose client came back to its session before the time. → [`Reply::Wills`]
    DueWills {
        /// Most wills wanted.
        wills_max: u32,
    },
    /// A will that was given is published. → [`Reply::Done`], also if it was struck out before.
    WillPublished {
        /// Whose.
        client: ClientId,
        /// The number it was given with.
        number: u64,
    },
    /// Sessions whose rest is over, each told once: whoever asks and does not hear the answer has lost them. A store keeps them for those who ask: from the first
    /// question on until [`EXPIRED_ASKED_S`] after the last, and as many as it has room for, the latest ones. → [`Reply::Expired`]
    TakeExpired {
        /// Most sessions wanted; there may be fewer, though more follow, but none only once there are none.
        sessions_max: u32,
    },
    /// Makes one holder at a time the only one to do something. → [`Reply::Lock`]
    TakeLock {
        /// What.
        name: Box<str>,
        /// Who; asks again before its time is over to keep it.
        holder: u64,
        /// For how long from now, in ms.
        for_ms: u32,
    },
    /// Writes a session back that a store has forgotten which lost its data, as its owner knows it. Streams that it read begin anew behind all that they held before, and
    /// it stands where they begin if the loss may be a moment old, else at their end; where an older state of the session is left, it goes on from the cursors in it.
    /// → [`Reply::Subscribed`] with where each stream stands, the device's own among them; also if it is there already with this epoch, which
    /// changes nothing. [`StoreError::Fenced`] if someone else has opened or reaped it since, or the owner is buried; also if the store has lost
    /// nothing since it gave the epoch out, as such a session was not forgotten: it has ended, perhaps under another owner.
    Restore {
        /// Whose session.
        client: ClientId,
        /// Who holds its connection.
        owner: Owner,
        /// The epoch under which the owner opened it; all that are given out later are larger.
        epoch: Epoch,
        /// Session expiry in seconds.
        expiry_s: u32,
        /// What to publish if the owner dies.
        will: Option<WillRecord>,
        /// Subscriptions, received and inflight; its cursors are passed over.
        session: SessionRecord,
    },
    /// A page of sessions, in an order of the store's own. One that is there all the while is on one page; one that comes or goes
    /// meanwhile may be. → [`Reply::Sessions`]
    Sessions {
        /// Only those that this node owns.
        owner: Option<NodeId>,
        /// The page that the former answer named; none to begin.
        page: Option<Page>,
        /// Most sessions wanted; there may be fewer, or none, on a page that is not the last.
        sessions_max: u32,
    },
    /// Changes who is in a named group of clients; the group begins with its first member and ends with its last. A client need not
    /// have a session. → [`Reply::GroupChanged`]; [`StoreError::Full`] if it would have more members than the bounds allow.
    ChangeGroup {
        /// Which group.
        group: Box<str>,
        /// Who comes in.
        add: Vec<ClientId>,
        /// Who leaves. A client that is in both lists leaves, and is not counted as added.
        remove: Vec<ClientId>,
    },
    /// Ends a group. → [`Reply::Done`]
    DropGroup {
        /// Which group.
        group: Box<str>,
    },
    /// A page of a group's members, as with [`Request::Sessions`]; an unknown group has none. → [`Reply::Members`]
    GroupMembers {
        /// Which group.
        group: Box<str>,
        /// The page that the former answer named; none to begin.
        page: Option<Page>,
        /// Most members wanted.
        members_max: u32,
    },
}

/// Where the next page of an answer begins. The store alone knows what it means; whoever asks hands it back, from wherever it was kept.
/// One that no store can have named is answered with [`StoreError::Unreadable`].
pub type Page = Box<[u8]>;

/// How long a will that was given out stays away before it is given out again, in seconds.
pub const WILL_AGAIN_S: u32 = 30;

/// How long a will that was answered to [`Request::Open`] is left to whoever asked, in seconds.
pub const OPENER_WILL_S: u32 = 8;

/// For how long after it was last asked for them ([`Request::TakeExpired`]) a store keeps sessions that expired, in seconds.
pub const EXPIRED_ASKED_S: u32 = 600;

/// How far a session has come, apart from its subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Streams whose cursor moved. In that of a shared subscription's group it is the session's own count ([`Request::Claim`]).
    pub cursors: Vec<Cursor>,
    /// QoS 2 packet ids received and not released.
    pub received: Vec<PacketId>,
    /// Messages sent and not acknowledged.
    pub inflight: Vec<InflightRecord>,
}

/// A will that waits for the death of its session's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRecord {
    /// What to publish.
    pub message: SharedMessage,
    /// How long after the connection ended, in seconds; the end of the session comes first if it is earlier.
    pub delay_s: u32,
    /// Message expiry from the moment of its publication, in seconds (MQTT 5 will property); `u32::MAX`: it does not expire.
    pub expiry_s: u32,
}

impl WillRecord {
    /// What is published now (Unix ms): its expiry runs from here. `number` is that of a [`DueWill`], or the epoch of the connection that left it. However
    /// often and by whomever it is published under that number, it has the same id, by which sessions and readers of the sink know a copy.
    pub fn published(&self, number: u64, now_ms: u64) -> Message<'_> {
        let message = self.message.view();
        let mut id = FxHasher::default();
        id.write(message.publisher.as_bytes());
        id.write_u64(number);
        let expires_at_ms = match self.expiry_s {
            u32::MAX => 0,
            expiry_s => now_ms + u64::from(expiry_s) * 1_000,
        };
        // 0 would be no id.
        Message { id: id.finish().max(1), published_at_ms: now_ms, expires_at_ms, ..message }
    }
}

/// An answer of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Open`].
    Opened(Opened),
    /// To [`Request::Subscribe`]: for each stream that the subscriptions read, where the session stands; a new one begins at the stream's end,
    /// a member of a shared subscription's group begins where its own count of what it claims does ([`Request::Claim`]).
    Subscribed(Vec<Cursor>),
    /// To [`Request::Lookup`].
    Session(Option<SessionInfo>),
    /// To [`Request::Append`] and [`Request::Hold`].
    Appended {
        /// Where the message stands in each stream that exists and took it.
        at: Vec<Cursor>,
        /// Streams that did not take it, as they are full and keep what they have.
        full: Vec<StreamKey>,
    },
    /// To [`Request::Read`] and [`Request::Claim`].
    Messages {
        /// In the order of their offsets, which may have gaps where a bound or an age cut messages off.
        messages: Vec<(Offset, SharedMessage)>,
        /// The stream's last offset at the time of reading; a claim has a meaning of its own for it.
        end: Offset,
    },
    /// To [`Request::ReadRetained`]; fewer messages, and fewer bytes, than asked for mean that there are no more.
    Retained(Vec<SharedMessage>),
    /// To [`Request::DurableFilters`].
    Filters(Vec<Box<str>>),
    /// To [`Request::DeadNodes`].
    Nodes(Vec<NodeId>),
    /// To [`Request::RenewLease`].
    Renewed {
        /// Whether the store knew a lease of this node, which it does for a day after the lease ran out. So a node that renews its lease again
        /// and again and is told `false` knows that the store has lost its data.
        known: bool,
    },
    /// To [`Request::DueWills`].
    Wills(Vec<DueWill>),
    /// To [`Request::TakeExpired`].
    Expired(Vec<ExpiredSession>),
    /// To [`Request::TakeLock`]: whether the holder has it now.
    Lock(bool),
    /// To [`Request::Sessions`].
    Sessions {
        /// The sessions.
        sessions: Vec<SessionEntry>,
        /// Where the next page begins; none behind the last.
        next: Option<Page>,
    },
    /// To [`Request::ChangeGroup`].
    GroupChanged {
        /// Clients that were not in it before and are now.
        added: u32,
        /// Clients that were in it before and are no longer.
        removed: u32,
    },
    /// To [`Request::GroupMembers`].
    Members {
        /// The clients.
        clients: Vec<ClientId>,
        /// Where the next page begins; none behind the last.
        next: Option<Page>,
    },
    /// It is done, and durable if the request promised so.
    Done,
}

/// A session was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The fence for all further writes.
    pub epoch: Epoch,
    /// What was there; none for a new session.
    pub session: Option<SessionRecord>,
    /// Who owned it while it was connected, if that was another owner.
    pub former: Option<Owner>,
    /// A will that fell due by the opening. Whoever asked publishes it before anything else of this client, or knows that the former owner has, and
    /// strikes it out ([`Request::WillPublished`]). Its number is the former epoch where it is that of another owner that is not buried. Until it is
    /// struck out, but at most for [`OPENER_WILL_S`], the same owner is answered it again if it opens the session again, with the same `former`: it may
    /// not have heard the first answer.
    pub will: Option<DueWill>,
}

/// Where a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Who holds its connection; none while it rests.
    pub owner: Option<Owner>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it outlives its connection; only then does `subscriptions` say anything.
    pub persistent: bool,
    /// Filters and granted QoS of a persistent session.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// When its connection began, or when it began to rest: Unix ms, but a store may know it to the second only.
    pub since_ms: u64,
    /// Until when it rests: Unix ms, `u64::MAX` for ever; none while it is connected.
    pub rests_until_ms: Option<u64>,
    /// Messages for this client alone that it has not settled. What its filters' streams hold is not counted.
    pub pending: u64,
}

/// A session on a page of [`Request::Sessions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    /// Whose.
    pub client: ClientId,
    /// Who holds its connection; none while it rests.
    pub owner: Option<Owner>,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it outlives its connection.
    pub persistent: bool,
    /// When its connection began, or when it began to rest: Unix ms.
    pub since_ms: u64,
}

/// A will that is to be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueWill {
    /// Whose.
    pub client: ClientId,
    /// What [`Request::WillPublished`] names: the epoch that its session had when the will was left, by its owner's death, close or loss.
    pub number: u64,
    /// What to publish.
    pub will: WillRecord,
}

/// A session that came to rest and was not resumed in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredSession {
    /// Whose.
    pub client: ClientId,
    /// Its last epoch: that of its last connection, or a later one if that was taken from a dead owner.
    pub epoch: Epoch,
    /// When its rest was over: Unix ms. The store may find it later, by seconds, or with the client's return.
    pub at_ms: u64,
}

/// Why the store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another owner opened the session: whoever asked has lost it and closes its connection.
    #[error("the session has another owner")]
    Fenced,
    /// There is no such session: it ended, another owner ended it, or the store has lost its data.
    #[error("the session is not there")]
    Gone,
    /// No answer within the deadline, or no connection. The request may or may not have been carried out.
    #[error("the session store is unavailable: {0}")]
    Unavailable(String),
    /// There is no room: disk or memory.
    #[error("the session store is full: {0}")]
    Full(String),
    /// What is stored cannot be understood: foreign format version or damage.
    #[error("the session store holds what this version cannot read: {0}")]
    Unreadable(String),
}
