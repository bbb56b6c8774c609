//! Rules: from Sigma YAML to types.
//!
//! In: rule files. Out: `ast` values with their places, and findings about what is wrong with them. Invariant: what has no
//! error is well-formed Sigma 2.1.0 (or one of the documented extensions) and is never checked again.

pub mod ast;
pub mod builtin;
pub mod cases;
mod condition;
mod correlation;
pub mod coverage;
mod detection;
pub mod diagnostic;
mod extension;
mod filter;
mod link;
mod lint;
pub mod load;
mod meta;
mod modifier;
mod pattern;
pub mod schema;
pub mod sigma;
pub mod yaml;

pub use lint::lint;
pub use load::{Input, LinkedCorrelation, LinkedRule, Loaded, Options, Reference, Role, RuleSet, Source, load, load_texts};
pub use modifier::{IMPLICIT_LISTS, Lists};
