//! Log lines to standard error, and a limit on those that a peer can trigger.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogConfig, LogFormat};

/// Sends all log lines of the process to standard error as `config` says. Only the first call of a process has an effect;
/// a level that [`validate`](crate::config::GatewayConfig::validate) would refuse counts as `info`.
pub fn init(config: &LogConfig) {
    let filter = config.targets().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let lines = match config.format {
        LogFormat::Text => fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr).boxed(),
        LogFormat::Json => fmt::layer().json().with_writer(io::stderr).boxed(),
    };
    // A second call finds a subscriber in place; the process has its log either way.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Lets a few lines a second through, so that a million bad peers cannot fill a disk or slow the loop down.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    second: u64,
    passed: u32,
    suppressed: u64,
}

/// Lines of one kind per second.
const LINES_PER_S_MAX: u32 = 10;

impl LogLimit {
    /// Whether a line may be written now; then with how many lines were suppressed since the last one.
    pub(crate) fn admit(&mut self, now_ms: u64) -> Option<u64> {
        let second = now_ms / 1_000;
        if second != self.second {
            self.second = second;
            self.passed = 0;
        }
        if self.passed == LINES_PER_S_MAX {
            self.suppressed += 1;
            return None;
        }
        self.passed += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_thinned_and_the_next_line_says_by_how_much() {
        let mut limit = LogLimit::default();
        let passed = (0..1_000).filter(|_| limit.admit(5_000).is_some()).count();
        assert_eq!(passed, 10);
        assert_eq!(limit.admit(6_000), Some(990));
        assert_eq!(limit.admit(6_000), Some(0));
    }
}
