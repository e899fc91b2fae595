//! Thousands of connections on one thread: the driver's sockets, and what has arrived on them.
//!
//! Edge-triggered mio. A turn waits for readiness, cuts what arrived into packets, hands each to the measure and
//! writes what the measure queued, one write for each connection. Nothing of a packet but its length is read here.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use holdfast_wire::mqtt::{FixedHeader, PacketType};
use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::web_socket::{self, Carrier};
use super::{BenchError, Target, packets};

const PACER: Token = Token(usize::MAX);
const EVENTS: usize = 2_048;
const SCRATCH_BYTES: usize = 256 << 10;

/// Connections from one loopback source address; the ephemeral port range has about 28,000.
const PER_SOURCE: usize = 10_000;

/// Questions that are asked at once, so that neither side's buffers hold those of the whole fleet.
const PORTION: usize = 256;

/// Patience for anything that must come.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// One connection.
pub(super) struct Link {
    pub(super) index: usize,
    /// The number in its client id.
    identity: usize,
    stream: Option<TcpStream>,
    carrier: Carrier,
    phase: Phase,
    /// The beginning of a packet whose rest has not arrived.
    inbound: Vec<u8>,
    /// Filled by the measure, which bounds it by its window; emptied by the next write.
    outbound: Vec<u8>,
    pub(super) writable: bool,
    /// When the measure last sent, if it cares.
    pub(super) at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    Dialling,
    Upgrading,
    /// CONNECT is sent.
    Greeting,
    Open,
}

/// The connections of one measure.
pub(super) struct Swarm {
    poll: Poll,
    events: Events,
    pub(super) links: Vec<Link>,
    scratch: Box<[u8]>,
    pacer: Option<OwnedFd>,
    remote: SocketAddr,
    carrier: Carrier,
    /// The number in the client id of the first connection.
    first: usize,
    /// Connections that were admitted, minus those that were cut.
    open: usize,
    /// Attempts that failed and are to be made again; at most one for each link.
    failed: Vec<usize>,
    last_failure: Option<BenchError>,
    /// Whether an open connection that is lost is only counted; an error otherwise.
    counts_losses: bool,
}

impl Swarm {
    pub(super) fn new(target: &Target, carrier: Carrier) -> Result<Self, BenchError> {
        let remote = match carrier {
            Carrier::Tcp => Some(target.mqtt),
            Carrier::WebSocketMqtt | Carrier::WebSocketJson => target.ws,
        };
        Self::to(remote.ok_or(BenchError::Closed("it has no such listener"))?, carrier)
    }

    pub(super) fn to(remote: SocketAddr, carrier: Carrier) -> Result<Self, BenchError> {
        Ok(Self {
            poll: Poll::new().map_err(BenchError::io("epoll"))?,
            events: Events::with_capacity(EVENTS),
            links: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into(),
            pacer: None,
            remote,
            carrier,
            first: 0,
            open: 0,
            failed: Vec::new(),
            last_failure: None,
            counts_losses: false,
        })
    }

    /// Client ids from this number on, for a swarm in several processes.
    pub(super) fn with_first(self, first: usize) -> Self {
        Self { first, ..self }
    }

    /// Connects until `total` connections are admitted, with at most `in_flight` on their way.
    pub(super) fn connect(&mut self, total: usize, in_flight: usize) -> Result<(), BenchError> {
        while self.links.len() < total {
            let index = self.links.len();
            self.links.push(Link::new(index, self.first + index, self.carrier));
        }
        let mut waiting: Vec<usize> =
            (0..total).rev().filter(|index| self.links[*index].phase == Phase::Closed).collect();
        let target_open = self.open + waiting.len();
        let deadline = Instant::now() + PATIENCE;
        while self.open < target_open {
            while target_open - self.open - waiting.len() < in_flight {
                let Some(index) = waiting.pop() else { break };
                if let Err(error) = self.dial(index) {
                    // On the loopback interface a refusal may come at once; it is no more final than a later one.
                    self.failed.push(index);
                    self.last_failure = Some(error);
                }
            }
            self.turn(Some(Duration::from_millis(100)), |_, _, _| Ok(()))?;
            waiting.append(&mut self.failed);
            if let Err(late) = self.check(deadline, "connections", target_open - self.open) {
                return Err(self.last_failure.take().unwrap_or(late));
            }
        }
        Ok(())
    }

