//! Every sink against a server that misbehaves: what is taken, tried again, refused; and one hostile corpus over all of them.
//!
//! In: notices and faults. Out: what reached the server and how the sink judged it. Invariant: no status is read otherwise than
//! its service means it.

#[path = "support/alerts.rs"]
mod alerts;
#[path = "support/fault.rs"]
mod fault;

use std::time::Duration;

use fault::{Fault, FaultServer};
use trailwarden::{
    alert::Level,
    sink::{Action, Config, Notice, Secret, SendError, Shared, Sink, http::Http, webhook},
};

const NOW_MS: i64 = alerts::TIME_MS + 5_000;

fn shared() -> Shared {
    Shared { http: Http::new(), page_url: Some("https://status.example/".into()) }
}

async fn open(yaml: &str) -> Sink {
    let config: Config = serde_saphyr::from_str(yaml).unwrap();
    Sink::open("test", &config, &shared()).await.unwrap()
}

fn notice() -> Notice {
    Notice::trigger(alerts::alert(1, Level::Critical))
}

fn verdict(result: Result<(), SendError>) -> &'static str {
    match result {
        Ok(()) => "taken",
        Err(SendError::Retry { .. }) => "retry",
        Err(SendError::Refused { .. }) => "refused",
    }
}

fn config(kind: &str, url: &str) -> String {
    match kind {
        "pagerduty" => format!("pagerduty: {{ routing_key: k, endpoint: '{url}' }}"),
        "alertmanager" => format!("alertmanager: {{ urls: ['{url}'] }}"),
        _ => format!("{kind}: {{ url: '{url}/hook' }}"),
    }
}

#[tokio::test]
async fn statuses_mean_what_the_service_means() {
    let ok = "ok";
    for (kind, fault, expected) in [
        ("pagerduty", Fault::Answer(202, "{}"), "taken"),
        ("pagerduty", Fault::Answer(400, "{\"status\":\"invalid event\"}"), "refused"),
        ("pagerduty", Fault::Answer(413, ""), "refused"),
        ("pagerduty", Fault::Answer(429, ""), "retry"),
        ("pagerduty", Fault::Answer(500, ""), "retry"),
        ("pagerduty", Fault::Answer(503, ""), "retry"),
        ("pagerduty", Fault::Reset, "retry"),
        ("pagerduty", Fault::Half(202), "taken"),
        ("pagerduty", Fault::Half(503), "retry"),
        ("pagerduty", Fault::Delayed(Duration::from_millis(300), 202, ""), "taken"),
        ("alertmanager", Fault::Answer(200, ""), "taken"),
        ("alertmanager", Fault::Answer(400, "\"bad\""), "refused"),
        ("alertmanager", Fault::Answer(500, ""), "retry"),
        ("slack", Fault::Answer(200, ok), "taken"),
        ("slack", Fault::Answer(200, "<html>sign in</html>"), "refused"),
        ("slack", Fault::Answer(400, "invalid_payload"), "refused"),
        ("slack", Fault::Answer(403, "action_prohibited"), "refused"),
        ("slack", Fault::Answer(404, "no_service"), "refused"),
        ("slack", Fault::Answer(410, "channel_is_archived"), "refused"),
        ("slack", Fault::Answer(429, ""), "retry"),
        ("webhook", Fault::Answer(204, ""), "taken"),
        ("webhook", Fault::Answer(408, ""), "retry"),
        ("webhook", Fault::AnswerWith(302, "location: http://169.254.169.254/latest/meta-data/", ""), "refused"),
        ("webhook", Fault::Answer(401, ""), "refused"),
    ] {
        let shown = format!("{kind} {fault:?}");
        let server = FaultServer::start(move |_, _| fault.clone()).await;
        let sink = open(&config(kind, &server.url)).await;
        assert_eq!(verdict(sink.send(&[notice()], NOW_MS).await), expected, "{shown}");
        assert_eq!(server.seen().len(), 1, "{shown}: one try, and no redirect followed");
    }
}

