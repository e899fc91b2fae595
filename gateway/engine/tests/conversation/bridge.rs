//! A bridge: hears what the shard says on its link, and says what the story wants.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use holdfast_engine::LinkIndex;
use holdfast_wire::ids::{Epoch, Owner};
use holdfast_wire::link::{
    Deliver, EventKind, Interest, InterestKind, Outcome, Settled, SettledAt, Target, ToBridge, ToGateway,
    next_record,
};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::PacketId;
use holdfast_wire::session_record::Cursor;
use holdfast_wire::topic::matches;

use crate::packets::message;
use crate::stage::Shard;

/// A bridge, by its link.
pub(crate) struct Bridge {
    shard: Shard,
    link: LinkIndex,
}

/// The bridge's end of the link.
#[derive(Default)]
pub(crate) struct LinkEnd {
    heard: VecDeque<Heard>,
    /// Announcements are written down and answered when the story says so; otherwise they are answered at once and forgotten.
    holds_answers: bool,
    /// It takes nothing: what the shard writes waits there.
    pub(crate) is_stuck: bool,
}

/// A record that came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Uplink(SeenUplink),
    /// Token, and the announcement in short: `+filter`, `-filter`, with ` group x members`, ` @level`, ` durable`.
    Interest(u64, String),
    RetainedRead {
        token: u64,
        filter: String,
        after: String,
        messages_max: u32,
    },
    Report(u64, Outcome),
    /// Client, epoch and time, and what happened in short: `connected mqtt-5`, with ` present` and ` for 60`; `disconnected reason`, with ` for good`;
    /// `taken over`.
    Event(String, Epoch, u64, String),
    Takeover {
        client: String,
        epoch: Epoch,
        former: Owner,
    },
    Handover {
        client: String,
        session: Vec<u8>,
        owes_will: bool,
    },
    HandoverSettled {
        client: String,
        epoch: Epoch,
        former: Owner,
        outcome: Outcome,
    },
}

/// An uplink that outlives its record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenUplink {
    pub(crate) sequence: u64,
    pub(crate) epoch: Epoch,
    pub(crate) packet_id: Option<u16>,
    pub(crate) dup: bool,
    pub(crate) resent: bool,
    pub(crate) wants_receipt: bool,
    pub(crate) event_time_ms: u64,
    pub(crate) message: SharedMessage,
}

impl LinkEnd {
    /// Takes what the shard wrote; gives the tokens of announcements to be answered at once.
    pub(crate) fn hear(&mut self, mut bytes: &[u8]) -> Vec<u64> {
        let mut tokens = Vec::new();
        while let Some(raw) = next_record(&mut bytes).expect("the engine writes records") {
            let record = ToBridge::decode(raw).expect("the engine writes records that a bridge takes");
            if let ToBridge::Interest(interest) = &record
                && !self.holds_answers
            {
                tokens.extend((interest.token != 0 && interest.wanted).then_some(interest.token));
                continue;
            }
            self.heard.push_back(Heard::from(record));
        }
        assert!(bytes.is_empty(), "the engine writes whole records");
        tokens
    }
}

impl From<ToBridge<'_>> for Heard {
    fn from(record: ToBridge<'_>) -> Self {
        match record {
            ToBridge::Hello(_) => panic!("the shell says hello, not the engine"),
            ToBridge::Uplink(uplink) => Self::Uplink(SeenUplink {
                sequence: uplink.sequence,
                epoch: uplink.epoch,
                packet_id: uplink.packet_id.map(PacketId::get),
                dup: uplink.dup,
                resent: uplink.resent,
                wants_receipt: uplink.wants_receipt,
                event_time_ms: uplink.event_time_ms,
                message: SharedMessage::new(&uplink.message),
            }),
            ToBridge::Interest(interest) => Self::Interest(interest.token, in_short(&interest)),
            ToBridge::RetainedRead(read) => Self::RetainedRead {
                token: read.token,
                filter: read.filter.to_owned(),
                after: read.after.to_owned(),
                messages_max: read.messages_max,
            },
            ToBridge::Report(report) => Self::Report(report.delivery, report.outcome),
            ToBridge::Takeover(takeover) => Self::Takeover {
                client: takeover.client.to_owned(),
                epoch: takeover.epoch,
                former: takeover.former,
            },
            ToBridge::Handover(handover) => Self::Handover {
                client: handover.client.to_owned(),
                session: handover.session.to_vec(),
                owes_will: handover.owes_will,
            },
            ToBridge::HandoverSettled(settled) => Self::HandoverSettled {
                client: settled.client.to_owned(),
                epoch: settled.epoch,
                former: settled.former,
                outcome: settled.outcome,
            },
            ToBridge::Event(event) => {
                Self::Event(event.client.to_owned(), event.epoch, event.at_ms, event_in_short(event.kind))
            }
            ToBridge::Alive => panic!("the shell keeps a link alive, not the engine"),
        }
    }
}

