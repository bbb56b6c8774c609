//! The page's figures and tables: standing, glance, shards, sinks, silences, latency, rules.
//!
//! In: the board and the metrics. Out: HTML fragments. Invariant: a table that scrolls can be reached by keyboard, and none relies on
//! colour alone.

use super::{
    super::{api, status::BASE},
    Admin, count, span, time,
};
use crate::{
    alert::{
        escape::{html, limit},
        level_word,
    },
    store::StoreError,
};

/// A lag that fills its bar.
const LAG_BAR_MS: i64 = 60_000;
/// Beyond this a shard's lag is shown as trouble.
const LAG_BAD_MS: i64 = 30_000;

pub(super) fn standing(admin: &Admin, now_ms: i64) -> String {
    let readiness = admin.board.readiness();
    let alive = admin.board.is_alive(now_ms);
    let (class, text) = match (readiness.ready, alive) {
        (_, false) => ("bad", "standing still"),
        (true, true) => ("good", "watching"),
        (false, true) => ("bad", readiness.why()),
    };
    let set = admin.board.rule_set.load();
    let hash = if set.hash.is_empty() { "–".to_owned() } else { html(&limit(&set.hash, 13)) };
    format!(
        "<span class=\"pill {class}\">{text}</span><span>up {up}</span><span>rule set <code>{hash}</code></span>",
        text = html(text),
        up = span(now_ms - admin.board.started_ms)
    )
}

pub(super) fn glance(admin: &Admin) -> Result<String, StoreError> {
    let board = &admin.board;
    let set = board.rule_set.load();
    let rates = admin.rates();
    let mut out = String::new();
    if let Some(error) = &set.reload_error {
        let when = set.reload_error_ms.map(time).unwrap_or_default();
        out += &format!(
            "<div class=\"trouble\"><strong>The newest rules were not taken</strong> {when}; the set of {} runs on.<pre>{}</pre></div>",
            time(set.loaded_ms),
            escape_lines(error)
        );
    }
    out += &incidents_tile(admin)?;
    out += &tile("Events a second", &count(rates.last().copied().unwrap_or(0.0)), &sparkline(&rates), false);
    let lag = board.max_lag_ms();
    let shards = board.shards.load();
    let ours = shards.iter().filter(|s| s.ours).count();
    let bad = lag.is_some_and(|ms| ms >= LAG_BAD_MS);
    out += &tile("Lag", &lag.map_or("–".into(), span), &under(&format!("{ours} of {} shards read here", shards.len())), bad);
    let rules = board.rules.load();
    let fired = rules.iter().filter(|r| r.has_fired()).count();
    let never = under(&format!("{fired} fired, {} never", rules.len() - fired));
    out += &tile("Rules", &set.rules.to_string(), &never, set.reload_error.is_some());
    let sinks = board.sinks.load();
    let up = sinks.iter().filter(|s| s.up).count();
    let waiting: usize = sinks.iter().map(|s| s.pending).sum();
    out += &tile("Sinks up", &format!("{up} <small>of {}</small>", sinks.len()), &under(&format!("{waiting} notices wait")), up < sinks.len());
    let quarantined = admin.metrics.events.quarantined.get();
    let of = under(&format!("of {} events", count(admin.events() as f64)));
    out += &tile("Quarantined", &count(quarantined as f64), &of, quarantined > 0);
    Ok(out)
}

fn incidents_tile(admin: &Admin) -> Result<String, StoreError> {
    let open = api::open_incidents(admin)?;
    let open: Vec<_> = open.iter().filter(|row| row["resolved"] == false).collect();
    let mut badges = String::new();
    for level in ["critical", "high", "medium", "low", "informational"] {
        let n = open.iter().filter(|row| row["alert"]["rule"]["level"] == level).count();
        if n > 0 {
            badges += &format!("<span class=\"badge {level}\">{n} {level}</span>");
        }
    }
    let below = if badges.is_empty() { String::new() } else { format!("<div class=\"levels\">{badges}</div>") };
    Ok(tile("Open incidents", &open.len().to_string(), &below, false))
}

/// `value` and `below` are HTML.
fn tile(name: &str, value: &str, below: &str, bad: bool) -> String {
    let class = if bad { "tile bad" } else { "tile" };
    format!("<div class=\"{class}\"><dl><dt>{name}</dt><dd>{value}</dd></dl>{below}</div>")
}

/// A line below a tile's figure.
fn under(text: &str) -> String {
    format!("<p class=\"under\">{text}</p>")
}

/// Keeps the lines of an error message, each made harmless.
fn escape_lines(text: &str) -> String {
    text.lines().map(html).collect::<Vec<_>>().join("\n")
}

