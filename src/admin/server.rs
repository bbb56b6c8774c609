//! The accept loop: bounds on how many may be connected, and on how slow they may be.
//!
//! In: connections. Out: answers of the router. Invariant: a client that stalls holds one of `CONNECTIONS` places, for a bounded
//! time, and nothing else.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::Admin;

/// Connections at once; further ones are closed unanswered.
const CONNECTIONS: usize = 128;
/// From the first byte of a request to the end of its head, and between requests.
const HEAD: Duration = Duration::from_secs(5);
/// Any connection ends after this; event streams come back by themselves.
const LIFE: Duration = Duration::from_secs(600);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// After the stop signal: time to finish answers.
const DRAIN: Duration = Duration::from_secs(1);

pub(super) async fn serve(listener: TcpListener, router: Router, admin: &Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stop = admin.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stopped| *stopped) => break,
        };
        let Ok((socket, _)) = accepted else {
            // Out of file descriptors, most likely: others give some back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            admin.metrics.admin_request("limited").inc();
            continue;
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            // How a connection ends is its client's business.
            let _ = tokio::time::timeout(LIFE, connection(socket, router)).await;
        });
    }
    tokio::time::sleep(DRAIN).await;
}

async fn connection(socket: TcpStream, router: Router) -> hyper::Result<()> {
    // Without it an event waits for the acknowledgement of the one before.
    let _ = socket.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
        .await
}
