//! What ended connections had on their way, and what waits for it: their client's next words here, and its next owner elsewhere.

use holdfast_engine::{CloseReason, EngineConfig};
use holdfast_wire::ids::Epoch;
use holdfast_wire::mqtt::{Connect, Disconnect, PubAck, RetainHandling, SubscriptionOptions};
use holdfast_wire::store::Request;

use crate::bridge::{Heard, SeenUplink};
use crate::client::Client;
use crate::packets::{AT_LEAST_ONCE, id, message, qos0, qos1, resume, resumed, will};
use crate::stage::Shard;
use crate::takeover::taken_over;

/// A shard with two bridges, both of which are there.
fn linked() -> Shard {
    let shard = Shard::without_links(EngineConfig::default(), 2);
    (0..2).for_each(|bridge| shard.bridge(bridge).comes_up());
    shard
}

fn with_will() -> Connect<'static> {
    Connect { will: Some(will("state", "offline")), ..resume("c") }
}

/// The bridge that hears an uplink, and the uplink.
#[track_caller]
fn spoken(shard: &Shard) -> (u16, SeenUplink) {
    let heard = (0..2).find_map(|bridge| Some((bridge, shard.bridge(bridge).may_hear()?)));
    match heard {
        Some((bridge, Heard::Uplink(uplink))) => (bridge, uplink),
        other => panic!("no uplink is heard but {other:?}"),
    }
}

/// The client says so, and gives the bridge that hears it and the uplink's number there.
#[track_caller]
fn says(shard: &Shard, client: &Client, packet_id: u16) -> (u16, u64) {
    client.sends(qos1(packet_id, "state", "online"));
    let (bridge, uplink) = spoken(shard);
    assert_eq!(uplink.message.view().payload, b"online");
    (bridge, uplink.sequence)
}

/// A client whose next words go to the first bridge given, and the one that would serve it if nothing were on its way: it came later.
fn served_by_the_second_best(shard: &Shard) -> (Client, u16, u16) {
    let client = shard.connects(&with_will());
    let (best, sequence) = says(shard, &client, 1);
    shard.bridge(best).settles(sequence..=sequence);
    client.hears(PubAck::success(id(1)));
    shard.bridge(best).goes_down();
    (client, 1 - best, best)
}

/// The client is back elsewhere, whose owner asks through this bridge.
fn is_asked_through(shard: &Shard, bridge: u16) -> Epoch {
    let epoch = shard.opened_elsewhere("c", 3_600).epoch;
    shard.bridge(bridge).says(&taken_over("c", epoch));
    epoch
}

#[track_caller]
fn nobody_hears_anything(shard: &Shard) {
    (0..2).for_each(|bridge| shard.bridge(bridge).hears_nothing());
}

#[test]
fn a_next_owner_hears_from_us_once_a_will_is_settled_whichever_bridge_it_asks_through() {
    for asked_through in [0, 1] {
        let shard = linked();
        shard.connects(&with_will()).vanishes();
        let (bridge, offline) = spoken(&shard);
        is_asked_through(&shard, asked_through);
        nobody_hears_anything(&shard);
        shard.bridge(bridge).settles(offline.sequence..=offline.sequence);
        assert!(!shard.bridge(asked_through).hears_will_is_owed());
        shard.clock_advances_ms(10_000);
        nobody_hears_anything(&shard);
    }
}

#[test]
fn a_next_owner_hears_from_us_once_all_that_its_client_has_said_here_is_settled() {
    let shard = linked();
    let client = shard.connects(&with_will());
    let (bridge, first) = says(&shard, &client, 1);
    client.sends(qos0("state", "still"));
    let (_, second) = spoken(&shard);
    let asked_through = 1 - bridge;
    is_asked_through(&shard, asked_through);
    client.hears_goodbye(CloseReason::SessionTakenOver);
    shard.bridge(bridge).settles(second.sequence..=second.sequence);
    nobody_hears_anything(&shard);
    shard.bridge(bridge).settles(first..=first);
    assert!(shard.bridge(asked_through).hears_will_is_owed());
}

#[test]
fn a_next_owner_that_cannot_wait_any_longer_is_told_all_the_same() {
    let shard = linked();
    shard.connects(&with_will()).vanishes();
    let (bridge, offline) = spoken(&shard);
    is_asked_through(&shard, 1 - bridge);
    shard.clock_advances_ms(299);
    nobody_hears_anything(&shard);
    shard.clock_advances_ms(1);
    assert!(!shard.bridge(1 - bridge).hears_will_is_owed());
    shard.bridge(bridge).settles(offline.sequence..=offline.sequence);
    nobody_hears_anything(&shard);
}

#[test]
fn a_next_owner_hears_at_once_what_is_too_much_to_be_kept_until_all_is_settled() {
    let shard = linked();
    let client = shard.connects(&with_will());
    let without_retained =
        SubscriptionOptions { retain_handling: RetainHandling::DoNotSend, ..AT_LEAST_ONCE };
    client.subscribes("large", without_retained);
    let (bridge, _) = says(&shard, &client, 1);
    let payload = "x".repeat(1 << 20);
    for _ in 0..17 {
        shard.bridge(bridge).publishes(&message("large", &payload));
        client.hears_packet();
    }
    let asked_through = 1 - bridge;
    is_asked_through(&shard, asked_through);
    assert!(shard.bridge(asked_through).hears_will_is_owed());
    shard.clock_advances_ms(10_000);
    nobody_hears_anything(&shard);
}

