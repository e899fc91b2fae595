//! What MQTT costs on the heap: nothing for reading, nothing for writing into a buffer with room, and a known sum
//! for each filter in a tree.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use holdfast_wire::mqtt::{
    FixedHeader, Packet, PacketId, ProtocolVersion, PubAck, Publish, PublishProperties, QoS, Subscribe,
    SubscribeProperties, SubscriptionOptions, publish,
};
use holdfast_wire::topic::{FilterTree, TopicTree};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that is ending has no counters any more, and no test either.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + usize::from(bytes > 0)));
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes));
}

/// As the usual allocators do: eight bytes of their own, in steps of sixteen.
fn weight(size: usize) -> isize {
    (size + 8).next_multiple_of(16).cast_signed()
}

// SAFETY: each call goes unaltered to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(weight(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-weight(layout.size()));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn allocations_of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let done = work();
    (ALLOCATIONS.get() - before, done)
}

fn live_bytes_of<T>(work: impl FnOnce() -> T) -> (isize, T) {
    let before = LIVE_BYTES.get();
    let done = work();
    (LIVE_BYTES.get() - before, done)
}

fn read(bytes: &[u8], version: ProtocolVersion) -> Packet<'_> {
    let header = FixedHeader::decode(bytes).expect("valid").expect("whole");
    Packet::decode(header, &bytes[header.header_length.into()..], version).expect("valid")
}

const ID: PacketId = PacketId::MIN;

#[test]
fn reading_a_publish_with_all_its_properties_allocates_nothing() {
    let pairs = [("event-time", "1700000000000"), ("unit", "celsius")];
    let packet = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "devices/device-00031415/temperature",
        packet_id: Some(ID),
        properties: PublishProperties {
            content_type: Some("application/json"),
            response_topic: Some("devices/device-00031415/answers"),
            user_properties: pairs[..].into(),
            ..PublishProperties::default()
        },
        payload: &[7; 128],
    };
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        let (allocations, user_properties) = allocations_of(|| match read(&bytes, version) {
            Packet::Publish(publish) => publish.properties.user_properties.iter().count(),
            _ => usize::MAX,
        });
        assert_eq!(allocations, 0, "{version:?}");
        assert_eq!(user_properties, if version == ProtocolVersion::V5 { 2 } else { 0 });
    }
}

#[test]
fn reading_a_subscribe_and_walking_its_filters_allocates_nothing() {
    let filters = [("a/+/b", SubscriptionOptions::at(QoS::AtLeastOnce)); 50];
    let properties = SubscribeProperties::default();
    let mut bytes = Vec::new();
    Subscribe { packet_id: ID, properties, filters: filters[..].into() }
        .encode(ProtocolVersion::V5, &mut bytes);
    let (allocations, walked) = allocations_of(|| match read(&bytes, ProtocolVersion::V5) {
        Packet::Subscribe(subscribe) => subscribe.filters.iter().count(),
        _ => 0,
    });
    assert_eq!((allocations, walked), (0, 50));
}

#[test]
fn writing_into_a_buffer_with_room_allocates_nothing() {
    let mut out = Vec::with_capacity(4096);
    let (allocations, ()) = allocations_of(|| {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            PubAck::success(ID).encode(version, &mut out);
            let qos = QoS::AtLeastOnce;
            publish::encode_parts(
                &mut out,
                version,
                false,
                qos,
                false,
                "a/b",
                Some(ID),
                &[],
                Some(60),
                None,
                &[1, 2],
                &[7; 128],
            );
        }
    });
    assert_eq!(allocations, 0);
    assert!(out.len() > 256);
}

#[test]
fn finding_the_filters_of_a_name_allocates_nothing() {
    let mut tree: FilterTree<u32> = FilterTree::new();
    for filter in ["devices/+/temperature", "devices/1/#", "+/1/+", "#"] {
        *tree.insert(filter) = 1;
    }
    let mut found = 0;
    let (allocations, ()) =
        allocations_of(|| tree.for_each_match("devices/1/temperature", |one| found += one));
    assert_eq!((allocations, found), (0, 4));
}

#[test]
fn a_filter_or_a_name_costs_less_than_200_bytes_besides_its_value() {
    let (bytes, tree) = live_bytes_of(|| {
        let mut tree: FilterTree<u32> = FilterTree::new();
        for number in 0..100_000 {
            *tree.insert(&format!("devices/device-{number:08}/commands")) = number;
        }
        tree
    });
    assert_each_below_200("filter", bytes, tree.len());
    let (bytes, tree) = live_bytes_of(|| {
        let mut tree: TopicTree<u32> = TopicTree::new();
        for number in 0..100_000 {
            tree.insert(&format!("devices/device-{number:08}/state"), number);
        }
        tree
    });
    assert_each_below_200("name", bytes, tree.len());
}

fn assert_each_below_200(what: &str, bytes: isize, count: usize) {
    let each = bytes / count.cast_signed();
    println!("{each} bytes for each {what}");
    assert!((1..200).contains(&each), "{each} bytes for each {what}");
}
