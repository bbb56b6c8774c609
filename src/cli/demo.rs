//! `demo`: the whole daemon on this machine, with an estate, a day's traffic and an attack through it.
//!
//! In: nothing but a duration and a rate. Out: the attack's steps and the alerts that answer them, as they happen. Invariant: the
//! same daemon as `run`, on an embedded stream; nothing leaves loopback.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::watch;

use super::service::{Service, stop_signal};
use super::{run, scan};
use crate::admin;
use crate::alert::view::AlertView;
use crate::config::{Config, Logs, Rules, State};
use crate::deliver;
use crate::demo::corpus::story::Story;
use crate::demo::corpus::{Corpus, wrap::Envelope};
use crate::demo::endpoint::{Endpoint, Options};
use crate::position::Position;
use crate::sink;
use crate::source::kinesis;

/// Shows the daemon at work: an embedded Kinesis stream, benign traffic, an attack, and the alerts. No account, no config.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trailwarden demo
  trailwarden demo --duration 30 --rate 5000")]
pub struct Args {
    /// Seconds until it ends by itself; without it, Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Benign events a second
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Another seed makes another day
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the status page listens; port 0 takes any that is free, as does a port that is taken
    #[arg(long, value_name = "ADDRESS", default_value = admin::ADDRESS)]
    listen: SocketAddr,
}

const STREAM: &str = "estate";
const SHARDS: u32 = 2;
/// The account that the attack happens in, as a config would name it.
const ACCOUNT: (&str, &str) = ("111122223333", "production");
/// The producer writes this often.
const BEAT: Duration = Duration::from_millis(100);
/// Records asked for this often: the first alert is to come within a second.
const POLL_MS: u64 = 200;

/// # Errors
/// What keeps the embedded parts from starting.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(play(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn play(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let endpoint = Arc::new(Endpoint::start(Options::default()).await.context("the embedded stream")?);
    endpoint.create_stream(STREAM, SHARDS).map_err(anyhow::Error::msg)?;
    let folder = std::env::temp_dir().join(format!("trailwarden-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let token = token()?;
    let listen = free(args.listen);
    let config = config(endpoint.url(), &folder, listen, &token);
    let detectors = run::detectors(&config.rules)?;
    let mut stage = Stage { colour: super::takes_colour(&std::io::stdout()), alerts: 0, incidents: HashSet::new() };
    stage.open(&detectors, args);
    let (_reload, current) = watch::channel(Arc::new(detectors));
    let service = Service::start(config, current).await?;
    if listen != args.listen {
        stage.line(&format!("{} is taken by another program; this demo's page has a port of its own.", args.listen));
    }
    stage.line(&format!("Status page: http://{0}/  metrics: http://{0}/metrics", service.address));
    stage.line(&format!(
        "To silence, acknowledge or resolve there, its token is {token}
"
    ));
    let mut live = service.live.subscribe();
    let (captions, mut told) = tokio::sync::mpsc::unbounded_channel();
    let producer = std::thread::spawn({
        let (endpoint, rate, seed) = (endpoint.clone(), args.rate, args.seed);
        move || produce(&endpoint, rate, seed, &captions)
    });
    let duration = args.duration.map(Duration::from_secs);
    let show = async {
        let end = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration.saturating_sub(started.elapsed())).await,
                None => std::future::pending().await,
            }
        };
        // One future for the whole show: a signal between two turns of the loop would be lost on a new one.
        let stop = stop_signal();
        tokio::pin!(end, stop);
        loop {
            tokio::select! {
                () = &mut end => break,
                () = &mut stop => break,
                Some(caption) = told.recv() => stage.caption(&caption),
                alert = live.recv() => if let Ok(alert) = alert { stage.alert(&alert) },
            }
        }
    };
    let outcome = service.finish(show).await;
    drop(told);
    let _ = producer.join();
    let _ = std::fs::remove_dir_all(&folder);
    let tally = outcome?;
    stage.close(tally.events, started.elapsed());
    Ok(())
}

