//! Where the gateway listens.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// `[listeners]`: an address is `HOST:PORT`; port 0 takes a free one; `off` opens no listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenersConfig {
    /// MQTT over TCP. Default `127.0.0.1:1883`.
    pub mqtt: String,
    /// WebSocket: MQTT at `/mqtt`, JSON devices at `/v1/devices/{client_id}/socket`. Default `127.0.0.1:8083`.
    pub ws: String,
    /// Metrics, health, device lookup. Keep it away from devices: whoever reaches it may disconnect them.
    /// Default `127.0.0.1:9090`.
    pub admin: String,
}

impl Default for ListenersConfig {
    fn default() -> Self {
        Self { mqtt: "127.0.0.1:1883".into(), ws: "127.0.0.1:8083".into(), admin: "127.0.0.1:9090".into() }
    }
}

/// The word that stands for "no listener".
const OFF: &str = "off";

impl ListenersConfig {
    pub(super) fn resolve(&self) -> Result<ListenAddresses, ConfigError> {
        let addresses = ListenAddresses {
            mqtt: resolve("listeners.mqtt", &self.mqtt)?,
            ws: resolve("listeners.ws", &self.ws)?,
            admin: resolve("listeners.admin", &self.admin)?,
        };
        if addresses.mqtt.is_none() && addresses.ws.is_none() {
            return Err(ConfigError::new(
                "listeners.mqtt",
                &self.mqtt,
                "may be off only if listeners.ws is not",
            ));
        }
        addresses.check_distinct()?;
        Ok(addresses)
    }
}

/// [`ListenersConfig`] understood; none where the listener is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddresses {
    /// MQTT over TCP.
    pub mqtt: Option<SocketAddr>,
    /// WebSocket.
    pub ws: Option<SocketAddr>,
    /// The admin server.
    pub admin: Option<SocketAddr>,
}

impl ListenAddresses {
    /// The sockets of one group share their address; so would those of two, and connections would be spread over both.
    fn check_distinct(&self) -> Result<(), ConfigError> {
        let all = [("listeners.mqtt", self.mqtt), ("listeners.ws", self.ws), ("listeners.admin", self.admin)];
        for (place, (key, address)) in all.iter().enumerate() {
            let Some(address) = address else { continue };
            let same =
                |(_, other): &&(_, Option<SocketAddr>)| other.is_some_and(|other| overlap(*address, other));
            if let Some((other, _)) = all[..place].iter().find(same) {
                return Err(ConfigError::new(
                    key,
                    address,
                    format!("must differ from {other}, which has that address"),
                ));
            }
        }
        Ok(())
    }
}

/// Whether connections to one might reach the other. Port 0 is a free one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || any)
}

/// A host name stands for its first address.
fn resolve(key: &'static str, value: &str) -> Result<Option<SocketAddr>, ConfigError> {
    if value == OFF {
        return Ok(None);
    }
    match value.to_socket_addrs().map(|mut all| all.next()) {
        Ok(Some(address)) => Ok(Some(address)),
        Ok(None) => Err(ConfigError::new(key, value, "the host has no address")),
        Err(error) => Err(ConfigError::new(key, value, format!("must be HOST:PORT or \"off\" ({error})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_opens_no_listener_but_devices_need_one() {
        let admin_off = ListenersConfig { admin: "off".into(), ..ListenersConfig::default() };
        assert_eq!(admin_off.resolve().unwrap().admin, None);
        let none = ListenersConfig { mqtt: "off".into(), ws: "off".into(), ..ListenersConfig::default() };
        assert_eq!(none.resolve().unwrap_err().key, "listeners.mqtt");
    }

    #[test]
    fn two_listeners_cannot_have_one_address() {
        let line = |mqtt: &str, ws: &str, admin: &str| {
            let config = ListenersConfig { mqtt: mqtt.into(), ws: ws.into(), admin: admin.into() };
            config.resolve().err().map(|error| error.to_string())
        };
        assert_eq!(
            line("127.0.0.1:1883", "127.0.0.1:1883", "off").unwrap(),
            "listeners.ws = 127.0.0.1:1883: must differ from listeners.mqtt, which has that address"
        );
        assert!(line("127.0.0.1:1883", "off", "0.0.0.0:1883").unwrap().starts_with("listeners.admin = "));
        assert_eq!(line("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"), None);
        assert_eq!(line("127.0.0.1:1883", "127.0.0.2:1883", "127.0.0.1:1884"), None);
    }

    #[test]
    fn an_address_without_a_port_is_refused_in_one_line() {
        let config = ListenersConfig { ws: "127.0.0.1".into(), ..ListenersConfig::default() };
        let line = config.resolve().unwrap_err().to_string();
        assert!(line.starts_with("listeners.ws = 127.0.0.1: must be HOST:PORT"), "{line}");
        assert!(!line.contains('\n'));
    }
}
