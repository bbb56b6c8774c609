//! `scan`: replays files through the detectors.
//!
//! In: files, folders, stdin. Out: findings on stdout, one a line; the summary on stderr. Invariant: the same input gives the same
//! findings, in whatever order its files are read.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use crate::alert::{Alert, escape, level_word, ocsf};
use crate::decode::Progress;
use crate::event::time;
use crate::pipeline::{Batch, Quarantined, Replay, Tally, Worker};
use crate::rule::ast::Level;
use crate::source::files::{self, Pieces};

/// Replays CloudTrail files, database logs and other events through the detectors and prints what they find.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden scan cloudtrail/
  zcat log.gz | trailwarden scan - --format json
  trailwarden scan --rules builtin --rules my-rules/ --fail-on high events.json

Exit codes: 0 done, 1 a finding at or above --fail-on, 2 usage or rule error, 3 some records quarantined (2 wins over 3, 3 over 1).")]
pub struct Args {
    /// Files and folders, packed with gzip or not; `-` is stdin
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    rules: super::rules::RuleArgs,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Exit with 1 if a finding is at this level or above
    #[arg(long, value_name = "LEVEL")]
    fail_on: Option<LevelArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    Ocsf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Informational => Level::Informational,
            LevelArg::Low => Level::Low,
            LevelArg::Medium => Level::Medium,
            LevelArg::High => Level::High,
            LevelArg::Critical => Level::Critical,
        }
    }
}

/// What readers tell the printer.
enum Message {
    Batch { path: Arc<Path>, batch: Box<Batch> },
    Failed { path: Arc<Path>, error: io::Error },
    FileDone,
}

/// Batches on their way to the printer.
const QUEUED_BATCHES: usize = 64;

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (rules, logs) = super::rules::load(&args.rules)?;
    let rules = Arc::new(rules);
    let files: Vec<Arc<Path>> = files::walk(&args.paths)?.into_iter().map(Arc::from).collect();
    let progress = progress_bar(files.len());
    let readers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len()).max(1);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::sync_channel(QUEUED_BATCHES);
    let mut printer =
        Printer { replay: Replay::new(&rules)?, format: args.format, out: BufWriter::new(io::stdout().lock()), findings: 0, worst: None, failed: 0 };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for _ in 0..readers {
            let (sender, rules, files, next, format) = (sender.clone(), rules.clone(), &files, &next, logs.flow_format.clone());
            scope.spawn(move || {
                let mut worker = Worker::new(rules).with_flow_format(format);
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    read_file(path, &mut worker, &sender);
                }
            });
        }
        drop(sender);
        for message in receiver {
            if matches!(message, Message::FileDone) {
                progress.inc(1);
            }
            printer.take(message)?;
        }
        Ok(())
    })?;
    progress.finish_and_clear();
    printer.finish(args.fail_on.map(Level::from))
}

fn progress_bar(files: usize) -> ProgressBar {
    if files < 2 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files {elapsed}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(files as u64).with_style(style)
}

/// Bytes of input after which a batch is handed on.
const BATCH_BYTES: u64 = 4 << 20;

/// Sends can only fail when the printer is gone; then there is nobody left to tell.
fn read_file(path: &Arc<Path>, worker: &mut Worker, sender: &mpsc::SyncSender<Message>) {
    let name = path.display().to_string();
    let mut read = || -> io::Result<()> {
        let mut pieces = Pieces::open(path)?;
        let mut stream = worker.begin_file();
        loop {
            let more = pieces.more();
            let (piece, last) = pieces.piece();
            let length = piece.len();
            let too_long = length >= files::MAX_PIECE_BYTES;
            let used = match worker.piece(&name, piece, &mut stream, last || too_long) {
                Progress::Done => length,
                Progress::NeedMore { at } => at,
            };
            worker.batch.tally.bytes += used as u64;
            pieces.consume(used);
            if worker.batch.tally.bytes > BATCH_BYTES || worker.batch.has_found() {
                let _ = sender.send(Message::Batch { path: path.clone(), batch: Box::new(std::mem::take(&mut worker.batch)) });
            }
            if !more? || last {
                return Ok(());
            }
        }
    };
    if let Err(error) = read() {
        let _ = sender.send(Message::Failed { path: path.clone(), error });
    }
    let _ = sender.send(Message::Batch { path: path.clone(), batch: Box::new(std::mem::take(&mut worker.batch)) });
    let _ = sender.send(Message::FileDone);
}

