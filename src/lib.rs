//! Trailwarden watches AWS databases: bytes come in from Kinesis, files or stdin; alerts and metrics go out.
//!
//! Data passes the modules in the order in which they stand here.

pub mod aws;
pub mod redact;
pub mod metrics;
pub mod correlate;
pub mod position;
pub mod lease;
pub mod source;
pub mod event;
pub mod decode;
pub mod rule;
pub mod detect;
pub mod alert;
pub mod store;
pub mod route;
pub mod sink;
pub mod deliver;
pub mod admin;
pub mod pipeline;
pub mod config;
pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;
