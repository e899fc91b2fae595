//! A start that cannot succeed: one line that names the key, the value and what is allowed; nothing opened.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use holdfast_e2e::wait::{PATIENCE, until_true};
use holdfast_e2e::{Gateway, Setup, StartFailure, run};
use tempfile::TempDir;

/// The start fails with one line on stderr that contains each of `words`.
#[track_caller]
fn assert_refused(setup: Setup, words: &[&str]) -> StartFailure {
    let failure = match setup.try_start() {
        Ok(gateway) => panic!("started all the same, at {}", gateway.mqtt()),
        Err(failure) => failure,
    };
    assert!(!failure.status.success() && failure.status.code().is_some(), "{}", failure.status);
    assert_one_line(&failure.stderr, words);
    failure
}

#[track_caller]
fn assert_one_line(stderr: &str, words: &[&str]) {
    assert_eq!(stderr.trim_end().lines().count(), 1, "more or less than one line:\n{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
    }
}

#[test]
fn an_unknown_key_is_named() {
    assert_refused(Setup::new().set("mqtt.recieve_maximum", 5), &["recieve_maximum", "receive_maximum"]);
    assert_refused(Setup::new().set("nonsense", 5), &["nonsense"]);
}

#[test]
fn a_value_out_of_range_is_told_its_range() {
    assert_refused(Setup::new().set("mqtt.receive_maximum", 0), &["mqtt.receive_maximum", "0", "1", "65535"]);
    assert_refused(Setup::new().set("mqtt.maximum_qos", 3), &["mqtt.maximum_qos", "3", "2"]);
    assert_refused(
        Setup::new().set("limits.connect_timeout_ms", 1),
        &["limits.connect_timeout_ms", "1", "100"],
    );
    assert_refused(Setup::new().set("mqtt.receive_maximum", 70_000), &["mqtt.receive_maximum", "70000"]);
}

#[test]
fn a_value_of_the_wrong_type_is_told_so() {
    assert_refused(Setup::new().set("mqtt.retain_available", 7), &["mqtt.retain_available", "7"]);
    assert_refused(Setup::new().set("mqtt.receive_maximum", "many"), &["mqtt.receive_maximum", "many"]);
}

#[test]
fn a_configuration_file_is_checked_as_the_command_line_is() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("holdfast.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("[mqtt]\nreceive_maximum = 0\n", &["mqtt.receive_maximum", "65535"][..]),
        ("[mqtt]\nno_such_key = 1\n", &["no_such_key"]),
        ("[mqtt\n", &["holdfast.toml"]),
    ] {
        fs::write(&file, text).unwrap();
        let check = run(&["config", "check", "--config", path], PATIENCE);
        assert!(!check.status.success(), "{text}");
        assert_one_line(&check.stderr, words);
    }
    fs::write(&file, "[mqtt]\nreceive_maximum = 7\n").unwrap();
    assert!(run(&["config", "check", "--config", path], PATIENCE).status.success());
    let print = run(&["config", "print", "--config", path], PATIENCE);
    assert!(print.status.success());
    assert!(print.stdout.contains("receive_maximum = 7"), "{}", print.stdout);
    let missing = folder.path().join("missing.toml");
    let check = run(&["config", "check", "--config", missing.to_str().unwrap()], PATIENCE);
    assert!(!check.status.success());
    assert_one_line(&check.stderr, &["missing.toml"]);
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_opened() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--mqtt", "--ws", "--admin"] {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let free = "127.0.0.1:0";
        let mut arguments = vec!["dev", "--data-dir", data.to_str().unwrap()];
        for listener in ["--mqtt", "--ws", "--admin"] {
            arguments.extend([listener, if listener == option { &address } else { free }]);
        }
        let dev = run(&arguments, PATIENCE);
        assert!(!dev.status.success(), "{option}");
        assert_one_line(&dev.stderr, &[&address, option.trim_start_matches("--")]);
        assert_eq!(dev.stdout, "", "{option}: it said where it listens");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    // A file where the directory should be refuses root as well.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_refused(Setup::new().data_dir(&file), &[file.to_str().unwrap()]);
    assert_refused(Setup::new().data_dir(&file.join("below")), &[file.to_str().unwrap()]);
    if !rustix::process::geteuid().is_root() {
        let locked = folder.path().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
        assert_refused(Setup::new().data_dir(&locked), &[locked.to_str().unwrap()]);
    }
}

#[test]
fn a_data_directory_in_use_by_another_process_is_named() {
    let gateway = Gateway::start();
    let data_dir = gateway.data_dir().to_owned();
    assert_refused(Setup::new().data_dir(&data_dir), &[data_dir.to_str().unwrap()]);
    // The first goes on undisturbed.
    until_true("the first to be ready", PATIENCE, || gateway.http("GET", "/readyz", &[], b"").status == 200);
}

#[test]
fn an_address_that_is_none_is_named() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let arguments = ["dev", "--mqtt", "here", "--data-dir", data.to_str().unwrap()];
    let dev = run(&arguments, PATIENCE);
    assert!(!dev.status.success());
    assert!(dev.stderr.contains("here") && dev.stderr.contains("mqtt"), "{}", dev.stderr);
}
