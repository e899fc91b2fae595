//! Listening sockets: one per shard and address, among which the kernel spreads connections.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use holdfast_engine::Listener as Transport;
use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::TcpOptions;

/// Sockets bound to one address, one for each shard, which do not listen yet: everything is bound before anything is served.
#[derive(Debug)]
pub(crate) struct BoundGroup {
    key: &'static str,
    /// The address really taken.
    pub(crate) address: SocketAddr,
    sockets: Vec<Socket>,
    backlog: u32,
}

/// An address could not be taken. Displays as one line with the key, the address, the reason and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {address}: {reason}; {remedy}")]
pub struct BindError {
    /// The configuration key.
    pub key: &'static str,
    /// The address as configured.
    pub address: SocketAddr,
    /// What the kernel said.
    pub reason: io::Error,
    /// What to do about it.
    pub remedy: String,
}

impl BindError {
    pub(crate) fn new(key: &'static str, address: SocketAddr, reason: io::Error) -> Self {
        let port = address.port();
        let remedy = match reason.kind() {
            ErrorKind::AddrInUse => {
                format!(
                    "end the process that holds it (ss -ltnp 'sport = :{port}' names it) or choose another port; 0 takes a free one"
                )
            }
            ErrorKind::PermissionDenied => {
                "choose a port above 1023 or grant the process CAP_NET_BIND_SERVICE".to_owned()
            }
            ErrorKind::AddrNotAvailable => {
                "this machine has no such address; 0.0.0.0 or [::] takes all it has".to_owned()
            }
            _ => "choose another address".to_owned(),
        };
        Self { key, address, reason, remedy }
    }
}

impl BoundGroup {
    /// Binds `address` for `shards` shards. With port 0 the first one draws a port and the others share it.
    pub(crate) fn bind(
        key: &'static str,
        address: SocketAddr,
        shards: u16,
        options: &TcpOptions,
    ) -> Result<Self, BindError> {
        let failed = |reason| BindError::new(key, address, reason);
        let mut group =
            Self { key, address, sockets: Vec::new(), backlog: options.backlog.unwrap_or_else(somaxconn) };
        for _ in 0..shards {
            let socket = new_socket(group.address, options).map_err(failed)?;
            if group.sockets.is_empty() {
                // SO_REUSEPORT only after the bind: with it before, a second process of the same user would share the
                // port and take half of the connections instead of hearing that it is in use.
                socket.bind(&address.into()).map_err(failed)?;
                socket.set_reuse_port(true).map_err(failed)?;
                group.address = local_address(&socket).map_err(failed)?;
            } else {
                socket.set_reuse_port(true).map_err(failed)?;
                socket.bind(&group.address.into()).map_err(failed)?;
            }
            group.sockets.push(socket);
        }
        Ok(group)
    }

    /// Begins to take connections; one listener for each shard, in their order.
    pub(crate) fn listen(self, transport: Transport) -> Result<Vec<Listener>, BindError> {
        let Self { key, address, sockets, backlog } = self;
        let start = |socket: Socket| {
            socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
            Ok(Listener {
                socket: TcpListener::from_std(socket.into()),
                transport,
                ready: false,
                paused_until_ms: None,
            })
        };
        sockets
            .into_iter()
            .map(start)
            .collect::<io::Result<_>>()
            .map_err(|error| BindError::new(key, address, error))
    }
}

impl BoundGroup {
    /// Begins to take connections for a server of another kind, on the first of the sockets.
    pub(crate) fn listen_blocking(self) -> Result<std::net::TcpListener, BindError> {
        let failed = |reason| BindError::new(self.key, self.address, reason);
        let socket = self.sockets.into_iter().next().ok_or_else(|| failed(ErrorKind::NotFound.into()))?;
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX)).map_err(failed)?;
        Ok(socket.into())
    }
}

/// Options that accepted sockets inherit are set here once instead of on each of them (`accepted_sockets_inherit_their_options`
/// holds the kernel to it).
fn new_socket(address: SocketAddr, options: &TcpOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A restarted node takes its port back while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(options.user_timeout)?;
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes as usize)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes as usize)?;
    }
    Ok(socket)
}

fn local_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))
}

/// The longest accept queue that the kernel gives.
fn somaxconn() -> u32 {
    const KERNEL_DEFAULT: u32 = 4_096;
    std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(KERNEL_DEFAULT)
}

