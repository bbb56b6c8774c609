//! Tables of texts and the trees or errors that they give.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Vec<Node>, Vec<String>) {
    let mut report = Report::new("x.yml".into());
    let documents = parse(text, &mut report);
    (documents, report.found.into_iter().map(|found| found.message).collect())
}

fn one(text: &str) -> Node {
    let (mut documents, errors) = read(text);
    assert!(errors.is_empty(), "{text}: {errors:?}");
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

#[test]
fn spans_are_bytes_of_the_source() {
    for text in ["a: b\nk: [x, 'y z']\n", "\u{feff}é: ü\nk: [x, 'y z']\n", "a: b\r\nk: [x, 'y z']\r\n", "# ü\n---\na: b\nk:\n  - x\n  - 'y z'\n"] {
        let node = one(text);
        let piece = |node: &Node| &text[node.span.start as usize..node.span.end as usize];
        let entries = node.entries().unwrap();
        assert_eq!(piece(&entries[0].0), entries[0].0.text().unwrap());
        assert_eq!(piece(&entries[1].0), "k");
        let Kind::Sequence(items) = &entries[1].1.kind else { panic!("{text}") };
        assert_eq!((piece(&items[0]), piece(&items[1])), ("x", "'y z'"), "{text:?}");
        assert_eq!(items[1].text(), Some("y z"));
    }
}

#[test]
fn plain_scalars_have_types_and_quoted_ones_do_not() {
    for (text, null, boolean, number) in [
        ("~", true, None, None),
        ("null", true, None, None),
        ("'null'", false, None, None),
        ("''", false, None, None),
        ("true", false, Some(true), None),
        ("False", false, Some(false), None),
        ("'true'", false, None, None),
        ("yes", false, None, None),
        ("5", false, None, Some("5")),
        ("-5", false, None, Some("-5")),
        ("+5", false, None, Some("5")),
        ("0", false, None, Some("0")),
        ("0x10", false, None, Some("16")),
        ("0o10", false, None, Some("8")),
        ("1.50", false, None, Some("1.50")),
        (".5", false, None, Some(".5")),
        ("1e3", false, None, Some("1e3")),
        ("012345678901", false, None, None),
        ("'5'", false, None, None),
        ("!!str 5", false, None, None),
        ("1.2.3", false, None, None),
        ("1_000", false, None, None),
        (".inf", false, None, None),
        ("-", false, None, None),
        ("2026-01-01", false, None, None),
    ] {
        let value = one(&format!("k: {}", if text == "-" { "'-'" } else { text }));
        let value = value.get("k").unwrap();
        assert_eq!((value.is_null(), value.as_bool(), value.as_number().as_deref()), (null, boolean, number), "{text}");
    }
}

#[test]
fn documents_anchors_and_aliases() {
    let (documents, errors) = read("a: &x [1, 2]\nb: *x\n---\nc: 3\n---\n---\nd: 4\n");
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(documents.len(), 3);
    assert_eq!(documents[0].get("a").unwrap().kind, documents[0].get("b").unwrap().kind);
}

#[test]
fn errors_name_their_cause() {
    for (text, expected) in [
        ("a: 1\na: 2\n", "the key `a` stands twice"),
        ("a: 1\nb: *x\n", "YAML: "),
        ("a: &x {b: *x}\n", "this alias stands for nothing"),
        ("a: &x 1\n---\nb: *x\n", "this alias stands for nothing"),
        ("a: {<<: {b: 1}}", "merge keys"),
        ("a: !custom 1", "tag `!custom`"),
        ("{[a]: 1}", "a map's key must be"),
        ("a: b\0c: d", "NUL"),
        ("a: [1, 2", "YAML: "),
        ("a: b: c", "YAML: "),
        ("a:\n\tb: c\n", "YAML: "),
    ] {
        let errors = read(text).1;
        assert!(errors.first().is_some_and(|error| error.contains(expected)), "{text:?}: {errors:?}");
    }
}

#[test]
fn documents_before_an_error_are_kept() {
    let (documents, errors) = read("a: 1\n---\nb: [\n");
    assert_eq!((documents.len(), errors.len()), (1, 1));
}

#[test]
fn bombs_end_fast_with_an_error() {
    let laughs = (1..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, i| {
        let past = i - 1;
        text + &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{past}"); 10].join(", "))
    });
    let deep = 100_000;
    for (name, text) in [
        ("laughs", laughs),
        ("flow lists", "[".repeat(deep)),
        ("flow maps", "{a: ".repeat(deep)),
        ("block lists", "- ".repeat(deep)),
        ("keys", "? ".repeat(deep)),
        ("anchors", "- &a ".repeat(deep)),
        ("steps", (0..1_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        ("quotes", "\"".repeat(deep)),
        ("colons", "a: ".repeat(deep)),
        ("bangs", "!".repeat(deep)),
        ("stars", "- *a\n".repeat(deep)),
        ("big", "a".repeat(MAX_FILE_BYTES + 1)),
        ("many", "- a\n".repeat(MAX_FILE_BYTES / 4)),
        ("nested anchors", (0..60).map(|i| format!("&a{i} [")).chain(["x,".repeat(100_000)]).collect()),
    ] {
        let start = Instant::now();
        let errors = read(&text).1;
        assert!(!errors.is_empty(), "{name}");
        // Unoptimised builds on a busy machine: generous, still far from quadratic.
        assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_text_is_read_or_refused(text in "[a-c:\\-\\[\\]{}#&*!|>'\"%@` \\n\\t?,.é0~<]{0,80}") {
        read(&text);
    }

    #[test]
    fn any_characters_are_read_or_refused(text in any::<String>()) {
        read(&text);
    }
}
