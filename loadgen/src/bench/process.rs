//! Memory and CPU of processes, from `/proc`; of some of their threads too, where a part of a process has a budget.

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
pub struct Processes {
    pids: Vec<u32>,
    gateway_threads: Option<&'static str>,
}

/// CPU time, user and system, in us; steps of 10 ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuTime {
    /// In us.
    pub us: u64,
}

/// CPU time of a broker and, within it, of the threads that serve devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of the threads named by [`Processes::with_gateway_threads`]; of a broker without such, everything.
    pub gateway: CpuTime,
    /// Everything.
    pub whole: CpuTime,
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
        Self { pids, gateway_threads: None }
    }

    /// Threads whose name begins so are the gateway; the others do what other brokers do not do at all.
    #[must_use]
    pub fn with_gateway_threads(self, prefix: &'static str) -> Self {
        Self { gateway_threads: Some(prefix), ..self }
    }

    /// Spent so far, the gateway's part apart. An error if no thread has the gateway's name.
    pub fn spent(&self) -> Result<Spent, BenchError> {
        let threads: Vec<Thread> = self.pids.iter().flat_map(|pid| threads_of(*pid)).collect();
        // Both can only be too small: the process' time is cut to whole ticks, twice, and the threads' sum misses
        // those that have ended.
        let whole = self.cpu()?.max(sum(threads.iter()));
        let Some(prefix) = self.gateway_threads else { return Ok(Spent { gateway: whole, whole }) };
        let mut named = threads.iter().filter(|thread| thread.name.starts_with(prefix)).peekable();
        if named.peek().is_none() {
            return Err(BenchError::Threads(prefix));
        }
        Ok(Spent { gateway: sum(named), whole })
    }

    /// Spent so far.
    pub fn cpu(&self) -> Result<CpuTime, BenchError> {
        self.pids.iter().try_fold(CpuTime::default(), |sum, pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok();
            let cpu = stat.as_deref().and_then(parse_stat).ok_or(BenchError::Process(*pid))?;
            Ok(CpuTime { us: sum.us + cpu.us })
        })
    }

    /// Held now.
    pub fn memory(&self) -> Result<Memory, BenchError> {
        self.pids.iter().try_fold(Memory::default(), |sum, pid| {
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

impl Sub for Spent {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { gateway: self.gateway - earlier.gateway, whole: self.whole - earlier.whole }
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

struct Thread {
    name: String,
    cpu: CpuTime,
}

/// The living threads. One that ends while it is looked at is left out.
fn threads_of(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let read = |file| fs::read_to_string(task.path().join(file)).ok();
            let ticks = parse_stat(&read("stat")?)?;
            // Not every kernel counts ns.
            let precise = read("schedstat").as_deref().and_then(parse_schedstat).unwrap_or_default();
            Some(Thread { name: read("comm")?, cpu: ticks.max(precise) })
        })
        .collect()
}

fn sum<'a>(threads: impl Iterator<Item = &'a Thread>) -> CpuTime {
    CpuTime { us: threads.map(|thread| thread.cpu.us).sum() }
}

fn parse_schedstat(schedstat: &str) -> Option<CpuTime> {
    let ns: u64 = schedstat.split(' ').next()?.parse().ok()?;
    Some(CpuTime { us: ns / 1_000 })
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
    fn a_threads_time_is_known_to_the_nanosecond() {
        assert_eq!(parse_schedstat("1234567 89 10\n"), Some(CpuTime { us: 1_234 }));
        assert_eq!(parse_schedstat(""), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nRssFile:\t 1 kB\n";
        let memory = Memory { resident_bytes: 2 << 20, anonymous_bytes: 1 << 20 };
        assert_eq!(parse_status(status), Some(memory));
    }

    #[test]
    fn threads_of_a_name_are_counted_apart_from_their_process() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = std::thread::Builder::new()
            .name("shard-7".to_owned())
            .spawn(move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {});
        let own = Processes::new(vec![std::process::id()]).with_gateway_threads("shard-");
        let deadline = Instant::now() + Duration::from_secs(20);
        // A thread gives itself its name once it runs.
        let mut spent = Spent::default();
        while spent.gateway.us < 5 * TICK_US && Instant::now() < deadline {
            sleep(Duration::from_millis(5));
            spent = own.spent().unwrap_or_default();
        }
        drop(stop);
        busy.unwrap().join().unwrap();
        assert!(spent.gateway.us >= 5 * TICK_US && spent.gateway <= spent.whole, "{spent:?}");
    }

    #[test]
    fn without_such_threads_the_gateway_is_the_process_or_an_error() {
        let own = Processes::new(vec![std::process::id()]);
        let spent = own.spent().unwrap();
        assert_eq!(spent.gateway, spent.whole);
        let named = own.with_gateway_threads("no-such-");
        assert!(matches!(named.spent(), Err(BenchError::Threads("no-such-"))));
    }

    #[test]
    fn this_very_process_can_be_read_and_a_missing_one_is_an_error() {
        let own = Processes::new(vec![std::process::id()]);
        assert!(own.memory().unwrap().resident_bytes > 0);
        assert!(own.cpu().is_ok());
        assert!(matches!(Processes::new(vec![u32::MAX]).cpu(), Err(BenchError::Process(u32::MAX))));
    }
}
