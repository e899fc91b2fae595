//! One link from its first record to the settlement of its last uplink.
//!
//! ```text
//! Hello ──> Welcome ──> talking ──(stream ends, garbage, stuck, replaced)──> closed ──> uplinks settled
//!   └────> Refused          └────(drain: reads no more)──> uplinks settled ──> closed
//! ```
//!
//! A closed link's uplinks are still settled: the frames may come again over another link, and join or find them.
//!
//! A sink without room holds up frames and nothing else. They lie in [`Uplinks`] in their order, while reports, interests, takeovers and all the rest are
//! handled as they are read; only the handover of a client whose frames lie there stays behind them. When the bridge drains, what waits there is seen through; when
//! the shard closes the link, only what nobody says again over another; and when it has dialled again, it is as if it had never been read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_wire::ids::Owner;
use holdfast_wire::link::{Hello, LINK_VERSION, ToBridge, ToGateway, Welcome};
use tokio::sync::watch;
use tokio::time::timeout;

use super::ending::Ending;
use super::intake::Intake;
use super::keep_alive::keep_alive;
use super::peer::{Closing, Peer};
use super::records::{Records, cut};
use super::stream::{LinkStream, WriteHalf};
use super::writer;
use crate::core::Core;
use crate::metrics as names;
use crate::uplink::inbox::Inbox;
use crate::uplink::sending::Sending;
use crate::uplink::{Origin, Uplinks};

/// A stream that has not said Hello by then is closed.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// A bridge that cannot welcome a shard by then lets it go; the shard waits no longer either.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// Bytes that a Hello may have: more than any secret.
const HELLO_BYTES_MAX: usize = 64 << 10;

/// Holds the whole conversation over one stream; `from` is who dialled, if it came over a network.
pub(crate) async fn converse(core: Arc<Core>, stream: LinkStream, from: Option<SocketAddr>) {
    let (records, write) = match stream.into_halves() {
        Ok((read, write)) => (Records::new(read), write),
        Err(error) => return tracing::warn!(%error, "a stream cannot become a link"),
    };
    let mut draining = core.draining.subscribe();
    let opened = tokio::select! {
        opened = open(&core, records, write) => opened,
        () = until_true(&mut draining) => Err(Ending::Drained),
    };
    match opened {
        Ok(link) => {
            let shard = link.intake.peer.shard;
            if from.is_some() {
                tracing::info!(node = %shard.node, shard = %shard.shard, "a link is open");
                tokio::spawn(keep_alive(Arc::clone(&link.intake.peer)));
            } else {
                tracing::debug!(node = %shard.node, shard = %shard.shard, "a link within the process is open");
            }
            link.run().await;
        }
        Err(ending) => {
            metrics::counter!(names::LINKS_CLOSED, "reason" => ending.reason()).increment(1);
            let Some(from) = from else {
                // A start that is refused after this has a line of its own.
                return tracing::debug!(reason = %ending, "a link within the process was not opened");
            };
            if let Some(suppressed) = core.complaints.admit(ending.reason(), Instant::now()) {
                let suppressed = Some(suppressed).filter(|lines| *lines > 0);
                tracing::warn!(%from, reason = %ending, suppressed, "a link was not opened");
            }
        }
    }
}

async fn open(core: &Arc<Core>, mut records: Records, mut write: WriteHalf) -> Result<Link, Ending> {
    let (shard, receive_maximum) = match timeout(HELLO_WITHIN, hello(core, &mut records)).await {
        Ok(Ok(introduced)) => introduced,
        Ok(Err(Ending::Refused(reason))) => {
            let mut record = Vec::new();
            ToGateway::Refused(&reason).encode(&mut record);
            // The first bytes on this stream, so the kernel has room for them.
            let _ = timeout(HELLO_WITHIN, write.write(&record)).await;
            return Err(Ending::Refused(reason));
        }
        Ok(Err(ending)) => return Err(ending),
        Err(_) => return Err(Ending::Silent),
    };
    timeout(WELCOME_WITHIN, until_ready(core, &mut records)).await.map_err(|_| Ending::Unready)??;
    Ok(Link::open(core, shard, receive_maximum, records, write))
}