/// One shard's listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// To register with the shard's poll.
    pub(crate) socket: TcpListener,
    /// What is spoken on its connections.
    pub(crate) transport: Transport,
    /// Connections may wait that no event will tell of.
    pub(crate) ready: bool,
    paused_until_ms: Option<u64>,
}

/// What an accept brought.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection, non-blocking.
    Stream(TcpStream),
    /// This one was gone before it was accepted; there may be more.
    Lost,
    /// The queue is empty.
    Empty,
    /// The process or the machine has no room for another socket. Connections wait in the kernel's queue meanwhile.
    Paused(io::Error),
}

/// How long a listener rests when there is no room for another socket, in ms. Trying again at once would burn the
/// processor that is needed to free some.
const PAUSE_MS: u64 = 100;

impl Listener {
    /// Takes the next connection off the kernel's queue.
    pub(crate) fn accept(&mut self, now_ms: u64) -> Accepted {
        let error = match self.socket.accept() {
            Ok((stream, _)) => return Accepted::Stream(stream),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::WouldBlock {
            self.ready = false;
            return Accepted::Empty;
        }
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                self.ready = false;
                self.paused_until_ms = Some(now_ms + PAUSE_MS);
                Accepted::Paused(error)
            }
            // accept(2) passes on errors of the connection that waited: ECONNABORTED, EPROTO, EHOSTUNREACH …
            _ => Accepted::Lost,
        }
    }

    /// When a pause ends.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.paused_until_ms
    }

    /// Ends a pause whose time is up.
    pub(crate) fn handle_due(&mut self, now_ms: u64) {
        self.ready |= self.paused_until_ms.take_if(|until_ms| *until_ms <= now_ms).is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as StdStream;
    use std::time::{Duration, Instant};

    use socket2::SockRef;

    use super::*;
    use crate::config::{GatewayConfig, TcpConfig};

    fn options() -> TcpOptions {
        GatewayConfig::default().validate().unwrap().tcp
    }

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn accept_within_deadline(listeners: &mut [Listener]) -> TcpStream {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            for listener in &mut *listeners {
                if let Accepted::Stream(stream) = listener.accept(0) {
                    return stream;
                }
            }
            std::thread::yield_now();
        }
        panic!("no connection arrived");
    }

    #[test]
    fn all_shards_share_the_port_that_the_first_one_drew() {
        let group = BoundGroup::bind("listeners.mqtt", any_port(), 4, &options()).unwrap();
        let address = group.address;
        assert_ne!(address.port(), 0);
        let mut listeners = group.listen(Transport::Mqtt).unwrap();
        assert_eq!(listeners.len(), 4);
        for listener in &listeners {
            assert_eq!(listener.socket.local_addr().unwrap(), address);
        }
        for _ in 0..20 {
            let _client = StdStream::connect(address).unwrap();
            accept_within_deadline(&mut listeners);
        }
    }

    #[test]
    fn a_port_in_use_is_named_in_one_line_with_its_remedy() {
        let holder = BoundGroup::bind("listeners.mqtt", any_port(), 2, &options()).unwrap();
        let address = holder.address;
        let _listening = holder.listen(Transport::Mqtt).unwrap();
        let line = BoundGroup::bind("listeners.ws", address, 2, &options()).unwrap_err().to_string();
        assert!(line.starts_with(&format!("listeners.ws = {address}: Address already in use")), "{line}");
        assert!(line.contains("ss -ltnp") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let line = BoundGroup::bind("listeners.mqtt", "203.0.113.1:0".parse().unwrap(), 1, &options())
            .unwrap_err()
            .to_string();
        assert!(line.contains("this machine has no such address"), "{line}");
    }

    #[test]
    fn accepted_sockets_inherit_their_options() {
        let tcp = TcpConfig { user_timeout_ms: 12_000, send_buffer_bytes: 40_000, ..TcpConfig::default() };
        let options = GatewayConfig { tcp, ..GatewayConfig::default() }.validate().unwrap().tcp;
        let group = BoundGroup::bind("listeners.mqtt", any_port(), 1, &options).unwrap();
        let address = group.address;
        let mut listeners = group.listen(Transport::Mqtt).unwrap();
        let _client = StdStream::connect(address).unwrap();
        let stream = accept_within_deadline(&mut listeners);
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(12)));
        // The kernel doubles what it is asked for, to have room for its own bookkeeping.
        assert_eq!(socket.send_buffer_size().unwrap(), 80_000);
    }
}
