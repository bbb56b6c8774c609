//! Rules: from Sigma YAML to types.

pub mod ast;
