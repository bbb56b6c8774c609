//! `schema`: JSON Schemas for editors, and the fields of log events for authors.
//!
//! In: the kind of file. Out: its schema on stdout. Invariant: made from the tables that the parser reads by.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Of {
    /// Sigma rules, correlations and filters, with our extensions
    Rule,
    /// Test cases beside a rule (`*.cases.yml`)
    Cases,
    /// Fields of events made from database logs: one login rule serves all engines (a table in Markdown)
    Fields,
}

/// # Errors
/// A schema that can't be written.
pub fn run(of: Of) -> anyhow::Result<ExitCode> {
    let schema = match of {
        Of::Rule => crate::rule::schema::rule(),
        Of::Cases => crate::rule::schema::cases(),
        Of::Fields => {
            super::emit(&crate::decode::log::tax::markdown())?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    super::emit(&format!("{schema:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}
