//! Where the sink keeps what a client published, for clients that asked to be told.
//!
//! A receipt comes when its publication is settled and leaves with the acknowledgement, whose turn may come later. It is kept here
//! meanwhile, apart from the window, so that those who do not ask pay nothing.

use holdfast_wire::link::SettledAt;
use holdfast_wire::mqtt::PacketId;

/// Name of the user property in CONNECT by which an MQTT 5 client asks for receipts ...
pub(crate) const ASKED_BY: &str = "holdfast-receipt";
/// ... and its value.
pub(crate) const ASKED_FOR: &str = "offset";

/// Kafka's own bound on the name of a topic. A receipt beyond it is not passed on.
const TOPIC_BYTES_MAX: usize = 249;

/// Where one publication lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) topic: Box<str>,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// It had been stored before, and was recognised.
    pub(crate) duplicate: bool,
}

impl Receipt {
    /// None where the bridge says what cannot be.
    pub(crate) fn new(settled: &SettledAt<'_>) -> Option<Box<Self>> {
        if settled.topic.len() > TOPIC_BYTES_MAX {
            return None;
        }
        Some(Box::new(Self {
            topic: settled.topic.into(),
            partition: settled.partition.try_into().ok()?,
            offset: settled.offset.try_into().ok()?,
            duplicate: settled.duplicate,
        }))
    }
}

/// Receipts whose acknowledgement waits for those before it: at most one for each publication in the window up.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    waiting: Vec<(PacketId, Box<Receipt>)>,
}

impl Receipts {
    pub(crate) fn keep(&mut self, packet_id: PacketId, receipt: Box<Receipt>) {
        self.waiting.push((packet_id, receipt));
    }

    pub(crate) fn take(&mut self, packet_id: PacketId) -> Option<Box<Receipt>> {
        let place = self.waiting.iter().position(|(waiting, _)| *waiting == packet_id)?;
        let (_, receipt) = self.waiting.swap_remove(place);
        if self.waiting.is_empty() {
            // An idle connection owns no buffer (promise P9).
            self.waiting = Vec::new();
        }
        Some(receipt)
    }
}
