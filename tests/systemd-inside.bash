# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What systemd.sh looks at inside its machine, as a unit after multi-user.target: systemd-inside.bash FILE, in which is the
# number of the boot. Lines "ok NAME" and "not ok NAME" on standard output, at the end "finished".
failed=0
check() {
    local name=$1
    shift
    if "$@"; then echo "ok $name"; else
        echo "not ok $name"
        failed=1
    fi
}
is() { [ "$1" = "$2" ] || { echo "got '$1', not '$2'"; return 1; }; }
until_true() {
    local until=$((SECONDS + 30))
    while ((SECONDS < until)); do
        ! "$@" || return 0
        sleep 0.02
    done
    return 1
}
show() { systemctl show --property="$2" --value "$1"; }
state() { is "$(show "$1" ActiveState)" "$2"; }
no_box() { is "$(rbxj --noheadings list)" ""; }
gone() { local path; for path; do [ ! -e "$path" ] || { echo "$path is there"; return 1; }; done; }
nothing_of() { gone /var/boxes/"$1".{lock,dir,moved,mnt} "/sys/fs/cgroup/$1"; }

# crash BOX: leaves a box of every kind, with what only root's privileges remove.
crash() {
    local supervisor
    # shellcheck disable=SC2016
    rbxj run --box "$1" --lock "/var/boxes/$1.lock" --cgroup "/sys/fs/cgroup/$1" --tmpdir "/var/boxes/$1.dir" \
        --mount "tmpfs,x,/var/boxes/$1.mnt" -- sh -c 'cd "$1"; mkdir -p a/b; touch a/b/file a/immutable; mknod null c 1 3
            chown -R 1234:1234 a; chmod 0 a/b; echo up >"$1.up"; exec sleep 1000' sh "/var/boxes/$1.dir" &
    supervisor=$!
    until_true test -s "/var/boxes/$1.dir.up"
    rm "/var/boxes/$1.dir.up"
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
}
# crash_apart BOX: one whose mount is in a mount namespace that a process of somebody else keeps; $keeper.
crash_apart() {
    local supervisor
    unshare --mount --propagation private rbxj run --box "$1" --mount "tmpfs,x,/var/boxes/$1.mnt" -- \
        sh -c 'echo up >"$1"; exec sleep 1000' sh "/var/boxes/$1.up" &
    supervisor=$!
    until_true test -s "/var/boxes/$1.up"
    rm "/var/boxes/$1.up"
    nsenter -t "$supervisor" -m sleep 1000 &
    keeper=$!
    until_true mounted_apart "$1"
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
}
mounted_apart() { grep -q " /var/boxes/$1.mnt " "/proc/$keeper/mountinfo"; }
unmounted_apart() { ! mounted_apart "$1"; }

# crash_on_hung BOX OPTION...: one below the directory on which a file system is going to hang.
crash_on_hung() {
    local supervisor
    rbxj run --box "$@" -- sh -c 'echo up >/var/hung/up; exec sleep 1000' &
    supervisor=$!
    until_true test -s /var/hung/up
    rm /var/hung/up
    kill -KILL "$supervisor"
    wait "$supervisor" 2>/dev/null
}

