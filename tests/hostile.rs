//! Input that wants to hide a `StopLogging`, or to bring the reader down: found or quarantined, and its neighbours are found.
//!
//! In: a folder of one hostile file and one honest one, read by `scan` with the built-in detectors. Out: findings, what stderr
//! names, the exit code, the most memory. Invariant: every event is counted once.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const MOST_KB: u64 = 512 << 10;
const RULE: &str = "title: stop\nid: 5b1f7a52-7a55-4f1c-9f0e-0d0f9a3e0c77\nlevel: high\nlogsource: {product: aws, service: cloudtrail}\ndetection: {s: {eventName: StopLogging}, condition: s}\n";

/// Everything but what a case changes.
fn event(id: &str) -> String {
    format!(
        r#"{{"eventVersion":"1.11","userIdentity":{{"type":"IAMUser"}},"eventTime":"2026-01-01T00:00:00Z","eventSource":"cloudtrail.amazonaws.com","eventName":"StopLogging","sourceIPAddress":"203.0.113.9","userAgent":"x","requestParameters":{{"name":"t"}},"eventID":"{id}","recipientAccountId":"111122223333"}}"#
    )
}

fn gz(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

struct Told {
    findings: usize,
    stderr: String,
    code: Option<i32>,
    peak_kb: u64,
}

fn scan(folder: &Path, rule: &Path) -> Told {
    let out = std::fs::File::create(rule.with_extension("out")).unwrap();
    let err = std::fs::File::create(rule.with_extension("err")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
        .args(["scan", "--format", "json", "--rules"])
        .args([rule, folder])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kb = 0;
    let code = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak_kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(peak_kb);
        match child.try_wait().unwrap() {
            Some(status) => break status.code(),
            None => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    let findings = std::fs::read_to_string(rule.with_extension("out")).unwrap().lines().count();
    Told { findings, stderr: std::fs::read_to_string(rule.with_extension("err")).unwrap(), code, peak_kb }
}

#[test]
fn hostile_input_hides_nothing() {
    let e = event("00000000-0000-4000-8000-000000000001");
    let name = r#""eventName":"StopLogging""#;
    let agent = r#""userAgent":"x""#;
    let mut bad_utf8 = e.clone().into_bytes();
    let at = e.find(agent).unwrap() + agent.len() - 2;
    bad_utf8.splice(at..=at, [0xff, 0xfe, 0xc0]);
    let wrapped = |data: &[u8]| format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, base64_simd::STANDARD.encode_to_string(data)).into_bytes();
    // Hidden or huge, yet found: no quarantine.
    let found: [(&str, Vec<u8>); 9] = [
        ("a duplicate key before", e.replace(name, &format!(r#""eventName":"ListTrails",{name}"#)).into()),
        ("a duplicate key behind", e.replace(name, &format!(r#"{name},"eventName":"ListTrails""#)).into()),
        ("an escaped key", e.replace(r#""eventName""#, r#""\u0065vent\u004eame""#).into()),
        ("a lone surrogate", e.replace(agent, r#""userAgent":"\ud800""#).into()),
        ("a byte order mark", format!("\u{feff}{e}").into()),
        ("bad UTF-8", bad_utf8),
        ("100,000 levels", e.replace(r#"{"name":"t"}"#, &format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).into()),
        ("a record of 10 MiB", e.replace(agent, &format!(r#""userAgent":"{}""#, "x".repeat(10 << 20))).into()),
        ("no time", e.replace(r#""eventTime":"2026-01-01T00:00:00Z","#, "").into()),
    ];
    for (what, data) in found {
        let told = one(what, &data);
        assert_eq!((told.findings, told.code), (2, Some(0)), "{what}: {}", told.stderr);
        assert_eq!(told.stderr.contains("1 matched events have no readable eventTime"), what == "no time", "{what}: {}", told.stderr);
    }
    let cut = gz(format!("{e}\n").as_bytes());
    let quarantined: [(&str, Vec<u8>); 4] = [
        ("a gzip that was cut", wrapped(&cut[..cut.len() - 9])),
        ("a gzip bomb", wrapped(&gz(&vec![b' '; 80 << 20]))),
        ("a record that was cut", e[..e.len() - 40].into()),
        ("what is no event", b"\x00\x01\x02 nothing that anybody knows".to_vec()),
    ];
    for (what, data) in quarantined {
        let told = one(what, &data);
        assert_eq!((told.findings, told.code), (1, Some(3)), "{what}: {}", told.stderr);
        assert!(told.stderr.contains("hostile.bin: at byte ") && told.stderr.contains("1 records quarantined"), "{what}: {}", told.stderr);
    }
}

/// The hostile bytes in a folder beside an honest file.
fn one(what: &str, data: &[u8]) -> Told {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input/deep");
    std::fs::create_dir_all(&input).unwrap();
    std::fs::write(input.join("hostile.bin"), data).unwrap();
    std::fs::write(folder.path().join("input/honest.json.gz"), gz(event("00000000-0000-4000-8000-000000000002").as_bytes())).unwrap();
    let rule = folder.path().join("rule.yml");
    std::fs::write(&rule, RULE).unwrap();
    let told = scan(&folder.path().join("input"), &rule);
    assert!(told.peak_kb < MOST_KB, "{what}: {} kB", told.peak_kb);
    told
}
