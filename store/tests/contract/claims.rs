//! What a member of a shared subscription's group claims is its alone until it saves it or gives it back.

use holdfast_store::contract::{Progress, Reply, Request, StoreError};
use holdfast_store::{Bounds, StreamBounds, WhenFull};
use holdfast_wire::ids::{ClientId, Epoch, Owner};
use holdfast_wire::mqtt::QoS::{AtLeastOnce, AtMostOnce};
use holdfast_wire::session_record::Offset;

use crate::world::{ALICE, BOB, BOUNDS, Bench, at, claim, filter};

pub(crate) const GROUP: &str = "$share/g/a";

/// Nothing at all.
pub(crate) const NOTHING: [&str; 0] = [];

/// A session that reads the group's stream.
pub(crate) struct Member<'a> {
    bench: &'a Bench,
    name: &'static str,
    pub(crate) epoch: Epoch,
}

impl<'a> Member<'a> {
    /// Connected at Alice, and new in the group.
    pub(crate) fn joins(bench: &'a Bench, name: &'static str) -> Self {
        let epoch = bench.open(name, ALICE, 60).epoch;
        assert_eq!(bench.subscribe(name, epoch, &[(GROUP, AtLeastOnce)]), [at(filter(GROUP), 0)]);
        Self { bench, name, epoch }
    }

    /// Its session is opened again. Gives where it is told to stand as well.
    pub(crate) fn resumes(bench: &'a Bench, name: &'static str, owner: Owner) -> (Self, Offset) {
        let opened = bench.open(name, owner, 60);
        let cursors = opened.session.unwrap().cursors;
        let cursor = cursors.into_iter().find(|cursor| cursor.stream == filter(GROUP)).unwrap();
        (Self { bench, name, epoch: opened.epoch }, cursor.acked)
    }

    /// With the member's own numbers, and the end.
    pub(crate) fn claims_numbered(&self, after: Offset, most: u32) -> (Vec<(Offset, String)>, Offset) {
        let (messages, end) = self.bench.claim((self.name, self.epoch), GROUP, after, most);
        let numbers = messages.iter().map(|(number, _)| *number);
        assert!(std::iter::once(after).chain(numbers).is_sorted_by(|a, b| a < b), "{after} and {messages:?}");
        (messages, end)
    }

    pub(crate) fn claims(&self, after: Offset, most: u32) -> Vec<String> {
        self.claims_numbered(after, most).0.into_iter().map(|(_, text)| text).collect()
    }

    pub(crate) fn saves(&self, settled: Offset) {
        self.bench.save(self.name, self.epoch, vec![at(filter(GROUP), settled)]);
    }

    /// Its connection ends, and it says how far it has come.
    pub(crate) fn rests(&self, settled: Offset) {
        let progress = Progress { cursors: vec![at(filter(GROUP), settled)], ..Progress::default() };
        let (client, epoch) = (ClientId::new(self.name), self.epoch);
        self.bench.done(Request::Close { client, epoch, expiry_s: 60, progress, will: None });
    }

    pub(crate) fn is_reaped(&self) {
        self.bench.reap(self.name, self.epoch);
    }

    pub(crate) fn leaves(&self) {
        self.bench.unsubscribe(self.name, self.epoch, &[GROUP]);
    }
}

/// Messages with these numbers as their texts.
pub(crate) fn append(bench: &Bench, messages: std::ops::RangeInclusive<u32>) {
    for text in messages {
        assert_eq!(bench.append(&[filter(GROUP)], &text.to_string()).len(), 1, "{text}");
    }
}

/// How many messages stand in the group's stream.
pub(crate) fn kept(bench: &Bench) -> usize {
    bench.offsets(&filter(GROUP)).len()
}

pub(crate) fn a_message_claimed_by_one_member_is_given_to_no_other(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=5);
    assert_eq!(first.claims(0, 2), ["1", "2"]);
    assert_eq!(second.claims(0, 2), ["3", "4"]);
    assert_eq!(first.claims(2, 10), ["5"]);
    assert_eq!(second.claims(2, 10), NOTHING);
    append(bench, 6..=6);
    assert_eq!(second.claims(2, 10), ["6"]);
    assert_eq!(first.claims(3, 10), NOTHING);
}

