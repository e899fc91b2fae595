//! What the stores do in a second: `cargo bench -p holdfast-store`. Figures are for one caller on one thread, unless a
//! line says otherwise.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use holdfast_store::contract::{Reply, Request, StoreError};
use holdfast_store::{Bounds, EmbeddedStore, MemoryStore, Options, Store, clock};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{StreamKey, SubscriptionRecord};
use holdfast_wire::store::Progress;

const OWNER: Owner = Owner { node: NodeId(1), shard: ShardId(0) };

fn main() {
    let memory = MemoryStore::new(clock::system(), Bounds::default());
    println!("memory    open + close, clean, among 100,000:   {:>9.0} ns", open_close_clean(&memory));

    for sessions in [200_000, 1_000_000] {
        weigh_and_list(sessions);
    }

    let directory = tempfile::tempdir_in(".").expect("a directory beside the sources, so on a real disk");
    let embedded =
        EmbeddedStore::open(directory.path(), Options::default()).expect("an empty directory opens");
    println!("embedded  open + close, clean, among 100,000:   {:>9.0} ns", open_close_clean(&embedded));
    println!(
        "embedded  open, persistent, one at a time:      {:>9.0} us",
        open_persistent(&embedded, 200, 1)
    );
    println!(
        "embedded  open, persistent, 10,000 at once:     {:>9.1} us each",
        open_persistent(&embedded, 10_000, 10_000)
    );
    for in_flight in [1, 16, 256, 4_096] {
        let per_second = append(&embedded, in_flight);
        println!("embedded  append 128 B, {in_flight:>5} in flight:         {per_second:>9.0} /s");
    }
    let before = Instant::now();
    drop(embedded);
    let size = std::fs::metadata(directory.path().join("store.redb")).map_or(0, |file| file.len());
    drop(EmbeddedStore::open(directory.path(), Options::default()).expect("it opens again"));
    println!(
        "embedded  close and open again, {:>4} MiB:         {:>9.0} ms",
        size >> 20,
        before.elapsed().as_millis()
    );
}

/// What clean sessions weigh beside their names, and how long it takes to list all of them.
fn weigh_and_list(sessions: usize) {
    let clients: Vec<_> = (0..sessions).map(|number| ClientId::new(&format!("device-{number:08}"))).collect();
    let before = resident_bytes();
    let memory = MemoryStore::new(clock::system(), Bounds::default());
    for client in &clients {
        ask_open(&memory, client.clone(), 0);
    }
    let each = (resident_bytes() as f64 - before as f64) / sessions as f64;
    println!("memory    a clean session, among {sessions:>9}:       {each:>9.1} bytes");
    for (what, owner) in [("all", None), ("those of a node that has none", Some(NodeId(2)))] {
        let (start, mut slowest, mut pages, mut page) = (Instant::now(), Duration::ZERO, 0, None);
        loop {
            let asked = Instant::now();
            match ask(&memory, Request::Sessions { owner, page, sessions_max: 256 }) {
                Ok(Reply::Sessions { next, .. }) => page = next,
                other => panic!("{other:?}"),
            }
            pages += 1;
            slowest = slowest.max(asked.elapsed());
            if page.is_none() {
                break;
            }
        }
        println!(
            "memory    list {what} of {sessions}: {pages} pages, {:>6.0} us each, at most {:.0} us",
            start.elapsed().as_micros() as f64 / f64::from(pages),
            slowest.as_micros()
        );
    }
}

/// What the system says that this process occupies.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4_096
}

