//! One subscription, as its session holds it.

use holdfast_wire::mqtt::{QoS, SubscriptionOptions};
use holdfast_wire::session_record::SubscriptionRecord;
use holdfast_wire::topic::parse_shared;

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

/// The level of an ordinary filter at which the client's own id stands, if there is one. Such a filter is held by one session in the world
/// (or by few others that have no business there), so it is not announced by itself.
pub(crate) fn personal_level(filter: &str, client: &str) -> Option<u8> {
    if client.is_empty() || client.contains(['/', '+', '#']) || parse_shared(filter).is_some() {
        return None;
    }
    let level = filter.split('/').position(|level| level == client)?;
    // A shape that begins with `+` matches no topic that begins with `$` (MQTT-4.7.2-1).
    if level == 0 && client.starts_with('$') {
        return None;
    }
    u8::try_from(level).ok()
}

/// The filter with `+` where the client id stands.
pub(crate) fn personal_shape(filter: &str, level: u8) -> String {
    let mut shape = String::with_capacity(filter.len());
    for (index, text) in filter.split('/').enumerate() {
        if index > 0 {
            shape.push('/');
        }
        shape.push_str(if index == usize::from(level) { "+" } else { text });
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_the_clients_own_id_is_personal() {
        assert_eq!(personal_level("devices/d-1/push", "d-1"), Some(1));
        assert_eq!(personal_level("devices/d-1/#", "d-1"), Some(1));
        assert_eq!(personal_level("devices/d-2/push", "d-1"), None);
        assert_eq!(personal_level("$share/g/devices/d-1", "d-1"), None);
        assert_eq!(personal_level("a/+/b", "+"), None);
        assert_eq!(personal_shape("devices/d-1/push", 1), "devices/+/push");
    }
}
