//! What one core does with CloudTrail: `cargo bench --bench core [-- EVENTS] [ROW]`; with ROW only those rows whose names hold it, no peer.
//!
//! In: the seeded corpus, the public Sigma rules from the shared folder, and synthetic ones. Out: a table of events a second with
//! the ratios to gunzip alone and to the peer, all from one run. Invariant: every row reads the same events, each round runs
//! every row once, and the best round counts; the clock is the thread's CPU time.

#[path = "core/rows.rs"]
mod rows;
#[path = "../tests/support/rules.rs"]
mod rules;
#[path = "core/peer.rs"]
mod peer;
#[path = "../tests/support/tools.rs"]
mod tools;

use std::sync::Arc;

use rows::{Input, Measured, Work};
use trailwarden::{
    detect::Engine,
    pipeline::Detectors,
    rule::{Options, Source, load_texts},
};

const SEED: u64 = 20_260_302;
const ROUNDS: usize = 5;
const WATCHERS: usize = 20;
const OWN: &str = "all detectors";
const PLAIN: &str = "200 rules, kept";
const WATCHED: &str = "… and 20 correlations";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let events = words.iter().find_map(|word| word.parse().ok()).unwrap_or(100_000);
    let only = words.iter().find(|word| word.parse::<u64>().is_err());
    let input = Input::of(SEED, events);
    println!(
        "corpus: seed {SEED}, {} events of {} B, {:.0} MB plain, {:.0} MB as {} gz envelopes",
        input.events,
        input.line_bytes / input.events,
        input.plain_bytes as f64 / 1e6,
        input.gz_bytes as f64 / 1e6,
        input.records.len()
    );
    let sets = RuleSets::load();
    let engines: Vec<(&str, Engine)> = sets.sizes().map(|(name, texts)| (name, engine(&texts))).collect();
    let mut work = vec![Work::gunzip()];
    for (name, engine) in &engines {
        work.push(Work::envelopes(name, engine));
        if *name == "200 rules" {
            work.push(Work::lines(name, engine));
        }
    }
    // In the standard profile, as they are installed.
    let own = detectors(&sets.own);
    work.push(Work::envelopes(OWN, &own.engine));
    let plain = detectors(&sets.of_200());
    let watched = detectors(&[sets.of_200(), watchers()].concat());
    work.push(Work::kept(PLAIN, &plain));
    work.push(Work::kept(WATCHED, &watched));
    if let Some(only) = only {
        work.retain(|work| work.name.contains(only.as_str()) || work.name == "gunzip only");
        print_table(&rows::run(&input, &work, ROUNDS), &peer::Speeds::default());
        return;
    }
    let measured = rows::run(&input, &work, ROUNDS);
    let two = engines.iter().find(|(name, _)| *name == "200 rules").map(|(_, engine)| rows::two_threads(&input, engine, ROUNDS));
    let peers = peer::speeds(&input, &sets);
    print_table(&measured, &peers);
    let speed = |name| measured.iter().find(|row| row.name == name).map_or(0.0, |row| row.events_per_s);
    println!("all detectors: {:.1} % of the speed with the quiet rules (bar: 90)", 100.0 * speed(OWN) / speed("quiet rules"));
    println!("{WATCHERS} correlations that watch and do not match: {:.1} % of the speed without (bar: 95)", 100.0 * speed(WATCHED) / speed(PLAIN));
    if let Some((one, two)) = two {
        println!("two threads, 200 rules, wall clock: {:.0} k/s against {:.0} k/s with one: {:.2} x", two / 1e3, one / 1e3, two / one);
    }
}

/// Texts by set: the peer reads them from folders.
pub struct RuleSets {
    quiet: Vec<(String, String)>,
    flood: Vec<(String, String)>,
    /// The product's own detectors.
    own: Vec<(String, String)>,
    synthetic: Vec<(String, String)>,
}

impl RuleSets {
    fn load() -> Self {
        let found = tools::shared("sigma_aws/cloudtrail").map(|folder| rules::texts(&folder)).unwrap_or_default();
        if found.is_empty() {
            println!("no public rules beside the checkout: the detectors of the product stand in, and no row floods");
        }
        let (flood, quiet): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| name == rules::FLOOD);
        let own = rules::texts(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("detectors"));
        let quiet = if quiet.is_empty() { own.clone() } else { quiet };
        Self { quiet, flood, own, synthetic: rules::synthetic(1_000) }
    }

    fn of_200(&self) -> Vec<(String, String)> {
        [self.quiet.as_slice(), &self.synthetic[..200_usize.saturating_sub(self.quiet.len())]].concat()
    }

    fn sizes(&self) -> impl Iterator<Item = (&'static str, Vec<(String, String)>)> {
        let with = |total: usize| {
            let synthetic = &self.synthetic[..total.saturating_sub(self.quiet.len()).min(self.synthetic.len())];
            [self.quiet.as_slice(), synthetic].concat()
        };
        let sets = [
            ("0 rules", Vec::new()),
            ("quiet rules", self.quiet.clone()),
            ("200 rules", with(200)),
            ("1000 rules", with(1_000)),
            ("flood", [self.quiet.as_slice(), self.flood.as_slice()].concat()),
        ];
        sets.into_iter().filter(|(name, _)| *name != "flood" || !self.flood.is_empty())
    }
}

/// Correlations of all kinds, each with a rule of its own that the corpus never matches.
fn watchers() -> Vec<(String, String)> {
    let kinds = [
        "type: event_count\n  condition: {gte: 5}",
        "type: value_count\n  condition: {field: eventName, gte: 5}",
        "type: temporal",
        "type: temporal_ordered",
        "type: value_avg\n  condition: {field: requestParameters.size, gt: 5}",
    ];
    let base = rules::synthetic(2_000 + WATCHERS).split_off(2_000);
    let watcher = |(n, (name, text)): (usize, (String, String))| {
        let text = format!(
            "{text}name: base_{n}\n---\ntitle: Watcher {n}\nlevel: high\ncorrelation:\n  rules: [base_{n}]\n  group-by: [userIdentity.arn, sourceIPAddress]\n  timespan: 1h\n  {}\n",
            kinds[n % kinds.len()]
        );
        (name, text)
    };
    base.into_iter().enumerate().map(watcher).collect()
}

fn detectors(texts: &[(String, String)]) -> Arc<Detectors> {
    let sources = texts.iter().map(|(name, text)| Source { name: name.as_str().into(), text: text.clone().into() });
    let loaded = load_texts(sources.collect(), &Options::default());
    assert!(!loaded.has_errors(), "{}", loaded.render(false));
    Arc::new(Detectors::new(&loaded.set).unwrap_or_else(|errors| panic!("{errors:?}")))
}

fn engine(texts: &[(String, String)]) -> Engine {
    Engine::new(&rules::parse_all(texts)).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn print_table(measured: &[Measured], peers: &peer::Speeds) {
    let gunzip = measured[0].events_per_s;
    println!("{:<28} {:>9} {:>8} {:>9} {:>10} {:>9}", "one core", "k ev/s", "MB/s", "% gunzip", "x peer", "matches");
    for row in measured {
        let peer = peers.of(&row.name).map_or_else(|| "-".to_owned(), |speed| format!("{:.1}", row.events_per_s / speed));
        println!(
            "{:<28} {:>9.0} {:>8.0} {:>9.1} {:>10} {:>9}",
            row.name,
            row.events_per_s / 1e3,
            row.mb_per_s,
            100.0 * row.events_per_s / gunzip,
            peer,
            row.matches
        );
    }
    peers.print();
}
