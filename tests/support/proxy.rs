//! A proxy that spoils some of the calls to a server: throttled, failed, or done with the answer lost.
//!
//! In: HTTP/1.1 requests, rates and a seed. Out: the server's answers, or trouble. Invariant: a lost answer's call was made.
#![allow(dead_code)]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};

/// Shares of the calls, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spoil {
    pub throttled: u64,
    pub failed: u64,
    pub lost: u64,
}

pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    target: String,
    spoil: Mutex<Spoil>,
    rolls: AtomicU64,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Proxy {
    pub async fn start(target: &str, spoil: Spoil, seed: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Arc::new(Shared { target: target.to_owned(), spoil: Mutex::new(spoil), rolls: AtomicU64::new(seed), client });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| pass(Arc::clone(&shared), request));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { url, shared, task }
    }

    /// From now on.
    pub fn spoil(&self, spoil: Spoil) {
        *self.shared.spoil.lock().unwrap() = spoil;
    }
}

fn refused(status: u16, kind: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{kind}","message":"spoilt by the test"}}"#);
    Response::builder().status(status).header("content-type", "application/x-amz-json-1.0").body(Bytes::from(body).into()).unwrap()
}

async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    // splitmix64
    let mut z = shared.rolls.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let roll = (z >> 33) % 1000;
    let Spoil { throttled, failed, lost } = *shared.spoil.lock().unwrap();
    if roll < throttled {
        return Ok(refused(400, "ProvisionedThroughputExceededException"));
    }
    if roll < throttled + failed {
        return Ok(refused(500, "InternalServerError"));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut onward = Request::builder().method(parts.method).uri(&shared.target);
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != "host") {
        onward = onward.header(name, value);
    }
    let answer = shared.client.request(onward.body(body.into()).unwrap()).await.map_err(io::Error::other)?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    if roll < throttled + failed + lost {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let mut out = Response::new(body.into());
    *out.status_mut() = parts.status;
    out.headers_mut()
        .extend(parts.headers.into_iter().filter_map(|(name, value)| Some((name?, value))).filter(|(name, _)| *name != "transfer-encoding"));
    Ok(out)
}
