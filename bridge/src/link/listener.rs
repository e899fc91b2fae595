//! Where gateways dial in: accepts streams, as many as there may be, and gives each to a conversation of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{LinkStream, converse};
use crate::core::Core;
use crate::metrics as names;

/// Links and streams that may become one, at a time. When full, the next stream is closed as it comes.
const LINKS_MAX: usize = 4_096;

/// The system has no file for another stream; some may have been closed by then.
const REST: Duration = Duration::from_millis(100);

/// A gateway whose host vanished is noticed within this time while something is sent to it.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Accepts until the bridge drains. What connects then is refused by the kernel, so gateways turn to other bridges.
pub(crate) async fn accept_links(core: Arc<Core>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(LINKS_MAX));
    let mut draining = core.draining.subscribe();
    loop {
        let accepted = tokio::select! {
            _ = draining.wait_for(|draining| *draining) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => take(&core, &places, stream, from),
            Err(error) => {
                if let Some(suppressed) = core.complaints.admit("accept", Instant::now()) {
                    let suppressed = Some(suppressed).filter(|lines| *lines > 0);
                    tracing::warn!(%error, suppressed, "no link can be accepted now");
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn take(core: &Arc<Core>, places: &Arc<Semaphore>, stream: TcpStream, from: SocketAddr) {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        metrics::counter!(names::LINKS_CLOSED, "reason" => "full").increment(1);
        if let Some(suppressed) = core.complaints.admit("full", Instant::now()) {
            let suppressed = Some(suppressed).filter(|lines| *lines > 0);
            tracing::warn!(%from, suppressed, "there are {LINKS_MAX} links already; a further one is refused");
        }
        return;
    };
    let Some(open) = core.links_open.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
    // One whose options cannot be set is gone already.
    let Ok(stream) = set_up(stream) else { return };
    let core = Arc::clone(core);
    tokio::spawn(async move {
        converse(core, stream, Some(from)).await;
        drop((open, place));
    });
}

fn set_up(stream: TcpStream) -> io::Result<LinkStream> {
    let stream = stream.into_std()?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    let probe = TcpKeepalive::new()
        .with_time(UNACKNOWLEDGED_MAX / 2)
        .with_interval(Duration::from_secs(1))
        .with_retries(5);
    socket.set_tcp_keepalive(&probe)?;
    Ok(stream.into())
}
