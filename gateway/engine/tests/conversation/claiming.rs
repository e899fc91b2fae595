//! What waits in the stream of a shared subscription's group: each message is one member's, who claims it once it has room.

use holdfast_engine::{CloseReason, EngineConfig, LeaseWord, Limits};
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::{Outcome, Target, ToGateway};
use holdfast_wire::message::Message;
use holdfast_wire::mqtt::{Publish, QoS};
use holdfast_wire::session_record::{Cursor, Offset, StreamKey, SubscriptionRecord};
use holdfast_wire::store::{Progress, Reply, Request};

use crate::bridge::Heard;
use crate::client::Client;
use crate::packets::{
    AT_LEAST_ONCE, AT_MOST_ONCE, connect, message, qos1, resume, resumed, unsuback, unsubscribe,
};
use crate::stage::Shard;

const GROUP: &str = "$share/g/jobs";
const TARGET: Target<'_> = Target::Group { group: "g", filter: "jobs" };

/// A claim that the store was asked for.
#[derive(Clone, Debug, PartialEq)]
struct Claimed {
    client: String,
    after: Offset,
    messages_max: u32,
    bytes_max: u32,
}

impl Shard {
    /// A persistent session that takes one message at a time.
    fn member(&self, client_id: &'static str) -> Client {
        self.member_with(client_id, 1)
    }

    /// One that takes so many at a time.
    fn member_with(&self, client_id: &'static str, window: u16) -> Client {
        let mut connect = resume(client_id);
        connect.properties.receive_maximum = Some(window);
        let client = self.connects(&connect);
        client.subscribes(GROUP, AT_LEAST_ONCE);
        self.store_was_asked();
        client
    }

    /// Messages with these numbers are put into the group's stream, and nobody is told.
    fn job(&self, number: u64) {
        let text = number.to_string();
        assert_eq!(self.appends(&[GROUP], &Message { id: number, ..message("jobs", &text) }).len(), 1);
    }

    fn group_waits(&self) {
        self.bridge(0).says(&ToGateway::GroupWaits { group: "g", filter: "jobs" });
    }

    /// Who has claimed since the last look, and what.
    fn claims(&self) -> Vec<Claimed> {
        let claimed = |request| match request {
            Request::Claim { client, filter, after, messages_max, bytes_max, .. } => {
                assert_eq!(&*filter, GROUP);
                Some(Claimed { client: client.to_string(), after, messages_max, bytes_max })
            }
            Request::Read { stream, .. } => {
                assert_ne!(stream, StreamKey::Filter(GROUP.into()), "it is claimed, not read");
                None
            }
            _ => None,
        };
        self.store_was_asked().into_iter().filter_map(claimed).collect()
    }

    /// The members that have claimed since the last look.
    fn claimants(&self) -> Vec<String> {
        self.claims().into_iter().map(|claim| claim.client).collect()
    }

    /// The count that was saved last for a member, of what was asked since the last look.
    fn saved(&self) -> Option<Offset> {
        let count = |request| match request {
            Request::Save { progress, .. } => {
                progress.cursors.iter().find(|cursor| cursor.stream == stream()).map(|cursor| cursor.acked)
            }
            _ => None,
        };
        self.store_was_asked().into_iter().filter_map(count).next_back()
    }
}

fn stream() -> StreamKey {
    StreamKey::Filter(GROUP.into())
}

/// A client that takes one at a time takes these and no more.
#[track_caller]
fn takes(client: &Client, jobs: impl IntoIterator<Item = u64>) {
    for job in jobs {
        let bytes = client.hears_packet();
        client.acknowledges(client.packet_id_of(&bytes, &job.to_string()));
    }
    client.hears_nothing();
}

#[test]
fn what_waits_is_claimed_and_settled_by_the_members_own_count() {
    let shard = Shard::new();
    let client = shard.member("c");
    (1..=3).for_each(|job| shard.job(job));
    client.hears_nothing();
    shard.group_waits();
    let [Claimed { client: claimant, after, .. }] = &shard.claims()[..] else {
        panic!("one claim is enough")
    };
    assert_eq!(claimant, "c");
    client.hears(qos1(1, "jobs", "1"));
    shard.clock_advances_ms(1_000);
    assert_eq!(shard.saved(), Some(after + 1), "the first is saved with the session");
    client.acknowledges(1);
    takes(&client, [2, 3]);
    shard.clock_advances_ms(1_000);
    assert_eq!(shard.saved(), Some(after + 3));
    shard.job(4);
    shard.group_waits();
    assert_eq!(shard.claims()[0].after, after + 3);
    takes(&client, [4]);
}

