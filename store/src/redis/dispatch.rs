//! The store's thread: takes requests in the order of their submission, starts each as soon as its lanes let it, and sees
//! that each is answered by its deadline.
//!
//! A request that is one command is polled once where it stands, which puts the command on the connection behind those before it;
//! everything else of it, and every request of several steps, goes on as a task of its own.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use holdfast_wire::message::SharedMessage;
use holdfast_wire::session_record::StreamKey;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local, unconstrained};
use tokio::time::timeout_at;

use super::claims::Wanted;
use super::connect::Dialler;
use super::lanes::{Lanes, Ticket, Use};
use super::partition::hash;
use super::refusing::Health;
use super::room::Room;
use super::server::Server;
use super::streams::{Appended, How, Item, Part};
use super::subscribing::Kept;
use super::{RedisOptions, Waiting};
use crate::clock::{self, Clock};
use crate::contract::{Bounds, Reply, ReplyTo, Request, StoreError};
use crate::open_error::OpenError;

/// What the thread is asked.
pub(super) struct Order {
    pub(super) job: Job,
    pub(super) at: Instant,
    pub(super) waiting: Waiting,
}

/// What is to be done.
pub(super) enum Job {
    Request(Request, ReplyTo),
    Sweep(Box<dyn FnOnce() + Send>),
}

impl Job {
    /// Answers without doing anything.
    pub(super) fn refuse(self, why: &str) {
        match self {
            Self::Request(_, reply) => reply(Err(StoreError::Unavailable(why.to_owned()))),
            Self::Sweep(done) => done(),
        }
    }
}

/// The thread: says in `opened` how the first dial went, then serves until nobody can ask any more.
pub(super) fn run(
    dialler: Dialler,
    options: RedisOptions,
    queue: mpsc::Receiver<Order>,
    health: Arc<Health>,
    opened: &SyncSender<Result<(), OpenError>>,
) {
    // Nobody hears it if the caller of `connect` is gone; then the queue is closed as well.
    let say = |outcome| drop(opened.send(outcome));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return say(Err(OpenError::Thread { source })),
    };
    LocalSet::new().block_on(&runtime, async {
        match Worker::open(dialler, options, health).await {
            Ok(worker) => {
                say(Ok(()));
                Rc::new(Dispatcher { worker: Rc::new(worker), lanes: RefCell::new(Lanes::new()) })
                    .serve(queue)
                    .await;
            }
            Err(error) => say(Err(error)),
        }
    });
}

/// What requests are carried out with; `sessions`, `streams` and the others say how.
pub(super) struct Worker {
    pub(super) server: Rc<Server>,
    pub(super) bounds: Bounds,
    pub(super) room: RefCell<Room>,
    /// Whether someone makes room already.
    pub(super) relieving: Cell<bool>,
    /// The partition whose wills are asked for first next time.
    pub(super) next_will_partition: Cell<u16>,
    /// The partition that is asked first for sessions that expired.
    pub(super) next_expired_partition: Cell<u16>,
    /// What is known of all servers, for whoever asks.
    pub(super) health: Arc<Health>,
    clock: Option<Clock>,
    /// How long anything that is asked may take.
    pub(super) deadline: Duration,
}