/// Before the filters of persistent sessions are known, frames could pass them by. A shard says nothing before it is welcome.
async fn until_ready(core: &Core, records: &mut Records) -> Result<(), Ending> {
    let mut ready = core.ready.subscribe();
    tokio::select! {
        biased;
        () = until_true(&mut ready) => Ok(()),
        read = records.fill() => Err(if read? == 0 { Ending::Closed } else { Ending::OutOfPlace }),
    }
}

/// Who dialled, and how many frames its devices may send again.
async fn hello(core: &Core, records: &mut Records) -> Result<(Owner, u16), Ending> {
    loop {
        if records.fill().await? == 0 {
            return Err(Ending::Closed);
        }
        let Some((record, bytes)) = cut(&mut records.unread())? else {
            // Whoever it is has not shown the secret yet and is given no memory.
            if records.unread().len() > HELLO_BYTES_MAX {
                return Err(Ending::OutOfPlace);
            }
            continue;
        };
        let ToBridge::Hello(hello) = record else { return Err(Ending::OutOfPlace) };
        check(core, &hello).map_err(Ending::Refused)?;
        let (shard, receive_maximum) = (hello.shard, hello.receive_maximum);
        records.drop_front(bytes);
        records.trust();
        return Ok((shard, receive_maximum));
    }
}

fn check(core: &Core, hello: &Hello<'_>) -> Result<(), String> {
    if hello.version != LINK_VERSION {
        return Err(format!(
            "this bridge speaks link version {LINK_VERSION}, the gateway {}: run the same release of both",
            hello.version
        ));
    }
    if !is_same_secret(&core.config.link_secret, hello.secret) {
        return Err("the link secret differs: set the same link.secret on gateway and bridge".to_owned());
    }
    Ok(())
}

/// Compares in a time that depends on the lengths alone, so that answers do not tell how much of a guess was right.
fn is_same_secret(ours: &[u8], theirs: &[u8]) -> bool {
    let differences = ours.iter().zip(theirs).fold(0, |differences, (a, b)| differences | (a ^ b));
    ours.len() == theirs.len() && std::hint::black_box(differences) == 0
}

/// An open link.
struct Link {
    intake: Intake,
    records: Records,
    sending: Sending,
    inbox: Arc<Inbox>,
    writer: tokio::task::JoinHandle<()>,
}

impl Link {
    fn open(
        core: &Arc<Core>,
        shard: Owner,
        receive_maximum: u16,
        records: Records,
        write: WriteHalf,
    ) -> Self {
        let peer = Arc::new(Peer::new(core.next_link(), shard));
        if let Some(former) = core.peers.opened(&peer) {
            former.close(Closing::Replaced);
        }
        let welcome =
            Welcome { version: LINK_VERSION, bridge: core.bridge, window_bytes: core.config.window_bytes };
        peer.send_at_once(|out| ToGateway::Welcome(welcome).encode(out));
        let inbox = Arc::new(Inbox::default());
        let writer = tokio::spawn(writer::write(Arc::clone(core), Arc::clone(&peer), write));
        let origin = Origin { node: shard.node, link: peer.link, receive_maximum };
        let uplinks = Uplinks::new(Arc::clone(core), origin, Arc::clone(&inbox));
        metrics::gauge!(names::LINKS).increment(1.0);
        let intake = Intake::new(core, peer, uplinks);
        Self { intake, records, sending: Sending::Nothing, inbox, writer }
    }

