//! Conversations on the way down: who hears a message, in which order, and what becomes of those who are away.

mod shard;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::push::{PushOutcome, PushRequest, PushTarget};
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{
    Handover, HandoverSettled, Interest, InterestKind, Outcome, RetainedRead, Takeover, ToBridge, Uplink,
};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::Request;
use shard::*;

const GROUP: InterestKind<'static> = InterestKind::Shared { group: "g", members: 1 };
const PUSH: InterestKind<'static> = InterestKind::Personal { level: 1 };

fn number(heard: &Heard) -> u64 {
    match heard {
        Heard::Deliver { delivery, .. } => *delivery,
        other => panic!("no delivery: {other:?}"),
    }
}

fn payload(heard: Heard) -> String {
    match heard {
        Heard::Deliver { payload, .. } => payload,
        other => panic!("no delivery: {other:?}"),
    }
}

#[test]
fn a_message_reaches_each_interested_shard_once_and_in_order() {
    let rig = Rig::start();
    let (mut publisher, mut subscriber) = (rig.shard(1), rig.shard(2));
    subscriber.announce(InterestKind::Filter, "a/+", false);
    subscriber.announce(InterestKind::Filter, "a/#", false);
    for sequence in 1..=200 {
        publisher.publish(uplink(sequence, "a/b", &sequence.to_string()));
    }
    for sequence in 1..=200 {
        assert_eq!(subscriber.hear(), Heard::deliver("subscribers", "a/b", &sequence.to_string()));
    }
    publisher.until_settled(200);
    assert_eq!(rig.logged().len(), 200, "what subscribers heard is in the log");

    subscriber.withdraw(InterestKind::Filter, "a/+");
    subscriber.withdraw(InterestKind::Filter, "a/#");
    publisher.publish(uplink(201, "a/b", "nobody"));
    publisher.until_settled(1);
    subscriber.announce(InterestKind::Filter, "b", false);
}

#[test]
fn qos_0_is_heard_in_order_too_and_never_stored() {
    let rig = Rig::start();
    let (mut publisher, mut subscriber) = (rig.shard(1), rig.shard(2));
    rig.session("reader", owner(2), &["a"]);
    subscriber.announce(InterestKind::Filter, "a", true);
    for sequence in 1..=50 {
        let payload = sequence.to_string();
        let message = message("a", QoS::AtMostOnce, &payload);
        publisher.publish(Uplink { packet_id: None, message, ..uplink(sequence, "a", "") });
    }
    for sequence in 1..=50 {
        assert_eq!(subscriber.hear(), Heard::deliver("subscribers", "a", &sequence.to_string()));
    }
    publisher.until_settled(50);
    assert!(rig.stream(StreamKey::Filter("a".into())).is_empty());
}

#[test]
fn filters_of_sessions_that_are_away_are_known_from_the_start() {
    let store = memory_store();
    let first = Rig::start_with(BridgeConfig::default(), store.clone());
    let epoch = first.session("away", owner(9), &["alerts/#", "$share/g/jobs"]);
    first.rest("away", epoch);
    drop(first);
    let rig = Rig::start_with(BridgeConfig::default(), store);
    let mut shard = rig.shard(1);
    shard.publish(uplink(1, "alerts/fire", "alert"));
    shard.publish(uplink(2, "jobs", "job"));
    shard.until_settled(2);
    assert_eq!(rig.stream(StreamKey::Filter("alerts/#".into())), ["alert"]);
    assert_eq!(rig.stream(StreamKey::Filter("$share/g/jobs".into())), ["job"]);
}

#[test]
fn a_lost_link_takes_its_interests_with_it() {
    let rig = Rig::start();
    let (mut publisher, mut subscriber) = (rig.shard(1), rig.shard(2));
    subscriber.announce(InterestKind::Filter, "a", false);
    drop(subscriber);
    let mut again = rig.shard(2);
    again.announce(InterestKind::Filter, "b", false);
    publisher.publish(uplink(1, "a", "gone"));
    publisher.publish(uplink(2, "b", "here"));
    assert_eq!(again.hear(), Heard::deliver("subscribers", "b", "here"));
    publisher.until_settled(2);
}

