#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The rules of monitoring/ by promtool, and by a real Prometheus that reads a real textfile: alerts.sh [RBXJ]
. "${0%/*}/lib.bash"

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
    echo "needs prometheus and promtool (package prometheus)"
    exit 77
fi
rules=$top/monitoring/rbxj.rules.yml
quietly() { "$@" >"$work/out" 2>&1; }
check "promtool check rules" quietly promtool check rules "$rules"
check "promtool test rules" quietly promtool test rules "$top/monitoring/rbxj.rules.test.yml"
every_metric_exists() {
    local name
    call metrics
    for name in $(sed -n 's/ *expr: //p' "$rules" | sed -E 's/(fleet|instance):[a-z_:0-9]+//g' |
        grep -oE '(rustbox|rbxj)_[a-z_]+' | sed -E 's/_(sum|count)$//' | sort -u); do
        grep -q "^# TYPE $name " "$work/out" || { echo "  no metric $name"; return 1; }
    done
}
fresh
crash first --tmpdir "$work/first" 2>/dev/null
call replay
check "the rules name metrics that there are" every_metric_exists

# ---- a Prometheus, in a network of its own ----

mkdir "$work/exporter" "$work/prometheus"
# Nobody waits ten minutes here.
sed -E 's/^( *for:) [0-9]+[mh].*/\1 1s/' "$rules" >"$work/prometheus/rules.yml"
cat >"$work/prometheus/prometheus.yml" <<'EOF'
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
scrape_configs:
  - job_name: worker
    static_configs: [{targets: ["127.0.0.1:9100"]}]
EOF
cat >"$work/serve" <<'EOF'
ip link set lo up 2>/dev/null || python3 -I - <<'PY'
import fcntl, socket, struct
s = socket.socket()
fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
PY
cd "$1/exporter" && python3 -I -m http.server --bind 127.0.0.1 9100 >/dev/null 2>&1 &
exec prometheus --config.file="$1/prometheus/prometheus.yml" --storage.tsdb.path="$1/prometheus/data" \
    --web.listen-address=127.0.0.1:9090 --log.level=error
EOF
measure() { call metrics --textfile "$work/exporter/metrics"; }
measure
unshare --net bash "$work/serve" "$work" >"$work/prometheus.log" 2>&1 &
server=$!
# ask: which alerts fire, sorted, in out.
ask() {
    nsenter -t "$server" -n python3 -I -c 'import json, urllib.request
alerts = json.load(urllib.request.urlopen("http://127.0.0.1:9090/api/v1/alerts", timeout=5))["data"]["alerts"]
print(*sorted({a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}))' >"$work/out" 2>"$work/err"
}
fires() { measure; ask && grep -qw "$1" "$work/out"; }
calm() { measure; ask && ! grep -qw "$1" "$work/out"; }
quiet() { measure; ask && [ "$(cat "$work/out")" = "" ]; }
check "a healthy worker sets off nothing" until_true quiet
crash stale --tmpdir "$work/stale" 2>/dev/null
check "a box that is left stale does" until_true fires RustboxWorkerUnhealthy
call health --recover
check "and no longer after a recovery" until_true calm RustboxWorkerUnhealthy
call health --quarantine --reason test
check "so does a quarantine" until_true fires RustboxWorkerQuarantined
call health --unquarantine --reason test
check "until it is over" until_true calm RustboxWorkerQuarantined
kill "$server"
wait "$server" 2>/dev/null
finish
