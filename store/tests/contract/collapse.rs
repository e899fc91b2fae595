//! Messages that take the place of older ones, and streams that take no more.

use holdfast_store::contract::{Reply, Request};
use holdfast_store::{Bounds, StreamBounds, WhenFull};

use crate::world::{ALICE, BOUNDS, Bench, at, device, filter};

fn texts(bench: &Bench, stream: &holdfast_wire::session_record::StreamKey) -> Vec<(u64, String)> {
    bench.read(stream, 0).0
}

fn waiting(offset: u64, text: &str) -> (u64, String) {
    (offset, text.to_owned())
}

pub(crate) fn a_newer_message_under_a_key_takes_the_olders_place(bench: &Bench) {
    bench.open("d", ALICE, 60);
    let stream = device("d");
    for (text, key, offset) in [("a1", "a", 1), ("b1", "b", 2), ("a2", "a", 4)] {
        if offset == 4 {
            assert_eq!(bench.append(std::slice::from_ref(&stream), "plain"), [at(stream.clone(), 3)]);
        }
        assert_eq!(
            bench.append_under(std::slice::from_ref(&stream), text, key),
            [at(stream.clone(), offset)]
        );
    }
    assert_eq!(texts(bench, &stream), [waiting(2, "b1"), waiting(3, "plain"), waiting(4, "a2")]);
    assert_eq!(bench.read(&stream, 3), (vec![waiting(4, "a2")], 4));
    assert_eq!(bench.read_at_most(&stream, 0, 2, u32::MAX).0, [waiting(2, "b1"), waiting(3, "plain")]);
    assert_eq!(bench.lookup("d").unwrap().pending, 3);
    bench.append_under(std::slice::from_ref(&stream), "a3", "a");
    assert_eq!(texts(bench, &stream), [waiting(2, "b1"), waiting(3, "plain"), waiting(5, "a3")]);
}

pub(crate) fn what_was_settled_is_not_replaced(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    let stream = device("d");
    bench.append_under(std::slice::from_ref(&stream), "a1", "a");
    bench.append(std::slice::from_ref(&stream), "plain");
    bench.save("d", epoch, vec![at(stream.clone(), 1)]);
    assert_eq!(bench.append_under(std::slice::from_ref(&stream), "a2", "a"), [at(stream.clone(), 3)]);
    assert_eq!(texts(bench, &stream), [waiting(2, "plain"), waiting(3, "a2")]);
    bench.save("d", epoch, vec![at(stream.clone(), 3)]);
    assert_eq!(bench.read(&stream, 0), (vec![], 3));
    assert_eq!(bench.append_under(std::slice::from_ref(&stream), "a3", "a"), [at(stream.clone(), 4)]);
    assert_eq!(texts(bench, &stream), [waiting(4, "a3")]);
}

pub(crate) fn streams_of_filters_pass_a_collapse_key_over(bench: &Bench) {
    bench.subscriber("d", "a");
    for text in ["1", "2"] {
        bench.append_under(&[filter("a"), device("d")], text, "a");
    }
    assert_eq!(texts(bench, &filter("a")), [waiting(1, "1"), waiting(2, "2")]);
    assert_eq!(texts(bench, &device("d")), [waiting(2, "2")]);
}

pub(crate) fn a_key_that_is_used_for_ever_takes_the_room_of_one_message(bench: &Bench) {
    bench.open("d", ALICE, 60);
    let stream = device("d");
    bench.append(std::slice::from_ref(&stream), "first");
    let kilobyte = "x".repeat(940);
    for number in 0..200 {
        let appended = bench.append_under(std::slice::from_ref(&stream), &kilobyte, "a");
        assert_eq!(appended, [at(stream.clone(), number + 2)]);
    }
    assert_eq!(bench.offsets(&stream), [1, 201], "nothing gave way to it");
}

fn newest_goes(bench: &Bench) -> Bench {
    let stream = StreamBounds { when_full: WhenFull::DropNewest, ..BOUNDS.stream };
    bench.another(Bounds { stream, ..BOUNDS })
}

pub(crate) fn a_stream_that_keeps_what_it_has_says_that_it_is_full(bench: &Bench) {
    let bench = newest_goes(bench);
    let epoch = bench.subscriber("d", "a");
    let most = u64::from(BOUNDS.stream.messages_max);
    for _ in 0..most {
        bench.append(&[filter("a")], "x");
    }
    let append = || {
        let (message, streams) = (bench.message("t", "y"), vec![filter("a"), device("d")]);
        match bench.ask(Request::Append { streams, message, collapse_key: None }) {
            Ok(Reply::Appended { at, full }) => (at, full),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(append(), (vec![at(device("d"), 1)], vec![filter("a")]));
    assert_eq!(bench.offsets(&filter("a")), (1..=most).collect::<Vec<_>>());
    bench.save("d", epoch, vec![at(filter("a"), 1)]);
    assert_eq!(append(), (vec![at(filter("a"), most + 1), at(device("d"), 2)], vec![]));
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000);
    assert_eq!(append().1, [], "those that are too old make room");
}

pub(crate) fn a_stream_that_keeps_what_it_has_is_bounded_in_bytes(bench: &Bench) {
    let bench = newest_goes(bench);
    bench.open("d", ALICE, 60);
    let kilobyte = "x".repeat(940);
    let mut taken = 0;
    while taken < 100 && !bench.append(&[device("d")], &kilobyte).is_empty() {
        taken += 1;
    }
    assert_eq!(taken, 8);
    assert_eq!(bench.offsets(&device("d")), (1..=8).collect::<Vec<_>>());
}

pub(crate) fn a_full_stream_takes_what_replaces_an_older_message(bench: &Bench) {
    let bench = newest_goes(bench);
    bench.open("d", ALICE, 60);
    let most = u64::from(BOUNDS.stream.messages_max);
    for number in 0..most {
        bench.append_under(&[device("d")], "x", &number.to_string());
    }
    assert_eq!(bench.append_under(&[device("d")], "y", "other"), []);
    assert_eq!(bench.append_under(&[device("d")], "y", "7"), [at(device("d"), most + 1)]);
    assert_eq!(bench.offsets(&device("d")).len() as u64, most);
}
