//! Wills: when they are published, when not, and when later.

use holdfast_engine::{CloseReason, EngineConfig};
use holdfast_wire::mqtt::{Connect, Disconnect, Packet, ReasonCode, UserProperties, Will, WillProperties};
use holdfast_wire::store::{Request, WillRecord};

use crate::packets::{connect, connect_311, resume, will};
use crate::stage::Shard;
use crate::takeover::taken_over;

fn with_will(client_id: &str) -> Connect<'_> {
    Connect { will: Some(will("gone", "alas")), ..connect(client_id) }
}

fn delayed(delay_s: u32) -> Will<'static> {
    let properties = WillProperties { delay_interval_s: Some(delay_s), ..WillProperties::default() };
    Will { properties, ..will("gone", "alas") }
}

#[test]
fn a_client_that_vanishes_leaves_its_will() {
    let shard = Shard::new();
    shard.connects(&with_will("c")).vanishes();
    let uplink = shard.bridge(0).hears_uplink("gone", "alas");
    assert_eq!((uplink.packet_id, uplink.message.view().publisher), (None, "c"));
    assert_ne!(uplink.message.view().id, 0, "its copies are known by it");
    assert_eq!(shard.stats().wills, 1);
}

#[test]
fn a_proper_goodbye_takes_the_will_back() {
    let shard = Shard::new();
    for wanted in [with_will("c"), Connect { will: Some(will("gone", "alas")), ..connect_311("d") }] {
        let client = shard.connects(&wanted);
        client.sends(Disconnect::default());
        client.hears_the_end(CloseReason::ClientDisconnected);
    }
    shard.bridge(0).hears_nothing();
}

#[test]
fn a_goodbye_may_ask_for_the_will() {
    let shard = Shard::new();
    let client = shard.connects(&with_will("c"));
    client.sends(Disconnect::with_reason(ReasonCode::DisconnectWithWillMessage));
    client.hears_the_end(CloseReason::ClientDisconnectedWithWill);
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_client_that_is_thrown_out_leaves_its_will() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { keep_alive_s: 10, ..with_will("c") });
    shard.clock_advances_ms(16_000);
    client.hears_goodbye(CloseReason::KeepAliveTimeout);
    shard.bridge(0).hears_uplink("gone", "alas");
    let client = shard.connects(&with_will("c"));
    client.sends(Packet::PingResp);
    client.hears_goodbye(CloseReason::ServerPacketFromClient);
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_will_carries_its_properties_and_expires_from_its_publication() {
    let shard = Shard::new();
    let pairs = [("b", "1"), ("a", "2")];
    let properties = WillProperties {
        message_expiry_interval_s: Some(60),
        content_type: Some("text/plain"),
        user_properties: UserProperties::from(&pairs[..]),
        ..WillProperties::default()
    };
    let client =
        shard.connects(&Connect { will: Some(Will { properties, ..will("gone", "x") }), ..connect("c") });
    shard.clock_advances_ms(600_000);
    client.vanishes();
    let uplink = shard.bridge(0).hears_uplink("gone", "x");
    let view = uplink.message.view();
    assert_eq!(view.published_at_ms, shard.stage().now.unix_ms);
    assert_eq!(view.expires_at_ms, view.published_at_ms + 60_000);
    let mut block = Vec::new();
    properties.encode_forwardable(&mut block);
    assert_eq!(view.properties, block);
}

/// The will that goes to the store with the end of this client's session, if that is what the store is asked.
#[track_caller]
fn will_left_to_the_store(shard: &Shard, client_id: &str) -> Option<WillRecord> {
    match &shard.store_was_asked()[..] {
        [.., Request::Close { client, will, .. }] if **client == *client_id => will.clone(),
        asked => panic!("the store was asked {asked:?}"),
    }
}

