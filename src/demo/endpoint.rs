//! A Kinesis endpoint inside this process: the real SDK talks to it over HTTP on loopback.
//!
//! In: JSON 1.1 requests. Out: what the service would answer, its limits and (on demand) its faults included. Invariant:
//! no answer that a consumer builds on is simplified: child shards, lag, expiry and the limits are as documented by AWS.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

pub use self::faults::Faults;
use self::{
    faults::{Clock, FaultState, Verdict},
    read::Budgets,
    shard::{Stream, hash_of},
    wire::ApiError,
};

mod control;
mod fan_out;
mod faults;
mod read;
mod shard;
mod wire;

/// What a shard gives a second.
#[derive(Debug, Clone)]
pub struct Limits {
    pub reads_per_s: u32,
    pub read_bytes_per_s: f64,
}

impl Limits {
    /// The service's own.
    pub const AWS: Self = Self { reads_per_s: 5, read_bytes_per_s: 2_000_000.0 };
    /// As fast as the machine goes, for benches.
    pub const NONE: Self = Self { reads_per_s: u32::MAX, read_bytes_per_s: 1e15 };
}

#[derive(Debug, Clone)]
pub struct Options {
    /// Loopback; port 0 takes a free one.
    pub listen: SocketAddr,
    pub limits: Limits,
    /// The oldest records of a shard go once it holds more than this.
    pub retain_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), limits: Limits::AWS, retain_bytes: 64 << 20 }
    }
}

pub(crate) struct Shared {
    streams: Mutex<BTreeMap<String, Stream>>,
    budgets: Mutex<Budgets>,
    faults: Mutex<FaultState>,
    clock: Clock,
    /// Wakes subscriptions when something was stored or reshaped.
    stored: Notify,
    limits: Limits,
    retain_bytes: usize,
    account: String,
    region: String,
    numbers: AtomicU64,
    calls: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// A running endpoint; dropping it closes it and every connection.
pub struct Endpoint {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            budgets: Mutex::default(),
            faults: Mutex::default(),
            clock: Clock::default(),
            stored: Notify::new(),
            limits: options.limits,
            retain_bytes: options.retain_bytes,
            account: "000000000000".to_owned(),
            region: "us-east-1".to_owned(),
            numbers: AtomicU64::new(1),
            calls: Mutex::default(),
        });
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { url, shared, server })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one call in process, without HTTP, limits of reading or faults: `CreateStream`, `SplitShard`, …
    pub fn call(&self, operation: &str, input: &Value) -> Result<Value, String> {
        let answer = control::call(&self.shared, operation, input);
        self.shared.stored.notify_waiters();
        answer.map_err(|e| format!("{}: {}", e.kind, e.message))
    }

    pub fn create_stream(&self, name: &str, shards: u32) -> Result<(), String> {
        self.call("CreateStream", &json!({"StreamName": name, "ShardCount": shards})).map(drop)
    }

    /// Stores records of (partition key, data) in process; returns each one's sequence number.
    pub fn put(&self, stream: &str, records: impl IntoIterator<Item = (String, Bytes)>) -> Result<Vec<Box<str>>, String> {
        let now_ms = self.shared.clock.now_ms();
        let sequences = {
            let mut streams = self.shared.streams.lock().expect("no holder panics");
            let stream = streams.get_mut(stream).ok_or_else(|| format!("stream {stream} does not exist"))?;
            records.into_iter().map(|(key, data)| stream.put(now_ms, &key, hash_of(&key), data).1).collect()
        };
        self.shared.stored.notify_waiters();
        Ok(sequences)
    }

    pub fn set_faults(&self, faults: Faults) {
        self.shared.faults.lock().expect("no holder panics").set(faults);
    }

    /// Pushes the endpoint's clock forward: iterators expire, subscriptions end, records fall out of retention.
    pub fn advance(&self, by: Duration) {
        self.shared.clock.advance(by);
        let now_ms = self.shared.clock.now_ms();
        self.shared.streams.lock().expect("no holder panics").values_mut().for_each(|s| s.trim(now_ms));
        self.shared.stored.notify_waiters();
    }

    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// How often each operation was called over HTTP.
    pub fn calls(&self, operation: &str) -> u64 {
        self.shared.calls.lock().expect("no holder panics").get(operation).copied().unwrap_or(0)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // A connection ends with the endpoint: its task lives in this set.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(socket, Arc::clone(&shared)));
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| answer(Arc::clone(&shared), request));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
}

