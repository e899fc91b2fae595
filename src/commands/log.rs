//! `holdfast log cat | tail | verify`: reads the local log, also while a gateway writes it.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, Subcommand};
use holdfast_bridge::log::{Damage, Entry, LogError, LogReader, LogRecord, is_log, next_offset, verify};
use serde_json::json;

use crate::failure::Failure;

/// Arguments of `holdfast log`.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prints every record, oldest first
    Cat {
        #[command(flatten)]
        log: LogDirectory,
        /// Begins at this offset
        #[arg(long, value_name = "OFFSET", default_value_t = 0)]
        from: u64,
    },
    /// Prints the last records and then each new one
    Tail {
        #[command(flatten)]
        log: LogDirectory,
        /// Records to begin with
        #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
        lines: u64,
    },
    /// Reads every record, checks it, and says what is damaged; exits with 1 if anything is
    Verify {
        #[command(flatten)]
        log: LogDirectory,
    },
}

#[derive(Args, Debug)]
struct LogDirectory {
    /// The log's directory, or the data directory that it is in
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// How often `tail` looks for more. Files tell nobody that they have grown in a way that works everywhere.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Bytes of a payload that are shown to people.
const PAYLOAD_SHOWN_MAX: usize = 120;

/// Runs it.
pub(crate) fn run(arguments: LogArgs) -> Result<ExitCode, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = match arguments.action {
        Action::Cat { log, from } => cat(&log, from, &mut out),
        Action::Tail { log, lines } => tail(&log, lines, &mut out),
        Action::Verify { log } => check(&log, &mut out),
    };
    match outcome.and_then(|code| out.flush().map(|()| code).map_err(Stop::Output)) {
        Ok(code) => Ok(code),
        // A reader that has seen enough, such as `head`.
        Err(Stop::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(Stop::Output(error)) => Err(Failure::failed(format!("standard output: {error}"))),
        Err(Stop::Log(error)) => Err(Failure::failed(error)),
        Err(Stop::NoLog(directory)) => {
            let line = format!("{}: there is no log; name a log or a data directory", directory.display());
            Err(Failure::refused(line))
        }
        Err(Stop::NoDirectory(directory)) => {
            let line = format!("{}: no such directory; name a log or a data directory", directory.display());
            Err(Failure::refused(line))
        }
    }
}

/// Why reading ended early.
enum Stop {
    Output(io::Error),
    Log(LogError),
    NoDirectory(PathBuf),
    NoLog(PathBuf),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl LogDirectory {
    /// The directory with the segments.
    fn find(&self) -> Result<PathBuf, Stop> {
        if !self.directory.is_dir() {
            return Err(Stop::NoDirectory(self.directory.clone()));
        }
        let inside = self.directory.join("log");
        if inside.is_dir() && is_log(&inside)? {
            Ok(inside)
        } else if is_log(&self.directory)? {
            Ok(self.directory.clone())
        } else {
            Err(Stop::NoLog(self.directory.clone()))
        }
    }
}

fn cat(log: &LogDirectory, from: u64, out: &mut dyn Write) -> Result<ExitCode, Stop> {
    let directory = log.find()?;
    let mut reader = LogReader::open_from(&directory, from)?;
    let mut whole = true;
    while let Some(entry) = reader.next_entry()? {
        whole &= print(&entry, log.json, &directory, out)?;
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tail(log: &LogDirectory, lines: u64, out: &mut dyn Write) -> Result<ExitCode, Stop> {
    let directory = log.find()?;
    let first = next_offset(&directory)?.saturating_sub(lines);
    let mut reader = LogReader::open_from(&directory, first)?;
    loop {
        while let Some(entry) = reader.next_entry()? {
            print(&entry, log.json, &directory, out)?;
        }
        out.flush()?;
        thread::sleep(LOOK_EVERY);
    }
}

fn check(log: &LogDirectory, out: &mut dyn Write) -> Result<ExitCode, Stop> {
    let verdict = verify(&log.find()?)?;
    let lost: u64 = verdict.damage.iter().map(|damage| damage.missing).sum();
    if log.json {
        let damage: Vec<_> = verdict.damage.iter().map(damage_json).collect();
        let line = json!({
            "records": verdict.records,
            "first_offset": verdict.first_offset,
            "last_offset": verdict.last_offset,
            "missing": lost,
            "damage": damage,
        });
        writeln!(out, "{line}")?;
    } else {
        let (first, last) = (verdict.first_offset, verdict.last_offset);
        match verdict.records {
            0 => writeln!(out, "no records, {lost} missing")?,
            records => writeln!(out, "{records} records, offsets {first} to {last}, {lost} missing")?,
        }
        for damage in &verdict.damage {
            writeln!(out, "{}", damage_line(damage))?;
        }
    }
    Ok(if verdict.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a record; damage goes to standard error, and the answer is false.
fn print(entry: &Entry<'_>, json: bool, directory: &Path, out: &mut dyn Write) -> Result<bool, Stop> {
    match entry {
        Entry::Record(record) if json => record.write_json_line(out)?,
        Entry::Record(record) => print_record(record, out)?,
        Entry::Damaged(damage) => {
            eprintln!("holdfast: {}: {}", directory.display(), damage_line(damage));
            return Ok(false);
        }
    }
    Ok(true)
}

fn print_record(record: &LogRecord<'_>, out: &mut dyn Write) -> io::Result<()> {
    let message = &record.message;
    let again = if record.dup || record.resent { " again" } else { "" };
    write!(
        out,
        "{:>10}  {}  {}  {}  qos {}{again}  ",
        record.offset,
        message.published_at_ms,
        printable(message.publisher),
        printable(message.topic),
        u8::from(message.qos),
    )?;
    match std::str::from_utf8(message.payload) {
        Ok(text) if text.len() <= PAYLOAD_SHOWN_MAX => writeln!(out, "{}", printable(text)),
        _ => writeln!(out, "({} bytes)", message.payload.len()),
    }
}

/// Text of a device, which must not move the terminal's cursor.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

fn damage_line(damage: &Damage) -> String {
    format!(
        "segment {:020}, byte {}: {} bytes cannot be read; {} records from offset {} on are missing",
        damage.segment, damage.position, damage.bytes, damage.missing, damage.first_missing
    )
}

fn damage_json(damage: &Damage) -> serde_json::Value {
    json!({
        "segment": damage.segment,
        "position": damage.position,
        "bytes": damage.bytes,
        "first_missing": damage.first_missing,
        "missing": damage.missing,
    })
}
