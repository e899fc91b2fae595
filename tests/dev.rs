//! `holdfast dev` from its ready file to its end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Long against everything that is awaited here; a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

struct Dev {
    child: Child,
    ready_file: PathBuf,
    /// Its log lines.
    log: PathBuf,
}

impl Dev {
    fn start(folder: &Path, more: &[&str]) -> Self {
        let ready_file = folder.join("ready.json");
        let child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
            .args(["dev", "--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .expect("the binary can be started");
        Self { child, ready_file, log: folder.join("log") }
    }

    fn ready(&self) -> Value {
        let text = until("the ready file", || fs::read(&self.ready_file).ok());
        serde_json::from_slice(&text).expect("it is never seen half written")
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        until("its end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn connect(ready: &Value, listener: &str) -> TcpStream {
    let address = ready[listener].as_str().unwrap_or_else(|| panic!("no {listener} in {ready}"));
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A device `sensor-1` that is subscribed to its push topic, by hand: CONNECT, CONNACK, SUBSCRIBE, SUBACK.
fn connect_sensor(ready: &Value) -> TcpStream {
    let mut sensor = connect(ready, "mqtt");
    sensor.write_all(b"\x10\x14\x00\x04MQTT\x04\x02\x00\x00\x00\x08sensor-1").unwrap();
    let mut answer = [0; 4];
    sensor.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\x20\x02\x00\x00");
    sensor.write_all(b"\x82\x1a\x00\x01\x00\x15devices/sensor-1/push\x00").unwrap();
    let mut answer = [0; 5];
    sensor.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\x90\x03\x00\x01\x00");
    sensor
}

#[test]
fn the_ready_file_names_what_admits_devices_and_goes_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path(), &[]);
    let ready = dev.ready();
    assert_eq!(ready["pid"], dev.child.id());
    assert_eq!(ready["push"], ready["admin"]);
    assert_eq!(ready["node"].as_str().map(str::len), Some(16));
    drop((connect(&ready, "mqtt"), connect(&ready, "ws"), connect(&ready, "admin")));
    dev.terminate();
    assert_eq!(dev.end().code(), Some(0));
    assert!(!dev.ready_file.exists());
}

#[test]
fn the_curl_line_that_it_prints_reaches_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(folder.path(), &[]);
    let ready = dev.ready();
    let mut sensor = connect_sensor(&ready);
    let printed = BufReader::new(dev.child.stdout.take().unwrap());
    let curl = printed.lines().map_while(Result::ok).find(|line| line.contains("curl")).expect("a curl line");
    let answer = Command::new("sh").args(["-c", curl.trim()]).output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["outcome"], "delivered");
    let mut push = [0; 30];
    sensor.read_exact(&mut push).unwrap();
    assert_eq!(&push, b"\x30\x1c\x00\x15devices/sensor-1/pushhello");
}

#[test]
fn a_data_directory_has_one_process_and_the_second_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    dev.ready();
    let data_dir = folder.path().join("data");
    let published = fs::read(&dev.ready_file).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["dev", "--mqtt", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(&data_dir)
        .arg("--ready-file")
        .arg(&dev.ready_file)
        .output()
        .unwrap();
    let line = String::from_utf8(second.stderr).unwrap();
    assert_eq!((second.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    assert!(line.starts_with(&format!("holdfast: data_dir = {}: ", data_dir.display())), "{line}");
    assert!(line.contains("in use by process"), "{line}");
    assert_eq!(fs::read(&dev.ready_file).unwrap(), published, "a start that is refused touches nothing");
}

#[test]
fn twins_are_named_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let dev = Dev::start(folder.path(), &[]);
    let ready = dev.ready();
    let twins = [connect_sensor(&ready), connect_sensor(&ready)];
    let line = until("the line about the first", || {
        let text = fs::read_to_string(&dev.log).unwrap();
        text.lines().find(|line| line.contains("session_taken_over")).map(str::to_owned)
    });
    let peer = twins[0].local_addr().unwrap();
    assert!(line.contains("client_id=\"sensor-1\""), "{line}");
    assert!(line.contains(&format!("peer={peer}")) && !line.contains("suppressed"), "{line}");
}

#[test]
fn a_second_signal_does_not_wait_for_the_end_of_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    // One device that takes no goodbye keeps the drain waiting.
    let slow = ["--set", "drain.deadline_ms=600000", "--set", "drain.goodbyes_per_s=1", "--shards", "1"];
    let mut dev = Dev::start(folder.path(), &slow);
    let ready = dev.ready();
    let devices: Vec<_> = (0..3).map(|_| connect_anonymous(&ready)).collect();
    dev.terminate();
    until("the drain", || (!dev.ready_file.exists()).then_some(()));
    dev.terminate();
    assert_eq!(dev.end().code(), Some(1));
    drop(devices);
}

fn connect_anonymous(ready: &Value) -> TcpStream {
    let mut device = connect(ready, "mqtt");
    device.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00").unwrap();
    let mut answer = [0; 4];
    device.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"\x20\x02\x00\x00");
    device
}

#[test]
fn it_ends_with_whoever_started_it() {
    let folder = tempfile::tempdir().unwrap();
    let ready_file = folder.path().join("ready.json");
    // A shell that starts it, says its own id, and is then killed.
    let line = format!(
        "{} dev --mqtt 127.0.0.1:0 --ws 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir {} --ready-file {} --end-with $$ & wait",
        env!("CARGO_BIN_EXE_holdfast"),
        folder.path().join("data").display(),
        ready_file.display(),
    );
    let mut shell =
        Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the ready file", || ready_file.exists().then_some(()));
    shell.kill().unwrap();
    shell.wait().unwrap();
    until("its end", || (!ready_file.exists()).then_some(()));
}
