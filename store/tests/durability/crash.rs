//! `kill -9` of a process that writes, many times, at random moments: whatever was answered is there.
//!
//! The child is this very test binary, told by its environment to run one test only. It prints a line for each answer it
//! got; the parent believes those lines and looks for what they say.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use holdfast_store::contract::{NEVER_EXPIRES_S, Progress, Reply, Request, StoreError, WillRecord};
use holdfast_store::{EmbeddedStore, Options, Store, clock};
use holdfast_wire::ids::{ClientId, Epoch};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;

use crate::world::{ALICE, BOB, at, device, filter, subscription, text_of};

const CHILD: &str = "HOLDFAST_STORE_CRASH_CHILD";
const ROUNDS: u64 = 30;
const IN_FLIGHT: usize = 24;

#[test]
fn nothing_answered_is_lost_whenever_the_process_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut appended = HashMap::new();
    let (mut settled, mut retained, mut sessions) = (0, 0, Vec::new());
    let (mut members, mut replaced, mut published) = (Vec::new(), 0, HashSet::new());
    let mut divided = Divided::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        let mut wills = Vec::new();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        for line in run_child_for(directory.path(), round, random % 600) {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["append", offset, text] => {
                    drop(appended.insert(offset.parse::<u64>().unwrap(), text.to_owned()));
                }
                ["settled", offset] => settled = settled.max(offset.parse().unwrap()),
                ["retained", number] => retained = number.parse().unwrap(),
                ["session", client] => sessions.push(client.to_owned()),
                ["member", client] => members.push(client.to_owned()),
                ["will", client] => wills.push(client.to_owned()),
                ["waits", text] => drop(divided.waiting.insert(text.to_owned())),
                ["takes", ref texts @ ..] => divided.taking.extend(texts.iter().map(ToString::to_string)),
                ["took", ref texts @ ..] => divided.taken.extend(texts.iter().map(ToString::to_string)),
                ["replaced", offset] => replaced = replaced.max(offset.parse().unwrap()),
                // The harness has its own lines.
                _ => {}
            }
        }
        let store = EmbeddedStore::open(directory.path(), Options::default()).unwrap();
        assert_is_there(&store, &appended, settled, retained, &sessions, round);
        assert_members(&store, &members, round);
        assert_replaced(&store, replaced, round);
        publish_wills(&store, &wills, &mut published, round);
        divided.assert_is_there(&store, round);
    }
    assert!(divided.taken.len() > 20, "only {} messages of the group were settled", divided.taken.len());
    assert!(appended.len() > 100, "only {} appends were answered in all", appended.len());
}

