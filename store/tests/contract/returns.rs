//! A store that has lost its data, and sessions that come back to it one after the other while messages come in.

use holdfast_store::contract::{Reply, Request};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, Offset, SessionRecord, StreamKey};

use crate::world::{ALICE, Bench, at, device, filter, subscription};

/// Under epochs that the store gave out before it lost its data.
fn comes_back(bench: &Bench, client: &str, epoch: Epoch, name: &str) -> Vec<Cursor> {
    let request = Request::Restore {
        client: ClientId::new(client),
        owner: ALICE,
        epoch,
        expiry_s: 60,
        will: None,
        session: SessionRecord {
            subscriptions: vec![subscription(name, QoS::AtLeastOnce)],
            ..SessionRecord::default()
        },
    };
    match bench.ask(request) {
        Ok(Reply::Subscribed(mut cursors)) => {
            cursors.sort_by(|a, b| a.stream.cmp(&b.stream));
            cursors
        }
        other => panic!("{other:?}"),
    }
}

fn last_place(bench: &Bench, stream: &StreamKey) -> Offset {
    match bench.ask_as_it_is(Request::Append {
        streams: vec![stream.clone()],
        message: bench.message("t", "x"),
        collapse_key: None,
    }) {
        Ok(Reply::Appended { at, .. }) => at[0].acked,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn offsets_go_on_behind_those_of_a_stream_that_was_lost(bench: &Bench) {
    for name in ["a", "$share/g/a"] {
        let epoch = bench.subscriber("d", name);
        let streams = [filter(name), device("d")];
        let before = streams.each_ref().map(|stream| last_place(bench, stream));
        bench.pass_s(1);
        if !bench.loses_its_data() {
            return;
        }
        comes_back(bench, "d", epoch, name);
        let after = streams.each_ref().map(|stream| last_place(bench, stream));
        assert!(after[0] > before[0] + 1 && after[1] > before[1] + 1, "{before:?} and {after:?}");
        assert!(after.iter().all(|place| *place < 1 << 53));
    }
}

pub(crate) fn a_stream_that_is_made_again_begins_behind_the_former_one(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    let before = last_place(bench, &filter("a"));
    bench.unsubscribe("d", epoch, &["a"]);
    bench.pass_s(1);
    bench.subscribe("d", epoch, &[("a", QoS::AtLeastOnce)]);
    assert!(last_place(bench, &filter("a")) > before + 1);
}

pub(crate) fn what_the_first_has_settled_waits_for_those_who_come_back_later(bench: &Bench) {
    let (first, second) = (bench.subscriber("first", "a"), bench.subscriber("second", "a"));
    if !bench.loses_its_data() {
        return;
    }
    assert_eq!(bench.append(&[filter("a")], "nobody is back"), []);
    assert_eq!(comes_back(bench, "first", first, "a"), [at(filter("a"), 0), at(device("first"), 0)]);
    bench.append(&[filter("a")], "1");
    bench.save("first", first, vec![at(filter("a"), 1)]);
    bench.append(&[filter("a")], "2");
    let written = comes_back(bench, "second", second, "a");
    assert_eq!(written[0], at(filter("a"), 0), "it was a subscriber all along");
    assert_eq!(bench.offsets(&filter("a")), [1, 2]);
    // Who subscribes now does so from now on.
    let third = bench.open("third", ALICE, 60).epoch;
    assert_eq!(bench.subscribe("third", third, &[("a", QoS::AtLeastOnce)]), [at(filter("a"), 2)]);
    bench.save("second", second, vec![at(filter("a"), 2)]);
    bench.unsubscribe("third", third, &["a"]);
    assert_eq!(bench.offsets(&filter("a")), [1, 2]);
    bench.pass_s(61);
    bench.save("first", first, vec![at(filter("a"), 2)]);
    assert!(bench.offsets(&filter("a")).is_empty(), "everyone who lives is back");
}

pub(crate) fn what_is_kept_for_those_who_come_back_gives_way_to_what_is_unread(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    if !bench.loses_its_data() {
        return;
    }
    comes_back(bench, "d", epoch, "a");
    for place in 1..=70 {
        assert_eq!(bench.append(&[filter("a")], "x"), [at(filter("a"), place)]);
        if place == 60 {
            bench.save("d", epoch, vec![at(filter("a"), 40)]);
        }
    }
    // Fifty fit, and thirty are unread.
    assert_eq!(bench.offsets(&filter("a")), (41..=70).collect::<Vec<_>>());
}

pub(crate) fn a_message_of_a_group_waits_for_nobody_who_has_not_been_given_it(bench: &Bench) {
    let name = "$share/g/a";
    let (first, second) = (bench.subscriber("first", name), bench.subscriber("second", name));
    assert_eq!(bench.append(&[filter(name)], "lost").len(), 1);
    assert_eq!(bench.claim(("second", second), name, 0, 1).0.len(), 1);
    bench.pass_s(1);
    if !bench.loses_its_data() {
        return;
    }
    comes_back(bench, "first", first, name);
    bench.append(&[filter(name)], "1");
    assert_eq!(bench.claim(("first", first), name, 0, 10).0, [(1, "1".to_owned())]);
    bench.save("first", first, vec![at(filter(name), 1)]);
    assert!(bench.offsets(&filter(name)).is_empty());
    let counted = || bench.beginning_of(Some(&ClientId::new("second")), &filter(name));
    let before = counted();
    assert_eq!(comes_back(bench, "second", second, name)[0], at(filter(name), 0));
    assert!(counted() > before, "it counts on behind all that it had");
    bench.append(&[filter(name)], "2");
    assert_eq!(bench.claim(("second", second), name, 0, 10).0, [(1, "2".to_owned())]);
}
