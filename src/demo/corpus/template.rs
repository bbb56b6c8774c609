//! Calls as templates: the text tables beside this file, compiled to runs of literal text and slots.
//!
//! In: a table's text. Out: `Call`s whose pieces, filled one after the other, make a CloudTrail event in the field order of
//! the service. Invariant: a call compiles to valid JSON whatever the slots hold, since slots hold no quotes or backslashes.

use std::ops::Range;

/// What a template is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(Range<u32>),
    /// A slot's letter; `estate::Draw` knows what it stands for.
    Slot(u8),
}

/// Slots that the event's frame uses: identity, source address, agent, TLS details.
pub const IDENTITY: u8 = b'1';
pub const ADDRESS: u8 = b'2';
pub const AGENT: u8 = b'3';
pub const TAIL: u8 = b'4';
/// The region that the service logs under: that of the session, except for global services.
pub const REGION: u8 = b'r';

#[derive(Debug, Clone)]
pub struct Call {
    /// Milliseconds from the story's start, and the caption; in the story only.
    pub at_ms: u64,
    pub caption: String,
    pub weight: u32,
    /// Names of session pools; one of them is drawn.
    pub actors: Vec<String>,
    pub service: String,
    pub name: String,
    text: String,
    pieces: Vec<Piece>,
}

/// The lines of one call, before they are put in order.
#[derive(Default)]
struct Lines<'t> {
    header: &'t str,
    error_message: Option<&'t str>,
    request: Option<&'t str>,
    response: Option<&'t str>,
    additional: Option<&'t str>,
    resources: Option<&'t str>,
    service_details: Option<&'t str>,
}

impl Call {
    /// Text and slots in order.
    pub fn pieces(&self) -> impl Iterator<Item = Result<&str, u8>> {
        self.pieces.iter().map(|piece| match piece {
            Piece::Text(range) => Ok(&self.text[range.start as usize..range.end as usize]),
            Piece::Slot(letter) => Err(*letter),
        })
    }
}

/// Every call of a table. Panics on a malformed one: the tables are compiled in and covered by a test.
pub fn parse(table: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let (mut at_ms, mut caption) = (0, "");
    let mut lines = Lines::default();
    for line in table.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" if lines.header.is_empty() => {}
            "" => calls.push(compile(&std::mem::take(&mut lines), at_ms, caption)),
            "at" => {
                let (ms, words) = rest.split_once(' ').expect("`at` has a time and a caption");
                (at_ms, caption) = (ms.parse().expect("`at` has milliseconds"), words);
            }
            "req" => lines.request = Some(rest),
            "res" => lines.response = Some(rest),
            "add" => lines.additional = Some(rest),
            "rsc" => lines.resources = Some(rest),
            "ser" => lines.service_details = Some(rest),
            "err" => lines.error_message = Some(rest),
            _ => lines.header = line,
        }
    }
    calls
}

fn compile(lines: &Lines<'_>, at_ms: u64, caption: &str) -> Call {
    let (header, agent) = match lines.header.split_once(" ua=") {
        Some((header, agent)) => (header, agent),
        None => (lines.header, "@3"),
    };
    let words: Vec<&str> = header.split(' ').collect();
    let [weight, actors, service, name, access, errors @ ..] = words.as_slice() else { panic!("malformed header: {header}") };
    let global = matches!(*service, "iam" | "sts" | "signin");
    let source = format!("{service}.amazonaws.com");
    let mut text = format!(
        r#"{{"eventVersion":"1.11","userIdentity":@1,"eventTime":"@t","eventSource":"{source}","eventName":"{name}","awsRegion":"{}","sourceIPAddress":"@2","userAgent":"{agent}""#,
        if global { "us-east-1" } else { "@r" }
    );
    let mut field = |name: &str, value: Option<&str>, quoted: bool| {
        let Some(value) = value else { return };
        let quote = if quoted { "\"" } else { "" };
        text += &format!(r#","{name}":{quote}{value}{quote}"#);
    };
    field("errorCode", errors.first().copied().filter(|code| *code != "-"), true);
    field("errorMessage", lines.error_message, true);
    field("requestParameters", lines.request.or(Some("null")), false);
    field("responseElements", lines.response.or(Some("null")), false);
    field("additionalEventData", lines.additional, false);
    let kind = match (*service, lines.service_details) {
        (_, Some(_)) => "AwsServiceEvent",
        ("signin", None) => "AwsConsoleSignIn",
        _ => "AwsApiCall",
    };
    field("requestID", lines.service_details.is_none().then_some("@q"), true);
    field("eventID", Some("@e"), true);
    field("readOnly", Some(if *access == "r" { "true" } else { "false" }), false);
    field("resources", lines.resources, false);
    field("eventType", Some(kind), true);
    field("managementEvent", Some("true"), false);
    field("recipientAccountId", Some("@a"), true);
    field("serviceEventDetails", lines.service_details, false);
    field("eventCategory", Some("Management"), true);
    text += "@4}";
    Call {
        at_ms,
        caption: caption.to_owned(),
        weight: weight.parse().expect("a weight"),
        actors: actors.split(',').map(str::to_owned).collect(),
        service: (*service).to_owned(),
        name: (*name).to_owned(),
        pieces: cut(&mut text),
        text,
    }
}

/// Cuts `text` at its slots; `@@` stands for the sign itself.
fn cut(text: &mut String) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::with_capacity(text.len());
    let mut start = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '@' {
            plain.push(c);
            continue;
        }
        let slot = rest.next().expect("a slot's letter");
        if slot == '@' {
            plain.push('@');
            continue;
        }
        pieces.push(Piece::Text(start..plain.len() as u32));
        pieces.push(Piece::Slot(u8::try_from(slot).expect("slots are ASCII")));
        start = plain.len() as u32;
    }
    pieces.push(Piece::Text(start..plain.len() as u32));
    *text = plain;
    pieces
}
