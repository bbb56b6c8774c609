//! What `trailwarden demo` and the tests run instead of AWS. The container image is built without it.
//!
//! In: a seed and a script. Out: a stream on loopback. Invariant: nothing here is reachable from `run`.

pub mod corpus;
pub mod endpoint;