# At every boot: the reaper, then the supervisor, then multi-user.target.
in_order() {
    local reaper supervisor target
    reaper=$(show rbxj-reaper.service ExecMainExitTimestampMonotonic)
    supervisor=$(show supervisor.service ExecMainStartTimestampMonotonic)
    target=$(show multi-user.target ActiveEnterTimestampMonotonic)
    echo "reaper $reaper supervisor $supervisor multi-user $target"
    [ "$reaper" -gt 0 ] && [ "$reaper" -le "$supervisor" ] && [ "$reaper" -le "$target" ]
}
box_of() { rbxj list --json | python3 -I -S -c 'import json, sys
print(*[b["incarnation"] for b in json.load(sys.stdin)["boxes"] if b["box"] == "s" and b["state"] == "live"])'; }
has_box() { [ -n "$(box_of)" ]; }

first_boot() {
    local pid incarnation
    check "the reaper has run" state rbxj-reaper.service active
    check "it found nothing" is "$(show rbxj-reaper.service StatusText)" "0 stale boxes: 0 undone, 0 already gone, 0 left"
    check "it ran before the supervisor and multi-user.target" in_order
    check "the timer waits" state rbxj-health.timer active
    check "the watcher is up" state rbxj-watch.service active
    pid=$(show rbxj-watch.service MainPID)
    check "it has the machine's mounts" is "$(readlink "/proc/$pid/ns/mnt")" "$(readlink /proc/1/ns/mnt)"
    check "its system calls are filtered" grep -q '^Seccomp:.2$' "/proc/$pid/status"

    crash w
    check "the watcher undoes a box of every kind" until_true nothing_of w
    systemctl stop rbxj-watch.service rbxj-health.timer

    crash_apart n
    crash r
    check "the reaper is run again" systemctl restart rbxj-reaper.service
    check "it undoes a box of every kind" nothing_of r
    check "and a mount in another mount namespace" unmounted_apart n
    kill -KILL "$keeper"
    crash h
    check "the recovery succeeds" systemctl start rbxj-health.service
    check "it undoes a box of every kind" nothing_of h

    check "the supervisor has its box" until_true has_box
    incarnation=$(box_of)
    pid=$(show supervisor.service MainPID)
    kill -KILL "$pid"
    another() { [ -n "$(box_of)" ] && [ "$(box_of)" != "$incarnation" ]; }
    check "ExecStopPost= undoes it after a crash, and it is begun again" until_true another

    systemctl stop supervisor.service
    check "stopped, it leaves nothing" no_box
    check "and has not failed" is "$(show supervisor.service Result)" success
    rbxj --quiet health --quarantine --reason test
    systemctl start supervisor.service
    check "k31: quarantined, it does not start" is "$(show supervisor.service ConditionResult)" no
    rbxj --quiet health --unquarantine --reason test
    systemctl start supervisor.service
    check "k31: released, it does" until_true has_box
}

# Its power was cut while the supervisor had a box.
second_boot() {
    local newest kernel
    check "the reaper succeeds" state rbxj-reaper.service active
    is_clean() { [[ $(show rbxj-reaper.service StatusText) =~ ^1\ stale\ boxes:.*\ 0\ left$ ]] || { show rbxj-reaper.service StatusText; return 1; }; }
    check "it found the box that was cut off, and left nothing" is_clean
    check "it ran before the supervisor and multi-user.target" in_order
    check "the supervisor has its box again" until_true has_box
    { read -r newest && read -r kernel; } < <(rbxj incidents --json | python3 -I -S -c 'import json, sys
i = max(json.load(sys.stdin)["incidents"], key=lambda i: i["detected"])
print(i["procedure"], *i["boxes"], i["left"])
print(i["kernel"]["error"], i["kernel"]["taint"])')
    check "the incident names it" is "$newest" "boot s 0"
    if dd if=/dev/kmsg of=/dev/null iflag=nonblock bs=8k count=1 2>/dev/null; then
        check "the unit may read the kernel's log for it, and its taint" is "${kernel%%[*}" "None "
    fi
    # what lies where nothing answers at the next boot
    systemctl stop rbxj-watch.service rbxj-health.timer
    crash_on_hung f --tmpdir /var/hung/f.dir
}

# A file system hangs that lies over the directory of box f.
is_logged() { journalctl --no-pager | grep -F -- "$1" >/dev/null; }
# The reaper came to its own end, in time, with something left, and what hangs in a helper was not waited for: TimeoutStopSec=
# is 30 s here.
ended_itself() {
    local waited
    waited=$(($(show rbxj-reaper.service InactiveEnterTimestampMonotonic) - $(show rbxj-reaper.service ExecMainExitTimestampMonotonic)))
    echo "waited $waited us"
    is "$(show rbxj-reaper.service ActiveState) $(show rbxj-reaper.service Result) $(show rbxj-reaper.service ExecMainStatus)" \
        "failed exit-code 1" && [ "$waited" -lt 30000000 ]
}
# The watcher stopped in time, and what hangs in a helper was not waited for: TimeoutStopSec= is 60 s here.
watch_hangs() { [ "$(wc -l <"/sys/fs/cgroup$(show rbxj-watch.service ControlGroup)/cgroup.procs")" -ge 3 ]; }
watch_ended() {
    local waited
    waited=$(($(show rbxj-watch.service InactiveEnterTimestampMonotonic) - $(show rbxj-watch.service ExecMainExitTimestampMonotonic)))
    echo "waited $waited us"
    is "$(show rbxj-watch.service ActiveState) $(show rbxj-watch.service Result)" "inactive success" && [ "$waited" -lt 60000000 ]
}
has_ended() { is "$(show "$1" ActiveState) $(show "$1" Result)" "inactive success"; }
is_quarantined() { [ -e /run/rbxj/quarantined ] && grep -qF "box $1: hung at boot: $2" /var/lib/rbxj/quarantine; }
hang() { python3 -I -S /srv/hung.py /var/hung >/srv/hung.pid; }
# The server is gone for good, and somebody has unmounted it.
hang_is_over() {
    kill -KILL "$(cat /srv/hung.pid)"
    until_true umount /var/hung
}
third_boot() {
    check "k16: the reaper ends by itself in spite of what hangs" ended_itself
    check "multi-user.target is reached" state multi-user.target active
    check "it says what hangs" until_true is_logged "/var/hung/f.dir: its file system does not answer"
    check "the box that the power cut left elsewhere is undone" nothing_of s
    check "k31: the worker is quarantined" is_quarantined f /var/hung/f.dir
    check "k31: no supervisor starts" is "$(show supervisor.service ConditionResult)" no
    hang_is_over
    check "what it hid is there" test -d /var/hung/f.dir
    check "a recovery succeeds when it is over" systemctl start rbxj-health.service
    check "and leaves nothing of it" gone /var/hung/f.dir

    crash_on_hung u --mount tmpfs,x,/var/hung/u.mnt
    hang
    mkdir -p /var/lib/prometheus/node-exporter
    sed -i '$a timeout=3s' /etc/rbxj/rbxj.conf # what is left of it is not waited for: one helper is enough
    systemctl start --no-block rbxj-metrics.service
    check "k16: the metrics are written" until_true test -s /var/lib/prometheus/node-exporter/rbxj.prom
    check "k16: and what hangs in a helper of theirs is not waited for" until_true has_ended rbxj-metrics.service
    sed -i '/^timeout/d' /etc/rbxj/rbxj.conf
    hang_is_over # for that helper, or the watcher would wait for it instead of one of its own
    hang
    systemctl start rbxj-watch.service
    check "k16: the watcher hangs in an unmount" until_true watch_hangs
    systemctl stop rbxj-watch.service
    check "k16: and is stopped all the same" watch_ended
    check "it says what it broke off" until_true is_logged "a replay of box u goes on: it is broken off"
    systemctl restart rbxj-reaper.service
    check "k16: the reaper ends by itself where an unmount hangs" ended_itself
    check "it says which" until_true is_logged "/var/hung/u.mnt: its file system does not answer"
    check "k31: the worker is quarantined for it" is_quarantined u /var/hung/u.mnt
    hang_is_over
    check "it is mounted still" grep -q ' /var/hung/u.mnt ' /proc/self/mountinfo
    check "a recovery succeeds when that is over, too" systemctl start rbxj-health.service
    check "it is unmounted" gone /var/hung/u.mnt
    systemctl start supervisor.service
    check "the supervisor starts again" until_true has_box
}

case $(cat "$1") in 1) first_boot ;; 2) second_boot ;; 3) third_boot ;; esac
if [ "$failed" = 1 ]; then
    systemctl --no-pager --all status 'rbxj-*' supervisor.service
    journalctl --no-pager
fi
echo finished
