//! Every key of the config as a page (`docs/config.md`).
//!
//! In: the schema. Out: Markdown. Invariant: a key that the config takes has its row, as both come from the same types.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::schema;

const HEAD: &str = "# Configuration

One YAML file, given to `trailwarden run --config FILE`. The smallest one:

```yaml
kinesis: {streams: [STREAM]}
sinks:
  pager: {pagerduty: {routing_key: '${PAGERDUTY_KEY}'}}
```

- `${NAME}` is a variable of the environment, `${file:/path}` a file's content without its last line break; both may stand inside
  a text, and nothing prints what they hold. Secrets belong there. Where a number is wanted, write `key: ${NAME}` without quotes.
- An unknown key is an error that says its line and the key that was probably meant. `trailwarden check --config FILE` says all that
  is wrong, offline; it resolves variables and files too, so they must be there.
- `trailwarden schema config` prints a JSON Schema. Editors with the YAML language server take it from a first line
  `# yaml-language-server: $schema=trailwarden.schema.json`.
- `[]` in a key stands for each entry of a list, capitals for a name of your choice.

This page is made by `trailwarden schema config-reference`.
";

/// The page.
pub fn markdown() -> String {
    let root = schema::config();
    let mut page = Page { root: &root, out: HEAD.to_owned(), told: Vec::new() };
    let required = required(&root);
    let mut scalars = Vec::new();
    for (key, value) in properties(&root) {
        let is_required = required.contains(&key.as_str());
        if page.is_leaf(value) {
            scalars.push((key, value, is_required));
            continue;
        }
        let note = if is_required { " Required." } else { "" };
        let _ = write!(page.out, "\n## `{key}`\n\n{}{note}\n\n", page.text(value));
        page.table_head();
        page.inside(key, value);
    }
    page.out.push_str("\n## Other keys\n\n");
    page.table_head();
    for (key, value, is_required) in scalars {
        page.row(key, value, is_required);
    }
    page.out
}

struct Page<'s> {
    root: &'s Value,
    out: String,
    /// Types whose keys have their rows, and where.
    told: Vec<(&'s str, String)>,
}

