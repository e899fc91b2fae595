//! The documents that device makers read (`docs/devices-json.md` and its AsyncAPI file) against the code that their
//! devices talk to.

use std::collections::BTreeSet;

use holdfast_wire::json::{Downlink, ErrorCode, GoodbyeReason, TOPICS_MAX, Uplink};
use serde_json::Value;

const ASYNCAPI: &str = include_str!("../../docs/devices-json.asyncapi.yaml");
const GUIDE: &str = include_str!("../../docs/devices-json.md");

/// Which way a message goes. AsyncAPI speaks from the gateway's point of view: it receives what goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up,
    Down,
}

#[test]
fn every_example_is_understood_and_written_the_same() {
    let document = asyncapi();
    let mut examples = 0;
    for (way, name) in messages_on_their_way(&document) {
        for example in array(&document["components"]["messages"][&name]["examples"]) {
            let payload = &example["payload"];
            assert_eq!(read_and_written(way, &payload.to_string()), *payload, "an example of {name}");
            examples += 1;
        }
    }
    assert!(examples >= 20, "only {examples} examples");
}

#[test]
fn every_kind_of_message_has_an_example() {
    let document = asyncapi();
    let described: BTreeSet<(Way, String)> = messages_on_their_way(&document)
        .into_iter()
        .map(|(way, name)| {
            let message = &document["components"]["messages"][&name];
            let examples = array(&message["examples"]);
            assert!(!examples.is_empty(), "{name} has no example");
            (way, text(&examples[0]["payload"]["type"]).to_owned())
        })
        .collect();
    let up = Uplink::TYPES.iter().map(|kind| (Way::Up, (*kind).to_owned()));
    let down = Downlink::TYPES.iter().map(|kind| (Way::Down, (*kind).to_owned()));
    assert_eq!(described, up.chain(down).collect());
}

#[test]
fn every_message_has_a_way() {
    let document = asyncapi();
    let on_their_way: BTreeSet<String> =
        messages_on_their_way(&document).into_iter().map(|(_, name)| name).collect();
    let defined: BTreeSet<String> = object(&document["components"]["messages"]).keys().cloned().collect();
    assert_eq!(on_their_way, defined);
}

#[test]
fn examples_use_the_fields_of_their_schema_and_all_that_it_requires() {
    let document = asyncapi();
    let mut unused = BTreeSet::new();
    for (name, message) in object(&document["components"]["messages"]) {
        let schema = &document["components"]["schemas"][last_segment(&message["payload"]["$ref"])];
        let fields: BTreeSet<&str> = object(&schema["properties"]).keys().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        for example in array(&message["examples"]) {
            let used: BTreeSet<&str> = object(&example["payload"]).keys().map(String::as_str).collect();
            assert!(used.is_subset(&fields), "{name}: {used:?} are not all in its schema");
            let required: BTreeSet<&str> = array(&schema["required"]).iter().map(text).collect();
            assert!(required.is_subset(&used), "{name}: {used:?} lack some of {required:?}");
            seen.extend(used);
        }
        unused.extend(fields.difference(&seen).map(|field| format!("{name}.{field}")));
    }
    assert!(unused.is_empty(), "fields without an example: {unused:?}");
}

#[test]
fn a_field_is_taken_up_exactly_if_the_schema_has_it() {
    let document = asyncapi();
    for (way, name) in messages_on_their_way(&document) {
        if way == Way::Up {
            let mut payload =
                array(&document["components"]["messages"][&name]["examples"])[0]["payload"].clone();
            payload["surprise"] = true.into();
            assert!(Uplink::decode(&payload.to_string()).is_err(), "{name} takes what it does not know");
        }
    }
}

#[test]
fn codes_reasons_and_bounds_are_those_of_the_code() {
    let document = asyncapi();
    let schemas = &document["components"]["schemas"];
    let codes: Vec<&str> = array(&schemas["error"]["properties"]["code"]["enum"]).iter().map(text).collect();
    assert_eq!(codes, ErrorCode::ALL.map(ErrorCode::as_str));
    let reasons: Vec<&str> =
        array(&schemas["goodbye"]["properties"]["reason"]["enum"]).iter().map(text).collect();
    assert_eq!(reasons, GoodbyeReason::ALL.map(GoodbyeReason::as_str));
    assert_eq!(schemas["topics"]["maxItems"], TOPICS_MAX);
    assert_eq!(schemas["id"]["maximum"], u16::MAX);
}

#[test]
fn every_message_in_the_guide_is_understood() {
    let blocks: Vec<&str> = GUIDE
        .split("```json\n")
        .skip(1)
        .map(|block| block.split("```").next().expect("split gives at least one").trim_end())
        .collect();
    assert!(blocks.len() >= 14, "only {} messages", blocks.len());
    for block in blocks {
        assert!(Uplink::decode(block).is_ok() || Downlink::decode(block).is_ok(), "{block}");
    }
}

#[test]
fn the_guide_explains_every_code_and_reason() {
    for name in
        ErrorCode::ALL.map(ErrorCode::as_str).into_iter().chain(GoodbyeReason::ALL.map(GoodbyeReason::as_str))
    {
        assert!(GUIDE.contains(&format!("`{name}`")), "{name}");
    }
}

fn asyncapi() -> Value {
    serde_saphyr::from_str(ASYNCAPI).expect("the AsyncAPI file is YAML")
}

/// Reads a message as its receiver would, and writes it as its sender would.
fn read_and_written(way: Way, message: &str) -> Value {
    let mut out = Vec::new();
    match way {
        Way::Up => Uplink::decode(message).map(|uplink| uplink.encode(&mut out)),
        Way::Down => Downlink::decode(message).map(|downlink| downlink.encode(&mut out)),
    }
    .unwrap_or_else(|error| panic!("{message}: {error}"));
    let mut written: Value = serde_json::from_slice(&out).expect("what is written is JSON");
    // A bare filter is the short form of the object that is written.
    if way == Way::Up && message.contains("\"topics\":[\"") {
        let short = |topic: &Value| topic.get("filter").unwrap_or(topic).clone();
        written["topics"] = array(&written["topics"]).iter().map(short).collect();
    }
    written
}

/// Each message that an operation or its reply names, by its name among the components.
fn messages_on_their_way(document: &Value) -> BTreeSet<(Way, String)> {
    let mut found = BTreeSet::new();
    for operation in object(&document["operations"]).values() {
        let (there, back) = match text(&operation["action"]) {
            "receive" => (Way::Up, Way::Down),
            "send" => (Way::Down, Way::Up),
            other => panic!("AsyncAPI has no action {other}"),
        };
        let mut note = |way, references: &Value| {
            for reference in array(references) {
                let in_channel =
                    &document["channels"]["socket"]["messages"][last_segment(&reference["$ref"])];
                found.insert((way, last_segment(&in_channel["$ref"]).to_owned()));
            }
        };
        note(there, &operation["messages"]);
        if let Some(reply) = operation.get("reply") {
            note(back, &reply["messages"]);
        }
    }
    found
}

fn last_segment(reference: &Value) -> &str {
    text(reference).rsplit('/').next().expect("rsplit gives at least one")
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value} is not an object"))
}

fn array(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}
