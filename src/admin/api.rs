//! The handlers of `/api`, the probes and the metrics; docs/api.md is their contract.
//!
//! In: requests that `guard` let through. Out: JSON, or a problem as `{"error": …}` with a status. Invariant: a handler that changes
//! something answers after the pipeline did it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Admin, Command, Reply, Told, now_ms};
use crate::{
    alert::{
        Level, escape,
        view::{AlertView, RECENT, RECENT_ALERTS},
    },
    metrics::{Percentiles, STAGES},
    route::{Silence, SilenceError},
    store::{StoreError, blocking, quarantine},
};

/// The pipeline answers within milliseconds, unless it is in trouble.
const ANSWER: Duration = Duration::from_secs(10);
/// Of a command that waits for the worker that delivers.
const LATER: &str = "written down, but not in force yet: no worker of the fleet has carried it out so far. One will as soon as it delivers, \
which after a crash takes `leases.failover_ms`";
/// Rows of one list.
const LISTED: usize = 1_000;

/// Why a request got no answer of its own; with 202: that it will be carried out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    why: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let what = if self.status.is_success() { "accepted" } else { "error" };
        (self.status, Json(json!({ what: self.why }))).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

type Answer<T = Value> = Result<Json<T>, Problem>;

pub(super) async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such page; docs/api.md lists them")
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render(now_ms())).into_response()
}

pub(super) async fn healthz(State(admin): State<Arc<Admin>>) -> Response {
    if admin.board.is_alive(now_ms()) {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the pipeline has made no progress for a minute\n").into_response()
}

pub(super) async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    let readiness = admin.board.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", readiness.why())).into_response()
}

#[derive(Serialize)]
pub(super) struct StageView {
    pub stage: &'static str,
    #[serde(flatten)]
    pub took: Percentiles,
}

/// Where the time goes, stages that have been through.
pub(super) fn latency(admin: &Admin) -> Vec<StageView> {
    let stages = STAGES.iter().map(|stage| StageView { stage, took: admin.metrics.stage(stage).percentiles() });
    let ages = [("record to finding", admin.metrics.record_to_finding()), ("record to alert", admin.metrics.record_to_alert())];
    stages.chain(ages.map(|(stage, latency)| StageView { stage, took: latency.percentiles() })).filter(|view| view.took.count > 0).collect()
}

pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let (board, events) = (&admin.board, &admin.metrics.events);
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "worker": &**board.worker.load(),
        "delivers": &**board.delivers.load(),
        "started_ms": board.started_ms,
        "now_ms": now_ms(),
        "readiness": board.readiness(),
        "alive": board.is_alive(now_ms()),
        "rule_set": &**board.rule_set.load(),
        "max_lag_ms": board.max_lag_ms(),
        "events_per_second": admin.rates().last(),
        "events": {
            "matched": events.matched.get(),
            "unmatched": events.unmatched.get(),
            "duplicate": events.duplicate.get(),
            "quarantined": events.quarantined.get(),
        },
        "latency": latency(&admin),
        "queues": &**board.queues.load(),
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertQuery {
    pub limit: Option<usize>,
    pub min_level: Option<Level>,
    pub rule: Option<String>,
    /// Seen at or after this, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
}

/// Newest first.
pub(super) fn recent(admin: &Admin, query: &AlertQuery) -> Result<Vec<AlertView>, StoreError> {
    let rows = blocking(|| admin.store.kv_scan(RECENT, &[]))?;
    let views = rows.iter().rev().filter_map(|(_, row)| serde_json::from_slice::<AlertView>(row).ok());
    let wanted = |view: &AlertView| {
        query.min_level.is_none_or(|min| view.alert.rule.level >= min)
            && query.rule.as_ref().is_none_or(|rule| view.alert.rule.id == *rule)
            && query.since_ms.is_none_or(|since| view.seen_ms >= since)
    };
    Ok(views.filter(wanted).take(query.limit.unwrap_or(100).min(RECENT_ALERTS)).collect())
}

pub(super) async fn alerts(State(admin): State<Arc<Admin>>, Query(query): Query<AlertQuery>) -> Result<Response, Problem> {
    json_text(&recent(&admin, &query)?)
}

/// JSON that is harmless on a terminal too: these answers hold text from logs.
fn json_text<T: Serialize>(value: &T) -> Result<Response, Problem> {
    let text = serde_json::to_string(value).map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], escape::json(text)).into_response())
}

/// Rows of one of delivery's namespaces, as they are kept.
pub(super) fn rows(admin: &Admin, namespace: &'static str) -> Result<Vec<Value>, StoreError> {
    let rows = blocking(|| admin.store.kv_first(namespace, &[], LISTED))?;
    Ok(rows.iter().filter_map(|(_, row)| serde_json::from_slice(row).ok()).collect())
}

