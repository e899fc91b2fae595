//! What every session store keeps to; the suite in `tests/contract` checks each implementation against it.
//!
//! 1. **Order.** Requests that one caller submits for one client take effect in the order of submission. Their
//!    answers may come in another order: a question is answered at once, a durable change later.
//! 2. **Fencing.** A write with an epoch other than the session's current one changes nothing and answers [`StoreError::Fenced`]; one of a session
//!    that is not there, [`StoreError::Gone`] (promise P5). A client's epochs only grow, across restarts, failovers and the loss of all data. A node that
//!    was buried opens nothing and renews nothing, for at least a day after its burial.
//! 3. **Durability.** [`Reply`] comes after the change would survive the death of the process, for sessions with an
//!    expiry, their streams and retained messages. Sessions without an expiry need not survive.
//! 4. **An answer always comes**, at the latest after the implementation's deadline; then it is
//!    [`StoreError::Unavailable`]. After `Unavailable` and `Full` the request may or may not have taken effect, now or
//!    later, so whoever asked asks again or gives up its claim; it never assumes.
//! 5. **Bounds.** A stream keeps at most [`StreamBounds`]; the oldest messages go first and leave a gap in the
//!    offsets, unless it is to keep them and take no new ones ([`WhenFull`]). When the whole store is full they go from the stream that holds most, so that who lets messages
//!    pile up loses its own and nobody's new ones are refused. A message whose own expiry has passed is still read from a stream (its sender is owed an outcome), but
//!    never from the retained ones.
//! 6. **Cursors** only move forward and never beyond a stream's end; in a shared subscription's group they are the session's own count, which goes as far as
//!    it says. One that names a stream which the session does not read is passed over.
//!    A filter's stream's offsets only grow, also where the last reader took it along or the store lost it, and it is made again: it begins at an
//!    offset made of the time. A device's begins at 0 with each new session, which remembers none of the former one's, and at one made of the time
//!    with a session that is written back ([`Request::Restore`]), whose owner does. After a failover that lost the last writes alone, places are
//!    given out again.
//!    A Redis server that began with nothing, all of it or one partition, may have lost its data; for a minute it keeps what is settled, within the
//!    bounds, and a session that is written back stands where a stream begins. A store in memory does so after [`MemoryStore::lose_data`](crate::MemoryStore::lose_data)
//!    alone, and never says [`Store::has_just_begun`]; one on disk loses nothing while it is open, and does neither.
//!    Where streams alone were lost that a session reads, which a cluster's primary may lose alone, a resume and writing back join them again.
//! 7. **A shared subscription's group** divides its stream among its members: what one has claimed ([`Request::Claim`]) is that member's alone, on whichever node
//!    its session is, until it saves that it needs it no more. A member that rests, is reaped, leaves or ends gives back what it has not saved, its `Close`'s last word
//!    counted; who claims next is given that first, and of that the oldest. A resume gives nothing back, nor does writing back over an older state. Who rests claims nothing.
//!    So a message reaches two members only if one gave it back that had it, and never none. A member counts for itself what it
//!    claims: the offsets that it is answered and its cursor are its own, begin at an offset made of the time when it joins, and only grow; those that an append answers are
//!    the stream's. A claim that is asked again is answered the same again; what was cut off the stream since is left out and keeps its number. Where a member knows of more than the
//!    store, which a failover has set back, what the store knows of its claims ends where the member says. What stands in the stream when a member joins is there to be claimed.
//!    A message that is held ([`Request::Hold`]) is nobody's until its hold ends, by word or by its time, which is looked at with each claim; then it has its place among what was given back. A
//!    process that starts anew on its disk ends all holds and all claims: everything that is not settled is free then, and each member's count goes on at its cursor.
//! 8. **A takeover of a session without expiry** finds nothing: the session ended with its connection
//!    (MQTT-3.1.2.11.2). One that is opened again with an expiry of 0 keeps what it had until it is closed.
//! 9. **Wills.** The will of a connection whose owner is alive and has the session is that owner's to publish, or to leave behind with `Close`. Otherwise it is
//!    left by the owner's death or by whoever opens the session, and whoever opens it next is answered what fell due and nobody was given yet, so that it is published before
//!    the client is heard again. What nobody opens for is given out from the moment it falls due. Each is given again and again until someone says that
//!    it is published, so that it is published at least once, and twice only if whoever published it died before saying so. Each step may be the
//!    last of whoever asked, and each request may be repeated: none of them loses a will or makes two of one.

