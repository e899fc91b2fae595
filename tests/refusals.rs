//! What cannot be is refused with one line that says what to do, before anything is opened.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the binary in an empty directory with nothing of this process's own configuration.
fn holdfast(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    command.output().expect("the binary can be started")
}

/// The one line of a refusal.
fn refusal(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = holdfast(folder, arguments, variables);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("holdfast: "), "{stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    stderr.trim_end().to_owned()
}

#[test]
fn a_command_line_that_is_not_understood_is_answered_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["serve"][..], "unrecognized subcommand 'serve'"),
        (&["dev", "--mqqt", "x"], "a similar argument exists: '--mqtt'"),
        (&["dev", "--shards", "x"], "shards = \"x\": must be a whole number (from --shards)"),
        (&["demo", "--devices", "0"], "--devices 0: must be between 1 and 1000000"),
        (&["demo", "--seconds", "0"], "--seconds 0: must be more than 0 seconds, at most a year"),
        (&["demo", "--devices", "-1"], "'-1'"),
        (&["demo", "--devices", "99999999"], "--devices 99999999"),
        (&["log", "cat"], "<DIR>"),
        (&["log", "cat", "nowhere"], "nowhere: no such directory"),
        (&["log", "verify", "."], ".: there is no log; name a log or a data directory"),
        (&["config", "check", "--set", "shards"], "--set shards: must be KEY=VALUE"),
        (&["config", "check", "--config", "nowhere.toml"], "--config nowhere.toml: No such file"),
    ] {
        let line = refusal(folder.path(), arguments, &[]);
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_by_key_value_what_is_allowed_and_who_gave_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("h.toml"), "[mqtt]\nmaximum_qos = 3\n").unwrap();
    for command in ["dev", "config check", "config print"] {
        let words: Vec<&str> = command.split(' ').collect();
        let refused = |more: &[&str], variables: &[(&str, &str)]| {
            refusal(folder.path(), &[&words[..], more].concat(), variables)
        };
        assert_eq!(
            refused(&["--config", "h.toml"], &[]),
            "holdfast: mqtt.maximum_qos = 3: must be 0, 1 or 2 (from h.toml)"
        );
        assert_eq!(
            refused(&[], &[("HOLDFAST_MQTT__RECEIVE_MAXIMUM", "0")]),
            "holdfast: mqtt.receive_maximum = 0: must be between 1 and 65535 (from HOLDFAST_MQTT__RECEIVE_MAXIMUM)"
        );
        assert_eq!(
            refused(&["--set", "mqtt.recieve_maximum=5"], &[]),
            "holdfast: mqtt.recieve_maximum: no such key; did you mean mqtt.receive_maximum? (from --set)"
        );
        assert!(
            refused(&["--ws", "8083"], &[]).starts_with("holdfast: listeners.ws = 8083: must be HOST:PORT"),
        );
    }
    assert!(!folder.path().join("holdfast-data").exists(), "nothing was opened");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (option, key) in
        [("--mqtt", "listeners.mqtt"), ("--ws", "listeners.ws"), ("--admin", "listeners.admin")]
    {
        let mut arguments = vec!["dev"];
        for other in ["--mqtt", "--ws", "--admin"] {
            arguments.extend([other, if other == option { &taken } else { "127.0.0.1:0" }]);
        }
        let line = refusal(folder.path(), &arguments, &[]);
        assert!(line.starts_with(&format!("holdfast: {key} = {taken}: Address already in use")), "{line}");
    }
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), "").unwrap();
    let line = refusal(folder.path(), &["dev", "--data-dir", "data"], &[]);
    assert!(line.starts_with("holdfast: data_dir = data: "), "{line}");
    assert!(line.ends_with("it must be a directory that this process may write"), "{line}");
}

#[test]
fn what_a_bridge_cannot_have_on_its_own_machine_is_refused_before_any_server_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let servers = ["--store", "redis://127.0.0.1:1", "--link", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let bridge = |sink: &[&str]| {
        let own = ["bridge", "--data-dir", "data"];
        refusal(folder.path(), &[&own[..], &servers, sink].concat(), &[])
    };
    std::fs::create_dir(folder.path().join("data")).unwrap();
    for (file, sink) in [("spool", ["--kafka", "127.0.0.1:1"]), ("log", ["--sink", "log"])] {
        std::fs::write(folder.path().join("data").join(file), "").unwrap();
        let line = bridge(&sink);
        assert!(line.starts_with("holdfast: data_dir = data: ") && line.contains(file), "{line}");
    }
    let line = bridge(&["--kafka", "foo bar"]);
    assert_eq!(
        line,
        "holdfast: kafka.brokers = foo bar: must be HOST:PORT,… of brokers (--kafka) (from --kafka)"
    );
    std::fs::remove_file(folder.path().join("data/spool")).unwrap();
    let line = bridge(&["--kafka", "127.0.0.1:1"]);
    assert!(
        line.starts_with("holdfast: store.url = redis://127.0.0.1:1: "),
        "before anything is made: {line}"
    );
}

#[test]
fn a_ready_file_that_cannot_be_written_is_refused_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let line = refusal(folder.path(), &["dev", "--ready-file", "nowhere/ready.json"], &[]);
    assert!(line.starts_with("holdfast: ready_file = nowhere/ready.json: No such file"), "{line}");
    assert!(!folder.path().join("holdfast-data").exists());
}

#[test]
fn the_printed_configuration_can_be_used_as_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = holdfast(
        folder.path(),
        &["config", "print", "--set", "push.topic=p/{client_id}"],
        &[("HOLDFAST_LOG__LEVEL", "warn")],
    );
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("topic = \"p/{client_id}\"  # --set\n"), "{printed}");
    assert!(printed.contains("level = \"warn\"  # HOLDFAST_LOG__LEVEL\n"), "{printed}");
    std::fs::write(folder.path().join("printed.toml"), printed).unwrap();
    let again = holdfast(folder.path(), &["config", "check", "--config", "printed.toml"], &[]);
    assert_eq!(
        String::from_utf8_lossy(&again.stdout),
        "every key is valid; whether ports, data directory and servers can be had shows at the start\n"
    );
}