struct Printer<'o> {
    replay: Replay,
    format: Format,
    out: BufWriter<io::StdoutLock<'o>>,
    findings: u64,
    worst: Option<Level>,
    /// Files that could not be read to their end.
    failed: u64,
}

impl Printer<'_> {
    fn take(&mut self, message: Message) -> anyhow::Result<()> {
        match message {
            Message::Batch { path, mut batch } => {
                for Quarantined { reason, at, .. } in &batch.quarantined {
                    eprintln!("{}: at byte {at}: {reason}; quarantined", path.display());
                }
                let alerts = self.replay.take(&mut batch)?;
                self.print_all(&alerts)?;
            }
            Message::Failed { path, error } => {
                self.failed += 1;
                eprintln!("{}: {error}; what was read before it counts", path.display());
            }
            Message::FileDone => {}
        }
        Ok(())
    }

    fn print_all(&mut self, alerts: &[Alert]) -> io::Result<()> {
        alerts.iter().try_for_each(|alert| self.print(alert))?;
        self.out.flush()
    }

    fn print(&mut self, alert: &Alert) -> io::Result<()> {
        self.findings += 1;
        self.worst = self.worst.max(Some(alert.rule.level));
        match self.format {
            Format::Text => writeln!(self.out, "{}", line(alert)),
            Format::Json => writeln!(self.out, "{}", escape::json(json(alert).to_string())),
            Format::Ocsf => writeln!(self.out, "{}", escape::json(ocsf::detection_finding(alert, ocsf::Activity::Create, None).to_string())),
        }
    }

    fn finish(mut self, fail_on: Option<Level>) -> anyhow::Result<ExitCode> {
        let alerts = self.replay.finish()?;
        self.print_all(&alerts)?;
        let Tally { events, matched, unmatched, duplicate, quarantined, control_messages, digests, encrypted, undated, .. } = *self.replay.tally();
        eprintln!(
            "{} findings; {events} events: {matched} matched, {unmatched} not, {duplicate} seen before; {quarantined} records quarantined, {} left out",
            self.findings,
            control_messages + digests + encrypted
        );
        if undated > 0 {
            eprintln!("{undated} matched events have no readable eventTime: that of their envelope stands for it, or none");
        }
        Ok(if quarantined + self.failed > 0 {
            ExitCode::from(3)
        } else if fail_on.is_some_and(|level| self.worst >= Some(level)) {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// How a person reads an alert: its level in capitals first.
pub fn line(alert: &Alert) -> String {
    let level = level_word(alert.rule.level).to_uppercase();
    let more = if alert.count > 1 { format!(" ({} events)", alert.count) } else { String::new() };
    let time = time::format(alert.time_ms);
    format!("{level:<8} {time}  {}  {}{more}", escape::terminal(&alert.rule.title), escape::terminal(&alert.summary))
}

/// The documented shape of `--format json`.
fn json(alert: &Alert) -> serde_json::Value {
    let group: serde_json::Map<_, _> = alert.group.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    serde_json::json!({
        "id": alert.id,
        "time": time::format(alert.time_ms),
        "rule": { "id": alert.rule.id, "title": alert.rule.title, "level": level_word(alert.rule.level), "tags": alert.rule.tags },
        "account": alert.account,
        "region": alert.region,
        "group": group,
        "summary": alert.summary,
        "events": alert.events,
        "count": alert.count,
        "late": alert.late,
    })
}