#[test]
fn retained_messages_are_read_by_those_who_come_later() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    for sequence in 1..=600 {
        let (topic, text) = (format!("state/{sequence:04}"), sequence.to_string());
        let mut uplink = uplink(sequence, &topic, &text);
        uplink.message.retain = true;
        shard.publish(uplink);
    }
    shard.until_settled(600);
    for (token, first, last) in [(5, 1, 250), (6, 251, 500), (7, 501, 600)] {
        let after = if first == 1 { String::new() } else { format!("state/{:04}", first - 1) };
        let read = RetainedRead { token, filter: "state/+", after: &after, messages_max: 250 };
        shard.say(&ToBridge::RetainedRead(read));
        for number in first..=last {
            let (topic, payload) = (format!("state/{number:04}"), number.to_string());
            assert_eq!(shard.hear(), Heard::Retained { token, topic, payload });
        }
        assert_eq!(shard.hear(), Heard::RetainedEnd { token, more: last < 600 });
    }
}

#[test]
fn a_page_of_retained_messages_ends_before_it_is_too_long() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    let text = "x".repeat(100_000);
    for sequence in 1..=5 {
        let topic = format!("state/{sequence}");
        let mut uplink = uplink(sequence, &topic, &text);
        uplink.message.retain = true;
        shard.publish(uplink);
    }
    shard.until_settled(5);
    let mut after = String::new();
    let mut pages = Vec::new();
    for token in 1.. {
        let read = RetainedRead { token, filter: "#", after: &after, messages_max: 100 };
        shard.say(&ToBridge::RetainedRead(read));
        pages.push(0);
        let more = loop {
            match shard.hear() {
                Heard::Retained { topic, .. } => {
                    pages[token as usize - 1] += 1;
                    after = topic;
                }
                Heard::RetainedEnd { more, .. } => break more,
                other => panic!("{other:?}"),
            }
        };
        if !more {
            break;
        }
    }
    assert_eq!(pages, [3, 2]);
}

#[test]
fn a_shared_subscription_is_served_by_weight_and_by_another_shard_if_one_cannot() {
    let rig = Rig::start();
    let (mut publisher, mut one, mut other) = (rig.shard(1), rig.shard(2), rig.shard(3));
    one.announce(GROUP, "jobs", false);
    other.announce(InterestKind::Shared { group: "g", members: 0 }, "jobs", false);
    publisher.publish(uplink(1, "jobs", "job"));
    let heard = one.hear();
    assert!(matches!(&heard, Heard::Deliver { target, .. } if target == "g:jobs"), "{heard:?}");
    publisher.until_settled(1);
    other.announce(GROUP, "jobs", false);
    one.report(number(&heard), Outcome::QueueFull);
    let heard = other.hear();
    other.report(number(&heard), Outcome::Delivered);
    assert_eq!(payload(heard), "job");
}

#[test]
fn a_durable_group_that_nobody_serves_keeps_its_messages() {
    let rig = Rig::start();
    let (mut publisher, mut member) = (rig.shard(1), rig.shard(2));
    rig.session("member", owner(2), &["$share/g/jobs"]);
    member.announce(GROUP, "jobs", true);
    publisher.publish(uplink(1, "jobs", "first"));
    let heard = member.hear();
    assert_ne!(number(&heard), 0);
    // The member's shard dies with the message, which its publisher was not acknowledged.
    drop(member);
    publisher.until_settled(1);
    let stream = || rig.stream(StreamKey::Filter("$share/g/jobs".into()));
    assert_eq!(stream(), ["first"]);
    publisher.publish(uplink(2, "jobs", "second"));
    publisher.until_settled(1);
    assert_eq!(stream(), ["first", "second"]);
}

