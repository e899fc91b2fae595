//! Who owns a session, and who may no longer write it (promise P5).

use holdfast_store::contract::{Progress, Request, StoreError};
use holdfast_wire::ids::{ClientId, Epoch};

use crate::world::{ALICE, BOB, Bench, close, reap, subscription};

pub(crate) fn a_new_client_is_opened_without_a_session(bench: &Bench) {
    let opened = bench.open("d", ALICE, 60);
    assert_eq!((opened.session, opened.former), (None, None));
    assert!(opened.epoch > Epoch(0));
}

pub(crate) fn epochs_only_grow(bench: &Bench) {
    let mut last = [Epoch(0); 2];
    for round in 0..20 {
        let client = ["a", "b"][round % 2];
        let epoch = bench.open(client, ALICE, 60).epoch;
        assert!(epoch > last[round % 2], "of each client");
        last[round % 2] = epoch;
        if round % 3 == 0 {
            bench.close(client, epoch, 0);
        }
    }
}

pub(crate) fn a_takeover_names_the_former_owner_and_fences_it(bench: &Bench) {
    for expiry_s in [0, 60] {
        let client = format!("d-{expiry_s}");
        let old = bench.open(&client, ALICE, expiry_s).epoch;
        let taken = bench.open(&client, BOB, expiry_s);
        assert_eq!(taken.former, Some(ALICE));
        let client = ClientId::new(&client);
        let progress = Progress::default();
        for late in [
            Request::Save { client: client.clone(), epoch: old, progress: progress.clone() },
            Request::Close { client: client.clone(), epoch: old, expiry_s: 0, progress, will: None },
            reap(&client, old),
            Request::Unsubscribe { client: client.clone(), epoch: old, filters: vec!["a".into()] },
            Request::Subscribe {
                client: client.clone(),
                epoch: old,
                subscriptions: vec![subscription("a", holdfast_wire::mqtt::QoS::AtLeastOnce)],
            },
        ] {
            assert_eq!(bench.ask(late), Err(StoreError::Fenced));
        }
        assert!(bench.durable_filters().is_empty());
        assert_eq!(bench.lookup(&client).unwrap().owner, Some(BOB));
    }
}

pub(crate) fn the_same_owner_is_not_its_own_former_one(bench: &Bench) {
    let first = bench.open("d", ALICE, 60).epoch;
    let again = bench.open("d", ALICE, 60);
    assert_eq!(again.former, None);
    assert!(again.epoch > first);
}

pub(crate) fn a_write_of_a_session_that_is_not_there_is_told_so(bench: &Bench) {
    let epoch = bench.open("ended", ALICE, 60).epoch;
    bench.close("ended", epoch, 0);
    for (client, epoch) in [("nobody", Epoch(1)), ("ended", epoch)] {
        let name = ClientId::new(client);
        for late in [
            close(client, epoch, 0),
            reap(client, epoch),
            Request::Save { client: name.clone(), epoch, progress: Progress::default() },
            Request::Unsubscribe { client: name.clone(), epoch, filters: vec!["a".into()] },
            Request::Subscribe {
                client: name.clone(),
                epoch,
                subscriptions: vec![subscription("a", holdfast_wire::mqtt::QoS::AtLeastOnce)],
            },
        ] {
            assert_eq!(bench.ask(late), Err(StoreError::Gone));
        }
    }
    assert!(bench.durable_filters().is_empty());
}

pub(crate) fn a_close_by_a_former_owner_leaves_the_new_session_alone(bench: &Bench) {
    let old = bench.open("d", ALICE, 0).epoch;
    let new = bench.open("d", BOB, 0).epoch;
    assert_eq!(bench.ask(close("d", old, 0)), Err(StoreError::Fenced));
    assert_eq!(bench.lookup("d").unwrap().epoch, new);
}

pub(crate) fn a_takeover_of_a_session_without_expiry_finds_nothing(bench: &Bench) {
    bench.open("d", ALICE, 0);
    let taken = bench.open("d", BOB, 60);
    assert_eq!(taken.session, None);
    assert_eq!(taken.former, Some(ALICE));
}
