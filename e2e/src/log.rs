//! What the gateway's log holds, as `holdfast log cat` tells it.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::find_binary;

/// One record.
#[derive(Debug, Clone, Deserialize)]
pub struct Frame {
    /// Who sent it.
    pub client_id: String,
    /// Where to.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Sent as DUP.
    pub dup: bool,
    /// Of the PUBLISH; none with QoS 0.
    pub packet_id: Option<u16>,
    /// Its place in the log.
    pub offset: u64,
    /// When the gateway had it, in milliseconds since 1970.
    pub received_at: u64,
    /// When the device says it was measured, in milliseconds since 1970.
    pub event_time: Option<u64>,
    payload_base64: String,
}

impl Frame {
    /// What it carries.
    ///
    /// # Panics
    /// When the log's reader wrote something else than base64.
    pub fn payload(&self) -> Vec<u8> {
        BASE64_STANDARD.decode(&self.payload_base64).expect("payload_base64 is base64")
    }
}

/// Every record of a log, in its order.
///
/// # Panics
/// When the reader fails or prints what is not described.
pub fn read(log_dir: &Path) -> Vec<Frame> {
    let output = Command::new(find_binary())
        .args(["log", "cat"])
        .arg(log_dir)
        .arg("--json")
        .output()
        .expect("the binary can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`holdfast log cat` ended with {}: {complaint}", output.status);
    String::from_utf8(output.stdout)
        .expect("JSON is UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}")))
        .collect()
}
