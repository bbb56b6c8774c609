//! Another Sigma engine on the same rules and events: what it matches, and how fast.
//!
//! In: rule folders, an NDJSON file, a file of length-prefixed gzip envelopes. Out: on stdout, `matches` prints `event rule` a
//! line, `speed` one line of JSON. Invariant: the peer is called the way its own documentation says, with its defaults.

use std::{env, fs, path::PathBuf, process::ExitCode, time::Duration};

use cpu_time::ThreadTime;
use rsigma_eval::{Engine, event::JsonEvent};
use rsigma_parser::parse_sigma_directory;
use serde_json::Value;

const USAGE: &str = "usage: peers matches --rules DIR… --ndjson FILE
       peers speed --rules DIR… --ndjson FILE --envelopes FILE";

#[derive(Default)]
struct Arguments {
    rules: Vec<PathBuf>,
    ndjson: PathBuf,
    envelopes: PathBuf,
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        let value = PathBuf::from(words.next().expect(USAGE));
        match word.as_str() {
            "--rules" => arguments.rules.push(value),
            "--ndjson" => arguments.ndjson = value,
            "--envelopes" => arguments.envelopes = value,
            _ => panic!("{USAGE}"),
        }
    }
    let engine = engine(&arguments.rules);
    match command.as_str() {
        "matches" => matches(&engine, &arguments),
        "speed" => speed(&engine, &arguments),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn engine(folders: &[PathBuf]) -> Engine {
    let mut engine = Engine::new();
    for folder in folders {
        let collection = parse_sigma_directory(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        engine.add_collection(&collection).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    }
    engine
}

fn read(path: &PathBuf) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty())
}

fn matches(engine: &Engine, arguments: &Arguments) {
    let mut out = String::new();
    for (at, line) in lines(&read(&arguments.ndjson)).enumerate() {
        let event: Value = serde_json::from_slice(line).unwrap_or_else(|e| panic!("line {}: {e}", at + 1));
        for found in engine.evaluate(&JsonEvent::borrow(&event)) {
            let id = found.header.rule_id.unwrap_or(found.header.rule_title);
            out += &format!("{at} {id}\n");
        }
    }
    print!("{out}");
}

/// Thread CPU time of one pass, after a tenth of it to warm up.
fn timed(mut pass: impl FnMut(bool) -> (u64, u64)) -> (f64, u64) {
    pass(true);
    let start = ThreadTime::now();
    let (events, found) = pass(false);
    let spent: Duration = start.elapsed();
    (events as f64 / spent.as_secs_f64(), found)
}

fn speed(engine: &Engine, arguments: &Arguments) {
    let ndjson = read(&arguments.ndjson);
    let (line_rate, line_matches) = timed(|warm| {
        let (mut events, mut found) = (0, 0);
        for line in lines(if warm { &ndjson[..ndjson.len() / 10] } else { &ndjson }) {
            let Ok(event) = serde_json::from_slice::<Value>(line) else { continue };
            found += engine.evaluate(&JsonEvent::borrow(&event)).len() as u64;
            events += 1;
        }
        (events, found)
    });
    let envelopes = read(&arguments.envelopes);
    let mut inflate = libdeflater::Decompressor::new();
    let (record_rate, record_matches) = timed(|warm| {
        let (mut events, mut found) = (0, 0);
        let (mut rest, mut plain) = (envelopes.as_slice(), Vec::new());
        let stop = if warm { envelopes.len() / 10 * 9 } else { 0 };
        while rest.len() > stop.max(4) {
            let (len, after) = rest.split_at(4);
            let (record, after) = after.split_at(u32::from_le_bytes(len.try_into().expect("four bytes")) as usize);
            rest = after;
            let size = u32::from_le_bytes(record[record.len() - 4..].try_into().expect("four bytes")) as usize;
            plain.resize(size, 0);
            inflate.gzip_decompress(record, &mut plain).expect("a whole member");
            let envelope: Value = serde_json::from_slice(&plain).expect("an envelope");
            for event in envelope["logEvents"].as_array().expect("events") {
                let message = event["message"].as_str().expect("a message");
                let Ok(event) = serde_json::from_str::<Value>(message) else { continue };
                found += engine.evaluate(&JsonEvent::borrow(&event)).len() as u64;
                events += 1;
            }
        }
        (events, found)
    });
    println!(
        r#"{{"rules":{},"ndjson_events_per_s":{line_rate:.0},"ndjson_matches":{line_matches},"envelope_events_per_s":{record_rate:.0},"envelope_matches":{record_matches}}}"#,
        engine.rule_count()
    );
}
