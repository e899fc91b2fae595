//! What the shell is to do, apart from sending bytes.

use holdfast_wire::ids::ClientId;
use holdfast_wire::store::Request;

use crate::connection::close::CloseReason;
use crate::input::ConnectionId;

/// Number of a question to the store; its answer comes back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send what is flushed for the connection, then close it; `handle_closed` follows once it is done.
    Close {
        /// Which connection.
        id: ConnectionId,
        /// Why, for log and metric.
        reason: CloseReason,
        /// Whose it was, for the log; none before CONNECT named it.
        client: Option<ClientId>,
    },
    /// The connection may be read again; readiness that was reported meanwhile will not be reported again.
    ResumeRead(ConnectionId),
    /// Renew the lease now and answer with [`Engine::handle_lease`](crate::Engine::handle_lease): a session may have been lost.
    AskLease,
    /// Ask the store.
    Store {
        /// Comes back with the answer.
        request: RequestId,
        /// The question.
        body: Request,
    },
}
