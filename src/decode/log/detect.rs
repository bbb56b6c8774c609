//! Which log it is: told by the log group, confirmed by the first bytes.
//!
//! In: log group, log stream, the beginning of the text. Out: `Route`: the kind of log, its instance and cluster. Invariant:
//! a group's name alone never decides against what the bytes show.

use super::{fields::LogFields, scan, tax::Tax};

/// The log formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Postgres,
    MysqlAudit,
    MysqlError,
    MysqlGeneral,
    MysqlSlow,
    SqlServer,
    OracleAudit,
    OracleAlert,
    RedshiftConnection,
    RedshiftUser,
    RedshiftActivity,
    DocdbAudit,
    DocdbProfiler,
    NeptuneAudit,
    RedisSlow,
    RedisEngine,
    /// RDS' `iam-db-auth-error`.
    IamRefusals,
    /// A database's log without a parser of its own.
    Plain,
    FlowLog,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[
        Kind::Postgres,
        Kind::MysqlAudit,
        Kind::MysqlError,
        Kind::MysqlGeneral,
        Kind::MysqlSlow,
        Kind::SqlServer,
        Kind::OracleAudit,
        Kind::OracleAlert,
        Kind::RedshiftConnection,
        Kind::RedshiftUser,
        Kind::RedshiftActivity,
        Kind::DocdbAudit,
        Kind::DocdbProfiler,
        Kind::NeptuneAudit,
        Kind::RedisSlow,
        Kind::RedisEngine,
        Kind::IamRefusals,
        Kind::Plain,
        Kind::FlowLog,
    ];

    /// Sigma's product; MySQL's family may say another one per event.
    pub const fn product(self) -> &'static str {
        match self {
            Kind::Postgres => "postgresql",
            Kind::MysqlAudit | Kind::MysqlError | Kind::MysqlGeneral | Kind::MysqlSlow => "mysql",
            Kind::SqlServer => "mssql",
            Kind::OracleAudit | Kind::OracleAlert => "oracle",
            Kind::RedshiftConnection | Kind::RedshiftUser | Kind::RedshiftActivity => "redshift",
            Kind::DocdbAudit | Kind::DocdbProfiler => "docdb",
            Kind::NeptuneAudit => "neptune",
            Kind::RedisSlow | Kind::RedisEngine => "redis",
            Kind::IamRefusals | Kind::Plain => "rds",
            Kind::FlowLog => "aws",
        }
    }

    /// Sigma's service: the type of log.
    pub const fn service(self) -> &'static str {
        match self {
            Kind::Postgres => "postgresql",
            Kind::MysqlAudit | Kind::OracleAudit | Kind::DocdbAudit | Kind::NeptuneAudit => "audit",
            Kind::MysqlError | Kind::SqlServer => "error",
            Kind::OracleAlert => "alert",
            Kind::MysqlGeneral => "general",
            Kind::MysqlSlow => "slowquery",
            Kind::RedshiftConnection => "connectionlog",
            Kind::RedshiftUser => "userlog",
            Kind::RedshiftActivity => "useractivitylog",
            Kind::DocdbProfiler => "profiler",
            Kind::RedisSlow => "slow-log",
            Kind::RedisEngine => "engine-log",
            Kind::IamRefusals => "iam-db-auth-error",
            Kind::Plain => "other",
            Kind::FlowLog => "vpcflow",
        }
    }

    /// Sigma's category.
    pub const fn category(self) -> &'static str {
        if matches!(self, Kind::FlowLog) { "network" } else { "database" }
    }

    /// Whether the beginning of a text can be this kind's.
    fn fits(self, text: &[u8]) -> bool {
        let is_json = text.first() == Some(&b'{');
        let has = |words: &[u8]| memchr::memmem::find(&text[..text.len().min(4096)], words).is_some();
        match self {
            Kind::DocdbAudit => is_json && has(b"\"atype\""),
            Kind::DocdbProfiler => is_json && has(b"\"op\""),
            Kind::RedisSlow => {
                if is_json {
                    has(b"ClusterId\"") && has(b"\"Command\"")
                } else {
                    looks_like_slow_text(text)
                }
            }
            Kind::RedisEngine => {
                if is_json {
                    has(b"ClusterId\"") && has(b"\"LogLevel\"")
                } else {
                    looks_like_engine_text(text)
                }
            }
            _ => !is_json,
        }
    }
}