#[test]
fn a_durable_group_acknowledges_what_a_member_took_or_its_stream_has() {
    let rig = Rig::start();
    let (mut publisher, mut member) = (rig.shard(1), rig.shard(2));
    rig.session("member", owner(2), &["$share/g/jobs"]);
    member.announce(GROUP, "jobs", true);
    let stream = || rig.stream(StreamKey::Filter("$share/g/jobs".into()));

    publisher.publish(uplink(1, "jobs", "taken"));
    let heard = member.hear();
    member.report(number(&heard), Outcome::Delivered);
    publisher.until_settled(1);
    assert!(stream().is_empty(), "what a member took is not read again");

    // This device says nothing; what comes behind it is heard all the same.
    publisher.publish(uplink(2, "jobs", "unanswered"));
    publisher.publish(uplink(3, "jobs", "next"));
    assert_eq!(payload(member.hear()), "unanswered");
    let heard = member.hear();
    member.report(number(&heard), Outcome::Delivered);
    assert_eq!(payload(heard), "next");
    publisher.until_settled(2);
    assert_eq!(stream(), ["unanswered"], "acknowledged only once the stream has it");
}

#[test]
fn a_message_that_may_be_with_a_member_whose_session_has_ended_goes_to_no_other() {
    let rig = Rig::start();
    let (mut publisher, mut one, mut other) = (rig.shard(1), rig.shard(2), rig.shard(3));
    rig.session("one", owner(2), &["$share/g/jobs"]);
    one.announce(GROUP, "jobs", true);
    publisher.publish(uplink(1, "jobs", "sent"));
    let heard = one.hear();
    other.announce(GROUP, "jobs", true);
    one.report(number(&heard), Outcome::InDoubt);
    publisher.until_settled(1);
    other.withdraw(GROUP, "jobs");
    assert!(rig.stream(StreamKey::Filter("$share/g/jobs".into())).is_empty());
}

#[test]
fn a_member_is_told_of_what_no_member_could_take() {
    let rig = Rig::start();
    let (mut publisher, mut member) = (rig.shard(1), rig.shard(2));
    let epoch = rig.session("member", owner(2), &["$share/g/jobs"]);
    member.announce(GROUP, "jobs", true);
    publisher.publish(uplink(1, "jobs", "too much"));
    let heard = member.hear();
    member.report(number(&heard), Outcome::QueueFull);
    publisher.until_settled(1);
    assert_eq!(member.hear_what_waits(), "g:jobs");
    assert_eq!(rig.claim("member", epoch, "$share/g/jobs"), ["too much"]);
}

/// One whose member keeps silent for a second: its publisher is acknowledged, and nobody may claim it.
fn kept_by_a_silent_member(rig: &Rig, publisher: &mut Shard, member: &mut Shard, epoch: Epoch) -> u64 {
    publisher.publish(uplink(1, "jobs", "slow"));
    let heard = member.hear();
    assert_eq!(payload(heard.clone()), "slow");
    publisher.until_settled(1);
    assert_eq!(rig.stream(StreamKey::Filter("$share/g/jobs".into())), ["slow"]);
    assert!(rig.claim("other", epoch, "$share/g/jobs").is_empty(), "the member may still take it");
    number(&heard)
}

#[test]
fn what_a_slow_member_takes_at_last_no_other_is_given() {
    let rig = Rig::start();
    let (mut publisher, mut member) = (rig.shard(1), rig.shard(2));
    let epoch = rig.session("other", owner(3), &["$share/g/jobs"]);
    member.announce(GROUP, "jobs", true);
    let number = kept_by_a_silent_member(&rig, &mut publisher, &mut member, epoch);
    member.report(number, Outcome::Delivered);
    let stream = || rig.stream(StreamKey::Filter("$share/g/jobs".into()));
    until("nobody needs it any more", || stream().is_empty());
    assert!(rig.claim("other", epoch, "$share/g/jobs").is_empty());
}

#[test]
fn what_a_slow_member_is_lost_with_waits_for_another() {
    for ends_with_its_shard in [false, true] {
        let rig = Rig::start();
        let (mut publisher, mut member, mut other) = (rig.shard(1), rig.shard(2), rig.shard(3));
        let epoch = rig.session("other", owner(3), &["$share/g/jobs"]);
        member.announce(GROUP, "jobs", true);
        let number = kept_by_a_silent_member(&rig, &mut publisher, &mut member, epoch);
        other.announce(GROUP, "jobs", true);
        if ends_with_its_shard {
            drop(member);
        } else {
            // The turn to be told is the other's, whoever it was before.
            member.withdraw(GROUP, "jobs");
            member.report(number, Outcome::ConnectionLost);
        }
        assert_eq!(other.hear_what_waits(), "g:jobs");
        assert_eq!(rig.claim("other", epoch, "$share/g/jobs"), ["slow"]);
    }
}

