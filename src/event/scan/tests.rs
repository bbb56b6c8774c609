//! Routing values: as a full parse finds them, or `Unknown`.

use proptest::prelude::*;

use super::super::simd::{self, Portable, run_with};
use super::*;

fn escaped(text: &str) -> Vec<u8> {
    let mut out = serde_json::to_string(text).unwrap().into_bytes();
    out.remove(0);
    out
}

/// Both levels, both ways to make masks, and the values as text.
fn check(text: &str, source: Option<&str>, name: Option<&str>, identity: Option<&str>) {
    let plain = text.as_bytes();
    let quoted = escaped(text);
    for (buffer, level) in [(plain, Level::Plain), (&quoted, Level::Escaped)] {
        let fast = scan(buffer, 0, level).unwrap_or_else(|| panic!("no end in {text}"));
        assert_eq!(Some(fast), run_with::<Portable>(buffer, 0, level), "{text}");
        let end = if level == Level::Plain { plain.len() } else { quoted.len() - 1 };
        assert_eq!(fast.end, end, "{text}");
        assert!(fast.whole);
        let text_of = |known: Known| known.text(buffer).map(|t| std::str::from_utf8(t).unwrap());
        assert_eq!(text_of(fast.routing.event_source), source, "{level:?} {text}");
        assert_eq!(text_of(fast.routing.event_name), name, "{level:?} {text}");
        assert_eq!(text_of(fast.routing.identity_type), identity, "{level:?} {text}");
    }
}

#[test]
fn canonical_record() {
    check(
        r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::1:user/x","sessionContext":{"sessionIssuer":{"type":"Role"}}},"eventTime":"2026-01-01T00:00:00Z","eventSource":"rds.amazonaws.com","eventName":"DeleteDBSnapshot","userAgent":"a \"b\" \\c","requestParameters":{"eventName":"Nested","policy":"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Sid\":\"a\\\"b\"}]}"},"resources":[{"type":"AWS::RDS::DBInstance"}]}"#,
        Some("rds.amazonaws.com"),
        Some("DeleteDBSnapshot"),
        Some("IAMUser"),
    );
}

