//! Lines: a file that grows, or standard output.
//!
//! In: notices. Out: one line each (some lines as text). Invariant: a notice counts as taken once its line is on disk; the
//! file is opened anew for every batch, so that it can be rotated by renaming.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use super::{Notice, SendError, form::Form};

const LINE_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Made with mode 0600 when it is missing; its folder must be there.
    pub path: PathBuf,
    /// `json` (default), `ocsf` or `text`.
    #[serde(default)]
    pub form: Form,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// `json` (default), `ocsf` or `text`.
    #[serde(default)]
    pub form: Form,
}

pub struct File {
    path: PathBuf,
    form: Form,
}

pub struct Stdout {
    form: Form,
}

impl File {
    pub fn new(config: &Config) -> Self {
        Self { path: config.path.clone(), form: config.form }
    }

    pub async fn send(&self, notices: &[Notice]) -> Result<(), SendError> {
        let lines = lines(self.form, notices);
        append(&self.path, lines.as_bytes()).await.map_err(|error| SendError::retry(format!("can't write to the file: {error}")))
    }
}

async fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path).await?;
    file.write_all(bytes).await?;
    file.flush().await?;
    file.sync_data().await
}

impl Stdout {
    pub fn new(config: &StdoutConfig) -> Self {
        Self { form: config.form }
    }

    pub fn send(&self, notices: &[Notice]) -> Result<(), SendError> {
        let mut out = io::stdout().lock();
        let written = out.write_all(lines(self.form, notices).as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| SendError::retry(format!("can't write to standard output: {error}")))
    }
}

fn lines(form: Form, notices: &[Notice]) -> String {
    let mut lines = String::new();
    for notice in notices {
        let rendered = form.render(notice, LINE_BYTES);
        lines.push_str(rendered.trim_end_matches('\n'));
        lines.push('\n');
    }
    lines
}
