//! Trouble that lasts costs patience and no processor: nobody asks in a loop for what is not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_e2e::packet::{Version, publish};
use holdfast_e2e::wait::{PATIENCE, pause, until_true};
use holdfast_e2e::{Client, Cluster, ClusterSetup, Role};

/// How long each trouble is looked at, at least. What follows is allowed in that time, and more as it takes longer.
const WHILE: Duration = Duration::from_secs(3);
/// What a process may spend on processors: less than any loop would take, and far beyond what timers and a build for tests do.
const CPU_MAX: Duration = Duration::from_millis(600);
/// How often one thread may wake: most do a few times, those that look after something some dozens; a timer of 10 ms would take 300.
const WAKINGS_MAX: u32 = 200;

#[test]
fn nobody_is_busy_with_waiting_for_kafka_redis_or_each_other() {
    let mut cluster = ClusterSetup::new().start();
    let mqtt = cluster.gateways[0].address("mqtt");
    let mut devices: Vec<_> =
        (0..10).map(|number| Client::open(mqtt, Version::V5, &format!("device-{number}"))).collect();
    let mut id = 0;
    // Something is owed to everyone at all times.
    let mut send = || {
        id += 1;
        for device in &mut devices {
            device.send(&publish(Version::V5, 1, "numbers", id, b"number"));
        }
    };
    let spools = |cluster: &Cluster| cluster.bridges[0].metrics().sum("holdfast_spool_state", &[]) != 0;
    let ready = |role: &Role| role.readiness() == Some(200);
    let both =
        |cluster: &Cluster, what: &str| assert_idle(what, &[&cluster.gateways[0], &cluster.bridges[0]]);

    send();
    both(&cluster, "all is well");

    for hanging in [false, true] {
        let what = if hanging { "hangs" } else { "refuses" };
        if hanging {
            cluster.kafka.pause(0);
        } else {
            cluster.kafka.kill(0);
        }
        send();
        until_true("frames to be spooled", PATIENCE, || spools(&cluster));
        both(&cluster, &format!("Kafka {what}"));
        if hanging {
            cluster.kafka.resume(0);
        } else {
            cluster.kafka.restart();
        }
        until_true("the spool to be empty", 3 * PATIENCE, || !spools(&cluster));

        if hanging {
            cluster.redis.pause();
        } else {
            cluster.redis.kill();
        }
        send();
        until_true("both to miss Redis", PATIENCE, || {
            !ready(&cluster.gateways[0]) && !ready(&cluster.bridges[0])
        });
        both(&cluster, &format!("Redis {what}"));
        if hanging {
            cluster.redis.resume();
        } else {
            cluster.redis.restart();
        }
        until_true("both to be ready again", PATIENCE, || {
            ready(&cluster.gateways[0]) && ready(&cluster.bridges[0])
        });

        if hanging {
            cluster.bridges[0].pause();
        } else {
            cluster.bridges[0].kill();
        }
        send();
        assert_idle(&format!("the bridge {what}"), &[&cluster.gateways[0]]);
        if hanging {
            cluster.bridges[0].resume();
        } else {
            cluster.bridges[0].restart();
        }
        until_true("the gateway to be ready again", PATIENCE, || ready(&cluster.gateways[0]));
    }

    cluster.gateways[0].pause();
    assert_idle("the gateway hangs", &[&cluster.bridges[0]]);
    cluster.gateways[0].resume();
    until_true("the gateway to be ready again", PATIENCE, || ready(&cluster.gateways[0]));
    // Everything that was sent in all of this is answered.
    for device in &mut devices {
        for expected in 1..=id {
            let answer = device.receive();
            assert_eq!((answer.id(), answer.reason()), (expected, 0), "{answer:?}");
        }
        device.ping();
    }
}

fn assert_idle(what: &str, roles: &[&Role]) {
    let before: Vec<_> = roles.iter().map(|role| (Instant::now(), role.cpu_time(), wakings(role))).collect();
    pause(WHILE);
    for (role, (since, cpu_before, wakings_before)) in roles.iter().zip(before) {
        let spent = role.cpu_time().saturating_sub(cpu_before);
        let mut woken = wakings(role);
        let elapsed = since.elapsed();
        let longer = elapsed.div_duration_f64(WHILE);
        // A thread that came meanwhile has all of its own in that time.
        for (thread, count) in &mut woken {
            *count = count.saturating_sub(wakings_before.get(thread).copied().unwrap_or_default());
        }
        woken.retain(|_, count| *count > 0);
        let name = role.name();
        eprintln!("while {what}: a {name} spends {spent:?} in {elapsed:?}; its threads wake: {woken:?}");
        let is_busy = spent >= CPU_MAX.mul_f64(longer);
        assert!(!is_busy, "while {what}, a {name} is busy: {spent:?} in {elapsed:?}");
        let restless = woken.values().any(|&count| count as f64 >= f64::from(WAKINGS_MAX) * longer);
        assert!(
            !restless,
            "while {what}, a {name} has a thread that does not rest in {elapsed:?}: {woken:?}"
        );
    }
}

/// How often each thread has ended a wait so far, by its name and number. Unlike time it is the same on a machine that is busy with others, or less.
fn wakings(role: &Role) -> BTreeMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{}/task", role.pid())).expect("it runs");
    let of = |thread: &Path| {
        let name = fs::read_to_string(thread.join("comm")).ok()?;
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let number = thread.file_name()?.to_string_lossy().into_owned();
        Some((format!("{} {number}", name.trim_end()), waits.trim().parse().expect("a count")))
    };
    // One that ends while it is looked at is none.
    threads.filter_map(|thread| of(&thread.expect("it runs").path())).collect()
}