    async fn run(mut self) {
        let Err(ending) = self.talk().await;
        let (core, peer) = (Arc::clone(&self.intake.core), Arc::clone(&self.intake.peer));
        let shard = peer.shard;
        match ending {
            Ending::Closed | Ending::Drained => {
                tracing::info!(node = %shard.node, shard = %shard.shard, reason = %ending, "a link is closed");
            }
            _ => {
                tracing::warn!(node = %shard.node, shard = %shard.shard, reason = %ending, "a link is closed");
            }
        }
        metrics::counter!(names::LINKS_CLOSED, "reason" => ending.reason()).increment(1);
        metrics::gauge!(names::LINKS).decrement(1.0);
        if !matches!(ending, Ending::Drained) {
            // A shard that is gone hears nothing any more; so that nobody waits for it, before its uplinks are seen through.
            peer.close(Closing::Ended);
        }
        core.peers.lost(&peer);
        core.change_interests(|interests| interests.link_lost(peer.link));
        match ending {
            Ending::Drained => {}
            Ending::Gone(_) => self.intake.uplinks.forget_waiting(),
            _ => self.intake.uplinks.forget_what_is_said_again(),
        }
        if !matches!(ending, Ending::Sink(_))
            && let Err(error) = self.see_through().await
        {
            tracing::debug!(node = %shard.node, shard = %shard.shard, %error, "frames of a closed link stay unsettled");
        }
        peer.close(Closing::Ended);
        let _ = self.writer.await;
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, Ending> {
        let mut draining = self.intake.core.draining.subscribe();
        loop {
            let Self { intake, records, sending, inbox, .. } = self;
            let may_read = intake.uplinks.has_room();
            intake.peer.note_listening(false);
            tokio::select! {
                biased;
                gone = intake.peer.until_closed() => return Err(gone.into()),
                () = until_true(&mut draining) => return Err(Ending::Drained),
                sent = sending.over() => {
                    intake.uplinks.handle_sent(sent)?;
                    self.send_off().await?;
                }
                () = inbox.arrived.notified() => intake.uplinks.hear(&intake.peer),
                read = read(&intake.peer, records), if may_read => {
                    let read = read?;
                    intake.core.counters.bytes_in.increment(read as u64);
                    self.take_in().await?;
                }
            }
            self.intake.uplinks.tell(&self.intake.peer);
        }
    }

    /// Handles every complete record that was read, and sends frames off.
    async fn take_in(&mut self) -> Result<(), Ending> {
        let passed = self.intake.handle(self.records.unread(), false)?;
        self.records.drop_front(passed);
        self.send_off().await
    }

    /// Sends off what was gathered and what waits behind it, until the sink has no room.
    async fn send_off(&mut self) -> Result<(), Ending> {
        let Self { intake, sending, .. } = self;
        loop {
            let sent =
                if intake.uplinks.begin_sending(sending) { sending.over_at_once().await } else { None };
            // What the lane sends has asked for room by now, before whatever the client says elsewhere once it is handed over.
            intake.pass_on_handovers();
            if let Some(sent) = sent {
                intake.uplinks.handle_sent(sent)?;
            }
            let Some(waited) = intake.uplinks.take_waiting() else { return Ok(()) };
            intake.handle(&waited, true)?;
            intake.uplinks.hear(&intake.peer);
        }
    }

    /// What was read before the link ended is seen through, and told to a shard that still hears.
    async fn see_through(&mut self) -> Result<(), Ending> {
        self.send_off().await?;
        self.intake.uplinks.tell(&self.intake.peer);
        while !self.intake.uplinks.is_settled() {
            tokio::select! {
                biased;
                sent = self.sending.over() => {
                    self.intake.uplinks.handle_sent(sent)?;
                    self.send_off().await?;
                }
                () = self.inbox.arrived.notified() => self.intake.uplinks.hear(&self.intake.peer),
            }
        }
        Ok(())
    }
}

async fn until_true(flag: &mut watch::Receiver<bool>) {
    // The sender lives in the core, so it cannot be gone.
    let _ = flag.wait_for(|flag| *flag).await;
}

/// Reads on once the shard has taken enough of what it was told; until then it is not listened to, and its silence means nothing.
async fn read(peer: &Peer, records: &mut Records) -> Result<usize, Ending> {
    peer.ready().await?;
    peer.note_listening(true);
    let read = records.fill().await?;
    peer.note_listening(false);
    if read == 0 {
        return Err(Ending::Closed);
    }
    peer.note_heard();
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::pin::{Pin, pin};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Poll;

    use holdfast_store::{Bounds, MemoryStore, clock};
    use holdfast_wire::ids::{Epoch, NodeId, ShardId};
    use holdfast_wire::link::{Handover, Takeover, Uplink};
    use holdfast_wire::message::Message;
    use holdfast_wire::mqtt::QoS;
    use tokio::sync::mpsc;

    use super::*;
    use crate::BridgeConfig;
    use crate::fanout::LinkId;
    use crate::link::peer::{AHEAD_BYTES_MAX, OUT_BYTES_MAX};
    use crate::log::LogRecord;
    use crate::sink::{Lane, OnSettled, Sent, Sink, SinkHealth};

    /// A sink for tests in which no frame may come that far.
    struct NoSink;

    impl Sink for NoSink {
        fn lane(&self) -> Box<dyn Lane> {
            Box::new(Self)
        }

        fn health(&self) -> SinkHealth {
            SinkHealth { kind: "log", stores: true, spool: None }
        }
    }

    impl Lane for NoSink {
        fn push(&mut self, _frame: &LogRecord<'_>, _wants_receipt: bool) {
            panic!("a frame is stored");
        }

        fn send(&mut self, _settled: OnSettled) -> Sent<'_> {
            panic!("frames are stored");
        }
    }