#[test]
fn what_waited_for_a_member_to_come_is_claimed_once_it_subscribes() {
    let shard = Shard::new();
    shard.member("c").vanishes();
    (1..=2).for_each(|job| shard.job(job));
    takes(&shard.member("d"), [1, 2]);
}

#[test]
fn a_member_that_is_told_while_it_claims_claims_again() {
    let shard = Shard::new();
    let client = shard.member("c");
    shard.store_holds();
    shard.group_waits();
    shard.group_waits();
    shard.group_waits();
    assert_eq!(shard.claims().len(), 1, "one at a time");
    shard.store_answers_first(1);
    assert_eq!(shard.claims().len(), 1, "what it was told of may have come behind the first");
    shard.job(1);
    shard.store_answers_first(1);
    shard.store_answers();
    takes(&client, [1]);
    assert_eq!(shard.claims(), []);
}

#[test]
fn a_member_goes_on_as_long_as_the_store_has_more_and_there_is_room() {
    let limits = Limits {
        pending_messages_max: 400,
        pending_bytes_max: 200_000,
        inflight_max: 150,
        ..Limits::default()
    };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let client = shard.member_with("c", 150);
    (1..=300).for_each(|job| shard.job(job));
    shard.group_waits();
    let claims = shard.claims();
    let [first, second] = &claims[..] else { panic!("it claimed {claims:?}") };
    assert_eq!((first.messages_max, first.bytes_max), (128, 100_000));
    assert_eq!((second.messages_max, second.after), (128, first.after + 128));
    takes(&client, 1..=300);
    assert_eq!(shard.device("c").pending, 0);
}

#[test]
fn a_member_leaves_to_others_what_it_will_not_be_sent_soon() {
    let shard = Shard::new();
    let client = shard.member_with("c", 4);
    (1..=20).for_each(|job| shard.job(job));
    shard.group_waits();
    assert_eq!(shard.claims()[0].messages_max, 8, "two windows");
    for job in 1..=4 {
        client.hears(qos1(job, "jobs", &job.to_string()));
    }
    client.acknowledges(1);
    client.hears(qos1(5, "jobs", "5"));
    assert_eq!(shard.claims(), [], "more than half a window waits");
    client.acknowledges(2);
    client.hears(qos1(6, "jobs", "6"));
    assert_eq!(shard.claims()[0].messages_max, 6);
    for job in 3..=6 {
        client.acknowledges(job);
    }
    takes(&client, 7..=20);
}

