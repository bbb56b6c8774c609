//! The attack that the demo tells, step by step: a leaked key, reconnaissance, secrets, the key policy, a shared snapshot,
//! purged backups, the trail stopped.
//!
//! In: a seed and the time of each step. Out: the step's CloudTrail event. Invariant: all steps are one principal, from one
//! address, in one account.

use super::{
    Clock,
    estate::{self, Session},
    fill,
    random::Random,
    template::{self, Call},
};

/// One call of the attack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step<'s> {
    /// Milliseconds after the story's start.
    pub at_ms: u64,
    pub caption: &'s str,
    /// CloudTrail's eventName.
    pub name: &'s str,
}

pub struct Story {
    calls: Vec<Call>,
    session: Session,
    keys: Vec<Vec<u8>>,
    random: Random,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0005_7049);
        let mut session = estate::session("att", "2026-03-02T00:00:00Z", &mut random);
        session.agent = b"aws-cli/2.15.30 Python/3.11.8 Linux/6.6.9-amd64 exe/x86_64.kali.2024 prompt/off command/sts.get-caller-identity".to_vec();
        session.region = 0;
        let mut key = Vec::new();
        random.uuid(&mut key);
        Self { calls: template::parse(include_str!("story.txt")), session, keys: vec![key], random }
    }

    /// In order of time.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = Step<'_>> {
        self.calls.iter().map(|call| Step { at_ms: call.at_ms, caption: &call.caption, name: &call.name })
    }

    /// Appends the event of step `index`, as it happened at `time_ms`.
    pub fn write(&mut self, index: usize, time_ms: i64, out: &mut Vec<u8>) {
        let mut clock = Clock { now_us: time_ms * 1_000, text_of: i64::MIN, text: String::new() };
        fill(&self.calls[index], &self.session, &self.keys, &mut clock, &mut self.random, out);
    }
}
