//! The modules of Trailwarden that read bytes from outside, and the generator of events to begin with.
//!
//! In: links to the modules in `src`. Out: the same module tree under the same name, so that checks compile here and in the
//! product's own tests. Invariant: nothing is here that is not there.
#![allow(dead_code)]

pub mod decode;
pub mod detect;
pub mod event;
pub mod redact;
pub mod rule;

pub mod demo {
    pub mod corpus;
}