/// A whole answer, or the frames of a subscription as they come.
enum Reply {
    Whole(Option<Bytes>),
    Frames(mpsc::Receiver<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(body) => Poll::Ready(body.take().map(|b| Ok(Frame::data(b)))),
            Self::Frames(frames) => frames.poll_recv(cx).map(|f| f.map(|b| Ok(Frame::data(b)))),
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(body) => hyper::body::SizeHint::with_exact(body.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Frames(_) => hyper::body::SizeHint::default(),
        }
    }
}

fn response(status: u16, content_type: &str, reply: Reply) -> Response<Reply> {
    let id = "00000000-0000-4000-8000-000000000000";
    let built = Response::builder().status(status).header("content-type", content_type).header("x-amzn-requestid", id).body(reply);
    built.expect("the parts are constants")
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Reply>, io::Error> {
    const JSON: &str = "application/x-amz-json-1.1";
    let target = request.headers().get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix("Kinesis_20131202.").unwrap_or_default().to_owned();
    *shared.calls.lock().expect("no holder panics").entry(operation.clone()).or_default() += 1;
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let (delay, verdict) = shared.faults.lock().expect("no holder panics").judge(&operation);
    tokio::time::sleep(delay).await;
    let outcome = match verdict {
        Verdict::Reset => return Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        Verdict::Fail(error) => Err(error),
        Verdict::Answer if operation == "SubscribeToShard" => match parse(&body).and_then(|input| fan_out::subscribe(&shared, &input)) {
            Ok(subscription) => {
                let (out, frames) = mpsc::channel(2);
                tokio::spawn(subscription.run(shared, out));
                return Ok(response(200, "application/vnd.amazon.eventstream", Reply::Frames(frames)));
            }
            Err(error) => Err(error),
        },
        Verdict::Answer => parse(&body).and_then(|input| plain(&shared, &operation, &input)),
    };
    Ok(match outcome {
        Ok(body) => response(200, JSON, Reply::Whole(Some(body.into()))),
        Err(error) => response(error.status, JSON, Reply::Whole(Some(error.body().into()))),
    })
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|e| ApiError::new(400, "SerializationException", e.to_string()))
}

/// Every call whose answer is one body.
fn plain(shared: &Shared, operation: &str, input: &Value) -> Result<Vec<u8>, ApiError> {
    let now_ms = shared.clock.now_ms();
    match operation {
        "GetRecords" => {
            let name = read::stream_of(input)?;
            let found = {
                let streams = shared.streams.lock().expect("no holder panics");
                let stream = streams.get(&name).ok_or_else(|| ApiError::not_found(format!("Stream {name} not found.")))?;
                let mut budgets = shared.budgets.lock().expect("no holder panics");
                read::get(stream, input, &mut budgets, &shared.limits, now_ms)?
            };
            Ok(found.body())
        }
        "GetShardIterator" => {
            let name = control::stream_name(input)?;
            let streams = shared.streams.lock().expect("no holder panics");
            let stream = streams.get(name).ok_or_else(|| ApiError::not_found(format!("Stream {name} not found.")))?;
            let sealed = read::iterator(name, stream, input, now_ms)?;
            Ok(json!({"ShardIterator": sealed}).to_string().into_bytes())
        }
        _ => {
            let answer = control::call(shared, operation, input)?;
            shared.stored.notify_waiters();
            Ok(answer.to_string().into_bytes())
        }
    }
}
