//! Order, and that an answer always comes.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use holdfast_store::contract::{Progress, Reply, Request};
use holdfast_wire::ids::ClientId;
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::Offset;

use crate::world::{ALICE, BEGINNINGS, Bench, at, device, filter, subscription};

const DEADLINE: Duration = Duration::from_secs(30);

/// More than any story here asks for, so that no answer blocks.
const ANSWERS_MAX: usize = 1_000;

pub(crate) fn requests_for_one_client_take_effect_in_order_of_submission(bench: &Bench) {
    let epoch = bench.open("d", ALICE, 60).epoch;
    let client = || ClientId::new("d");
    let (answered, answers) = mpsc::sync_channel(ANSWERS_MAX);
    let submit = |request| {
        let answered = answered.clone();
        bench.store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    };
    let mut expected = 0;
    for number in 0..40 {
        let subscriptions = vec![subscription("a", QoS::AtLeastOnce)];
        submit(Request::Subscribe { client: client(), epoch, subscriptions });
        submit(Request::Append {
            streams: vec![filter("a")],
            message: bench.message("a", "x"),
            collapse_key: None,
        });
        submit(Request::Append {
            streams: vec![device("d")],
            message: bench.message("a", "x"),
            collapse_key: None,
        });
        let progress = Progress { cursors: vec![at(device("d"), number + 1)], ..Progress::default() };
        submit(Request::Save { client: client(), epoch, progress });
        submit(Request::Unsubscribe { client: client(), epoch, filters: vec!["a".into()] });
        expected += 5;
    }
    let mut offsets = Vec::<Offset>::new();
    for _ in 0..expected {
        if let Reply::Appended { at: cursors, .. } = answers.recv_timeout(DEADLINE).unwrap().unwrap() {
            assert_eq!(cursors.len(), 1, "the stream was there each time");
            // As they count from where the stream begins.
            offsets.push(cursors[0].acked % BEGINNINGS);
        }
    }
    offsets.sort_unstable();
    // The filter's stream begins anew each time, the device's goes on.
    let mut expected_offsets: Vec<_> = std::iter::repeat_n(1, 40).chain(1..=40).collect();
    expected_offsets.sort_unstable();
    assert_eq!(offsets, expected_offsets);
    assert_eq!(bench.append(&[filter("a")], "x"), []);
    assert_eq!(bench.read(&device("d"), 40), (vec![], 40));
}

pub(crate) fn an_answer_may_submit_again(bench: &Bench) {
    let (answered, answers) = mpsc::sync_channel(ANSWERS_MAX);
    let store = Arc::clone(&bench.store);
    let open = |expiry_s| Request::Open {
        client: ClientId::new("d"),
        owner: ALICE,
        clean_start: false,
        expiry_s,
        will: None,
    };
    let again = open(0);
    bench.store.submit(
        open(60),
        Box::new(move |_| store.submit(again, Box::new(move |answer| answered.send(answer).unwrap()))),
    );
    assert!(
        matches!(answers.recv_timeout(DEADLINE), Ok(Ok(Reply::Opened(opened))) if opened.session.is_some())
    );
}

pub(crate) fn many_threads_get_every_answer(bench: &Bench) {
    let (answered, answers) = mpsc::sync_channel(ANSWERS_MAX);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (answered, store) = (answered.clone(), Arc::clone(&bench.store));
            scope.spawn(move || {
                for number in 0..100 {
                    let answered = answered.clone();
                    store.submit(
                        Request::Open {
                            client: ClientId::new(&format!("{thread}-{number}")),
                            owner: ALICE,
                            clean_start: false,
                            expiry_s: number % 2 * 60,
                            will: None,
                        },
                        Box::new(move |answer| answered.send(answer).unwrap()),
                    );
                }
            });
        }
    });
    let mut epochs = Vec::new();
    for _ in 0..400 {
        match answers.recv_timeout(DEADLINE) {
            Ok(Ok(Reply::Opened(opened))) => epochs.push(opened.epoch),
            other => panic!("{other:?}"),
        }
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 400, "no epoch was issued twice");
}