/// Newest first.
pub(super) fn open_incidents(admin: &Admin) -> Result<Vec<Value>, StoreError> {
    let mut incidents = rows(admin, "incident")?;
    incidents.sort_by_key(|row| std::cmp::Reverse(row["last_ms"].as_i64()));
    Ok(incidents)
}

pub(super) async fn incidents(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    json_text(&open_incidents(&admin)?)
}

pub(super) async fn shards(State(admin): State<Arc<Admin>>) -> Response {
    Json(&**admin.board.shards.load()).into_response()
}

pub(super) async fn rules(State(admin): State<Arc<Admin>>) -> Response {
    Json(&**admin.board.rules.load()).into_response()
}

pub(super) async fn sinks(State(admin): State<Arc<Admin>>) -> Response {
    Json(&**admin.board.sinks.load()).into_response()
}

/// In force now, by age. Read from the store: in a fleet any worker may be asked.
pub(super) fn silences_at(admin: &Admin, now_ms: i64) -> Result<Vec<Silence>, StoreError> {
    let rows = blocking(|| admin.store.kv_first("silence", &[], LISTED))?;
    let silences = rows.iter().filter_map(|(_, row)| serde_json::from_slice::<Silence>(row).ok());
    Ok(silences.filter(|silence| silence.ends_ms > now_ms).collect())
}

pub(super) async fn silences(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    json_text(&silences_at(&admin, now_ms())?)
}

pub(super) async fn letters(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    json_text(&rows(&admin, "dead")?)
}

pub(super) async fn letter(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Response, Problem> {
    match rows(&admin, "dead")?.into_iter().find(|row| row["id"] == id.as_str()) {
        Some(row) => json_text(&row),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no dead letter has this id")),
    }
}

pub(super) async fn quarantine(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    json_text(&blocking(|| quarantine::list(&*admin.store, LISTED))?)
}

pub(super) async fn quarantined(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Result<Response, Problem> {
    match blocking(|| quarantine::get(&*admin.store, &id))? {
        Some(record) => json_text(&record.shown()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no quarantined record has this id")),
    }
}

/// Sends a command and waits for its answer.
async fn ask<T>(admin: &Admin, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
    let (reply, answer) = oneshot::channel();
    let unavailable = |why: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let busy = "the daemon is too busy or stopping; look whether it took effect before you try again";
    admin.commands.try_send(command(reply)).map_err(|_| unavailable(busy))?;
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(Ok(Told::Done(answer))) => Ok(answer),
        Ok(Ok(Told::Later)) => Err(Problem::new(StatusCode::ACCEPTED, LATER)),
        Ok(Ok(Told::Refused(why))) => Err(unavailable(&why)),
        Ok(Err(_)) | Err(_) => Err(unavailable(busy)),
    }
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|e| Problem::new(StatusCode::BAD_REQUEST, format!("the body is not as docs/api.md says: {e}")))
}

fn silence_problem(error: SilenceError) -> Problem {
    let status = match error {
        SilenceError::Unknown(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, error.to_string())
}

pub(super) async fn add_silence(State(admin): State<Arc<Admin>>, body: Bytes) -> Result<Response, Problem> {
    let request = parse(&body)?;
    let silence = ask(&admin, |reply| Command::AddSilence(request, reply)).await?.map_err(silence_problem)?;
    Ok((StatusCode::CREATED, Json(silence)).into_response())
}

pub(super) async fn end_silence(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    let silence = ask(&admin, |reply| Command::EndSilence(id, reply)).await?.map_err(silence_problem)?;
    Ok(Json(json!({ "ended": silence })))
}

fn done(found: bool, what: &str) -> Answer {
    if found { Ok(Json(json!({ "done": true }))) } else { Err(Problem::new(StatusCode::NOT_FOUND, what)) }
}

pub(super) async fn acknowledge(State(admin): State<Arc<Admin>>, Path(key): Path<String>) -> Answer {
    done(ask(&admin, |reply| Command::Acknowledge(key, reply)).await?, "no open incident has this key")
}

pub(super) async fn resolve(State(admin): State<Arc<Admin>>, Path(key): Path<String>) -> Answer {
    done(ask(&admin, |reply| Command::Resolve(key, reply)).await?, "no open incident has this key")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestRequest {
    level: Level,
    #[serde(default)]
    pillar: Option<String>,
}

pub(super) async fn test_alert(State(admin): State<Arc<Admin>>, body: Bytes) -> Answer {
    let TestRequest { level, pillar } = parse(&body)?;
    let sinks = ask(&admin, |reply| Command::TestAlert { level, pillar, reply }).await?;
    Ok(Json(json!({ "sinks": sinks })))
}

pub(super) async fn replay_letter(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    done(ask(&admin, |reply| Command::ReplayLetter(id, reply)).await?, "no dead letter has this id, or its sink is configured no more")
}

pub(super) async fn replay_quarantined(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Answer {
    match ask(&admin, |reply| Command::ReplayQuarantined(id, reply)).await? {
        Some(replayed) => Ok(Json(json!(replayed))),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no quarantined record has this id")),
    }
}
