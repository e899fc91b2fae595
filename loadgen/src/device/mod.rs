//! One simulated device: connects, subscribes to its pushes, sends its frames when they are due, sends again what
//! was not answered, and comes back whenever its connection is lost.
//!
//! [`session`] decides, [`speech`] puts it into words, [`transport`] carries them; this file is the task that turns
//! between them. Start with [`Device::run`].

mod backoff;
mod session;
mod speech;
#[cfg(test)]
mod tests;
mod transport;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_wire::mqtt::PacketId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::backoff::Backoff;
use self::session::{Answer, Session, SessionOptions};
use self::speech::{Heard, Speech, Unintelligible};
use self::transport::{Source, Transport, Turn};
use crate::fleet::{Gateway, Shared};
use crate::ledger::{DeviceRecord, client_id};
use crate::plan::{Dialect, FleetPlan};
use crate::random::Random;
use crate::schedule::{RateCurve, Schedule};

/// From dialling to CONNACK or `welcome`: as long as most MQTT clients wait (theirs give up after 5 to 30 s), and longer than a gateway lets them wait, so that its word is
/// what is counted.
const ADMISSION: Duration = Duration::from_secs(30);

/// A connection that lived for so long is worth an attempt at once when it is lost.
const LASTING: Duration = Duration::from_secs(1);

/// For a goodbye to be written.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the fleet tells all of its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Control {
    /// Raised by each storm: a connection of an earlier number is cut.
    pub(crate) cuts: u64,
    /// Nothing is due from here on, ns from the start of the run.
    pub(crate) end_ns: u64,
    /// Say goodbye and be done.
    pub(crate) closing: bool,
}

/// A device before and between its connections.
pub(crate) struct Device {
    speech: Speech,
    session: Session,
    backoff: Backoff,
    source: Source,
    /// Place of the gateway that is dialled next.
    gateway: usize,
    /// Empty: the next in turn.
    return_weights: Arc<[u32]>,
    random: Random,
    /// When it first tried to come back after a loss; none while it is connected.
    coming_back_since: Option<Instant>,
    shared: Arc<Shared>,
    control: watch::Receiver<Control>,
    subscribe: bool,
    /// The session is kept over reconnects.
    keeps_session: bool,
    returns_unbounded: bool,
    /// Whether the present session has the subscription: known once its SUBACK came.
    subscribed: bool,
    settled: bool,
}

/// How a connection ended.
enum End {
    /// The device is done.
    Closed,
    /// It was cut on purpose: come back at once.
    Cut,
    /// It was lost or refused: come back after a wait, which is at least what the gateway asked for. A connection that had lasted is tried again at
    /// once, as nothing speaks against its gateway yet.
    Lost { retry_after: Option<Duration> },
}

impl Device {
    pub(crate) fn new(
        index: u32,
        plan: &FleetPlan,
        curve: RateCurve,
        shared: Arc<Shared>,
        control: watch::Receiver<Control>,
    ) -> Self {
        let dialect = plan.mix.dialect_of(index);
        let mut random = Random::child(plan.seed, index.into());
        let options = SessionOptions {
            run: shared.run,
            device: index,
            qos: if dialect == Dialect::Json { plan.qos.min(1) } else { plan.qos },
            inflight_max: plan.inflight_max,
            origin_unix_ns: shared.clock.unix_ns(0),
        };
        let schedule = Schedule::new(curve, random.fraction(), plan.end_ns());
        let gateways = shared.targets.gateways.len();
        let homes = match plan.home_gateways as usize {
            0 => gateways,
            homes => homes.min(gateways),
        };
        Self {
            speech: Speech::new(dialect, client_id(&plan.client_id_prefix, index), plan),
            session: Session::new(options, schedule),
            backoff: Backoff::new(random.clone(), plan.backoff_max()),
            source: Source::of(index),
            gateway: index as usize % homes,
            return_weights: return_weights(&plan.return_weights, gateways),
            random,
            coming_back_since: None,
            shared,
            control,
            subscribe: plan.subscribe,
            keeps_session: plan.keep_session,
            returns_unbounded: plan.returns_unbounded,
            subscribed: false,
            settled: false,
        }
    }

