//! `trailwarden run` as a process of its own, on an embedded stream.
//!
//! In: the config's sinks. Out: its address, answers, log and commands. Invariant: loopback only; it ends with the value, by its own id.
#![allow(dead_code)]

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use trailwarden::demo::endpoint::{Endpoint, Options};

pub const TOKEN: &str = "a-token-of-the-test";

fn config(stream: &str, sinks: &str, folder: &str, port: u16) -> String {
    format!(
        "kinesis: {{ streams: [audit], endpoint: '{stream}', poll_interval_ms: 200 }}
state: {{ path: '{folder}/state.redb' }}
sinks:
{sinks}
delivery: {{ account_names: {{ '111122223333': production }} }}
admin: {{ listen: '127.0.0.1:{port}', token: {TOKEN} }}
",
        sinks = sinks.replace("{folder}", folder)
    )
}

pub struct Running {
    pub child: Child,
    pub port: u16,
    pub folder: tempfile::TempDir,
    pub endpoint: Arc<Endpoint>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `sinks`: the config's key, in which `{folder}` stands for a folder of the daemon's own.
pub async fn start(sinks: &str) -> Running {
    let endpoint = Arc::new(Endpoint::start(Options::default()).await.unwrap());
    endpoint.create_stream("audit", 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = folder.path().join("trailwarden.yml");
    fs::write(&file, config(endpoint.url(), sinks, &folder.path().display().to_string(), port)).unwrap();
    let out = fs::File::create(folder.path().join("out")).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut command = trailwarden(&["run", "--config", &file.display().to_string()], port);
    let child = command.stdout(out).stderr(log).stdin(Stdio::null()).spawn().unwrap();
    let running = Running { child, port, folder, endpoint };
    running.until("readiness", |r| r.get("/readyz").0 == 200).await;
    running
}

pub fn trailwarden(arguments: &[&str], port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(arguments).env("TRAILWARDEN_TOKEN", TOKEN).env("TRAILWARDEN_ADDRESS", format!("127.0.0.1:{port}"));
    command.envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_REGION", "eu-west-1")]);
    command
}

impl Running {
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path)
    }

    /// Status 0: nobody answers.
    pub fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let talk = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            let head = format!("{method} {path} HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(head.as_bytes())?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = talk().unwrap_or_default();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or(("", ""));
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..600 {
            if is(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no {what}; the log says:\n{}", self.read("log"));
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(Path::new(self.folder.path()).join(name)).unwrap_or_default()
    }

    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let out = trailwarden(arguments, self.port).output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    }

    pub fn put(&self, text: &str) {
        self.endpoint.put("audit", [("k".to_owned(), Bytes::from(text.to_owned()))]).unwrap();
    }
}
