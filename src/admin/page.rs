//! The status page: rendered here, kept fresh by a small script that swaps its parts.
//!
//! In: the board, the store's newest alerts. Out: HTML. Invariant: everything that is not a literal goes through `escape::html`;
//! the page says the essentials without a script.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Admin, api::Problem, now_ms};
use crate::{alert::escape::html, store::StoreError};

mod feed;
mod tables;

const SKELETON: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = include_str!("page/page.js");

const PARTS: [&str; 8] = ["standing", "glance", "alerts", "shards", "sinks", "silences", "latency", "rules"];

pub(super) async fn css() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], CSS).into_response()
}

pub(super) async fn js() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], JS).into_response()
}

pub(super) async fn page(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let mut text = SKELETON.replace("{{version}}", env!("CARGO_PKG_VERSION")).replace("{{worker}}", &html(&admin.board.worker.load()));
    // The parts hold text from logs, which could spell a placeholder: they go in by place, in one pass.
    let mut page = String::new();
    for name in PARTS {
        let mark = format!("{{{{{name}}}}}");
        let (before, after) = text.split_once(&mark).map(|(b, a)| (b.to_owned(), a.to_owned())).unwrap_or_default();
        page.push_str(&before);
        page.push_str(&render(&admin, name)?);
        text = after;
    }
    page.push_str(&text);
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response())
}

pub(super) async fn part(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let Some(name) = PARTS.iter().find(|part| **part == name) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no such part of the page"));
    };
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], render(&admin, name)?).into_response())
}

fn render(admin: &Admin, name: &str) -> Result<String, StoreError> {
    let now_ms = now_ms();
    Ok(match name {
        "standing" => tables::standing(admin, now_ms),
        "glance" => tables::glance(admin)?,
        "alerts" => feed::alerts(admin)?,
        "shards" => tables::shards(admin),
        "sinks" => tables::sinks(admin, now_ms),
        "silences" => tables::silences(admin, now_ms)?,
        "latency" => tables::latency(admin),
        _ => tables::rules(admin),
    })
}

/// An instant: exact for all, told as an age by the script.
fn time(at_ms: i64) -> String {
    let exact = jiff::Timestamp::from_millisecond(at_ms).map(|t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default();
    format!("<time data-ms=\"{at_ms}\">{exact}</time>")
}

/// `850 ms`, `4.2 s`, `12 min`, `3 h`, `2 d`
fn span(ms: i64) -> String {
    let seconds = ms.max(0) as f64 / 1000.0;
    match seconds {
        ..1.0 => format!("{} ms", ms.max(0)),
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7_200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3_600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// `12`, `3.4 k`, `1.2 M`
fn count(n: f64) -> String {
    match n {
        ..1_000.0 => format!("{n:.0}"),
        ..10_000.0 => format!("{:.1} k", n / 1e3),
        ..1_000_000.0 => format!("{:.0} k", n / 1e3),
        ..1e9 => format!("{:.1} M", n / 1e6),
        _ => format!("{:.1} G", n / 1e9),
    }
}
