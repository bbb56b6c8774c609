#!/usr/bin/env bash
# Starts a MariaDB of its own, attacks it in a fixed way and leaves its logs: tests/servers/mariadb.sh FOLDER PORT
# FOLDER/audit.log, error.log and general.log hold what the server wrote from the attack's beginning on.
set -euo pipefail
folder=$1 port=$2
socket=$folder/m.sock
me=$(id -un)

mariadb-install-db --no-defaults --user="$me" --datadir="$folder/data" --auth-root-authentication-method=normal --skip-test-db \
  --basedir=/usr >"$folder/install.log" 2>&1
mariadbd --no-defaults --user="$me" --datadir="$folder/data" --socket="$socket" --port="$port" --bind-address=127.0.0.1 \
  --pid-file="$folder/m.pid" --log-error="$folder/error.log" --log-warnings=2 --default-time-zone=+00:00 \
  --general-log=1 --general-log-file="$folder/general.log" --skip-name-resolve --secure-file-priv= \
  --plugin-load-add=server_audit --server-audit-events=CONNECT,QUERY,TABLE --server-audit-logging=ON \
  --server-audit-file-path="$folder/server_audit.log" &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT

admin() { mariadb --no-defaults -S "$socket" -u root -e "$1" >/dev/null; }
client() { mariadb --no-defaults -h 127.0.0.1 -P "$port" -u "$1" "--password=$2" ${3:+-D "$3"} -e "$4" >/dev/null 2>&1 || true; }

for _ in $(seq 100); do [ -S "$socket" ] && admin "SELECT 1" 2>/dev/null && break || sleep 0.2; done
admin "CREATE DATABASE shop; CREATE USER 'app'@'%' IDENTIFIED BY 'appsecret'; GRANT ALL ON shop.* TO 'app'@'%'"
admin "CREATE TABLE shop.customers(id int); CREATE TABLE shop.t1(i int); CREATE TABLE shop.t2(i int); CREATE TABLE shop.t3(i int);
       CREATE TABLE shop.t4(i int); CREATE TABLE shop.t5(i int)"
sleep 0.3
audit=$(stat -c %s "$folder/server_audit.log") error=$(stat -c %s "$folder/error.log") general=$(stat -c %s "$folder/general.log")

# Brute force, an unknown name, then the right password.
for attempt in 1 2 3 4 5 6 7 8 9 10; do client app "wrong$attempt" shop "SELECT 1"; done
client ghost x "" "SELECT 1"
client app appsecret shop "SELECT * FROM customers"
client app appsecret shop "SELECT * FROM mysql.user"
# Privileges.
admin "CREATE USER 'evil'@'%' IDENTIFIED BY 'hunter2secret'"
admin "GRANT ALL PRIVILEGES ON *.* TO 'evil'@'%' WITH GRANT OPTION"
# Destruction and theft.
for table in t1 t2 t3 t4 t5; do client app appsecret shop "DROP TABLE $table"; done
admin "SELECT * FROM shop.customers INTO OUTFILE '$folder/loot.csv'"
mariadb-dump --no-defaults -S "$socket" -u root shop customers >/dev/null
# Forged lines, by clients that never log in.
host=$(hostname) now=$(date -u '+%Y%m%d %H:%M:%S')
client "x
$now,$host,root,localhost,3,1,QUERY,,'DROP DATABASE shop',0" x "" "SELECT 1"
client "root,localhost,3,1,QUERY,,'DROP DATABASE shop',0
" x "" "SELECT 1"
client "root,localhost,3,0,CONNECT,,,0" x "" "SELECT 1"
# The audit switched off: the last that it writes.
admin "SET GLOBAL server_audit_logging = OFF"

sleep 0.5
trap - EXIT
kill "$server" && wait "$server" || true
tail -c +$((audit + 1)) "$folder/server_audit.log" >"$folder/attack.audit.log"
tail -c +$((error + 1)) "$folder/error.log" >"$folder/attack.error.log"
tail -c +$((general + 1)) "$folder/general.log" >"$folder/attack.general.log"