#[test]
fn all_members_are_reminded_for_as_long_as_anything_waits() {
    let rig = Rig::start();
    let (mut publisher, mut one, mut other) = (rig.shard(1), rig.shard(2), rig.shard(3));
    let epoch = rig.session("member", owner(3), &["$share/g/jobs"]);
    one.announce(GROUP, "jobs", true);
    publisher.publish(uplink(1, "jobs", "too much"));
    let heard = one.hear();
    one.report(number(&heard), Outcome::QueueFull);
    publisher.until_settled(1);
    assert_eq!(one.hear_what_waits(), "g:jobs", "at once");
    other.announce(GROUP, "jobs", true);
    for _ in 0..2 {
        assert_eq!([one.hear_what_waits(), other.hear_what_waits()], ["g:jobs", "g:jobs"]);
    }
    assert_eq!(rig.claim("member", epoch, "$share/g/jobs"), ["too much"]);
}

#[test]
fn members_that_never_acknowledge_hold_up_nobody() {
    const MEMBERS: u64 = 8;
    const REPORTS: u32 = 100;
    const FRAMES: u64 = 3 * REPORTS as u64;
    let config = BridgeConfig { group_deliveries_max: REPORTS, ..BridgeConfig::default() };
    let rig = Rig::start_with(config, memory_store());
    let mut publisher = rig.shard(100);
    let mut mute: Vec<_> = (1..=MEMBERS).map(|node| rig.shard(node)).collect();
    for member in &mut mute {
        member.announce(GROUP, "#", false);
    }
    for sequence in 1..=FRAMES {
        publisher.publish(uplink(sequence, "jobs", "job"));
    }
    publisher.until_settled(FRAMES);
    let pushed = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(rig.bridge.push(
        PushRequest {
            target: PushTarget::Topic("jobs".into()),
            topic: None,
            payload: b"pushed".to_vec(),
            qos: QoS::AtLeastOnce,
            ttl_s: None,
            content_type: None,
            collapse_key: None,
            retain: false,
            id: None,
            wait: DEADLINE,
        },
    ));
    assert!(matches!(pushed.unwrap().outcome, PushOutcome::Accepted { shards: 1, .. }));
    // Nobody was passed over: each heard its share, in its turn.
    let heard: usize = mute
        .iter_mut()
        .map(|member| {
            member.say(&ToBridge::Interest(Interest {
                token: 1,
                wanted: false,
                kind: GROUP,
                filter: "#",
                durable: false,
            }));
            std::iter::from_fn(|| Some(member.hear()).filter(|heard| *heard != Heard::InterestKnown(1)))
                .count()
        })
        .sum();
    assert_eq!(heard as u64, FRAMES + 1);

    // A group of persistent sessions beside them has its messages all the same.
    let mut member = rig.shard(50);
    rig.session("member", owner(50), &["$share/kept/jobs"]);
    member.announce(InterestKind::Shared { group: "kept", members: 1 }, "jobs", true);
    publisher.publish(uplink(FRAMES + 1, "jobs", "kept"));
    let heard = member.hear();
    member.report(number(&heard), Outcome::Delivered);
    assert_eq!(payload(heard), "kept");
    publisher.until_settled(1);
    assert!(rig.stream(StreamKey::Filter("$share/kept/jobs".into())).is_empty());
}