#[tokio::test]
async fn a_wait_that_the_service_asks_for_is_passed_on() {
    let server = FaultServer::start(|_, _| Fault::AnswerWith(429, "retry-after: 7", "")).await;
    let sink = open(&config("slack", &server.url)).await;
    let Err(SendError::Retry { after, answered, .. }) = sink.send(&[notice()], NOW_MS).await else { panic!("taken or refused") };
    assert_eq!((after, answered), (Some(Duration::from_secs(7)), 429));
}

#[tokio::test]
async fn nobody_there_is_a_retry() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sink = open(&config("pagerduty", &format!("http://{free}"))).await;
    assert_eq!(verdict(sink.send(&[notice()], NOW_MS).await), "retry");
}

#[tokio::test]
async fn every_replica_of_an_alertmanager_is_told() {
    let (up, down) = (FaultServer::always(200, "").await, FaultServer::always(500, "").await);
    let sink = open(&format!("alertmanager: {{ urls: ['{}', '{}/'], reassert_seconds: 30 }}", down.url, up.url)).await;
    let mut resolve = notice();
    resolve.action = Action::Resolve;
    assert_eq!(verdict(sink.send(&[notice(), resolve], NOW_MS).await), "taken");
    assert_eq!((up.seen().len(), down.seen().len()), (1, 1));
    let sent = up.seen()[0].clone();
    assert_eq!(sent.path, "/api/v2/alerts");
    let alerts = sent.json();
    assert_eq!(alerts[0]["labels"], alerts[1]["labels"]);
    assert_eq!(alerts[0]["labels"]["severity"], "critical");
    assert_eq!(alerts[0]["endsAt"], "2025-11-24T16:02:05Z");
    assert_eq!(alerts[1]["endsAt"], "2025-11-24T16:00:05Z");
}

#[tokio::test]
async fn a_webhook_can_check_the_signature() {
    let server = FaultServer::always(200, "").await;
    let sink = open(&format!("webhook: {{ url: '{}/hook', hmac_secret: s3, headers: {{ X-Token: t0 }} }}", server.url)).await;
    sink.send(&[notice()], NOW_MS).await.unwrap();
    let seen = server.seen()[0].clone();
    let expected = webhook::signature(&Secret::new("s3"), NOW_MS / 1000, seen.body.as_bytes());
    assert_eq!(seen.header("x-trailwarden-signature"), Some(expected.as_str()));
    assert_eq!(seen.header("x-token"), Some("t0"));
    assert_eq!(seen.json()["incident"], notice().incident);
}

#[tokio::test]
async fn aws_sinks_speak_to_their_services() {
    let sns = FaultServer::always(200, "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>").await;
    let topic = format!("sns: {{ topic_arn: 'arn:aws:sns:eu-west-1:111122223333:alerts.fifo', endpoint: '{}' }}", sns.url);
    assert_eq!(verdict(open(&topic).await.send(&[notice()], NOW_MS).await), "taken");
    let body = sns.seen()[0].body.clone();
    for part in ["Action=Publish", "MessageGroupId=7c1d3c52-", "MessageDeduplicationId=", "Subject=CRITICAL%20Snapshots%20purged"] {
        assert!(body.contains(part), "{part} in {body}");
    }

    let logs = FaultServer::start(|number, _| match number {
        0 => Fault::AnswerWith(400, "content-type: application/x-amz-json-1.1", "{\"__type\":\"ResourceNotFoundException\"}"),
        _ => Fault::AnswerWith(200, "content-type: application/x-amz-json-1.1", "{}"),
    })
    .await;
    let archive = format!("cloudwatch_logs: {{ log_group: /trailwarden/alerts, region: eu-west-1, form: ocsf, endpoint: '{}' }}", logs.url);
    assert_eq!(verdict(open(&archive).await.send(&[notice(), notice()], NOW_MS).await), "taken");
    let seen = logs.seen();
    let targets: Vec<_> = seen.iter().filter_map(|s| s.header("x-amz-target")).map(|t| t.rsplit('.').next().unwrap()).collect();
    assert_eq!(targets, ["PutLogEvents", "CreateLogGroup", "CreateLogStream", "PutLogEvents"]);
    assert_eq!(seen[3].json()["logEvents"].as_array().unwrap().len(), 2);

    for (status, code, expected) in
        [(400, "InvalidParameter", "refused"), (429, "Throttled", "retry"), (500, "InternalError", "retry"), (403, "AuthorizationError", "refused")]
    {
        let body: &'static str = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>").leak();
        let server = FaultServer::always(status, body).await;
        let topic = format!("sns: {{ topic_arn: 'arn:aws:sns:eu-west-1:111122223333:alerts', endpoint: '{}' }}", server.url);
        assert_eq!(verdict(open(&topic).await.send(&[notice()], NOW_MS).await), expected, "{code}");
    }
}

