//! What a fleet is asked to do: read from TOML or built by hand, checked whole before the first socket opens.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::payload::BINARY_BYTES_MIN;
use crate::schedule::{RateCurve, Surge, whole};
use crate::verdict::Planned;

/// A fleet and its work. Field by field with a default: `FleetPlan::default()` is the demo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetPlan {
    /// Simulated devices, 1 to 1,000,000.
    pub devices: u32,
    /// Index of the first of them: several processes, each with its own range and the same `run`, are one fleet. Their sum is at most 1,000,000.
    pub first_device: u32,
    /// Which protocols they speak, as weights.
    pub mix: Mix,
    /// Client ids are this and the device's index; 1 to 32 of `A-Z a-z 0-9 _ -`. Two fleets at one gateway need two.
    pub client_id_prefix: String,
    /// Told to every frame, so that a log with earlier runs can be judged; below 2^53 (JSON readers). Random if absent.
    pub run: Option<u64>,
    /// Frames each device sends in a second, 0 to 10,000.
    pub frames_per_s: f64,
    /// Bytes of each frame's payload, up to 1 MiB; the stamp's own length if that is more.
    pub frame_bytes: usize,
    /// `QoS` of the frames, 0 to 2. JSON devices know 0 and 1 and take 1 for 2.
    pub qos: u8,
    /// Frames a device has sent and not seen acknowledged, 1 to 65,535. While it is full frames wait, and their
    /// latency counts.
    pub inflight_max: u16,
    /// Seconds over which the devices connect first.
    pub ramp_s: f64,
    /// Seconds of frames and pushes after the ramp, more than 0: without frames there is nothing to judge.
    pub duration_s: f64,
    /// Seconds at the end in which devices still wait for acknowledgements and pushes, and reconnect for them.
    pub drain_s: f64,
    /// MQTT keep alive in seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// Devices keep their session over reconnects (clean start off, expiry of one hour).
    pub keep_session: bool,
    /// Devices subscribe to `devices/{client id}/push`.
    pub subscribe: bool,
    /// Pushes to random devices in a second, over the whole fleet, 0 to 100,000. Needs `subscribe`.
    pub pushes_per_s: f64,
    /// Push requests on their way at once, 1 to 10,000; what is due beyond waits, and is late.
    pub push_requests_max: u32,
    /// Connects on their way at once, 1 to 100,000; the other devices wait their turn.
    pub connects_max: u32,
    /// Devices that come back after a loss do not wait for one of these places: all of them dial at once, as devices do that know nothing of each other.
    pub returns_unbounded: bool,
    /// Longest wait in seconds before a device tries again that found no connection; waits double from 50 ms on, with jitter over the whole.
    pub backoff_s_max: f64,
    /// Stretches with another rate, at most 64; each begins before the end.
    pub bursts: Vec<Burst>,
    /// Seconds after the ramp at which every connection is cut at once, at most 64; each before the end.
    pub storms_at_s: Vec<f64>,
    /// Gateways that devices begin with, from the first, at most as many as there are; the others are room for the time when one of these is gone. 0: all.
    pub home_gateways: u32,
    /// Where a device goes that lost its gateway: to another at random, each with this weight. Empty: to the next in turn. At most 64, and as many
    /// as there are gateways.
    pub return_weights: Vec<u32>,
    /// Seed of everything random but the run.
    pub seed: u64,
}

/// Weights of the protocols. All zero is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mix {
    /// MQTT 3.1.1 over TCP.
    pub mqtt_311: u32,
    /// MQTT 5 over TCP.
    pub mqtt_5: u32,
    /// MQTT 5 over WebSocket.
    pub mqtt_websocket: u32,
    /// JSON over WebSocket.
    pub json: u32,
}

/// What a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// MQTT 3.1.1 over TCP.
    Mqtt311,
    /// MQTT 5 over TCP.
    Mqtt5,
    /// MQTT 5 over WebSocket.
    MqttWebSocket,
    /// JSON over WebSocket.
    Json,
}

/// A stretch during which every device sends `factor` times as much.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// Start, seconds after the ramp.
    pub at_s: f64,
    /// Length in seconds.
    pub for_s: f64,
    /// Multiplies the rate, 0 to 1,000.
    pub factor: f64,
}

/// One line: which key, which value, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The text is not TOML, or has a key that does not exist.
    #[error("{0}")]
    Syntax(String),
    /// A value is out of its bounds.
    #[error("{key} = {value}: must be {allowed}")]
    Value {
        /// The key in the plan.
        key: &'static str,
        /// What it was set to.
        value: String,
        /// What would be accepted.
        allowed: &'static str,
    },
}

