#!/usr/bin/env bash
# Starts a PostgreSQL of its own, attacks it in a fixed way and leaves its log: tests/servers/postgres.sh FOLDER PORT
# FOLDER/attack.log holds what the server wrote from the attack's beginning to its end. Run as a user that is not root.
set -euo pipefail
folder=$1 port=$2
data=$folder/data log=$folder/data/log/postgresql.log
export PGCONNECT_TIMEOUT=10 PGSSLMODE=disable LC_ALL=C

initdb -D "$data" -U rdsadmin --auth-local=trust --auth-host=scram-sha-256 -E UTF8 --no-sync >/dev/null
cat >>"$data/postgresql.conf" <<CONF
port = $port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$folder'
shared_preload_libraries = 'pgaudit'
logging_collector = on
log_directory = 'log'
log_filename = 'postgresql.log'
log_line_prefix = '%t:%r:%u@%d:[%p]:'
log_timezone = 'UTC'
log_connections = on
log_disconnections = on
pgaudit.log = 'read,write,ddl,role,misc_set'
pgaudit.log_catalog = off
fsync = off
CONF
pg_ctl -D "$data" -w -l "$folder/start.log" start >/dev/null
trap 'pg_ctl -D "$data" -m immediate stop >/dev/null 2>&1 || true' EXIT

admin() { psql -qAtX -h "$folder" -p "$port" -U rdsadmin -d "${2:-shop}" -c "$1" >/dev/null; }
client() { PGUSER=$1 PGPASSWORD=$2 PGDATABASE=$3 psql -qAtX -h 127.0.0.1 -p "$port" -c "$4" >/dev/null 2>&1 || true; }

admin "CREATE DATABASE shop" postgres
admin "CREATE ROLE app LOGIN PASSWORD 'appsecret'; CREATE TABLE customers(id int, card text);
       CREATE TABLE t1(i int); CREATE TABLE t2(i int); CREATE TABLE t3(i int); CREATE TABLE t4(i int); CREATE TABLE t5(i int)"
admin "CREATE TABLE loot(line text); ALTER TABLE loot OWNER TO app; GRANT SELECT ON customers TO app"
sleep 0.3
before=$(stat -c %s "$log")

# Brute force, an unknown name, then the right password.
for attempt in 1 2 3 4 5 6 7 8 9 10; do client app "wrong$attempt" shop "SELECT 1"; done
client ghost x shop "SELECT 1"
client app appsecret shop "SELECT * FROM customers"
client app appsecret shop "COPY loot FROM PROGRAM 'echo denied'"
# Privileges.
admin "GRANT ALL ON customers TO PUBLIC"
admin "ALTER ROLE app SUPERUSER PASSWORD 'hunter2secret'"
client app hunter2secret shop "COPY loot FROM PROGRAM 'echo loot'"
# Destruction and theft.
for table in t1 t2 t3 t4 t5; do client app hunter2secret shop "DROP TABLE $table"; done
pg_dump -h "$folder" -p "$port" -U rdsadmin -t customers shop >/dev/null
# Forged lines, by clients that never log in.
now=$(date -u '+%Y-%m-%d %H:%M:%S')
client "x
$now UTC::@:[7]:LOG:  received fast shutdown" x shop "SELECT 1"
client "x
$now UTC::@:[7]:LOG:  received fast shutdown
" x shop "SELECT 1"
client "x@shop:[9]:LOG:  connection authorized: user=rdsadmin" x shop "SELECT 1"
client "x@shop:[9]:LOG:  connection authorized: user=rdsadmin
" x shop "SELECT 1"
client "a@b:[9]:LOG:  x
$now UTC:[local]:b" x shop "SELECT 1"
# The audit switched off.
admin "SET pgaudit.log = 'none'"
admin "ALTER SYSTEM SET pgaudit.log = 'none'"
admin "SELECT pg_reload_conf()"
sleep 1

trap - EXIT
pg_ctl -D "$data" -m fast -w stop >/dev/null
tail -c +$((before + 1)) "$log" >"$folder/attack.log"
