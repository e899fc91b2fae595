//! The OpenAPI document says what there is.

use std::path::Path;

use holdfast_bridge::push::openapi;
use serde_json::Value;

use crate::api::Api;
use crate::shard::Rig;

/// After a change of the API, `HOLDFAST_WRITE_OPENAPI=1 cargo test -p holdfast-bridge --test push openapi` writes the file anew.
#[test]
fn the_file_in_the_docs_is_what_the_types_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/push-api.openapi.json");
    let document = openapi::document();
    if std::env::var_os("HOLDFAST_WRITE_OPENAPI").is_some() {
        std::fs::write(&file, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(written == document, "docs/push-api.openapi.json is not what the code says: write it anew");
}

#[test]
fn every_operation_is_there_and_the_document_is_served() {
    let rig = Rig::start();
    let api = Api::of(&rig);
    let (status, served) = api.request("GET /v1/openapi.json", "", "");
    assert_eq!((status, &served), (200, &openapi::document()));
    let mut operations = 0;
    for (path, methods) in served["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            operations += 1;
            let line = format!(
                "{} {}",
                method.to_uppercase(),
                path.replace("{group}", "g").replace("{client_id}", "d").replace("{problem}", "busy")
            );
            let (status, answer) = api.request(&line, "", "");
            // There is no such device and no such group, but there is an answer.
            let may_be_absent = path == "/v1/devices/{client_id}" || line == "GET /v1/groups/g/members";
            let is_known = status != 405 && (status != 404 || may_be_absent);
            assert!(is_known, "{line}: {status} {answer}");
        }
    }
    assert_eq!(operations, 12);
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(value: &Value, document: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(to) = fields.get("$ref").and_then(Value::as_str) {
                    assert!(document.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to}");
                }
                fields.values().for_each(|field| check(field, document));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, document)),
            _ => {}
        }
    }
    let document = openapi::document();
    check(&document, &document);
}