fn sparkline(rates: &[f64]) -> String {
    if rates.len() < 2 {
        return String::new();
    }
    let most = rates.iter().copied().fold(1.0, f64::max);
    let step = 200.0 / (rates.len() - 1) as f64;
    let points: Vec<String> = rates.iter().enumerate().map(|(i, rate)| format!("{:.1},{:.1}", i as f64 * step, 25.0 - rate / most * 23.0)).collect();
    let points = points.join(" ");
    format!(
        "<svg viewBox=\"0 0 200 26\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Events a second over the last minutes, at most {}\">\
         <polygon points=\"0,26 {points} 200,26\" fill=\"var(--accent)\" opacity=\".16\"/>\
         <polyline points=\"{points}\" fill=\"none\" stroke=\"var(--accent)\" stroke-width=\"1.6\" vector-effect=\"non-scaling-stroke\"/></svg>",
        count(most)
    )
}

pub(super) fn shards(admin: &Admin) -> String {
    let shards = admin.board.shards.load();
    let mine = &**admin.board.worker.load();
    let row = |s: &super::super::status::ShardView| {
        let owner = if s.ours {
            // One process without a table of leases is called so already.
            let mark = if mine.starts_with("this ") { "" } else { "<small>this worker</small>" };
            format!("{}{mark}", html(mine))
        } else if s.owner.is_empty() {
            "nobody".to_owned()
        } else {
            html(&s.owner)
        };
        let lag = s.lag_ms.map_or("–".to_owned(), |ms| format!("{}{}", span(ms), meter(ms, LAG_BAR_MS, ms >= LAG_BAD_MS)));
        let checkpoint = s.checkpoint_age_ms.map_or("–".to_owned(), span);
        let (stream, name) = s.shard.rsplit_once('/').unwrap_or(("", &s.shard));
        // Kinesis numbers its shards with a dozen zeros before.
        let short = name.strip_prefix("shardId-").map_or(name, |digits| digits.trim_start_matches('0'));
        let short = if short.is_empty() { "0" } else { short };
        let cell = format!("<b>{}</b> {}<small>{}</small>", html(short), html(stream), html(&s.state));
        let cell = format!("<span class=\"whole\" title=\"{}\">{cell}</span>", html(&s.shard));
        vec![cell, owner, lag, checkpoint, count(s.records as f64)]
    };
    let rows: Vec<_> = shards.iter().map(row).collect();
    table("shards", &["Shard", "Owner", "Lag", "Checkpoint", "Records#"], &rows, "No shard is known yet.")
}

pub(super) fn sinks(admin: &Admin, now_ms: i64) -> String {
    let sinks = admin.board.sinks.load();
    let row = |s: &crate::alert::view::SinkView| {
        let (dot, word) = if s.up { ("dot", "up") } else { ("dot bad", "down") };
        let error = s.last_error.as_deref().map(|e| format!("<small>{}</small>", html(&limit(e, 160)))).unwrap_or_default();
        let paused =
            if s.paused_until_ms > now_ms { format!("<small>next try in {}</small>", span(s.paused_until_ms - now_ms)) } else { String::new() };
        let waiting = if s.pending > 0 { format!("{}<small>oldest {}</small>", s.pending, span(s.oldest_ms)) } else { "0".into() };
        let dead = if s.dead_letters > 0 { format!("<small>{} dead letters</small>", s.dead_letters) } else { String::new() };
        vec![
            format!(
                "<i class=\"{dot}\" aria-hidden=\"true\"></i>{} <span class=\"chip\">{word}</span><small>{}</small>{error}{paused}",
                html(&s.name),
                s.kind
            ),
            waiting,
            format!("{}{dead}", s.delivered),
            s.retried.to_string(),
            if s.delivered + s.retried > 0 { format!("{:.0} ms", s.request_p99_ms) } else { "–".into() },
        ]
    };
    let rows: Vec<_> = sinks.iter().map(row).collect();
    let delivers = admin.board.delivers.load();
    let none = if delivers.is_empty() || **delivers == **admin.board.worker.load() {
        "No sink is configured; alerts are shown here only.".to_owned()
    } else {
        format!("Worker {} delivers; its own page shows the sinks.", html(&delivers))
    };
    table("sinks", &["Sink", "Waiting#", "Taken#", "Retries#", "p99#"], &rows, &none)
}

pub(super) fn silences(admin: &Admin, now_ms: i64) -> Result<String, StoreError> {
    let silences = api::silences_at(admin, now_ms)?;
    let lines = silences.iter().map(|s| {
        let covers = serde_json::to_string(&s.matching).unwrap_or_default();
        format!(
            "<div class=\"silence\"><div>{reason}<small class=\"mono\">{covers}</small><small>ends in {ends}{by}</small></div>\
             <div class=\"js\"><button type=\"button\" data-method=\"DELETE\" data-path=\"/api/silences/{id}\" data-said=\"Silence ended.\">End</button></div></div>",
            reason = html(&s.reason),
            covers = html(&covers),
            ends = span(s.ends_ms - now_ms),
            by = if s.by.is_empty() { String::new() } else { format!(", set by {}", html(&s.by)) },
            id = html(&s.id),
        )
    });
    let lines: String = lines.collect();
    Ok(if lines.is_empty() { "<p class=\"empty\">None. Open an alert to silence its like.</p>".into() } else { lines })
}

