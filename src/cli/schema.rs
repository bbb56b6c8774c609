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
    /// The config of `run`
    Config,
    /// Every key of the config, with its default and meaning (tables in Markdown)
    ConfigReference,
    /// Fields of events made from database logs: one login rule serves all engines (a table in Markdown)
    Fields,
}

/// # Errors
/// A schema that can't be written.
pub fn run(of: Of) -> anyhow::Result<ExitCode> {
    let schema = match of {
        Of::Rule => crate::rule::schema::rule(),
        Of::Cases => crate::rule::schema::cases(),
        Of::Config => crate::config::schema::config(),
        Of::ConfigReference => return print(&crate::config::reference::markdown()),
        Of::Fields => return print(&crate::decode::log::tax::markdown()),
    };
    print(&format!("{schema:#}\n"))
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    super::emit(text)?;
    Ok(ExitCode::SUCCESS)
}
