//! An address that is taken before anything is opened, and answered only once there is somebody to answer.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// An address that is ours. Until it is served, whoever dials it is refused at once instead of being kept waiting by the kernel.
#[derive(Debug)]
pub struct ReservedAddress {
    socket: Socket,
    address: SocketAddr,
}

/// Connections that the kernel keeps until they are accepted, as the standard library has it.
const BACKLOG: i32 = 128;

impl ReservedAddress {
    /// Takes it; with port 0 a free one.
    pub fn take(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Connections of a process that ended a moment ago do not hold it.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        let taken = socket.local_addr()?.as_socket();
        Ok(Self { address: taken.unwrap_or(address), socket })
    }

    /// The address really taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections from now on. Fails if another process does so there, which had reserved it as well.
    pub fn serve(self) -> io::Result<TcpListener> {
        self.socket.listen(BACKLOG)?;
        Ok(self.socket.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn an_address_that_is_only_reserved_refuses_whoever_dials_it() {
        let reserved = ReservedAddress::take("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reserved.address();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let listener = reserved.serve().unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn an_address_that_somebody_serves_cannot_be_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = ReservedAddress::take(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}