impl<'s> Page<'s> {
    fn table_head(&mut self) {
        self.out.push_str("| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
    }

    /// The schema behind a reference, with the reference's name.
    fn resolve(&self, value: &'s Value) -> (&'s Value, Option<&'s str>) {
        if let Some(target) = value.get("$ref").and_then(Value::as_str) {
            let found = self.root.pointer(target.trim_start_matches('#')).expect("schemars defines what it refers to");
            return (found, Some(target));
        }
        let choices = value.get("anyOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        match choices.iter().find(|c| c.get("$ref").is_some()) {
            Some(some) if choices.len() == 2 => self.resolve(some),
            _ => (value, None),
        }
    }

    fn is_leaf(&self, value: &'s Value) -> bool {
        let (schema, _) = self.resolve(value);
        let kept = |key: &str| schema.get(key).map(|inner| self.resolve(inner).0);
        let is_object = |v: &Value| v.get("properties").is_some() || variants(v).is_some();
        !(is_object(schema) || kept("items").is_some_and(is_object) || kept("additionalProperties").is_some_and(is_object))
    }

    fn text(&self, value: &'s Value) -> String {
        let says = |v: &Value| v.get("description").and_then(Value::as_str).map(|d| d.replace('\n', " ").replace('|', "\\|"));
        says(value).or_else(|| says(self.resolve(value).0)).unwrap_or_default()
    }

    fn row(&mut self, path: &str, value: &'s Value, is_required: bool) {
        let default = match value.get("default") {
            _ if is_required => "**required**".to_owned(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(default) => format!("`{default}`"),
            None => "–".to_owned(),
        };
        let _ = writeln!(self.out, "| `{path}` | {} | {default} | {} |", self.kind(value), self.text(value));
    }

    /// What may be written there, in words.
    fn kind(&self, value: &'s Value) -> String {
        let (schema, _) = self.resolve(value);
        let words = words(schema);
        if !words.is_empty() {
            return words.join(", ");
        }
        let kinds = schema.get("type").map(|t| t.as_array().map_or_else(|| vec![t], |a| a.iter().collect())).unwrap_or_default();
        let is = |kind: &str| kinds.iter().any(|k| k.as_str() == Some(kind));
        if is("array") {
            return match schema.get("items").map(|items| self.kind(items)) {
                Some(items) if items != "map" => format!("list: {items}"),
                _ => "list".to_owned(),
            };
        }
        let range = |key: &str| schema.get(key).and_then(Value::as_u64).filter(|n| *n > 0);
        if is("integer") {
            let unit = value.get("x-unit").and_then(Value::as_str).unwrap_or("number");
            return match (range("minimum"), range("maximum")) {
                (Some(low), Some(high)) => format!("{unit}, {low} to {high}"),
                _ => unit.to_owned(),
            };
        }
        if let Some(named) = schema.get("additionalProperties").filter(|named| named.is_object()) {
            return format!("map: name → {}", self.kind(named));
        }
        let plain = [("boolean", "`true`, `false`"), ("object", "map")];
        let named = plain.iter().find(|(kind, _)| is(kind)).map(|(_, name)| *name);
        let text = if schema.get("writeOnly").is_some() { "secret" } else { "text" };
        named.unwrap_or(text).to_owned()
    }

    /// The rows of all keys below `path`.
    fn inside(&mut self, path: &str, value: &'s Value) {
        let (schema, name) = self.resolve(value);
        if let Some(name) = name {
            if let Some((_, place)) = self.told.iter().find(|(told, _)| *told == name) {
                let _ = writeln!(self.out, "| `{path}.…` | | | The keys of `{place}`. |");
                return;
            }
            self.told.push((name, path.to_owned()));
        }
        if let Some(items) = schema.get("items") {
            return self.inside(&format!("{path}[]"), items);
        }
        if let Some(named) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            return self.inside(&format!("{path}.NAME"), named);
        }
        let kinds: Vec<&Value> = variants(schema).map_or_else(|| vec![schema], |kinds| kinds.iter().collect());
        for kind in kinds {
            // Of a sink's kinds exactly one is written: none is required.
            let required = if kinds_are_many(schema) { Vec::new() } else { required(kind) };
            for (key, below) in properties(kind) {
                let path = format!("{path}.{key}");
                let described = if below.get("description").is_some() { below } else { kind };
                if self.is_leaf(below) {
                    self.row(&path, below, required.contains(&key.as_str()));
                } else {
                    let shown = if kinds_are_many(schema) { described } else { below };
                    let _ = writeln!(self.out, "| `{path}` | {} | – | {} |", self.kind(below), self.text(shown));
                    self.inside(&path, below);
                }
            }
        }
    }
}

fn kinds_are_many(schema: &Value) -> bool {
    variants(schema).is_some()
}

/// The kinds of an object of which exactly one is written.
fn variants(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("oneOf").and_then(Value::as_array).filter(|all| all.iter().all(|one| one.get("properties").is_some()))
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn required(schema: &Value) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The words of a choice.
fn words(schema: &Value) -> Vec<String> {
    let choices = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)).and_then(Value::as_array);
    let of = |choice: &Value| match (choice.get("const"), choice.get("enum").and_then(Value::as_array)) {
        (Some(word), _) => vec![word.clone()],
        (None, Some(words)) => words.clone(),
        (None, None) => Vec::new(),
    };
    choices.into_iter().flatten().flat_map(of).filter_map(|w| w.as_str().map(|w| format!("`{w}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md")).unwrap_or_default();
        assert!(kept == markdown(), "docs/config.md is stale: cargo run -- schema config-reference > docs/config.md");
    }
}