    /// What a bridge has that does not know the filters of persistent sessions.
    fn unready() -> Arc<Core> {
        core_before(Arc::new(NoSink))
    }

    fn core_before(sink: Arc<dyn Sink>) -> Arc<Core> {
        let store = Arc::new(MemoryStore::new(clock::system(), Bounds::default()));
        Arc::new(Core::new(BridgeConfig::default(), store, sink, mpsc::channel(1).0).unwrap())
    }

    fn say(mut far: &UnixStream, records: &[ToBridge<'_>]) {
        let mut bytes = Vec::new();
        for record in records {
            record.encode(&mut bytes);
        }
        far.write_all(&bytes).unwrap();
    }

    fn hello(node: u64) -> ToBridge<'static> {
        ToBridge::Hello(Hello { version: LINK_VERSION, shard: shard(node), receive_maximum: 32, secret: b"" })
    }

    fn shard(node: u64) -> Owner {
        Owner { node: NodeId(node), shard: ShardId(0) }
    }

    /// The shard's end of a stream, and the bridge's two halves.
    fn stream() -> (UnixStream, Records, WriteHalf) {
        let (far, near) = UnixStream::pair().unwrap();
        let (read, write) = LinkStream::from(near).into_halves().unwrap();
        (far, Records::new(read), write)
    }

