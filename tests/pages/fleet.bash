# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The situation of docs/fleet.md (page.py): a machine on which the packages have been unpacked.
# shellcheck disable=SC2317
ip link set lo up
# What their scripts do when they are installed.
for user in prometheus systemd-journal-remote; do
    grep -q "^$user:" /etc/passwd || useradd --system --no-create-home "$user"
done
mkdir -p /var/lib/prometheus/{node-exporter,metrics2} /var/log/journal/remote
chown -R prometheus: /var/lib/prometheus
chown systemd-journal-remote: /var/log/journal/remote

situation_fleet() {
    local supervisor
    systemd-tmpfiles --create rbxj.conf
    rbxj run --box 7 --tmpdir /var/box7 -- sh -c '>/run/up; exec sleep 1000' >/dev/null 2>&1 </dev/null &
    supervisor=$!
    disown
    until [ -e /run/up ] || ! kill -0 $supervisor; do sleep 0.1; done
    kill -KILL $supervisor
    until [ "$(rbxj -n list | awk '{ print $3 }' | sort -u)" = stale ]; do sleep 0.1; done
}
situation_is_over() { rbxj health --verify-clean; }
