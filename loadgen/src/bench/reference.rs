//! rumqttd, embedded: the reference broker that needs no installation. It runs in a process of its own, started by
//! this one again, so that its memory and CPU can be told apart.

use std::net::SocketAddr;

use rumqttd::{Broker, Config};
use serde_json::json;

use super::BenchError;

/// Serves until the process is ended.
pub fn serve(mqtt: SocketAddr, ws: Option<SocketAddr>) -> Result<(), BenchError> {
    let server = |name: &str, listen: SocketAddr| {
        json!({
            name: {
                "name": name,
                "listen": listen,
                "next_connection_delay_ms": 0,
                "connections": {
                    "connection_timeout_ms": 60_000,
                    "max_payload_size": 1_048_576,
                    "max_inflight_count": 200,
                    "dynamic_filters": true,
                },
            }
        })
    };
    let mut config = json!({
        "id": 0,
        "router": {
            "max_connections": 100_000,
            "max_outgoing_packet_count": 200,
            "max_segment_size": 104_857_600,
            "max_segment_count": 10,
        },
        "v4": server("v4", mqtt),
    });
    if let Some(ws) = ws {
        config["ws"] = server("ws", ws);
    }
    let failed = |why: String| BenchError::Start { name: "rumqttd".to_owned(), why };
    let config: Config = serde_json::from_value(config).map_err(|error| failed(error.to_string()))?;
    Broker::new(config).start().map_err(|error| failed(error.to_string()))
}