/// A log: its kind and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub kind: Kind,
    pub instance: String,
    pub cluster: String,
}

impl Route {
    /// A log whose owner isn't known: a file.
    pub fn of(kind: Kind) -> Self {
        Self { kind, instance: String::new(), cluster: String::new() }
    }

    /// Sets the fields that hold for every event of the log.
    pub(super) fn put(&self, fields: &mut LogFields) {
        fields.put(Tax::Instance, self.instance.as_bytes());
        fields.put(Tax::Cluster, self.cluster.as_bytes());
    }
}

/// Which log a CloudWatch Logs message belongs to; `None` if it is no log that is known here.
pub fn detect(log_group: &str, log_stream: &str, first_bytes: &[u8]) -> Option<Route> {
    let by_name = by_group(log_group, log_stream, first_bytes);
    if let Some(route) = by_name.filter(|route| route.kind.fits(first_bytes)) {
        return Some(route);
    }
    // ElastiCache, MemoryDB, flow logs and copies go to groups that the user names.
    let kind = by_content(first_bytes)?;
    let instance = match kind {
        Kind::RedisSlow | Kind::RedisEngine => log_stream.split('/').nth(2).unwrap_or_default(),
        _ => "",
    };
    Some(Route { instance: instance.into(), ..Route::of(kind) })
}

/// The AWS services' own names: `/aws/rds/instance/<id>/<type>` and the like.
fn by_group(log_group: &str, log_stream: &str, first_bytes: &[u8]) -> Option<Route> {
    let mut parts = log_group.strip_prefix("/aws/")?.split('/');
    let service = parts.next()?;
    let scope = if matches!(service, "rds" | "redshift") { parts.next()? } else { "cluster" };
    let id = parts.next()?;
    let kind = match (service, parts.next()?) {
        ("rds", "postgresql" | "upgrade") => Kind::Postgres,
        // Oracle's audit files share the name of MySQL's.
        ("rds", "audit") if looks_like_oracle_audit(first_bytes) => Kind::OracleAudit,
        ("rds", "audit") => Kind::MysqlAudit,
        ("rds", "general") => Kind::MysqlGeneral,
        ("rds", "slowquery") => Kind::MysqlSlow,
        ("rds", "iam-db-auth-error") => Kind::IamRefusals,
        ("rds", "alert") => Kind::OracleAlert,
        ("rds", "instance" | "listener" | "trace" | "oemagent" | "diag.log" | "notify.log") => Kind::Plain,
        // SQL Server and MySQL share a name; only the bytes tell them apart.
        ("rds", "error") if looks_like_sqlserver(first_bytes) => Kind::SqlServer,
        ("rds", "error") => Kind::MysqlError,
        ("rds", "agent") => Kind::SqlServer,
        ("redshift", "connectionlog") => Kind::RedshiftConnection,
        ("redshift", "userlog") => Kind::RedshiftUser,
        ("redshift", "useractivitylog") => Kind::RedshiftActivity,
        ("docdb", "audit") => Kind::DocdbAudit,
        ("docdb", "profiler") => Kind::DocdbProfiler,
        ("neptune", "audit") => Kind::NeptuneAudit,
        _ => return None,
    };
    // In a cluster's group, the stream is named after the instance, sometimes with a number behind a dot.
    let stream = log_stream.split('.').next().unwrap_or_default();
    Some(match scope {
        "cluster" => Route { kind, instance: if service == "redshift" { "" } else { stream }.into(), cluster: id.into() },
        _ => Route { kind, instance: id.into(), cluster: String::new() },
    })
}

