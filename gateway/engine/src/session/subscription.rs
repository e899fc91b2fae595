//! One subscription, as its session holds it.

use holdfast_wire::mqtt::{QoS, SubscriptionOptions};
use holdfast_wire::session_record::SubscriptionRecord;
use holdfast_wire::topic::personal_level;

/// Filter and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// As the client gave it, with `$share/{group}/` if shared.
    pub(crate) filter: Box<str>,
    /// 0: none.
    pub(crate) identifier: u32,
    pub(crate) options: Options,
    /// It is not in the shard's tree: messages for it come by client id.
    pub(crate) personal: bool,
}

/// What a subscription makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
}

impl From<SubscriptionOptions> for Options {
    fn from(options: SubscriptionOptions) -> Self {
        Self {
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
        }
    }
}

impl Subscription {
    pub(crate) fn record(&self) -> SubscriptionRecord {
        SubscriptionRecord {
            filter: self.filter.clone(),
            qos: self.options.qos,
            no_local: self.options.no_local,
            retain_as_published: self.options.retain_as_published,
            identifier: self.identifier,
        }
    }

    pub(crate) fn from_record(record: &SubscriptionRecord, client: &str) -> Self {
        Self {
            filter: record.filter.clone(),
            identifier: record.identifier,
            options: Options {
                qos: record.qos,
                no_local: record.no_local,
                retain_as_published: record.retain_as_published,
            },
            personal: personal_level(&record.filter, client).is_some(),
        }
    }
}
