//! A bridge that lives and takes nothing: what waits for it is bounded, and what its shard owes anyone is said elsewhere or anew once its link is given up. What that bridge fans out
//! meanwhile passes the shard by.

use holdfast_engine::{CloseReason, EngineConfig, Limits};
use holdfast_wire::ids::Epoch;
use holdfast_wire::link::{Handover, ToGateway};
use holdfast_wire::mqtt::{Disconnect, PubAck, ReasonCode};

use crate::bridge::Heard;
use crate::packets::{
    AT_LEAST_ONCE, connect, id, message, qos1, resume, resumed, suback, subscribe, unsuback, unsubscribe,
};
use crate::stage::Shard;
use crate::takeover::taken_over;

/// What may wait in these stories, uplinks apart.
const WAITING_BYTES_MAX: usize = 4_096;

fn with_links(links: u16, events: bool) -> Shard {
    let limits = Limits { link_bytes_max: WAITING_BYTES_MAX, ..Limits::default() };
    let shard = Shard::without_links(EngineConfig { events, limits, ..EngineConfig::default() }, links);
    (0..links).for_each(|link| shard.bridge(link).comes_up());
    shard
}

/// Somebody takes filters up and gives them up again until that is too much for a bridge.
fn overruns(shard: &Shard, link: u16) {
    let restless = shard.connects(&connect("restless"));
    for round in 1..=WAITING_BYTES_MAX as u16 {
        restless.sends(subscribe(round, &[("some/filter", AT_LEAST_ONCE)]));
        restless.sends(unsubscribe(round, &["some/filter"]));
        assert!(shard.bridge(link).waiting_bytes() <= WAITING_BYTES_MAX + 1_024);
        if shard.bridge(link).overflows() {
            return restless.vanishes();
        }
    }
    panic!("it is never too much");
}

#[test]
fn events_are_dropped_and_counted_before_anything_else() {
    let shard = with_links(1, true);
    shard.bridge(0).stops_reading();
    for _ in 0..500 {
        shard.connects(&connect("c")).vanishes();
    }
    assert!(!shard.bridge(0).overflows());
    assert!(shard.bridge(0).waiting_bytes() < WAITING_BYTES_MAX / 4);
    // The rest has room still.
    let client = shard.connects(&connect("d"));
    client.sends(qos1(1, "t", "x"));
    shard.bridge(0).reads_again();
    let mut told = 0;
    while let Some(Heard::Event(..)) = shard.bridge(0).may_hear() {
        told += 1;
    }
    assert!(told > 0);
    assert_eq!(shard.stats().events_dropped, 1_001 - told);
    shard.bridge(0).forgets();
    client.sends(Disconnect::with_reason(ReasonCode::Success));
    shard.bridge(0).hears_event("d", Epoch(501), "disconnected client_disconnected for good");
}

#[test]
fn uplinks_do_not_count_as_their_window_bounds_them() {
    let shard = with_links(1, false);
    let client = shard.connects(&connect("c"));
    shard.bridge(0).stops_reading();
    for packet_id in 1..=30 {
        client.sends(qos1(packet_id, "t", &"x".repeat(1_000)));
    }
    assert!(shard.bridge(0).waiting_bytes() > 30_000);
    assert!(!shard.bridge(0).overflows());
}

#[test]
fn a_bridge_whose_link_was_given_up_hears_of_filters_and_frames_anew() {
    let shard = with_links(1, false);
    let client = shard.connects(&connect("c"));
    client.subscribes("kept", AT_LEAST_ONCE);
    client.subscribes("given/up", AT_LEAST_ONCE);
    shard.bridge(0).stops_reading();
    client.sends(unsubscribe(7, &["given/up"]));
    client.hears(unsuback(7, &[0]));
    client.sends(subscribe(8, &[("new", AT_LEAST_ONCE)]));
    client.sends(qos1(9, "t", "x"));
    client.hears_nothing();
    overruns(&shard, 0);
    assert_eq!(shard.stats().links_overrun, 0);

    shard.bridge(0).holds_answers();
    shard.bridge(0).is_dialled_again();
    assert_eq!(shard.stats().links_overrun, 1);
    // There was no bridge to wait for.
    client.hears(suback(8, &[1]));
    assert!(shard.bridge(0).hears_uplink("t", "x").resent);
    shard.bridge(0).hears_interest("+kept");
    shard.bridge(0).hears_interest("+new");
    shard.bridge(0).hears_retained_read("kept");
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(2..=2);
    client.hears(PubAck::success(id(9)));
    shard.bridge(0).publishes(&message("new", "y"));
    client.hears(qos1(1, "new", "y"));
}

#[test]
fn a_former_owner_is_asked_anew_over_the_next_link() {
    for links in [1, 2] {
        let shard = with_links(links, false);
        shard.opened_elsewhere("c", 3_600);
        (0..links).for_each(|link| shard.bridge(link).stops_reading());
        let client = shard.client();
        client.sends(resume("c"));
        let asked = (0..links).find(|link| shard.bridge(*link).waiting_bytes() > 0);
        let asked = asked.expect("the former owner is asked");
        let other = links - 1 - asked;
        overruns(&shard, asked);
        if other == asked {
            shard.bridge(asked).is_dialled_again();
        } else {
            shard.bridge(asked).goes_down();
            shard.bridge(other).holds_answers();
            shard.bridge(other).reads_again();
        }
        client.hears_nothing();
        let epoch = loop {
            match shard.bridge(other).hears() {
                Heard::Takeover { client, epoch, .. } if client == "c" => break epoch,
                Heard::Interest(..) => {}
                heard => panic!("the bridge hears {heard:?}"),
            }
        };
        let handover = Handover { client: "c", epoch, owner: Shard::OWNER, session: &[], owes_will: false };
        shard.bridge(other).says(&ToGateway::Handover(handover));
        client.hears(resumed());
    }
}

#[test]
fn a_next_owner_that_asks_again_hears_what_a_link_was_given_up_with() {
    let shard = with_links(1, false);
    let client = shard.connects(&resume("c"));
    shard.bridge(0).stops_reading();
    let epoch = shard.opened_elsewhere("c", 3_600).epoch;
    shard.bridge(0).says(&taken_over("c", epoch));
    client.hears_goodbye(CloseReason::SessionTakenOver);
    overruns(&shard, 0);
    shard.bridge(0).is_dialled_again();
    shard.bridge(0).says(&taken_over("c", epoch));
    match shard.bridge(0).hears() {
        Heard::Handover { client, session, .. } => assert!(client == "c" && !session.is_empty()),
        heard => panic!("the bridge hears {heard:?}"),
    }
}

#[test]
fn a_page_of_retained_messages_is_asked_for_anew() {
    let shard = with_links(1, false);
    let client = shard.connects(&connect("c"));
    client.sends(subscribe(1, &[("a", AT_LEAST_ONCE)]));
    client.hears(suback(1, &[1]));
    shard.bridge(0).forgets();
    shard.bridge(0).stops_reading();
    let late = shard.connects(&connect("late"));
    late.sends(subscribe(1, &[("a", AT_LEAST_ONCE)]));
    late.hears(suback(1, &[1]));
    overruns(&shard, 0);
    shard.bridge(0).is_dialled_again();
    shard.bridge(0).hears_retained_read("a");
    shard.bridge(0).hears_retained_read("a");
    shard.bridge(0).hears_nothing();
}