#[test]
fn the_report_that_was_awaited_longest_is_the_one_that_is_given_up() {
    let config = BridgeConfig { group_deliveries_max: 2, ..BridgeConfig::default() };
    let rig = Rig::start_with(config, memory_store());
    let (mut publisher, mut one, mut other) = (rig.shard(1), rig.shard(2), rig.shard(3));
    one.announce(GROUP, "jobs", false);
    let mut numbers = Vec::new();
    for (sequence, text) in [(1, "first"), (2, "second"), (3, "third")] {
        publisher.publish(uplink(sequence, "jobs", text));
        let heard = one.hear();
        numbers.push(number(&heard));
        assert_eq!(payload(heard), text);
    }
    publisher.until_settled(3);
    other.announce(GROUP, "jobs", false);
    for number in numbers {
        one.report(number, Outcome::QueueFull);
    }
    let mut heard = [payload(other.hear()), payload(other.hear())];
    heard.sort_unstable();
    assert_eq!(heard, ["second", "third"]);
    other.withdraw(GROUP, "jobs");
}

#[test]
fn a_personal_topic_leads_to_the_owner_of_its_device() {
    let rig = Rig::start();
    let (mut publisher, mut shard) = (rig.shard(1), rig.shard(2));
    shard.announce(PUSH, "devices/+/push", true);
    rig.session("clean", owner(2), &[]);
    publisher.publish(uplink(1, "devices/clean/push", "to clean"));
    publisher.publish(uplink(2, "devices/nobody/push", "to nobody"));
    assert_eq!(shard.hear(), Heard::deliver("clean", "devices/clean/push", "to clean"));

    let epoch = rig.session("kept", owner(2), &["devices/kept/push"]);
    publisher.publish(uplink(3, "devices/kept/push", "to kept"));
    let Heard::Deliver { target, positions, .. } = shard.hear() else { panic!("no delivery") };
    assert_eq!(target, "kept");
    assert_eq!(positions[0].stream, StreamKey::Filter("devices/kept/push".into()));
    rig.rest("kept", epoch);
    publisher.publish(uplink(4, "devices/kept/push", "later"));
    publisher.until_settled(4);
    assert_eq!(rig.stream(StreamKey::Filter("devices/kept/push".into())), ["to kept", "later"]);
}

#[test]
fn messages_on_a_personal_topic_stand_in_one_stream_whether_its_filter_is_known_or_not() {
    let store = memory_store();
    // One bridge has never heard of the filter, the other since its start; frames may come through both.
    let unaware = Rig::start_with(BridgeConfig::default(), Arc::clone(&store));
    let mut before = unaware.shard(1);
    before.announce(PUSH, "devices/+/push", true);
    let epoch = unaware.session("d", owner(2), &["devices/d/push", "devices/d/#"]);
    unaware.rest("d", epoch);
    let aware = Rig::start_with(BridgeConfig::default(), store);
    let mut since = aware.shard(1);
    since.announce(PUSH, "devices/+/push", true);
    for sequence in 1..=4 {
        let publisher = if sequence % 2 == 0 { &mut before } else { &mut since };
        publisher.publish(uplink(sequence, "devices/d/push", &sequence.to_string()));
        publisher.until_settled(1);
    }
    for filter in ["devices/d/push", "devices/d/#"] {
        assert_eq!(aware.stream(StreamKey::Filter(filter.into())), ["1", "2", "3", "4"], "{filter}");
    }
    assert_eq!(aware.stream(StreamKey::Device("d".into())), [""; 0]);
}

#[test]
fn a_device_hears_its_own_topic_over_its_own_link() {
    let rig = Rig::start();
    let mut shard = rig.shard(1);
    shard.announce(InterestKind::Personal { level: 0 }, "+/echo", false);
    shard.publish(uplink(1, "publisher/echo", "me"));
    // No session stands in the store: the link knows its own.
    assert_eq!(shard.hear(), Heard::deliver("publisher", "publisher/echo", "me"));
    shard.until_settled(1);
}

/// A store that can stop to answer. What it was asked meanwhile it never does.
struct Hanging {
    store: Arc<dyn Store>,
    hangs: AtomicBool,
    unanswered: Mutex<Vec<ReplyTo>>,
}

impl Store for Hanging {
    fn submit(&self, request: Request, reply: ReplyTo) {
        if self.hangs.load(Ordering::Acquire) {
            self.unanswered.lock().unwrap().push(reply);
        } else {
            self.store.submit(request, reply);
        }
    }
}

