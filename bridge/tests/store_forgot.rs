//! A session store that has lost its data, and is given its sessions back while frames for them are on their way.

mod shard;

use std::sync::{Arc, Mutex};

use holdfast_bridge::BridgeConfig;
use holdfast_store::{ReplyTo, Store};
use holdfast_wire::link::InterestKind;
use holdfast_wire::session_record::StreamKey;
use holdfast_wire::store::{Reply, Request};
use shard::*;

/// Lookups that are under way while a session is written back.
const LOOKUPS: usize = 3;

/// A store that finds the session at the last of the first lookups, and has not yet at those before it. It answers them together.
struct Forgot {
    store: Arc<dyn Store>,
    asked: Mutex<Option<Vec<(Request, ReplyTo)>>>,
}

impl Store for Forgot {
    fn submit(&self, request: Request, reply: ReplyTo) {
        let mut asked = self.asked.lock().unwrap();
        let mut lookups = match &mut *asked {
            Some(lookups) if matches!(&request, Request::Lookup { client } if **client == *"d") => {
                lookups.push((request, reply));
                if lookups.len() < LOOKUPS {
                    return;
                }
                asked.take().unwrap()
            }
            _ => vec![(request, reply)],
        };
        drop(asked);
        let (request, found) = lookups.pop().unwrap();
        for (_, reply) in lookups {
            reply(Ok(Reply::Session(None)));
        }
        self.store.submit(request, found);
    }

    fn has_just_begun(&self) -> bool {
        true
    }
}

#[test]
fn frames_for_a_device_keep_their_order_while_its_session_is_written_back() {
    let store = Arc::new(Forgot { store: memory_store(), asked: Mutex::new(Some(Vec::new())) });
    let rig = Rig::start_with(BridgeConfig::default(), store);
    let (mut publisher, mut shard) = (rig.shard(1), rig.shard(2));
    shard.announce(InterestKind::Personal { level: 1 }, "devices/+/push", true);
    rig.session("d", owner(2), &["devices/d/push"]);
    let frames = LOOKUPS as u64 + 2;
    for sequence in 1..=frames {
        publisher.publish(uplink(sequence, "devices/d/push", &sequence.to_string()));
    }
    publisher.until_settled(frames);
    let expected: Vec<_> = (1..=frames).map(|sequence| sequence.to_string()).collect();
    assert_eq!(rig.stream(StreamKey::Filter("devices/d/push".into())), expected);
    for payload in expected {
        let Heard::Deliver { payload: heard, .. } = shard.hear() else { panic!("no delivery") };
        assert_eq!(heard, payload);
    }
}
