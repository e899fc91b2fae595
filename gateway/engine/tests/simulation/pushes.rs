//! The bridge's part in pushes to one device: to the shard that holds it, whose report is awaited; to whoever holds it then; and at last to the device's own stream.
//!
//! Mirrors `bridge/src/push/deliver.rs`, in which tasks do what the world's steps do here.

use holdfast_wire::ids::{ClientId, Owner};
use holdfast_wire::link::{Deliver, Outcome, Positions, Target, ToGateway};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, SessionInfo};
use holdfast_wire::topic::matches;

use crate::bridge::{Bridge, Link, find, say};
use crate::groups::name;
use crate::shard::Shard;
use crate::store::Store;

/// How long the link of a connected session's shard is waited for, in ms.
const LINK_WITHIN_MS: u64 = 2_000;
/// Owners that are asked in a row.
const OWNERS_MAX: u32 = 4;

/// What a push's sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Delivered,
    Queued,
    Other,
}

#[derive(Default)]
pub(crate) struct Pushes {
    under_way: Vec<Push>,
    last: u64,
    /// To whom, what, and what its sender was told. Survives the bridge.
    pub(crate) told: Vec<(String, Vec<u8>, Told)>,
}

struct Push {
    client: String,
    message: SharedMessage,
    step: Step,
    owners: u32,
    /// The store has lost what it had meanwhile: nothing is promised.
    is_excused: bool,
}

#[derive(Clone, Copy)]
enum Step {
    /// Its owner's link is waited for until then.
    Seeks(u64),
    /// This delivery's report is awaited, of that owner.
    Sent(u64, Link, Owner),
    /// That owner does not have it.
    Returned(Owner),
    /// Whether the store is asked for the second time.
    Keeps(bool),
}

/// What comes of a step.
enum Outlook {
    Waits,
    GoesOn,
    Ends(Told),
}