pub(super) fn latency(admin: &Admin) -> String {
    let stages = api::latency(admin);
    let ms = |value: f64| if value < 10.0 { format!("{value:.2} ms") } else { span(value as i64) };
    let rows: Vec<_> = stages
        .iter()
        .map(|s| vec![s.stage.to_owned(), ms(s.took.p50_ms), ms(s.took.p99_ms), ms(s.took.max_ms), count(s.took.count as f64)])
        .collect();
    let mut out = table("latency", &["Stage", "p50#", "p99#", "most#", "batches#"], &rows, "Nothing has been measured yet.");
    let queues = admin.board.queues.load();
    let rows: Vec<_> = queues
        .iter()
        .map(|q| {
            let (bytes, capacity) = (q.bytes as i64, q.capacity_bytes.max(1) as i64);
            vec![
                html(&q.name),
                q.items.to_string(),
                format!("{} of {}{}", size(q.bytes), size(q.capacity_bytes), meter(bytes, capacity, bytes * 10 > capacity * 9)),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out += &table("queues", &["Queue", "Items#", "Filled"], &rows, "");
    }
    out
}

pub(super) fn rules(admin: &Admin) -> String {
    let rules = admin.board.rules.load();
    if rules.is_empty() {
        return "<p class=\"empty\">No rules are loaded.</p>".into();
    }
    let row = |r: &super::super::status::RuleView| {
        let level = level_word(r.level);
        let fired = r.last_fired_ms.map_or_else(|| if r.kind == BASE { "feeds others" } else { "never" }.to_owned(), time);
        format!(
            "<tr data-fired=\"{has_fired}\" data-tags=\"{tags}\"><td data-n=\"{rank}\"><span class=\"badge {level}\">{level}</span></td>\
             <td>{title}<small class=\"mono\">{id}</small></td><td>{kind}</td><td class=\"n\" data-n=\"{matches}\">{matches}</td>\
             <td class=\"n\" data-n=\"{findings}\">{findings}</td><td data-n=\"{last}\">{fired}</td><td class=\"n\" data-n=\"{cost}\">{cost:.1} ms</td></tr>",
            has_fired = u8::from(r.has_fired()),
            rank = r.level as u8,
            title = html(&r.title),
            id = html(&r.id),
            kind = html(&r.kind),
            tags = html(&r.tags.join(" ")),
            matches = r.matches,
            findings = r.findings,
            last = r.last_fired_ms.unwrap_or(0),
            cost = r.cost_ms,
        )
    };
    let rows: String = rules.iter().map(row).collect();
    let head = [("Level", ""), ("Rule", ""), ("Kind", ""), ("Matches", "n"), ("Findings", "n"), ("Last fired", ""), ("Cost", "n")];
    let head: String =
        head.iter().map(|(name, class)| format!("<th scope=\"col\" class=\"{class}\"><button type=\"button\">{name}</button></th>")).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"All rules\" tabindex=\"0\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// A `#` behind a column's name: numbers. Cells are HTML.
fn table(label: &str, columns: &[&str], rows: &[Vec<String>], empty: &str) -> String {
    if rows.is_empty() {
        return format!("<p class=\"empty\">{empty}</p>");
    }
    let class = |column: usize| if columns[column].ends_with('#') { " class=\"n\"" } else { "" };
    let head: String =
        columns.iter().enumerate().map(|(i, name)| format!("<th scope=\"col\"{}>{}</th>", class(i), name.trim_end_matches('#'))).collect();
    let body: String = rows
        .iter()
        .map(|cells| format!("<tr>{}</tr>", cells.iter().enumerate().map(|(i, cell)| format!("<td{}>{cell}</td>", class(i))).collect::<String>()))
        .collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"Table of {label}\" tabindex=\"0\"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
}

fn meter(value: i64, most: i64, bad: bool) -> String {
    let class = if bad { "meter bad" } else { "meter" };
    // A style attribute would need a looser content policy; a drawing needs none.
    let width = (value.max(0) * 100 / most.max(1)).clamp(1, 100);
    format!(
        "<div class=\"{class}\" aria-hidden=\"true\"><svg viewBox=\"0 0 100 5\" preserveAspectRatio=\"none\" width=\"100%\" height=\"5\"><rect width=\"{width}\" height=\"5\" fill=\"currentColor\"/></svg></div>"
    )
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
