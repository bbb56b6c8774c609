//! A seeded stream of CloudTrail events from an estate of databases: benches, tests and the demo feed on it.
//!
//! In: a seed. Out: events of about 1.7 KB, 97 in a hundred of them benign reads, as bytes of JSON in the service's own field
//! order; `wrap` puts them into lines, S3 files and CloudWatch Logs envelopes. Invariant: the same seed writes the same bytes,
//! and memory does not grow with the number of events.

mod estate;
mod random;
pub mod story;
mod template;
pub mod wrap;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io::Write as _};

use estate::{Draw, Session};
use random::Random;
use template::Call;

pub use estate::{ACCOUNTS, FOREIGN_ACCOUNT};

/// 2026-03-02T00:00:00Z, a Monday.
const START_MS: i64 = 1_772_409_600_000;
const DAY_MS: i64 = 86_400_000;

/// A call and the pools that make it, by index.
struct Entry {
    call: Call,
    pools: Vec<usize>,
    /// Somebody sits in front of a screen: not at night.
    by_person: bool,
}

struct Pool {
    name: String,
    sessions: Vec<Session>,
}

pub struct Corpus {
    random: Random,
    entries: Vec<Entry>,
    /// Running sums of weights, for the draw.
    sums: Vec<u32>,
    pools: Vec<Pool>,
    /// Keys' ids, the same few throughout.
    keys: Vec<Vec<u8>>,
    clock: Clock,
    /// Microseconds between two events.
    step_us: i64,
    person_hours_only: bool,
}

/// Event time, with its text kept for the second that it is good for.
struct Clock {
    now_us: i64,
    text_of: i64,
    text: String,
}

impl Clock {
    fn text(&mut self) -> &str {
        let second = self.now_us.div_euclid(1_000_000);
        if second != self.text_of {
            self.text = rfc3339(second);
            self.text_of = second;
        }
        &self.text
    }
}

fn rfc3339(second: i64) -> String {
    jiff::Timestamp::from_second(second).expect("a time that jiff can hold").to_string()
}

impl Corpus {
    /// The ordinary mix: reads, and 3 in a hundred that detectors look for; 300 events a second.
    pub fn new(seed: u64) -> Self {
        let tables = [(include_str!("corpus/benign.txt"), 2), (include_str!("corpus/suspicious.txt"), 3)];
        Self::of(seed, &tables, 3_333)
    }

    /// A busy day without an attack: reads and the changes that work makes (Terraform, backups, autoscaling, rotations,
    /// consoles), `events` of them spread over 24 hours.
    pub fn benign_day(seed: u64, events: u64) -> Self {
        let tables = [(include_str!("corpus/benign.txt"), 1), (include_str!("corpus/changes.txt"), 2)];
        let mut corpus = Self::of(seed, &tables, DAY_MS * 1_000 / i64::try_from(events.max(1)).unwrap_or(i64::MAX));
        corpus.person_hours_only = true;
        corpus
    }

    /// Begins at this time (milliseconds since the epoch) instead of a fixed Monday.
    pub fn starting_at(mut self, time_ms: i64) -> Self {
        self.clock.now_us = time_ms * 1_000;
        self
    }

    /// Event time per event follows this rate.
    pub fn events_per_second(mut self, rate: u32) -> Self {
        self.step_us = 1_000_000 / i64::from(rate.max(1));
        self
    }

    fn of(seed: u64, tables: &[(&str, u32)], step_us: i64) -> Self {
        let mut pools: BTreeMap<String, usize> = BTreeMap::new();
        let mut entries = Vec::new();
        let mut sums = Vec::new();
        let mut sum = 0;
        for (table, factor) in tables {
            for call in template::parse(table) {
                let by_person = call.actors.iter().all(|a| a == "sso" || a == "cli");
                let indexes = call.actors.iter().map(|actor| next_index(&mut pools, actor)).collect();
                sum += call.weight * factor;
                sums.push(sum);
                entries.push(Entry { call, pools: indexes, by_person });
            }
        }
        let mut names: Vec<(String, usize)> = pools.into_iter().collect();
        names.sort_by_key(|(_, index)| *index);
        let mut corpus = Self {
            random: Random::new(seed),
            entries,
            sums,
            pools: names.into_iter().map(|(name, _)| Pool { name, sessions: Vec::new() }).collect(),
            keys: Vec::new(),
            clock: Clock { now_us: START_MS * 1_000, text_of: i64::MIN, text: String::new() },
            step_us,
            person_hours_only: false,
        };
        for _ in 0..24 {
            let mut key = Vec::new();
            corpus.random.uuid(&mut key);
            corpus.keys.push(key);
        }
        corpus
    }

    /// Appends one event; returns its time in milliseconds since the epoch.
    pub fn next_event(&mut self, out: &mut Vec<u8>) -> i64 {
        self.clock.now_us += self.step_us;
        let entry = self.draw_entry();
        let pools = &self.entries[entry].pools;
        let pool = pools[self.random.below(pools.len())];
        // Who signs in begins a session: else a few people would fail again and again.
        let begins = self.entries[entry].by_person && self.entries[entry].call.name == "ConsoleLogin";
        let at = self.draw_session(pool, begins);
        let session = &self.pools[pool].sessions[at];
        let time_ms = self.clock.now_us / 1_000;
        fill(&self.entries[entry].call, session, &self.keys, &mut self.clock, &mut self.random, out);
        time_ms
    }

