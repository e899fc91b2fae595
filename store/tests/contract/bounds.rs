//! Nothing grows without a bound (promise P7).

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_wire::ids::ClientId;
use holdfast_wire::session_record::StreamKey;

use crate::world::{ALICE, BOUNDS, Bench, at, device, filter};

pub(crate) fn a_stream_keeps_its_newest_messages_and_leaves_a_gap(bench: &Bench) {
    let epoch = bench.subscriber("d", "a");
    let most = u64::from(BOUNDS.stream.messages_max);
    for _ in 0..most + 7 {
        bench.append(&[filter("a")], "x");
    }
    assert_eq!(bench.offsets(&filter("a")), (8..=most + 7).collect::<Vec<_>>());
    // A reader from before the gap goes on behind it.
    bench.save("d", epoch, vec![at(filter("a"), 3)]);
    assert_eq!(bench.offsets(&filter("a"))[0], 8);
    bench.save("d", epoch, vec![at(filter("a"), 9)]);
    assert_eq!(bench.offsets(&filter("a"))[0], 10);
}

pub(crate) fn a_stream_forgets_messages_that_are_too_old(bench: &Bench) {
    bench.subscriber("d", "a");
    bench.append(&[filter("a"), device("d")], "old");
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000 - 10);
    bench.append(&[filter("a")], "young");
    bench.pass_s(10);
    assert_eq!(bench.offsets(&filter("a")), [2]);
    assert_eq!(bench.read(&device("d"), 0), (vec![], 1));
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000);
    assert_eq!(bench.read(&filter("a"), 0), (vec![], 2));
    assert_eq!(bench.append(&[filter("a"), device("d")], "new"), [at(filter("a"), 3), at(device("d"), 2)]);
}

pub(crate) fn a_full_store_refuses_and_takes_again_once_there_is_room(bench: &Bench) {
    let epochs: Vec<_> =
        (0..4).map(|number| bench.subscriber(&format!("c{number}"), &number.to_string())).collect();
    let append = |stream: StreamKey| {
        bench.ask(Request::Append { streams: vec![stream], message: bench.message("t", &"x".repeat(900)) })
    };
    let mut taken = 0;
    while taken < 100 && append(filter(&(taken % 4).to_string())).is_ok() {
        taken += 1;
    }
    assert!((15..=22).contains(&taken), "{taken} messages of some 950 bytes fit into 20,000");
    assert!(matches!(append(filter("0")), Err(StoreError::Full(_))));
    let retained = Request::Retain { message: bench.message("t", &"x".repeat(900)) };
    assert!(matches!(bench.ask(retained), Err(StoreError::Full(_))));
    assert_eq!(append(filter("nobody's")), Ok(Reply::Appended(vec![])));
    bench.save("c0", epochs[0], vec![at(filter("0"), 2)]);
    assert!(append(filter("1")).is_ok());
}

pub(crate) fn a_message_that_no_stream_may_hold_is_refused(bench: &Bench) {
    bench.subscriber("d", "a");
    let message = bench.message("t", &"x".repeat(BOUNDS.stream.bytes_max as usize));
    let answer = bench.ask(Request::Append { streams: vec![filter("a")], message });
    assert!(matches!(answer, Err(StoreError::Full(_))), "{answer:?}");
    assert_eq!(bench.append(&[filter("a")], "fits"), [at(filter("a"), 1)]);
}

pub(crate) fn sessions_are_bounded(bench: &Bench) {
    let open = |client: String| {
        let client = ClientId::new(&client);
        bench.ask(Request::Open { client, owner: ALICE, clean_start: false, expiry_s: 0, will: None })
    };
    for number in 0..BOUNDS.sessions_max {
        open(number.to_string()).unwrap();
    }
    assert!(matches!(open("one more".to_owned()), Err(StoreError::Full(_))));
    assert!(open("7".to_owned()).is_ok(), "a takeover needs no further place");
}
