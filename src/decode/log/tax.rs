//! The field taxonomy of database logs: one list, the same for every engine.
//!
//! In: nothing. Out: `Tax`, its path as rules name it, and its documentation (`docs/fields.md` is this list). Invariant: a
//! path means the same thing in every engine, so that one login-failure rule serves all of them.

/// Declares the enum, the paths and the documentation in one place, so that they can't drift apart.
macro_rules! taxonomy {
    ($($variant:ident $path:literal $doc:literal)*) => {
        /// A field of a database log event. `as_str` is its name in rules.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Tax {
            $(#[doc = $doc] $variant,)*
        }

        impl Tax {
            /// Every field, in the order of the documentation.
            pub const ALL: &'static [Tax] = &[$(Tax::$variant,)*];

            /// The path that rules use.
            pub const fn as_str(self) -> &'static str {
                match self { $(Tax::$variant => $path,)* }
            }

            /// What it holds, in one sentence.
            pub const fn doc(self) -> &'static str {
                match self { $(Tax::$variant => $doc,)* }
            }
        }
    };
}

taxonomy! {
    Engine "db.engine" "Engine as the log shows it: `postgresql`, `mysql`, `aurora-mysql`, `mariadb`, `mssql`, `oracle`, `redshift`, `docdb`, `neptune`, `redis`."
    Instance "db.instance" "DB instance that wrote the line, from the log group or, in a cluster, the log stream."
    Cluster "db.cluster" "Cluster, replication group or serverless namespace, from the log group."
    Event "db.event" "What happened, one word of the list below."
    Outcome "db.outcome" "`success` or `failure`, where the log says so."
    Reason "db.reason" "Why a login or command was refused, one word of the list below."
    User "db.user" "Database user, as the server names it; absent before the client has given a name."
    Name "db.name" "Database or schema of the session."
    ClientAddress "db.client.address" "Address or resolved name of the client; `local` for a Unix socket."
    ClientPort "db.client.port" "TCP port of the client."
    Application "db.application" "Application or driver name that the client gave: chosen by the client, so never proof."
    AuthMethod "db.auth.method" "How the client proved who it is: `scram-sha-256`, `pam`, `iam`, `password`, …"
    AuthIdentity "db.auth.identity" "Identity that was proven, where it differs from the user: a Kerberos principal, an IAM role's ARN."
    Tls "db.tls" "`true` or `false`: whether the connection is encrypted."
    TlsVersion "db.tls.version" "Protocol version, such as `TLSv1.3`."
    TlsCipher "db.tls.cipher" "Cipher suite."
    Statement "db.statement" "Statement or query text, clear-text passwords redacted. May be cut by the server."
    StatementClass "db.statement.class" "`READ`, `WRITE`, `DDL`, `ROLE`, `FUNCTION`, `MISC` or `MISC_SET`: pgaudit's classes, for every engine."
    Command "db.command" "Command in capitals, such as `SELECT`, `CREATE ROLE`, `COPY FROM PROGRAM`, `FLUSHALL`."
    ObjectType "db.object.type" "`TABLE`, `ROLE`, `FUNCTION`, …"
    ObjectName "db.object.name" "Object that the command names, qualified where the log qualifies it."
    Parameters "db.parameters" "Bound values or arguments of the statement."
    Rows "db.rows" "Rows returned or affected."
    Duration "db.duration.ms" "Time that the statement or session took, in milliseconds."
    ErrorCode "db.error.code" "SQLSTATE or the engine's error number."
    ErrorState "db.error.state" "SQL Server's error state, which tells apart the reasons of error 18456."
    ErrorMessage "db.error.message" "Error text of the server."
    Detail "db.detail" "Further detail that the server logged with the message."
    Hint "db.hint" "Hint that the server logged with the message."
    Context "db.context" "Function or query inside which it happened."
    Severity "db.severity" "Severity word of the log line: `LOG`, `ERROR`, `FATAL`, `Warning`, …"
    Message "db.message" "Text of the message without its prefix, passwords redacted."
    Parameter "db.parameter.name" "Server parameter that changed."
    ParameterValue "db.parameter.value" "Its new value."
    SessionPid "db.session.pid" "Process, thread or connection id of the session."
    SessionId "db.session.id" "Session id that survives a reused process id."
    QueryId "db.query.id" "Number of the statement within the session or server."
    Namespace "db.namespace" "DocumentDB: `database.collection`."
    Role "db.role" "Redis: `M` primary, `S` replica, `C` child process, `X` sentinel."
    Forged "log.forged" "`true` when the line carries text that imitates a log line. The other fields are what the server itself wrote."
    FlowVersion "version" "VPC flow log: format version."
    FlowAccount "account-id" "VPC flow log: owner of the interface."
    FlowInterface "interface-id" "VPC flow log: network interface."
    FlowSource "srcaddr" "VPC flow log: source address."
    FlowDestination "dstaddr" "VPC flow log: destination address."
    FlowSourcePort "srcport" "VPC flow log: source port."
    FlowDestinationPort "dstport" "VPC flow log: destination port."
    FlowProtocol "protocol" "VPC flow log: IANA protocol number."
    FlowPackets "packets" "VPC flow log: packets in the window."
    FlowBytes "bytes" "VPC flow log: bytes in the window."
    FlowStart "start" "VPC flow log: window's start, Unix seconds."
    FlowEnd "end" "VPC flow log: window's end, Unix seconds."
    FlowAction "action" "VPC flow log: `ACCEPT` or `REJECT`."
    FlowStatus "log-status" "VPC flow log: `OK`, `NODATA` or `SKIPDATA`."
    FlowVpc "vpc-id" "VPC flow log: VPC."
    FlowSubnet "subnet-id" "VPC flow log: subnet."
    FlowInstance "instance-id" "VPC flow log: EC2 instance."
    FlowTcpFlags "tcp-flags" "VPC flow log: TCP flags, or-ed."
    FlowType "type" "VPC flow log: `IPv4`, `IPv6` or `EFA`."
    FlowPacketSource "pkt-srcaddr" "VPC flow log: source address in the packet."
    FlowPacketDestination "pkt-dstaddr" "VPC flow log: destination address in the packet."
    FlowRegion "region" "VPC flow log: Region."
    FlowZone "az-id" "VPC flow log: Availability Zone id."
    FlowSourceService "pkt-src-aws-service" "VPC flow log: AWS service of the source address."
    FlowDestinationService "pkt-dst-aws-service" "VPC flow log: AWS service of the destination address."
    FlowDirection "flow-direction" "VPC flow log: `ingress` or `egress`."
    FlowPath "traffic-path" "VPC flow log: number of the way that egress traffic takes."
    FlowRejectReason "reject-reason" "VPC flow log: why it was rejected, such as `BPA`."
}

