//! One holder at a time.

use holdfast_store::contract::{Reply, Request};

use crate::world::Bench;

fn take(bench: &Bench, name: &str, holder: u64) -> bool {
    match bench.ask(Request::TakeLock { name: name.into(), holder, for_ms: 5_000 }) {
        Ok(Reply::Lock(taken)) => taken,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_lock_has_one_holder_until_its_time_is_over(bench: &Bench) {
    assert!(take(bench, "reaper", 1));
    assert!(!take(bench, "reaper", 2));
    assert!(take(bench, "another", 2));
    bench.pass_s(5);
    assert!(take(bench, "reaper", 2));
    assert!(!take(bench, "reaper", 1));
}

pub(crate) fn who_holds_a_lock_keeps_it_by_asking_again(bench: &Bench) {
    for _ in 0..5 {
        assert!(take(bench, "reaper", 1));
        assert!(!take(bench, "reaper", 2));
        bench.pass_s(4);
    }
}
