//! Random requests, and what a store answers to them, comparable with what another one does.

use holdfast_store::contract::{NEVER_EXPIRES_S, Progress, Reply, Request, StoreError, WillRecord};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Offset, SessionRecord};
use proptest::prelude::*;

use crate::world::{ALICE, BOB, Bench, at, close, device, filter, subscription};

const CLIENTS: [&str; 3] = ["x", "y", "z"];
const FILTERS: [&str; 4] = ["a", "b/+", "#", GROUP];
const GROUP: &str = "$share/g/a";
const GROUP_AT: usize = FILTERS.len() - 1;
const GROUPS: [&str; 2] = ["g", "g2"];
/// So far apart that no client is written back with an epoch that another one was given.
const AHEAD: [u64; 3] = [10_007, 1_000_003, 100_000_007];
const TOPICS: [&str; 3] = ["a", "b/1", "b/2"];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Open {
        client: usize,
        by_bob: bool,
        clean_start: bool,
        expiry_s: u32,
        will: Option<u32>,
        /// Whether what it is answered is published.
        publishes: bool,
    },
    Subscribe {
        client: usize,
        stale: bool,
        filters: Vec<(usize, u8)>,
    },
    Unsubscribe {
        client: usize,
        filters: Vec<usize>,
    },
    Save {
        client: usize,
        stale: bool,
        cursors: Vec<(usize, u64)>,
    },
    Close {
        client: usize,
        stale: bool,
        expiry_s: u32,
        cursors: Vec<(usize, u64)>,
        will: Option<u32>,
    },
    Lookup {
        client: usize,
    },
    Reap {
        client: usize,
        stale: bool,
    },
    WriteBack {
        client: usize,
        by_bob: bool,
        ahead: u64,
        lost: bool,
        expiry_s: u32,
        filters: Vec<(usize, u8)>,
        will: bool,
    },
    PublishDue {
        wills_max: u32,
    },
    TakeExpired,
    List {
        by_bob: bool,
        sessions_max: u32,
    },
    Members {
        group: usize,
        add: Vec<usize>,
        remove: Vec<usize>,
    },
    DropGroup {
        group: usize,
    },
    ReadMembers {
        group: usize,
        members_max: u32,
    },
    Append {
        filters: Vec<usize>,
        devices: Vec<usize>,
        bytes: usize,
        collapse_key: Option<u8>,
    },
    Read {
        stream: usize,
        after: u64,
        messages_max: u32,
    },
    /// Opens a session that outlives its connection, and subscribes as a member of the group.
    Join {
        client: usize,
        by_bob: bool,
    },
    Claim {
        client: usize,
        stale: bool,
        /// Behind where its last claim ended, or some other place.
        after: Option<u64>,
        messages_max: u32,
    },
    /// What it was given up to one of its last messages is settled.
    SaveClaimed {
        client: usize,
        unsettled: u64,
    },
    Hold {
        bytes: usize,
        for_s: u32,
    },
    EndHold {
        /// How many others were held after it.
        back: usize,
        taken: bool,
    },
    Retain {
        topic: usize,
        bytes: usize,
        lives_s: u64,
    },
    ReadRetained {
        filter: usize,
    },
    DurableFilters,
    Pass {
        seconds: u64,
    },
    Reopen,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![any_step(), step_of_a_group()]
}