    /// Lives until the fleet closes; a gateway that dies is waited for.
    pub(crate) async fn run(mut self, first_connect: Instant) -> DeviceRecord {
        let mut next_connect = first_connect;
        loop {
            if !self.wait_until(next_connect).await {
                break;
            }
            let began = Instant::now();
            let (admitted, end) = self.live().await;
            if admitted {
                self.backoff.reset();
            }
            self.session.record().held = admitted && matches!(end, End::Closed);
            let has_lasted = admitted && began.elapsed() >= LASTING;
            next_connect = Instant::now()
                + match end {
                    End::Closed => break,
                    End::Cut => Duration::ZERO,
                    End::Lost { retry_after: None } if has_lasted => Duration::ZERO,
                    End::Lost { retry_after } => self.backoff.next(retry_after),
                };
            if admitted {
                self.coming_back_since = Some(next_connect);
            }
        }
        self.session.finish()
    }

    /// False: the fleet closes.
    async fn wait_until(&mut self, moment: Instant) -> bool {
        tokio::select! {
            closed = self.control.wait_for(|control| control.closing) => { drop(closed); false }
            () = sleep_until(moment) => true,
        }
    }

    /// One connection from dialling to its end, and whether it was admitted.
    async fn live(&mut self) -> (bool, End) {
        let shared = self.shared.clone();
        let mut control = self.control.clone();
        let gateway = shared.targets.gateways[self.gateway];
        self.gateway = self.gateway_after(self.gateway);
        let opened = tokio::select! {
            // Nobody who waits for a place or for an upgrade holds up the end of the fleet.
            _ = control.wait_for(|control| control.closing) => return (false, End::Closed),
            opened = self.open(gateway, &shared) => opened,
        };
        let Some(mut connection) = opened else {
            self.failed_to_connect();
            return (false, End::Lost { retry_after: None });
        };
        let end = self.serve(&mut connection).await.unwrap_or_else(|fault| {
            if matches!(fault, Fault::Protocol) {
                self.session.record().protocol_errors += 1;
            }
            End::Lost { retry_after: None }
        });
        if connection.admitted {
            shared.counters.connected.sub(1);
        } else if !matches!(end, End::Closed | End::Cut) {
            self.failed_to_connect();
        }
        (connection.admitted, end)
    }

    /// Where to go if the one at this place is lost.
    fn gateway_after(&mut self, present: usize) -> usize {
        let weight = |(place, weight): (usize, &u32)| if place == present { 0 } else { u64::from(*weight) };
        let total: u64 = self.return_weights.iter().enumerate().map(weight).sum();
        let next = (present + 1) % self.shared.targets.gateways.len();
        let Ok(bound) = u32::try_from(total) else { return next };
        if bound == 0 {
            return next;
        }
        let mut left = u64::from(self.random.below(bound));
        for (place, of) in self.return_weights.iter().enumerate() {
            let weight = weight((place, of));
            if left < weight {
                return place;
            }
            left -= weight;
        }
        next
    }

    fn failed_to_connect(&mut self) {
        self.session.record().connects_failed += 1;
        self.shared.counters.connects_failed.add(1);
    }

