//! The bridge that reaps: it buries nodes whose lease has run out, takes their sessions, and publishes the wills that fall due.
//!
//! One question to the store a step, so that everyone else does something in between.

use std::collections::{BTreeMap, VecDeque};

use holdfast_wire::ids::NodeId;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::store::{Reply, Request};

use crate::store::Store;

/// So many looks in a row must find a node dead, this far apart in ms.
const LOOKS: u32 = 3;
const LOOK_EVERY_MS: u64 = 50;

#[derive(Default)]
pub(crate) struct Reaper {
    suspects: BTreeMap<NodeId, u32>,
    next: VecDeque<Request>,
    next_look_ms: u64,
}

impl Reaper {
    /// The next question; gives a will that is to be published.
    pub(crate) fn step(&mut self, store: &mut Store, now_ms: u64) -> Option<SharedMessage> {
        if let Some(request) = self.next.pop_front() {
            self.handle(request, store);
            return None;
        }
        if now_ms < self.next_look_ms {
            let due = store.ask(Request::DueWills { wills_max: 1 });
            let Ok(Reply::Wills(wills)) = due else { panic!("{due:?} is not about wills") };
            let will = wills.into_iter().next()?;
            self.next.push_back(Request::WillPublished { client: will.client, number: will.number });
            return Some(will.will.message);
        }
        self.next_look_ms = now_ms + LOOK_EVERY_MS;
        let dead = store.ask(Request::DeadNodes);
        let Ok(Reply::Nodes(dead)) = dead else { panic!("{dead:?} is not about nodes") };
        self.suspects.retain(|node, _| dead.contains(node));
        for node in dead {
            let looks = self.suspects.entry(node).or_default();
            *looks += 1;
            if *looks >= LOOKS {
                self.next.push_back(Request::Bury { node });
            }
        }
        None
    }

    fn handle(&mut self, request: Request, store: &mut Store) {
        let answer = store.ask(request.clone());
        match (request, answer) {
            (Request::Bury { node }, Ok(_)) => {
                self.next.push_back(Request::Sessions { owner: Some(node), page: None, sessions_max: 2 });
            }
            (Request::Sessions { owner, .. }, Ok(Reply::Sessions { sessions, next })) => {
                for session in sessions {
                    self.next.push_back(Request::Reap { client: session.client, epoch: session.epoch });
                }
                if next.is_some() {
                    self.next.push_back(Request::Sessions { owner, page: next, sessions_max: 2 });
                }
            }
            // Who came to life again, or was opened by others meanwhile, is none of its business.
            _ => {}
        }
    }
}
