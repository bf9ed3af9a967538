//! A TCP port kept for a server that is not running yet, or not running just now. Never listens or connects.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::net::TcpSocket;

/// A port that is ours until this is dropped.
///
/// On Linux the port is held by a socket that is bound with `SO_REUSEADDR` and does not listen. The kernel gives such a
/// port to nobody who asks for any free one, while a server that asks for it by number, also with `SO_REUSEADDR` as Go
/// does, gets it (`ip(7)`, `socket(7)`; shown for nats-server by the tests of this crate). So there is no moment at which
/// somebody else can take it, also not while the server is restarted. Other systems refuse the second bind; there the
/// port is only found, and held by nobody.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _held: Option<TcpSocket>,
}

impl Port {
    /// Keeps `port` at `ip`, or any free one if it is `None`. An error if somebody listens there.
    pub(crate) fn keep(ip: IpAddr, port: Option<u16>) -> io::Result<Port> {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(ip, port.unwrap_or(0)))?;
        let address = socket.local_addr()?;
        Ok(Port { address, _held: cfg!(target_os = "linux").then_some(socket) })
    }

    /// Where a server that was given this port listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where to reach that server from this machine.
    pub(crate) fn reachable(&self) -> SocketAddr {
        let mut address = self.address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        address
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_kept_port_is_given_to_nobody_who_asks_for_any() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let kept = Port::keep(ip, None).unwrap();
        for _ in 0..2_000 {
            let other = TcpListener::bind((ip, 0)).unwrap();
            assert_ne!(other.local_addr().unwrap(), kept.address());
        }
        // Asked for by number, it is there: std sets SO_REUSEADDR, as Go does.
        TcpListener::bind(kept.address()).unwrap();
    }

    #[test]
    fn a_port_with_a_listener_is_refused() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let taken = TcpListener::bind((ip, 0)).unwrap();
        let refused = Port::keep(ip, Some(taken.local_addr().unwrap().port())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }
}