fn event_in_short(kind: EventKind<'_>) -> String {
    let when = |condition: bool, said: String| if condition { said } else { String::new() };
    match kind {
        EventKind::Connected { protocol, session_present, session_expiry_s } => {
            let present = when(session_present, " present".to_owned());
            let lasts = when(session_expiry_s > 0, format!(" for {session_expiry_s}"));
            format!("connected {protocol}{present}{lasts}")
        }
        EventKind::Disconnected { reason, session_ended } => {
            format!("disconnected {reason}{}", when(session_ended, " for good".to_owned()))
        }
        EventKind::TakenOver => "taken over".to_owned(),
    }
}

fn in_short(interest: &Interest<'_>) -> String {
    let sign = if interest.wanted { '+' } else { '-' };
    let kind = match interest.kind {
        InterestKind::Filter => String::new(),
        InterestKind::Shared { group, members } => format!(" {group} x {members}"),
        InterestKind::Personal { level } => format!(" @{level}"),
    };
    let durable = if interest.durable { " durable" } else { "" };
    format!("{sign}{}{kind}{durable}", interest.filter)
}

impl Bridge {
    pub(crate) fn new(shard: Shard, link: LinkIndex) -> Self {
        Self { shard, link }
    }

    pub(crate) fn comes_up(&self) {
        self.shard.stage().link_comes_up(self.link, None);
    }

    /// Comes up and allows so many bytes of unsettled uplinks.
    pub(crate) fn comes_up_with_window(&self, bytes: u32) {
        self.shard.stage().link_comes_up(self.link, Some(bytes));
    }

    /// The link is lost, with whatever was on it.
    pub(crate) fn goes_down(&self) {
        let link = self.link;
        self.shard.input(|engine, now| engine.handle_link_down(link, now));
        self.shard.stage().links[usize::from(link.0)].heard.clear();
    }

    /// From now on announcements of filters wait for [`Bridge::knows`].
    pub(crate) fn holds_answers(&self) {
        self.shard.stage().links[usize::from(self.link.0)].holds_answers = true;
    }

    /// It lives, and takes nothing.
    pub(crate) fn stops_reading(&self) {
        self.shard.stage().links[usize::from(self.link.0)].is_stuck = true;
    }

    /// It takes what waited.
    pub(crate) fn reads_again(&self) {
        self.shard.stage().links[usize::from(self.link.0)].is_stuck = false;
        self.shard.stage().turn();
    }

