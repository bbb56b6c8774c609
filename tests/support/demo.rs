//! `trailwarden demo` as a process of its own: a real stream, real alerts, the page, `/metrics`.
//!
//! In: extra arguments. Out: its address and token once it listens. Invariant: loopback only; it ends with the value.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub struct Demo {
    child: Child,
    /// `127.0.0.1:40123`
    pub address: String,
    pub token: String,
    said: Arc<Mutex<String>>,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn start(arguments: &[&str]) -> Demo {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trailwarden"));
    command.args(["demo", "--listen", "127.0.0.1:0"]).args(arguments).env_remove("TRAILWARDEN_TOKEN");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut after = |mark: &str| lines.by_ref().find_map(|line| line.split_once(mark).map(|(_, rest)| rest.to_owned())).expect(mark);
    let address = after("Status page: http://").split('/').next().unwrap().to_owned();
    let token = after("its token is ").trim().to_owned();
    let said = Arc::new(Mutex::new(String::new()));
    let all = said.clone();
    // A pipe that nobody reads would stop the demo.
    std::thread::spawn(move || lines.for_each(|line| *all.lock().unwrap() += &(line + "\n")));
    Demo { child, address, token, said }
}

impl Demo {
    /// What stands on the terminal since the token.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until `is` says so of the terminal.
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) {
        let since = Instant::now();
        while !is(&self.said()) {
            assert!(since.elapsed() < Duration::from_secs(90), "no {what}:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "", "")
    }

    /// HTTP/1.0: the answer ends with the connection.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.0\r\nhost: {}\r\ncontent-length: {length}\r\n{headers}\r\n", self.address);
        std::io::Write::write_all(&mut socket, (head + body).as_bytes()).unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
    }
}