#[test]
fn a_delayed_will_is_the_stores_business() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") }).vanishes();
    let left = will_left_to_the_store(&shard, "c").expect("it has a will");
    assert_eq!((left.delay_s, left.message.view().topic), (10, "gone"));
    shard.clock_advances_ms(20_000);
    shard.bridge(0).hears_nothing();
    assert_eq!(shard.stats().wills, 0);
}

#[test]
fn a_session_is_closed_once_its_will_is_settled() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") }).vanishes();
    shard.store_was_asked();
    shard.bridge(0).hears_uplink("gone", "c");
    shard.clock_advances_ms(1_999);
    assert_eq!(shard.store_was_asked(), [], "should this gateway die, the store has the will");
    shard.bridge(0).settles(1..=1);
    assert_eq!(will_left_to_the_store(&shard, "c"), None);
    // A sink that takes nothing does not keep sessions open.
    shard.connects(&Connect { will: Some(will("gone", "d")), ..connect("d") }).vanishes();
    shard.store_was_asked();
    shard.clock_advances_ms(2_000);
    assert_eq!(will_left_to_the_store(&shard, "d"), None);
    shard.bridge(0).settles(2..=2);
    assert_eq!(shard.store_was_asked(), []);
}

#[test]
fn a_client_that_is_back_here_finds_its_session_closed() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") }).vanishes();
    shard.bridge(0).hears_uplink("gone", "c");
    shard.store_was_asked();
    shard.connects(&resume("c"));
    let asked = shard.store_was_asked();
    assert!(
        matches!(&asked[..], [Request::Close { will: None, .. }, Request::Open { .. }, ..]),
        "the store was asked {asked:?}"
    );
    shard.bridge(0).settles(1..=1);
    assert_eq!(shard.store_was_asked(), []);
}

#[test]
fn a_client_that_is_back_elsewhere_waits_behind_its_will() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(will("gone", "c")), ..resume("c") }).vanishes();
    let elsewhere = shard.opened_elsewhere("c", 3_600);
    shard.bridge(0).says(&taken_over("c", elsewhere.epoch));
    shard.bridge(0).hears_uplink("gone", "c");
    shard.bridge(0).hears_nothing();
    shard.bridge(0).settles(1..=1);
    assert!(!shard.bridge(0).hears_will_is_owed());
    shard.clock_advances_ms(100_000);
    assert_eq!(shard.stored_epoch("c"), elsewhere.epoch);
}

#[test]
fn a_goodbye_leaves_the_store_no_will() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") });
    client.sends(Disconnect::default());
    client.hears_the_end(CloseReason::ClientDisconnected);
    assert_eq!(will_left_to_the_store(&shard, "c"), None);
    let client = shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") });
    client.sends(Disconnect::with_reason(ReasonCode::DisconnectWithWillMessage));
    client.hears_the_end(CloseReason::ClientDisconnectedWithWill);
    assert!(will_left_to_the_store(&shard, "c").is_some());
}

#[test]
fn a_session_that_ends_with_its_connection_has_nothing_to_delay_its_will_for() {
    let shard = Shard::new();
    shard.connects(&Connect { will: Some(delayed(60)), ..connect("d") }).vanishes();
    shard.bridge(0).hears_uplink("gone", "alas");
    shard.bridge(0).settles(1..=1);
    assert_eq!(will_left_to_the_store(&shard, "d"), None);
}

#[test]
fn a_delayed_will_goes_along_however_often_the_store_is_asked() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { will: Some(delayed(10)), ..resume("c") });
    shard.store_goes_away();
    client.vanishes();
    assert!(will_left_to_the_store(&shard, "c").is_some());
    for wait_ms in [1_000, 2_000, 4_000] {
        shard.clock_advances_ms(wait_ms);
        assert!(will_left_to_the_store(&shard, "c").is_some());
    }
    shard.store_answers();
    shard.clock_advances_ms(8_000);
    assert!(will_left_to_the_store(&shard, "c").is_some());
    shard.clock_advances_ms(600_000);
    assert_eq!(shard.store_was_asked(), []);
}

