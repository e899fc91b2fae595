//! Links to bridges that are processes of their own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use holdfast_gateway::{LinkTarget, NodeHandle};
use holdfast_wire::ids::BridgeId;
use holdfast_wire::link::{Hello, LINK_VERSION, ToBridge, ToGateway, Welcome, next_record};

use crate::client::{Client, connect_311, packet};
use crate::{config, http, start_node, wait_until};

/// Accepts a link, lets `check` see its Hello, and answers.
fn answer_hello(bridge: &TcpListener, check: impl Fn(&Hello<'_>), answer: &ToGateway<'_>) -> TcpStream {
    answer_hello_on(bridge.accept().unwrap().0, check, answer)
}

fn answer_hello_on<S: Read + Write>(mut stream: S, check: impl Fn(&Hello<'_>), answer: &ToGateway<'_>) -> S {
    let mut bytes = Vec::new();
    loop {
        let mut rest = &bytes[..];
        if let Some(raw) = next_record(&mut rest).unwrap() {
            let ToBridge::Hello(hello) = ToBridge::decode(raw).unwrap() else {
                panic!("the first record is Hello")
            };
            check(&hello);
            break;
        }
        let mut chunk = [0; 1_024];
        let length = stream.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "the shard introduces itself");
        bytes.extend_from_slice(&chunk[..length]);
    }
    let mut bytes = Vec::new();
    answer.encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
    stream
}

fn welcome(version: u16) -> ToGateway<'static> {
    ToGateway::Welcome(Welcome { version, bridge: BridgeId(1), window_bytes: 1 << 20 })
}

fn node_dialling(bridge: &TcpListener) -> NodeHandle {
    let mut config = config();
    config.shards = 1;
    config.link.secret.push_str("s3cret");
    start_node(&config, vec![LinkTarget::Address(bridge.local_addr().unwrap())])
}

fn links(node: &NodeHandle) -> bool {
    http::get(node.addresses().admin.unwrap(), "/readyz").json()["links"] == true
}

#[test]
fn a_bridge_that_went_away_is_dialled_again() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node_dialling(&bridge);
    for _ in 0..3 {
        let check = |hello: &Hello<'_>| {
            assert_eq!((hello.secret, hello.shard.node), (&b"s3cret"[..], node.node()));
        };
        let link = answer_hello(&bridge, check, &welcome(LINK_VERSION));
        wait_until("the link is up", || links(&node));
        drop(link);
        wait_until("the link is down", || !links(&node));
    }
}

#[test]
fn a_bridge_that_refuses_is_asked_again_later() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node_dialling(&bridge);
    let _refused = answer_hello(&bridge, |_| (), &ToGateway::Refused("wrong secret"));
    let _foreign = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION + 1));
    let _early = answer_hello(&bridge, |_| (), &ToGateway::WindowBytes(1));
    assert!(!links(&node));
    let _link = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));
}

#[test]
fn a_node_whose_bridge_does_not_listen_yet_starts_and_waits() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = config();
    config.shards = 1;
    let node = start_node(&config, vec![LinkTarget::Address(address)]);
    assert!(!links(&node));
    let bridge = TcpListener::bind(address).unwrap();
    let _link = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));
}

#[test]
fn bridges_are_found_by_name() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config();
    config.shards = 1;
    let port = bridge.local_addr().unwrap().port();
    let node = start_node(&config, vec![LinkTarget::Name(format!("localhost:{port}"))]);
    assert!(!links(&node));
    let _link = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));
}

#[test]
fn bridges_join_and_leave_while_the_node_runs() {
    let bridges = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = bridges.each_ref().map(|bridge| bridge.local_addr().unwrap());
    let welcome = |id| {
        ToGateway::Welcome(Welcome { version: LINK_VERSION, bridge: BridgeId(id), window_bytes: 1 << 20 })
    };
    let mut config = config();
    config.shards = 1;
    let node = start_node(&config, vec![]);
    assert!(!links(&node));
    node.know_bridges(&addresses[..1]);
    let first = answer_hello(&bridges[0], |_| (), &welcome(1));
    wait_until("the link is up", || links(&node));

    // The second joins, the first leaves its name: its link stands as long as it wants.
    node.know_bridges(&addresses[..2]);
    let second = answer_hello(&bridges[1], |_| (), &welcome(2));
    node.know_bridges(&addresses[1..2]);
    drop(second);
    let second = answer_hello(&bridges[1], |_| (), &welcome(2));
    assert!(links(&node), "the first one's link still stands");
    drop(first);

    // A third takes its place; the first is not dialled again, until it is known again.
    node.know_bridges(&addresses[1..]);
    let third = answer_hello(&bridges[2], |_| (), &welcome(3));
    drop(second);
    let second = answer_hello(&bridges[1], |_| (), &welcome(2));
    bridges[0].set_nonblocking(true).unwrap();
    assert!(bridges[0].accept().is_err(), "nobody dials it");
    bridges[0].set_nonblocking(false).unwrap();
    node.know_bridges(&addresses);
    let _first = answer_hello(&bridges[0], |_| (), &welcome(4));
    drop((second, third));
}

#[test]
fn a_bridge_under_two_addresses_has_one_link() {
    let bridge = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = bridge.local_addr().unwrap().port();
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|host| format!("{host}:{port}").parse().unwrap());
    let mut config = config();
    config.shards = 1;
    let node = start_node(&config, vec![]);
    node.know_bridges(&addresses);
    let first = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    let second = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    // What a bridge does with the former of two links of one shard.
    drop(first);
    wait_until("the link is up", || links(&node));
    // Twice as long as the first pause.
    bridge.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_millis(300);
    while Instant::now() < deadline {
        assert!(bridge.accept().is_err(), "it is reached already");
        std::thread::yield_now();
    }
    bridge.set_nonblocking(false).unwrap();
    drop(second);
    let _again = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));
}