    /// Cuts every connection without a goodbye, as a network does that is gone.
    pub(super) fn cut(&mut self) {
        self.links.iter_mut().for_each(Link::close);
        self.open = 0;
    }

    /// Sends on an open connection: queued behind what waits there, written at once if nothing does.
    pub(super) fn send(&mut self, index: usize, bytes: &[u8]) -> Result<(), BenchError> {
        let link = &mut self.links[index];
        link.queue(bytes);
        link.flush()
    }

    /// Makes [`Swarm::turn`] return at least once in each period.
    pub(super) fn pace(&mut self, period: Duration) -> Result<(), BenchError> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map_err(|error| BenchError::io("timer")(error.into()))?;
        let spec = Timespec { tv_sec: period.as_secs().cast_signed(), tv_nsec: period.subsec_nanos().into() };
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: spec, it_value: spec },
        )
        .map_err(|error| BenchError::io("timer")(error.into()))?;
        self.poll
            .registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), PACER, Interest::READABLE)
            .map_err(BenchError::io("timer"))?;
        self.pacer = Some(timer);
        Ok(())
    }

    /// Waits for readiness, gives each packet to `heard`, then writes what was queued.
    pub(super) fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut heard: impl FnMut(&mut Link, PacketType, &[u8]) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(BenchError::io("epoll")(error));
            }
            _ => {}
        }
        for event in &self.events {
            if event.token() == PACER {
                // A periodic timer runs on only once it is read.
                let _ = self.pacer.as_ref().map(|timer| rustix::io::read(timer, &mut [0; 8]));
            }
            let Some(link) = self.links.get_mut(event.token().0) else { continue };
            let was_open = link.phase == Phase::Open;
            match link.ready(event, &mut self.scratch, &mut heard) {
                Ok(()) => self.open += usize::from(!was_open && link.phase == Phase::Open),
                Err(_) if was_open && self.counts_losses => {
                    link.close();
                    self.open -= 1;
                }
                Err(error) if was_open => return Err(error),
                // Refused, or cut before it was admitted: a device tries again, and so does `connect`.
                Err(error) => {
                    link.close();
                    self.failed.push(link.index);
                    self.last_failure = Some(error);
                }
            }
        }
        Ok(())
    }

    /// Turns until `missing` packets of a type have come, whatever else comes.
    pub(super) fn expect(
        &mut self,
        what: &'static str,
        wanted: PacketType,
        mut missing: usize,
    ) -> Result<(), BenchError> {
        let deadline = Instant::now() + PATIENCE;
        while missing > 0 {
            self.check(deadline, what, missing)?;
            self.turn(Some(Duration::from_millis(100)), |_, kind, _| {
                missing = missing.saturating_sub(usize::from(kind == wanted));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// How many connections still live: those that were not closed and, where MQTT is spoken, answer a ping. Nobody looked at silent ones since they
    /// were opened.
    pub(super) fn roll_call(&mut self, within: Duration) -> Result<usize, BenchError> {
        self.counts_losses = true;
        let ping = match self.carrier {
            Carrier::Tcp => packets::pingreq(),
            Carrier::WebSocketMqtt => web_socket::frame(&packets::pingreq()),
            // Its pong would not be told from other messages here; a connection that was closed shows all the same.
            Carrier::WebSocketJson => Vec::new(),
        };
        let deadline = Instant::now() + within;
        let mut answered = vec![false; self.links.len()];
        for portion in 0..self.links.len().div_ceil(PORTION) {
            let places = portion * PORTION..self.links.len().min((portion + 1) * PORTION);
            for link in &mut self.links[places.clone()] {
                link.queue(&ping);
                // What fails here is seen as a close below.
                let _ = link.flush();
            }
            let owed = |swarm: &Self, answered: &[bool]| {
                places.clone().any(|place| swarm.links[place].phase == Phase::Open && !answered[place])
            };
            while !ping.is_empty() && owed(self, &answered) && Instant::now() < deadline {
                self.turn(Some(Duration::from_millis(100)), |link, kind, _| {
                    answered[link.index] |= kind == PacketType::PingResp;
                    Ok(())
                })?;
            }
        }
        if ping.is_empty() {
            // Events of what is closed already wait.
            for _ in 0..=self.links.len() / EVENTS {
                self.turn(Some(Duration::ZERO), |_, _, _| Ok(()))?;
            }
            return Ok(self.open);
        }
        let lives = |link: &Link| link.phase == Phase::Open && answered[link.index];
        Ok(self.links.iter().filter(|link| lives(link)).count())
    }

    /// Subscribes each connection of `range` and waits for all answers.
    pub(super) fn subscribe(
        &mut self,
        range: std::ops::Range<usize>,
        topic: impl Fn(usize) -> String,
        qos: holdfast_wire::mqtt::QoS,
    ) -> Result<(), BenchError> {
        let indices: Vec<usize> = range.collect();
        for portion in indices.chunks(PORTION) {
            for index in portion {
                let packet = packets::subscribe(&topic(*index), qos);
                self.send(*index, &packet)?;
            }
            self.expect("SUBACKs", PacketType::SubAck, portion.len())?;
        }
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "reads as a rule of the swarm where it is called")]
    pub(super) fn check(
        &self,
        deadline: Instant,
        what: &'static str,
        missing: usize,
    ) -> Result<(), BenchError> {
        if Instant::now() < deadline {
            return Ok(());
        }
        Err(BenchError::Deadline { what, missing, seconds: PATIENCE.as_secs() })
    }

    fn dial(&mut self, index: usize) -> Result<(), BenchError> {
        let socket = self.socket_from(self.first + index).map_err(BenchError::io("connect"))?;
        let mut stream = TcpStream::from_std(socket.into());
        self.poll
            .registry()
            .register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(BenchError::io("epoll"))?;
        let link = &mut self.links[index];
        link.stream = Some(stream);
        link.phase = Phase::Dialling;
        link.writable = false;
        Ok(())
    }

    fn socket_from(&self, identity: usize) -> std::io::Result<Socket> {
        let domain = Domain::for_address(self.remote);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_linger(Some(Duration::ZERO))?;
        if self.remote.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let source = Ipv4Addr::new(127, 0, 0, 2 + (identity / PER_SOURCE) as u8);
            socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
        }
        match socket.connect(&self.remote.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(error)
            }
            _ => Ok(socket),
        }
    }
}