impl Worker {
    async fn open(dialler: Dialler, options: RedisOptions, health: Arc<Health>) -> Result<Self, OpenError> {
        let RedisOptions { bounds, deadline, prefix, clock, replicas, begins_young, .. } = options;
        let shown = dialler.url.shown();
        let server = Rc::new(Server::open(dialler, &prefix, replicas, begins_young).await?);
        let room = RefCell::new(Room::default());
        let worker = Self {
            server,
            bounds,
            room,
            relieving: Cell::new(false),
            next_will_partition: Cell::new(0),
            next_expired_partition: Cell::new(0),
            health,
            clock,
            deadline,
        };
        let learned = tokio::time::timeout(deadline, worker.learn()).await;
        match learned.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned()))) {
            Ok(()) => Ok(worker),
            Err(error) => Err(OpenError::RedisRefused { server: shown, why: error.to_string() }),
        }
    }

    /// The time as functions take it: nothing for the server's own.
    pub(super) fn now(&self) -> String {
        self.clock.as_ref().map(|clock| clock().to_string()).unwrap_or_default()
    }

    /// The time by which this process judges what the server gave it, Unix ms.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.as_ref().map_or_else(|| clock::system()(), |clock| clock())
    }

    async fn carry_out(&self, request: Request) -> Result<Reply, StoreError> {
        match request {
            Request::Open { client, owner, clean_start, expiry_s, will } => {
                self.open_session(&client, owner, clean_start, expiry_s, will).await
            }
            Request::Subscribe { client, epoch, subscriptions } => {
                self.subscribe(&client, epoch, subscriptions).await
            }
            Request::Unsubscribe { client, epoch, filters } => {
                self.unsubscribe(&client, epoch, &filters).await
            }
            Request::Save { client, epoch, progress } => self.save(&client, epoch, &progress).await,
            Request::Close { client, epoch, expiry_s, progress, will } => {
                self.close(&client, epoch, expiry_s, &progress, will.as_ref()).await
            }
            Request::Lookup { client } => self.lookup(&client).await,
            Request::Append { streams, message, collapse_key } => {
                self.append_if_it_fits(streams, &item(message, collapse_key)).await
            }
            Request::Hold { filter, message, for_ms } => {
                let item = Item { message, how: How::OnHold(for_ms) };
                self.append_if_it_fits(vec![StreamKey::Filter(filter)], &item).await
            }
            Request::Read { stream, after, messages_max, bytes_max } => {
                self.read(&stream, after, messages_max, bytes_max).await
            }
            Request::Claim { client, epoch, filter, after, messages_max, bytes_max } => {
                self.claim(&client, epoch, &filter, Wanted { after, messages_max, bytes_max }).await
            }
            Request::EndHold { filter, at, taken } => self.end_hold(&filter, at, taken).await,
            Request::Retain { message } => self.retain(&message).await,
            Request::ReadRetained { filter, after, messages_max, bytes_max } => {
                self.read_retained(&filter, after, messages_max as usize, bytes_max as usize).await
            }
            Request::DurableFilters => self.durable_filters().await,
            Request::RenewLease { node, for_ms } => self.renew_lease(node, for_ms).await,
            Request::DeadNodes => self.dead_nodes().await,
            Request::Bury { node } => self.bury(node).await,
            Request::Reap { client, epoch } => self.reap(&client, epoch).await,
            Request::DueWills { wills_max } => self.due_wills(wills_max as usize).await,
            Request::WillPublished { client, number } => self.will_published(&client, number).await,
            Request::TakeExpired { sessions_max } => self.take_expired(sessions_max as usize).await,
            Request::TakeLock { name, holder, for_ms } => self.take_lock(&name, holder, for_ms).await,
            Request::Restore { client, owner, epoch, expiry_s, will, session } => {
                self.restore(Kept { client, owner, epoch, expiry_s, will, session }).await
            }
            Request::Sessions { owner, page, sessions_max } => {
                self.list_sessions(owner, page.as_ref(), sessions_max).await
            }
            Request::ChangeGroup { group, add, remove } => self.change_group(&group, add, remove).await,
            Request::DropGroup { group } => self.drop_group(&group).await,
            Request::GroupMembers { group, page, members_max } => {
                self.group_members(&group, page.as_ref(), members_max).await
            }
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A request that is ready to go, and whether it is a single command.
struct Ready {
    task: Task,
    is_one_command: bool,
}

struct Dispatcher {
    worker: Rc<Worker>,
    /// Who waits for whom; never more than [`RedisOptions::requests_max`] requests.
    lanes: RefCell<Lanes<Ready>>,
}

impl Dispatcher {
    async fn serve(self: Rc<Self>, mut queue: mpsc::Receiver<Order>) {
        let background = [
            spawn_local(Rc::clone(&self.worker.server).keep_up()),
            spawn_local(Rc::clone(&self.worker).keep_sweeping()),
            spawn_local(Rc::clone(&self.worker).keep_probing()),
        ];
        // Each request holds one; when the last is gone, all are answered.
        let (running, mut all_answered) = mpsc::channel::<()>(1);
        while let Some(Order { job, at, waiting }) = queue.recv().await {
            let held = (waiting, running.clone());
            let deadline = at + self.worker.deadline;
            match job {
                Job::Request(Request::Append { streams, message, collapse_key }, reply) => {
                    self.append(streams, item(message, collapse_key), Debt::new(reply, held), deadline);
                }
                Job::Request(Request::Hold { filter, message, for_ms }, reply) => {
                    let item = Item { message, how: How::OnHold(for_ms) };
                    let streams = vec![StreamKey::Filter(filter)];
                    self.append(streams, item, Debt::new(reply, held), deadline);
                }
                Job::Request(request, reply) => {
                    let uses = uses(&request);
                    let debt = Debt::new(reply, held);
                    let worker = Rc::clone(&self.worker);
                    let task = Box::pin(async move {
                        debt.settle(worker.by(deadline, worker.carry_out(request)).await);
                    });
                    self.enter(uses, task);
                }
                Job::Sweep(done) => {
                    let worker = Rc::clone(&self.worker);
                    let task = Box::pin(async move {
                        let _ = worker.by(deadline, worker.sweep_all()).await;
                        done();
                        drop(held);
                    });
                    self.enter(vec![], task);
                }
            }
        }
        drop(running);
        // Its own deadline sees to each of them.
        let _ = all_answered.recv().await;
        background.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// An append is one command for each stream, each in the lane of its own stream; the last one answers.
    fn append(self: &Rc<Self>, mut streams: Vec<StreamKey>, item: Item, debt: Debt, deadline: Instant) {
        streams.sort_unstable();
        streams.dedup();
        let worker = &self.worker;
        if !worker.surely_fits(streams.len(), &item.message) {
            let uses = streams.iter().map(|stream| (lane_of(stream), Use::Alone)).collect();
            let worker = Rc::clone(worker);
            let task = Box::pin(async move {
                debt.settle(worker.by(deadline, worker.append_if_it_fits(streams, &item)).await);
            });
            return self.enter(uses, task);
        }
        let parts =
            Rc::new(Parts { left: Cell::new(streams.len()), outcome: RefCell::new(Ok(Appended::default())) });
        if streams.is_empty() {
            return debt.settle(Ok(Appended::default().into()));
        }
        let debt = Rc::new(Cell::new(Some(debt)));
        for stream in streams {
            let (worker, parts, debt) = (Rc::clone(worker), Rc::clone(&parts), Rc::clone(&debt));
            let (uses, item) = (vec![(lane_of(&stream), Use::Sent)], item.clone());
            let task = Box::pin(async move {
                parts.add(worker.by(deadline, worker.append_to(stream, &item)).await);
                if parts.left.get() == 0 {
                    let _ = worker.by(deadline, worker.make_room()).await;
                    if let Some(debt) = debt.take() {
                        debt.settle(parts.outcome.replace(Ok(Appended::default())).map(Reply::from));
                    }
                }
            });
            self.enter(uses, task);
        }
    }

    fn enter(self: &Rc<Self>, uses: Vec<(u64, Use)>, task: Task) {
        let is_one_command = uses.iter().all(|(_, kind)| *kind == Use::Sent);
        let ready = Ready { task, is_one_command };
        let mut lanes = self.lanes.borrow_mut();
        if is_one_command && uses.iter().all(|(lane, _)| lanes.is_free(*lane)) {
            drop(lanes);
            return start_at_once(ready.task);
        }
        let (ticket, ready) = lanes.enter(uses, ready);
        drop(lanes);
        if let Some(ready) = ready {
            self.start(ticket, ready);
        }
    }

    fn start(self: &Rc<Self>, ticket: Ticket, ready: Ready) {
        if ready.is_one_command {
            start_at_once(ready.task);
            return self.finish(ticket);
        }
        let this = Rc::clone(self);
        spawn_local(async move {
            ready.task.await;
            this.finish(ticket);
        });
    }

    fn finish(self: &Rc<Self>, ticket: Ticket) {
        let ready = self.lanes.borrow_mut().finish(ticket);
        for (ticket, ready) in ready {
            self.start(ticket, ready);
        }
    }
}

impl Worker {
    /// Does some work, or gives it up at its deadline.
    pub(super) async fn by<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match timeout_at(deadline.into(), work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.server.handle_deadline();
                Err(StoreError::Unavailable(format!("no answer within {} ms", self.deadline.as_millis())))
            }
        }
    }
}

/// Polls a task once, so that its command stands on the connection when this returns, and lets it go on by itself.
fn start_at_once(task: Task) {
    // A task that has used up its turn's budget would be told to wait before it has sent anything.
    let mut task = Box::pin(unconstrained(task));
    if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        spawn_local(task);
    }
}

