//! How a node says goodbye.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, within};

/// `[drain]`: what SIGTERM and `POST /drain` begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrainConfig {
    /// After this time what is still connected is cut, in ms. Keep it below the time that the supervisor grants before
    /// SIGKILL (30 s in Kubernetes). Default 25,000.
    pub deadline_ms: u32,
    /// Goodbyes per second and shard, so that the other nodes are not stormed. All are said within three quarters
    /// of the deadline, faster if need be. Default 1,000.
    pub goodbyes_per_s: u32,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { deadline_ms: 25_000, goodbyes_per_s: 1_000 }
    }
}

/// [`DrainConfig`] understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// What is still connected then is cut.
    pub deadline: Duration,
    goodbyes_per_s: u32,
}

impl DrainConfig {
    pub(super) fn check(&self) -> Result<DrainPlan, ConfigError> {
        let deadline_ms = within("drain.deadline_ms", self.deadline_ms, 0..=3_600_000)?;
        Ok(DrainPlan {
            deadline: Duration::from_millis(u64::from(deadline_ms)),
            goodbyes_per_s: within("drain.goodbyes_per_s", self.goodbyes_per_s, 1..=1_000_000)?,
        })
    }
}

impl DrainPlan {
    /// Over how many ms one shard spreads the goodbyes to its connections when all must be done `within`. The last
    /// quarter is left for what they still owe.
    pub(crate) fn spread_ms(self, connections: u32, within: Duration) -> u64 {
        let at_rate = u64::from(connections) * 1_000 / u64::from(self.goodbyes_per_s);
        at_rate.min(within.as_millis() as u64 / 4 * 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_devices_leave_at_once_and_many_within_three_quarters_of_the_deadline() {
        let plan = DrainConfig { deadline_ms: 8_000, goodbyes_per_s: 1_000 }.check().unwrap();
        assert_eq!(plan.spread_ms(0, plan.deadline), 0);
        assert_eq!(plan.spread_ms(10, plan.deadline), 10);
        assert_eq!(plan.spread_ms(1_000_000, plan.deadline), 6_000);
    }
}