    fn draw_entry(&mut self) -> usize {
        let total = *self.sums.last().expect("the tables are not empty") as usize;
        loop {
            let at = self.random.below(total) as u32;
            let entry = self.sums.partition_point(|sum| *sum <= at);
            let hour = self.clock.now_us.div_euclid(3_600_000_000).rem_euclid(24);
            if !(self.person_hours_only && self.entries[entry].by_person && !(7..19).contains(&hour)) {
                return entry;
            }
        }
    }

    fn draw_session(&mut self, pool: usize, begins: bool) -> usize {
        let now = self.clock.text().to_owned();
        let Pool { name, sessions } = &mut self.pools[pool];
        while sessions.len() < estate::pool_size(name) {
            sessions.push(estate::session(name, &now, &mut self.random));
        }
        let at = self.random.below(sessions.len());
        let session = &mut sessions[at];
        if session.left == 0 || begins {
            *session = estate::session(name, &now, &mut self.random);
        }
        session.left -= 1;
        at
    }
}

fn next_index(pools: &mut BTreeMap<String, usize>, actor: &str) -> usize {
    let next = pools.len();
    *pools.entry(actor.to_owned()).or_insert(next)
}

fn fill(call: &Call, session: &Session, keys: &[Vec<u8>], clock: &mut Clock, random: &mut Random, out: &mut Vec<u8>) {
    let draw = Draw(random.next());
    for piece in call.pieces() {
        match piece {
            Ok(text) => out.extend_from_slice(text.as_bytes()),
            Err(template::IDENTITY) => out.extend_from_slice(&session.identity),
            Err(template::ADDRESS) => out.extend_from_slice(&session.address),
            Err(template::AGENT) => out.extend_from_slice(&session.agent),
            Err(template::TAIL) => tail(call, session, out),
            Err(template::REGION) => out.extend_from_slice(estate::region(session.region).as_bytes()),
            Err(slot) => fill_slot(slot, draw, session, keys, clock, random, out),
        }
    }
}

fn tail(call: &Call, session: &Session, out: &mut Vec<u8>) {
    if session.tls {
        let region = estate::region(session.region);
        let host = |out: &mut Vec<u8>| write!(out, "{}.{region}.amazonaws.com", call.service);
        out.extend_from_slice(br#","tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":""#);
        host(out).expect("a vector takes all");
        out.extend_from_slice(b"\"}");
    }
    if session.address.starts_with(b"10.") {
        write!(
            out,
            r#","vpcEndpointId":"vpce-0{:016x}","vpcEndpointAccountId":"{}""#,
            0x5a3c_u64 << 24 | session.account as u64,
            ACCOUNTS[session.account]
        )
        .expect("a vector takes all");
    }
    if session.console {
        out.extend_from_slice(br#","sessionCredentialFromConsole":"true""#);
    }
}

fn fill_slot(slot: u8, draw: Draw, session: &Session, keys: &[Vec<u8>], clock: &mut Clock, random: &mut Random, out: &mut Vec<u8>) {
    let mut text = |parts: std::fmt::Arguments<'_>| out.write_fmt(parts).expect("a vector takes all");
    let (domain, stage, ordinal) = (draw.domain(), draw.stage(), draw.ordinal());
    match slot {
        b'a' => text(format_args!("{}", ACCOUNTS[session.account])),
        b'A' => text(format_args!("{}", ACCOUNTS[(session.account + 1) % ACCOUNTS.len()])),
        b'b' => text(format_args!("{domain}-{}", ["events", "state", "index"][ordinal as usize % 3])),
        b'c' => text(format_args!("{domain}-{stage}")),
        b'd' => text(format_args!("{domain}-{stage}-{}", 1 + ordinal % 3)),
        b'f' => text(format_args!("{FOREIGN_ACCOUNT}")),
        b'g' => text(format_args!("/aws/rds/cluster/{domain}-{stage}/{}", if draw.engine() == "mysql" { "audit" } else { "postgresql" })),
        b'j' => text(format_args!("{stage}/{domain}/{}-app", draw.engine())),
        b'M' => text(format_args!("Mar {}, 2026 {}:{:02}:{:02} AM", 2 + ordinal, ordinal, random.below(60), random.below(60))),
        b'm' => text(format_args!("{}", rfc3339(clock.now_us.div_euclid(1_000_000) - 3_600))),
        b'N' => text(format_args!("{}", clock.now_us / 1_000 - random.below(7_200_000) as i64)),
        b'n' => text(format_args!("{}", 1 + random.below(98))),
        b'o' => text(format_args!("estate-{domain}-{stage}-exports")),
        b'p' => text(format_args!("{}", draw.person())),
        b't' => text(format_args!("{}", clock.text())),
        b'v' => text(format_args!("{}-vault", ["estate", "archive", "compliance"][ordinal as usize % 3])),
        b'w' => text(format_args!("{}", draw.role())),
        b'e' | b'q' | b'u' => random.uuid(out),
        b'k' => out.extend_from_slice(&keys[(session.account * 8 + ordinal as usize) % keys.len()]),
        b'l' => random.hex(17, out),
        b'x' => random.hex(8, out),
        b'L' => random.upper(26, out),
        b'Y' => random.upper(16, out),
        b'y' => draw.stable().alphanumeric(6, out),
        b'z' => random.base64(76, out),
        b'Z' => random.base64(416, out),
        other => panic!("slot @{} means nothing", char::from(other)),
    }
}
