//! Memory and CPU of processes, from `/proc`.

use std::fs;
use std::ops::{Add, Sub};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::BenchError;

/// `USER_HZ`, which is 100 on every Linux that userspace sees: one tick in us.
const TICK_US: u64 = 10_000;

/// Between two looks at memory that is to come to rest.
const REST_LOOK: Duration = Duration::from_millis(100);

/// Equal looks that count as rest.
const REST_LOOKS: u32 = 5;

/// Patience for memory to come to rest; what moves for longer is read as it is.
const REST_MAX: Duration = Duration::from_secs(10);

/// The processes of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processes(Vec<u32>);

/// CPU time, user and system, in us; steps of 10 ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuTime {
    /// In us.
    pub us: u64,
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub resident_bytes: u64,
    /// Without files that are mapped: heap and stacks.
    pub anonymous_bytes: u64,
}

impl Processes {
    /// These processes, threads included, children not.
    pub fn new(pids: Vec<u32>) -> Self {
        Self(pids)
    }

    /// Spent so far.
    pub fn cpu(&self) -> Result<CpuTime, BenchError> {
        self.0.iter().try_fold(CpuTime::default(), |sum, pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
            let cpu = stat.as_deref().and_then(parse_stat).ok_or(BenchError::Process(*pid))?;
            Ok(CpuTime { us: sum.us + cpu.us })
        })
    }

    /// Held now.
    pub fn memory(&self) -> Result<Memory, BenchError> {
        self.0.iter().try_fold(Memory::default(), |sum, pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok();
            let memory = status.as_deref().and_then(parse_status).ok_or(BenchError::Process(*pid))?;
            Ok(sum + memory)
        })
    }

    /// Held once it no longer changes.
    pub(super) fn memory_at_rest(&self) -> Result<Memory, BenchError> {
        let deadline = Instant::now() + REST_MAX;
        let mut last = self.memory()?;
        let mut equal = 0;
        while equal < REST_LOOKS && Instant::now() < deadline {
            sleep(REST_LOOK);
            let now = self.memory()?;
            equal = if now == last { equal + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }
}

impl Sub for CpuTime {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { us: self.us.saturating_sub(earlier.us) }
    }
}

impl Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident_bytes: self.resident_bytes + other.resident_bytes,
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
        }
    }
}

/// The name of the program stands in parentheses and may hold anything, so fields are counted from the last one on.
fn parse_stat(stat: &str) -> Option<CpuTime> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(CpuTime { us: (user + system) * TICK_US })
}

fn parse_status(status: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim_start_matches(':').trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Some(Memory { resident_bytes: bytes("VmRSS")?, anonymous_bytes: bytes("RssAnon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_whatever_the_program_is_called() {
        let stat = "4711 (a) b ) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(stat), Some(CpuTime { us: 3_000_000 }));
        assert_eq!(parse_stat("4711 (short) R 1 2"), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t 1 kB\n";
        let memory = Memory { resident_bytes: 2 << 20, anonymous_bytes: 1 << 20 };
        assert_eq!(parse_status(status), Some(memory));
    }

    #[test]
    fn this_very_process_can_be_read_and_a_missing_one_is_an_error() {
        let own = Processes::new(vec![std::process::id()]);
        assert!(own.memory().unwrap().resident_bytes > 0);
        assert!(own.cpu().is_ok());
        assert!(matches!(Processes::new(vec![u32::MAX]).cpu(), Err(BenchError::Process(u32::MAX))));
    }
}