/// What the child does, when there is one. In an ordinary run of the tests it does nothing.
#[test]
fn a_child_writes_until_it_is_killed() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (round, directory) = task.split_once(' ').unwrap();
    let store = EmbeddedStore::open(directory.as_ref(), Options::default()).unwrap();
    let window = Arc::new(Window::default());
    let reader = || ClientId::new("reader");
    let epoch = match ask(&store, open("reader")) {
        Ok(Reply::Opened(opened)) => opened.epoch,
        other => panic!("{other:?}"),
    };
    let subscriptions = vec![subscription("log", QoS::AtLeastOnce)];
    let subscribe = Request::Subscribe { client: reader(), epoch, subscriptions };
    let mut settled = match ask(&store, subscribe) {
        Ok(Reply::Subscribed(cursors)) => cursors[0].acked,
        other => panic!("{other:?}"),
    };
    let keeps = Member::comes(&store, "keeps");
    let mut settles = Member::comes(&store, "settles");
    for number in 0_u64.. {
        let text = format!("{round}-{number}");
        if number % 2 == 0 {
            let append = Request::Append {
                streams: vec![filter(GROUP)],
                message: message("log", &text),
                collapse_key: None,
            };
            let line = format!("waits {text}");
            window.submit(&store, append, move |_| line);
        }
        if number % 9 == 0 {
            // What one settles stands behind what the other one keeps.
            keeps.claim(&store, 1);
            settles.settle(&store, &window);
        }
        let append = Request::Append {
            streams: vec![filter("log")],
            message: message("log", &text),
            collapse_key: None,
        };
        window.submit(&store, append, move |reply| match reply {
            Reply::Appended { at: cursors, .. } => format!("append {} {text}", cursors[0].acked),
            other => panic!("{other:?}"),
        });
        if number % 5 == 0 {
            settled += 2;
            let progress = Progress { cursors: vec![at(filter("log"), settled)], ..Progress::default() };
            let save = Request::Save { client: reader(), epoch, progress };
            let line = format!("settled {settled}");
            window.submit(&store, save, move |_| line);
        }
        if number % 7 == 0 {
            let value = round.parse::<u64>().unwrap() * 1_000_000 + number;
            let retain = Request::Retain { message: message("retained", &value.to_string()) };
            window.submit(&store, retain, move |_| format!("retained {value}"));
        }
        if number % 3 == 0 {
            let append = Request::Append {
                streams: vec![device("reader")],
                message: message("own", &number.to_string()),
                collapse_key: Some("state".into()),
            };
            window.submit(&store, append, move |reply| match reply {
                Reply::Appended { at: cursors, .. } => format!("replaced {}", cursors[0].acked),
                other => panic!("{other:?}"),
            });
        }
        if number % 13 == 0 {
            let client = format!("m-{round}-{number}");
            let add = vec![ClientId::new(&client)];
            let change = Request::ChangeGroup { group: "crowd".into(), add, remove: vec![] };
            window.submit(&store, change, move |_| format!("member {client}"));
        }
        if number % 17 == 0 {
            leave_will(&store, &format!("w-{round}-{number}"), number % 3, &window);
        }
        if number % 11 == 0 {
            let client = format!("s-{round}-{number}");
            window.submit(&store, open(&client), move |_| format!("session {client}"));
        }
    }
}

const GROUP: &str = "$share/g/log";

/// A member of a group.
struct Member {
    client: ClientId,
    epoch: Epoch,
    settled: u64,
}

impl Member {
    fn comes(store: &dyn Store, client: &str) -> Self {
        let Ok(Reply::Opened(opened)) = ask(store, open(client)) else { panic!("it opens") };
        let (client, epoch) = (ClientId::new(client), opened.epoch);
        let subscriptions = vec![subscription(GROUP, QoS::AtLeastOnce)];
        match ask(store, Request::Subscribe { client: client.clone(), epoch, subscriptions }) {
            Ok(Reply::Subscribed(cursors)) => Self { client, epoch, settled: cursors[0].acked },
            other => panic!("{other:?}"),
        }
    }