    /// Waits for a place among the connects on their way, if it must, and dials; `None`: nobody is there.
    async fn open<'a>(&self, gateway: Gateway, shared: &'a Shared) -> Option<Connection<'a>> {
        let waits = !(self.returns_unbounded && self.coming_back_since.is_some());
        let permit = if waits { Some(shared.connects.acquire().await.ok()?) } else { None };
        let deadline = Instant::now() + ADMISSION;
        let transport = timeout_at(deadline, self.dial(gateway)).await.ok()?.ok()?;
        Some(Connection { transport, inbound: Vec::new(), admitted: false, deadline, permit })
    }

    async fn dial(&self, gateway: Gateway) -> io::Result<Transport> {
        match self.speech.dialect {
            Dialect::Mqtt311 | Dialect::Mqtt5 => Transport::tcp(gateway.mqtt, self.source).await,
            Dialect::MqttWebSocket => {
                Transport::web_socket(gateway.ws, self.source, &self.speech.path(), "mqtt", false).await
            }
            Dialect::Json => {
                Transport::web_socket(gateway.ws, self.source, &self.speech.path(), "holdfast.v1", true).await
            }
        }
    }

    async fn serve(&mut self, connection: &mut Connection<'_>) -> Result<End, Fault> {
        let mut words = Vec::new();
        self.speech.hello(&mut words);
        connection.transport.queue(&words);
        // Only looked at: what changed while it dialled is still to be handled below.
        let cuts = self.control.borrow().cuts;
        // A timer that is set again instead of made again: most turns end by hearing something.
        let timer = sleep_until(connection.deadline);
        tokio::pin!(timer);
        let mut keep_alive = KeepAlive::new(self.speech.keep_alive_s);
        loop {
            if connection.admitted {
                self.send_due(connection);
                self.note_if_settled();
            }
            let wake = self.next_wake(connection, &keep_alive);
            if timer.deadline() != wake {
                timer.as_mut().reset(wake);
            }
            tokio::select! {
                biased;
                changed = self.control.changed() => {
                    let control = *self.control.borrow_and_update();
                    self.session.end_at(control.end_ns);
                    if changed.is_err() || control.closing {
                        self.say_goodbye(connection).await;
                        return Ok(End::Closed);
                    }
                    if control.cuts != cuts {
                        return Ok(End::Cut);
                    }
                }
                turn = connection.transport.turn(&mut connection.inbound) => match turn? {
                    Turn::Written => {}
                    Turn::Bytes => {
                        keep_alive.heard();
                        if let Some(end) = self.hear_packets(connection)? {
                            return Ok(end);
                        }
                    }
                    Turn::Text(text) => {
                        keep_alive.heard();
                        let heard = Speech::hear_message(&text)?;
                        if let Some(end) = self.handle(heard, connection)? {
                            return Ok(end);
                        }
                    }
                },
                () = &mut timer => {
                    self.shared.lagged(wake.elapsed());
                    if !connection.admitted {
                        return Err(Fault::Lost);
                    }
                    if keep_alive.is_due() {
                        if !keep_alive.ping() {
                            return Err(Fault::Lost);
                        }
                        words.clear();
                        self.speech.ping(&mut words);
                        connection.transport.queue(&words);
                    }
                }
            }
        }
    }

    fn next_wake(&self, connection: &Connection<'_>, keep_alive: &KeepAlive) -> Instant {
        if !connection.admitted {
            return connection.deadline;
        }
        let ping = keep_alive.due();
        match self.session.next_sending_ns() {
            Some(due) if !connection.transport.is_busy() => self.shared.clock.instant(due).min(ping),
            _ => ping,
        }
    }

    fn send_due(&mut self, connection: &mut Connection<'_>) {
        let now_ns = self.shared.clock.now_ns();
        let mut words = Vec::new();
        while !connection.transport.is_busy() {
            let Some(sending) = self.session.poll_sending(now_ns) else { break };
            if matches!(sending, session::Sending::Frame { dup: false, .. }) {
                self.shared.counters.frames_sent.add(1);
            }
            words.clear();
            self.speech.sending(sending, &mut words);
            connection.transport.queue(&words);
        }
    }

    fn note_if_settled(&mut self) {
        if !self.settled && self.session.is_settled() {
            self.settled = true;
            self.shared.counters.settled.add(1);
        }
    }

    fn hear_packets(&mut self, connection: &mut Connection<'_>) -> Result<Option<End>, Fault> {
        // Taken out for the time of reading: what is heard borrows from it.
        let bytes = std::mem::take(&mut connection.inbound);
        let mut read = 0;
        while let Some((heard, length)) = self.speech.hear_packet(&bytes[read..])? {
            read += length;
            if let Some(end) = self.handle(heard, connection)? {
                return Ok(Some(end));
            }
        }
        if read < bytes.len() {
            connection.inbound.extend_from_slice(&bytes[read..]);
        }
        Ok(None)
    }

    fn handle(&mut self, heard: Heard<'_>, connection: &mut Connection<'_>) -> Result<Option<End>, Fault> {
        let now_ns = self.shared.clock.now_ns();
        let mut words = Vec::new();
        let answer = match heard {
            Heard::Admitted { .. } if connection.admitted => return Err(Fault::Protocol),
            Heard::Goodbye { retry_after } => return Ok(Some(End::Lost { retry_after })),
            Heard::Admitted { session_present, receive_maximum } => {
                connection.admitted = true;
                connection.permit = None;
                self.shared.counters.connected.add(1);
                self.session.handle_admitted(session_present, receive_maximum);
                if let Some(since) = self.coming_back_since.take() {
                    self.shared.came_back(since.elapsed());
                    self.session.record().came_back(session_present, self.keeps_session);
                }
                // A session may be there without its subscription, if the connection was lost between CONNACK and SUBACK.
                self.subscribed &= session_present;
                if self.subscribe && !self.subscribed {
                    let packet_id = self.session.take_packet_id();
                    self.speech.subscribe(packet_id, &mut words);
                }
                Answer::Completed
            }
            _ if !connection.admitted => return Err(Fault::Protocol),
            Heard::Ack { packet_id, refused } => self.session.handle_ack(packet_id, refused, now_ns),
            Heard::Received { packet_id, refused } => {
                let answer = self.session.handle_received(packet_id, refused, now_ns);
                if !refused && answer != Answer::Unexpected {
                    self.speech.sending(session::Sending::Release(packet_id), &mut words);
                }
                answer
            }
            Heard::Completed { packet_id } => self.session.handle_completed(packet_id),
            Heard::Push { packet_id, payload } => {
                self.handle_push(packet_id, &payload, now_ns, &mut words);
                Answer::Completed
            }
            Heard::Subscribed { granted: true } => {
                self.subscribed = true;
                self.session.record().subscriptions += 1;
                self.shared.counters.subscribed.add(1);
                Answer::Completed
            }
            // Without its subscription the device would hear nothing, and nobody would know why.
            Heard::Subscribed { granted: false } => Answer::Unexpected,
            Heard::Pong => Answer::Completed,
        };
        connection.transport.queue(&words);
        match answer {
            Answer::Acked { latency_ns } => {
                self.shared.acked(latency_ns);
                self.shared.counters.acked_again.add(self.session.record().acked_after_return().into());
            }
            Answer::Refused => self.shared.counters.frames_refused.add(1),
            Answer::Completed => {}
            Answer::Unexpected => return Err(Fault::Protocol),
        }
        Ok(None)
    }

    fn handle_push(&mut self, packet_id: Option<PacketId>, payload: &[u8], now_ns: u64, words: &mut Vec<u8>) {
        if let Some(stamp) = self.session.handle_push(payload) {
            let now_unix_ns = self.shared.clock.unix_ns(now_ns);
            self.shared.pushed(now_unix_ns.saturating_sub(stamp.intended_ns));
        }
        if let Some(packet_id) = packet_id {
            self.speech.push_ack(packet_id, words);
        }
    }

    async fn say_goodbye(&self, connection: &mut Connection<'_>) {
        let mut words = Vec::new();
        self.speech.goodbye(&mut words);
        connection.transport.queue(&words);
        let written = async {
            while !words.is_empty() {
                match connection.transport.turn(&mut connection.inbound).await {
                    Ok(Turn::Written) | Err(_) => break,
                    Ok(_) => connection.inbound.clear(),
                }
            }
        };
        // Nobody is owed anything any more; a gateway that does not read is left.
        let _ = timeout_at(Instant::now() + GOODBYE, written).await;
    }
}