#[test]
fn a_name_that_does_not_resolve_keeps_the_node_waiting_and_says_so() {
    let mut config = config();
    config.shards = 1;
    let node = start_node(&config, vec![LinkTarget::Name("no-such-host.invalid:7".to_owned())]);
    let answer = http::get(node.addresses().admin.unwrap(), "/readyz");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["shards_without_link"], serde_json::json!([0]));
    assert!(answer.json()["reason"].as_str().unwrap().contains("link"));
}

#[test]
fn nobody_is_admitted_before_the_node_is_told_to() {
    let options = holdfast_store::Options::default();
    let store = std::sync::Arc::new(holdfast_store::MemoryStore::new(options.clock, options.bounds));
    let settings = config().validate().unwrap();
    let mut node = holdfast_gateway::Node::start(
        holdfast_gateway::NodeConfig::new(settings),
        store,
        vec![LinkTarget::Name("no-such-host.invalid:7".to_owned())],
    )
    .unwrap();
    let mqtt: SocketAddr = node.addresses().mqtt.unwrap();
    assert!(TcpStream::connect(mqtt).is_err());
    node.admit().unwrap();
    TcpStream::connect(mqtt).unwrap();
}

#[test]
fn a_quiet_link_is_kept_alive_and_one_that_gives_no_sign_is_lost() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node_dialling(&bridge);
    let mut link = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));
    let begun = Instant::now();
    let mut heard = Vec::new();
    link.read_to_end(&mut heard).unwrap_or_default();
    assert!(begun.elapsed() > Duration::from_secs(14), "lost after {:?}", begun.elapsed());
    let mut alive = Vec::new();
    ToBridge::Alive.encode(&mut alive);
    assert_eq!(heard, alive.repeat(2));
    wait_until("the link is down", || !links(&node));
}

/// SUBSCRIBE or UNSUBSCRIBE, by its first byte, with filters that are nearly as long as may be.
fn long_filters(first: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    for number in 0..8 {
        let filter = format!("{number}{}", "x".repeat(60_000));
        body.extend_from_slice(&(filter.len() as u16).to_be_bytes());
        body.extend_from_slice(filter.as_bytes());
        body.extend((first == SUBSCRIBE).then_some(1));
    }
    packet(first, &body)
}

const SUBSCRIBE: u8 = 0x82;
const UNSUBSCRIBE: u8 = 0xa2;

/// Reads a link until this filter is announced on it.
fn hear_interest(link: &mut impl Read, filter: &str) {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let mut rest = &bytes[..];
        while let Some(raw) = next_record(&mut rest).unwrap() {
            if let ToBridge::Interest(interest) = ToBridge::decode(raw).unwrap()
                && interest.wanted
                && interest.filter == filter
            {
                return;
            }
        }
        let length = link.read(&mut chunk).unwrap();
        assert_ne!(length, 0, "{filter} is announced");
        bytes.extend_from_slice(&chunk[..length]);
    }
}

#[test]
fn a_bridge_that_lives_and_takes_nothing_is_dialled_again_and_told_anew() {
    let bridge = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = node_dialling(&bridge);
    let mut stuck = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));
    let mqtt = node.addresses().mqtt.unwrap();
    let mut listening = Client::connect(mqtt, "listening");
    listening.send(&packet(SUBSCRIBE, b"\0\x01\0\x06kept/#\x01"));
    hear_interest(&mut stuck, "kept/#");

    // More and more waits for the bridge, which gives signs of life and reads nothing. The client is not read while there is no link.
    let mut restless = TcpStream::connect(mqtt).unwrap();
    restless.write_all(&connect_311("restless")).unwrap();
    let round = [SUBSCRIBE, UNSUBSCRIBE].map(long_filters).concat();
    std::thread::spawn(move || while restless.write_all(&round).is_ok() {});
    let mut alive = Vec::new();
    ToGateway::Alive.encode(&mut alive);
    wait_until("the link is given up", || {
        let _ = stuck.write_all(&alive);
        !links(&node)
    });

    let mut link = answer_hello(&bridge, |_| (), &welcome(LINK_VERSION));
    hear_interest(&mut link, "kept/#");
    let overrun = |line: &str| line.starts_with("holdfast_links_overrun_total") && !line.ends_with(" 0");
    let admin = node.addresses().admin.unwrap();
    wait_until("it is counted", || http::get(admin, "/metrics").body.lines().any(overrun));
}

#[test]
fn a_bridge_in_the_same_process_is_borne_with_as_nobody_could_dial_it_again() {
    /// A megabyte each, of which half is said to the bridge: far beyond what may wait for one that could be dialled.
    const ROUNDS: usize = 40;
    let (far, near) = UnixStream::pair().unwrap();
    let mut config = config();
    config.shards = 1;
    let node = start_node(&config, vec![LinkTarget::Pair(vec![near])]);
    let mut bridge = answer_hello_on(far, |_| (), &welcome(LINK_VERSION));
    wait_until("the link is up", || links(&node));

    let mut restless = TcpStream::connect(node.addresses().mqtt.unwrap()).unwrap();
    restless.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    restless.write_all(&connect_311("restless")).unwrap();
    let round = [SUBSCRIBE, UNSUBSCRIBE].map(long_filters).concat();
    for _ in 0..ROUNDS {
        restless.write_all(&round).expect("it is read while the link stands");
    }
    restless.write_all(&packet(SUBSCRIBE, b"\0\x02\0\x04last\x01")).unwrap();
    hear_interest(&mut bridge, "last");
    assert!(links(&node));
}
