//! What Holdfast's figures must reach. Machines differ, so most goals are ratios to the reference broker in the same
//! run. The numbers are those of SPECIFICATION.md.

use std::fmt;

/// A bound on one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// At most this, in the figure's own unit.
    Plain(f64),
    /// At most so many times the reference's figure.
    AtMostTimes(f64),
    /// At least so many times the reference's figure.
    AtLeastTimes(f64),
}

/// The goal of the figure with this key, if it has one.
pub(super) fn goal_of(key: &str) -> Option<Goal> {
    Some(match key {
        "idle_bytes" => Goal::Plain(600.0),
        "idle_subscribed_bytes" => Goal::Plain(1_000.0),
        "idle_websocket_bytes" | "idle_json_bytes" => Goal::Plain(700.0),
        "qos0_gateway_cpu_us" => Goal::AtMostTimes(0.9),
        "qos1_gateway_cpu_us" | "connect_cpu_us" => Goal::AtMostTimes(0.75),
        "qos1_cpu_us" => Goal::AtMostTimes(1.1),
        "fan_out_cpu_us" => Goal::AtMostTimes(0.45),
        "qos1_flat_out_per_s" => Goal::AtLeastTimes(3.0),
        "qos0_flat_out_per_s" => Goal::AtLeastTimes(5.0),
        "push_cpu_us" => Goal::AtMostTimes(0.95),
        "push_p99_us" => Goal::Plain(500.0),
        "storm_back_s" => Goal::Plain(0.6),
        _ => return None,
    })
}

impl Goal {
    /// `None`: the reference has no figure to compare with.
    pub(super) fn is_reached(self, value: f64, reference: Option<f64>) -> Option<bool> {
        match self {
            Self::Plain(bound) => Some(value <= bound),
            Self::AtMostTimes(times) => reference.map(|reference| value <= times * reference),
            Self::AtLeastTimes(times) => reference.map(|reference| value >= times * reference),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(bound) => write!(f, "≤ {bound}"),
            Self::AtMostTimes(times) => write!(f, "≤ {times} x"),
            Self::AtLeastTimes(times) => write!(f, "≥ {times} x"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_reached_on_its_good_side_and_at_the_bound() {
        assert_eq!(Goal::AtMostTimes(0.5).is_reached(4.0, Some(8.0)), Some(true));
        assert_eq!(Goal::AtMostTimes(0.5).is_reached(4.1, Some(8.0)), Some(false));
        assert_eq!(Goal::AtLeastTimes(3.0).is_reached(24.0, Some(8.0)), Some(true));
        assert_eq!(Goal::AtLeastTimes(3.0).is_reached(23.0, Some(8.0)), Some(false));
    }

    #[test]
    fn without_the_reference_only_a_plain_bound_can_be_judged() {
        assert_eq!(Goal::AtMostTimes(0.5).is_reached(1.0, None), None);
        assert_eq!(Goal::Plain(600.0).is_reached(601.0, None), Some(false));
    }
}