pub(crate) fn each_member_counts_for_itself_what_it_claims(bench: &Bench) {
    let first = Member::joins(bench, "first");
    append(bench, 1..=4);
    assert_eq!(first.claims_numbered(0, 3).0.last(), Some(&(3, "3".to_owned())));
    bench.pass_s(1);
    let second = Member::joins(bench, "second");
    assert_eq!(second.claims_numbered(0, 3).0, [(1, "4".to_owned())]);
    // Where it joined in another moment it counts from another number.
    let begins = |member: &str| bench.beginning_of(Some(&ClientId::new(member)), &filter(GROUP));
    assert_eq!(begins("second"), begins("first") + 1_000_000);
    assert!(begins("second") < 1 << 53);
}

pub(crate) fn what_is_asked_again_is_answered_again(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=3);
    let answer = first.claims_numbered(0, 3);
    assert_eq!(first.claims_numbered(0, 3), answer);
    assert_eq!(second.claims(0, 10), NOTHING);
    append(bench, 4..=5);
    assert_eq!(first.claims(1, 3), ["2", "3", "4"], "what it has already comes before what is new to it");
    assert_eq!(first.claims(4, 10), ["5"]);
    assert_eq!(first.claims(0, 10), ["1", "2", "3", "4", "5"]);
    first.saves(2);
    assert_eq!(first.claims_numbered(0, 1).0, [(3, "3".to_owned())], "below its cursor there is nothing");
}

pub(crate) fn the_end_tells_whether_there_is_more_to_claim(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    assert_eq!(first.claims_numbered(0, 10), (vec![], 0));
    append(bench, 1..=4);
    assert!(first.claims_numbered(0, 0).1 > 0);
    assert_eq!(second.claims(0, 1), ["1"], "nothing was claimed by who wanted none");
    assert!(first.claims_numbered(0, 2).1 > 2);
    assert!(first.claims_numbered(0, 1).1 > 1, "there is what it has claimed already");
    assert_eq!(first.claims_numbered(2, 1).1, 3);
    assert_eq!(first.claims_numbered(3, 1), (vec![], 3));
    assert_eq!(second.claims_numbered(1, 1), (vec![], 1));
    second.rests(0);
    assert!(first.claims_numbered(3, 0).1 > 3, "there is what another gave back");
}

pub(crate) fn a_claim_keeps_to_its_limits_and_the_first_message_always_comes(bench: &Bench) {
    let member = Member::joins(bench, "first");
    append(bench, 1..=5);
    let claims = |after, messages_max, bytes_max| {
        let mut request = claim(("first", member.epoch), GROUP, after, messages_max);
        if let Request::Claim { bytes_max: most, .. } = &mut request {
            *most = bytes_max;
        }
        match bench.ask(request) {
            Ok(Reply::Messages { messages, .. }) => messages.len(),
            other => panic!("{other:?}"),
        }
    };
    let bytes = bench.message("t", "1").as_bytes().len() as u32;
    assert_eq!(claims(0, 10, 0), 1);
    assert_eq!(claims(0, 10, bytes + 1), 2, "one that was claimed already and a new one");
    assert_eq!(claims(2, 10, 2 * bytes), 2);
    assert_eq!(claims(0, 10, u32::MAX), 5);
}

pub(crate) fn what_is_saved_is_settled_and_the_rest_is_given_back_at_the_close(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=6);
    assert_eq!(first.claims(0, 4).len(), 4);
    first.rests(2);
    assert_eq!(kept(bench), 4);
    // In order, and before what is newer.
    assert_eq!(second.claims(0, 10), ["3", "4", "5", "6"]);
    second.saves(4);
    assert_eq!(kept(bench), 0);
}

pub(crate) fn what_several_gave_back_is_claimed_the_oldest_first(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    let third = Member::joins(bench, "third");
    append(bench, 1..=8);
    for turn in 0..2 {
        assert_eq!(first.claims(turn, 1).len(), 1);
        assert_eq!(second.claims(turn, 1).len(), 1);
    }
    assert_eq!(third.claims(0, 2), ["5", "6"]);
    second.rests(0);
    first.rests(1);
    assert_eq!(third.claims(2, 2), ["2", "3"]);
    assert_eq!(third.claims(4, 10), ["4", "7", "8"]);
    // In the order in which it was given them.
    assert_eq!(third.claims(0, 10), ["5", "6", "2", "3", "4", "7", "8"]);
    third.saves(3);
    let (second, stands_at) = Member::resumes(bench, "second", BOB);
    assert_eq!(stands_at, 0);
    third.rests(4);
    assert_eq!(second.claims(0, 10), ["4", "7", "8"]);
    second.saves(1);
    assert_eq!(kept(bench), 2);
}

