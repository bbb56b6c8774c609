//! An HTTP server that misbehaves on order.
//!
//! In: a script that says, request by request, how to answer. Out: what it was sent. Invariant: loopback only; it ends with the
//! test.
#![allow(dead_code)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How one request fares.
#[derive(Debug, Clone)]
pub enum Fault {
    Answer(u16, &'static str),
    /// With one header more, `Retry-After: 1`.
    AnswerWith(u16, &'static str, &'static str),
    Delayed(Duration, u16, &'static str),
    /// The connection is reset before an answer.
    Reset,
    /// The head promises more than comes.
    Half(u16),
    /// Taken, never answered.
    Hang,
}

#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    /// As sent, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub at: Instant,
}

impl Seen {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

type Script = dyn Fn(usize, &Seen) -> Fault + Send + Sync;

pub struct FaultServer {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FaultServer {
    /// `script` gets the request's number, from 0.
    pub async fn start(script: impl Fn(usize, &Seen) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let script: Arc<Script> = Arc::new(script);
        let log = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, script.clone(), log.clone()));
            }
        });
        Self { url, seen, task }
    }

    pub async fn always(status: u16, body: &'static str) -> Self {
        Self::start(move |_, _| Fault::Answer(status, body)).await
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut socket: TcpStream, script: Arc<Script>, log: Arc<Mutex<Vec<Seen>>>) {
    while let Some(request) = read_request(&mut socket).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let keep = match script(number, &request) {
            Fault::Answer(status, body) => answer(&mut socket, status, "", body).await,
            Fault::AnswerWith(status, header, body) => answer(&mut socket, status, header, body).await,
            Fault::Delayed(wait, status, body) => {
                tokio::time::sleep(wait).await;
                answer(&mut socket, status, "", body).await
            }
            Fault::Reset => {
                // Closing with data unread makes the kernel send a reset.
                #[allow(deprecated)]
                socket.set_linger(Some(Duration::ZERO)).unwrap();
                false
            }
            Fault::Half(status) => {
                let _ = socket.write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 500\r\n\r\n{{\"half").as_bytes()).await;
                false
            }
            Fault::Hang => {
                tokio::time::sleep(Duration::from_secs(120)).await;
                false
            }
        };
        if !keep {
            return;
        }
    }
}

async fn answer(socket: &mut TcpStream, status: u16, header: &str, body: &str) -> bool {
    let header = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
    let text = format!("HTTP/1.1 {status} x\r\n{header}content-length: {}\r\n\r\n{body}", body.len());
    socket.write_all(text.as_bytes()).await.is_ok()
}

async fn read_request(socket: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    let length: usize = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
    while bytes.len() < head_end + 4 + length {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let body = String::from_utf8_lossy(&bytes[head_end + 4..head_end + 4 + length]).into_owned();
    Some(Seen { path, headers, body, at: Instant::now() })
}