#[test]
fn one_that_asks_again_while_it_waits_is_told_over_the_bridge_that_asked_last() {
    let shard = linked();
    let client = shard.connects(&with_will());
    let (bridge, sequence) = says(&shard, &client, 1);
    let epoch = is_asked_through(&shard, 0);
    shard.bridge(1).says(&taken_over("c", epoch));
    nobody_hears_anything(&shard);
    shard.bridge(bridge).settles(sequence..=sequence);
    assert!(shard.bridge(1).hears_will_is_owed());
    shard.bridge(0).hears_nothing();
    shard.bridge(0).says(&taken_over("c", epoch));
    assert!(shard.bridge(0).hears_will_is_owed());
}

#[test]
fn frames_that_go_to_another_bridge_are_waited_for_there() {
    let shard = linked();
    shard.connects(&with_will()).vanishes();
    let (bridge, _) = spoken(&shard);
    is_asked_through(&shard, 1 - bridge);
    shard.bridge(bridge).goes_down();
    let (other, offline) = spoken(&shard);
    assert!(offline.resent && other != bridge);
    nobody_hears_anything(&shard);
    shard.bridge(other).settles(offline.sequence..=offline.sequence);
    assert!(!shard.bridge(other).hears_will_is_owed());
}

#[test]
fn what_is_lost_with_its_link_is_not_waited_for() {
    let shard = linked();
    let client = shard.connects(&with_will());
    client.sends(qos0("state", "online"));
    let (bridge, _) = spoken(&shard);
    is_asked_through(&shard, 1 - bridge);
    nobody_hears_anything(&shard);
    shard.bridge(bridge).goes_down();
    assert!(shard.bridge(1 - bridge).hears_will_is_owed());
}

#[test]
fn a_will_goes_the_way_of_what_its_client_said_before() {
    let shard = linked();
    let (client, serving, best) = served_by_the_second_best(&shard);
    assert_eq!(says(&shard, &client, 2).0, serving);
    shard.bridge(best).comes_up();
    client.vanishes();
    shard.bridge(best).hears_nothing();
    shard.bridge(serving).hears_uplink("state", "offline");
}

#[test]
fn a_will_waits_for_a_link_behind_what_its_client_said_before() {
    let shard = linked();
    let client = shard.connects(&with_will());
    let (bridge, _) = says(&shard, &client, 1);
    (0..2).for_each(|bridge| shard.bridge(bridge).goes_down());
    client.vanishes();
    shard.bridge(1 - bridge).comes_up();
    for payload in ["online", "offline"] {
        let frame = shard.bridge(1 - bridge).hears_uplink("state", payload);
        assert!(frame.resent);
    }
    nobody_hears_anything(&shard);
}

#[test]
fn what_a_client_says_next_goes_the_way_of_what_it_said_before_until_that_is_settled() {
    let shard = linked();
    let (client, serving, best) = served_by_the_second_best(&shard);
    let (_, last) = says(&shard, &client, 2);
    shard.bridge(best).comes_up();
    client.vanishes();
    let offline = shard.bridge(serving).hears_uplink("state", "offline").sequence;
    let client = shard.connects(&with_will());
    for packet_id in [3, 4] {
        let (bridge, sequence) = says(&shard, &client, packet_id);
        assert_eq!(bridge, serving);
        shard.bridge(serving).settles(sequence..=sequence);
        client.hears(PubAck::success(id(packet_id)));
    }
    shard.bridge(serving).settles(last..=offline);
    let (bridge, _) = says(&shard, &client, 5);
    assert_eq!(bridge, best, "nothing of it is anywhere else");
}

#[test]
fn a_connection_that_keeps_its_client_to_a_bridge_follows_when_that_is_lost() {
    let shard = linked();
    let (client, serving, best) = served_by_the_second_best(&shard);
    says(&shard, &client, 2);
    shard.bridge(best).comes_up();
    let client = shard.client();
    client.sends(with_will());
    client.hears(resumed());
    shard.bridge(serving).hears_uplink("state", "offline");
    shard.bridge(serving).goes_down();
    for payload in ["online", "offline"] {
        assert!(shard.bridge(best).hears_uplink("state", payload).resent);
    }
    assert_eq!(says(&shard, &client, 3).0, best);
}

/// How often the store was asked to close a session since the last look.
fn closed(shard: &Shard) -> usize {
    shard.store_was_asked().iter().filter(|asked| matches!(asked, Request::Close { .. })).count()
}

#[test]
fn a_session_stays_open_until_all_that_its_client_has_said_is_settled() {
    let shard = linked();
    for is_settled in [true, false] {
        let client = shard.connects(&resume("c"));
        let (bridge, sequence) = says(&shard, &client, 1);
        shard.store_was_asked();
        client.sends(Disconnect::default());
        shard.clock_advances_ms(1_999);
        assert_eq!(closed(&shard), 0, "a next owner has to ask for it");
        if is_settled {
            shard.bridge(bridge).settles(sequence..=sequence);
        } else {
            // A sink that takes nothing does not keep sessions open.
            shard.clock_advances_ms(1);
        }
        assert_eq!(closed(&shard), 1);
        shard.clock_advances_ms(10_000);
        shard.bridge(bridge).settles(sequence..=sequence);
        assert_eq!(closed(&shard), 0);
    }
}

#[test]
fn a_session_stays_open_for_what_earlier_connections_have_said() {
    let shard = linked();
    shard.connects(&with_will()).vanishes();
    let (bridge, offline) = spoken(&shard);
    let client = shard.connects(&with_will());
    assert_eq!(closed(&shard), 1, "it is opened anew behind its close");
    client.sends(Disconnect::default());
    assert_eq!(closed(&shard), 0);
    is_asked_through(&shard, 1 - bridge);
    nobody_hears_anything(&shard);
    shard.bridge(bridge).settles(offline.sequence..=offline.sequence);
    assert!(!shard.bridge(1 - bridge).hears_will_is_owed(), "it has said goodbye");
    assert_eq!(closed(&shard), 1);
}