#[tokio::test]
async fn a_file_gets_one_line_a_notice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.ndjson");
    for form in ["json", "ocsf"] {
        let sink = open(&format!("file: {{ path: '{}', form: {form} }}", path.display())).await;
        sink.send(&[notice(), notice()], NOW_MS).await.unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()).count(), 4);
    let missing = open(&format!("file: {{ path: '{}/no/where' }}", folder.path().display())).await;
    assert_eq!(verdict(missing.send(&[notice()], NOW_MS).await), "retry");
}

/// Each line tries another medium.
const HOSTILE: [&str; 9] = [
    "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m",
    "<!channel> <@U123> <https://evil.example|click>",
    "@everyone @here *bold* `code` ~strike~",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "x\n# HELP owned y\nowned 1",
    "\",\"injected\":\"yes\\",
    "x\r\nX-Injected: yes\r\n\r\nGET / HTTP/1.1",
    "\u{202e}txt.exe\u{2066}\u{200b}\u{feff}",
    "\u{0}\u{8}\u{7f}\u{2028}\u{85}",
];

fn hostile_notice(text: &str) -> Notice {
    let mut alert = alerts::alert(1, Level::High);
    alert.summary = text.into();
    alert.group = vec![("userAgent".into(), text.into()), ("userName".into(), text.into())];
    alert.events[0].name = text.into();
    alert.events[0].source = text.into();
    alert.events[0].id = text.into();
    alert.account = text.into();
    alert.region = text.into();
    alert.incident = text.into();
    Notice::trigger(alert)
}

/// All strings inside.
fn strings(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => found.push(text.clone()),
        serde_json::Value::Array(all) => all.iter().for_each(|v| strings(v, found)),
        serde_json::Value::Object(all) => all.iter().for_each(|(name, v)| {
            found.push(name.clone());
            strings(v, found);
        }),
        _ => {}
    }
}

fn is_live(c: char) -> bool {
    c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}' | '\u{feff}' | '\u{2028}')
}

#[tokio::test]
async fn hostile_text_is_inert_at_every_sink() {
    for text in HOSTILE {
        for kind in ["pagerduty", "alertmanager", "slack", "webhook"] {
            let server = FaultServer::start(move |_, _| Fault::Answer(200, "ok")).await;
            let sink = open(&config(kind, &server.url)).await;
            sink.send(&[hostile_notice(text)], NOW_MS).await.unwrap();
            let seen = server.seen();
            assert_eq!(seen.len(), 1, "{kind}: no second request was smuggled in");
            assert_eq!(seen[0].header("x-injected"), None);
            let json = seen[0].json();
            assert!(!json.to_string().contains("\"injected\":\"yes"), "{kind}");
            let mut found = Vec::new();
            strings(&json, &mut found);
            if kind == "slack" {
                for bad in ["<!", "<@", "<https://evil", "<script", "`code`", "*bold*"] {
                    assert!(!found.iter().any(|s| s.contains(bad)), "{bad} in {found:?}");
                }
                assert_eq!(json["parse"], "none");
            }
            // The webhook's reader is a program that gets the text as it was; people read the others.
            if kind != "webhook" {
                let keyed = if kind == "pagerduty" { "dedup_key" } else { "" };
                let key = json.get(keyed).and_then(|k| k.as_str()).unwrap_or_default();
                assert!(!found.iter().filter(|s| *s != key).any(|s| s.chars().any(is_live)), "{kind}: {found:?}");
            }
        }
        inert_at_aws(text).await;
        let folder = tempfile::tempdir().unwrap();
        for (form, lines) in [("json", 1), ("ocsf", 1), ("text", 0)] {
            let path = folder.path().join(form);
            open(&format!("file: {{ path: '{}', form: {form} }}", path.display())).await.send(&[hostile_notice(text)], NOW_MS).await.unwrap();
            let written = std::fs::read_to_string(path).unwrap();
            assert!(!written.chars().any(is_live), "{form}: {written:?}");
            assert!(lines == 0 || written.lines().count() == lines, "{form}: {written}");
            assert!(!written.lines().any(|l| l.starts_with("owned")), "{form}");
        }
    }
}

