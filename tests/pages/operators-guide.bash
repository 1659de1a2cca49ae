# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The situations of docs/operators-guide.md (page.py), inside the machine of guides.sh.
# shellcheck disable=SC2317
umount -l /dev/kmsg 2>/dev/null
rm -f /dev/kmsg # what the kernel says here is not about this machine
boxes=/var/lib/rustbox/boxes
started=()
theirs='' # what is somebody's, and rightly still there when its situation is over
mount -t tmpfs boxes /var/lib/rustbox # the root is an overlay
mkdir -p "$boxes/9"
options() {
    echo "--lock $boxes/$1/lock --cgroup /sys/fs/cgroup/rustbox-$1 --tmpdir /tmp/rustbox-$1 --mount tmpfs,rustbox,$boxes/$1/root"
}
until_true() {
    local until=$((SECONDS + 30))
    while ((SECONDS < until)); do
        ! "$@" || return 0
        sleep 0.02
    done
    return 1
}
# box ID: a supervisor with a box of each kind; $supervisor.
box() {
    mkdir -p "$boxes/$1"
    rm -f "/run/up-$1"
    # shellcheck disable=SC2016,SC2046
    rbxj run --box "$1" $(options "$1") -- sh -c '>"$1"; exec sleep 1000' sh "/run/up-$1" >"/run/box-$1" 2>&1 </dev/null &
    supervisor=$!
    disown # so that bash tells nobody of its death
    started+=("$supervisor")
    until_true test -e "/run/up-$1" || { cat "/run/box-$1"; return 1; }
}
killed() {
    box "$1" && kill -KILL "$supervisor" || return
    until_true is_stale "$1"
} 2>/dev/null
is_stale() { rbxj -n list --box "$1" | grep -q ' stale '; }
# somebody COMMAND...: a process that has nothing to do with it; $somebody.
somebody() {
    "$@" >/dev/null 2>&1 </dev/null &
    somebody=$!
    disown
    started+=("$somebody")
}

# A person is not as fast as the next command here.
kill() {
    builtin kill "$@" && until_true is_dead "${*: -1}"
}
is_dead() { ! grep -q '^[^)]*) [^ZX]' "/proc/$1/stat" 2>/dev/null; }

# A worker as it is after "First start", and nothing that an earlier situation has told.
worker() {
    systemctl stop rbxj-watch.service rbxj-health.timer rbxj-audit.timer rustbox.service 2>/dev/null
    local pid
    builtin kill -KILL "${started[@]}" 2>/dev/null
    for pid in "${started[@]}"; do until_true is_dead "$pid"; done
    started=()
    [ ! -d /run/rbxj ] || until_true rbxj -q replay || return
    rm -rf /run/rbxj/* /var/lib/rbxj/* /etc/rbxj /root/* "$boxes"/*
    systemctl reset-failed
    systemctl restart rbxj-reaper.service
    journalctl --rotate --vacuum-time=1s 2>/dev/null
    true
}
# What a situation may leave: healthy, nothing of the dead, and what the living have.
situation_is_over() {
    local path
    [ -z "${somebody:-}" ] || builtin kill -KILL "$somebody" 2>/dev/null
    rm -rf $theirs
    somebody='' theirs=''
    rbxj health && rbxj health --verify-clean || return
    for path in "$boxes"/*/lock /tmp/rustbox-* "$boxes/7/root" /sys/fs/cgroup/rustbox-*; do
        [ ! -e "$path" ] || [[ $path == *9* ]] || { echo "$path is there"; return 1; }
    done
    ! grep -v /9/ /proc/self/mountinfo | grep -q " $boxes/" || { echo "something is mounted"; return 1; }
}

situation_new_machine() { true; }
situation_old_installation() {
    worker
    mkdir -p "$boxes"/{3,9} /sys/fs/cgroup/rustbox-3 "$boxes/3/root" /tmp/rustbox-3/work
    echo '{"pid":999999999,"box_id":"3","created_at":"2026-01-01T00:00:00Z"}' >"$boxes/3/lock"
    mount -t tmpfs rustbox "$boxes/3/root"
    somebody flock -F "$boxes/9/lock" sleep 1000
    theirs=$boxes/9/lock
    until_true held "$boxes/9/lock"
}
held() { [ -e "$1" ] && ! flock -n "$1" true; }
situation_healthy() { worker && systemctl start rbxj-watch.service rbxj-health.timer && box 9; }
situation_stale() { worker && box 9 && killed 7; }
situation_busy() {
    worker && killed 7 || return
    somebody sh -c 'cd "$1" && exec sleep 1000' sh "$boxes/7/root"
    until_true uses "$boxes/7/root"
}
uses() { [ "$(readlink "/proc/$somebody/cwd")" = "$1" ]; }
situation_foreign() {
    worker && killed 7 || return
    mv /tmp/rustbox-7 /tmp/gone && rm -rf /tmp/gone
    theirs=/tmp/rustbox-7
    mkdir /tmp/rustbox-7 && echo "thesis" >/tmp/rustbox-7/thesis.txt
}
situation_held() {
    worker && killed 7 || return
    somebody flock -F "$boxes/7/lock" sleep 1000
    until_true held "$boxes/7/lock"
}
situation_orphan() {
    worker || return
    rm -f /run/up-7
    # no cgroup, and a payload that forks
    rbxj run --box 7 --tmpdir /tmp/rustbox-7 -- sh -c 'sleep 1000 & >/run/up-7; exec sleep 1000' >/dev/null 2>&1 </dev/null &
    supervisor=$!
    disown
    started+=("$supervisor")
    until_true test -e /run/up-7 && kill -KILL "$supervisor" && until_true is_stale 7
}
situation_corrupt() {
    worker && killed 7 || return
    printf '{"pid": 17, "box_' >"$boxes/7/lock"
}
situation_quarantined() {
    situation_busy || return
    rbxj replay
    rbxj replay
    rbxj replay
    [ $? = 1 ]
}
situation_by_hand() { worker; }
situation_damaged() {
    worker && mkdir -p "$boxes/9" && killed 7 || return
    python3 -I -S - /run/rbxj/journal-*/data.mdb <<'P'
import sys
path = sys.argv[1]
data = bytearray(open(path, "rb").read())
for at in range(len(data)):
    if data.startswith(b"/tmp/rustbox-7", at):
        data[at + 1] ^= 1
open(path, "r+b").write(data)
P
}
situation_reset() {
    situation_held && mkdir -p "$boxes/9" && systemctl start rustbox.service && box 8
}
situation_past() { worker && killed 7 && rbxj health --recover; }
situation_leaving() { worker && killed 7; }