fn hanging() -> (Arc<Hanging>, Rig) {
    let store =
        Hanging { store: memory_store(), hangs: AtomicBool::new(false), unanswered: Mutex::default() };
    let store = Arc::new(store);
    let rig = Rig::start_with(BridgeConfig::default(), Arc::clone(&store) as Arc<dyn Store>);
    (store, rig)
}

#[test]
fn a_device_that_publishes_to_its_own_topic_does_not_wait_for_a_store_that_is_away() {
    const FRAMES: u64 = 200;
    let (store, rig) = hanging();
    let (mut shard, mut elsewhere) = (rig.shard(1), rig.shard(2));
    elsewhere.announce(InterestKind::Personal { level: 1 }, "devices/+/#", false);
    elsewhere.announce(InterestKind::Filter, "news", false);
    store.hangs.store(true, Ordering::Release);
    for sequence in 1..=FRAMES {
        let with_qos_1 = uplink(sequence, "devices/publisher/state", "mine");
        let message = message("devices/publisher/state", QoS::AtMostOnce, "mine");
        let with_qos_0 = Uplink { packet_id: None, message, ..with_qos_1 };
        shard.publish(if sequence % 2 == 0 { with_qos_0 } else { with_qos_1 });
    }
    shard.publish(uplink(FRAMES + 1, "news", "behind"));
    // Its own shard did not announce the shape, so it does not hear itself.
    assert_eq!(elsewhere.hear(), Heard::deliver("subscribers", "news", "behind"));
    shard.until_settled(FRAMES + 1);
}

