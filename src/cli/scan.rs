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

use crate::decode::Progress;
use crate::pipeline::{Batch, Detectors, Quarantined, Single, Tally, Worker};
use crate::rule::ast::Level;
use crate::source::files::{self, Pieces};

/// Replays CloudTrail files, database logs and other events through the detectors and prints what they find.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 a finding at or above --fail-on, 2 usage or rule error, 3 some records quarantined (2 wins over 3, 3 over 1)."
)]
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
    Batch { path: Arc<Path>, batch: Batch },
    Failed { path: Arc<Path>, error: io::Error },
    FileDone,
}

/// Batches on their way to the printer.
const QUEUED_BATCHES: usize = 64;

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let rules = Arc::new(super::rules::load(&args.rules)?);
    let files: Vec<Arc<Path>> = files::walk(&args.paths)?.into_iter().map(Arc::from).collect();
    let progress = progress_bar(files.len());
    let readers = std::thread::available_parallelism().map_or(1, usize::from).min(files.len()).max(1);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::sync_channel(QUEUED_BATCHES);
    let mut printer = Printer {
        rules: rules.clone(),
        format: args.format,
        out: BufWriter::new(io::stdout().lock()),
        tally: Tally::default(),
        findings: 0,
        worst: None,
        failed: 0,
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for _ in 0..readers {
            let (sender, rules, files, next) = (sender.clone(), rules.clone(), &files, &next);
            scope.spawn(move || {
                let mut worker = Worker::new(rules);
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
            if worker.batch.tally.bytes > BATCH_BYTES || !worker.batch.singles.is_empty() {
                let _ = sender.send(Message::Batch { path: path.clone(), batch: std::mem::take(&mut worker.batch) });
            }
            if !more? || last {
                return Ok(());
            }
        }
    };
    if let Err(error) = read() {
        let _ = sender.send(Message::Failed { path: path.clone(), error });
    }
    let _ = sender.send(Message::Batch { path: path.clone(), batch: std::mem::take(&mut worker.batch) });
    let _ = sender.send(Message::FileDone);
}

struct Printer<'o> {
    rules: Arc<Detectors>,
    format: Format,
    out: BufWriter<io::StdoutLock<'o>>,
    tally: Tally,
    findings: u64,
    worst: Option<Level>,
    failed: u64,
}

impl Printer<'_> {
    fn take(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Batch { path, batch } => {
                self.tally.add(&batch.tally);
                for Quarantined { reason, at, .. } in &batch.quarantined {
                    eprintln!("{}: at byte {at}: {reason}; quarantined", path.display());
                }
                batch.singles.iter().try_for_each(|single| self.print(single))
            }
            Message::Failed { path, error } => {
                self.failed += 1;
                eprintln!("{}: {error}; what was read before it counts", path.display());
                Ok(())
            }
            Message::FileDone => Ok(()),
        }
    }

    fn print(&mut self, single: &Single) -> io::Result<()> {
        let info = &self.rules.infos[single.rule];
        self.findings += 1;
        self.worst = self.worst.max(Some(info.level));
        writeln!(self.out, "{:<8} {}  {}  {}", format!("{:?}", info.level).to_uppercase(), single.event.time, info.title, single.summary)
    }

    fn finish(mut self, fail_on: Option<Level>) -> anyhow::Result<ExitCode> {
        self.out.flush()?;
        let Tally { events, matched, unmatched, quarantined, .. } = self.tally;
        eprintln!("{} findings; {events} events: {matched} matched, {unmatched} not, {quarantined} records quarantined", self.findings);
        Ok(if quarantined + self.failed > 0 {
            ExitCode::from(3)
        } else if fail_on.is_some_and(|level| self.worst >= Some(level)) {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}