pub use holdfast_wire::store::*;

/// Called once with the answer, on a thread of the store's choice, or on the caller's before [`Store::submit`]
/// returns. Must not block. It may submit.
pub type ReplyTo = Box<dyn FnOnce(Result<Reply, StoreError>) + Send>;

/// A session store.
pub trait Store: Send + Sync + 'static {
    /// Takes a request; never blocks for IO.
    fn submit(&self, request: Request, reply: ReplyTo);

    /// Whether it is known to take nothing durable now, as with a full disk: sessions that are to outlive their connection are refused. For
    /// health checks; a request is what really tells.
    fn is_refusing(&self) -> bool {
        false
    }

    /// Whether some of several servers that keep it together answer, and some do not: what is with these is not served. For health checks as well.
    fn is_partly_away(&self) -> bool {
        false
    }

    /// Whether it began with nothing a moment ago, for all that it was asked: sessions and streams that it does not have may be lost with its data, and
    /// their owners are about to write them back. Tells of what was answered just before.
    fn has_just_begun(&self) -> bool {
        false
    }
}

/// What a stream keeps at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamBounds {
    /// Messages.
    pub messages_max: u32,
    /// Bytes of encoded messages. One message beyond it is answered with [`StoreError::Full`].
    pub bytes_max: u64,
    /// Age of a message since it was published, in ms.
    pub age_ms_max: u64,
    /// What becomes of a message that finds as many messages or bytes in it as it may hold. Age, and the bound of the whole store, always
    /// take the oldest.
    pub when_full: WhenFull,
}

/// What a full stream does with one more message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Takes it, and lets go of its oldest ones.
    #[default]
    DropOldest,
    /// Keeps what it has; [`Reply::Appended`] names it as full.
    DropNewest,
}

impl Default for StreamBounds {
    fn default() -> Self {
        Self {
            messages_max: 100_000,
            bytes_max: 64 << 20,
            age_ms_max: 7 * 24 * 3_600_000,
            when_full: WhenFull::DropOldest,
        }
    }
}

/// What a store on this machine keeps at most (promise P7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Each stream.
    pub stream: StreamBounds,
    /// Bytes of encoded messages in all streams and of all retained messages. Beyond it the stream that holds most gives
    /// way, its oldest messages first, which is counted and logged. [`StoreError::Full`] is left for what would not
    /// fit beside the retained messages even if all streams were empty, and for retained messages beyond a half of it.
    /// Wills that wait to be published may take half as much again; one more is let go and counted, since a session that could not end
    /// would be worse. Whoever takes its session over is answered it all the same.
    pub message_bytes_max: u64,
    /// Sessions, connected and resting. Beyond it an open of a new one answers [`StoreError::Full`].
    pub sessions_max: u32,
    /// Clients in one group, and a sixteenth of those in all groups. Beyond it [`Request::ChangeGroup`] answers [`StoreError::Full`] and changes nothing.
    pub group_members_max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            stream: StreamBounds::default(),
            message_bytes_max: 1 << 30,
            sessions_max: 4_000_000,
            group_members_max: 1_000_000,
        }
    }
}

/// The answer to whoever brings more clients than a group has places for: which limit it is, and how many fit.
pub(crate) fn group_has_no_place(members: u64, members_max: u64) -> StoreError {
    no_place("the group has", members, members_max, "store.group_members_max")
}

/// The same where all groups together have none.
pub(crate) fn groups_have_no_place(members: u64, members_max: u64) -> StoreError {
    no_place("all groups together have", members, members_max, "16 times store.group_members_max")
}

fn no_place(whose: &str, members: u64, members_max: u64, limit: &str) -> StoreError {
    let left = members_max.saturating_sub(members);
    StoreError::Full(format!("{whose} {members} of at most {members_max} members ({limit}): {left} more fit"))
}