impl PlanError {
    /// The line for whoever gave the value by an option: `options` are keys and their options.
    pub fn to_line(&self, options: &[(&str, &str)]) -> String {
        match self {
            Self::Value { key, value, allowed } => match options.iter().find(|(of, _)| of == key) {
                Some((_, option)) => format!("{option} {value}: must be {allowed}"),
                None => self.to_string(),
            },
            Self::Syntax(_) => self.to_string(),
        }
    }
}

impl Default for FleetPlan {
    fn default() -> Self {
        Self {
            devices: 1_000,
            first_device: 0,
            mix: Mix::default(),
            client_id_prefix: "device-".to_owned(),
            run: None,
            frames_per_s: 1.0,
            frame_bytes: 128,
            qos: 1,
            inflight_max: 16,
            ramp_s: 2.0,
            duration_s: 10.0,
            drain_s: 10.0,
            keep_alive_s: 60,
            keep_session: true,
            subscribe: true,
            pushes_per_s: 50.0,
            push_requests_max: 256,
            connects_max: 500,
            returns_unbounded: false,
            backoff_s_max: 3.0,
            bursts: Vec::new(),
            storms_at_s: Vec::new(),
            home_gateways: 0,
            return_weights: Vec::new(),
            seed: 1,
        }
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self { mqtt_311: 1, mqtt_5: 1, mqtt_websocket: 1, json: 1 }
    }
}

impl Mix {
    /// The dialect of a device. Devices with neighbouring indices differ, so that each part of a fleet is mixed.
    pub fn dialect_of(&self, device: u32) -> Dialect {
        let weights = [
            (Dialect::Mqtt311, self.mqtt_311),
            (Dialect::Mqtt5, self.mqtt_5),
            (Dialect::MqttWebSocket, self.mqtt_websocket),
            (Dialect::Json, self.json),
        ];
        let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut place = u64::from(device) % total.max(1);
        for (dialect, weight) in weights {
            if place < u64::from(weight) {
                return dialect;
            }
            place -= u64::from(weight);
        }
        Dialect::Mqtt5
    }
}