/// What clients do that share a subscription, most of the time.
fn step_of_a_group() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS.len();
    let stale = || prop::bool::weighted(0.05);
    let group = GROUP_AT;
    let bytes = || prop_oneof![9 => 0..100_usize, 1 => 0..1_500_usize];
    prop_oneof![
        5 => (client(), any::<bool>()).prop_map(|(client, by_bob)| Step::Join { client, by_bob }),
        8 => bytes().prop_map(move |bytes| Step::Append {
            filters: vec![group],
            devices: vec![],
            bytes,
            collapse_key: None,
        }),
        8 => (client(), stale(), prop::option::weighted(0.1, 0..12_u64), 1..5_u32).prop_map(
            |(client, stale, after, messages_max)| Step::Claim { client, stale, after, messages_max }
        ),
        4 => (client(), 0..3_u64).prop_map(|(client, unsettled)| Step::SaveClaimed { client, unsettled }),
        1 => (client(), stale()).prop_map(move |(client, stale)| Step::Close {
            client,
            stale,
            expiry_s: 60,
            cursors: vec![],
            will: None,
        }),
        1 => (client(), stale()).prop_map(|(client, stale)| Step::Reap { client, stale }),
        3 => (bytes(), prop::sample::select(vec![0_u32, 3, 40, 4_000]))
            .prop_map(|(bytes, for_s)| Step::Hold { bytes, for_s }),
        3 => (0..3_usize, any::<bool>()).prop_map(|(back, taken)| Step::EndHold { back, taken }),
        1 => prop::sample::select(vec![1_u64, 5, 30]).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS.len();
    let stale = || prop::bool::weighted(0.1);
    let expiry = || prop::sample::select(vec![0_u32, 5, 60, u32::MAX]);
    let will = || prop::option::of(prop::sample::select(vec![0_u32, 3, 20]));
    let cursors = || prop::collection::vec((0..FILTERS.len() + CLIENTS.len(), 0..12_u64), 0..3);
    prop_oneof![
        4 => (client(), any::<bool>(), prop::bool::weighted(0.2), expiry(), will(), any::<bool>()).prop_map(
            |(client, by_bob, clean_start, expiry_s, will, publishes)| {
                Step::Open { client, by_bob, clean_start, expiry_s, will, publishes }
            }
        ),
        4 => (client(), stale(), prop::collection::vec((0..FILTERS.len(), 0..3_u8), 0..3))
            .prop_map(|(client, stale, filters)| Step::Subscribe { client, stale, filters }),
        1 => (client(), prop::collection::vec(0..FILTERS.len(), 0..3))
            .prop_map(|(client, filters)| Step::Unsubscribe { client, filters }),
        3 => (client(), stale(), cursors())
            .prop_map(|(client, stale, cursors)| Step::Save { client, stale, cursors }),
        2 => (client(), stale(), expiry(), cursors(), will()).prop_map(
            |(client, stale, expiry_s, cursors, will)| Step::Close { client, stale, expiry_s, cursors, will }
        ),
        1 => client().prop_map(|client| Step::Lookup { client }),
        2 => (client(), stale()).prop_map(|(client, stale)| Step::Reap { client, stale }),
        1 => (client(), any::<bool>(), 0..3_u64, any::<bool>(), expiry(), prop::collection::vec((0..FILTERS.len(), 0..3_u8), 0..3), any::<bool>())
            .prop_map(|(client, by_bob, ahead, lost, expiry_s, filters, will)| {
                Step::WriteBack { client, by_bob, ahead, lost, expiry_s, filters, will }
            }),
        2 => (0..3_u32).prop_map(|wills_max| Step::PublishDue { wills_max }),
        1 => Just(Step::TakeExpired),
        1 => (any::<bool>(), 1..3_u32).prop_map(|(by_bob, sessions_max)| Step::List { by_bob, sessions_max }),
        1 => (0..2_usize, prop::collection::vec(client(), 0..3), prop::collection::vec(client(), 0..3))
            .prop_map(|(group, add, remove)| Step::Members { group, add, remove }),
        1 => (0..2_usize, 1..3_u32)
            .prop_map(|(group, members_max)| Step::ReadMembers { group, members_max }),
        1 => (0..2_usize).prop_map(|group| Step::DropGroup { group }),
        8 => (
            prop::collection::vec(0..FILTERS.len(), 0..4),
            prop::collection::vec(client(), 0..2),
            0..1_500_usize,
            prop::option::of(0..3_u8),
        )
            .prop_map(|(filters, devices, bytes, collapse_key)| {
                Step::Append { filters, devices, bytes, collapse_key }
            }),
        3 => (0..FILTERS.len() + CLIENTS.len(), 0..12_u64, 0..20_u32)
            // That of a group is read by claims; how long it keeps what is settled behind what is not is open.
            .prop_filter("not a group's", |(stream, ..)| FILTERS.get(*stream) != Some(&GROUP))
            .prop_map(|(stream, after, messages_max)| Step::Read { stream, after, messages_max }),
        1 => (0..TOPICS.len(), 0..300_usize, 0..3_u64)
            .prop_map(|(topic, bytes, lives)| Step::Retain { topic, bytes, lives_s: lives * 10 }),
        1 => (0..FILTERS.len() - 1).prop_map(|filter| Step::ReadRetained { filter }),
        1 => Just(Step::DurableFilters),
        2 => prop::sample::select(vec![1_u64, 5, 30, 600]).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Reopen),
    ]
}

