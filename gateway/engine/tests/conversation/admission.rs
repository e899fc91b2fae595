//! Everybody comes back at once: who is asked about, who waits, and what becomes of questions that the store could not answer.

use holdfast_engine::{CloseReason, EngineConfig, Limits};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::link::{Takeover, ToGateway};
use holdfast_wire::mqtt::{Connect, Publish, ReasonCode};
use holdfast_wire::store::{Reply, Request, SessionInfo};

use crate::bridge::Heard;
use crate::client::Client;
use crate::packets::{AT_LEAST_ONCE, accepted, connect, expiring, message, qos1, refused, resume, resumed};
use crate::stage::Shard;

/// Questions about sessions that leave at once at first.
const FIRST: usize = 32;

/// Clients `c-from` and so on, each with its CONNECT sent.
fn crowd(shard: &Shard, numbers: std::ops::Range<usize>) -> Vec<Client> {
    let connects = |number| {
        let client = shard.client();
        client.sends(connect(&format!("c-{number}")));
        client
    };
    numbers.map(connects).collect()
}

/// Whose session the store was asked to open since the last look.
fn opened(shard: &Shard) -> Vec<String> {
    let client = |request| match request {
        Request::Open { client, .. } => Some(client.to_string()),
        _ => None,
    };
    shard.store_was_asked().into_iter().filter_map(client).collect()
}

fn named(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("c-{number}")).collect()
}

fn waiting(shard: &Shard) -> u32 {
    shard.stage().engine.opens_waiting()
}

fn session(shard: &Shard, client: &str) -> Option<SessionInfo> {
    match shard.store_is_asked(Request::Lookup { client: ClientId::new(client) }) {
        Reply::Session(session) => session,
        other => panic!("a lookup is answered with {other:?}"),
    }
}

#[test]
fn no_more_is_asked_at_once_than_the_store_answers_and_the_others_follow_in_their_order() {
    let shard = Shard::new();
    shard.store_holds();
    let clients = crowd(&shard, 0..FIRST + 20);
    assert_eq!(opened(&shard), named(0..FIRST));
    assert_eq!(waiting(&shard), 20);
    // What is answered at once makes room for one more each.
    shard.store_answers_first(3);
    assert_eq!(opened(&shard), named(FIRST..FIRST + 6));
    assert_eq!((waiting(&shard), shard.stage().engine.opens_window()), (14, FIRST as u32 + 3));
    // What is answered late leaves room for half as many.
    shard.clock_advances_ms(1_000);
    shard.store_answers_first(FIRST / 2);
    assert_eq!(opened(&shard), Vec::<String>::new());
    shard.store_answers();
    for client in &clients {
        client.hears(accepted());
    }
    assert_eq!((waiting(&shard), shard.stats().connects), (0, FIRST as u64 + 20));
}

#[test]
fn who_leaves_while_it_waits_is_not_asked_about() {
    let shard = Shard::new();
    shard.store_holds();
    let clients = crowd(&shard, 0..FIRST + 3);
    clients[FIRST].vanishes();
    clients[FIRST + 2].vanishes();
    assert_eq!(waiting(&shard), 1);
    opened(&shard);
    shard.store_answers();
    assert_eq!(opened(&shard), named([FIRST + 1]));
    clients[FIRST + 1].hears(accepted());
    assert_eq!(shard.stats().opens_again, 0);
}

#[test]
fn those_who_come_and_go_while_nobody_is_asked_about_leave_nothing_behind() {
    let shard = Shard::with(EngineConfig {
        limits: Limits { connect_timeout_ms: 3_600_000, ..Limits::default() },
        ..EngineConfig::default()
    });
    shard.store_holds();
    let _asked = crowd(&shard, 0..FIRST);
    for round in 1..=100 {
        for client in crowd(&shard, round * 100..round * 100 + 10) {
            client.vanishes();
        }
    }
    opened(&shard);
    shard.store_answers();
    assert_eq!((opened(&shard).len(), waiting(&shard)), (0, 0));
}

#[test]
fn once_there_are_too_many_the_last_one_comes_first() {
    let shard = Shard::new();
    shard.store_holds();
    crowd(&shard, 0..FIRST + 2);
    shard.clock_advances_ms(3_000);
    crowd(&shard, 100..102);
    opened(&shard);
    // Late, so that no room is left beyond half of what there was.
    shard.store_answers_first(FIRST / 2);
    assert_eq!(opened(&shard), Vec::<String>::new());
    shard.store_answers_first(4);
    assert_eq!(opened(&shard), named([101, 100, FIRST + 1, FIRST]));
}