fn item(message: SharedMessage, collapse_key: Option<Box<str>>) -> Item {
    Item { message, how: How::Under(collapse_key.map(Rc::from)) }
}

/// The lanes that a request enters. An append enters one for each of its commands instead, and so does a hold.
fn uses(request: &Request) -> Vec<(u64, Use)> {
    let client_and = |client: &str, filters: &mut dyn Iterator<Item = &str>| {
        let mut uses = vec![(lane(CLIENT, client), Use::Alone)];
        uses.extend(filters.map(|filter| (lane(FILTER, filter), Use::Steps)));
        uses
    };
    match request {
        Request::Open { client, .. } | Request::Save { client, .. } | Request::Close { client, .. } => {
            client_and(client, &mut std::iter::empty())
        }
        Request::Subscribe { client, subscriptions, .. } => {
            client_and(client, &mut subscriptions.iter().map(|subscription| &*subscription.filter))
        }
        Request::Unsubscribe { client, filters, .. } => {
            client_and(client, &mut filters.iter().map(|filter| &**filter))
        }
        Request::Claim { client, filter, .. } => client_and(client, &mut std::iter::once(&**filter)),
        Request::EndHold { filter, .. } => vec![(lane(FILTER, filter), Use::Sent)],
        Request::Lookup { client } => vec![(lane(CLIENT, client), Use::Sent)],
        Request::Read { stream, .. } => vec![(lane_of(stream), Use::Sent)],
        Request::Reap { client, .. }
        | Request::Restore { client, .. }
        | Request::WillPublished { client, .. } => client_and(client, &mut std::iter::empty()),
        Request::ChangeGroup { group, .. } | Request::DropGroup { group } => {
            vec![(lane(GROUP, group), Use::Alone)]
        }
        Request::GroupMembers { group, .. } => vec![(lane(GROUP, group), Use::Steps)],
        Request::Append { .. }
        | Request::Hold { .. }
        | Request::Retain { .. }
        | Request::ReadRetained { .. }
        | Request::DurableFilters
        | Request::RenewLease { .. }
        | Request::DeadNodes
        | Request::Bury { .. }
        | Request::DueWills { .. }
        | Request::TakeExpired { .. }
        | Request::TakeLock { .. }
        | Request::Sessions { .. } => vec![],
    }
}

