//! One file for each kind of figure. Each opens its own connections and leaves none behind.

mod fan_out;
mod flat_out;
mod idle;
mod push;
mod rate;
mod storm;

use std::thread::sleep;
use std::time::Duration;

use hdrhistogram::Histogram;
use holdfast_wire::mqtt::QoS;

use super::web_socket::Carrier;
use super::{BenchError, BenchPlan, CpuTime, Figure, Measure, Spent, Target};

/// For the broker to forget the connections of the measure before.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn run(measure: Measure, plan: &BenchPlan, target: &Target) -> Result<Vec<Figure>, BenchError> {
    let figures = match measure {
        Measure::Idle => idle::run(plan, target, Carrier::Tcp, false),
        Measure::IdleSubscribed => idle::run(plan, target, Carrier::Tcp, true),
        Measure::IdleWebSocket => idle::run(plan, target, Carrier::WebSocketMqtt, false),
        Measure::IdleJson => idle::run(plan, target, Carrier::WebSocketJson, false),
        Measure::RateQos0 => rate::run(plan, target, QoS::AtMostOnce),
        Measure::RateQos1 => rate::run(plan, target, QoS::AtLeastOnce),
        Measure::FlatOutQos1 => flat_out::qos1(plan, target),
        Measure::FlatOutQos0 => flat_out::qos0(plan, target),
        Measure::FanOut => fan_out::run(plan, target),
        Measure::Push => push::run(plan, target, QoS::AtMostOnce),
        Measure::PushQos1 => push::run(plan, target, QoS::AtLeastOnce),
        Measure::Storm => storm::run(plan, target),
    };
    sleep(PAUSE);
    figures
}

/// CPU for each of `count`, in us.
fn cpu_each(spent: CpuTime, count: u64) -> f64 {
    spent.us as f64 / count.max(1) as f64
}

/// A row for the gateway alone, and one for all that the broker's processes did.
fn cpu_figures(
    spent: Spent,
    count: u64,
    gateway: (&'static str, &'static str),
    whole: &'static str,
) -> Vec<Figure> {
    vec![
        Figure::less(gateway.0, gateway.1, cpu_each(spent.gateway, count)),
        Figure::less(whole, "... with bridge and durable log", cpu_each(spent.whole, count)),
    ]
}

/// Up to a minute in us. With bounds of its own: one that grows by itself does not grow on a saturating record.
pub(super) fn latencies_us() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds are valid")
}

pub(super) fn frame_topic(index: usize) -> String {
    format!("devices/bench-{index:06}/frames")
}

fn push_topic(index: usize) -> String {
    format!("devices/bench-{index:06}/push")
}

fn payload(plan: &BenchPlan) -> Vec<u8> {
    vec![b'x'; plan.payload_bytes]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_of_seconds_is_kept_as_it_is() {
        let mut latencies = latencies_us();
        latencies.saturating_record(5_000_000);
        assert!(latencies.max() >= 5_000_000);
    }

    #[test]
    fn the_gateway_alone_and_the_whole_are_two_rows() {
        let spent = Spent { gateway: CpuTime { us: 300 }, whole: CpuTime { us: 700 } };
        let figures = cpu_figures(spent, 100, ("gateway_us", "CPU, gateway alone"), "whole_us");
        let rows: Vec<(&str, f64)> = figures.iter().map(|figure| (figure.key, figure.value)).collect();
        assert_eq!(rows, [("gateway_us", 3.0), ("whole_us", 7.0)]);
    }

    #[test]
    fn cpu_is_shared_among_what_it_was_spent_on() {
        assert!((cpu_each(CpuTime { us: 1_000_000 }, 160_000) - 6.25).abs() < 1e-9);
        // Nothing done is no division by zero.
        assert!(cpu_each(CpuTime { us: 5 }, 0) > 0.0);
    }
}