impl FleetPlan {
    /// Reads and checks a plan.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = toml::from_str(text).map_err(|error| PlanError::Syntax(error.to_string()))?;
        plan.check()?;
        Ok(plan)
    }

    /// Refuses the first value that is out of its bounds.
    pub fn check(&self) -> Result<(), PlanError> {
        let prefix_fits = (1..=32).contains(&self.client_id_prefix.len())
            && self
                .client_id_prefix
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let mix_total = [self.mix.mqtt_311, self.mix.mqtt_5, self.mix.mqtt_websocket, self.mix.json];
        let seconds = |value: f64| (0.0..=31_536_000.0).contains(&value);
        // What comes after the end would never happen, and nobody would miss it.
        let happens = |at_s: f64| (0.0..self.duration_s).contains(&at_s);
        let bursts_fit = self.bursts.len() <= 64
            && self.bursts.iter().all(|burst| {
                happens(burst.at_s) && seconds(burst.for_s) && (0.0..=1_000.0).contains(&burst.factor)
            });
        let storms_fit = self.storms_at_s.len() <= 64 && self.storms_at_s.iter().all(|at| happens(*at));
        let pushes_fit =
            (0.0..=100_000.0).contains(&self.pushes_per_s) && (self.subscribe || self.pushes_per_s == 0.0);
        let rules: [(bool, &'static str, String, &'static str); 19] = [
            (
                (1..=1_000_000).contains(&self.devices),
                "devices",
                self.devices.to_string(),
                "between 1 and 1000000",
            ),
            (
                self.first_device <= 1_000_000 - self.devices.min(1_000_000),
                "first_device",
                self.first_device.to_string(),
                "at most 1000000 less the devices",
            ),
            (
                mix_total.iter().any(|weight| *weight > 0),
                "mix",
                format!("{:?}", self.mix),
                "at least one weight above 0",
            ),
            (prefix_fits, "client_id_prefix", self.client_id_prefix.clone(), "1 to 32 of A-Z a-z 0-9 _ -"),
            (self.run.unwrap_or(0) < 1 << 53, "run", format!("{:?}", self.run), "below 2^53"),
            (
                (0.0..=10_000.0).contains(&self.frames_per_s),
                "frames_per_s",
                self.frames_per_s.to_string(),
                "0 to 10000",
            ),
            (self.frame_bytes <= 1 << 20, "frame_bytes", self.frame_bytes.to_string(), "at most 1048576"),
            (self.qos <= 2, "qos", self.qos.to_string(), "0 to 2"),
            (self.inflight_max > 0, "inflight_max", self.inflight_max.to_string(), "1 to 65535"),
            (seconds(self.ramp_s), "ramp_s", self.ramp_s.to_string(), "seconds, at most a year"),
            (
                self.duration_s > 0.0 && seconds(self.duration_s),
                "duration_s",
                self.duration_s.to_string(),
                "more than 0 seconds, at most a year",
            ),
            (seconds(self.drain_s), "drain_s", self.drain_s.to_string(), "seconds, at most a year"),
            (
                pushes_fit,
                "pushes_per_s",
                self.pushes_per_s.to_string(),
                "0 to 100000, and 0 without subscribe",
            ),
            (
                (1..=10_000).contains(&self.push_requests_max),
                "push_requests_max",
                self.push_requests_max.to_string(),
                "1 to 10000",
            ),
            (
                (1..=100_000).contains(&self.connects_max),
                "connects_max",
                self.connects_max.to_string(),
                "1 to 100000",
            ),
            (
                bursts_fit,
                "bursts",
                format!("{:?}", self.bursts),
                "at most 64, each before the end of duration_s, with a factor of 0 to 1000",
            ),
            (
                seconds(self.backoff_s_max),
                "backoff_s_max",
                self.backoff_s_max.to_string(),
                "seconds, at most a year",
            ),
            (
                storms_fit,
                "storms_at_s",
                format!("{:?}", self.storms_at_s),
                "at most 64 times in seconds, each before the end of duration_s",
            ),
            (
                self.return_weights.len() <= 64,
                "return_weights",
                format!("{:?}", self.return_weights),
                "at most 64 weights",
            ),
        ];
        match rules.into_iter().find(|(fits, ..)| !fits) {
            Some((_, key, value, allowed)) => Err(PlanError::Value { key, value, allowed }),
            None => Ok(()),
        }
    }

    /// What this plan names, and what therefore must have happened when it is over.
    pub fn planned(&self) -> Planned {
        let frames = self.frames_per_s > 0.0;
        Planned {
            frames,
            acks: frames && self.qos > 0,
            pushes: self.pushes_per_s > 0.0,
            subscriptions: self.subscribe,
            storms: !self.storms_at_s.is_empty(),
        }
    }

    /// Refuses a plan that names more gateways than there are.
    pub fn check_gateways(&self, gateways: usize) -> Result<(), PlanError> {
        let allowed = "at most as many as there are gateways, of which one is needed";
        let weights = self.return_weights.len();
        for (key, named) in
            [("home_gateways", (self.home_gateways as usize).max(1)), ("return_weights", weights)]
        {
            if named > gateways {
                return Err(PlanError::Value { key, value: named.to_string(), allowed });
            }
        }
        Ok(())
    }

    /// The curve of each device's rate, from the start of the run, ramp included (devices that are not yet
    /// connected have nothing due, see [`FleetPlan::first_frame_ns`]).
    pub fn rate_curve(&self) -> RateCurve {
        let surges: Vec<Surge> = self
            .bursts
            .iter()
            .map(|burst| Surge {
                start_ns: ns(self.ramp_s + burst.at_s),
                length_ns: ns(burst.for_s),
                factor: burst.factor,
            })
            // Nothing is due during the ramp: what is measured is the hold.
            .chain([Surge { start_ns: 0, length_ns: self.first_frame_ns(), factor: 0.0 }])
            .collect();
        RateCurve::new(self.frames_per_s, &surges)
    }

    /// When the ramp is over, ns from the start of the run.
    pub fn first_frame_ns(&self) -> u64 {
        ns(self.ramp_s)
    }

    /// When the last frame and push may be due, ns from the start of the run.
    pub fn end_ns(&self) -> u64 {
        ns(self.ramp_s + self.duration_s)
    }

    /// How long devices wait at the end for what is still owed.
    pub fn drain(&self) -> Duration {
        Duration::from_nanos(ns(self.drain_s))
    }

    /// Longest wait before another attempt.
    pub fn backoff_max(&self) -> Duration {
        Duration::from_nanos(ns(self.backoff_s_max))
    }

    /// When the storms cut all connections, ascending, ns from the start of the run.
    pub fn storms_ns(&self) -> Vec<u64> {
        let mut storms: Vec<u64> = self.storms_at_s.iter().map(|at| ns(self.ramp_s + at)).collect();
        storms.sort_unstable();
        storms
    }

    /// Frames in a second over the whole fleet, without bursts.
    pub fn frames_per_s_total(&self) -> f64 {
        f64::from(self.devices) * self.frames_per_s
    }

    /// Bytes a frame really takes in the binary form.
    pub fn frame_bytes_binary(&self) -> usize {
        self.frame_bytes.max(BINARY_BYTES_MIN)
    }
}

