//! One link's questions to the store, in the order in which its uplinks arrived.
//!
//! ```text
//! open ── the store is unavailable or full ──> held ──(after a while)──> trying the oldest ── answered ──> open, all held ones follow
//!                                                ^                              │
//!                                                └──────── once more ───────────┘
//! ```
//!
//! While one question is tried again, later ones wait behind it: a stream keeps the order of its publishers, and the last retained message
//! is the latest. Only what was under way when the first refusal came may overtake it. A message for a device is asked about twice, where the device is and
//! then to append, and what has heard the first answer must not append before those who wait to ask: it asks anew behind them.
//!
//! A store that lost its data a moment ago counts as one that cannot answer for the streams and sessions that it does not have: connected sessions are about to
//! be written back, and are owed the message. That ends within seconds ([`Store::has_just_begun`]).
//!
//! Bounded by the link's window: whatever is in here is owed by an unsettled uplink, at most two questions by each. So a store that is full holds
//! the devices back, and nothing is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use holdfast_store::Store;
use holdfast_wire::ids::ClientId;
use holdfast_wire::link::Positions;
use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request, StoreError};

use super::inbox::{Event, Inbox};
use super::owed::{OwedTicket, part};
use crate::store_requests::{Retries, is_temporary};

/// What the store is asked about an uplink.
#[derive(Debug)]
pub(crate) enum Question {
    /// To append it to these streams.
    Streams(Vec<StreamKey>),
    /// Whether this client's session holds a filter that these streams do not cover.
    Device { client: Box<str>, streams: Vec<StreamKey> },
    /// To keep it as its topic's retained message.
    Retain,
}

impl Question {
    /// The [`part`] of the uplink's debt that the answer pays.
    pub(super) fn part(&self) -> u8 {
        match self {
            Self::Streams(_) | Self::Device { .. } => part::STREAMS,
            Self::Retain => part::RETAIN,
        }
    }

    fn request(&self, message: SharedMessage) -> Request {
        match self {
            Self::Streams(streams) => {
                Request::Append { streams: streams.clone(), message, collapse_key: None }
            }
            Self::Device { client, .. } => Request::Lookup { client: ClientId::new(client) },
            Self::Retain => Request::Retain { message },
        }
    }

    /// What an answer leaves open, of streams that are not there; none if that is nothing.
    fn left_open(&self, answer: &Reply) -> Option<Self> {
        match (self, answer) {
            (Self::Streams(streams), Reply::Appended { at, full })
                if at.len() + full.len() < streams.len() =>
            {
                let is_open = |stream: &&StreamKey| {
                    at.iter().all(|place| place.stream != **stream) && !full.contains(stream)
                };
                Some(Self::Streams(streams.iter().filter(is_open).cloned().collect()))
            }
            (Self::Device { client, streams }, Reply::Session(None)) => {
                Some(Self::Device { client: client.clone(), streams: streams.clone() })
            }
            _ => None,
        }
    }
}

/// A question's place: of an uplink, its part. An uplink asks one question about each at a time.
type Place = (OwedTicket, u8);

/// The questions that wait, and how to ask.
pub(super) struct Questions {
    store: Arc<dyn Store>,
    inbox: Arc<Inbox>,
    held: BTreeMap<Place, (Question, SharedMessage)>,
    trying: Option<Place>,
    retries: Retries,
    held_since: Option<Instant>,
}

impl Questions {
    pub(super) fn new(store: Arc<dyn Store>, inbox: Arc<Inbox>) -> Self {
        Self { store, inbox, held: BTreeMap::new(), trying: None, retries: Retries::new(), held_since: None }
    }

    /// Asks the store, or waits for its turn. The answer arrives as [`Event::Store`].
    pub(super) fn ask(&mut self, ticket: OwedTicket, question: Question, message: SharedMessage) {
        if self.is_holding() {
            self.held.insert((ticket, question.part()), (question, message));
        } else {
            submit(&self.store, &self.inbox, ticket, question, message);
        }
    }

    /// The store has answered the `first` of two questions about one part, and changed nothing by that: asks the `second`, or both anew behind those
    /// that wait.
    pub(super) fn ask_on(
        &mut self,
        ticket: OwedTicket,
        first: Question,
        second: Question,
        message: SharedMessage,
    ) {
        if self.trying == Some((ticket, second.part())) {
            // It is still the one that is tried.
            submit(&self.store, &self.inbox, ticket, second, message);
        } else {
            let next = if self.is_holding() { first } else { second };
            self.ask(ticket, next, message);
        }
    }

    fn is_holding(&self) -> bool {
        // A refusal that nobody has handled yet may lie in the inbox.
        self.trying.is_some() || !self.held.is_empty() || self.inbox.is_store_refusing()
    }

