//! A report that is given up for want of places, told from one that was waited for in vain. Alone in its process, because metrics are.

mod shard;
mod values;

use std::io::Write;

use holdfast_bridge::BridgeConfig;
use holdfast_bridge::metrics::GROUP_REPORTS_GIVEN_UP;
use holdfast_wire::link::{InterestKind, Outcome, ToBridge};
use holdfast_wire::session_record::StreamKey;
use shard::*;
use values::Values;

#[test]
fn a_durable_group_whose_report_is_given_up_has_the_message_in_its_stream() {
    let values = Values::default();
    metrics::set_global_recorder(values.clone()).unwrap();
    let config = BridgeConfig { group_deliveries_max: 1, ..BridgeConfig::default() };
    let rig = Rig::start_with(config, memory_store());
    let (mut publisher, mut member) = (rig.shard(1), rig.shard(2));
    rig.session("member", owner(2), &["$share/g/jobs"]);
    member.announce(InterestKind::Shared { group: "g", members: 1 }, "jobs", true);
    // Read as one: a second after the first its wait would be over by itself.
    let mut both = Vec::new();
    for (sequence, text) in [(1, "given up"), (2, "taken")] {
        ToBridge::Uplink(uplink(sequence, "jobs", text)).encode(&mut both);
    }
    publisher.stream.write_all(&both).unwrap();
    let mut hear = |wanted: &str| {
        let heard = member.hear_delivery();
        assert_eq!(heard.payload, wanted);
        heard.number
    };
    hear("given up");
    let taken = hear("taken");
    member.report(taken, Outcome::Delivered);
    publisher.until_settled(2);
    assert_eq!(rig.stream(StreamKey::Filter("$share/g/jobs".into()))[0], "given up");
    assert_eq!(values.count(GROUP_REPORTS_GIVEN_UP), 1);
}
