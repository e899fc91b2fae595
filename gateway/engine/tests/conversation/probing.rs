//! A store that came back without its last moments: it knows a session that is connected here as it was before.

use holdfast_engine::{EngineConfig, LeaseWord, Limits};
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::session_record::SessionRecord;
use holdfast_wire::store::{Reply, Request};

use crate::client::Client;
use crate::packets::{connect, resume};
use crate::stage::Shard;

/// More than the few that are asked about first, by far.
const CLIENTS: u16 = 400;
/// The one whose opening is lost.
const LOST: &str = "c-123";

fn with_clients(limits: Limits) -> (Shard, Vec<Client>) {
    let shard = Shard::with(EngineConfig { limits, ..EngineConfig::default() });
    let clients = (0..CLIENTS).map(|number| shard.connects(&resume(&format!("c-{number}")))).collect();
    (shard, clients)
}

/// The store comes back as it was before [`LOST`] was opened here: with another owner, which is gone.
fn store_loses_one_opening(shard: &Shard) {
    let epochs: Vec<_> =
        (0..CLIENTS).map(|number| format!("c-{number}")).map(|name| (shard.epoch_of(&name), name)).collect();
    shard.store_loses_its_data();
    for (epoch, name) in epochs {
        let (owner, epoch) =
            if name == LOST { (Shard::OTHER, Epoch(epoch.0 - 1)) } else { (Shard::OWNER, epoch) };
        shard.store_is_asked(Request::Restore {
            client: ClientId::new(&name),
            owner,
            epoch,
            expiry_s: 3_600,
            will: None,
            session: SessionRecord::default(),
        });
    }
    assert_eq!(stored_owner(shard), Some(Shard::OTHER));
    shard.store_was_asked();
}

fn stored_owner(shard: &Shard) -> Option<Owner> {
    match shard.store_is_asked(Request::Lookup { client: ClientId::new(LOST) }) {
        Reply::Session(info) => info.and_then(|info| info.owner),
        other => panic!("a lookup is answered with {other:?}"),
    }
}

fn lookups(shard: &Shard) -> usize {
    shard.store_was_asked().iter().filter(|request| matches!(request, Request::Lookup { .. })).count()
}

#[test]
fn a_single_opening_that_a_store_lost_is_found_out_though_nothing_is_written() {
    let (shard, _clients) = with_clients(Limits::default());
    store_loses_one_opening(&shard);
    shard.lease_says(LeaseWord::Recovered);
    shard.clock_advances_ms(5_000);
    assert_eq!(stored_owner(&shard), Some(Shard::OWNER));
    assert_eq!(shard.stored_epoch(LOST), shard.epoch_of(LOST));
}

#[test]
fn it_is_found_out_as_well_where_the_lease_was_renewed_all_the_while() {
    let (shard, _clients) = with_clients(Limits::default());
    shard.store_goes_away();
    let refused = shard.client();
    refused.sends(connect("d"));
    refused.vanishes();
    shard.clock_advances_ms(1_000);
    store_loses_one_opening(&shard);
    shard.store_answers();
    shard.clock_advances_ms(4_000);
    assert_eq!(stored_owner(&shard), Some(Shard::OTHER), "who is slow is left alone");
    shard.clock_advances_ms(6_000);
    assert_eq!(stored_owner(&shard), Some(Shard::OWNER));
}

#[test]
fn a_store_that_goes_away_again_is_asked_about_all_once_it_is_back() {
    let (shard, _clients) = with_clients(Limits { restores_per_s: 200, ..Limits::default() });
    store_loses_one_opening(&shard);
    shard.lease_says(LeaseWord::Recovered);
    shard.clock_advances_ms(100);
    assert_eq!(stored_owner(&shard), Some(Shard::OTHER));
    shard.store_goes_away();
    shard.clock_advances_ms(600_000);
    assert_eq!(stored_owner(&shard), Some(Shard::OTHER));
    shard.store_answers();
    shard.clock_advances_ms(30_000);
    assert_eq!(stored_owner(&shard), Some(Shard::OWNER));
}

#[test]
fn it_is_asked_no_faster_than_a_quarter_of_what_may_be_written_back() {
    let (shard, _clients) = with_clients(Limits { restores_per_s: 400, ..Limits::default() });
    shard.store_was_asked();
    shard.lease_says(LeaseWord::Recovered);
    assert_eq!(lookups(&shard), 16, "the first few");
    shard.clock_advances_ms(1_000);
    let in_a_second = lookups(&shard);
    assert!((90..=105).contains(&in_a_second), "{in_a_second}");
    shard.clock_advances_ms(10_000);
    assert_eq!(in_a_second + lookups(&shard), usize::from(CLIENTS), "each once");
}

#[test]
fn those_that_were_opened_long_before_are_not_asked_about() {
    let (shard, _clients) = with_clients(Limits::default());
    shard.clock_advances_ms(600_000);
    let _late = shard.connects(&resume("late"));
    shard.clock_advances_ms(30_000);
    shard.store_was_asked();
    shard.lease_says(LeaseWord::Recovered);
    shard.clock_advances_ms(10_000);
    assert_eq!(lookups(&shard), 17, "the first few and that one");
}
