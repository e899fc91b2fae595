//! Towards the bridges: where they are, and what both ends prove to each other.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, within};

/// `[link]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// What the bridges ask for before they take a link; the same in all gateways and bridges. At most 1,024 bytes. Without one
    /// links stay on this machine. Default empty: none.
    pub secret: String,
    /// File that holds it instead, so that it stands in no environment; a line end after it does not count. Default empty: none.
    pub secret_file: PathBuf,
    /// The bridges, each `HOST:PORT`. Every address that a host name resolves to is a bridge of its own. Default: none.
    pub bridges: Vec<String>,
    /// How often host names in `bridges` are looked up, in seconds. 1 to 3,600. Default 10.
    pub resolve_every_s: u32,
    /// Whether bridges are told of each connection that begins or ends, for whoever follows `holdfast.events`. Default false.
    pub events: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            secret: String::new(),
            secret_file: PathBuf::new(),
            bridges: Vec::new(),
            resolve_every_s: 10,
            events: false,
        }
    }
}

/// Where one bridge is, or several under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeAddress {
    /// One, for as long as the node runs.
    Fixed(SocketAddr),
    /// `HOST:PORT`; looked up again and again.
    Name(String),
}

const SECRET_BYTES_MAX: usize = 1_024;

/// As many as an engine can have links.
const BRIDGES_MAX: usize = 64;

impl LinkConfig {
    pub(super) fn secret(&self) -> Result<Vec<u8>, ConfigError> {
        if self.secret_file.as_os_str().is_empty() {
            return check_length("link.secret", self.secret.clone().into_bytes());
        }
        let file = self.secret_file.display();
        let refuse = |allowed: String| ConfigError::new("link.secret_file", &file, allowed);
        if !self.secret.is_empty() {
            return Err(refuse("must not be given beside link.secret".to_owned()));
        }
        let mut secret = fs::read(&self.secret_file)
            .map_err(|error| refuse(format!("{error}; must be a file that this process may read")))?;
        while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            secret.pop();
        }
        if secret.is_empty() {
            return Err(refuse("is empty; must hold the secret".to_owned()));
        }
        check_length("link.secret_file", secret)
    }

    pub(super) fn bridges(&self) -> Result<Vec<BridgeAddress>, ConfigError> {
        if self.bridges.len() > BRIDGES_MAX {
            let count = format!("({} bridges)", self.bridges.len());
            return Err(ConfigError::new("link.bridges", count, "must be at most 64"));
        }
        self.bridges.iter().map(|bridge| BridgeAddress::parse(bridge)).collect()
    }

    pub(super) fn resolve_every(&self) -> Result<Duration, ConfigError> {
        let seconds = within("link.resolve_every_s", self.resolve_every_s, 1..=3_600)?;
        Ok(Duration::from_secs(seconds.into()))
    }
}

fn check_length(key: &'static str, secret: Vec<u8>) -> Result<Vec<u8>, ConfigError> {
    if secret.len() > SECRET_BYTES_MAX {
        let length = format!("({} bytes)", secret.len());
        return Err(ConfigError::new(key, length, "must have at most 1024 bytes"));
    }
    Ok(secret)
}

impl BridgeAddress {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Fixed(address));
        }
        let is_name = |(host, port): (&str, &str)| {
            !host.is_empty()
                && !host.contains([':', '/', ' ', '[', ']'])
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if text.rsplit_once(':').is_some_and(is_name) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(ConfigError::new("link.bridges", text, "must be HOST:PORT"))
        }
    }

    /// Whether it is certain to stay on this machine. A name could mean anything tomorrow, except for one.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Fixed(address) => address.ip().is_loopback(),
            Self::Name(name) => name.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
        }
    }
}

/// Refuses an address beyond this machine for want of a secret: whoever reaches a link reads and writes every device's messages.
pub fn secret_needed(key: &'static str, address: impl std::fmt::Display) -> ConfigError {
    let allowed = "must be on this machine unless there is a secret: set link.secret (HOLDFAST_LINK_SECRET) or link.secret_file, \
                   the same on all gateways and bridges";
    ConfigError::new(key, address, allowed)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn bridges(text: &str) -> Result<Vec<BridgeAddress>, ConfigError> {
        LinkConfig { bridges: vec![text.to_owned()], ..LinkConfig::default() }.bridges()
    }

    #[test]
    fn a_bridge_is_an_address_or_a_name_with_a_port() {
        assert_eq!(bridges("10.0.0.1:7").unwrap(), [BridgeAddress::Fixed("10.0.0.1:7".parse().unwrap())]);
        assert!(bridges("[::1]:7").unwrap()[0].is_loopback());
        assert!(bridges("localhost:7").unwrap()[0].is_loopback());
        assert!(!bridges("bridges.local:7").unwrap()[0].is_loopback());
        for wrong in ["bridge", "bridge:0", "bridge:port", ":7", "http://bridge:7", "::1:7"] {
            let line = bridges(wrong).unwrap_err().to_string();
            assert_eq!(line, format!("link.bridges = {wrong}: must be HOST:PORT"));
        }
    }

    #[test]
    fn a_secret_comes_from_its_key_or_its_file_without_the_line_end() {
        let mut file = std::env::temp_dir();
        file.push(format!("holdfast-link-secret-{}", std::process::id()));
        std::fs::File::create(&file).unwrap().write_all(b"s3cret\n").unwrap();
        let from_file = LinkConfig { secret_file: file.clone(), ..LinkConfig::default() };
        let secret = from_file.secret();
        let both = LinkConfig { secret: "x".into(), ..from_file }.secret();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(secret.unwrap(), b"s3cret");
        assert!(both.unwrap_err().to_string().ends_with("must not be given beside link.secret"));
        let gone = LinkConfig { secret_file: file, ..LinkConfig::default() }.secret().unwrap_err();
        assert!(gone.to_string().starts_with("link.secret_file = "), "{gone}");
    }
}
