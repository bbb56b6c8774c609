//! How fast one core reads database logs: `cargo bench --bench logs`.
//!
//! In: logs made here line by line as the servers write them, some 32 MB each. Out: MB and events a second for every format,
//! every field set and read once. Invariant: the best of a few rounds counts; the clock is the thread's CPU time.

use cpu_time::ThreadTime;
use trailwarden::decode::log::{Batch, Kind, LogDecoder, Route};

const BYTES: usize = 32 << 20;
const ROUNDS: usize = 5;
/// Text of one batch: a large CloudWatch Logs record once it is inflated.
const BATCH_BYTES: usize = 1 << 20;

/// Name, kind, and what writes its lines.
type Log = (&'static str, Kind, fn(usize) -> String);

fn main() {
    println!("{:<28}{:>10}{:>14}{:>12}", "log", "MB/s", "events/s", "B/event");
    let logs: &[Log] = &[
        ("PostgreSQL, mixed", Kind::Postgres, postgres),
        ("PostgreSQL, second prefix", Kind::Postgres, postgres_long),
        ("PostgreSQL, pgaudit", Kind::Postgres, pgaudit),
        ("MariaDB audit, mixed", Kind::MysqlAudit, mariadb),
        ("MariaDB audit, queries", Kind::MysqlAudit, mariadb_queries),
        ("MySQL error", Kind::MysqlError, mysql_error),
        ("Oracle audit, text", Kind::OracleAudit, oracle),
        ("Oracle audit, XML", Kind::OracleAudit, oracle_xml),
        ("VPC flow", Kind::FlowLog, flow),
    ];
    for (name, kind, line) in logs {
        let text = make(*line);
        let (seconds, events) = (0..ROUNDS).map(|_| measure(*kind, &text)).min_by(|one, two| one.0.total_cmp(&two.0)).expect("there are rounds");
        println!("{name:<28}{:>10.0}{:>14.0}{:>12}", text.len() as f64 / seconds / 1e6, events as f64 / seconds, text.len() as u64 / events);
    }
}

fn make(line: fn(usize) -> String) -> String {
    let mut text = String::with_capacity(BYTES + 1024);
    let mut index = 0;
    while text.len() < BYTES {
        text.push_str(&line(index));
        index += 1;
    }
    text
}

/// CPU seconds and events.
fn measure(kind: Kind, text: &str) -> (f64, u64) {
    let route = Route::of(kind);
    let mut decoder = LogDecoder::default();
    let (mut events, mut bytes, mut rest) = (0, 0usize, text.as_bytes());
    let start = ThreadTime::now();
    while !rest.is_empty() {
        let cut = rest.len().min(BATCH_BYTES);
        let cut = rest[..cut].iter().rposition(|byte| *byte == b'\n').map_or(cut, |at| at + 1);
        let batch = Batch { route: &route, text: &rest[..cut], pieces: &[], stream: 1, now_ms: 0 };
        events += decoder.decode(&batch, |event| bytes += event.iter().map(|(_, value)| value.len()).sum::<usize>()).events;
        rest = &rest[cut..];
    }
    std::hint::black_box(bytes);
    (start.elapsed().as_secs_f64(), events)
}

fn session(index: usize) -> (String, usize) {
    let pid = 10_000 + index % 97;
    (format!("2026-11-24 02:{:02}:{:02} UTC:10.0.{}.7({}):app@shop:[{pid}]:", index / 60 % 60, index % 60, index % 7, 30_000 + pid), pid)
}

const STATEMENTS: &[&str] = &[
    "SELECT o.id, o.total, c.email FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.created_at > now() - interval '1 day' AND c.country = 'NO' ORDER BY o.created_at DESC LIMIT 50",
    "INSERT INTO events(kind, payload, created_at) VALUES ($1, $2, now()) RETURNING id",
    "UPDATE carts SET updated_at = now(), items = items + 1 WHERE id = 4711 AND customer_id = 12 AND NOT closed",
    "SELECT count(*) FROM inventory WHERE sku = 'AB-1234' AND warehouse IN (1, 2, 3)",
    "BEGIN",
    "CREATE TABLE staging_2026(id bigint primary key, body jsonb not null, created_at timestamptz default now())",
];

fn postgres(index: usize) -> String {
    let (prefix, _) = session(index);
    let statement = STATEMENTS[index % STATEMENTS.len()];
    match index % 8 {
        0 => format!(
            "{prefix}LOG:  connection authorized: user=app database=shop application_name=psql SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)\n"
        ),
        1 => format!("{prefix}LOG:  disconnection: session time: 0:00:00.358 user=app database=shop host=10.0.0.7 port=46932\n"),
        2 => format!("{prefix}ERROR:  relation \"nosuch\" does not exist at character 15\n{prefix}STATEMENT:  {statement}\n"),
        3 => format!(
            "{prefix}FATAL:  password authentication failed for user \"app\"\n{prefix}DETAIL:  Connection matched pg_hba.conf line 5: \"host all all 10.0.0.0/8 scram-sha-256\"\n"
        ),
        4 | 5 => format!("{prefix}LOG:  duration: 201.516 ms  statement: {statement}\n"),
        _ => format!("{prefix}LOG:  AUDIT: SESSION,{index},1,READ,SELECT,TABLE,public.orders,\"{statement}\",<none>\n"),
    }
}

fn postgres_long(index: usize) -> String {
    let (_, pid) = session(index);
    let statement = STATEMENTS[index % STATEMENTS.len()];
    format!(
        "2026-11-24 02:{:02}:11.717 UTC:10.0.0.7({}):app@shop:[{pid}]:{}:00000:2026-11-24 02:00:00 UTC:3/{}:0:6b04fe6f.{pid:x}:psqlLOG:  duration: 20.5 ms  statement: {statement}\n",
        index % 60,
        30_000 + pid,
        index % 100 + 1,
        index % 1000,
    )
}

fn pgaudit(index: usize) -> String {
    let (prefix, _) = session(index);
    let statement = STATEMENTS[index % STATEMENTS.len()];
    format!("{prefix}LOG:  AUDIT: SESSION,{index},1,READ,SELECT,TABLE,public.orders,\"{statement} -- \"\"quoted\"\"\n\tand more\",<none>\n")
}

fn mariadb(index: usize) -> String {
    let head = format!("20261124 02:{:02}:{:02},ip-10-0-0-1,app,10.0.{}.7,{},", index / 60 % 60, index % 60, index % 7, 100 + index % 97);
    match index % 8 {
        0 => format!("{head}0,CONNECT,shop,,0\n"),
        1 => format!("{head}0,DISCONNECT,shop,,0\n"),
        2 | 3 => format!("{head}{index},READ,shop,orders,\n"),
        4 => format!("{head}0,FAILED_CONNECT,,,1045\n"),
        _ => mariadb_queries(index),
    }
}

fn mariadb_queries(index: usize) -> String {
    let statement = STATEMENTS[index % STATEMENTS.len()].replace('\'', "\\'");
    format!("20261124 02:{:02}:{:02},ip-10-0-0-1,app,10.0.0.7,{},{index},QUERY,shop,'{statement}',0\n", index / 60 % 60, index % 60, 100 + index % 97)
}

fn mysql_error(index: usize) -> String {
    format!(
        "2026-11-24T02:{:02}:{:02}.430542Z {} [Note] [MY-010926] [Server] Access denied for user 'app'@'ip-10-0-16-79' (using password: YES)\n",
        index / 60 % 60,
        index % 60,
        index % 9000
    )
}

fn flow(index: usize) -> String {
    format!(
        "2 123456789012 eni-0123456789abcdef0 10.0.{}.9 10.0.1.2 {} 5432 6 10 840 1795488775 1795488835 ACCEPT OK\n",
        index % 250,
        1024 + index % 60_000
    )
}

fn oracle(index: usize) -> String {
    format!(
        "Tue Nov 24 10:{:02}:{:02} 2026 +00:00\nLENGTH: \"385\"\nSESSIONID:[6] \"{:06}\" ENTRYID:[1] \"1\" STATEMENT:[1] \"9\" USERID:[3] \"APP\" \
         USERHOST:[10] \"app.intern\" TERMINAL:[7] \"unknown\" ACTION:[3] \"103\" RETURNCODE:[1] \"0\" OBJ$CREATOR:[4] \"SHOP\" OBJ$NAME:[6] \"ORDERS\" \
         SES$ACTIONS:[16] \"---------S------\" OS$USERID:[3] \"app\" DBID:[5] \"12345\" PRIV$USED:[1] \"5\"\n\n",
        index / 60 % 60,
        index % 60,
        index % 1_000_000
    )
}

fn oracle_xml(index: usize) -> String {
    format!(
        "<AuditRecord><Audit_Type>1</Audit_Type><Session_Id>{index}</Session_Id><StatementId>3</StatementId><EntryId>1</EntryId>\
         <Extended_Timestamp>2026-11-24T10:00:00.782747Z</Extended_Timestamp><DB_User>APP</DB_User><OS_User>app</OS_User><Userhost>app.intern</Userhost>\
         <OS_Process>14032</OS_Process><Instance_Number>0</Instance_Number><Object_Schema>SHOP</Object_Schema><Object_Name>ORDERS</Object_Name>\
         <Action>3</Action><Returncode>0</Returncode><Scn>643676</Scn><DBID>955988972</DBID>\n<Sql_Text>SELECT total FROM orders WHERE id &lt; {index}</Sql_Text>\n</AuditRecord>\n"
    )
}
