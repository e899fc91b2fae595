//! Sessions that their owners write back into a store which has lost its data.

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::mqtt::{PacketId, QoS};
use holdfast_wire::session_record::{Cursor, SessionRecord};

use crate::world::{ALICE, BOB, Bench, at, device, filter, reap, subscription};

fn restore(owner: Owner, epoch: u64, expiry_s: u32, filters: &[&str]) -> Request {
    Request::Restore {
        client: ClientId::new("d"),
        owner,
        epoch: Epoch(epoch),
        expiry_s,
        will: None,
        session: SessionRecord {
            subscriptions: filters.iter().map(|filter| subscription(filter, QoS::AtLeastOnce)).collect(),
            // Of streams that are no more.
            cursors: vec![at(filter("a"), 77), at(device("d"), 78)],
            received: vec![PacketId::new(7).unwrap()],
            inflight: vec![],
        },
    }
}

fn stands(bench: &Bench, request: Request) -> Vec<Cursor> {
    match bench.ask(request) {
        Ok(Reply::Subscribed(mut cursors)) => {
            cursors.sort_by(|a, b| a.stream.cmp(&b.stream));
            cursors
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_session_is_written_back_as_its_owner_knows_it(bench: &Bench) {
    bench.subscriber("reader", "a");
    bench.append(&[filter("a")], "before");
    // Two filters, out of order and one twice.
    let written = stands(bench, restore(BOB, 1_000, 60, &["b", "a", "b"]));
    assert_eq!(written, [at(filter("a"), 1), at(filter("b"), 0), at(device("d"), 0)]);
    let info = bench.lookup("d").unwrap();
    assert_eq!((info.owner, info.epoch, info.persistent), (Some(BOB), Epoch(1_000), true));
    assert_eq!(info.subscriptions.len(), 2);
    bench.append(&[filter("a"), filter("b"), device("d")], "after");
    let opened = bench.open("d", ALICE, 60);
    assert!(opened.epoch > Epoch(1_000), "epochs go on behind it");
    assert_eq!(opened.former, Some(BOB));
    let session = opened.session.unwrap();
    assert_eq!(session.received, [PacketId::new(7).unwrap()]);
    for cursor in written {
        assert!(session.cursors.contains(&cursor), "{cursor:?} is not in {:?}", session.cursors);
    }
    assert_eq!(bench.offsets(&device("d")), [1]);
    assert!(bench.open("someone else", BOB, 0).epoch > Epoch(1_000));
}

pub(crate) fn writing_back_again_changes_nothing(bench: &Bench) {
    let first = stands(bench, restore(ALICE, 50, 60, &["a"]));
    bench.append(&[filter("a"), device("d")], "1");
    assert_eq!(stands(bench, restore(ALICE, 50, 60, &["a"])), first);
    assert_eq!(bench.offsets(&filter("a")), [1]);
    assert_eq!(bench.lookup("d").unwrap().pending, 1);
    bench.save("d", Epoch(50), vec![at(filter("a"), 1)]);
    assert!(bench.offsets(&filter("a")).is_empty(), "it has one reader");
}

pub(crate) fn a_session_without_expiry_is_written_back_with_its_owner_alone(bench: &Bench) {
    assert_eq!(stands(bench, restore(ALICE, 50, 0, &["a"])), []);
    let info = bench.lookup("d").unwrap();
    assert_eq!((info.owner, info.epoch, info.persistent), (Some(ALICE), Epoch(50), false));
    assert!(bench.durable_filters().is_empty());
    bench.close("d", Epoch(50), 0);
    assert_eq!(bench.lookup("d"), None);
}

pub(crate) fn who_lost_a_session_cannot_write_it_back(bench: &Bench) {
    let old = bench.open("d", ALICE, 60).epoch.0;
    let epoch = bench.open("d", BOB, 60).epoch;
    assert_eq!(bench.ask(restore(ALICE, old, 60, &["a"])), Err(StoreError::Fenced));
    assert_eq!(bench.lookup("d").unwrap().owner, Some(BOB));
    assert!(bench.durable_filters().is_empty());
    bench.done(reap("d", epoch));
    assert_eq!(bench.ask(restore(BOB, epoch.0, 60, &["a"])), Err(StoreError::Fenced));
    bench.done(Request::Bury { node: ALICE.node });
    let buried = Request::Restore {
        client: ClientId::new("another"),
        owner: ALICE,
        epoch: Epoch(1),
        expiry_s: 60,
        will: None,
        session: SessionRecord::default(),
    };
    assert_eq!(bench.ask(buried), Err(StoreError::Fenced));
    assert_eq!(bench.lookup("another"), None);
}

pub(crate) fn an_older_state_of_a_session_gives_way_and_keeps_its_cursors(bench: &Bench) {
    let epoch = 1_000;
    stands(bench, restore(ALICE, epoch, 60, &["a"]));
    bench.append(&[filter("a")], "1");
    bench.append(&[filter("a")], "2");
    bench.save("d", Epoch(epoch), vec![at(filter("a"), 1)]);
    let written = stands(bench, restore(BOB, epoch + 100, 60, &["a", "b"]));
    assert_eq!(written, [at(filter("a"), 1), at(filter("b"), 0), at(device("d"), 0)]);
    assert_eq!(bench.offsets(&filter("a")), [2]);
    let info = bench.lookup("d").unwrap();
    assert_eq!((info.owner, info.epoch), (Some(BOB), Epoch(epoch + 100)));
    assert_eq!(
        stands(bench, restore(BOB, epoch + 200, 60, &["b"])),
        [at(filter("b"), 0), at(device("d"), 0)]
    );
    assert_eq!(bench.durable_filters(), [Box::from("b")]);
}

/// Half open on one node, its client comes back on another one and ends the session there.
pub(crate) fn a_session_that_ended_elsewhere_is_not_written_back(bench: &Bench) {
    let half_open = bench.open("d", ALICE, 60).epoch.0;
    let epoch = bench.open("d", BOB, 60).epoch;
    bench.close("d", epoch, 0);
    let fenced = |epoch| assert_eq!(bench.ask(restore(ALICE, epoch, 60, &["a"])), Err(StoreError::Fenced));
    fenced(half_open);
    fenced(epoch.0);
    assert_eq!(bench.lookup("d"), None);
    assert!(bench.durable_filters().is_empty());
    // Nor over what was written back of a former life of the store.
    stands(bench, restore(BOB, 1_000, 60, &["a"]));
    fenced(half_open);
    assert_eq!(bench.lookup("d").unwrap().owner, Some(BOB));
    // One that expired has ended too.
    let epoch = bench.open("d", ALICE, 5).epoch;
    bench.close("d", epoch, 5);
    bench.pass_s(5);
    fenced(epoch.0);
    assert_eq!(bench.lookup("d"), None);
}

pub(crate) fn a_will_is_written_back_too(bench: &Bench) {
    let Request::Restore { client, owner, epoch, expiry_s, session, .. } = restore(ALICE, 50, 60, &["a"])
    else {
        unreachable!("it is a restore")
    };
    let will = Some(bench.will("d", 0));
    stands(bench, Request::Restore { client, owner, epoch, expiry_s, will, session });
    bench.reap("d", Epoch(50));
    assert_eq!(bench.due_wills().len(), 1);
}
