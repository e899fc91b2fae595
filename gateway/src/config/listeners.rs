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
    fn an_address_without_a_port_is_refused_in_one_line() {
        let config = ListenersConfig { ws: "127.0.0.1".into(), ..ListenersConfig::default() };
        let line = config.resolve().unwrap_err().to_string();
        assert!(line.starts_with("listeners.ws = 127.0.0.1: must be HOST:PORT"), "{line}");
        assert!(!line.contains('\n'));
    }
}
