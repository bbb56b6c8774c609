//! Speaks to a running daemon's API on this machine.
//!
//! In: a method, a path, a body. Out: the answer's status and text, or its lines as they come. Invariant: the token comes from the
//! environment or a file, never from the command line, where other users could read it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(15);
/// The daemon comments on a silent stream every 15 s.
const STREAM: Duration = Duration::from_secs(40);
/// Of one answer.
const ANSWER_BYTES: u64 = 64 << 20;

/// Where the daemon is, and how to be let in.
#[derive(Debug, Clone, clap::Args)]
pub struct Daemon {
    /// Address of the running daemon [default: $TRAILWARDEN_ADDRESS, else 127.0.0.1:9464]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// File that holds the admin token [default: $TRAILWARDEN_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Daemon {
    pub fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.exchange("GET", path, "", "")?;
        self.json(status, &body)
    }

    /// A change: needs the token.
    pub fn post(&self, path: &str, body: &str) -> Result<Value> {
        let token = self.token()?;
        let (status, body) = self.exchange("POST", path, &format!("authorization: Bearer {token}\r\n"), body)?;
        self.json(status, &body)
    }

    /// Status and text, whatever the status.
    pub fn probe(&self, path: &str) -> Result<(u16, String)> {
        self.exchange("GET", path, "", "")
    }

    /// Calls `line` for each line of a stream until it ends or `line` says false.
    pub fn stream(&self, path: &str, mut line: impl FnMut(&str) -> bool) -> Result<()> {
        let socket = self.send("GET", path, "", "", STREAM)?;
        let mut reader = BufReader::new(socket);
        let status = read_head(&mut reader)?;
        if status != 200 {
            bail!("the daemon answered {status}");
        }
        let mut text = String::new();
        while reader.read_line(&mut text)? > 0 {
            if !line(text.trim_end()) {
                return Ok(());
            }
            text.clear();
        }
        Ok(())
    }

    fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> Result<(u16, String)> {
        let mut reader = BufReader::new(self.send(method, path, headers, body, ANSWER)?);
        let status = read_head(&mut reader)?;
        let mut text = String::new();
        reader.take(ANSWER_BYTES).read_to_string(&mut text).context("the answer broke off")?;
        Ok((status, text))
    }

    /// HTTP/1.0: the answer ends with the connection, and nothing is chunked.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str, patience: Duration) -> Result<TcpStream> {
        let address = self.resolve()?;
        let mut socket = TcpStream::connect_timeout(&address, CONNECT)
            .with_context(|| format!("no daemon answers on {address}; is `trailwarden run` there, and does --address name it?"))?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(ANSWER))?;
        let length = body.len();
        socket.write_all(format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").as_bytes())?;
        Ok(socket)
    }

    fn resolve(&self) -> Result<SocketAddr> {
        let named = self.address.clone().or_else(|| env::var("TRAILWARDEN_ADDRESS").ok());
        let text = named.unwrap_or_else(|| crate::admin::ADDRESS.to_owned());
        text.to_socket_addrs().ok().and_then(|mut all| all.next()).with_context(|| format!("`{text}` is no address like 127.0.0.1:9464"))
    }

    fn token(&self) -> Result<String> {
        let text = match &self.token_file {
            Some(path) => fs::read_to_string(path).with_context(|| format!("can't read the token file {}", path.display()))?,
            None => env::var("TRAILWARDEN_TOKEN").context("changes need the admin token: set TRAILWARDEN_TOKEN, or name a --token-file")?,
        };
        let token = text.trim().to_owned();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            bail!("the admin token is empty or has characters that no header may have");
        }
        Ok(token)
    }

    fn json(&self, status: u16, body: &str) -> Result<Value> {
        let value: Value = serde_json::from_str(body).with_context(|| format!("the daemon answered {status}, and not with JSON"))?;
        if !(200..300).contains(&status) {
            bail!("{}", crate::alert::escape::terminal(value["error"].as_str().unwrap_or("the daemon refused")));
        }
        Ok(value)
    }
}

fn read_head(reader: &mut impl BufRead) -> Result<u16> {
    let mut line = String::new();
    reader.read_line(&mut line).context("no answer came in time")?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("this is no HTTP server")?;
    while !line.trim_end().is_empty() {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
    }
    Ok(status)
}

/// A path segment.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
