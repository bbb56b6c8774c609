//! A canary in every secret of the config shows nowhere: logs, errors, metrics, page, API, state.
//!
//! In: the real daemon on the embedded stream, sinks that fail in every way. Out: everything that it says. Invariant: the canary is
//! really used, else the test proves nothing: the sinks' server has seen it.
#![cfg(feature = "demo")]

#[path = "support/fault.rs"]
mod fault;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Output, Stdio},
    time::Duration,
};

use fault::{Fault, FaultServer};
use trailwarden::demo::endpoint::{Endpoint, Options};

const CANARY: &str = "c4n4ry-5ecret-value";

fn config(stream: &str, sink: &str, folder: &str, port: u16) -> String {
    format!(
        "kinesis: {{ streams: [audit], endpoint: '{stream}' }}
state: {{ path: '{folder}/state.redb' }}
sinks:
  pager: {{ pagerduty: {{ routing_key: '${{CANARY}}', endpoint: '{sink}' }} }}
  chat: {{ slack: {{ url: '{sink}/{CANARY}' }} }}
  hook: {{ webhook: {{ url: '{sink}/{CANARY}', hmac_secret: {CANARY}, headers: {{ x-token: '${{file:{folder}/canary}}' }} }} }}
  am: {{ alertmanager: {{ urls: ['{sink}/{CANARY}'], bearer_token: {CANARY} }} }}
delivery: {{ fallback: chat, heartbeat: {{ url: '{sink}/{CANARY}', every_seconds: 1 }} }}
admin: {{ listen: '127.0.0.1:{port}', token: {CANARY} }}
"
    )
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    Some(text)
}

fn trailwarden(arguments: &[&str], port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(arguments).env("CANARY", CANARY).env("TRAILWARDEN_TOKEN", CANARY).env("TRAILWARDEN_LOG", "trace");
    command.env("TRAILWARDEN_ADDRESS", format!("127.0.0.1:{port}")).env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", CANARY);
    command.env("AWS_REGION", "eu-west-1").env("RUST_BACKTRACE", "full");
    command
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_secret_of_the_config_shows_anywhere() {
    let endpoint = Endpoint::start(Options::default()).await.unwrap();
    endpoint.create_stream("audit", 1).unwrap();
    let sink = FaultServer::start(|number, _| match number % 3 {
        0 => Fault::Answer(400, "no"),
        1 => Fault::AnswerWith(302, "location: http://127.0.0.1:1/", ""),
        _ => Fault::Reset,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    fs::write(folder.path().join("canary"), CANARY).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = config(endpoint.url(), &sink.url, &path, port);
    let file = folder.path().join("trailwarden.yml").display().to_string();
    fs::write(&file, &yaml).unwrap();

    let mut shown = Vec::new();
    // A pipe that nobody reads would stop the daemon at its first full buffer.
    let log = folder.path().join("log");
    let out = fs::File::create(&log).unwrap();
    let errors = out.try_clone().unwrap();
    let mut child = trailwarden(&["run", "--config", &file], port).stdout(out).stderr(errors).stdin(Stdio::null()).spawn().unwrap();
    for _ in 0..300 {
        if get(port, "/healthz").is_some_and(|text| text.contains("200 OK")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shown.push(("alert test".to_owned(), said(&trailwarden(&["alert", "test", "--level", "critical"], port).output().unwrap())));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for path in ["/", "/metrics", "/readyz", "/api/status", "/api/alerts", "/api/sinks", "/api/incidents", "/api/dead-letters", "/api/silences"] {
        let Some(text) = get(port, path) else {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
            panic!("no answer from {path}: {}", fs::read_to_string(&log).unwrap());
        };
        shown.push((path.to_owned(), text));
    }
    for arguments in [&["dead-letter", "list"][..], &["dead-letter", "replay", "--all"], &["healthcheck"]] {
        shown.push((arguments.join(" "), said(&trailwarden(arguments, port).output().unwrap())));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    child.wait().unwrap();
    shown.push(("the daemon's log".to_owned(), fs::read_to_string(&log).unwrap()));
    shown.push(("the state".to_owned(), String::from_utf8_lossy(&fs::read(folder.path().join("state.redb")).unwrap()).into_owned()));

    // A state file that takes no more bytes: the daemon ends by itself, and says why.
    let mut failing = Command::new("sh");
    failing.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"]);
    let plain = trailwarden(&["run", "--config", &file], port);
    failing.arg(plain.get_program()).args(plain.get_args()).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let out = failing.output().unwrap();
    assert!(!out.status.success(), "it runs without a state: {}", said(&out));
    shown.push(("the crash".to_owned(), said(&out)));

    // Configs that are wrong beside, before and in a secret.
    for (name, from, to) in [
        ("a secret that is a list", format!("hmac_secret: {CANARY}"), format!("hmac_secret: [{CANARY}x]")),
        ("an address that is none", format!("slack: {{ url: '{}/{CANARY}' }}", sink.url), "slack: { url: '${CANARY} x' }".to_owned()),
        ("plain http", format!("slack: {{ url: '{}/{CANARY}' }}", sink.url), "slack: { url: 'http://10.0.0.1/${CANARY}' }".to_owned()),
        ("an unknown key", "routing_key:".to_owned(), "routing_kye:".to_owned()),
    ] {
        let wrong = yaml.replace(&from, &to).replace(&format!(": {CANARY}"), ": '${CANARY}'").replace(&format!("/{CANARY}'"), "/${CANARY}'");
        assert_ne!(wrong, yaml, "{name}");
        fs::write(&file, wrong).unwrap();
        let out = trailwarden(&["run", "--config", &file], port).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{name}: {}", said(&out));
        // What stands in the file itself may be quoted from it; what a variable holds may not.
        let text = said(&out).replace(&format!("[{CANARY}x]"), "");
        shown.push((name.to_owned(), text));
    }
    let used: String = sink.seen().iter().map(|s| format!("{} {:?} {}\n", s.path, s.headers, s.body)).collect();
    for used_as in
        ["/c4n4ry-5ecret-value", "\"routing_key\":\"c4n4ry-5ecret-value\"", "(\"x-token\", \"c4n4ry-5ecret-value\")", "Bearer c4n4ry-5ecret-value"]
    {
        assert!(used.contains(used_as), "the sinks never saw {used_as}: {used}");
    }
    for (place, text) in &shown {
        assert!(!text.is_empty() || place == "healthcheck", "{place} says nothing");
        if let Some(at) = text.find(CANARY) {
            let around: String = text[..at].chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect();
            panic!("{place} shows the canary after: {around}");
        }
    }
    println!("the canary went out in {} requests and shows in none of {} places", sink.seen().len(), shown.len());
}
