//! Body of the fuzz target: a plain function, which tests run on seeds and on arbitrary bytes too.

use super::{Data, Downlink, SocketOptions, Uplink, socket_path};

/// Reads bytes as everything that this module reads. What was understood can be written, and is then understood
/// as the same.
pub fn fuzz_json(bytes: &[u8]) {
    let data = Data::from_payload(bytes);
    if let Data::Bytes(same) = &data {
        assert_eq!(&same[..], bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Uplink::decode(text) {
        Ok(uplink) => assert_eq!(Uplink::decode(&written(|out| uplink.encode(out))), Ok(uplink)),
        Err(error) => {
            let answer = written(|out| error.downlink().encode(out));
            assert_eq!(Downlink::decode(&answer), Ok(error.downlink()));
        }
    }
    if let Ok(downlink) = Downlink::decode(text) {
        assert_eq!(Downlink::decode(&written(|out| downlink.encode(out))), Ok(downlink));
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if let Some(client_id) = socket_path(path) {
        assert!(!client_id.is_empty());
    }
    // Any answer will do, as long as there is one.
    let _either = SocketOptions::decode(query);
}

fn written(encode: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    encode(&mut out);
    String::from_utf8(out).expect("what is written is text")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEEDS: [&str; 9] = [
        r#"{"type":"frame","id":7,"dup":true,"topic":"accel","ts":1732150000123,"retain":true,"data":{"x":[1,null]}}"#,
        r#"{"type":"frame","topic":"caf\u00e9","content_type":"image/png","data_base64":"iVBORw=="}"#,
        r#"{"type":"subscribe","id":2,"topics":["a/#",{"filter":"b","qos":0}]}"#,
        r#"{"type":"unsubscribe","id":65535,"topics":["a/#"]}"#,
        r#"{"type":"ack","id":3}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"push","id":3,"topic":"t","retained":true,"data":"\ud83d\ude00"}"#,
        r#"{"type":"subscribed","id":2,"codes":[0,1,135]}"#,
        "/v1/devices/a%2Fb/socket?access_token=a+b&keep_alive_s=60",
    ];

    #[test]
    fn the_seeds_are_understood() {
        for seed in SEEDS {
            fuzz_json(seed.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_json(&bytes);
        }

        #[test]
        fn no_change_to_a_message_panics(
            seed in prop::sample::select(&SEEDS[..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        ) {
            let mut bytes = seed.as_bytes().to_vec();
            for (at, byte, replace) in changes {
                let at = at.index(bytes.len());
                if replace {
                    bytes[at] = byte;
                } else {
                    bytes.insert(at, byte);
                }
            }
            fuzz_json(&bytes);
        }

        #[test]
        fn any_payload_comes_back_as_it_was(payload in any::<Vec<u8>>(), topic in ".{1,20}", id in 1u16..) {
            let frame = crate::json::Frame {
                id: crate::json::Id::new(id),
                dup: false,
                topic: topic.as_str().into(),
                event_time_ms: None,
                retain: false,
                content_type: None,
                data: Data::Bytes(payload.as_slice().into()),
            };
            let text = written(|out| frame.encode(out));
            prop_assert_eq!(Uplink::decode(&text), Ok(Uplink::Frame(frame)));
        }
    }
}
