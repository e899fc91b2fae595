//! A store, its clock, and short ways to ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use holdfast_store::contract::{
    DueWill, ExpiredSession, NEVER_EXPIRES_S, Opened, Page, Progress, Reply, Request, SessionEntry,
    SessionInfo, StoreError, WillRecord,
};
use holdfast_store::{
    Bounds, Clock, EmbeddedStore, MemoryStore, Options, RedisOptions, RedisStore, Store, StreamBounds,
    WhenFull,
};
use holdfast_wire::ids::{ClientId, Epoch, NodeId, Owner, ShardId};
use holdfast_wire::message::{Message, SharedMessage};
use holdfast_wire::mqtt::QoS;
use holdfast_wire::session_record::{Cursor, Offset, StreamKey, SubscriptionRecord};

use crate::redis_forms::{shared_cluster, shared_trio};
use crate::redis_server::{self, RedisServer};

/// Small enough to be met in a test.
pub(crate) const BOUNDS: Bounds = Bounds {
    stream: StreamBounds {
        messages_max: 50,
        bytes_max: 8_000,
        age_ms_max: 1_000_000,
        when_full: WhenFull::DropOldest,
    },
    message_bytes_max: 20_000,
    sessions_max: 2_000,
    group_members_max: 1_000,
};

pub(crate) const ALICE: Owner = Owner { node: NodeId(0xa), shard: ShardId(0) };
pub(crate) const BOB: Owner = Owner { node: NodeId(0xb), shard: ShardId(3) };

pub(crate) struct Bench {
    pub(crate) store: Arc<dyn Store>,
    now: Arc<AtomicU64>,
    directory: Option<tempfile::TempDir>,
    redis: Option<Shared>,
    /// The same store in memory, and how many lives it has behind it.
    memory: Option<(Arc<MemoryStore>, u64)>,
    /// Where the offsets of streams begin, and those that a member of a shared subscription's group counts for itself. Stories count from there.
    beginnings: Mutex<HashMap<Counted, Offset>>,
}

/// What offsets count: a stream's messages, or those that a member of its group has claimed.
type Counted = (Option<ClientId>, StreamKey);

/// Streams begin at a multiple of it, as the clock goes by whole seconds, and none is given so many messages.
pub(crate) const BEGINNINGS: Offset = 1_000_000;

/// More than are given out between two openings of a store.
const EPOCHS_OF_A_LIFE: u64 = 1 << 40;

/// A store in a server that other tests use too, so its keys begin with a prefix of their own.
struct Shared {
    store: Arc<RedisStore>,
    url: String,
    /// Where its keys are: some of them in each.
    servers: Vec<String>,
    prefix: String,
}

impl Bench {
    fn of(
        store: Arc<dyn Store>,
        now: Arc<AtomicU64>,
        directory: Option<tempfile::TempDir>,
        redis: Option<Shared>,
        memory: Option<(Arc<MemoryStore>, u64)>,
    ) -> Self {
        Self { store, now, directory, redis, memory, beginnings: Mutex::default() }
    }

    pub(crate) fn memory() -> Self {
        Self::memory_within(BOUNDS)
    }

    fn memory_within(bounds: Bounds) -> Self {
        let (options, now) = options(bounds);
        let memory = Arc::new(MemoryStore::new(options.clock, options.bounds));
        memory.begin_life(Epoch(EPOCHS_OF_A_LIFE));
        let store = Arc::clone(&memory);
        Self::of(store, now, None, None, Some((memory, 1)))
    }

    /// A store of the same kind with bounds of its own; nothing is in it.
    pub(crate) fn another(&self, bounds: Bounds) -> Self {
        match (&self.directory, &self.redis) {
            (_, Some(redis)) => Self::redis_among(&redis.url, redis.servers.clone(), bounds),
            (Some(_), None) => Self::embedded_within(bounds),
            (None, None) => Self::memory_within(bounds),
        }
    }

    pub(crate) fn redis() -> Self {
        Self::redis_at(&redis_server::shared_url())
    }

    /// The primary that sentinels name.
    pub(crate) fn sentinel() -> Self {
        let trio = shared_trio();
        Self::redis_among(&trio.url(), vec![trio.servers[0].url()], BOUNDS)
    }

