//! `trailwarden tail`: a running daemon's alerts as they happen.
//!
//! In: the API's list and stream. Out: a line an alert, or JSON. Invariant: a lost connection is said and taken up again, and what
//! happened meanwhile is printed once.

use std::{
    collections::VecDeque,
    io::{Write, stdout},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Result;
use serde_json::Value;

use super::client::Daemon;
use crate::alert::{
    escape::terminal,
    level_word,
    view::{AlertView, Fate},
};

const AGAIN: Duration = Duration::from_secs(2);
/// Ids remembered, to print what comes by list and by stream once.
const REMEMBERED: usize = 2_000;

/// Print a running daemon's alerts as they happen.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  trailwarden tail\n  trailwarden tail --lines 0 --format json | jq .alert.summary")]
pub struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// Earlier alerts to begin with
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: usize,
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

struct Printer {
    format: Format,
    colour: bool,
    printed: VecDeque<(String, i64)>,
}

/// # Errors
/// The daemon can't be reached at the start.
pub fn run(args: &Args) -> Result<ExitCode> {
    let colour = super::takes_colour(&stdout());
    let mut printer = Printer { format: args.format, colour, printed: VecDeque::new() };
    let mut open = printer.earlier(&args.daemon, args.lines)?;
    loop {
        let mut data = false;
        let ended = args.daemon.stream("/api/alerts/stream", |line| {
            match line.split_once(": ") {
                Some(("event", event)) => data = event == "alert",
                Some(("data", json)) if data => open = printer.json(json),
                _ => {}
            }
            open
        });
        if !open {
            return Ok(ExitCode::SUCCESS);
        }
        let why = ended.err().map(|e| format!(" ({e:#})")).unwrap_or_default();
        eprintln!("the stream ended{why}; trying again");
        thread::sleep(AGAIN);
        // What happened meanwhile; the printer knows what it has printed.
        if let Ok(goes_on) = printer.earlier(&args.daemon, 100) {
            open = goes_on;
        }
    }
}

impl Printer {
    fn earlier(&mut self, daemon: &Daemon, lines: usize) -> Result<bool> {
        let listed = daemon.get(&format!("/api/alerts?limit={lines}"))?;
        let rows = listed.as_array().cloned().unwrap_or_default();
        Ok(rows.iter().rev().all(|row: &Value| self.json(&row.to_string())))
    }

    /// False once nobody reads any more.
    fn json(&mut self, text: &str) -> bool {
        let Ok(view) = serde_json::from_str::<AlertView>(text) else { return true };
        let key = (view.alert.id.clone(), view.seen_ms);
        if self.printed.contains(&key) {
            return true;
        }
        self.printed.push_back(key);
        if self.printed.len() > REMEMBERED {
            self.printed.pop_front();
        }
        let line = match self.format {
            Format::Json => crate::alert::escape::json(text.to_owned()),
            Format::Text => self.line(&view),
        };
        writeln!(stdout(), "{line}").is_ok()
    }

    fn line(&self, view: &AlertView) -> String {
        let alert = &view.alert;
        let level = level_word(alert.rule.level).to_uppercase();
        let level = if self.colour { format!("\u{1b}[{}m{level}\u{1b}[0m", colour(&level)) } else { level };
        let place = view.account_name.as_ref().unwrap_or(&alert.account);
        let fate = match &view.fate {
            Fate::Sent => format!("→ {}", view.sinks.join(", ")),
            Fate::Grouped => "joined its incident".into(),
            Fate::Storm => "counted in a storm".into(),
            Fate::Silenced { reason } => format!("silenced: {reason}"),
            Fate::Unrouted => "no route".into(),
            Fate::Resolved => "over".into(),
        };
        let time = crate::sink::form::rfc3339(alert.time_ms);
        let test = if view.test { "TEST ALERT: " } else { "" };
        let told = terminal(&format!("{test}{}: {}", alert.rule.title, alert.summary)).into_owned();
        format!("{level} {told}  [{} {} {time}] {}", terminal(place), terminal(&alert.region), terminal(&fate))
    }
}

fn colour(level: &str) -> &'static str {
    match level {
        "CRITICAL" => "1;31",
        "HIGH" => "31",
        "MEDIUM" => "33",
        "LOW" => "34",
        _ => "2",
    }
}