/// For this run alone: whoever sees the terminal may change things.
fn token() -> anyhow::Result<String> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn config(url: &str, folder: &std::path::Path, listen: SocketAddr, token: &str) -> Config {
    let kinesis = kinesis::Config {
        streams: vec![STREAM.to_owned()],
        endpoint: Some(url.to_owned()),
        start: kinesis::Start(Position::TrimHorizon),
        poll_interval_ms: POLL_MS,
        ..kinesis::Config::default()
    };
    let state = State { path: folder.join("state.redb"), ..State::default() };
    let archive = sink::file::Config { path: folder.join("alerts.ndjson"), form: sink::form::Form::default() };
    let (account, name) = ACCOUNT;
    Config {
        kinesis,
        leases: None,
        rules: Rules::default(),
        state,
        sinks: BTreeMap::from([("archive".to_owned(), sink::Config::File(archive))]),
        routing: Default::default(),
        delivery: deliver::Config { account_names: BTreeMap::from([(account.to_owned(), name.to_owned())]), ..Default::default() },
        admin: admin::Config { listen, token: Some(admin::Token::new(token)) },
        logs: Logs::default(),
        workers: None,
    }
}

/// The address, or any port of its host where another program, perhaps another demo, has this one.
fn free(listen: SocketAddr) -> SocketAddr {
    let is_taken = std::net::TcpListener::bind(listen).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    if is_taken { SocketAddr::new(listen.ip(), 0) } else { listen }
}

/// Writes traffic and attack until nobody listens to the captions any more.
fn produce(endpoint: &Endpoint, rate: u32, seed: u64, captions: &tokio::sync::mpsc::UnboundedSender<String>) {
    let started = Instant::now();
    let start_ms = now_ms();
    let mut corpus = Corpus::benign_day(seed, 1).starting_at(start_ms).events_per_second(rate.max(1));
    let mut story = Story::new(seed);
    let steps: Vec<(u64, String)> = story.steps().map(|s| (s.at_ms, s.caption.to_owned())).collect();
    let (mut told, mut written) = (0, 0u64);
    let (mut envelope, mut event) = (Envelope::default(), Vec::new());
    while !captions.is_closed() {
        let elapsed_ms = started.elapsed().as_millis() as u64;
        let wanted = elapsed_ms * u64::from(rate) / 1000;
        while written < wanted {
            event.clear();
            let time_ms = corpus.next_event(&mut event);
            envelope.push(time_ms, &event);
            written += 1;
        }
        while let Some((at_ms, caption)) = steps.get(told).filter(|(at_ms, _)| *at_ms <= elapsed_ms) {
            event.clear();
            story.write(told, start_ms + *at_ms as i64, &mut event);
            envelope.push(start_ms + *at_ms as i64, &event);
            if !caption.is_empty() && captions.send(caption.clone()).is_err() {
                return;
            }
            told += 1;
        }
        if envelope.events() > 0 {
            let mut record = Vec::new();
            envelope.finish(&mut record);
            if let Err(error) = endpoint.put(STREAM, [(format!("estate-{written}"), Bytes::from(record))]) {
                tracing::error!("the embedded stream took no record: {error}");
            }
        }
        std::thread::sleep(BEAT);
    }
}

fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// What the audience sees.
struct Stage {
    colour: bool,
    alerts: u64,
    incidents: HashSet<String>,
}

impl Stage {
    fn open(&self, detectors: &crate::pipeline::Detectors, args: &Args) {
        self.line(&format!(
            "Trailwarden demo: {} detectors over an embedded Kinesis stream, {} events a second of a database estate at work.",
            detectors.rules.len() + detectors.correlations.len(),
            args.rate
        ));
        self.line("An attacker has found an access key. Ctrl-C ends it.");
    }

    fn caption(&self, caption: &str) {
        let (dim, plain) = if self.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("{dim}         attacker: {caption}{plain}"));
    }

    fn alert(&mut self, view: &AlertView) {
        self.alerts += 1;
        // What joins an incident that was told of changes a page, it doesn't make one.
        if !self.incidents.insert(view.incident.clone()) {
            return;
        }
        let line = scan::line(&view.alert);
        let colour = match line.split(' ').next() {
            Some("CRITICAL") => "\x1b[1;31m",
            Some("HIGH") => "\x1b[31m",
            Some("MEDIUM") => "\x1b[33m",
            _ => "",
        };
        let (level, rest) = line.split_at(8.min(line.len()));
        if self.colour { self.line(&format!("{colour}{level}\x1b[0m{rest}")) } else { self.line(&line) }
    }

    fn close(&self, events: u64, elapsed: Duration) {
        self.line(&format!("\n{events} events in {:.0} s: {} alerts in {} incidents.", elapsed.as_secs_f64(), self.alerts, self.incidents.len()));
    }

    /// A terminal that has gone away ends nothing.
    fn line(&self, text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}