impl Tax {
    /// Whether it belongs to VPC flow logs.
    pub fn is_flow(self) -> bool {
        self >= Tax::FlowVersion
    }

    /// The field with this path, if there is one.
    pub fn from_path(path: &str) -> Option<Tax> {
        Tax::ALL.iter().copied().find(|tax| tax.as_str() == path)
    }
}

/// The words of `db.event`, with what they mean.
pub const EVENTS: &[(&str, &str)] = &[
    ("connection", "a client has opened a connection; nothing is proven yet"),
    ("authenticated", "the client has proven an identity; the session isn't open yet"),
    ("login_succeeded", "a session is open"),
    ("login_failed", "a session was refused; `db.reason` says why"),
    ("logout", "the session has ended"),
    ("query", "a statement that reads, writes or does anything else not listed here"),
    ("ddl", "a statement that creates, alters or drops an object"),
    ("grant", "a privilege or role membership was given or taken"),
    ("account_change", "a user, role or password was created, changed or dropped"),
    ("config_change", "a server parameter, plugin or replication setting was changed"),
    ("audit_change", "auditing or logging itself was switched or filtered"),
    ("table", "a table that a statement touched, logged besides the statement"),
    ("error", "a statement or the server failed"),
    ("killed", "a session was ended by someone else"),
    ("startup", "the server is up"),
    ("shutdown", "the server goes down"),
    ("crash", "the server or one of its processes died"),
    ("garbage", "bytes that aren't the engine's protocol: a scanner, or the wrong client"),
    ("duration", "time of a statement that was logged before"),
    ("flow", "VPC flow record"),
    ("log_forgery", "a line whose true meaning can't be told, because a client wrote part of it"),
    ("detail", "a detail whose message wasn't seen"),
    ("other", "anything else that the server logs"),
];

/// The words of `db.reason`, with what they mean.
pub const REASONS: &[(&str, &str)] = &[
    ("bad_credentials", "wrong password or token"),
    ("unknown_user", "no such user"),
    ("no_password", "the user has no password, or gave none"),
    ("expired", "password or account has expired"),
    ("locked", "the account is locked or disabled"),
    ("not_permitted", "the user may not log in, or not to this database"),
    ("host_rejected", "the server's host rules refuse the client"),
    ("unknown_database", "no such database"),
    ("too_many_connections", "a connection limit was reached"),
    ("starting_up", "the server isn't ready"),
    ("tls", "encryption is missing or its handshake failed"),
    ("timeout", "the client didn't finish in time"),
    ("aborted", "the client went away before it had logged in"),
    ("permission_denied", "the command was refused for lack of privilege"),
    ("other", "anything else"),
];

/// The documentation page's tables, in Markdown.
pub fn markdown() -> String {
    use std::fmt::Write as _;
    let mut page = String::from("| Field | Holds |\n|---|---|\n");
    for tax in Tax::ALL {
        let _ = writeln!(page, "| `{}` | {} |", tax.as_str(), tax.doc());
    }
    for (title, words) in [("db.event", EVENTS), ("db.reason", REASONS)] {
        let _ = write!(page, "\n| `{title}` | means |\n|---|---|\n");
        for (word, meaning) in words {
            let _ = writeln!(page, "| `{word}` | {meaning} |");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_unique() {
        let mut paths: Vec<_> = Tax::ALL.iter().map(|tax| tax.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), Tax::ALL.len());
    }

    /// `UPDATE_DOCS=1` rewrites the page.
    #[test]
    fn the_page_is_this_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fields.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("<!-- fields -->\n", "<!-- /fields -->");
        let from = page.find(begin).expect("the page has a begin mark") + begin.len();
        let to = page.find(end).expect("the page has an end mark");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, format!("{}{}{}", &page[..from], markdown(), &page[to..])).unwrap();
            return;
        }
        assert_eq!(&page[from..to], markdown(), "run the test with UPDATE_DOCS=1");
    }
}
