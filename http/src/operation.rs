//! How one operation is described in the OpenAPI document, made of the types that it reads and writes.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::{Kind, Problem};

/// What every server answers by itself.
const ANYWHERE: [Kind; 4] =
    [Kind::Malformed, Kind::MethodNotAllowed, Kind::AddressTooLong, Kind::HeadTooLarge];

/// What one method at one path takes and answers.
pub struct Operation {
    method: &'static str,
    path: &'static str,
    value: Value,
}

impl Operation {
    /// A method at a path, whose parts in braces are its parameters.
    pub fn new(method: &'static str, path: &'static str, id: &str, summary: &str, description: &str) -> Self {
        let value = json!({
            "operationId": id,
            "summary": summary,
            "description": description,
            "parameters": [],
            "responses": {},
        });
        let operation = Self { method, path, value };
        let group = json!({ "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]*$" });
        let client_id = json!({ "type": "string", "minLength": 1 });
        let problem = json!({ "type": "string", "enum": Kind::ALL.map(Kind::name) });
        for (name, schema) in [("group", group), ("client_id", client_id), ("problem", problem)] {
            if path.contains(&format!("{{{name}}}")) {
                return operation
                    .parameter(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
            }
        }
        operation
    }

    /// Takes its place among the document's paths.
    pub fn enter(self, paths: &mut Map<String, Value>) {
        paths.entry(self.path).or_insert_with(|| json!({}))[self.method] = self.value;
    }

    /// A field of the query.
    #[must_use]
    pub fn query<T: JsonSchema>(self, schemas: &mut SchemaGenerator, name: &str, description: &str) -> Self {
        let schema = schemas.subschema_for::<T>();
        self.parameter(json!({ "name": name, "in": "query", "description": description, "schema": schema }))
    }

    /// A header that is heeded.
    #[must_use]
    pub fn header(self, name: &str, description: &str) -> Self {
        let schema = json!({ "type": "string" });
        self.parameter(json!({ "name": name, "in": "header", "description": description, "schema": schema }))
    }

    fn parameter(mut self, parameter: Value) -> Self {
        if let Some(parameters) = self.value["parameters"].as_array_mut() {
            parameters.push(parameter);
        }
        self
    }

    /// A body of this type, or of lines of it.
    #[must_use]
    pub fn takes<T: JsonSchema>(mut self, schemas: &mut SchemaGenerator, content_type: &str) -> Self {
        self.value["requestBody"]["required"] = json!(true);
        self.value["requestBody"]["content"][content_type] = content::<T>(schemas, content_type);
        self
    }

    /// An answer of this type.
    #[must_use]
    pub fn answers<T: JsonSchema>(
        self,
        schemas: &mut SchemaGenerator,
        status: u16,
        description: &str,
    ) -> Self {
        self.response(status, description, "application/json", content::<T>(schemas, "application/json"))
    }

    /// An answer without a body.
    #[must_use]
    pub fn answers_nothing(mut self, status: u16, description: &str) -> Self {
        self.value["responses"][status.to_string()] = json!({ "description": description });
        self
    }

    /// 200 with lines of this type, or of one that was named before.
    #[must_use]
    pub fn streams<T: JsonSchema>(self, schemas: &mut SchemaGenerator, description: &str) -> Self {
        let lines = "application/x-ndjson";
        let mut content = content::<T>(schemas, lines);
        let before = &self.value["responses"]["200"]["content"][lines]["schema"];
        if !before.is_null() {
            content["schema"] = json!({ "anyOf": [before, content["schema"]] });
        }
        self.response(200, description, lines, content)
    }

    /// Problems that it may answer, besides those that every request may be answered with.
    #[must_use]
    pub fn problems(mut self, schemas: &mut SchemaGenerator, kinds: &[Kind]) -> Self {
        for kind in ANYWHERE.iter().chain(kinds.iter().filter(|kind| !ANYWHERE.contains(kind))) {
            let problem = content::<Problem>(schemas, "application/problem+json");
            let description = format!("problem `{}`", kind.name());
            self = self.response(kind.status().as_u16(), &description, "application/problem+json", problem);
        }
        self
    }

    /// One more thing that a status may mean.
    fn response(mut self, status: u16, description: &str, content_type: &str, content: Value) -> Self {
        let response = &mut self.value["responses"][status.to_string()];
        response["description"] = match response["description"].as_str() {
            Some(before) => json!(format!("{before}; {description}")),
            None => json!(description),
        };
        response["content"][content_type] = content;
        self
    }
}

fn content<T: JsonSchema>(schemas: &mut SchemaGenerator, content_type: &str) -> Value {
    let schema = schemas.subschema_for::<T>();
    if ["application/x-ndjson", "text/plain"].contains(&content_type) {
        // OpenAPI 3.1 has no word for lines.
        return json!({ "x-lines": true, "schema": schema });
    }
    json!({ "schema": schema })
}
