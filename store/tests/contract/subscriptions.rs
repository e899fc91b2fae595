//! Subscriptions, the streams they hold alive, and what is read from them.

use holdfast_store::contract::{Reply, Request};
use holdfast_wire::mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

use crate::world::{ALICE, BOB, Bench, at, device, filter, text_of};

pub(crate) fn a_subscription_begins_at_the_end_of_its_stream(bench: &Bench) {
    let early = bench.open("early", ALICE, 60).epoch;
    assert_eq!(bench.subscribe("early", early, &[("a", AtLeastOnce)]), [at(filter("a"), 0)]);
    bench.append(&[filter("a")], "1");
    let late = bench.open("late", ALICE, 60).epoch;
    assert_eq!(bench.subscribe("late", late, &[("a", ExactlyOnce)]), [at(filter("a"), 1)]);
    assert_eq!(bench.read(&filter("a"), 0), (vec![(1, "1".to_owned())], 1));
}

pub(crate) fn subscribing_again_keeps_the_cursor(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.append(&[filter("a")], "1");
    assert_eq!(bench.subscribe("d", epoch, &[("a", ExactlyOnce)]), [at(filter("a"), 0)]);
    let subscriptions = bench.lookup("d").unwrap().subscriptions;
    assert_eq!(subscriptions.len(), 1);
    assert_eq!(subscriptions[0].qos, ExactlyOnce);
}

pub(crate) fn a_filter_with_qos_zero_has_no_stream(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    assert_eq!(bench.subscribe("d", epoch, &[("a", AtMostOnce)]), []);
    assert!(bench.durable_filters().is_empty());
    assert_eq!(bench.lookup("d").unwrap().subscriptions.len(), 1);
}

pub(crate) fn a_filter_of_the_devices_own_is_among_those_that_a_starting_bridge_learns(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    let own = "devices/d/push";
    assert_eq!(bench.subscribe("d", epoch, &[(own, AtLeastOnce)]), [at(filter(own), 0)]);
    bench.close("d", epoch, 60);
    assert_eq!(bench.durable_filters(), [Box::from(own)]);
    assert_eq!(bench.append(&[device("d")], "1"), [at(device("d"), 1)]);
}

pub(crate) fn lowering_the_qos_to_zero_drops_the_cursor(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.subscribe("d", epoch, &[("a", AtMostOnce)]);
    assert!(bench.durable_filters().is_empty());
    bench.close("d", epoch, 60);
    assert_eq!(bench.open("d", ALICE, 60).session.unwrap().cursors, [at(device("d"), 0)]);
}

pub(crate) fn a_session_without_expiry_holds_no_stream(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 0).epoch;
    assert_eq!(bench.subscribe("d", epoch, &[("a", AtLeastOnce)]), []);
    assert!(bench.durable_filters().is_empty());
}

pub(crate) fn unsubscribing_drops_the_stream_with_its_last_reader(bench: &Bench) {
    let first = bench.subscriber("first", "a");
    let second = bench.subscriber("second", "a");
    bench.append(&[filter("a")], "1");
    bench.unsubscribe("first", first, &["a"]);
    assert_eq!(bench.offsets(&filter("a")), [1]);
    bench.unsubscribe("second", second, &["a"]);
    assert_eq!(bench.read(&filter("a"), 0), (vec![], 0));
    assert_eq!(bench.append(&[filter("a")], "2"), []);
}

pub(crate) fn unknown_filters_do_no_harm(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    bench.unsubscribe("d", epoch, &["b", "b", ""]);
    assert_eq!(bench.durable_filters(), [Box::from("a")]);
}

pub(crate) fn a_message_is_appended_once_to_each_stream_that_exists(bench: &Bench) {
    bench.subscriber("d", "a");
    bench.subscriber("e", "+");
    let to = [filter("a"), filter("nobody"), device("d"), filter("+"), filter("a"), device("nobody")];
    let mut appended = bench.append(&to, "1");
    appended.sort_by(|a, b| a.stream.cmp(&b.stream));
    assert_eq!(appended, [at(filter("+"), 1), at(filter("a"), 1), at(device("d"), 1)]);
    assert_eq!(bench.offsets(&filter("a")), [1]);
}