/// SNS and CloudWatch Logs, in each form.
async fn inert_at_aws(text: &str) {
    for form in ["text", "json", "ocsf"] {
        let sns = FaultServer::always(200, "<PublishResponse><PublishResult><MessageId>m</MessageId></PublishResult></PublishResponse>").await;
        let topic = format!("sns: {{ topic_arn: 'arn:aws:sns:eu-west-1:111122223333:a', form: {form}, endpoint: '{}' }}", sns.url);
        open(&topic).await.send(&[hostile_notice(text)], NOW_MS).await.unwrap();
        let seen = sns.seen();
        assert_eq!(seen.len(), 1, "sns: no second request was smuggled in");
        for (name, value) in seen[0].body.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = unquote(value);
            assert!(!value.chars().any(is_live) && (name != "Subject" || !value.contains('\n')), "sns {form} {name}: {value:?}");
        }
        let logs = FaultServer::start(|_, _| Fault::AnswerWith(200, "content-type: application/x-amz-json-1.1", "{}")).await;
        let archive = format!("cloudwatch_logs: {{ log_group: a, region: eu-west-1, form: {form}, endpoint: '{}' }}", logs.url);
        open(&archive).await.send(&[hostile_notice(text)], NOW_MS).await.unwrap();
        let events = logs.seen()[0].json()["logEvents"].as_array().unwrap().clone();
        assert!(events.len() == 1 && !events[0]["message"].as_str().unwrap().chars().any(is_live), "logs {form}: {events:?}");
    }
}

/// Of a form's value.
fn unquote(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn no_secret_shows_in_config_errors_or_debug() {
    const CANARY: &str = "c4n4ry-5ecret";
    let server = FaultServer::always(400, "no").await;
    for yaml in [
        format!("pagerduty: {{ routing_key: {CANARY}, endpoint: '{}' }}", server.url),
        format!("slack: {{ url: '{}/{CANARY}' }}", server.url),
        format!("webhook: {{ url: '{}/{CANARY}', hmac_secret: {CANARY}, headers: {{ authorization: {CANARY} }} }}", server.url),
        format!("alertmanager: {{ urls: ['{}/{CANARY}'], bearer_token: {CANARY} }}", server.url),
    ] {
        let config: Config = serde_saphyr::from_str(&yaml).unwrap();
        assert!(!format!("{config:?}{config:#?}").contains(CANARY));
        let sink = Sink::open("x", &config, &shared()).await.unwrap();
        let error = sink.send(&[notice()], NOW_MS).await.unwrap_err();
        assert!(!format!("{sink:?}{error}{error:?}").contains(CANARY), "{error:?}");
    }
    for yaml in [
        format!("slack: {{ url: 'http://10.0.0.1/{CANARY}' }}"),
        format!("slack: {{ url: '{CANARY} is no address' }}"),
        format!("webhook: {{ url: '{}/x', hmac_secret: [{CANARY}] }}", server.url),
    ] {
        let error = serde_saphyr::from_str::<Config>(&yaml).unwrap_err();
        // The reader of the config shows the place; the value itself must come from the file only, not from the type.
        assert!(!format!("{:?}", error.without_snippet()).contains(CANARY), "{error:?}");
    }
}