    /// A cluster of three primaries.
    pub(crate) fn cluster() -> Self {
        let cluster = shared_cluster();
        let servers = cluster.nodes.iter().map(RedisServer::url).collect();
        Self::redis_among(&cluster.url(), servers, BOUNDS)
    }

    pub(crate) fn redis_at(url: &str) -> Self {
        Self::redis_within(url, BOUNDS)
    }

    fn redis_within(url: &str, bounds: Bounds) -> Self {
        Self::redis_among(url, vec![url.to_owned()], bounds)
    }

    fn redis_among(url: &str, servers: Vec<String>, bounds: Bounds) -> Self {
        static BENCHES: AtomicU64 = AtomicU64::new(0);
        let (options, now) = options(bounds);
        let number = BENCHES.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("test-{}-{number}-", std::process::id());
        let redis = Shared::connect(url, servers, prefix, options);
        let store = Arc::clone(&redis.store);
        Self::of(store, now, None, Some(redis), None)
    }

    /// Another user of the same server, with the same clock.
    pub(crate) fn beside(&self) -> Self {
        let (options, _) = options(BOUNDS);
        let now = Arc::clone(&self.now);
        let hand = Arc::clone(&now);
        let options = Options { clock: Arc::new(move || hand.load(Ordering::Relaxed)), ..options };
        let former = self.redis.as_ref().unwrap();
        let redis = Shared::connect(&former.url, former.servers.clone(), former.prefix.clone(), options);
        let store = Arc::clone(&redis.store);
        Self::of(store, now, None, Some(redis), None)
    }

    /// Calls one of the server's functions, as a user of it that dies right after it. `of` is whose partition it is about.
    pub(crate) fn call(&self, function: &str, of: &str, arguments: &[&[u8]]) -> Vec<Vec<u8>> {
        self.call_times(1, function, of, arguments)
    }

    /// The same again and again; gives the last answer.
    pub(crate) fn call_times(
        &self,
        times: usize,
        function: &str,
        of: &str,
        arguments: &[&[u8]],
    ) -> Vec<Vec<u8>> {
        let redis = self.redis.as_ref().unwrap();
        let mut connection =
            redis::Client::open(redis.servers[0].as_str()).unwrap().get_connection().unwrap();
        let library = holdfast_store::redis::function_name(function);
        let mut command = redis::cmd("FCALL");
        command.arg(library).arg(1).arg(holdfast_store::redis::partition_key(&redis.prefix, of));
        for argument in arguments {
            command.arg(*argument);
        }
        let answer = (0..times).map(|_| command.query(&mut connection).unwrap()).last();
        let Some(redis::Value::Array(fields)) = answer else { panic!("an array") };
        let text = |field| if let redis::Value::BulkString(bytes) = field { bytes } else { Vec::new() };
        fields.into_iter().map(text).collect()
    }

    /// The time, as functions are given it.
    pub(crate) fn now(&self) -> Vec<u8> {
        self.now_ms().to_string().into_bytes()
    }

    /// All keys of this store in its server.
    pub(crate) fn keys(&self) -> Vec<String> {
        let redis = self.redis.as_ref().unwrap();
        let mut connection =
            redis::Client::open(redis.servers[0].as_str()).unwrap().get_connection().unwrap();
        redis::cmd("KEYS").arg(format!("{}*", redis.prefix)).query(&mut connection).unwrap()
    }

    pub(crate) fn embedded() -> Self {
        Self::embedded_within(BOUNDS)
    }

