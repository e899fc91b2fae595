//! The same random requests to a store in memory and to one in Redis: they answer alike, apart from orders that the contract leaves open.

use holdfast_store::contract::{Reply, StoreError};
use holdfast_store::{Bounds, StreamBounds, WhenFull};
use proptest::prelude::*;

use crate::random_steps::{Side, Step, step};
use crate::world::{BOUNDS, Bench};

/// On one page, as pages are in an order of the store's own.
const ALL: u32 = 100;

/// The step as both can take it alike.
fn comparable(step: Step) -> Step {
    match step {
        Step::PublishDue { .. } => Step::PublishDue { wills_max: ALL },
        Step::List { by_bob, .. } => Step::List { by_bob, sessions_max: ALL },
        Step::ReadMembers { group, .. } => Step::ReadMembers { group, members_max: ALL },
        // One that is resumed without expiry keeps its streams until it ends. Whether they begin anew with what is written back over it
        // then is open.
        Step::Open { client, by_bob, expiry_s: 0, will, publishes, .. } => {
            Step::Open { client, by_bob, clean_start: true, expiry_s: 0, will, publishes }
        }
        // Of subscriptions with the same filter the last one counts, but whether the others are answered is open.
        Step::Subscribe { client, stale, mut filters } => {
            filters.sort_unstable();
            filters.dedup_by_key(|(filter, _)| *filter);
            Step::Subscribe { client, stale, filters }
        }
        other => other,
    }
}

fn in_order(answer: Result<Reply, StoreError>) -> Result<Reply, StoreError> {
    match answer {
        Ok(Reply::Subscribed(mut cursors)) => {
            cursors.sort_by(|a, b| a.stream.cmp(&b.stream));
            Ok(Reply::Subscribed(cursors))
        }
        Ok(Reply::Appended { mut at, mut full }) => {
            at.sort_by(|a, b| a.stream.cmp(&b.stream));
            full.sort();
            Ok(Reply::Appended { at, full })
        }
        Ok(Reply::Wills(mut wills)) => {
            wills.sort_by_key(|will| (will.client.clone(), will.will.message.as_bytes().to_vec()));
            Ok(Reply::Wills(wills))
        }
        Ok(Reply::Sessions { mut sessions, .. }) => {
            sessions.sort_by(|a, b| a.client.cmp(&b.client));
            Ok(Reply::Sessions { sessions, next: None })
        }
        Ok(Reply::Members { mut clients, .. }) => {
            clients.sort();
            Ok(Reply::Members { clients, next: None })
        }
        // Each says in its own words why.
        Err(StoreError::Full(_)) => Err(StoreError::Full(String::new())),
        other => other,
    }
}

fn answer_alike(when_full: WhenFull, steps: &[Step]) -> Result<(), TestCaseError> {
    // Which of two equally large streams gives way when the whole store is full is open, so it never is.
    let bounds =
        Bounds { stream: StreamBounds { when_full, ..BOUNDS.stream }, message_bytes_max: 1 << 30, ..BOUNDS };
    let mut memory = Side::new(Bench::memory().another(bounds));
    let mut redis = Side::new(Bench::redis().another(bounds));
    for (number, step) in steps.iter().enumerate().filter(|(_, step)| !matches!(step, Step::Reopen)) {
        let step = comparable(step.clone());
        let (expected, answer) = (memory.take(&step).map(in_order), redis.take(&step).map(in_order));
        prop_assert_eq!(expected, answer, "step {}: {:?}", number, step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_redis_answer_alike(steps in prop::collection::vec(step(), 1..150)) {
        answer_alike(WhenFull::DropOldest, &steps)?;
    }

    #[test]
    fn memory_and_redis_refuse_alike_what_full_streams_do_not_take(steps in prop::collection::vec(step(), 1..150)) {
        answer_alike(WhenFull::DropNewest, &steps)?;
    }
}