fn open_close_clean(store: &dyn Store) -> f64 {
    let clients: Vec<_> = (0..100_000).map(|number| ClientId::new(&format!("device-{number:08}"))).collect();
    let mut epochs: Vec<_> = clients.iter().map(|client| ask_open(store, client.clone(), 0)).collect();
    let rounds = 500_000;
    let answer = Arc::default();
    let start = Instant::now();
    for round in 0..rounds {
        let at = round % clients.len();
        ask_inline(store, close(clients[at].clone(), epochs[at]), &answer);
        match ask_inline(store, open(clients[at].clone(), 0), &answer) {
            Reply::Opened(opened) => epochs[at] = opened.epoch,
            other => panic!("{other:?}"),
        }
    }
    let each = start.elapsed().as_nanos() as f64 / rounds as f64;
    for (client, epoch) in clients.into_iter().zip(epochs) {
        ask(store, close(client, epoch)).expect("its epoch is current");
    }
    each
}

fn open_persistent(store: &dyn Store, count: usize, in_flight: usize) -> f64 {
    let requests = (0..count).map(|number| open(ClientId::new(&format!("kept-{in_flight}-{number}")), 3_600));
    in_window(store, requests, in_flight).as_micros() as f64 / count as f64
}

fn append(store: &dyn Store, in_flight: usize) -> f64 {
    let reader = ClientId::new("reader");
    let epoch = ask_open(store, reader.clone(), 3_600);
    let filter: Box<str> = "alerts/#".into();
    let subscriptions = vec![SubscriptionRecord {
        filter: filter.clone(),
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    }];
    ask(store, Request::Subscribe { client: reader, epoch, subscriptions }).expect("its epoch is current");
    let message = SharedMessage::new(&Message {
        id: 1,
        topic: "alerts/fire",
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: "bench",
        published_at_ms: clock::system()(),
        expires_at_ms: 0,
        properties: &[],
        payload: &[7; 128],
    });
    let count = in_flight * 50 + 200;
    let request = Request::Append { streams: vec![StreamKey::Filter(filter)], message, collapse_key: None };
    count as f64 / in_window(store, std::iter::repeat_n(request, count), in_flight).as_secs_f64()
}

/// Submits all requests with at most `in_flight` unanswered.
fn in_window(store: &dyn Store, requests: impl Iterator<Item = Request>, in_flight: usize) -> Duration {
    let (answered, answers) = mpsc::sync_channel(in_flight);
    let start = Instant::now();
    let mut unanswered = 0;
    for request in requests {
        if unanswered == in_flight {
            await_one(&answers);
            unanswered -= 1;
        }
        let answered = answered.clone();
        store.submit(request, Box::new(move |answer| drop(answered.send(answer))));
        unanswered += 1;
    }
    (0..unanswered).for_each(|_| await_one(&answers));
    start.elapsed()
}

fn await_one(answers: &mpsc::Receiver<Result<Reply, StoreError>>) {
    answers.recv().expect("an answer always comes").expect("the store takes it");
}

fn ask(store: &dyn Store, request: Request) -> Result<Reply, StoreError> {
    let (answered, answers) = mpsc::sync_channel(1);
    store.submit(request, Box::new(move |answer| drop(answered.send(answer))));
    answers.recv().expect("an answer always comes")
}

/// Asks what is answered inline, at the cost of a lock and no more: the figure is to be the store's, not the bench's.
fn ask_inline(store: &dyn Store, request: Request, answer: &Arc<Mutex<Option<Reply>>>) -> Reply {
    let place = Arc::clone(answer);
    store.submit(request, Box::new(move |answer| *place.lock().expect("no one panics") = answer.ok()));
    answer.lock().expect("no one panics").take().expect("it is answered inline")
}

fn ask_open(store: &dyn Store, client: ClientId, expiry_s: u32) -> Epoch {
    match ask(store, open(client, expiry_s)) {
        Ok(Reply::Opened(opened)) => opened.epoch,
        other => panic!("{other:?}"),
    }
}

fn open(client: ClientId, expiry_s: u32) -> Request {
    Request::Open { client, owner: OWNER, clean_start: false, expiry_s, will: None }
}

fn close(client: ClientId, epoch: Epoch) -> Request {
    Request::Close { client, epoch, expiry_s: 0, progress: Progress::default(), will: None }
}