#[test]
fn evasions_are_unknown() {
    // Duplicate keys, escaped keys, nested keys only, a key whose end looks like ours, an escaped value.
    check(r#"{"eventSource":"a","eventName":"b","eventName":"c"}"#, Some("a"), None, None);
    check(r#"{"eventSource":"a","\u0065ventName":"b","eventName":"c"}"#, None, None, None);
    check(r#"{"eventSource":"a","x":{"eventName":"c"}}"#, Some("a"), None, None);
    check(r#"{"eventSource":"a","x\"eventName":"c"}"#, Some("a"), None, None);
    check(r#"{"eventSource":"a","eventName":"c\u0041"}"#, Some("a"), None, None);
    check(r#"{"eventSource":"a","eventName":"c","x":"eventName","y":["eventSource"]}"#, Some("a"), Some("c"), None);
    check(r#"{"userIdentity":{"type":"A","type":"B"},"eventSource":"a","eventName":"c"}"#, Some("a"), Some("c"), None);
    check(r#"{"userIdentity":{"a":1,"type":"B"},"eventSource":"a","eventName":"c"}"#, Some("a"), Some("c"), None);
    check(r#"{"userIdentity":{"\u0074ype":"A","type":"B"},"eventSource":"a","eventName":"c"}"#, None, None, None);
    check(r#"{"userIdentity.type":"A","eventSource":"a","eventName":"c"}"#, Some("a"), Some("c"), None);
    check(r#"{"x":{"type":"A"},"userIdentity":{"type":"B"},"eventSource":"a","eventName":"c"}"#, Some("a"), Some("c"), Some("B"));
    // An escape in a value says nothing about keys.
    check(r#"{"z":"\u0041\\u0042","eventSource":"a","eventName":"c"}"#, Some("a"), Some("c"), None);
    check(r#"{"eventSource":"a","eventName":"c","p":"}]{[\\"}"#, Some("a"), Some("c"), None);
}

#[test]
fn escaped_text_ends_where_its_string_ends() {
    for (text, end, whole) in [
        (r#"{\"a\":1}","x":"}"}"#, 9, true),
        (r#"{\"a\":1}\n","b":2"#, 11, true),
        (r#"{\"a\":1} x","b":2"#, 11, false),
        (r#"{\"a\":[1"},"b""#, 9, false),
        (r#"{\"a\":\"x\\\\\"}","b""#, 17, true),
    ] {
        let scanned = scan(text.as_bytes(), 0, Level::Escaped).unwrap();
        assert_eq!((scanned.end, scanned.whole), (end, whole), "{text}");
    }
    assert_eq!(scan(br#"{\"a\":1}"#, 0, Level::Escaped), None);
    assert_eq!(scan(br#"{"a":{"b":1}"#, 0, Level::Plain), None);
}

/// JSON text with our keys in odd places.
fn json_text() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => Just("eventSource"), 4 => Just("eventName"), 3 => Just("userIdentity"), 3 => Just("type"), 2 => Just("userAgent"), 2 => Just("errorCode"), 2 => Just("sourceIPAddress"), 2 => Just("arn"), 2 => Just("accessKeyId"), 2 => Just("readOnly"), 1 => Just("userIdentity.type"), 1 => Just("userIdentity.arn"),
        1 => Just(r"\u0065ventName"), 1 => Just(r#"a\"eventName"#), 2 => Just("k"),
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("12".to_owned()),
        Just("true".to_owned()),
        r#"[a-zA-Z{}\[\]:, ]{0,70}"#.prop_map(|s| format!("\"{s}\"")),
        Just(r#""a\\""#.to_owned()),
        Just(r#""\"eventName\":\"x\"""#.to_owned()),
        Just(r#""\\\"}""#.to_owned()),
        Just(r#""\u007d""#.to_owned()),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            3 => proptest::collection::vec((key.clone(), inner.clone()), 0..6)
                .prop_map(|members| format!("{{{}}}", members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect::<Vec<_>>().join(","))),
            1 => proptest::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
        ]
    })
    .prop_filter("an object", |text| text.starts_with('{'))
}

/// A record in the service's order, with any members behind what is read word for word, and some before it.
fn record_text() -> impl Strategy<Value = String> {
    let value = r#"[a-zA-Z0-9:/. {}]{0,70}"#;
    let identity = prop_oneof![
        4 => Just(r#""arn":"arn:aws:iam::1:user/x","sessionContext":{"attributes":{"a":"}"},"sessionIssuer":{"type":"Role","arn":"b"}},"invokedBy":"c""#),
        1 => Just(r#""sessionContext":{"a":{}},"arn":"x""#),
        1 => Just(r#""sessionContext":{"a":"\"","b":"}"},"arn":"x""#),
        1 => Just(r#""sessionContext":{"a":"\\"},"arn":"x""#),
        1 => Just(r#""sessionContext":{"a":"\u0041"},"\u0061rn":"y","arn":"x""#),
        2 => Just(r#""principalId":"p","arn":"x","accountId":"1","accessKeyId":"AKIA","sessionContext":{"a":{}}"#),
        1 => Just(r#""accessKeyId":"AKIA","arn":"x","accessKeyId":"ASIA""#),
        1 => Just(r#""arn":"x","arn":"y""#),
        1 => Just(r#""arn":null"#),
        1 => Just(r#""arn":["x"],"type":"y""#),
        1 => Just(r#""a":{"arn":"x"},"b":1"#),
        1 => Just(r#""arn":"x","sessionContext":{"inScopeOf":1},"inScopeOf":{"issuerType":"AWS::Lambda::Function"}"#),
        1 => Just(r#""principalId":"p","inScopeOf.issuerType":"y""#),
        1 => Just(r#""arn":"x","inScopeOf":{"issuerType":"AWS::EC2::Instance","credentialsIssuedTo":"arn:x"},"b":"y""#),
        1 => Just(r#""arn":"x","inScopeOf":{"issuerType":"a","x":{},"issuerType":"b"}"#),
        1 => Just(r#""arn":"x","inScopeOf":{"issuerType":"a"},"inScopeOf":{"issuerType":"b"}"#),
    ];
    let error = prop_oneof![Just(String::new()), value.prop_map(|v| format!(r#","errorCode":"{v}""#))];
    (value, identity, value, value, error, json_text(), any::<bool>()).prop_map(|(name, identity, address, agent, error, rest, nest)| {
        let rest = if nest { format!(r#","requestParameters":{rest}}}"#) } else { format!(",{}", &rest[1..]) };
        let console = ["", r#","sessionCredentialFromConsole":"true""#, r#","engineVersion":"FromConsole""#][rest.len() % 3];
        let tail = format!(r#","readOnly":false,"resources":[{{"a":"]"}}],"tlsDetails":{{"b":"}}"}}{console}}}"#);
        let rest = if nest && rest.len() % 3 > 0 { format!("{}{tail}", &rest[..rest.len() - 1]) } else { rest };
        let rest = if rest == ",}" { "}".to_owned() } else { rest };
        format!(
            r#"{{"eventVersion":"1.11","userIdentity":{{"type":"IAMUser",{identity}}},"eventTime":"t","eventSource":"s","eventName":"{name}","awsRegion":"r","sourceIPAddress":"{address}","userAgent":"{agent}"{error}{rest}"#
        )
    })
}

fn resolved(known: Known, buffer: &[u8]) -> Option<Vec<Vec<u8>>> {
    match known {
        Known::Unknown => None,
        Known::Missing => Some(vec![]),
        Known::Text { .. } => Some(vec![known.text(buffer).unwrap().to_vec()]),
    }
}

/// Asked only where the engine asks.
fn read_only_of(buffer: &[u8], scanned: &Scanned, level: Level) -> Known {
    let body = &buffer[..scanned.end];
    assert_eq!(simd::read_only(body, level).unwrap_or_default(), simd::read_only_at::<Portable>(body, level).unwrap_or_default());
    if scanned.routing.event_source == Known::Unknown { Known::Unknown } else { read_only(body, level) }
}

fn compare_with_full_parse(text: &str) -> Result<(), TestCaseError> {
    use crate::event::{Schema, Slots, json};
    let mut schema = Schema::new();
    let names = [
        "eventSource",
        "eventName",
        "userIdentity.type",
        "userAgent",
        "errorCode",
        "sourceIPAddress",
        "userIdentity.arn",
        "userIdentity.accessKeyId",
        "readOnly",
        "userIdentity.accountId",
        "userIdentity.inScopeOf.issuerType",
        "sessionCredentialFromConsole",
    ];
    let ids = names.map(|n| schema.add(n));
    let mut slots = Slots::default();
    json::fill(text.as_bytes(), &schema, &mut slots).unwrap();
    let mut quoted = escaped(text);
    // A message ends within a payload, not with it.
    quoted.extend_from_slice(br#"},{"id":"eventName""#);
    for (buffer, level) in [(text.as_bytes(), Level::Plain), (quoted.as_slice(), Level::Escaped)] {
        let scanned = scan(buffer, 0, level).unwrap();
        prop_assert_eq!(Some(scanned), run_with::<Portable>(buffer, 0, level));
        prop_assert!(scanned.whole);
        let r = scanned.routing;
        let known = [
            r.event_source,
            r.event_name,
            r.identity_type,
            r.user_agent,
            r.error_code,
            r.source_address,
            r.identity_arn,
            r.access_key,
            read_only_of(buffer, &scanned, level),
            r.identity_account,
            r.issuer_type,
            r.from_console,
        ];
        for (id, known) in ids.iter().zip(known) {
            if let Some(values) = resolved(known, buffer) {
                let full: Vec<Vec<u8>> = slots.get(*id).map(|v| slots.text(text.as_bytes(), v).unwrap_or(b"<null>").to_vec()).collect();
                prop_assert_eq!(values, full, "{:?} {}", level, text);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn known_values_are_those_of_a_full_parse(text in json_text()) {
        compare_with_full_parse(&text)?;
    }

    #[test]
    fn values_of_records_are_those_of_a_full_parse(text in record_text()) {
        compare_with_full_parse(&text)?;
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'{'), Just(b'}'), Just(b'u'), Just(b'e'), any::<u8>()], 0..300)) {
        for level in [Level::Plain, Level::Escaped] {
            prop_assert_eq!(scan(&bytes, 0, level), run_with::<Portable>(&bytes, 0, level));
        }
    }
}
