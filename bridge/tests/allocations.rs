//! A frame that nobody listens to allocates nothing of its own on its way from the link into the log.

mod shard;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{InterestKind, ToBridge};
use shard::*;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to `GlobalAlloc::alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to `GlobalAlloc::dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, length: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to `GlobalAlloc::realloc`'s contract.
        unsafe { System.realloc(pointer, layout, length) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn frames_cost_allocations_by_the_batch_and_not_each() {
    const ROUND: u64 = 20_000;
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    // Somebody listens, but to something else: the look into the table is part of the way.
    rig.session("reader", owner(1), &["other/#"]);
    shard.announce(InterestKind::Filter, "other/#", true);
    let mut last = 0;
    for round in 0..4 {
        let mut bytes = Vec::new();
        for sequence in last + 1..=last + ROUND {
            let mut uplink = uplink(sequence, "devices/x/accel", "21.5");
            uplink.epoch = Epoch(1);
            ToBridge::Uplink(uplink).encode(&mut bytes);
        }
        last += ROUND;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let mut stream = shard.stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || stream.write_all(&bytes));
        shard.until_settled(ROUND);
        writer.join().unwrap().unwrap();
        let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
        // The first rounds grow buffers; the rest is the batches' and this test's own.
        assert!(round < 2 || allocated < ROUND / 20, "{allocated} allocations for {ROUND} frames");
    }
}