pub(crate) fn a_device_without_a_persistent_session_has_no_stream(bench: &Bench) {
    bench.open("d", ALICE, 0);
    assert_eq!(bench.append(&[device("d")], "1"), []);
    let epoch = bench.open("e", ALICE, 5).epoch;
    bench.close("e", epoch, 5);
    assert_eq!(bench.append(&[device("e")], "1"), [at(device("e"), 1)]);
    bench.pass_s(5);
    assert_eq!(bench.append(&[device("e")], "2"), []);
}

pub(crate) fn a_device_stream_goes_on_where_it_was_read_to(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    for offset in 1..=3 {
        assert_eq!(bench.append(&[device("d")], "x"), [at(device("d"), offset)]);
    }
    bench.save("d", epoch, vec![at(device("d"), 2)]);
    assert_eq!(bench.offsets(&device("d")), [3]);
    bench.save("d", epoch, vec![at(device("d"), 3)]);
    assert_eq!(bench.read(&device("d"), 3), (vec![], 3));
    assert_eq!(bench.append(&[device("d")], "x"), [at(device("d"), 4)]);
    bench.close("d", epoch, 60);
    assert_eq!(bench.offsets(&device("d")), [4], "a close without progress settles nothing");
    assert_eq!(bench.open("d", BOB, 60).session.unwrap().cursors, [at(device("d"), 3)]);
}

pub(crate) fn reading_keeps_to_its_limits_and_the_first_message_always_comes(bench: &Bench) {
    bench.subscriber("d", "a");
    for _ in 0..5 {
        bench.append(&[filter("a")], "a message");
    }
    let offsets = |after, messages_max, bytes_max| {
        let (messages, end) = bench.read_at_most(&filter("a"), after, messages_max, bytes_max);
        assert_eq!(end, 5);
        messages.into_iter().map(|(offset, _)| offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets(0, 2, u32::MAX), [1, 2]);
    assert_eq!(offsets(2, 100, 0), [3]);
    assert_eq!(offsets(3, 100, 1), [4]);
    assert!(offsets(5, 100, 100).is_empty());
    assert!(offsets(u64::MAX, 100, 100).is_empty());
    assert!(offsets(0, 0, 100).is_empty());
}

pub(crate) fn an_expired_message_is_still_read_from_a_stream(bench: &Bench) {
    bench.subscriber("d", "a");
    let message = bench.message_until("a", "too late", bench.now_ms() + 1_000);
    bench.ask(Request::Append { streams: vec![filter("a")], message, collapse_key: None }).unwrap();
    bench.pass_s(2);
    assert_eq!(bench.offsets(&filter("a")), [1]);
}

pub(crate) fn durable_filters_are_all_filters_that_have_a_stream(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    bench.subscribe("d", epoch, &[("b", AtLeastOnce), ("a/#", ExactlyOnce), ("c", AtMostOnce)]);
    bench.append(&[device("d")], "1");
    let mut filters = bench.durable_filters();
    filters.sort();
    assert_eq!(filters, [Box::from("a/#"), Box::from("b")]);
}

pub(crate) fn many_readers_keep_a_message_until_the_slowest_has_it(bench: &Bench) {
    let readers: Vec<_> = (0..10).map(|number| number.to_string()).collect();
    let epochs: Vec<_> = readers.iter().map(|reader| bench.subscriber(reader, "a")).collect();
    for text in ["1", "2"] {
        bench.append(&[filter("a")], text);
    }
    for (reader, epoch) in readers.iter().zip(&epochs).skip(1) {
        bench.save(reader, *epoch, vec![at(filter("a"), 2)]);
    }
    let Ok(Reply::Messages { messages, .. }) =
        bench.ask(Request::Read { stream: filter("a"), after: 0, messages_max: 9, bytes_max: 9_999 })
    else {
        panic!("a read is answered with messages")
    };
    assert_eq!(messages.iter().map(|(_, message)| text_of(message)).collect::<Vec<_>>(), ["1", "2"]);
    bench.close(&readers[0], epochs[0], 0);
    assert_eq!(bench.read(&filter("a"), 0), (vec![], 2));
}
