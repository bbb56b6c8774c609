//! JSON Schemas of rule files and cases files, for editors.
//!
//! In: the parser's own tables. Out: schema documents (draft 2020-12). Invariant: a file without errors is valid by its schema;
//! the reverse does not hold, as conditions and references are beyond JSON Schema.

use serde_json::{Value, json};

use crate::event::derived;
use crate::rule::{correlation, extension, meta, modifier};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A document of a rule file.
pub fn rule() -> Value {
    json!({
        "$schema": DRAFT,
        "title": "Sigma rule, correlation or filter (Sigma 2.1.0, with Trailwarden's extensions)",
        "type": "object",
        "required": ["title"],
        "oneOf": [
            {"required": ["logsource", "detection"]},
            {"required": ["correlation"]},
            {"required": ["logsource", "filter"]},
        ],
        "properties": {
            "title": {"type": "string", "minLength": 1},
            "id": {"type": "string", "format": "uuid"},
            "name": {"type": "string", "description": "how correlations refer to the rule"},
            "status": {"enum": names(&meta::STATUSES)},
            "level": {"enum": names(&meta::LEVELS), "default": "medium"},
            "description": {"type": "string"},
            "author": {"type": "string"},
            "date": date(),
            "modified": date(),
            "references": texts(),
            "falsepositives": texts(),
            "tags": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[a-z0-9_-]+(\\.[a-z0-9_-]+)+$"},
                "description": "attack.t…, pillar.…, service.…",
            },
            "related": {"type": "array", "items": {
                "type": "object",
                "required": ["id", "type"],
                "properties": {"id": {"type": "string"}, "type": {"enum": meta::RELATIONS}},
            }},
            "logsource": {
                "type": "object",
                "anyOf": [{"required": ["product"]}, {"required": ["service"]}, {"required": ["category"]}],
                "properties": {"product": {"type": "string"}, "service": {"type": "string"}, "category": {"type": "string"}},
            },
            "detection": detection(&[]),
            "correlation": correlation_part(),
            "filter": detection(&["rules"]),
            "trailwarden": extension_part(),
        },
        "$defs": {"map": {"type": "object", "minProperties": 1}},
    })
}

/// A cases file.
pub fn cases() -> Value {
    json!({
        "$schema": DRAFT,
        "title": "Test cases of a detector",
        "type": "object",
        "required": ["cases"],
        "additionalProperties": false,
        "properties": {
            "rule": {"type": "string", "description": "title, name or id, where the sibling file has several rules"},
            "lists": {"type": "object", "additionalProperties": texts(), "description": "values of placeholders"},
            "cases": {"type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["name", "events"],
                "oneOf": [{"required": ["match"]}, {"required": ["alerts"]}],
                "additionalProperties": false,
                "properties": {
                    "name": {"type": "string"},
                    "match": {"type": "boolean", "description": "every event matches, or none does"},
                    "alerts": {"type": "integer", "minimum": 0},
                    "events": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {
                        "at": {"type": "string", "description": "+5m from 2026-01-01T00:00:00Z, or a full time"},
                        "log": {
                            "type": "object",
                            "required": ["group", "message"],
                            "properties": {"group": {"type": "string"}, "stream": {"type": "string"}, "message": {"type": "string"}},
                        },
                    }}},
                },
            }},
        },
    })
}

fn names<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(name, _)| *name).collect()
}

fn texts() -> Value {
    json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
}

fn date() -> Value {
    json!({"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}$"})
}

fn duration() -> Value {
    json!({"type": "string", "pattern": "^[0-9]+[smhdw]$"})
}

/// Selections and a condition; `reserved` are keys of another kind.
fn detection(reserved: &[&str]) -> Value {
    let modifiers = modifier::names().collect::<Vec<_>>().join("|");
    let derived: Vec<_> = derived::FIELDS.iter().map(|(name, _, says)| format!("`{name}`: {says}")).collect();
    let mut properties = serde_json::Map::new();
    properties.insert("condition".into(), json!({"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}));
    for key in reserved {
        properties.insert((*key).into(), texts());
    }
    let mut required = vec!["condition"];
    required.extend(reserved);
    json!({
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": {"oneOf": [{"$ref": "#/$defs/map"}, {"type": "string"}, {"type": "array", "minItems": 1, "items": {"oneOf": [
            {"$ref": "#/$defs/map"},
            {"type": ["string", "number", "boolean"]},
        ]}}]},
        "description": format!("Derived fields: {}", derived.join("; ")),
        "$comment": format!("keys of a map are field(|modifier)*, or field[any] and field[all] over one object of an array; modifiers: {modifiers}"),
    })
}

fn correlation_part() -> Value {
    let mut condition = serde_json::Map::new();
    for operator in names(&correlation::OPERATORS) {
        condition.insert(operator.into(), json!({"type": "number"}));
    }
    condition.insert("field".into(), texts());
    condition.insert("percentile".into(), json!({"type": "number", "minimum": 0, "maximum": 100}));
    json!({
        "type": "object",
        "required": ["type", "timespan"],
        "additionalProperties": false,
        "properties": {
            "type": {"enum": names(&correlation::TYPES)},
            "rules": texts(),
            "group-by": texts(),
            "timespan": duration(),
            "generate": {"type": "boolean", "default": false},
            "aliases": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": {"type": "string"}}},
            "condition": {"oneOf": [{"type": "string"}, {"type": "object", "properties": condition, "additionalProperties": false}]},
        },
    })
}

fn extension_part() -> Value {
    let mut properties = serde_json::Map::new();
    for key in extension::KEYS {
        let schema = match key {
            "profile" => json!({"enum": names(&extension::PROFILES), "default": "standard"}),
            "scope" => json!({"enum": names(&extension::SCOPES), "default": "account"}),
            "group" => texts(),
            "resolve-after" => duration(),
            "state" => json!({
                "type": "object",
                "required": ["type"],
                "additionalProperties": false,
                "properties": {
                    "type": {"enum": ["new_value", "value_drop", "absence"]},
                    "fields": texts(), "field": texts(), "group-by": texts(),
                    "memory": duration(), "learning": duration(), "timespan": duration(),
                },
            }),
            _ => json!({"type": "string"}),
        };
        properties.insert(key.into(), schema);
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_schema() {
        let text = rule().to_string();
        for name in ["critical", "unsupported", "temporal_ordered", "value_percentile", "base64offset", "new_value", "derived.policy.public"] {
            assert!(text.contains(name), "{name}");
        }
        assert!(cases().to_string().contains("alerts"));
    }

    #[test]
    fn references_inside_resolve() {
        let schema = rule();
        let mut found = 0;
        fn walk(value: &Value, root: &Value, found: &mut usize) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        *found += 1;
                        assert!(root.pointer(target.trim_start_matches('#')).is_some(), "{target}");
                    }
                    map.values().for_each(|value| walk(value, root, found));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, root, found)),
                _ => {}
            }
        }
        walk(&schema, &schema, &mut found);
        assert!(found > 0);
    }
}