/// Tells a log by its first line alone: for files, and groups with names of their own.
pub fn by_content(text: &[u8]) -> Option<Kind> {
    let line = scan::line(text, 0).0;
    if line.first() == Some(&b'{') {
        return [Kind::DocdbAudit, Kind::RedisSlow, Kind::RedisEngine].into_iter().find(|kind| kind.fits(line));
    }
    let has = |words: &[u8]| memchr::memmem::find(&line[..line.len().min(1024)], words).is_some();
    if line.starts_with(b"'") && has(b" [ db=") {
        Some(Kind::RedshiftActivity)
    } else if line.starts_with(b"# Time: ") || line.starts_with(b"# User@Host: ") {
        Some(Kind::MysqlSlow)
    } else if looks_like_flow(line) {
        Some(Kind::FlowLog)
    } else if has(b"<AuditRecord>")
        || line.starts_with(b"<Audit xmlns=")
        || line.starts_with(b"Audit file ")
        || text[..text.len().min(64)].split(|byte| *byte == b'\n').take(2).any(|line| line.starts_with(b"LENGTH"))
    {
        Some(Kind::OracleAudit)
    } else if looks_like_engine_text(line) {
        Some(Kind::RedisEngine)
    } else if [&b"initiating session"[..], b"authenticated", b"authentication failure", b"disconnecting session"]
        .iter()
        .any(|word| line.starts_with(word))
        && has(b"|")
    {
        Some(Kind::RedshiftConnection)
    } else {
        by_time(line)
    }
}

/// Tells a log by how its first line writes the time.
fn by_time(line: &[u8]) -> Option<Kind> {
    if let Some(stamp) = scan::compact_date_time(line) {
        return match line.get(stamp.len) {
            Some(b',') => Some(Kind::MysqlAudit),
            Some(b'\t') => Some(Kind::MysqlGeneral),
            Some(b' ') => Some(Kind::MysqlError),
            _ => None,
        };
    }
    if scan::digits(&line[..line.len().min(20)]) == 16 && line.get(16) == Some(&b',') {
        let websocket = memchr::memchr_iter(b',', line).nth(2).is_some_and(|at| {
            let rest = line[at + 1..].trim_ascii_start();
            [&b"Websocket"[..], b"HTTP_", b"Bolt"].iter().any(|way| rest.starts_with(way))
        });
        return Some(if websocket { Kind::NeptuneAudit } else { Kind::MysqlAudit });
    }
    if looks_like_sqlserver(line) {
        return Some(Kind::SqlServer);
    }
    let stamp = scan::date_time(line)?;
    let rest = &line[stamp.len..];
    let rest = rest.strip_prefix(b"Z").unwrap_or(rest);
    if rest.first() == Some(&b'\t') {
        return Some(Kind::MysqlGeneral);
    }
    let word = scan::word(rest.strip_prefix(b" ")?);
    if word.iter().all(u8::is_ascii_digit) && memchr::memchr(b'[', rest).is_some() && !word.is_empty() && !word.contains(&b':') {
        return Some(Kind::MysqlError);
    }
    super::postgres::begins(line).then_some(Kind::Postgres)
}

/// `2024-01-02 03:04:05.67 Logon       Error: …`: two digits of a second, then a source.
fn looks_like_sqlserver(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let Some(stamp) = scan::date_time(text) else { return false };
    let source = scan::word(text[stamp.len..].strip_prefix(b" ").unwrap_or_default());
    stamp.len == 22 && (source.starts_with(b"spid") || matches!(source, b"Logon" | b"Server" | b"Backup" | b"Error"))
}

/// `Audit file /rdsdbdata/…`, `Tue Nov 24 10:00:00 2026 +00:00`, `LENGTH : '160'`, or XML.
fn looks_like_oracle_audit(text: &[u8]) -> bool {
    let starts = [&b"Audit file "[..], b"LENGTH", b"ACTION", b"<?xml", b"<Audit", b"Mon ", b"Tue ", b"Wed ", b"Thu ", b"Fri ", b"Sat ", b"Sun "];
    starts.iter().any(|start| text.starts_with(start))
}

/// `18780:M 24 Nov 2026 …`.
fn looks_like_engine_text(line: &[u8]) -> bool {
    let digits = scan::digits(line);
    digits > 0 && matches!(line.get(digits..digits + 3), Some([b':', b'M' | b'S' | b'C' | b'X', b' ']))
}

/// `cluster,0001,timestamp,…`.
fn looks_like_slow_text(line: &[u8]) -> bool {
    let mut columns = line.split(|byte| *byte == b',');
    columns.nth(1).is_some_and(|node| node.len() == 4 && scan::number(node).is_some())
        && columns.next().is_some_and(|number| scan::number(number).is_some())
}