#[test]
fn with_the_store_away_a_personal_topic_leads_to_all_who_announced_its_shape() {
    const FRAMES: u64 = 300;
    let (store, rig) = hanging();
    let (mut publisher, mut holder, mut other) = (rig.shard(1), rig.shard(2), rig.shard(3));
    rig.session("d", owner(2), &[]);
    for shard in [&mut holder, &mut other] {
        shard.announce(PUSH, "devices/+/push", false);
        shard.announce(InterestKind::Personal { level: 1 }, "devices/+/#", false);
        shard.announce(InterestKind::Filter, "end", false);
    }
    store.hangs.store(true, Ordering::Release);
    for sequence in 1..=FRAMES {
        publisher.publish(uplink(sequence, "devices/d/push", &sequence.to_string()));
    }
    for sequence in 1..=FRAMES {
        let heard = Heard::deliver("d", "devices/d/push", &sequence.to_string());
        assert_eq!([holder.hear(), other.hear()], [heard.clone(), heard], "each once, in order");
    }
    publisher.until_settled(FRAMES);

    store.hangs.store(false, Ordering::Release);
    let begun = Instant::now();
    for round in 0.. {
        assert!(begun.elapsed() < DEADLINE, "the owner is asked for again");
        publisher.publish(uplink(FRAMES + 1 + 2 * round, "devices/d/push", "again"));
        publisher.publish(uplink(FRAMES + 2 + 2 * round, "end", ""));
        publisher.until_settled(2);
        assert_eq!(holder.hear(), Heard::deliver("d", "devices/d/push", "again"));
        assert_eq!(holder.hear(), Heard::deliver("subscribers", "end", ""));
        if other.hear() == Heard::deliver("subscribers", "end", "") {
            break;
        }
        assert_eq!(other.hear(), Heard::deliver("subscribers", "end", ""));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_takeover_is_passed_on_and_what_the_former_owner_knows_comes_back() {
    let rig = Rig::start();
    let (mut former, mut new) = (rig.shard(1), rig.shard(2));
    let takeover = |former| Takeover { client: "c", epoch: Epoch(8), former, owner: owner(2) };
    new.say(&ToBridge::Takeover(takeover(owner(1))));
    assert_eq!(former.hear(), Heard::Takeover { client: "c".into(), epoch: Epoch(8) });
    let handover =
        Handover { client: "c", epoch: Epoch(8), owner: owner(2), session: b"known", owes_will: false };
    former.say(&ToBridge::Handover(handover));
    let heard =
        Heard::Handover { client: "c".into(), epoch: Epoch(8), session: b"known".to_vec(), owes_will: false };
    assert_eq!(new.hear(), heard);
    let outcome = Outcome::Kept;
    let settled = HandoverSettled { client: "c", epoch: Epoch(8), former: owner(1), outcome };
    new.say(&ToBridge::HandoverSettled(settled));
    assert_eq!(former.hear(), Heard::HandoverSettled { client: "c".into(), epoch: Epoch(8), outcome });
}

#[test]
fn a_bridge_says_nothing_for_a_former_owner_that_has_no_link_to_it() {
    let rig = Rig::start();
    let mut new = rig.shard(2);
    let takeover = |former| Takeover { client: "c", epoch: Epoch(8), former, owner: owner(2) };
    let not_linked = Heard::NotLinked { client: "c".into(), epoch: Epoch(8) };
    // It is gone, or is linked with other bridges: that is for the new owner to find out.
    new.say(&ToBridge::Takeover(takeover(owner(1))));
    assert_eq!(new.hear(), not_linked);
    let mut former = rig.shard(1);
    new.say(&ToBridge::Takeover(takeover(owner(1))));
    assert_eq!(former.hear(), Heard::Takeover { client: "c".into(), epoch: Epoch(8) });
}

#[test]
fn a_shard_that_does_not_read_holds_up_nobody_else() {
    let rig = Rig::start();
    let (mut publisher, mut deaf) = (rig.shard(1), rig.shard(2));
    deaf.announce(InterestKind::Filter, "big", false);
    let payload = "x".repeat(256 << 10);
    // 28 MiB for someone who takes none of it: within the publisher's window there is room for a part of them.
    for sequence in 1..=28 {
        publisher.publish(uplink(sequence, "big", &payload));
    }
    let mut other = rig.shard(3);
    other.publish(uplink(1, "accel", "1"));
    other.until_settled(1);
    for _ in 0..28 {
        assert_eq!(payload_length(deaf.hear()), payload.len());
    }
    publisher.until_settled(28);
}

#[test]
fn shards_that_flood_each_other_all_come_through() {
    const FRAMES: u64 = 4_000;
    let rig = Rig::start();
    let mut shards: Vec<_> = (1..=3).map(|node| rig.shard(node)).collect();
    for shard in &mut shards {
        shard.announce(InterestKind::Filter, "#", false);
    }
    let floods: Vec<_> = shards
        .into_iter()
        .map(|mut shard| {
            let mut stream = shard.stream.try_clone().unwrap();
            let topic = format!("from/{}", shard.owner.node);
            let writer = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let payload = "x".repeat(1_000);
                for sequence in 1..=FRAMES {
                    ToBridge::Uplink(uplink(sequence, &topic, &payload)).encode(&mut bytes);
                }
                stream.write_all(&bytes).unwrap();
            });
            std::thread::spawn(move || {
                let (mut heard, mut settled) = (0, 0);
                while heard < 3 * FRAMES || settled < FRAMES {
                    match shard.hear() {
                        Heard::Deliver { .. } => heard += 1,
                        Heard::Settled(run) => settled += run.last - run.first + 1,
                        other => panic!("{other:?}"),
                    }
                }
                writer.join().unwrap();
            })
        })
        .collect();
    for flood in floods {
        flood.join().unwrap();
    }
}

#[test]
fn a_shard_that_never_reads_is_given_up() {
    let config = BridgeConfig { stuck_after: Duration::from_millis(200), ..BridgeConfig::default() };
    let rig = Rig::start_with(config, memory_store());
    let (mut publisher, mut deaf) = (rig.shard(1), rig.shard(2));
    deaf.announce(InterestKind::Filter, "big", false);
    let payload = "x".repeat(256 << 10);
    for sequence in 1..=100 {
        publisher.publish(uplink(sequence, "big", &payload));
    }
    publisher.until_settled(100);
    while deaf.hear() != Heard::Closed {}
}

fn payload_length(heard: Heard) -> usize {
    payload(heard).len()
}
