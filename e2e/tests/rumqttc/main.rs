//! rumqttc, a client that reconnects by itself, in both versions of the protocol.
//!
//! `E2E_MQTT=host:port` judges a broker that runs already; otherwise each test has a gateway of its own.

mod v4;
mod v5;

use std::env;
use std::future::Future;
use std::net::SocketAddr;

use holdfast_e2e::wait::PATIENCE;
use holdfast_e2e::{Gateway, Setup};

/// What a device may hear that nobody awaits. Full: its event loop waits, as on a slow device.
const EVENTS_MAX: usize = 4096;

/// The broker that is judged.
enum Broker {
    Own(Box<Gateway>),
    Elsewhere(SocketAddr),
}

impl Broker {
    fn start() -> Self {
        match env::var("E2E_MQTT") {
            Ok(address) => Self::Elsewhere(address.parse().expect("E2E_MQTT is HOST:PORT")),
            Err(_) => Self::Own(Box::new(Setup::new().start())),
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Own(gateway) => gateway.mqtt(),
            Self::Elsewhere(address) => *address,
        }
    }
}

/// Awaits with a deadline.
async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await.ok();
    output.unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain for {what}"))
}