const CLIENT: u64 = 0;
const FILTER: u64 = 1;
const GROUP: u64 = 2;

/// Two names that share a lane wait for each other now and then; nothing else comes of it.
fn lane(kind: u64, name: &str) -> u64 {
    hash(name.as_bytes()) << 2 | kind
}

fn lane_of(stream: &StreamKey) -> u64 {
    match stream {
        StreamKey::Filter(filter) => lane(FILTER, filter),
        StreamKey::Device(client) => lane(CLIENT, client),
    }
}

/// What the commands of one append have brought.
struct Parts {
    left: Cell<usize>,
    outcome: RefCell<Result<Appended, StoreError>>,
}

impl Parts {
    fn add(&self, part: Result<Part, StoreError>) {
        self.left.set(self.left.get() - 1);
        let mut outcome = self.outcome.borrow_mut();
        match (&mut *outcome, part) {
            (Ok(appended), Ok(part)) => appended.add(part),
            (Ok(_), Err(error)) => *outcome = Err(error),
            (Err(_), _) => {}
        }
    }
}

/// An answer that is owed, whatever happens (rule 4 of the contract).
struct Debt {
    reply: Option<ReplyTo>,
    _held: (Waiting, mpsc::Sender<()>),
}

impl Debt {
    fn new(reply: ReplyTo, held: (Waiting, mpsc::Sender<()>)) -> Self {
        Self { reply: Some(reply), _held: held }
    }

    fn settle(mut self, outcome: Result<Reply, StoreError>) {
        if let Some(reply) = self.reply.take() {
            reply(outcome);
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(Err(StoreError::Unavailable("the store has ended".to_owned())));
        }
    }
}