#[test]
fn who_waits_in_vain_is_refused_in_time_and_nothing_is_left_of_it() {
    let shard = Shard::new();
    shard.store_holds();
    let clients = crowd(&shard, 0..FIRST + 1);
    let last = &clients[FIRST];
    shard.clock_advances_ms(9_750);
    last.hears_nothing();
    // It is too late to ask now.
    opened(&shard);
    shard.store_answers();
    assert_eq!(opened(&shard), Vec::<String>::new());
    shard.clock_advances_ms(500);
    last.hears(refused(ReasonCode::ServerUnavailable));
    last.hears_the_end(CloseReason::StoreUnavailable);
    shard.clock_advances_ms(10_000);
    assert_eq!(shard.store_was_asked(), []);
    assert_eq!(waiting(&shard), 0);
}

#[test]
fn a_newer_connection_takes_the_place_of_one_that_waits() {
    let shard = Shard::new();
    shard.store_holds();
    let clients = crowd(&shard, 0..FIRST + 1);
    let newer = crowd(&shard, FIRST..FIRST + 1);
    clients[FIRST].hears_the_end(CloseReason::SessionTakenOver);
    opened(&shard);
    shard.store_answers();
    assert_eq!(opened(&shard), named([FIRST]));
    newer[0].hears(accepted());
}

#[test]
fn what_the_store_could_not_answer_is_asked_again_while_its_connection_waits() {
    let shard = Shard::new();
    shard.store_goes_away();
    let client = shard.client();
    client.sends(connect("c"));
    shard.clock_advances_ms(3_000);
    client.hears_nothing();
    let asked = opened(&shard).len();
    assert!((4..20).contains(&asked), "asked {asked} times");
    shard.store_answers();
    shard.clock_advances_ms(2_000);
    client.hears(accepted());
    assert_eq!(shard.stats().opens_again, asked as u64);
}

#[test]
fn a_store_that_is_away_is_not_asked_by_everyone_and_takes_everyone_once_it_is_back() {
    let shard = Shard::new();
    shard.store_goes_away();
    let clients = crowd(&shard, 0..500);
    shard.clock_advances_ms(5_000);
    let asked = opened(&shard).len();
    assert!(asked < 200, "asked {asked} times for 500 in 5 s");
    shard.store_answers();
    shard.clock_advances_ms(2_000);
    for client in &clients {
        client.hears(accepted());
    }
}

#[test]
fn a_client_that_resumes_while_the_store_does_not_answer_finds_its_session() {
    let shard = Shard::new();
    shard.connects(&resume("c")).vanishes();
    shard.store_holds();
    let client = shard.client();
    client.sends(resume("c"));
    shard.clock_advances_ms(2_000);
    shard.store_gives_up_first(true);
    client.hears_nothing();
    shard.store_answers();
    shard.clock_advances_ms(2_000);
    client.hears(resumed());
}

/// Word of a new owner elsewhere.
fn taken_over(client: &str, epoch: Epoch) -> ToGateway<'_> {
    ToGateway::Takeover(Takeover { client, epoch, former: Shard::OWNER, owner: Shard::OTHER })
}

#[test]
fn another_owner_does_not_wait_for_those_who_wait_here() {
    let shard = Shard::new();
    shard.store_holds();
    // Not asked about yet ...
    let clients = crowd(&shard, 0..FIRST + 1);
    shard.bridge(0).says(&taken_over(&format!("c-{FIRST}"), Epoch(5)));
    assert!(matches!(shard.bridge(0).hears(), Heard::Handover { .. }));
    // ... and not answered, which shows only later.
    shard.bridge(0).says(&taken_over("c-0", Epoch(5)));
    shard.bridge(0).hears_nothing();
    shard.store_gives_up_first(false);
    assert!(matches!(shard.bridge(0).hears(), Heard::Handover { .. }));
    shard.store_answers();
    shard.clock_advances_ms(1_000);
    for client in &clients {
        client.hears(accepted());
    }
}

#[test]
fn a_session_that_was_opened_for_nobody_is_closed_once_the_store_answers() {
    // The connection ends before the store gives up, and after.
    for ends_early in [true, false] {
        let shard = Shard::new();
        shard.store_holds();
        let client = shard.client();
        client.sends(Connect { properties: expiring(60), ..connect("c") });
        if ends_early {
            client.vanishes();
        }
        shard.store_gives_up_first(true);
        if !ends_early {
            client.vanishes();
        }
        assert_eq!(session(&shard, "c").expect("it was opened").owner, Some(Shard::OWNER));
        shard.store_goes_away();
        shard.clock_advances_ms(100_000);
        shard.store_was_asked();
        shard.store_answers();
        shard.clock_advances_ms(60_000);
        let asked = shard.store_was_asked();
        assert!(
            matches!(
                &asked[..],
                [
                    Request::Lookup { .. },
                    Request::Open { clean_start: false, expiry_s: 60, will: None, .. },
                    Request::Close { expiry_s: 60, will: None, .. }
                ]
            ),
            "{asked:?}"
        );
        assert_eq!(session(&shard, "c").expect("it rests").owner, None);
        assert_eq!(shard.stats().strays_closed, 1);
        shard.clock_advances_ms(200_000);
        assert_eq!(shard.store_was_asked(), []);
    }
}