    /// The store cannot answer now: the question waits, and is asked again.
    pub(super) fn handle_refused(
        &mut self,
        ticket: OwedTicket,
        question: Question,
        message: SharedMessage,
        error: &StoreError,
    ) {
        self.inbox.handle_store_refusal();
        let place = (ticket, question.part());
        if self.held_since.is_none() {
            tracing::error!(%error, "the session store takes nothing; frames that are owed to it wait, and their devices with them");
            self.held_since = Some(Instant::now());
        }
        self.held.insert(place, (question, message));
        if self.trying == Some(place) {
            self.trying = None;
        }
        if self.trying.is_none() {
            self.try_oldest();
        }
    }

    /// The store answered. To be called behind what follows from the answer, which comes before what is held.
    pub(super) fn handle_answered(&mut self, ticket: OwedTicket, part: u8) {
        if self.trying != Some((ticket, part)) {
            return;
        }
        self.trying = None;
        self.retries = Retries::new();
        while !self.inbox.is_store_refusing()
            && let Some(((ticket, _), (question, message))) = self.held.pop_first()
        {
            submit(&self.store, &self.inbox, ticket, question, message);
        }
        if self.held.is_empty()
            && !self.inbox.is_store_refusing()
            && let Some(since) = self.held_since.take()
        {
            let held_ms = since.elapsed().as_millis() as u64;
            tracing::info!(held_ms, "the session store answers again");
        }
    }

    fn try_oldest(&mut self) {
        let Some((place, (question, message))) = self.held.pop_first() else { return };
        self.trying = Some(place);
        let (store, inbox, wait) =
            (Arc::clone(&self.store), Arc::clone(&self.inbox), self.retries.next_wait());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            submit(&store, &inbox, place.0, question, message);
        });
    }
}

fn submit(
    store: &Arc<dyn Store>,
    inbox: &Arc<Inbox>,
    ticket: OwedTicket,
    question: Question,
    message: SharedMessage,
) {
    let request = question.request(message);
    let (inbox, asked) = (Arc::clone(inbox), Arc::clone(store));
    store.submit(
        request,
        Box::new(move |answer| {
            let left_open = answer.as_ref().ok().and_then(|reply| question.left_open(reply));
            if let Some(question) = left_open.filter(|_| asked.has_just_begun()) {
                let positions = match answer {
                    Ok(Reply::Appended { at, .. }) => at,
                    _ => Positions::new(),
                };
                inbox.note_store_refusal();
                return inbox.push(Event::Awaited { ticket, question, positions });
            }
            if answer.as_ref().is_err_and(is_temporary) {
                inbox.note_store_refusal();
            }
            inbox.push(Event::Store { ticket, question, answer });
        }),
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use holdfast_store::ReplyTo;
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;
    use holdfast_wire::store::Reply;

    use super::*;

    /// A store that answers when the test does.
    #[derive(Default)]
    struct Silent(Mutex<Vec<ReplyTo>>);

    impl Store for Silent {
        fn submit(&self, _request: Request, reply: ReplyTo) {
            self.asked().push(reply);
        }
    }

    impl Silent {
        fn asked(&self) -> std::sync::MutexGuard<'_, Vec<ReplyTo>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    #[tokio::test]
    async fn an_answer_does_not_hide_a_refusal_that_nobody_has_handled() {
        let store = Arc::new(Silent::default());
        let inbox = Arc::new(Inbox::default());
        let mut questions = Questions::new(Arc::clone(&store) as Arc<dyn Store>, Arc::clone(&inbox));
        let message = SharedMessage::new(&Message {
            id: 1,
            topic: "t",
            qos: QoS::AtLeastOnce,
            retain: true,
            publisher: "d",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: &[],
        });
        questions.ask(1, Question::Retain, message.clone());
        questions.ask(2, Question::Retain, message.clone());
        let mut replies = std::mem::take(&mut *store.asked()).into_iter();
        let away = StoreError::Unavailable("away".to_owned());
        replies.next().unwrap()(Err(away.clone()));
        replies.next().unwrap()(Ok(Reply::Done));
        questions.ask(3, Question::Retain, message.clone());
        assert!(store.asked().is_empty(), "the third would overtake the first");

        questions.handle_refused(1, Question::Retain, message, &away);
        questions.handle_answered(2, part::RETAIN);
        assert!(!inbox.is_store_refusing(), "the first one waits in here now, and the third behind it");
        assert_eq!(questions.trying, Some((1, part::RETAIN)));
        questions.handle_answered(1, part::RETAIN);
        assert_eq!(store.asked().len(), 1, "the third follows");
    }
}