impl Link {
    fn new(index: usize, identity: usize, carrier: Carrier) -> Self {
        Self {
            index,
            identity,
            stream: None,
            carrier,
            phase: Phase::Closed,
            inbound: Vec::new(),
            outbound: Vec::new(),
            writable: false,
            at: None,
        }
    }

    /// To be written at the end of the turn.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.outbound.extend_from_slice(bytes);
    }

    pub(super) fn outbound(&mut self) -> &mut Vec<u8> {
        &mut self.outbound
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), BenchError> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.writable && !self.outbound.is_empty() {
            match stream.write(&self.outbound) {
                Ok(written) if written == self.outbound.len() => self.outbound.clear(),
                Ok(written) => {
                    self.outbound.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BenchError::io("write")(error)),
            }
        }
        Ok(())
    }

    /// A reset: no `TIME_WAIT` keeps the port from the next attempt.
    fn close(&mut self) {
        self.stream = None;
        self.phase = Phase::Closed;
        self.inbound.clear();
        self.outbound.clear();
    }

    fn ready(
        &mut self,
        event: &Event,
        scratch: &mut [u8],
        heard: &mut impl FnMut(&mut Self, PacketType, &[u8]) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        if self.stream.is_none() {
            return Ok(());
        }
        if event.is_writable() {
            self.writable = true;
            if self.phase == Phase::Dialling {
                self.dialled()?;
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(scratch, heard)?;
        }
        self.flush()
    }

    fn dialled(&mut self) -> Result<(), BenchError> {
        let Some(stream) = &self.stream else { return Ok(()) };
        if let Some(error) = stream.take_error().map_err(BenchError::io("connect"))? {
            return Err(BenchError::io("connect")(error));
        }
        self.phase = match self.carrier {
            Carrier::Tcp => {
                self.outbound = packets::connect(self.identity);
                Phase::Greeting
            }
            Carrier::WebSocketMqtt => {
                self.outbound = web_socket::upgrade("/mqtt", "mqtt");
                Phase::Upgrading
            }
            Carrier::WebSocketJson => {
                let path =
                    format!("/v1/devices/{}/socket?clean_start=true", packets::client_id(self.identity));
                self.outbound = web_socket::upgrade(&path, "holdfast.v1");
                Phase::Upgrading
            }
        };
        Ok(())
    }

    fn read(
        &mut self,
        scratch: &mut [u8],
        heard: &mut impl FnMut(&mut Self, PacketType, &[u8]) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        loop {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.read(scratch) {
                Ok(0) => return Err(BenchError::Closed("end of stream")),
                Ok(count) => {
                    self.take(&scratch[..count], heard)?;
                    // A short read means an empty socket: the next byte is a new edge.
                    if count < scratch.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BenchError::io("read")(error)),
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        heard: &mut impl FnMut(&mut Self, PacketType, &[u8]) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        if self.inbound.is_empty() {
            let read = self.cut_up(bytes, heard)?;
            self.inbound.extend_from_slice(&bytes[read..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.inbound);
        joined.extend_from_slice(bytes);
        let read = self.cut_up(&joined, heard)?;
        joined.drain(..read);
        self.inbound = joined;
        Ok(())
    }

    /// Returns how many bytes were whole packets.
    fn cut_up(
        &mut self,
        bytes: &[u8],
        heard: &mut impl FnMut(&mut Self, PacketType, &[u8]) -> Result<(), BenchError>,
    ) -> Result<usize, BenchError> {
        let mut read = 0;
        if self.phase == Phase::Upgrading {
            let Some(head) =
                web_socket::upgraded(bytes).map_err(|()| BenchError::Closed("upgrade refused"))?
            else {
                return Ok(0);
            };
            read = head;
            if self.carrier == Carrier::WebSocketMqtt {
                self.outbound = web_socket::frame(&packets::connect(self.identity));
            }
            self.phase = Phase::Greeting;
        }
        if self.carrier == Carrier::Tcp {
            return Ok(read + self.cut_packets(&bytes[read..], heard)?);
        }
        while let Some((header, length)) = web_socket::frame_lengths(&bytes[read..]) {
            let Some(payload) = bytes.get(read + header..read + header + length) else { break };
            if self.carrier == Carrier::WebSocketJson {
                // The first message of the JSON protocol is `welcome`; idle connections hear no other.
                self.phase = Phase::Open;
            } else if self.cut_packets(payload, heard)? != payload.len() {
                // Brokers write whole packets to a frame; one that does not is beyond this driver.
                return Err(BenchError::Protocol);
            }
            read += header + length;
        }
        Ok(read)
    }

    fn cut_packets(
        &mut self,
        bytes: &[u8],
        heard: &mut impl FnMut(&mut Self, PacketType, &[u8]) -> Result<(), BenchError>,
    ) -> Result<usize, BenchError> {
        let mut read = 0;
        while let Some(header) = FixedHeader::decode(&bytes[read..]).map_err(|_| BenchError::Protocol)? {
            let Some(packet) = bytes.get(read..read + header.packet_length()) else { break };
            read += packet.len();
            if self.phase == Phase::Greeting {
                let admitted = header.packet_type == PacketType::ConnAck && packet.get(3) == Some(&0);
                if !admitted {
                    return Err(BenchError::Closed("CONNECT refused"));
                }
                self.phase = Phase::Open;
            } else {
                heard(self, header.packet_type, packet)?;
            }
        }
        Ok(read)
    }
}
