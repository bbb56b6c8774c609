//! Alerts as they happen: `/api/alerts/stream`, server-sent events.
//!
//! In: what delivery broadcasts. Out: one event an alert, its data the same JSON as in `/api/alerts`. Invariant: a reader that is
//! too slow is told how many it missed; it holds up nobody.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::{broadcast::error::RecvError, mpsc};

use super::{Admin, api::Problem};
use crate::alert::escape;

/// Streams at once.
const STREAMS: usize = 32;
/// A comment that keeps proxies and clients from giving up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A reader that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(30);
const BUFFER: usize = 16;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Gives its place back however the stream ends.
struct Place;

impl Drop for Place {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn alerts(State(admin): State<Arc<Admin>>) -> Response {
    if OPEN.fetch_add(1, Ordering::Relaxed) >= STREAMS {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        admin.metrics.admin_request("limited").inc();
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams are open").into_response();
    }
    let place = Place;
    let (sender, pieces) = mpsc::channel(BUFFER);
    tokio::spawn(feed(admin, sender, place));
    let mut response = Body::new(Pieces(pieces)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// A body that goes on until its sender is gone.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn feed(admin: Arc<Admin>, sender: mpsc::Sender<Bytes>, _place: Place) {
    let mut live = admin.live.subscribe();
    let mut stop = admin.stop.clone();
    let mut text = String::from("retry: 2000\n: watching\n\n");
    loop {
        let sent = tokio::time::timeout(STALLED, sender.send(Bytes::from(text))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        text = tokio::select! {
            view = live.recv() => match view {
                Ok(view) => match serde_json::to_string(&*view) {
                    Ok(json) => format!("event: alert\ndata: {}\n\n", escape::json(json)),
                    Err(_) => continue_comment(),
                },
                Err(RecvError::Lagged(missed)) => format!("event: missed\ndata: {missed}\n\n"),
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => continue_comment(),
            _ = stop.wait_for(|stopped| *stopped) => return,
        };
    }
}

fn continue_comment() -> String {
    ": watching\n\n".to_owned()
}
