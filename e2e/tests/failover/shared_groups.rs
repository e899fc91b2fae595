//! Persistent members of one shared subscription: what waits for their group is divided among those that are there.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_e2e::Client;
use holdfast_e2e::packet::{Connect, Version, acknowledge, kind, publish, receive_maximum};
use holdfast_e2e::wait::PATIENCE;

use super::{AT_LEAST, Fleet, heard, persistent};

const JOBS: u16 = 60;
const MEMBERS: [&str; 4] = ["m-1", "m-2", "m-3", "m-4"];
/// How many the member takes that does not acknowledge.
const TAKEN: u16 = 5;

/// Those who have subscribed, and rest.
fn make_members(fleet: &Fleet, names: &[&str]) {
    for name in names {
        let (mut member, _) = fleet.connect(1, &persistent(name));
        assert_eq!(member.subscribe("$share/workers/jobs", 1), 1);
        member.leave();
    }
}

fn publish_jobs(fleet: &Fleet, count: u16) {
    let (mut publisher, _) = fleet.connect(1, &Connect::new(Version::V5, "publisher"));
    for job in 1..=count {
        publisher.send(&publish(Version::V5, 1, "jobs", job, job.to_string().as_bytes()));
        assert_eq!(publisher.receive_kind(kind::PUBACK).reason(), 0);
    }
}

/// The next one that comes to any of them, which it acknowledges: its payload, and to whom.
fn hear_any(members: &mut [Client], deadline: Instant) -> (String, usize) {
    loop {
        for (number, member) in members.iter_mut().enumerate() {
            if let Ok(packet) = member.poll(Duration::from_millis(1)) {
                let heard = packet.publish(Version::V5);
                member.send(&acknowledge(kind::PUBACK, heard.id));
                return (String::from_utf8(heard.payload).expect("text"), number);
            }
        }
        assert!(Instant::now() < deadline, "nothing more comes");
    }
}

#[test]
fn members_that_come_back_before_a_killed_gateway_is_buried_divide_what_waits() {
    let mut fleet =
        Fleet::start_with(|bridge| bridge, |gateway| gateway.set("limits.pending_messages_max", 20));
    make_members(&fleet, &["dies"]);
    make_members(&fleet, &MEMBERS);
    publish_jobs(&fleet, JOBS);

    let (mut dies, session_present) = fleet.connect(0, &persistent("dies").property(&receive_maximum(TAKEN)));
    assert!(session_present);
    let taken: Vec<_> =
        (0..TAKEN).map(|_| String::from_utf8(dies.receive_publish().payload).expect("text")).collect();
    let killed_at = Instant::now();
    fleet.gateways[0].kill();
    let mut members = MEMBERS.map(|name| fleet.connect(1, &persistent(name)).0);

    let deadline = Instant::now() + 2 * PATIENCE;
    let mut by_job = BTreeMap::new();
    while by_job.len() < usize::from(JOBS) {
        let (job, member) = hear_any(&mut members, deadline);
        let is_early = killed_at.elapsed() < AT_LEAST;
        assert!(!is_early || !taken.contains(&job), "{job} is with the member whose gateway died");
        let former = by_job.insert(job.clone(), member);
        assert_eq!(former, None, "{job} came to {} too", MEMBERS[member]);
    }
}

/// The next thing that the client called `other` hears is pushed to it alone.
fn hears_its_push(fleet: &Fleet, other: &mut Client, payload: &str) {
    thread::scope(|scope| {
        let pushing = scope.spawn(|| fleet.push("other", payload));
        assert_eq!(heard(other), payload);
        assert_eq!(pushing.join().expect("an answer")["outcome"], "delivered");
    });
}

#[test]
fn what_a_slow_member_acknowledges_at_last_comes_to_nobody_else() {
    let fleet = Fleet::start();
    let (mut slow, _) = fleet.connect(0, &persistent("slow"));
    assert_eq!(slow.subscribe("$share/workers/jobs", 1), 1);
    // Acknowledged although the member is silent: the group's stream holds it.
    publish_jobs(&fleet, 1);
    let job = slow.receive_publish();
    let (mut other, _) = fleet.connect(1, &persistent("other"));
    assert_eq!(other.subscribe("$share/workers/jobs", 1), 1);
    assert_eq!(other.subscribe("devices/other/push", 1), 1);
    hears_its_push(&fleet, &mut other, "before");
    slow.send(&acknowledge(kind::PUBACK, job.id));
    slow.ping();
    other.leave();
    let (mut other, _) = fleet.connect(1, &persistent("other"));
    hears_its_push(&fleet, &mut other, "after");
}

#[test]
fn what_a_slow_member_is_lost_with_comes_to_another() {
    let fleet = Fleet::start();
    let (mut slow, _) = fleet.connect(0, &Connect::new(Version::V5, "slow"));
    assert_eq!(slow.subscribe("$share/workers/jobs", 1), 1);
    make_members(&fleet, &["other"]);
    publish_jobs(&fleet, 1);
    assert_eq!(slow.receive_publish().payload, b"1");
    let (mut other, _) = fleet.connect(1, &persistent("other"));
    slow.cut();
    assert_eq!(heard(&mut other), "1");
}