    async fn is_waiting(mut future: Pin<&mut impl Future>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn a_shard_is_not_silent_while_nobody_listens_to_it() {
        let (_far, mut records, _write) = stream();
        let peer = Peer::new(LinkId(1), shard(1));
        assert!(!peer.was_silent(), "it has just said Hello");
        peer.send_at_once(|out| out.resize(OUT_BYTES_MAX, 0));
        let mut reading = pin!(read(&peer, &mut records));
        assert!(is_waiting(reading.as_mut()).await);
        assert!(!peer.was_silent(), "what it says is not read before it has taken something");
        peer.take(&mut Vec::new()).await.unwrap();
        assert!(is_waiting(reading.as_mut()).await);
        assert!(peer.was_silent());
    }

    #[tokio::test]
    async fn a_shard_that_leaves_before_it_is_welcome_is_let_go_at_once() {
        let core = unready();
        let (far, records, write) = stream();
        say(&far, &[hello(1)]);
        let mut opening = pin!(open(&core, records, write));
        assert!(is_waiting(opening.as_mut()).await, "the bridge is not ready");
        drop(far);
        assert!(matches!(opening.await, Err(Ending::Closed)));
    }

    /// An open link of the first shard, and what leads to the second.
    async fn two_shards(core: &Arc<Core>) -> (UnixStream, Link, Arc<Peer>) {
        core.ready.send_replace(true);
        let other = Arc::new(Peer::new(core.next_link(), shard(2)));
        core.peers.opened(&other);
        let (far, records, write) = stream();
        say(&far, &[hello(1)]);
        let Ok(link) = open(core, records, write).await else { panic!("no link") };
        (far, link, other)
    }

    #[tokio::test]
    async fn a_replaced_link_takes_nothing_more_from_its_buffer() {
        let core = unready();
        let (far, mut link, _) = two_shards(&core).await;
        say(&far, &[ToBridge::Uplink(uplink())]);
        read(&link.intake.peer, &mut link.records).await.unwrap();
        let newer = Arc::new(Peer::new(core.next_link(), shard(1)));
        core.peers.opened(&newer).unwrap().close(Closing::Replaced);
        assert!(matches!(link.take_in().await, Err(Ending::Gone(Closing::Replaced))));
        assert!(link.intake.uplinks.is_settled(), "the frame was taken");
    }

    /// What a shard is told, without waiting.
    async fn told(peer: &Peer) -> Vec<u8> {
        let mut records = Vec::new();
        let _ = is_waiting(pin!(peer.take(&mut records))).await;
        records
    }

    #[tokio::test]
    async fn a_shard_that_takes_nothing_holds_up_none_that_tells_it_something() {
        let (owner, former) = (shard(1), shard(2));
        let takeover = Takeover { client: "d", epoch: Epoch(2), former, owner };
        let handover =
            Handover { client: "e", epoch: Epoch(2), owner: former, session: b"", owes_will: false };
        for (behind, is_told) in [(OUT_BYTES_MAX, true), (OUT_BYTES_MAX + AHEAD_BYTES_MAX, false)] {
            let core = unready();
            let (far, mut link, other) = two_shards(&core).await;
            other.send_at_once(|out| out.resize(behind, 0));
            say(&far, &[ToBridge::Takeover(takeover), ToBridge::Handover(handover)]);
            read(&link.intake.peer, &mut link.records).await.unwrap();
            assert!(!is_waiting(pin!(link.take_in())).await);
            assert_eq!(told(&other).await.len() > behind, is_told);
            let mut not_linked = Vec::new();
            ToGateway::NotLinked { client: "d", epoch: Epoch(2) }.encode(&mut not_linked);
            // Behind its welcome, unless the writer has that by now.
            assert_eq!(told(&link.intake.peer).await.ends_with(&not_linked), !is_told);
        }
    }

    /// A sink that has no room, and knows whether it was asked for some.
    #[derive(Clone, Default)]
    struct NoRoom(Arc<AtomicBool>);

    impl Sink for NoRoom {
        fn lane(&self) -> Box<dyn Lane> {
            Box::new(self.clone())
        }

        fn health(&self) -> SinkHealth {
            SinkHealth { kind: "log", stores: false, spool: None }
        }
    }

    impl Lane for NoRoom {
        fn push(&mut self, _frame: &LogRecord<'_>, _wants_receipt: bool) {}

        fn send(&mut self, _settled: OnSettled) -> Sent<'_> {
            Box::pin(async {
                self.0.store(true, Ordering::Relaxed);
                std::future::pending().await
            })
        }
    }

    #[tokio::test]
    async fn a_handover_goes_once_the_frames_before_it_have_asked_for_room() {
        let sink = NoRoom::default();
        let core = core_before(Arc::new(sink.clone()));
        let (far, mut link, later) = two_shards(&core).await;
        let handover =
            Handover { client: "d", epoch: Epoch(2), owner: shard(2), session: b"", owes_will: false };
        say(&far, &[ToBridge::Uplink(uplink()), ToBridge::Handover(handover)]);
        read(&link.intake.peer, &mut link.records).await.unwrap();
        let records = link.records.unread().to_vec();
        link.intake.handle(&records, false).unwrap();
        assert_eq!(told(&later).await, [0; 0]);
        assert!(!sink.0.load(Ordering::Relaxed));
        link.send_off().await.unwrap();
        assert!(sink.0.load(Ordering::Relaxed));
        assert_ne!(told(&later).await, [0; 0]);
    }

    #[tokio::test]
    async fn a_link_that_is_closed_here_says_why_and_stays_with_it() {
        let core = unready();
        core.ready.send_replace(true);
        for (why, told, reason) in [
            (Closing::Silent, "the shard gave no sign of life for 15 s", "silent"),
            (Closing::Stuck, "the shard takes nothing any more", "stuck"),
            (Closing::Replaced, "the shard dialled again", "gone"),
        ] {
            let (far, records, write) = stream();
            say(&far, &[hello(1)]);
            let Ok(mut link) = open(&core, records, write).await else { panic!("no link") };
            link.intake.peer.close(why);
            link.intake.peer.close(Closing::Broken);
            let Err(ending) = link.talk().await;
            assert_eq!((&*ending.to_string(), ending.reason()), (told, reason));
        }
    }

    fn uplink() -> Uplink<'static> {
        let message = Message {
            id: 0,
            topic: "t",
            qos: QoS::AtMostOnce,
            retain: false,
            publisher: "d",
            published_at_ms: 0,
            expires_at_ms: 0,
            properties: &[],
            payload: &[],
        };
        Uplink {
            sequence: 1,
            epoch: Epoch(1),
            packet_id: None,
            dup: false,
            resent: false,
            wants_receipt: false,
            event_time_ms: 0,
            message,
        }
    }
}