#[test]
fn a_session_that_ends_with_its_connection_and_was_opened_for_nobody_ends() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(connect("c"));
    client.vanishes();
    shard.store_gives_up_first(true);
    shard.store_answers();
    assert_eq!(session(&shard, "c").expect("it was opened").owner, Some(Shard::OWNER));
    shard.store_was_asked();
    shard.clock_advances_ms(60_000);
    let asked = shard.store_was_asked();
    assert!(matches!(&asked[..], [Request::Lookup { .. }, Request::Close { expiry_s: 0, .. }]), "{asked:?}");
    assert_eq!(session(&shard, "c"), None);
}

#[test]
fn a_session_that_was_opened_for_nobody_keeps_what_it_had() {
    let shard = Shard::new();
    let client = shard.connects(&resume("c"));
    client.subscribes("a", AT_LEAST_ONCE);
    let positions = shard.appends(&["a"], &message("a", "x"));
    shard.bridge(0).publishes_at(&message("a", "x"), positions);
    client.hears(qos1(1, "a", "x"));
    client.vanishes();
    shard.store_holds();
    let client = shard.client();
    client.sends(resume("c"));
    client.vanishes();
    shard.store_gives_up_first(true);
    shard.store_answers();
    shard.clock_advances_ms(60_000);
    assert_eq!(session(&shard, "c").expect("it rests").owner, None);
    let client = shard.client();
    client.sends(resume("c"));
    client.hears(resumed());
    client.hears(Publish { dup: true, ..qos1(1, "a", "x") });
}

#[test]
fn a_session_that_was_not_opened_or_is_elsewhere_by_now_is_left_alone() {
    for is_elsewhere in [true, false] {
        let shard = Shard::new();
        shard.store_holds();
        let client = shard.client();
        client.sends(resume("c"));
        client.vanishes();
        shard.store_gives_up_first(is_elsewhere);
        if is_elsewhere {
            shard.opened_elsewhere("c", 3_600);
        }
        shard.store_was_asked();
        shard.store_answers();
        shard.clock_advances_ms(200_000);
        assert!(matches!(&shard.store_was_asked()[..], [Request::Lookup { .. }]));
    }
}

#[test]
fn a_connection_that_comes_meanwhile_speaks_for_a_session_that_was_opened_for_nobody() {
    let shard = Shard::new();
    shard.store_holds();
    let client = shard.client();
    client.sends(resume("c"));
    client.vanishes();
    shard.store_gives_up_first(true);
    // While it is looked up.
    shard.clock_advances_ms(60_000);
    let client = shard.client();
    client.sends(resume("c"));
    shard.store_was_asked();
    shard.store_answers();
    client.hears(resumed());
    shard.clock_advances_ms(60_000);
    assert!(!shard.store_was_asked().iter().any(|request| matches!(request, Request::Close { .. })));
    assert_eq!(session(&shard, "c").expect("it is here").epoch, shard.epoch_of("c"));
}

#[test]
fn a_connection_that_comes_meanwhile_and_is_never_asked_about_leaves_the_session_to_be_closed() {
    let shard = Shard::new();
    shard.store_holds();
    let first = shard.client();
    first.sends(resume("c-0"));
    first.vanishes();
    shard.store_gives_up_first(true);
    // It is looked up while its client comes again, and waits.
    shard.clock_advances_ms(60_000);
    let _crowd = crowd(&shard, 1..FIRST + 1);
    let again = crowd(&shard, 0..1);
    shard.store_answers_first(1);
    assert_eq!(waiting(&shard), 1);
    again[0].vanishes();
    shard.store_answers();
    shard.clock_advances_ms(120_000);
    assert_eq!(session(&shard, "c-0").expect("it rests").owner, None);
}

#[test]
fn a_socket_is_looked_at_before_the_store_is_asked_again() {
    let shard = Shard::new();
    shard.store_holds();
    shard.client().sends(connect("c"));
    let before = shard.stage().reads_resumed;
    shard.store_gives_up_first(true);
    assert_eq!(shard.stage().reads_resumed, before + 1, "its peer may have left while nobody listened");
    assert_eq!(shard.stage().engine.opens_waiting(), 1);
}
