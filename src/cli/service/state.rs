//! The state that a daemon starts from: a file of its own, or the table of its fleet.
//!
//! In: a config. Out: an open store. Invariant: workers of one fleet open one table, whichever starts first makes it.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::pipeline::Detectors;
use crate::store::keeper::SharedKeeper;
use crate::store::{DynamoStore, EmbeddedStore, Store};

/// # Errors
/// A file or a table that can't be used.
pub async fn open(config: &Config, detectors: &watch::Receiver<Arc<Detectors>>, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<dyn Store>> {
    let Some(fleet) = &config.leases else {
        return Ok(Arc::new(EmbeddedStore::open(&config.state.path)?));
    };
    let (client, table) = (fleet.state_client().await, config.state.table(&fleet.table));
    let keep_ms = SharedKeeper::keep_ms(&detectors.borrow().plan, &config.state.limits());
    let (metrics, name) = (metrics.clone(), table.clone());
    let opened = tokio::task::spawn_blocking(move || DynamoStore::open(client, &name, keep_ms, &metrics)).await?;
    Ok(Arc::new(opened.with_context(|| format!("the fleet's state in table `{table}`"))?))
}