/// One store and the epochs it issued, which differ between stores.
pub(crate) struct Side {
    bench: Bench,
    epochs: [Vec<Epoch>; CLIENTS.len()],
    /// The last of each client's own numbers in its group that it was given.
    claimed: [Offset; CLIENTS.len()],
    /// Where messages were held.
    held: Vec<Offset>,
}

impl Side {
    pub(crate) fn new(bench: Bench) -> Self {
        // Some stores keep what expires from their beginning on, and others from the first question on.
        bench.take_expired(1);
        Self { bench, epochs: Default::default(), claimed: Default::default(), held: Vec::new() }
    }

    fn epoch(&self, client: usize, stale: bool) -> Epoch {
        let back = if stale { 2 } else { 1 };
        let epochs = &self.epochs[client];
        epochs.len().checked_sub(back).map_or(Epoch(0), |at| epochs[at])
    }

    /// Takes a step; what it answers has its epochs taken out.
    pub(crate) fn take(&mut self, step: &Step) -> Option<Result<Reply, StoreError>> {
        let request = match step {
            Step::Pass { seconds } => {
                self.bench.pass_s(*seconds);
                return None;
            }
            Step::Reopen => {
                // A store in memory cannot lose its owners, so they leave before the other one does.
                for name in CLIENTS {
                    if let Some(session) = self.bench.lookup(name).filter(|session| session.owner.is_some()) {
                        self.bench.done(close(name, session.epoch, 60));
                    }
                }
                // Nor can it lose its holds.
                for at in std::mem::take(&mut self.held) {
                    self.bench.end_hold(GROUP, at, false);
                }
                // Whether the next one answers an opening with what has fallen due before is open.
                while matches!(self.publish_due(100), Ok(Reply::Wills(wills)) if !wills.is_empty()) {}
                self.bench.reopen();
                return None;
            }
            Step::Join { client, by_bob } => {
                let (client, by_bob) = (*client, *by_bob);
                let (will, publishes) = (None, true);
                self.take(&Step::Open { client, by_bob, clean_start: false, expiry_s: 60, will, publishes });
                return self.take(&Step::Subscribe { client, stale: false, filters: vec![(GROUP_AT, 1)] });
            }
            Step::PublishDue { wills_max } => return Some(self.publish_due(*wills_max)),
            Step::TakeExpired => {
                let mut sessions = self.bench.take_expired(100);
                for session in &mut sessions {
                    session.epoch = Epoch(0);
                }
                sessions.sort_by(|a, b| (&a.client, a.at_ms).cmp(&(&b.client, b.at_ms)));
                return Some(Ok(Reply::Expired(sessions)));
            }
            other => self.request(other),
        };
        if let Request::Restore { epoch, .. } = &request
            && let Step::WriteBack { client, .. } = step
        {
            self.epochs[*client].push(*epoch);
        }
        let mut answer = self.bench.ask(request);
        if let (Err(_), Step::WriteBack { client, .. }) = (&answer, step) {
            self.epochs[*client].pop();
        }
        match (&mut answer, step) {
            (Ok(Reply::Opened(opened)), Step::Open { client, publishes, .. }) => {
                self.epochs[*client].push(opened.epoch);
                opened.epoch = Epoch(0);
                if let Some(will) = &mut opened.will {
                    let (client, number) = (will.client.clone(), std::mem::take(&mut will.number));
                    if *publishes {
                        self.bench.done(Request::WillPublished { client, number });
                    }
                }
            }
            (Ok(Reply::Session(Some(session))), _) => session.epoch = Epoch(0),
            (Ok(Reply::Messages { messages, end }), Step::Claim { client, .. }) => {
                let last = messages.last().map(|(number, _)| *number);
                self.claimed[*client] = last.unwrap_or(self.claimed[*client]);
                // How much more there is to claim is open, but not whether there is.
                *end = (*end).min(last.map_or(*end, |last| last + 1));
            }
            (Ok(Reply::Appended { at, .. }), Step::Hold { .. }) => {
                self.held.extend(at.iter().map(|cursor| cursor.acked));
            }
            (Ok(Reply::Sessions { sessions, .. }), _) => {
                for session in sessions {
                    session.epoch = Epoch(0);
                }
            }
            _ => {}
        }
        Some(answer)
    }

