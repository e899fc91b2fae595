//! Nothing grows without a bound (promise P7).

use holdfast_store::contract::{Request, StoreError};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::QoS;

use crate::world::{ALICE, BOUNDS, Bench, at, device, filter};

pub(crate) fn a_stream_keeps_its_newest_messages_and_leaves_a_gap(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    let most = u64::from(BOUNDS.stream.messages_max);
    for _ in 0..most + 7 {
        bench.append(&[filter("a")], "x");
    }
    assert_eq!(bench.offsets(&filter("a")), (8..=most + 7).collect::<Vec<_>>());
    // A reader from before the gap goes on behind it.
    bench.save("d", epoch, vec![at(filter("a"), 3)]);
    assert_eq!(bench.offsets(&filter("a"))[0], 8);
    bench.save("d", epoch, vec![at(filter("a"), 9)]);
    assert_eq!(bench.offsets(&filter("a"))[0], 10);
}

pub(crate) fn a_stream_forgets_messages_that_are_too_old(bench: &Bench) {
    bench.subscriber("d", "a");
    bench.append(&[filter("a"), device("d")], "old");
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000 - 10);
    bench.append(&[filter("a")], "young");
    bench.pass_s(10);
    assert_eq!(bench.offsets(&filter("a")), [2]);
    assert_eq!(bench.read(&device("d"), 0), (vec![], 1));
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000);
    assert_eq!(bench.read(&filter("a"), 0), (vec![], 2));
    assert_eq!(bench.append(&[filter("a"), device("d")], "new"), [at(filter("a"), 3), at(device("d"), 2)]);
}

/// A kilobyte, more or less: eight fill a stream, and twenty the store.
fn kilobyte() -> String {
    "x".repeat(940)
}

/// A session that holds `filter`, with messages of a kilobyte in the filter's stream.
fn fill(bench: &Bench, name: &str, messages: u32) {
    bench.subscriber(&format!("reader of {name}"), name);
    for _ in 0..messages {
        bench.append(&[filter(name)], &kilobyte());
    }
}

pub(crate) fn a_full_store_takes_on_and_cuts_the_stream_that_holds_most(bench: &Bench) {
    for (name, messages) in [("small", 5), ("large", 8), ("middle", 7), ("new", 0)] {
        fill(bench, name, messages);
    }
    for offset in 1..=4 {
        assert_eq!(bench.append(&[filter("new")], &kilobyte()), [at(filter("new"), offset)]);
    }
    let held = ["small", "large", "middle", "new"].map(|name| bench.offsets(&filter(name)).len());
    assert_eq!((held[0], held[3]), (5, 4), "the smaller ones keep all they have: {held:?}");
    assert_eq!(held[1] + held[2], 11, "no more goes than must: {held:?}");
    assert!(held[1].abs_diff(held[2]) <= 1, "the larger ones share in it: {held:?}");
    assert_eq!(bench.offsets(&filter("large")).last(), Some(&8), "the oldest go first");
}

pub(crate) fn a_stream_at_its_own_bound_makes_its_own_room(bench: &Bench) {
    for (name, messages) in [("a", 8), ("b", 8), ("c", 4)] {
        fill(bench, name, messages);
    }
    for _ in 0..20 {
        bench.append(&[filter("a")], &kilobyte());
    }
    assert_eq!(bench.offsets(&filter("a")), (21..=28).collect::<Vec<_>>());
    assert_eq!(bench.offsets(&filter("b")).len(), 8);
    assert_eq!(bench.offsets(&filter("c")).len(), 4);
}

pub(crate) fn who_lets_messages_pile_up_costs_only_itself(bench: &Bench) {
    let greedy = bench.open("greedy", ALICE, 60).epoch;
    let filters = ["1", "2", "3", "4"];
    bench.subscribe("greedy", greedy, &filters.map(|filter| (filter, QoS::AtLeastOnce)));
    bench.close("greedy", greedy, 60);
    for _ in 0..10 {
        bench.append(&filters.map(filter), &kilobyte());
    }
    let active = bench.subscriber("active", "a");
    for offset in 1..=50 {
        assert_eq!(bench.append(&[filter("a")], &kilobyte()), [at(filter("a"), offset)]);
        if offset > 2 {
            assert_eq!(bench.offsets(&filter("a")), [offset - 2, offset - 1, offset]);
            bench.save("active", active, vec![at(filter("a"), offset - 2)]);
        }
    }
    bench.append(&[device("greedy")], "small");
    assert_eq!(bench.offsets(&device("greedy")), [1]);
}

pub(crate) fn retained_messages_take_at_most_half_of_the_store(bench: &Bench) {
    bench.subscriber("d", "a");
    let retain = |topic: &str| bench.ask(Request::Retain { message: bench.message(topic, &kilobyte()) });
    let mut taken = 0;
    while taken < 100 && retain(&taken.to_string()).is_ok() {
        taken += 1;
    }
    assert!((8..=10).contains(&taken), "{taken} messages of a kilobyte fit into 10,000");
    assert!(matches!(retain("one more"), Err(StoreError::Full(_))));
    assert!(retain("0").is_ok(), "one that replaces another needs no further room");
    for _ in 0..8 {
        bench.append(&[filter("a")], &kilobyte());
    }
    assert_eq!(bench.offsets(&filter("a")).len(), 8, "streams have the other half");
    bench.done(Request::Retain { message: bench.message("0", "") });
    assert!(retain("one more").is_ok());
}

pub(crate) fn what_does_not_fit_into_an_empty_store_is_refused(bench: &Bench) {
    let streams = ["a", "b", "c"];
    for name in streams {
        fill(bench, name, 1);
    }
    let message = bench.message("t", &"x".repeat(7_000));
    let answer =
        bench.ask(Request::Append { streams: streams.map(filter).to_vec(), message, collapse_key: None });
    assert!(matches!(answer, Err(StoreError::Full(_))), "{answer:?}");
    for name in streams {
        assert_eq!(bench.offsets(&filter(name)), [1], "nothing gave way to what was refused");
    }
}

pub(crate) fn a_message_that_no_stream_may_hold_is_refused(bench: &Bench) {
    bench.subscriber("d", "a");
    let message = bench.message("t", &"x".repeat(BOUNDS.stream.bytes_max as usize));
    let answer = bench.ask(Request::Append { streams: vec![filter("a")], message, collapse_key: None });
    assert!(matches!(answer, Err(StoreError::Full(_))), "{answer:?}");
    assert_eq!(bench.append(&[filter("a")], "fits"), [at(filter("a"), 1)]);
}

pub(crate) fn sessions_are_bounded(bench: &Bench) {
    let open = |client: String| {
        let client = ClientId::new(&client);
        bench.ask(Request::Open { client, owner: ALICE, clean_start: false, expiry_s: 0, will: None })
    };
    for number in 0..BOUNDS.sessions_max {
        open(number.to_string()).unwrap();
    }
    assert!(matches!(open("one more".to_owned()), Err(StoreError::Full(_))));
    assert!(open("7".to_owned()).is_ok(), "a takeover needs no further place");
}