impl Pushes {
    /// What the next bridge has of them.
    pub(crate) fn die(&mut self) -> Self {
        Self { told: std::mem::take(&mut self.told), last: self.last, ..Self::default() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// A link is lost: no report comes over it.
    pub(crate) fn forget_link(&mut self, link: Link) {
        for push in &mut self.under_way {
            if let Step::Sent(_, through, owner) = push.step
                && through == link
            {
                push.step = Step::Returned(owner);
            }
        }
    }

    /// The store has lost what it had.
    pub(crate) fn excuse_all(&mut self) {
        self.told.retain(|(_, _, told)| *told == Told::Delivered);
        self.under_way.iter_mut().for_each(|push| push.is_excused = true);
    }

    /// A shard has told what became of a delivery.
    pub(crate) fn hear(&mut self, delivery: u64, outcome: Outcome) {
        let is_it = |push: &Push| matches!(push.step, Step::Sent(number, ..) if number == delivery);
        let Some(at) = self.under_way.iter().position(is_it) else { return };
        let Step::Sent(_, _, owner) = self.under_way[at].step else { return };
        match outcome {
            Outcome::Delivered => self.tell(at, Told::Delivered),
            Outcome::Kept => self.tell(at, Told::Queued),
            Outcome::NotSubscribed
            | Outcome::QueueFull
            | Outcome::Expired
            | Outcome::TooLarge
            | Outcome::RefusedByDevice => self.tell(at, Told::Other),
            Outcome::NotHere | Outcome::ConnectionLost | Outcome::InDoubt => {
                self.under_way[at].step = Step::Returned(owner);
            }
        }
    }

    fn tell(&mut self, at: usize, told: Told) {
        let push = self.under_way.swap_remove(at);
        if !push.is_excused {
            self.told.push((push.client, push.message.view().payload.to_vec(), told));
        }
    }
}

impl Bridge {
    /// Pushes to whoever holds this client's session.
    pub(crate) fn push(&mut self, client: &str, store: &mut Store, shards: &mut [Shard]) {
        self.pushes.last += 1;
        let number = self.pushes.last;
        let topic = format!("devices/{client}/push");
        let payload = format!("push:{number}");
        let message = SharedMessage::new(&Message {
            id: self.number_message(),
            topic: &topic,
            qos: if number.is_multiple_of(2) { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
            retain: false,
            publisher: "",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: payload.as_bytes(),
        });
        let step = Step::Seeks(store.now_ms() + LINK_WITHIN_MS);
        let client = client.to_owned();
        self.pushes.under_way.push(Push { client, message, step, owners: 0, is_excused: false });
        self.see_pushes_through(store, shards);
    }

    /// Each push goes on that waits for nobody.
    pub(crate) fn see_pushes_through(&mut self, store: &mut Store, shards: &mut [Shard]) {
        for at in (0..self.pushes.under_way.len()).rev() {
            loop {
                match self.see_push_through(at, store, shards) {
                    Outlook::GoesOn => {}
                    Outlook::Waits => break,
                    Outlook::Ends(told) => break self.pushes.tell(at, told),
                }
            }
        }
    }

    /// One step of a push.
    fn see_push_through(&mut self, at: usize, store: &mut Store, shards: &mut [Shard]) -> Outlook {
        let Push { client, message, step, owners, .. } = &self.pushes.under_way[at];
        let (client, message, step, owners) = (client.clone(), message.clone(), *step, *owners);
        if let Step::Sent(..) = step {
            return Outlook::Waits;
        }
        let lookup = Request::Lookup { client: ClientId::new(&client) };
        let Ok(Reply::Session(session)) = store.ask(lookup) else { panic!("a lookup fails") };
        let Some(session) = session else {
            return if store.has_just_begun() { Outlook::Waits } else { Outlook::Ends(Told::Other) };
        };
        let step = match (step, session.owner) {
            (Step::Sent(..), _) => return Outlook::Waits,
            (Step::Seeks(until_ms), Some(owner)) => match find(shards, owner) {
                Some(link) => {
                    let delivery = self.expect_report(link);
                    self.tell(|| format!("pushes {} to {client} at {link:?} as {delivery}", name(&message)));
                    say(shards, link, &deliver(&client, delivery, Positions::new(), &message));
                    Step::Sent(delivery, link, owner)
                }
                None if store.now_ms() < until_ms => return Outlook::Waits,
                None => Step::Keeps(false),
            },
            (Step::Seeks(_), None) => Step::Keeps(false),
            (Step::Returned(former), owner) if owner == Some(former) || owners + 1 == OWNERS_MAX => {
                Step::Keeps(false)
            }
            (Step::Returned(..), _) => {
                self.pushes.under_way[at].owners += 1;
                Step::Seeks(store.now_ms() + LINK_WITHIN_MS)
            }
            (Step::Keeps(is_second), owner) => {
                if !is_kept(&session, &message) {
                    return Outlook::Ends(Told::Other);
                }
                let streams = vec![StreamKey::Device(client.as_str().into())];
                let append = Request::Append { streams, message: message.clone(), collapse_key: None };
                let Ok(Reply::Appended { at: positions, .. }) = store.ask(append) else {
                    panic!("an append fails")
                };
                if !positions.is_empty() {
                    // It may have come back, and read its stream, just before.
                    self.tell(|| format!("has {} stored for {client}: {positions:?}", name(&message)));
                    if let Some(link) = owner.and_then(|owner| find(shards, owner)) {
                        say(shards, link, &deliver(&client, 0, positions, &message));
                    }
                    return Outlook::Ends(Told::Queued);
                }
                if is_second {
                    return Outlook::Ends(Told::Other);
                }
                Step::Keeps(true)
            }
        };
        self.pushes.under_way[at].step = step;
        Outlook::GoesOn
    }
}

/// Whether a session keeps a message for the time when its device is back.
fn is_kept(session: &SessionInfo, message: &SharedMessage) -> bool {
    let mut held = session.subscriptions.iter();
    session.persistent
        && held.any(|held| held.qos > QoS::AtMostOnce && matches(&held.filter, message.view().topic))
}

fn deliver<'a>(
    client: &'a str,
    delivery: u64,
    positions: Positions,
    message: &'a SharedMessage,
) -> ToGateway<'a> {
    ToGateway::Deliver(Deliver {
        delivery,
        target: Target::Device(client),
        positions,
        message: message.view(),
    })
}