/// One weight for each gateway, or none at all.
fn return_weights(given: &[u32], gateways: usize) -> Arc<[u32]> {
    if given.is_empty() {
        Arc::default()
    } else {
        given.iter().copied().chain([0].into_iter().cycle()).take(gateways).collect()
    }
}

struct Connection<'a> {
    transport: Transport,
    inbound: Vec<u8>,
    admitted: bool,
    deadline: Instant,
    /// One of the places for connects on their way; given back when admitted.
    permit: Option<tokio::sync::SemaphorePermit<'a>>,
}

/// Why a connection ended other than by the device's will.
enum Fault {
    /// The gateway broke the protocol.
    Protocol,
    /// The socket is gone, or silent for too long.
    Lost,
}

impl From<Unintelligible> for Fault {
    fn from(_: Unintelligible) -> Self {
        Self::Protocol
    }
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// Pings at half the keep alive; a ping that is not answered by the next one means that the other end is gone.
struct KeepAlive {
    period: Option<Duration>,
    due: Instant,
    unanswered: bool,
}

impl KeepAlive {
    fn new(keep_alive_s: u16) -> Self {
        let period = (keep_alive_s > 0).then(|| Duration::from_secs(keep_alive_s.into()) / 2);
        Self { period, due: Self::next(period), unanswered: false }
    }

    fn due(&self) -> Instant {
        self.due
    }

    fn is_due(&self) -> bool {
        self.period.is_some() && Instant::now() >= self.due
    }

    /// False: the last one was not answered.
    fn ping(&mut self) -> bool {
        self.due = Self::next(self.period);
        !std::mem::replace(&mut self.unanswered, true)
    }

    fn heard(&mut self) {
        self.unanswered = false;
    }

    fn next(period: Option<Duration>) -> Instant {
        // Without a keep alive the timer still needs a moment: a day, and then nothing happens.
        Instant::now() + period.unwrap_or(Duration::from_hours(24))
    }
}
