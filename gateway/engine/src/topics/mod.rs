//! Who of this shard wants what: `subscribers` finds the sessions for a topic, `interest` tells the bridges, `fan_out` delivers.

pub(crate) mod fan_out;
pub(crate) mod interest;
pub(crate) mod subscribers;
