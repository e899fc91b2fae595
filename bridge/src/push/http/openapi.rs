//! The OpenAPI document of the push API and of the devices, made of the types that they read and write.
//!
//! Each handler's file, or one beside it, describes its own operation; `docs/push-api.openapi.json` is this document, and a test compares the two.

use axum::Json;
use axum::http::Uri;
use holdfast_http::{Kind, Operation, Problem, explanation, reading};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{batch, groups, single};
use crate::devices;
use crate::push::receipt::Receipt;

/// The document.
pub fn document() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = Map::new();
    let mut operations = vec![single::operation(&mut schemas), batch::operation(&mut schemas)];
    operations.extend(groups::operations(&mut schemas));
    operations.extend(devices::operations(&mut schemas));
    operations.extend([explanation(&mut schemas), operation(&mut schemas)]);
    for operation in operations {
        operation.enter(&mut paths);
    }
    schemas.subschema_for::<Receipt<'_>>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast push API",
            "version": "1",
            "description": "Pushes to devices, groups of devices, and where devices are. Every error is a problem (RFC 9457) whose `type` is stable; `GET` at that address \
                says what it means. The schema `Receipt` describes the records of `pushes.receipts_topic`.",
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn operation(schemas: &mut SchemaGenerator) -> Operation {
    Operation::new(
        "get",
        "/v1/openapi.json",
        "describeApi",
        "This document",
        "In OpenAPI 3.1. Of bridges, and of `dev`.",
    )
    .answers::<Map<String, Value>>(schemas, 200, "the document")
    .problems(schemas, &[Kind::Invalid])
}

pub(super) async fn show(address: Uri) -> Result<Json<Value>, Problem> {
    reading::no_query(&address)?;
    Ok(Json(document()))
}