#[test]
fn what_the_limit_of_bytes_leaves_is_claimed_later() {
    let limits = Limits { pending_bytes_max: 400, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let client = shard.member("c");
    (1..=20).for_each(|job| shard.job(job));
    shard.group_waits();
    let before = shard.device("c").pending;
    assert!(before < 10, "{before} wait in a queue for few");
    takes(&client, 1..=20);
}

#[test]
fn what_no_member_has_room_for_is_claimed_once_one_has() {
    let limits = Limits { pending_messages_max: 2, ..Limits::default() };
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let client = shard.member("c");
    shard.bridge(0).forgets();
    for delivery in 1..=3 {
        let text = delivery.to_string();
        shard.bridge(0).delivers(
            delivery,
            TARGET,
            &Message { id: delivery, ..message("jobs", &text) },
            Vec::new(),
        );
    }
    // One is sent and one waits; a third one others may have.
    shard.bridge(0).hears_report(3, Outcome::QueueFull);
    shard.bridge(0).hears_nothing();
    (3..=5).for_each(|job| shard.job(job));
    shard.group_waits();
    assert_eq!(shard.claims(), []);
    takes(&client, 1..=5);
}

#[test]
fn members_that_wait_for_nothing_are_told_in_turn() {
    const NAMES: [&str; 3] = ["c", "d", "e"];
    let shard = Shard::new();
    let _members = NAMES.map(|name| shard.member(name));
    let mut told = Vec::new();
    for _ in 0..6 {
        shard.group_waits();
        told.append(&mut shard.claimants());
    }
    assert_eq!(told[..3], told[3..]);
    told.sort_unstable();
    assert_eq!(told, ["c", "c", "d", "d", "e", "e"]);
}

#[test]
fn a_member_that_does_not_read_is_passed_over() {
    let shard = Shard::new();
    let stuck = shard.member("c");
    let client = shard.member("d");
    stuck.stops_reading();
    for job in 1..=4 {
        shard.job(job);
        shard.group_waits();
        takes(&client, [job]);
    }
    assert_eq!(shard.device("c").inflight, 0);
}

#[test]
fn of_members_that_stand_still_each_is_told_and_the_first_that_goes_on_claims() {
    let shard = Shard::new();
    let members = ["c", "d"].map(|name| shard.member(name));
    members.iter().for_each(Client::stops_reading);
    for job in 1..=2 {
        shard.job(job);
        // What goes to members live must not always make the same one's turn.
        shard.bridge(0).delivers(
            0,
            TARGET,
            &Message { qos: QoS::AtMostOnce, ..message("jobs", "x") },
            vec![],
        );
        shard.group_waits();
    }
    assert_eq!(shard.claims(), []);
    for member in &members {
        member.reads_again();
    }
    assert_eq!(shard.claimants(), ["c", "d"], "each of them was told");
    takes(&members[0], [1, 2]);
    members.iter().for_each(Client::hears_nothing);
}

#[test]
fn sessions_that_do_not_read_the_groups_stream_claim_nothing() {
    let shard = Shard::new();
    let passing = shard.connects(&connect("passing"));
    passing.subscribes(GROUP, AT_LEAST_ONCE);
    let careless = shard.connects(&resume("careless"));
    careless.subscribes(GROUP, AT_MOST_ONCE);
    shard.member("c").vanishes();
    shard.store_was_asked();
    shard.job(1);
    shard.group_waits();
    assert_eq!(shard.claims(), []);
    passing.hears_nothing();
    careless.hears_nothing();
}

#[test]
fn what_a_member_leaves_unsent_is_claimed_by_another_and_what_was_sent_stays_its_own() {
    let shard = Shard::new();
    let first = shard.member("c");
    (1..=3).for_each(|job| shard.job(job));
    shard.group_waits();
    first.hears(qos1(1, "jobs", "1"));
    first.vanishes();
    takes(&shard.member("d"), [2, 3]);
    let first = shard.client();
    first.sends(resume("c"));
    first.hears(resumed());
    first.hears(Publish { dup: true, ..qos1(1, "jobs", "1") });
    first.hears_nothing();
}

#[test]
fn what_a_dead_owner_had_claimed_for_a_session_is_claimed_by_its_next() {
    let shard = Shard::new();
    let other = shard.member("d");
    let epoch = shard.opened_elsewhere("c", 3_600).epoch;
    let client = ClientId::new("c");
    let subscription = SubscriptionRecord {
        filter: GROUP.into(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    };
    let request = Request::Subscribe { client: client.clone(), epoch, subscriptions: vec![subscription] };
    let Reply::Subscribed(cursors) = shard.store_is_asked(request) else { panic!("it subscribes") };
    (1..=4).for_each(|job| shard.job(job));
    let after = cursors[0].acked;
    let request = Request::Claim {
        client: client.clone(),
        epoch,
        filter: GROUP.into(),
        after,
        messages_max: 3,
        bytes_max: 1_000,
    };
    assert!(matches!(shard.store_is_asked(request), Reply::Messages { messages, .. } if messages.len() == 3));
    let progress =
        Progress { cursors: vec![Cursor { stream: stream(), acked: after + 1 }], ..Progress::default() };
    shard.store_is_asked(Request::Save { client, epoch, progress });
    shard.group_waits();
    takes(&other, [4]);
    shard.bridge(0).forgets();
    let client = shard.client();
    client.sends(resume("c"));
    let Heard::Takeover { epoch, .. } = shard.bridge(0).hears() else { panic!("its former owner is asked") };
    shard.bridge(0).says(&ToGateway::NotLinked { client: "c", epoch });
    client.hears(resumed());
    takes(&client, [2, 3]);
    other.hears_nothing();
}

#[test]
fn what_is_pending_when_a_member_leaves_its_group_goes_to_others_and_what_was_sent_does_not() {
    let unsubscribes = |client: &Client| {
        client.sends(unsubscribe(1, &[GROUP]));
        client.hears(unsuback(1, &[0]));
    };
    let wants_less = |client: &Client| client.subscribes(GROUP, AT_MOST_ONCE);
    for leaves in [&unsubscribes as &dyn Fn(&Client), &wants_less] {
        let shard = Shard::new();
        let other = shard.member("d");
        other.stops_reading();
        let client = shard.member("c");
        (1..=3).for_each(|job| shard.job(job));
        shard.group_waits();
        client.hears(qos1(1, "jobs", "1"));
        assert_eq!(shard.device("c").pending, 1);
        leaves(&client);
        assert_eq!(shard.device("c").pending, 0);
        client.acknowledges(1);
        client.hears_nothing();
        other.reads_again();
        shard.group_waits();
        takes(&other, [2, 3]);
        client.hears_nothing();
    }
}

#[test]
fn what_a_member_gave_back_it_may_claim_again() {
    let shard = Shard::new();
    shard.member("d").stops_reading();
    let client = shard.member("c");
    (1..=3).for_each(|job| shard.job(job));
    shard.group_waits();
    client.hears(qos1(1, "jobs", "1"));
    client.sends(unsubscribe(1, &[GROUP]));
    client.hears(unsuback(1, &[0]));
    client.acknowledges(1);
    client.subscribes(GROUP, AT_LEAST_ONCE);
    takes(&client, [2, 3]);
}

#[test]
fn a_claim_of_one_that_another_owner_has_ends_it_as_a_save_does() {
    let shard = Shard::new();
    let client = shard.member("c");
    shard.opened_elsewhere("c", 3_600);
    shard.job(1);
    shard.group_waits();
    client.hears_goodbye(CloseReason::Fenced);
}

#[test]
fn a_claim_that_the_store_did_not_answer_is_made_again() {
    let shard = Shard::new();
    let client = shard.member("c");
    shard.job(1);
    shard.store_goes_away();
    shard.group_waits();
    client.hears_nothing();
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    takes(&client, [1]);
    // It may have been carried out all the same: what is the member's is answered again.
    shard.job(2);
    shard.store_holds();
    shard.group_waits();
    shard.store_gives_up_first(true);
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    takes(&client, [2]);
}

#[test]
fn a_store_that_says_there_is_more_and_gives_nothing_is_not_asked_at_once() {
    let shard = Shard::new();
    let client = shard.member("c");
    shard.store_holds();
    shard.group_waits();
    let after = shard.claims()[0].after;
    shard.store_says_first(Reply::Messages { messages: Vec::new(), end: after + 1 });
    assert_eq!(shard.claims(), []);
    shard.job(1);
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    takes(&client, [1]);
    shard.store_was_asked();
    // Fewer than the member knows of cannot be, and stops nothing.
    shard.store_holds();
    shard.group_waits();
    shard.store_says_first(Reply::Messages { messages: Vec::new(), end: 0 });
    shard.store_answers();
    assert_eq!(shard.claims()[0].after, after + 1);
    shard.job(2);
    shard.group_waits();
    takes(&client, [2]);
}

#[test]
fn what_is_queued_when_the_store_loses_its_data_settles_nothing_that_is_claimed_anew() {
    let shard = Shard::new();
    let client = shard.member_with("c", 2);
    (1..=3).for_each(|job| shard.job(job));
    shard.group_waits();
    client.hears(qos1(1, "jobs", "1"));
    client.hears(qos1(2, "jobs", "2"));
    let before = shard.claims()[0].after;
    shard.clock_advances_ms(10_000);
    shard.store_loses_its_data();
    shard.lease_says(LeaseWord::Forgotten);
    shard.clock_advances_ms(100);
    let begins = shard.claims()[0].after;
    assert!(begins > before + 3, "it counts anew");
    (4..=5).for_each(|job| shard.job(job));
    shard.group_waits();
    client.acknowledges(1);
    client.hears(qos1(3, "jobs", "3"));
    shard.clock_advances_ms(1_000);
    assert_eq!(shard.saved(), Some(begins));
    client.acknowledges(2);
    client.acknowledges(3);
    takes(&client, [4, 5]);
    shard.clock_advances_ms(1_000);
    assert_eq!(shard.saved(), Some(begins + 2));
}

#[test]
fn a_place_in_the_groups_stream_says_nothing_of_the_members_own_count() {
    let shard = Shard::new();
    let client = shard.member("c");
    shard.group_waits();
    let after = shard.claims()[0].after;
    let position = Cursor { stream: stream(), acked: after + 9 };
    let live = Message { id: 7, ..message("jobs", "7") };
    shard.bridge(0).delivers(0, TARGET, &live, vec![position]);
    takes(&client, [7]);
    shard.job(1);
    shard.group_waits();
    assert_eq!(shard.claims()[0].after, after);
    takes(&client, [1]);
}

#[test]
fn what_else_a_member_subscribes_to_has_its_turn_while_its_group_always_has_more() {
    let shard = Shard::new();
    let client = shard.member("c");
    client.subscribes("a", AT_LEAST_ONCE);
    (1..=200).for_each(|job| shard.job(job));
    shard.store_holds();
    shard.group_waits();
    let other = Message { id: 1_000, ..message("a", "x") };
    let positions = shard.appends(&["a"], &other);
    shard.bridge(0).publishes_at(&other, positions);
    shard.store_was_asked();
    shard.store_answers_first(1);
    let asked = shard.store_was_asked();
    assert!(
        matches!(&asked[..], [Request::Read { stream, .. }] if *stream == StreamKey::Filter("a".into())),
        "{asked:?}"
    );
}