    /// Bytes that wait for it.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.shard.stage().engine.link_output(self.link).len()
    }

    /// More waits for it than may.
    pub(crate) fn overflows(&self) -> bool {
        self.shard.stage().engine.link_overflows(self.link)
    }

    /// Its link is given up and dialled again.
    pub(crate) fn is_dialled_again(&self) {
        self.goes_down();
        self.shard.stage().links[usize::from(self.link.0)].is_stuck = false;
        self.comes_up();
    }

    pub(crate) fn says(&self, record: &ToGateway<'_>) {
        let link = self.link;
        self.shard.input(|engine, now| engine.handle_link_record(link, record, now));
    }

    pub(crate) fn knows(&self, token: u64) {
        self.says(&ToGateway::InterestKnown(token));
    }

    pub(crate) fn settles(&self, sequences: RangeInclusive<u64>) {
        self.refuses(sequences, 0);
    }

    /// Settles with a reason code.
    pub(crate) fn refuses(&self, sequences: RangeInclusive<u64>, reason_code: u8) {
        let (first, last) = sequences.into_inner();
        self.says(&ToGateway::Settled(Settled { first, last, reason_code }));
    }

    /// Settles one uplink, which lies in this topic's partition 3 at this offset.
    pub(crate) fn settles_at(&self, sequence: u64, topic: &str, offset: i64) {
        let settled = SettledAt { sequence, duplicate: false, topic, partition: 3, offset };
        self.says(&ToGateway::SettledAt(settled));
    }

    /// Delivers to everyone who holds a matching filter.
    pub(crate) fn publishes(&self, message: &Message<'_>) {
        self.publishes_at(message, Vec::new());
    }

    /// The same for a message that stands in streams.
    pub(crate) fn publishes_at(&self, message: &Message<'_>, positions: Vec<Cursor>) {
        self.delivers(0, Target::Subscribers, message, positions);
    }

    /// Pushes to one device and asks for a report by this number.
    pub(crate) fn pushes(&self, delivery: u64, client: &str, message: &Message<'_>) {
        self.delivers(delivery, Target::Device(client), message, Vec::new());
    }

    pub(crate) fn delivers(
        &self,
        delivery: u64,
        target: Target<'_>,
        message: &Message<'_>,
        positions: Vec<Cursor>,
    ) {
        self.says(&ToGateway::Deliver(Deliver { delivery, target, positions, message: *message }));
    }

    #[track_caller]
    pub(crate) fn hears(&self) -> Heard {
        self.may_hear().expect("the bridge hears nothing")
    }

    /// The next record, if there is one.
    pub(crate) fn may_hear(&self) -> Option<Heard> {
        self.shard.stage().links[usize::from(self.link.0)].heard.pop_front()
    }

    /// The next record is an uplink with this topic and payload.
    #[track_caller]
    pub(crate) fn hears_uplink(&self, topic: &str, payload: &str) -> SeenUplink {
        match self.hears() {
            Heard::Uplink(uplink) => {
                let view = uplink.message.view();
                assert_eq!((view.topic, view.payload), (topic, payload.as_bytes()));
                uplink
            }
            other => panic!("the bridge hears {other:?}, not an uplink"),
        }
    }

    /// The next record announces or withdraws this; gives its token.
    #[track_caller]
    pub(crate) fn hears_interest(&self, expected: &str) -> u64 {
        match self.hears() {
            Heard::Interest(token, announcement) => {
                assert_eq!(announcement, expected);
                token
            }
            other => panic!("the bridge hears {other:?}, not an announcement"),
        }
    }

    #[track_caller]
    pub(crate) fn hears_report(&self, delivery: u64, outcome: Outcome) {
        assert_eq!(self.hears(), Heard::Report(delivery, outcome));
    }

    /// The next record tells of this client's connection, now.
    #[track_caller]
    pub(crate) fn hears_event(&self, client: &str, epoch: Epoch, what: &str) {
        let now_ms = self.shard.stage().now.unix_ms;
        assert_eq!(self.hears(), Heard::Event(client.to_owned(), epoch, now_ms, what.to_owned()));
    }

    /// The next record tells a new owner whether the will of the connection that it displaced is still owed.
    #[track_caller]
    pub(crate) fn hears_will_is_owed(&self) -> bool {
        match self.hears() {
            Heard::Handover { owes_will, .. } => owes_will,
            other => panic!("the bridge hears {other:?}, not a handover"),
        }
    }

    #[track_caller]
    pub(crate) fn hears_retained_read(&self, filter: &str) -> u64 {
        match self.hears() {
            Heard::RetainedRead { token, filter: read, after, .. } => {
                assert_eq!((&*read, &*after), (filter, ""));
                token
            }
            other => panic!("the bridge hears {other:?}, not a read of retained messages"),
        }
    }

    /// Answers reads of retained messages from these, in the order of their topics, until none is asked for; gives the sizes of the pages.
    pub(crate) fn answers_reads_from(&self, retained: &BTreeMap<String, String>) -> Vec<usize> {
        let mut pages = Vec::new();
        loop {
            let heard = self.shard.stage().links[usize::from(self.link.0)].heard.pop_front();
            let Some(Heard::RetainedRead { token, filter, after, messages_max }) = heard else {
                return pages;
            };
            let mut matching =
                retained.range(after.clone()..).filter(|(name, _)| **name != after && matches(&filter, name));
            let page: Vec<_> = matching.by_ref().take(messages_max as usize).collect();
            for (topic, payload) in &page {
                let message = Message { retain: true, ..message(topic, payload) };
                self.says(&ToGateway::RetainedMessage { token, message });
            }
            pages.push(page.len());
            self.says(&ToGateway::RetainedEnd { token, more: matching.next().is_some() });
        }
    }

    #[track_caller]
    pub(crate) fn hears_nothing(&self) {
        let heard = &self.shard.stage().links[usize::from(self.link.0)].heard;
        assert!(heard.is_empty(), "the bridge hears {heard:?}");
    }

    /// Whatever it heard is of no interest.
    pub(crate) fn forgets(&self) {
        self.shard.stage().links[usize::from(self.link.0)].heard.clear();
    }
}
