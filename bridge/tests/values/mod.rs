//! The metrics of a process. A test that reads them is alone in its own.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Keeps the last value of everything, by name.
#[derive(Clone, Default)]
pub(crate) struct Values(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

impl Values {
    pub(crate) fn begin_anew(&self) {
        self.0.lock().unwrap().values().for_each(|value| value.store(0, Ordering::Release));
    }

    fn of(&self, name: &str) -> Arc<AtomicU64> {
        Arc::clone(self.0.lock().unwrap().entry(name.to_owned()).or_default())
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.of(name).load(Ordering::Acquire)
    }

    /// Those that hold whole numbers.
    pub(crate) fn gauge(&self, name: &str) -> i64 {
        f64::from_bits(self.count(name)) as i64
    }
}

impl Recorder for Values {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key.name()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key.name()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
