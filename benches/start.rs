//! From the start of the process to the first finding: `scan` of one small file with all built-in detectors.
//!
//! In: the release binary. Out: least, median and greatest of the runs, in milliseconds. Invariant: a run without a finding stops it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

const RUNS: usize = 40;
const EVENT: &str = r#"{"Records":[{"eventVersion":"1.11","eventTime":"2026-01-01T00:00:00Z","eventID":"0b4c5a52-0000-4000-8000-000000000001","eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.9","userAgent":"aws-cli/2.15.30","recipientAccountId":"111122223333","userIdentity":{"type":"IAMUser","arn":"arn:aws:iam::111122223333:user/mallory","accountId":"111122223333","userName":"mallory"},"requestParameters":{"name":"main"}}]}"#;

fn main() {
    let path = std::env::temp_dir().join(format!("trailwarden-start-{}.json", std::process::id()));
    std::fs::write(&path, EVENT).expect("a temporary file");
    let mut took_ms: Vec<f64> = (0..RUNS).map(|_| first_finding_ms(&path)).collect();
    std::fs::remove_file(&path).expect("it was written above");
    took_ms.sort_by(f64::total_cmp);
    println!("start to first finding: least {:.1}, median {:.1}, greatest {:.1} ms of {RUNS} runs", took_ms[0], took_ms[RUNS / 2], took_ms[RUNS - 1]);
}

fn first_finding_ms(path: &std::path::Path) -> f64 {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
        .arg("scan")
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary is built with the bench");
    let mut out = child.stdout.take().expect("piped");
    out.read_exact(&mut [0]).expect("a finding");
    let took = started.elapsed();
    child.wait().expect("it was started");
    took.as_secs_f64() * 1e3
}
