//! Sessions page by page.

use std::collections::BTreeMap;

use holdfast_store::contract::{Reply, Request, SessionEntry, StoreError};
use holdfast_wire::ids::NodeId;

use crate::world::{ALICE, BOB, BOUNDS, Bench};

fn by_client(sessions: Vec<SessionEntry>) -> BTreeMap<String, SessionEntry> {
    let count = sessions.len();
    let by_client: BTreeMap<_, _> =
        sessions.into_iter().map(|session| (session.client.to_string(), session)).collect();
    assert_eq!(by_client.len(), count, "none is on two pages");
    by_client
}

pub(crate) fn each_session_is_on_one_page(bench: &Bench) {
    assert!(bench.sessions(None, 10).is_empty());
    for number in 0..300 {
        let owner = if number % 3 == 0 { BOB } else { ALICE };
        let client = format!("{number}");
        let epoch = bench.open(&client, owner, number % 2 * 60).epoch;
        if number % 5 == 0 {
            bench.close(&client, epoch, 60);
        }
    }
    for sessions_max in [1, 7, 1_000] {
        let sessions = by_client(bench.sessions(None, sessions_max));
        // Every tenth had no expiry and is gone.
        assert_eq!(sessions.len(), 270, "{sessions_max} a page");
        for (client, session) in sessions {
            let info = bench.lookup(&client).unwrap();
            assert_eq!((session.owner, session.epoch), (info.owner, info.epoch));
            assert_eq!((session.persistent, session.since_ms), (info.persistent, info.since_ms));
        }
    }
}

pub(crate) fn sessions_are_listed_by_owner(bench: &Bench) {
    for number in 0..100 {
        let owner = if number % 10 == 0 { BOB } else { ALICE };
        bench.open(&number.to_string(), owner, number % 3 * 60);
    }
    for sessions_max in [1, 1_000] {
        let of_bob = by_client(bench.sessions(Some(BOB.node), sessions_max));
        assert_eq!(of_bob.len(), 10);
        assert!(of_bob.values().all(|session| session.owner == Some(BOB)));
        assert_eq!(bench.sessions(Some(ALICE.node), sessions_max).len(), 90);
        assert!(bench.sessions(Some(NodeId(0xc)), sessions_max).is_empty());
    }
    for number in 0..100 {
        let client = number.to_string();
        let epoch = bench.lookup(&client).unwrap().epoch;
        bench.reap(&client, epoch);
    }
    assert!(bench.sessions(Some(BOB.node), 7).is_empty(), "those at rest have no owner");
}

pub(crate) fn sessions_whose_rest_is_over_are_not_listed(bench: &Bench) {
    for number in 0..100 {
        let client = number.to_string();
        let epoch = bench.open(&client, ALICE, 60).epoch;
        bench.close(&client, epoch, 10 + number);
    }
    bench.pass_s(59);
    assert_eq!(bench.sessions(None, 1_000).len(), 50);
}

pub(crate) fn who_stays_is_listed_once_however_many_come_and_go(bench: &Bench) {
    for number in 0..200 {
        bench.open(&format!("stays {number}"), ALICE, 60);
    }
    let (mut listed, mut page, mut round) = (Vec::new(), None, 0);
    loop {
        match bench.ask(Request::Sessions { owner: None, page, sessions_max: 10 }) {
            Ok(Reply::Sessions { sessions, next }) => {
                listed.extend(sessions.into_iter().filter(|session| session.client.starts_with("stays")));
                page = next;
            }
            other => panic!("{other:?}"),
        }
        if page.is_none() {
            break;
        }
        round += 1;
        if round < u64::from(BOUNDS.sessions_max) / 4 {
            let client = format!("comes {round}");
            let epoch = bench.open(&client, BOB, 60).epoch;
            if round % 2 == 0 {
                bench.close(&client, epoch, 0);
            }
        }
    }
    assert_eq!(by_client(listed).len(), 200);
}

pub(crate) fn a_page_that_was_never_named_is_refused(bench: &Bench) {
    bench.open("d", ALICE, 60);
    let page = Some(Box::from(&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..]));
    let answer = bench.ask(Request::Sessions { owner: None, page: page.clone(), sessions_max: 10 });
    assert!(matches!(answer, Err(StoreError::Unreadable(_))), "{answer:?}");
    let answer = bench.ask(Request::GroupMembers { group: "g".into(), page, members_max: 10 });
    assert!(matches!(answer, Err(StoreError::Unreadable(_))), "{answer:?}");
}