fn ns(seconds: f64) -> u64 {
    whole(seconds * 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_plan_is_the_demo() {
        assert_eq!(FleetPlan::parse(""), Ok(FleetPlan::default()));
    }

    #[test]
    fn a_plan_that_is_written_out_reads_back() {
        let plan = FleetPlan {
            bursts: vec![Burst { at_s: 1.0, for_s: 2.0, factor: 5.0 }],
            storms_at_s: vec![3.0],
            run: Some(7),
            ..FleetPlan::default()
        };
        assert_eq!(FleetPlan::parse(&toml::to_string(&plan).unwrap()), Ok(plan));
    }

    #[test]
    fn a_wrong_value_is_refused_by_key_value_and_bounds() {
        for (text, line) in [
            ("devices = 0", "devices = 0: must be between 1 and 1000000"),
            ("qos = 3", "qos = 3: must be 0 to 2"),
            ("inflight_max = 0", "inflight_max = 0: must be 1 to 65535"),
            ("frames_per_s = nan", "frames_per_s = NaN: must be 0 to 10000"),
            ("ramp_s = -1.0", "ramp_s = -1: must be seconds, at most a year"),
            ("duration_s = 0.0", "duration_s = 0: must be more than 0 seconds, at most a year"),
            (
                "duration_s = 5.0\nstorms_at_s = [5.0]",
                "storms_at_s = [5.0]: must be at most 64 times in seconds, each before the end of duration_s",
            ),
            ("client_id_prefix = \"a/b\"", "client_id_prefix = a/b: must be 1 to 32 of A-Z a-z 0-9 _ -"),
            ("subscribe = false", "pushes_per_s = 50: must be 0 to 100000, and 0 without subscribe"),
        ] {
            assert_eq!(FleetPlan::parse(text).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn a_value_that_came_by_an_option_is_refused_by_that() {
        let options = [("devices", "--devices")];
        let line = |text| FleetPlan::parse(text).unwrap_err().to_line(&options);
        assert_eq!(line("devices = 0"), "--devices 0: must be between 1 and 1000000");
        assert_eq!(line("qos = 3"), "qos = 3: must be 0 to 2");
    }

    #[test]
    fn gateways_that_are_not_there_are_refused() {
        let plan = FleetPlan { home_gateways: 2, return_weights: vec![1, 2, 3], ..FleetPlan::default() };
        assert!(plan.check_gateways(3).is_ok());
        for (gateways, key) in [(2, "return_weights = 3"), (1, "home_gateways = 2"), (0, "home_gateways = 2")]
        {
            let error = plan.check_gateways(gateways).unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
        assert!(FleetPlan::default().check_gateways(0).is_err());
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused_by_name() {
        let error = FleetPlan::parse("device = 5").unwrap_err().to_string();
        assert!(error.contains("unknown field `device`"), "{error}");
    }

    #[test]
    fn the_mix_gives_each_dialect_its_weight() {
        let mix = Mix { mqtt_311: 2, mqtt_5: 0, mqtt_websocket: 1, json: 1 };
        let dialects: Vec<Dialect> = (0..4).map(|device| mix.dialect_of(device)).collect();
        assert_eq!(dialects, [Dialect::Mqtt311, Dialect::Mqtt311, Dialect::MqttWebSocket, Dialect::Json]);
    }

    #[test]
    fn nothing_is_due_before_the_ramp_is_over() {
        let plan = FleetPlan { ramp_s: 2.0, frames_per_s: 10.0, ..FleetPlan::default() };
        let schedule = crate::schedule::Schedule::new(plan.rate_curve(), 0.5, plan.end_ns());
        assert_eq!(schedule.next_due_ns(), Some(2_050_000_000));
    }

    #[test]
    fn the_scenarios_that_ship_are_valid_plans() {
        for (name, text) in [
            ("smoke", include_str!("../scenarios/smoke.toml")),
            ("storm", include_str!("../scenarios/storm.toml")),
            ("burst", include_str!("../scenarios/burst.toml")),
        ] {
            assert!(FleetPlan::parse(text).is_ok(), "{name}");
        }
    }
}
