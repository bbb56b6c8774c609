//! Values, evasions, bounds.

use super::*;
use crate::event::{FieldId, Schema};

fn values(text: &str, field: &str) -> Result<Vec<String>, Malformed> {
    let mut schema = Schema::new();
    let id: FieldId = schema.add(field);
    let mut slots = Slots::default();
    fill(text.as_bytes(), &schema, &mut slots)?;
    let text_of = |v| slots.text(text.as_bytes(), v).map_or("-".to_owned(), |t| String::from_utf8_lossy(t).into_owned());
    Ok(slots.get(id).map(text_of).collect())
}

#[test]
fn paths() {
    for (text, field, expected) in [
        (r#"{"a":{"b":"x"}}"#, "a.b", vec!["x"]),
        (r#"{"a":[{"b":1},{"b":[true,null]},7]}"#, "a.b", vec!["1", "true", "-"]),
        (r#"{"a.b":"lit"}"#, "a.b", vec!["lit"]),
        (r#"{"a.b":"lit","a":{"b":"path"}}"#, "a.b", vec!["path"]),
        (r#"{"a":"x","a":"y"}"#, "a", vec!["x", "y"]),
        (r#"{"\u0061":"x"}"#, "a", vec!["x"]),
        (r#"{"a":"\ud800x\ud83d\ude00\q"}"#, "a", vec!["\u{fffd}x😀\\q"]),
        (r#"{"a":{"b": [1, 2]} , "c":[]}"#, "a", vec![r#"{"b": [1, 2]}"#]),
        (r#"{"a":18446744073709551617}"#, "a", vec!["18446744073709551617"]),
        (r#"{"a":[]}"#, "a", vec!["-"]),
        (r#"{"b":1}"#, "a", vec![]),
    ] {
        assert_eq!(values(text, field).unwrap(), expected, "{text}");
    }
}

#[test]
fn malformed() {
    for text in ["", "[]", "{", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":1"#, r#"{"a":"x}"#, r#"{"a":1}}"#, r#"{"a":1 "b":2}"#, r#"{"a":tru}"#] {
        assert!(values(text, "a").is_err(), "{text}");
    }
}

#[test]
fn depth_costs_nothing() {
    let deep = format!(r#"{{"x":{}{},"a":"found"}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(values(&deep, "a").unwrap(), ["found"]);
    assert_eq!(values(&deep, "x.y").unwrap(), [""; 0]);
}

#[test]
fn objects_as_text() {
    let mut out = Vec::new();
    compact(br#"{ "policy" : "{\"Version\": \"2012\"}", "n":[1, 2] }"#, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"policy":"{"Version": "2012"}","n":[1,2]}"#);
}

#[test]
fn keyword_leaves() {
    let mut seen = Vec::new();
    leaves(br#"{"k":"v\n","n":[1,-2.5,true,{"k2":null}]}"#, &mut Vec::new(), |t| {
        seen.push(String::from_utf8_lossy(t).into_owned());
        false
    });
    assert_eq!(seen, ["v\n", "1", "-2.5", "true", "null"]);
}