pub(crate) fn a_resume_gives_nothing_back_and_claims_its_own_again(bench: &Bench) {
    for owner in [ALICE, BOB] {
        let first = Member::joins(bench, "first");
        let second = Member::joins(bench, "second");
        append(bench, 1..=6);
        assert_eq!(first.claims(0, 5).len(), 5);
        first.saves(2);
        let (first, stands_at) = Member::resumes(bench, "first", owner);
        assert_eq!(stands_at, 2);
        assert_eq!(second.claims(0, 10), ["6"]);
        let (again, _) = first.claims_numbered(2, 10);
        assert_eq!(again, [(3, "3".to_owned()), (4, "4".to_owned()), (5, "5".to_owned())]);
        // Who is subscribed already is told where it stands.
        assert_eq!(bench.subscribe("first", first.epoch, &[(GROUP, AtLeastOnce)]), [at(filter(GROUP), 2)]);
        first.saves(5);
        second.saves(1);
        assert_eq!(kept(bench), 0);
        bench.close("first", first.epoch, 0);
        bench.close("second", second.epoch, 0);
        bench.pass_s(1);
    }
}

pub(crate) fn a_former_owner_claims_nothing(bench: &Bench) {
    let former = Member::joins(bench, "first");
    append(bench, 1..=3);
    assert_eq!(former.claims(0, 1), ["1"]);
    let (first, _) = Member::resumes(bench, "first", BOB);
    let asks = |epoch| bench.ask(claim(("first", epoch), GROUP, 1, 10));
    assert_eq!(asks(former.epoch), Err(StoreError::Fenced));
    assert_eq!(first.claims(0, 10), ["1", "2", "3"]);
    first.is_reaped();
    assert_eq!(asks(first.epoch), Err(StoreError::Fenced));
    bench.pass_s(60);
    assert_eq!(asks(first.epoch), Err(StoreError::Gone));
}

pub(crate) fn who_does_not_read_the_stream_claims_nothing(bench: &Bench) {
    let member = Member::joins(bench, "first");
    append(bench, 1..=1);
    let nothing = Ok(Reply::Messages { messages: vec![], end: 0 });
    let claims = |client: &str, epoch, name: &str| bench.ask_as_it_is(claim((client, epoch), name, 7, 10));
    assert_eq!(claims("first", member.epoch, "$share/other/a"), nothing);
    let other = bench.open("other", ALICE, 60).epoch;
    assert_eq!(claims("other", other, GROUP), nothing);
    bench.subscribe("other", other, &[(GROUP, AtMostOnce)]);
    assert_eq!(claims("other", other, GROUP), nothing);
    let clean = bench.open("clean", ALICE, 0).epoch;
    bench.subscribe("clean", clean, &[(GROUP, AtLeastOnce)]);
    assert_eq!(claims("clean", clean, GROUP), nothing);
    member.leaves();
    assert_eq!(claims("first", member.epoch, GROUP), nothing);
}

pub(crate) fn who_rests_claims_nothing(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=2);
    assert_eq!(first.claims(0, 1), ["1"]);
    first.rests(0);
    // As a claim would that its owner asked again, and that comes behind the close.
    let late = bench.ask_as_it_is(claim(("first", first.epoch), GROUP, 0, 10));
    assert_eq!(late, Ok(Reply::Messages { messages: vec![], end: 0 }));
    assert_eq!(second.claims(0, 10), ["1", "2"]);
}

pub(crate) fn who_knows_of_more_than_the_store_is_given_what_comes_next(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=6);
    assert_eq!(first.claims(0, 2), ["1", "2"]);
    // A failover has set the store back: it was given five.
    assert_eq!(first.claims_numbered(5, 1).0, [(6, "3".to_owned())]);
    assert_eq!(second.claims(0, 1), ["4"], "what it had is its alone");
    assert_eq!(Member::resumes(bench, "first", BOB).1, 3, "the last of what it had is its fifth");
    let (first, _) = Member::resumes(bench, "first", BOB);
    let all = [(4, "1".to_owned()), (5, "2".to_owned()), (6, "3".to_owned())];
    assert_eq!(first.claims_numbered(3, 3).0, all);
    first.saves(5);
    first.rests(0);
    assert_eq!(second.claims(1, 1), ["3"]);
}

