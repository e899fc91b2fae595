//! Retained messages.

use holdfast_store::contract::{Reply, Request};

use crate::world::{Bench, text_of};

fn retain(bench: &Bench, topic: &str, text: &str) {
    bench.done(Request::Retain { message: bench.message(topic, text) });
}

fn page(bench: &Bench, filter: &str, after: Option<&str>, messages_max: u32) -> Vec<String> {
    page_within(bench, filter, after, (messages_max, u32::MAX))
}

fn page_within(
    bench: &Bench,
    filter: &str,
    after: Option<&str>,
    (messages_max, bytes_max): (u32, u32),
) -> Vec<String> {
    let after = after.map(Into::into);
    match bench.ask(Request::ReadRetained { filter: filter.into(), after, messages_max, bytes_max }) {
        Ok(Reply::Retained(messages)) => {
            messages.iter().map(|message| format!("{}={}", message.view().topic, text_of(message))).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn read(bench: &Bench, filter: &str) -> Vec<String> {
    page(bench, filter, None, 1_000)
}

pub(crate) fn a_topic_keeps_its_last_retained_message(bench: &Bench) {
    retain(bench, "a", "1");
    retain(bench, "a", "2");
    assert_eq!(read(bench, "a"), ["a=2"]);
}

pub(crate) fn an_empty_payload_removes_the_retained_message(bench: &Bench) {
    retain(bench, "a", "1");
    retain(bench, "a", "");
    retain(bench, "never there", "");
    assert!(read(bench, "#").is_empty());
}

pub(crate) fn retained_messages_are_read_page_by_page_in_order(bench: &Bench) {
    for topic in ["a/3", "a/1", "b", "a/2", "a-b"] {
        retain(bench, topic, "x");
    }
    assert_eq!(page(bench, "a/+", None, 2), ["a/1=x", "a/2=x"]);
    assert_eq!(page(bench, "a/+", Some("a/2"), 2), ["a/3=x"]);
    assert_eq!(page(bench, "#", Some("a/3"), 2), ["b=x"]);
    assert_eq!(page(bench, "b", Some("a"), 2), ["b=x"]);
    assert!(page(bench, "a/+", Some("z"), 2).is_empty());
    assert!(page(bench, "#", None, 0).is_empty());
}

pub(crate) fn a_page_of_retained_messages_ends_with_the_one_that_makes_it_long_enough(bench: &Bench) {
    // Of topics that are kept together, and of some that are not.
    for (filter, topics) in
        [("a/#", ["a/b/1", "a/b/2", "a/b/3", "a/b/4"]), ("+/x", ["b/x", "c/x", "d/x", "e/x"])]
    {
        let text = "x".repeat(100);
        for topic in topics {
            retain(bench, topic, &text);
        }
        let one = bench.message(topics[0], &text).as_bytes().len() as u32;
        for (bytes_max, count) in [(0, 1), (1, 1), (one, 1), (one + 1, 2), (2 * one + 1, 3), (9 * one, 4)] {
            let read = page_within(bench, filter, None, (1_000, bytes_max));
            assert_eq!(read.len(), count, "{filter}, {bytes_max} bytes");
        }
        let whole: Vec<_> = topics.iter().map(|topic| format!("{topic}={text}")).collect();
        assert_eq!(page_within(bench, filter, Some(topics[1]), (1_000, 1)), whole[2..3]);
        assert_eq!(page_within(bench, filter, Some(topics[1]), (1, 9 * one)), whole[2..3]);
    }
}

pub(crate) fn every_page_is_full_however_the_topics_are_spread(bench: &Bench) {
    // Many below one pair of levels, and many pairs.
    let mut topics: Vec<_> = (0..45).map(|number| format!("m/one/{number:02}")).collect();
    topics.extend((0..45).map(|number| format!("m/{number:02}/x")));
    topics.sort();
    for topic in &topics {
        retain(bench, topic, "x");
    }
    let whole: Vec<_> = topics.iter().map(|topic| format!("{topic}=x")).collect();
    for filter in ["#", "m/#"] {
        let mut read = Vec::new();
        for at in (0..topics.len()).step_by(30) {
            let after = at.checked_sub(1).map(|last| &*topics[last]);
            read.extend(page(bench, filter, after, 30));
            assert_eq!(read.len(), at + 30);
        }
        assert_eq!(read, whole, "{filter}");
    }
    assert!(page(bench, "+/none/y", None, 30).is_empty());
}

pub(crate) fn topics_with_a_dollar_are_not_found_by_wildcards(bench: &Bench) {
    retain(bench, "$SYS/up", "1");
    assert!(read(bench, "#").is_empty());
    assert!(read(bench, "+/up").is_empty());
    assert_eq!(read(bench, "$SYS/#"), ["$SYS/up=1"]);
}

pub(crate) fn an_expired_retained_message_is_not_read(bench: &Bench) {
    let soon = bench.now_ms() + 1_000;
    bench.done(Request::Retain { message: bench.message_until("a", "1", soon) });
    bench.done(Request::Retain { message: bench.message_until("b", "1", soon) });
    retain(bench, "b", "2");
    assert_eq!(read(bench, "+"), ["a=1", "b=2"]);
    bench.pass_s(1);
    assert_eq!(read(bench, "+"), ["b=2"]);
}

pub(crate) fn a_filter_finds_its_parent_topic_too(bench: &Bench) {
    for topic in ["a", "a/b", "a/b/c", "ab"] {
        retain(bench, topic, "x");
    }
    assert_eq!(read(bench, "a/#"), ["a=x", "a/b=x", "a/b/c=x"]);
    assert_eq!(read(bench, "+/b/#"), ["a/b=x", "a/b/c=x"]);
}
