//! The peer on the same events: its binary is built from its own package, `benches/peers`, and run where it is there.
//!
//! In: the corpus and the rule sets. Out: the peer's events a second and its matches. Invariant: the peer reads the very bytes
//! that the other rows read.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{RuleSets, rows::Input};

/// By rule set.
#[derive(Default)]
pub struct Speeds(Vec<(&'static str, Value)>);

impl Speeds {
    /// Events a second on the input of the row of that name.
    pub fn of(&self, row: &str) -> Option<f64> {
        self.figure(row, "events_per_s")?.as_f64()
    }

    fn figure(&self, row: &str, name: &str) -> Option<&Value> {
        let (set, kind) = row.strip_suffix(", lines").map_or((row, "envelope"), |set| (set, "ndjson"));
        self.0.iter().find(|(name, _)| *name == set)?.1.get(format!("{kind}_{name}"))
    }

    /// Its matches are fewer by those rules that look for text in objects (tests/peer.rs has the exact comparison).
    pub fn print(&self) {
        for (name, figures) in &self.0 {
            let rate = |key| figures[key].as_f64().unwrap_or_default() / 1e3;
            let matches = &figures["envelope_matches"];
            println!(
                "peer, {name}: envelopes {:.0} k/s, lines {:.0} k/s, {matches} matches",
                rate("envelope_events_per_s"),
                rate("ndjson_events_per_s")
            );
        }
    }
}

/// The binary, where it has been built.
pub fn binary() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    ["release/peers", "debug/peers"].iter().map(|path| target.join(path)).find(|path| path.is_file())
}

/// Runs the peer over all that is worth comparing.
pub fn speeds(input: &Input, sets: &RuleSets) -> Speeds {
    let Some(binary) = binary() else {
        println!("no peer: build it with benches/peers/build");
        return Speeds::default();
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (lines, envelopes) = (folder.path().join("lines"), folder.path().join("envelopes"));
    fs::write(&lines, input.lines.concat()).expect("room for the corpus");
    let mut file = fs::File::create(&envelopes).expect("room for the corpus");
    for record in &input.records {
        file.write_all(&(record.len() as u32).to_le_bytes()).and_then(|()| file.write_all(record)).expect("room for the corpus");
    }
    let mut speeds = Speeds::default();
    for (name, texts) in sets.sizes().filter(|(name, _)| matches!(*name, "quiet rules" | "200 rules" | "flood")) {
        let rules = folder.path().join(name.replace(' ', "-"));
        fs::create_dir(&rules).expect("a folder for rules");
        for (file, text) in &texts {
            fs::write(rules.join(file), text).expect("room for rules");
        }
        let out =
            Command::new(&binary).arg("speed").arg("--rules").arg(&rules).arg("--ndjson").arg(&lines).arg("--envelopes").arg(&envelopes).output();
        let out = out.expect("the peer starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        speeds.0.push((name, serde_json::from_slice(&out.stdout).expect("the peer prints JSON")));
    }
    speeds
}