    fn claim(&self, store: &dyn Store, messages_max: u32) -> Vec<(u64, String)> {
        let claim = Request::Claim {
            client: self.client.clone(),
            epoch: self.epoch,
            filter: GROUP.into(),
            after: self.settled,
            messages_max,
            bytes_max: u32::MAX,
        };
        match ask(store, claim) {
            Ok(Reply::Messages { messages, .. }) => {
                messages.into_iter().map(|(number, message)| (number, text_of(&message))).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, store: &dyn Store, window: &Arc<Window>) {
        let claimed = self.claim(store, 3);
        let Some((last, _)) = claimed.last() else { return };
        self.settled = *last;
        let texts = claimed.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ");
        let _ = writeln!(std::io::stdout(), "takes {texts}");
        let progress = Progress { cursors: vec![at(filter(GROUP), self.settled)], ..Progress::default() };
        let save = Request::Save { client: self.client.clone(), epoch: self.epoch, progress };
        window.submit(store, save, move |_| format!("took {texts}"));
    }
}

/// What a group's messages are known by.
#[derive(Default)]
struct Divided {
    waiting: HashSet<String>,
    taking: HashSet<String>,
    taken: HashSet<String>,
}

impl Divided {
    /// All is there to be claimed that nobody has settled, and nothing that somebody has.
    fn assert_is_there(&self, store: &dyn Store, round: u64) {
        let claimed = Member::comes(store, "keeps").claim(store, u32::MAX);
        let found: HashSet<_> = claimed.iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(found.len(), claimed.len(), "round {round}: some are there twice");
        if let Some(text) = self.taken.intersection(&found).next() {
            panic!("round {round}: {text} was settled and is there again");
        }
        if let Some(text) =
            self.waiting.iter().find(|text| !self.taking.contains(*text) && !found.contains(*text))
        {
            panic!("round {round}: {text} is lost");
        }
    }
}

/// Connects a client with a will, ends its connection in one of three ways and says so.
fn leave_will(store: &dyn Store, client: &str, way: u64, window: &Arc<Window>) {
    let will = Some(WillRecord { message: message("gone", client), delay_s: 0, expiry_s: NEVER_EXPIRES_S });
    let client = ClientId::new(client);
    let open = |owner, will| Request::Open {
        client: client.clone(),
        owner,
        clean_start: false,
        expiry_s: NEVER_EXPIRES_S,
        will,
    };
    let Ok(Reply::Opened(opened)) = ask(store, open(ALICE, will.clone())) else { panic!("it opens") };
    let line = format!("will {client}");
    let request = match way {
        0 => Request::Reap { client, epoch: opened.epoch },
        1 => open(BOB, None),
        _ => Request::Close {
            client,
            epoch: opened.epoch,
            expiry_s: NEVER_EXPIRES_S,
            progress: Progress::default(),
            will,
        },
    };
    window.submit(store, request, move |_| line);
}

fn run_child_for(directory: &std::path::Path, round: u64, lines: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::a_child_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD, format!("{round} {}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut answers = Vec::new();
    let mut read = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut killed = false;
    while read.read_line(&mut line).unwrap() > 0 {
        // The last one may be torn by the kill.
        if line.ends_with('\n') {
            answers.push(line.trim_end().to_owned());
        }
        line.clear();
        if !killed && answers.len() as u64 > lines {
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(killed, "the child ended by itself: {status}");
    answers
}

fn assert_is_there(
    store: &dyn Store,
    appended: &HashMap<u64, String>,
    settled: u64,
    retained: u64,
    sessions: &[String],
    round: u64,
) {
    let cursor = match ask(store, open("reader")) {
        Ok(Reply::Opened(opened)) => {
            let session = opened.session.unwrap_or_else(|| panic!("round {round}: the reader is there"));
            session
                .cursors
                .iter()
                .find(|cursor| cursor.stream == filter("log"))
                .map_or(0, |cursor| cursor.acked)
        }
        other => panic!("{other:?}"),
    };
    let read =
        Request::Read { stream: filter("log"), after: cursor, messages_max: u32::MAX, bytes_max: u32::MAX };
    let Ok(Reply::Messages { messages, end }) = ask(store, read) else { panic!("a read is answered") };
    assert!(cursor >= settled.min(end), "round {round}: the cursor fell back from {settled} to {cursor}");
    let stored: HashMap<_, _> =
        messages.into_iter().map(|(offset, message)| (offset, text_of(&message))).collect();
    for (offset, text) in appended.iter().filter(|(offset, _)| **offset > cursor) {
        assert_eq!(stored.get(offset), Some(text), "round {round}: message {offset}");
    }
    let read = Request::ReadRetained {
        filter: "retained".into(),
        after: None,
        messages_max: 1,
        bytes_max: u32::MAX,
    };
    let Ok(Reply::Retained(messages)) = ask(store, read) else { panic!("a read is answered") };
    let stored = messages.first().map_or(0, |message| text_of(message).parse::<u64>().unwrap());
    assert!(stored >= retained, "round {round}: {stored} is older than {retained}");
    for client in sessions {
        let found = ask(store, Request::Lookup { client: ClientId::new(client) });
        assert!(matches!(found, Ok(Reply::Session(Some(_)))), "round {round}: session {client} is gone");
    }
    let Ok(Reply::Opened(opened)) = ask(store, open("reader")) else { panic!("it opens again") };
    let progress = Progress { cursors: vec![at(filter("log"), cursor)], ..Progress::default() };
    let close = Request::Close {
        client: ClientId::new("reader"),
        epoch: opened.epoch,
        expiry_s: NEVER_EXPIRES_S,
        progress,
        will: None,
    };
    assert_eq!(ask(store, close), Ok(Reply::Done));
    assert!(opened.epoch > Epoch(0) && opened.former.is_none_or(|former| former == BOB));
}

fn assert_members(store: &dyn Store, members: &[String], round: u64) {
    let read = Request::GroupMembers { group: "crowd".into(), page: None, members_max: u32::MAX };
    let Ok(Reply::Members { clients, .. }) = ask(store, read) else { panic!("members are read") };
    let stored: HashSet<_> = clients.iter().map(ClientId::as_str).collect();
    for client in members {
        assert!(stored.contains(client.as_str()), "round {round}: member {client} is gone");
    }
}

/// Of all messages under one key only the last one is there.
fn assert_replaced(store: &dyn Store, answered: u64, round: u64) {
    let read =
        Request::Read { stream: device("reader"), after: 0, messages_max: u32::MAX, bytes_max: u32::MAX };
    let Ok(Reply::Messages { messages, end }) = ask(store, read) else { panic!("a read is answered") };
    let offsets: Vec<_> = messages.iter().map(|(offset, _)| *offset).collect();
    assert!(end >= answered, "round {round}: {answered} was answered and the stream ends at {end}");
    assert_eq!(offsets, if end == 0 { vec![] } else { vec![end] }, "round {round}");
}

/// Everyone's will is there whose connection ended, and nobody's a second time.
fn publish_wills(store: &dyn Store, left: &[String], published: &mut HashSet<String>, round: u64) {
    let Ok(Reply::Wills(wills)) = ask(store, Request::DueWills { wills_max: u32::MAX }) else {
        panic!("wills are given")
    };
    for will in wills {
        assert!(published.insert(will.client.to_string()), "round {round}: {} again", will.client);
        let published = Request::WillPublished { client: will.client, number: will.number };
        assert_eq!(ask(store, published), Ok(Reply::Done));
    }
    for client in left {
        assert!(published.contains(client), "round {round}: the will of {client} is lost");
    }
}

fn open(client: &str) -> Request {
    let client = ClientId::new(client);
    Request::Open { client, owner: ALICE, clean_start: false, expiry_s: NEVER_EXPIRES_S, will: None }
}

fn message(topic: &str, text: &str) -> SharedMessage {
    SharedMessage::new(&Message {
        id: 1,
        topic,
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "child",
        published_at_ms: clock::system()(),
        expires_at_ms: 0,
        properties: &[],
        payload: text.as_bytes(),
    })
}

fn ask(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    let (answered, answers) = std::sync::mpsc::sync_channel(1);
    store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
    answers.recv_timeout(std::time::Duration::from_secs(30)).expect("an answer always comes")
}

/// Keeps a bounded number of requests in flight and prints a line for each answer.
#[derive(Default)]
struct Window {
    in_flight: Mutex<usize>,
    room: Condvar,
}

impl Window {
    fn submit(
        self: &Arc<Self>,
        store: &dyn Store,
        request: Request,
        line: impl FnOnce(Reply) -> String + Send + 'static,
    ) {
        let mut in_flight = self.in_flight.lock().unwrap();
        in_flight = self.room.wait_while(in_flight, |in_flight| *in_flight == IN_FLIGHT).unwrap();
        *in_flight += 1;
        drop(in_flight);
        let window = Arc::clone(self);
        store.submit(
            request,
            Box::new(move |answer| {
                let line = line(answer.unwrap());
                let _ = writeln!(std::io::stdout(), "{line}");
                *window.in_flight.lock().unwrap() -= 1;
                window.room.notify_one();
            }),
        );
    }
}
