//! The daemon as a child process, and what the system and its own API say of it.
//!
//! In: a config. Out: events worked, CPU time by thread, memory, lag, percentiles. Invariant: it is the release binary as it ships; it
//! ends with the value.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

pub struct Daemon {
    child: Child,
    address: SocketAddr,
    /// Holds config and state.
    _folder: tempfile::TempDir,
}

/// A stream to read, and how.
pub struct Reading<'r> {
    pub url: &'r str,
    pub stream: &'r str,
    pub mode: &'r str,
    pub shard_bytes_per_s: u64,
    pub workers: usize,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    pub fn start(reading: &Reading<'_>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let Reading { url, stream, mode, shard_bytes_per_s, workers } = reading;
        let state = folder.path().join("state.redb");
        let text = format!(
            "kinesis: {{streams: [{stream}], endpoint: '{url}', region: us-east-1, mode: {mode}, start: trim_horizon, shard_bytes_per_s: {shard_bytes_per_s}}}\n\
             state: {{path: {}}}\nadmin: {{listen: '{address}'}}\nworkers: {workers}\n",
            state.display()
        );
        let config = folder.path().join("config.yml");
        fs::write(&config, text).expect("the folder is ours");
        let child = Command::new(env!("CARGO_BIN_EXE_trailwarden"))
            .args(["run", "--config"])
            .arg(&config)
            .envs([("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench"), ("TRAILWARDEN_LOG", "error")])
            .stdin(Stdio::null())
            .spawn()
            .expect("the binary is built with the bench");
        let daemon = Self { child, address, _folder: folder };
        let since = Instant::now();
        while daemon.get("/readyz").is_none_or(|body| !body.starts_with("ready")) {
            assert!(since.elapsed() < Duration::from_secs(20), "not ready: {:?}", daemon.get("/readyz"));
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut socket = TcpStream::connect(self.address).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        Some(text.split_once("\r\n\r\n")?.1.to_owned())
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.get("/api/status").expect("the daemon runs")).expect("its API speaks JSON")
    }

    /// Events that are durably done with.
    pub fn events(&self) -> u64 {
        self.status()["events"].as_object().into_iter().flat_map(|all| all.values()).filter_map(Value::as_u64).sum()
    }

    /// The greatest lag of any shard as the stream tells it, in seconds.
    pub fn lag_seconds(&self) -> f64 {
        let text = self.get("/metrics").expect("the daemon runs");
        let lags =
            text.lines().filter(|line| line.starts_with("trailwarden_shard_lag_seconds{")).filter_map(|line| line.rsplit(' ').next()?.parse().ok());
        lags.fold(0.0, f64::max)
    }

    /// The sum of a stage's times, in seconds.
    pub fn stage_seconds(&self) -> BTreeMap<String, f64> {
        let text = self.get("/metrics").expect("the daemon runs");
        let sum = |line: &str| {
            let (stage, value) = line.strip_prefix("trailwarden_stage_seconds_sum{stage=\"")?.split_once("\"} ")?;
            Some((stage.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(sum).collect()
    }

    /// CPU time in seconds by name of thread, numbers left out.
    pub fn cpu_seconds(&self) -> BTreeMap<String, f64> {
        cpu_seconds(self.child.id())
    }

    /// The greatest resident set so far, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

pub fn cpu_seconds(pid: u32) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let name = read("comm").trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        let nanoseconds: f64 = read("schedstat").split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        *found.entry(name).or_insert(0.0) += nanoseconds / 1e9;
    }
    found
}
