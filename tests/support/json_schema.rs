//! Checks what `--json` prints against docs/schema/cli-v1.json. Stricter than the schema: a field
//! that it does not describe is a fault. Only the keywords of JSON Schema that the file uses.

use serde_json::Value;

const SCHEMA: &str = include_str!("../../docs/schema/cli-v1.json");

/// Panics unless the document is one of this verb.
#[track_caller]
pub fn check(verb: &str, document: &Value) {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let definition = &schema["$defs"][verb];
    assert!(definition.is_object(), "the schema does not describe {verb}");
    let mut faults = Vec::new();
    compare(&schema, definition, document, verb, &mut faults);
    assert!(faults.is_empty(), "{}\n{document:#}", faults.join("\n"));
}

fn compare(schema: &Value, definition: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    for (keyword, wanted) in definition.as_object().expect("a schema is an object") {
        let is_met = match keyword.as_str() {
            "description" | "properties" | "additionalProperties" => true,
            "$ref" => {
                let name = wanted.as_str().and_then(|name| name.strip_prefix("#/$defs/"));
                compare(
                    schema,
                    &schema["$defs"][name.expect("a definition")],
                    value,
                    place,
                    faults,
                );
                true
            }
            "anyOf" => wanted
                .as_array()
                .expect("alternatives")
                .iter()
                .any(|alternative| {
                    let mut others = Vec::new();
                    compare(schema, alternative, value, place, &mut others);
                    others.is_empty()
                }),
            "const" => value == wanted,
            "enum" => value.is_null() || wanted.as_array().expect("values").contains(value),
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|name| has_type(value, name)),
                name => has_type(value, name),
            },
            "required" => {
                let names = wanted.as_array().expect("names").iter();
                names
                    .filter_map(Value::as_str)
                    .all(|name| value.get(name).is_some() || value.is_null())
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    compare(schema, wanted, item, &format!("{place}[{index}]"), faults);
                }
                true
            }
            other => panic!("this test does not know the keyword {other}"),
        };
        if !is_met {
            faults.push(format!("{place}: {keyword} is not met: {value}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match (
            &definition["properties"][name],
            &definition["additionalProperties"],
        ) {
            (Value::Null, Value::Null) if definition.get("type").is_some() => {
                faults.push(format!("{place} is not described"));
            }
            (Value::Null, Value::Null | Value::Bool(true)) => {}
            (Value::Null, further) => compare(schema, further, field, &place, faults),
            (property, _) => compare(schema, property, field, &place, faults),
        }
    }
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a type has a name") {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("this test does not know the type {other}"),
    }
}
