//! Trailwarden watches AWS databases: bytes come in from Kinesis, files or stdin; alerts and metrics go out.
//!
//! Data passes the modules in the order in which they stand here.

pub mod alert;
pub mod aws;
#[cfg(feature = "demo")]
pub mod demo;
pub mod metrics;
pub mod position;
pub mod rule;
pub mod store;
