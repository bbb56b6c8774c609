//! The modules of Trailwarden that read bytes from outside, and the generator of events to begin with.
//!
//! In: nothing. Out: the same module tree under the same name, so that checks compile here and in the product's own tests.
#![allow(dead_code)]

#[path = "../src/decode.rs"]
pub mod decode;
#[path = "../src/detect.rs"]
pub mod detect;
#[path = "../src/event.rs"]
pub mod event;
#[path = "../src/redact.rs"]
pub mod redact;
#[path = "../src/rule.rs"]
pub mod rule;

pub mod demo {
    #[path = "../../src/demo/corpus.rs"]
    pub mod corpus;
}
