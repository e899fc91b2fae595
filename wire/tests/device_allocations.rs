//! What a connected device may cost the heap, counted: whole WebSocket frames and JSON messages are read and written
//! without it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use holdfast_wire::json::{Data, Downlink, Id, Push, PushBody, Uplink};
use holdfast_wire::ws::frame::{write_header, write_pong};
use holdfast_wire::ws::{Event, Opcode, Stream};

/// Counts the allocations of each thread, as tests run in several.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is handed to the system's allocator as it came; counting touches only a constant-initialised
// thread-local without a destructor, which allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises about `layout` are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises about `pointer` and `layout` are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(of: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    of();
    ALLOCATIONS.get() - before
}

/// A client's frame whose mask is zero, so that its payload can be read here.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("tests use short payloads");
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
}

#[test]
fn whole_frames_are_read_and_answered_without_an_allocation() {
    let mut bytes = [frame(0x81, b"Hello"), frame(0x89, b"ping"), frame(0x82, &[7; 100])].concat();
    let mut stream = Stream::new(1024);
    let mut out = Vec::with_capacity(256);
    let count = allocations(|| {
        let mut input = &mut bytes[..];
        while let Some(event) = stream.read(&mut input).expect("the frames are valid") {
            match event {
                Event::Data { bytes, .. } => {
                    write_header(&mut out, Opcode::Text, bytes.len());
                    out.extend_from_slice(bytes);
                }
                Event::Ping(payload) => write_pong(&mut out, &payload),
                Event::Pong(_) | Event::Close { .. } => unreachable!("not sent"),
            }
        }
    });
    assert_eq!(count, 0);
    assert_eq!(out.len(), 2 + 5 + 2 + 4 + 2 + 100);
}

#[test]
fn a_frame_whose_header_comes_split_costs_one_allocation() {
    let mut bytes = frame(0x82, b"0123456789");
    let mut stream = Stream::new(1024);
    let count = allocations(|| {
        for mut piece in bytes.chunks_mut(1) {
            stream.read(&mut piece).expect("the frame is valid");
        }
    });
    assert_eq!(count, 1);
}

#[test]
fn a_json_frame_is_read_and_acknowledged_without_an_allocation() {
    let text = r#"{"type":"frame","id":7,"topic":"accel","ts":1732150000123,"data":{"x":0.02,"y":"\u00e9"}}"#;
    let mut out = Vec::with_capacity(64);
    let count = allocations(|| {
        let Ok(Uplink::Frame(frame)) = Uplink::decode(text) else { panic!("it is a frame") };
        let id = frame.id.expect("it has an id");
        Downlink::Ack { id, duplicate: false, receipt: None }.encode(&mut out);
    });
    assert_eq!(count, 0);
    assert_eq!(out, br#"{"type":"ack","id":7}"#);
}

#[test]
fn a_push_is_written_without_an_allocation() {
    let mut out = Vec::with_capacity(256);
    let count = allocations(|| {
        let body = PushBody {
            topic: "commands/sensor-7".into(),
            event_time_ms: None,
            retained: false,
            content_type: None,
            data: Data::from_payload(b"{\"sample_rate_hz\":50}"),
        };
        Downlink::Push(Push { id: Id::new(3), dup: false, body }).encode(&mut out);
    });
    assert_eq!(count, 0);
}