    /// Asks for wills and says that they are published; the answer has their numbers taken out. One that was given and not
    /// published would be given again at once after a restart, and later without.
    fn publish_due(&self, wills_max: u32) -> Result<Reply, StoreError> {
        let mut answer = self.bench.ask(Request::DueWills { wills_max });
        if let Ok(Reply::Wills(wills)) = &mut answer {
            for will in wills {
                let (client, number) = (will.client.clone(), std::mem::take(&mut will.number));
                self.bench.done(Request::WillPublished { client, number });
            }
        }
        answer
    }

    fn rests(&self, client: usize) -> bool {
        self.bench.lookup(CLIENTS[client]).is_some_and(|session| session.owner.is_none())
    }

    fn will(&self, text: &str, delay_s: u32) -> WillRecord {
        WillRecord { message: self.bench.message("w", text), delay_s, expiry_s: NEVER_EXPIRES_S }
    }

    fn request(&self, step: &Step) -> Request {
        let name = |client: &usize| ClientId::new(CLIENTS[*client]);
        match step {
            Step::Open { client, by_bob, clean_start, expiry_s, will, .. } => Request::Open {
                client: name(client),
                owner: if *by_bob { BOB } else { ALICE },
                clean_start: *clean_start,
                expiry_s: *expiry_s,
                will: will.map(|delay_s| self.will("opened", delay_s)),
            },
            Step::Subscribe { client, stale, filters } => Request::Subscribe {
                client: name(client),
                // Without a connection nobody subscribes; whether a group would count such a member as connected is open.
                epoch: if self.rests(*client) { Epoch(0) } else { self.epoch(*client, *stale) },
                subscriptions: filters
                    .iter()
                    .map(|(filter, qos)| subscription(FILTERS[*filter], QoS::try_from(*qos).unwrap()))
                    .collect(),
            },
            Step::Unsubscribe { client, filters } => Request::Unsubscribe {
                client: name(client),
                epoch: self.epoch(*client, false),
                filters: filters.iter().map(|filter| FILTERS[*filter].into()).collect(),
            },
            Step::Save { client, stale, cursors } => Request::Save {
                client: name(client),
                epoch: self.epoch(*client, *stale),
                progress: progress(cursors),
            },
            Step::Close { client, stale, expiry_s, cursors, will } => Request::Close {
                client: name(client),
                epoch: self.epoch(*client, *stale),
                expiry_s: *expiry_s,
                progress: progress(cursors),
                will: will.map(|delay_s| self.will("closed", delay_s)),
            },
            Step::Lookup { client } => Request::Lookup { client: name(client) },
            Step::Reap { client, stale } => {
                Request::Reap { client: name(client), epoch: self.epoch(*client, *stale) }
            }
            Step::WriteBack { client, by_bob, ahead, lost, expiry_s, filters, will } => Request::Restore {
                client: name(client),
                owner: if *by_bob { BOB } else { ALICE },
                // One that was given out before the store began, or beside the one that it knows: how the two stand to each other is alike
                // in both stores.
                epoch: if *lost {
                    // No two clients were ever given the same one.
                    Epoch(1 + ahead * CLIENTS.len() as u64 + *client as u64)
                } else {
                    let known = self.bench.lookup(CLIENTS[*client]).map(|session| session.epoch);
                    Epoch(ahead * AHEAD[*client] + known.unwrap_or(self.epoch(*client, false)).0)
                },
                expiry_s: *expiry_s,
                will: will.then(|| self.bench.will("written back", 20)),
                session: SessionRecord {
                    subscriptions: filters
                        .iter()
                        .map(|(filter, qos)| subscription(FILTERS[*filter], QoS::try_from(*qos).unwrap()))
                        .collect(),
                    ..SessionRecord::default()
                },
            },
            Step::Members { group, add, remove } => Request::ChangeGroup {
                group: GROUPS[*group].into(),
                add: add.iter().map(name).collect(),
                remove: remove.iter().map(name).collect(),
            },
            Step::List { by_bob, sessions_max } => Request::Sessions {
                owner: by_bob.then_some(BOB.node),
                page: None,
                sessions_max: *sessions_max,
            },
            Step::DropGroup { group } => Request::DropGroup { group: GROUPS[*group].into() },
            Step::ReadMembers { group, members_max } => {
                Request::GroupMembers { group: GROUPS[*group].into(), page: None, members_max: *members_max }
            }
            Step::Append { filters, devices, bytes, collapse_key } => Request::Append {
                streams: filters
                    .iter()
                    .map(|at| filter(FILTERS[*at]))
                    .chain(devices.iter().map(|at| device(CLIENTS[*at])))
                    .collect(),
                message: self.bench.message("a", &"m".repeat(*bytes)),
                collapse_key: collapse_key.map(|key| key.to_string().into()),
            },
            Step::Read { stream, after, messages_max } => Request::Read {
                stream: stream_at(*stream),
                after: *after,
                messages_max: *messages_max,
                bytes_max: 3_000,
            },
            Step::Claim { client, stale, after, messages_max } => Request::Claim {
                client: name(client),
                epoch: self.epoch(*client, *stale),
                filter: GROUP.into(),
                after: after.unwrap_or(self.claimed[*client]),
                messages_max: *messages_max,
                bytes_max: 3_000,
            },
            Step::SaveClaimed { client, unsettled } => Request::Save {
                client: name(client),
                epoch: self.epoch(*client, false),
                progress: Progress {
                    cursors: vec![at(filter(GROUP), self.claimed[*client].saturating_sub(*unsettled))],
                    ..Progress::default()
                },
            },
            Step::Hold { bytes, for_s } => Request::Hold {
                filter: GROUP.into(),
                message: self.bench.message("a", &"h".repeat(*bytes)),
                for_ms: for_s * 1_000,
            },
            Step::EndHold { back, taken } => Request::EndHold {
                filter: GROUP.into(),
                at: self.held.iter().rev().nth(*back).copied().unwrap_or_default(),
                taken: *taken,
            },
            Step::Retain { topic, bytes, lives_s } => {
                let until = if *lives_s == 0 { 0 } else { self.bench.now_ms() + lives_s * 1_000 };
                Request::Retain {
                    message: self.bench.message_until(TOPICS[*topic], &"r".repeat(*bytes), until),
                }
            }
            Step::ReadRetained { filter } => {
                let filter = FILTERS[*filter].into();
                Request::ReadRetained { filter, after: None, messages_max: 10, bytes_max: u32::MAX }
            }
            Step::DurableFilters
            | Step::Pass { .. }
            | Step::PublishDue { .. }
            | Step::TakeExpired
            | Step::Join { .. }
            | Step::Reopen => Request::DurableFilters,
        }
    }
}

fn stream_at(at: usize) -> holdfast_wire::session_record::StreamKey {
    FILTERS.get(at).map_or_else(|| device(CLIENTS[at - FILTERS.len()]), |text| filter(text))
}

fn progress(cursors: &[(usize, u64)]) -> Progress {
    Progress {
        cursors: cursors.iter().map(|(stream, acked)| at(stream_at(*stream), *acked)).collect(),
        ..Progress::default()
    }
}
