//! The JSON Schema of the config, for editors, and the source of its reference.
//!
//! In: the config's own types, their comments and defaults. Out: one document (draft 2020-12). Invariant: a config that `load`
//! accepts is valid by it, also where a value is a `${NAME}`.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Config;

/// The whole file.
pub fn config() -> Value {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>();
    let mut value = schema.to_value();
    walk(&mut value);
    value["title"] = json!("Trailwarden's config");
    value["description"] = json!("One YAML file; `${NAME}` and `${file:PATH}` stand for a variable and a file's content.");
    value
}

/// What a number counts, by the end of its key: units stand last in names.
pub fn unit(key: &str) -> Option<&'static str> {
    const UNITS: [(&str, &str); 5] =
        [("_bytes_per_s", "bytes per second"), ("_bytes", "bytes"), ("_items", "items"), ("_ms", "milliseconds"), ("_seconds", "seconds")];
    UNITS.iter().find(|(end, _)| key.ends_with(end)).map(|(_, unit)| *unit)
}

/// Gives every number its unit, lets a variable stand for whatever is no text, and drops Rust's own formats and empty defaults.
fn walk(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(walk),
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                for (key, schema) in properties.iter_mut() {
                    if let (true, Some(unit)) = (is_integer(schema), unit(key)) {
                        schema["x-unit"] = unit.into();
                    }
                }
            }
            for (key, member) in map.iter_mut() {
                // A default, a constant or an example is data, not a schema.
                if !matches!(key.as_str(), "default" | "const" | "enum") {
                    walk(member);
                }
            }
            tidy(map);
        }
        _ => {}
    }
}

fn is_integer(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| *kind == "integer" || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("integer"))))
}

fn tidy(map: &mut Map<String, Value>) {
    let is_format_of_rust = |v: &Value| v.as_str().is_some_and(|f| f.starts_with("uint") || f.starts_with("int"));
    if map.get("format").is_some_and(is_format_of_rust) {
        map.remove("format");
    }
    if map.get("default").is_some_and(|v| v.is_null() || *v == json!([]) || *v == json!({})) {
        map.remove("default");
    }
    let variable = json!({"type": "string", "pattern": VARIABLE});
    if let Some(Value::Array(words)) = map.remove("enum") {
        map.remove("type");
        map.insert("anyOf".into(), json!([{"enum": words}, variable]));
    } else if let Some(Value::Array(choices)) = map.get_mut("oneOf").filter(|choices| all_words(choices)) {
        choices.push(variable);
    } else if let Some(kind) = map.get_mut("type") {
        let kinds: Vec<Value> = kind.as_array().cloned().unwrap_or_else(|| vec![kind.clone()]);
        if kinds.iter().any(|k| matches!(k.as_str(), Some("integer" | "number" | "boolean"))) {
            *kind = kinds.into_iter().chain([json!("string")]).collect();
            map.insert("pattern".into(), VARIABLE.into());
        }
    }
}

const VARIABLE: &str = r"\$\{.+\}";

fn all_words(choices: &Value) -> bool {
    choices.as_array().is_some_and(|choices| choices.iter().all(|c| c.get("const").is_some() || c.get("enum").is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that count things which their own names say.
    const COUNTS: [&str; 3] = ["workers", "max_leases", "incidents"];

    fn keys(value: &Value, found: &mut Vec<(String, Value)>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
            Value::Object(map) => {
                for (key, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
                    found.push((key.clone(), schema.clone()));
                }
                map.iter().filter(|(key, _)| *key != "default").for_each(|(_, member)| keys(member, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_key_says_what_it_means_and_counts() {
        let (schema, mut found) = (config(), Vec::new());
        keys(&schema, &mut found);
        let kinds = schema["$defs"].as_object().unwrap().values().filter_map(|def| def["oneOf"].as_array()).flatten();
        let kinds: Vec<&Value> = kinds.filter(|kind| kind.get("description").is_some()).collect();
        assert!(found.len() > 60, "{}", found.len());
        for (key, schema) in found {
            let is_kind = kinds.iter().any(|kind| kind.pointer(&format!("/properties/{key}")).is_some());
            assert!(is_kind || schema.get("description").is_some(), "`{key}` has no comment: it becomes its description");
            let counts = schema.get("x-unit").is_some() || COUNTS.contains(&key.as_str());
            assert!(!is_integer(&schema) || counts, "`{key}` doesn't end in its unit");
        }
    }

    #[test]
    fn defaults_are_those_of_the_types() {
        let schema = config();
        for (key, expected) in
            [("budget_bytes", json!(128 << 20)), ("mode", json!("polling")), ("settle_seconds", json!(300)), ("listen", json!("127.0.0.1:9464"))]
        {
            let mut found = Vec::new();
            keys(&schema, &mut found);
            let (_, found) = found.into_iter().find(|(name, _)| name == key).unwrap();
            assert_eq!(found["default"], expected, "{key}");
        }
    }
}