fn looks_like_flow(line: &[u8]) -> bool {
    if line.starts_with(b"version account-id ")
        || memchr::memmem::find(line, b"srcaddr").is_some() && memchr::memmem::find(line, b"dstaddr").is_some()
    {
        return true;
    }
    let mut words = line.split(|byte| *byte == b' ');
    words.next() == Some(b"2")
        && words.next().is_some_and(|account| account.len() == 12 || account == b"unknown")
        && words.next().is_some_and(|interface| interface.starts_with(b"eni-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_contents() {
        let pg = "2026-11-24 02:52:55 UTC:10.0.0.7(1):a@b:[1]:LOG:  hi";
        for (group, stream, text, kind, instance, cluster) in [
            ("/aws/rds/instance/shop-db/postgresql", "shop-db.0", pg, Kind::Postgres, "shop-db", ""),
            ("/aws/rds/cluster/shop/postgresql", "shop-1.2", pg, Kind::Postgres, "shop-1", "shop"),
            ("/aws/rds/cluster/shop/audit", "shop-1.audit.log.0", "1795488871123456,h,u,h,1,0,CONNECT,,,0", Kind::MysqlAudit, "shop-1", "shop"),
            ("/aws/rds/instance/a/error", "a", "2024-01-02 03:04:05.67 Logon       Error: 18456, Severity: 14, State: 8.", Kind::SqlServer, "a", ""),
            ("/aws/rds/instance/a/error", "a", "2022-10-14T09:16:02.430542Z 63707 [Note] [MY-010926] x", Kind::MysqlError, "a", ""),
            ("/aws/docdb/docs/audit", "docs-1", "{\"atype\":\"authenticate\"}", Kind::DocdbAudit, "docs-1", "docs"),
            (
                "/aws/neptune/graph/audit",
                "graph-1",
                "1795488871123456, 10.0.0.7:1, x, Websocket, , , , g.V()",
                Kind::NeptuneAudit,
                "graph-1",
                "graph",
            ),
            ("/aws/redshift/cluster/dw/connectionlog", "dw", "authenticated |Mon, 19 Aug 2013 17:59:53:353|", Kind::RedshiftConnection, "", "dw"),
            (
                "my-cache-logs",
                "elasticache/redis/cache-001/0001/slow-log",
                "{\"CacheClusterId\":\"c\",\"Command\":\"GET\"}",
                Kind::RedisSlow,
                "cache-001",
                "",
            ),
            ("my-flows", "eni-1-all", "2 123456789012 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 1 1 ACCEPT OK", Kind::FlowLog, "", ""),
            ("copied", "x", pg, Kind::Postgres, "", ""),
        ] {
            let route = detect(group, stream, text.as_bytes()).unwrap_or_else(|| panic!("{group} {text}"));
            assert_eq!((route.kind, route.instance.as_str(), route.cluster.as_str()), (kind, instance, cluster), "{group} {text}");
        }
        for (group, text) in
            [("/aws/lambda/x", "START RequestId: 1"), ("/aws/docdb/docs/audit", "plain text"), ("x", ""), ("CloudTrail", "{\"eventVersion\":1}")]
        {
            assert_eq!(detect(group, "", text.as_bytes()), None, "{group} {text}");
        }
    }

    #[test]
    fn contents_of_files() {
        for (text, kind) in [
            ("20261124 02:54:31,vm,a,h,1,0,CONNECT,,,0", Kind::MysqlAudit),
            ("261124  2:55:05\t     3 Connect\tx", Kind::MysqlGeneral),
            ("2018-12-27T11:14:54.687513Z\t   48 Connect\tx", Kind::MysqlGeneral),
            ("2026-11-24  2:54:31 8 [Warning] x", Kind::MysqlError),
            ("2026-11-24 02:52:12.345 UTC::@:[1]:2:", Kind::Postgres),
            ("2026-11-24T02:52:12.345Z 2026-11-24 02:52:12 UTC:10.0.0.7(1):a@b:[1]:LOG:  x", Kind::Postgres),
            ("# User@Host: x", Kind::MysqlSlow),
            ("18780:M 24 Nov 2026 02:54:03.880 # x", Kind::RedisEngine),
            ("'2020-01-24T10:00:00Z UTC [ db=dev user=u pid=1 userid=1 xid=2 ]' LOG: select 1", Kind::RedshiftActivity),
        ] {
            assert_eq!(by_content(text.as_bytes()), Some(kind), "{text}");
        }
        for text in ["2026-11-24 02:52:12 INFO starting: x", "hello", "[1,2]", "1,2,3", ""] {
            assert_eq!(by_content(text.as_bytes()), None, "{text}");
        }
    }
}