#[test]
fn the_store_hears_of_a_delayed_will_before_its_client_is_back() {
    let shard = Shard::new();
    let _first = shard.connects(&Connect { will: Some(delayed(60)), ..resume("c") });
    shard.store_was_asked();
    let _second = shard.connects(&resume("c"));
    let asked = shard.store_was_asked();
    assert!(
        matches!(&asked[..], [Request::Close { will: Some(_), .. }, Request::Open { .. }, ..]),
        "the store was asked {asked:?}"
    );
    shard.bridge(0).hears_nothing();
}

#[test]
fn the_will_of_a_session_that_the_store_has_lost_is_brought_back_to_it() {
    let shard = Shard::new();
    let client = shard.connects(&Connect { will: Some(delayed(60)), ..resume("c") });
    let epoch = shard.epoch_of("c");
    shard.store_loses_its_data();
    shard.store_was_asked();
    client.vanishes();
    let asked = shard.store_was_asked();
    assert!(
        matches!(
            &asked[..],
            [
                Request::Close { expiry_s: 3_600, .. },
                Request::Restore { expiry_s: 0, will: Some(_), .. },
                Request::Close { expiry_s: 0, epoch: closed, will: Some(_), .. }
            ] if *closed == epoch
        ),
        "the store was asked {asked:?}"
    );
    shard.clock_advances_ms(600_000);
    assert_eq!(shard.store_was_asked(), []);
}

#[test]
fn a_clean_start_ends_the_session_and_publishes_its_will_at_once() {
    let shard = Shard::new();
    let _first = shard.connects(&Connect { will: Some(delayed(60)), ..resume("c") });
    let _second = shard.connects(&connect("c"));
    shard.bridge(0).hears_uplink("gone", "alas");
}

#[test]
fn a_will_is_not_lost_where_there_is_no_bridge_or_no_credit() {
    let shard = Shard::without_links(EngineConfig::default(), 1);
    shard.connects(&with_will("c")).vanishes();
    shard.bridge(0).comes_up_with_window(1);
    shard.bridge(0).hears_uplink("gone", "alas");
    shard.connects(&with_will("d")).vanishes();
    shard.bridge(0).hears_uplink("gone", "alas");
    // Nor with a bridge that dies before it settled.
    shard.bridge(0).goes_down();
    shard.bridge(0).comes_up();
    assert!(shard.bridge(0).hears_uplink("gone", "alas").resent);
    assert!(shard.bridge(0).hears_uplink("gone", "alas").resent);
    shard.bridge(0).settles(3..=4);
}

/// Clients vanish until there is no room for the will of the last one; gives how many were published.
pub(crate) fn wills_take_all_room(shard: &Shard) -> u64 {
    let payload = "x".repeat(60_000);
    for number in 0.. {
        let name = format!("large-{number}");
        let will = Will { payload: payload.as_bytes(), ..will("gone", "") };
        shard.connects(&Connect { will: Some(will), ..connect(&name) }).vanishes();
        if shard.stats().wills_left > 0 {
            return number;
        }
    }
    unreachable!("there is a bound")
}

#[test]
fn a_will_for_which_there_is_no_room_is_left_to_the_store() {
    for is_linked in [true, false] {
        let shard = Shard::without_links(EngineConfig::default(), 1);
        if is_linked {
            shard.bridge(0).comes_up_with_window(1);
        }
        let published = wills_take_all_room(&shard);
        assert_eq!((published, shard.stats().wills), (140, 140), "8 MiB of them");
        let left = will_left_to_the_store(&shard, "large-140").expect("it has a will");
        assert_eq!((left.delay_s, left.message.view().payload.len()), (0, 60_000));
        if !is_linked {
            shard.bridge(0).comes_up();
        }
        shard.bridge(0).forgets();
        shard.bridge(0).settles(1..=published);
        shard.connects(&with_will("c")).vanishes();
        shard.bridge(0).hears_uplink("gone", "alas");
        assert_eq!(shard.stats().wills_left, 1);
    }
}