pub(crate) fn a_save_beyond_all_that_was_claimed_settles_what_was(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=4);
    assert_eq!(first.claims(0, 2).len(), 2);
    assert_eq!(second.claims(0, 1), ["3"]);
    first.saves(7);
    second.saves(1);
    assert_eq!(kept(bench), 1);
    assert_eq!(first.claims_numbered(7, 10).0, [(8, "4".to_owned())]);
    first.saves(3);
    assert_eq!(kept(bench), 1, "a cursor never goes back");
}

pub(crate) fn what_was_cut_off_is_passed_over_and_keeps_its_numbers(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=15);
    assert_eq!(first.claims(0, 5).len(), 5);
    first.saves(2);
    assert_eq!(second.claims(0, 5).len(), 5);
    second.rests(1);
    // Fifty fit: up to the eighth all are cut off.
    append(bench, 16..=58);
    assert_eq!(kept(bench), 50);
    let expected = [(6, "9".to_owned()), (7, "10".to_owned()), (8, "11".to_owned())];
    assert_eq!(first.claims_numbered(2, 3).0, expected, "three are gone, and what was given back with them");
    // What is newer than what anyone has claimed goes too.
    append(bench, 59..=99);
    assert_eq!(first.claims(8, 1), ["50"]);
    assert_eq!(first.claims_numbered(2, 1).0, [(9, "50".to_owned())]);
    first.saves(9);
    assert_eq!(kept(bench), 49);
}

pub(crate) fn what_was_cut_off_under_a_member_holds_nothing_back(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=2);
    assert_eq!(first.claims(0, 2).len(), 2);
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000);
    append(bench, 3..=5);
    assert_eq!(second.claims(0, 10), ["3", "4", "5"]);
    second.saves(3);
    assert_eq!(kept(bench), 0);
    assert_eq!(first.claims_numbered(0, 10), (vec![], 0));
    append(bench, 6..=6);
    assert_eq!(first.claims_numbered(0, 10).0, [(3, "6".to_owned())]);
}

pub(crate) fn what_grew_too_old_is_nobodys_whoever_had_it(bench: &Bench) {
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    append(bench, 1..=4);
    assert_eq!(first.claims(0, 2).len(), 2);
    assert_eq!(second.claims(0, 1).len(), 1);
    second.rests(0);
    let held = bench.hold(GROUP, "held", 1);
    bench.pass_s(BOUNDS.stream.age_ms_max / 1_000);
    append(bench, 5..=6);
    bench.end_hold(GROUP, held[0].acked, false);
    assert_eq!(first.claims_numbered(0, 10).0, [(3, "5".to_owned()), (4, "6".to_owned())]);
}

pub(crate) fn a_stream_that_keeps_what_it_has_keeps_what_is_claimed_given_back_and_held(bench: &Bench) {
    let bounds =
        Bounds { stream: StreamBounds { when_full: WhenFull::DropNewest, ..BOUNDS.stream }, ..BOUNDS };
    let bench = &bench.another(bounds);
    let first = Member::joins(bench, "first");
    let second = Member::joins(bench, "second");
    let held = bench.hold(GROUP, "held", 5_000)[0].acked;
    append(bench, 1..=49);
    let takes = |text: &str| match bench.ask(Request::Append {
        streams: vec![filter(GROUP)],
        message: bench.message("t", text),
        collapse_key: None,
    }) {
        Ok(Reply::Appended { at, full }) => {
            assert_eq!(at.len() + full.len(), 1);
            !at.is_empty()
        }
        other => panic!("{other:?}"),
    };
    assert!(!takes("held back"));
    bench.end_hold(GROUP, held, true);
    assert!(takes("50"));
    assert_eq!(first.claims(0, 2), ["1", "2"]);
    assert!(!takes("claimed"));
    first.saves(1);
    assert!(takes("51"));
    first.rests(1);
    assert!(!takes("given back"));
    let more = Request::Hold { filter: GROUP.into(), message: bench.message("t", "x"), for_ms: 1 };
    let refused = Reply::Appended { at: vec![], full: vec![filter(GROUP)] };
    assert_eq!(bench.ask(more), Ok(refused));
    assert_eq!(second.claims(0, 50).len(), 50);
    second.saves(50);
    assert!(takes("52"));
}