    fn embedded_within(bounds: Bounds) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (options, now) = options(bounds);
        // Its first life gives out no epoch: there are some that a store may have forgotten.
        drop(EmbeddedStore::open(directory.path(), options.clone()).unwrap());
        let store = EmbeddedStore::open(directory.path(), options).unwrap();
        Self::of(Arc::new(store), now, Some(directory), None, None)
    }

    /// Lets go of the store and opens it again; one in memory goes on with what it has, in another life as well.
    pub(crate) fn reopen(&mut self) {
        if let Some((memory, lives)) = &mut self.memory {
            *lives += 1;
            memory.begin_life(Epoch(*lives * EPOCHS_OF_A_LIFE));
        }
        let Some(directory) = &self.directory else { return };
        let (options, _) = options(BOUNDS);
        let now = Arc::clone(&self.now);
        let options = Options { clock: Arc::new(move || now.load(Ordering::Relaxed)), ..options };
        // The former one goes first: the directory is held by one at a time.
        self.store = Arc::new(MemoryStore::new(Arc::clone(&options.clock), BOUNDS));
        self.store = Arc::new(EmbeddedStore::open(directory.path(), options).unwrap());
    }

    /// The database as a crash at this moment would leave it.
    pub(crate) fn copy_of_database(&self) -> Vec<u8> {
        std::fs::read(self.directory.as_ref().unwrap().path().join("store.redb")).unwrap()
    }

    /// The database after an orderly end.
    pub(crate) fn into_database(self) -> Vec<u8> {
        let Self { store, directory, .. } = self;
        drop(store);
        std::fs::read(directory.unwrap().path().join("store.redb")).unwrap()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn pass_s(&self, seconds: u64) {
        self.now.fetch_add(seconds * 1_000, Ordering::Relaxed);
        // The others clear away with each request; this one in turns, for which a story does not wait.
        if let Some(redis) = &self.redis {
            let (swept, sweeps) = mpsc::sync_channel(1);
            redis.store.sweep(Box::new(move || swept.send(()).unwrap()));
            sweeps.recv_timeout(Duration::from_secs(30)).expect("a sweep ends");
        }
    }

    /// Time passes, and nobody clears away what has ended by then.
    pub(crate) fn pass_unswept_s(&self, seconds: u64) {
        self.now.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }

    /// All sessions that the store tells to have expired, in the order of their clients.
    pub(crate) fn take_expired(&self, sessions_max: u32) -> Vec<ExpiredSession> {
        let mut all = Vec::new();
        loop {
            match self.ask(Request::TakeExpired { sessions_max }) {
                Ok(Reply::Expired(sessions)) if sessions.is_empty() => break,
                Ok(Reply::Expired(sessions)) => {
                    assert!(sessions.len() <= sessions_max as usize, "{} at once", sessions.len());
                    all.extend(sessions);
                }
                other => panic!("{other:?}"),
            }
        }
        all.sort_by(|a, b| (&a.client, a.epoch).cmp(&(&b.client, b.epoch)));
        all
    }

    /// Asks, with offsets that count from where each stream begins, or each member's own count.
    pub(crate) fn ask(&self, mut request: Request) -> Result<Reply, StoreError> {
        let mut of_page = None;
        match &mut request {
            Request::Save { client, progress, .. } | Request::Close { client, progress, .. } => {
                for cursor in &mut progress.cursors {
                    let beginning = self.beginning_of(Some(client), &cursor.stream);
                    cursor.acked = cursor.acked.saturating_add(beginning);
                }
            }
            Request::Read { stream, after, .. } => {
                *after = after.saturating_add(self.beginning_of(None, stream));
                of_page = Some(stream.clone());
            }
            Request::Claim { client, filter: name, after, .. } => {
                let stream = filter(name);
                *after = after.saturating_add(self.beginning_of(Some(client), &stream));
                of_page = Some(stream);
            }
            Request::EndHold { filter: name, at, .. } => *at += self.beginning_of(None, &filter(name)),
            _ => {}
        }
        let member = match &request {
            Request::Open { client, .. }
            | Request::Subscribe { client, .. }
            | Request::Restore { client, .. }
            | Request::Claim { client, .. } => Some(client.clone()),
            _ => None,
        };
        let mut answer = self.ask_as_it_is(request);
        match &mut answer {
            Ok(Reply::Subscribed(cursors) | Reply::Appended { at: cursors, .. }) => {
                for cursor in cursors {
                    self.count_from_beginning(member.as_ref(), cursor);
                }
            }
            Ok(Reply::Opened(Opened { session: Some(session), .. })) => {
                for cursor in &mut session.cursors {
                    self.count_from_beginning(member.as_ref(), cursor);
                }
            }
            Ok(Reply::Messages { messages, end }) => {
                for (offset, _) in messages {
                    *offset %= BEGINNINGS;
                }
                // What is not there has no end of its own.
                if *end > 0 {
                    let mut last = at(of_page.expect("it was a read or a claim"), *end);
                    self.count_from_beginning(member.as_ref(), &mut last);
                    *end = last.acked;
                }
            }
            _ => {}
        }
        answer
    }

    /// Asks, with offsets as they are.
    pub(crate) fn ask_as_it_is(&self, request: Request) -> Result<Reply, StoreError> {
        let (answered, answers) = mpsc::sync_channel(1);
        self.store.submit(request, Box::new(move |answer| answered.send(answer).unwrap()));
        answers.recv_timeout(Duration::from_secs(30)).expect("an answer always comes")
    }

    /// Where a stream's offsets begin, or a member's own count in it, as far as the store has told.
    pub(crate) fn beginning_of(&self, member: Option<&ClientId>, stream: &StreamKey) -> Offset {
        self.beginnings.lock().unwrap().get(&counted(member, stream)).copied().unwrap_or_default()
    }

    fn count_from_beginning(&self, member: Option<&ClientId>, cursor: &mut Cursor) {
        let place = cursor.acked % BEGINNINGS;
        self.beginnings.lock().unwrap().insert(counted(member, &cursor.stream), cursor.acked - place);
        cursor.acked = place;
    }

    /// All that is in it is lost, and it goes on; false if it is one that cannot lose it.
    pub(crate) fn loses_its_data(&self) -> bool {
        if let Some((memory, lives)) = &self.memory {
            // Behind all that were given out, and behind those of an earlier loss.
            memory.lose_data(Epoch(lives * EPOCHS_OF_A_LIFE + self.now_ms()));
        } else if let Some(redis) = &self.redis {
            redis.clear("");
        } else {
            return false;
        }
        true
    }

    /// All that is in the same partition is lost, as with one primary of a cluster.
    pub(crate) fn loses_partition(&self, of: &str) {
        let redis = self.redis.as_ref().unwrap();
        let key = holdfast_store::redis::partition_key(&redis.prefix, of);
        redis.clear(&key[redis.prefix.len()..]);
    }

    pub(crate) fn done(&self, request: Request) {
        assert_eq!(self.ask(request), Ok(Reply::Done));
    }

    pub(crate) fn open(&self, client: &str, owner: Owner, expiry_s: u32) -> Opened {
        self.open_with(client, owner, false, expiry_s)
    }

    pub(crate) fn open_with(&self, client: &str, owner: Owner, clean_start: bool, expiry_s: u32) -> Opened {
        match self.ask(open(client, owner, clean_start, expiry_s, None)) {
            Ok(Reply::Opened(opened)) => opened,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a session that leaves a will with its own name in it.
    pub(crate) fn open_with_will(&self, client: &str, owner: Owner, expiry_s: u32, delay_s: u32) -> Epoch {
        let will = Some(self.will(client, delay_s));
        match self.ask(open(client, owner, false, expiry_s, will)) {
            Ok(Reply::Opened(opened)) => opened.epoch,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn will(&self, text: &str, delay_s: u32) -> WillRecord {
        WillRecord { message: self.message("gone", text), delay_s, expiry_s: NEVER_EXPIRES_S }
    }

    /// Wills that have fallen due, in the order of their clients.
    pub(crate) fn due_wills(&self) -> Vec<DueWill> {
        match self.ask(Request::DueWills { wills_max: 100 }) {
            Ok(Reply::Wills(mut wills)) => {
                wills.sort_by(|a, b| (&a.client, a.number).cmp(&(&b.client, b.number)));
                wills
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn reap(&self, client: &str, epoch: Epoch) {
        self.done(reap(client, epoch));
    }

    /// All pages of sessions, of one owner or of all.
    pub(crate) fn sessions(&self, owner: Option<NodeId>, sessions_max: u32) -> Vec<SessionEntry> {
        let (mut all, mut page) = (Vec::new(), None::<Page>);
        for _ in 0..100_000 {
            match self.ask(Request::Sessions { owner, page: page.take(), sessions_max }) {
                Ok(Reply::Sessions { mut sessions, next }) => {
                    assert!(sessions.len() <= sessions_max as usize, "{} on a page", sessions.len());
                    all.append(&mut sessions);
                    page = next;
                }
                other => panic!("{other:?}"),
            }
            if page.is_none() {
                return all;
            }
        }
        panic!("the pages have no end");
    }

    pub(crate) fn close(&self, client: &str, epoch: Epoch, expiry_s: u32) {
        self.done(close(client, epoch, expiry_s));
    }

    pub(crate) fn subscribe(&self, client: &str, epoch: Epoch, filters: &[(&str, QoS)]) -> Vec<Cursor> {
        let subscriptions = filters.iter().map(|(filter, qos)| subscription(filter, *qos)).collect();
        match self.ask(Request::Subscribe { client: ClientId::new(client), epoch, subscriptions }) {
            Ok(Reply::Subscribed(cursors)) => cursors,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn unsubscribe(&self, client: &str, epoch: Epoch, filters: &[&str]) {
        let filters = filters.iter().map(|filter| (*filter).into()).collect();
        self.done(Request::Unsubscribe { client: ClientId::new(client), epoch, filters });
    }

    /// A session with one subscription, connected.
    pub(crate) fn subscriber(&self, client: &str, filter: &str) -> Epoch {
        let epoch = self.open(client, ALICE, 60).epoch;
        self.subscribe(client, epoch, &[(filter, QoS::AtLeastOnce)]);
        epoch
    }

    pub(crate) fn lookup(&self, client: &str) -> Option<SessionInfo> {
        match self.ask(Request::Lookup { client: ClientId::new(client) }) {
            Ok(Reply::Session(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn append(&self, streams: &[StreamKey], text: &str) -> Vec<Cursor> {
        match self.ask(Request::Append {
            streams: streams.to_vec(),
            message: self.message("t", text),
            collapse_key: None,
        }) {
            Ok(Reply::Appended { at, .. }) => at,
            other => panic!("{other:?}"),
        }
    }

    /// Appends in place of what waits under the same key.
    pub(crate) fn append_under(&self, streams: &[StreamKey], text: &str, key: &str) -> Vec<Cursor> {
        let message = self.message("t", text);
        match self.ask(Request::Append { streams: streams.to_vec(), message, collapse_key: Some(key.into()) })
        {
            Ok(Reply::Appended { at, .. }) => at,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&self, stream: &StreamKey, after: Offset) -> (Vec<(Offset, String)>, Offset) {
        self.read_at_most(stream, after, 1_000, u32::MAX)
    }

    pub(crate) fn read_at_most(
        &self,
        stream: &StreamKey,
        after: Offset,
        messages_max: u32,
        bytes_max: u32,
    ) -> (Vec<(Offset, String)>, Offset) {
        match self.ask(Request::Read { stream: stream.clone(), after, messages_max, bytes_max }) {
            Ok(Reply::Messages { messages, end }) => {
                (messages.into_iter().map(|(offset, message)| (offset, text_of(&message))).collect(), end)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn offsets(&self, stream: &StreamKey) -> Vec<Offset> {
        self.read(stream, 0).0.into_iter().map(|(offset, _)| offset).collect()
    }

    /// What a member claims, and the end that it is told.
    pub(crate) fn claim(
        &self,
        member: (&str, Epoch),
        group: &str,
        after: Offset,
        messages_max: u32,
    ) -> (Vec<(Offset, String)>, Offset) {
        match self.ask(claim(member, group, after, messages_max)) {
            Ok(Reply::Messages { messages, end }) => {
                (messages.into_iter().map(|(offset, message)| (offset, text_of(&message))).collect(), end)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Appends a message that nobody may claim yet.
    pub(crate) fn hold(&self, group: &str, text: &str, for_ms: u32) -> Vec<Cursor> {
        let message = self.message("t", text);
        match self.ask(Request::Hold { filter: group.into(), message, for_ms }) {
            Ok(Reply::Appended { at, full }) => {
                assert_eq!(full, []);
                at
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end_hold(&self, group: &str, at: Offset, taken: bool) {
        self.done(Request::EndHold { filter: group.into(), at, taken });
    }

    pub(crate) fn message(&self, topic: &str, text: &str) -> SharedMessage {
        self.message_until(topic, text, 0)
    }

    pub(crate) fn message_until(&self, topic: &str, text: &str, expires_at_ms: u64) -> SharedMessage {
        SharedMessage::new(&Message {
            id: 1,
            topic,
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: "",
            published_at_ms: self.now_ms(),
            expires_at_ms,
            properties: &[],
            payload: text.as_bytes(),
        })
    }

    pub(crate) fn durable_filters(&self) -> Vec<Box<str>> {
        match self.ask(Request::DurableFilters) {
            Ok(Reply::Filters(filters)) => filters,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn save(&self, client: &str, epoch: Epoch, cursors: Vec<Cursor>) {
        let progress = Progress { cursors, ..Progress::default() };
        self.done(Request::Save { client: ClientId::new(client), epoch, progress });
    }
}

/// Members count in their groups alone.
fn counted(member: Option<&ClientId>, stream: &StreamKey) -> Counted {
    let counts = matches!(stream, StreamKey::Filter(filter) if filter.starts_with("$share/"));
    (member.filter(|_| counts).cloned(), stream.clone())
}

impl Shared {
    fn connect(url: &str, servers: Vec<String>, prefix: String, options: Options) -> Self {
        let options = RedisOptions {
            bounds: options.bounds,
            clock: Some(options.clock),
            prefix: prefix.clone(),
            // A busy machine may let a server wait.
            deadline: Duration::from_secs(20),
            // As if it had been there for long.
            begins_young: false,
            ..RedisOptions::default()
        };
        let store = Arc::new(RedisStore::connect(url, options).unwrap());
        Self { store, url: url.to_owned(), servers, prefix }
    }

    /// Takes its keys away: all that begin like this behind the prefix.
    fn clear(&self, begin: &str) {
        let clear = |client: redis::Client| -> redis::RedisResult<()> {
            let mut connection = client.get_connection()?;
            let mut keys = redis::cmd("KEYS");
            let keys: Vec<String> = keys.arg(format!("{}{begin}*", self.prefix)).query(&mut connection)?;
            keys.iter().try_for_each(|key| redis::cmd("DEL").arg(key).exec(&mut connection))
        };
        for server in &self.servers {
            // A server that a story has ended keeps nothing.
            let _ = redis::Client::open(server.as_str()).and_then(clear);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.clear("");
    }
}

pub(crate) fn open(
    client: &str,
    owner: Owner,
    clean_start: bool,
    expiry_s: u32,
    will: Option<WillRecord>,
) -> Request {
    Request::Open { client: ClientId::new(client), owner, clean_start, expiry_s, will }
}

pub(crate) fn reap(client: &str, epoch: Epoch) -> Request {
    Request::Reap { client: ClientId::new(client), epoch }
}

pub(crate) fn close(client: &str, epoch: Epoch, expiry_s: u32) -> Request {
    Request::Close {
        client: ClientId::new(client),
        epoch,
        expiry_s,
        progress: Progress::default(),
        will: None,
    }
}

pub(crate) fn claim(
    (client, epoch): (&str, Epoch),
    group: &str,
    after: Offset,
    messages_max: u32,
) -> Request {
    Request::Claim {
        client: ClientId::new(client),
        epoch,
        filter: group.into(),
        after,
        messages_max,
        bytes_max: u32::MAX,
    }
}

pub(crate) fn subscription(filter: &str, qos: QoS) -> SubscriptionRecord {
    SubscriptionRecord {
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        identifier: 0,
    }
}

pub(crate) fn filter(text: &str) -> StreamKey {
    StreamKey::Filter(text.into())
}

pub(crate) fn device(client: &str) -> StreamKey {
    StreamKey::Device(client.into())
}

pub(crate) fn at(stream: StreamKey, acked: Offset) -> Cursor {
    Cursor { stream, acked }
}

/// How many of the sessions `client-0000` and so on there are.
pub(crate) fn count_sessions(store: &dyn Store, of: usize) -> usize {
    let (answered, answers) = mpsc::sync_channel(of);
    for number in 0..of {
        let answered = answered.clone();
        let client = ClientId::new(&format!("client-{number:04}"));
        store.submit(Request::Lookup { client }, Box::new(move |answer| answered.send(answer).unwrap()));
    }
    drop(answered);
    answers.iter().filter(|answer| matches!(answer, Ok(Reply::Session(Some(_))))).count()
}

pub(crate) fn text_of(message: &SharedMessage) -> String {
    String::from_utf8(message.view().payload.to_vec()).unwrap()
}

fn options(bounds: Bounds) -> (Options, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1_700_000_000_000));
    let hand = Arc::clone(&now);
    let clock: Clock = Arc::new(move || hand.load(Ordering::Relaxed));
    (Options { clock, bounds, ..Options::default() }, now)
}
