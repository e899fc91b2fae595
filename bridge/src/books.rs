//! Who is told of what happens, beside those whom it concerns: a book of receipts and a book of events.
//!
//! The rest of the bridge does not know where they are kept. A book must not block: what it cannot take at once it drops and counts.

use std::sync::{Arc, OnceLock};

use holdfast_wire::ids::Owner;
use holdfast_wire::link::Event;
use holdfast_wire::store::ExpiredSession;

use crate::push::Receipt;

/// The books that are kept; each may be opened once.
#[derive(Default)]
pub(crate) struct Books {
    /// Of pushes that came by HTTP.
    pub(crate) receipts: OnceLock<Arc<dyn ReceiptBook>>,
    pub(crate) events: OnceLock<Arc<dyn EventBook>>,
}

/// Takes down what became of pushes.
pub(crate) trait ReceiptBook: Send + Sync {
    fn note(&self, receipt: &Receipt<'_>);
}

/// Takes down which connections begin and end, and which sessions expire.
pub(crate) trait EventBook: Send + Sync {
    fn note(&self, shard: Owner, event: &Event<'_>);

    fn note_expired(&self, session: &ExpiredSession);
}
