#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What make install puts beside the program, as systemd reads it: units, tmpfiles.d, the drop-in for a supervisor's unit,
# the manual pages and the completions: units.sh [RBXJ]
. "${0%/*}/lib.bash"

command -v systemd-analyze >/dev/null || { echo "needs systemd-analyze"; exit 77; }
unset MAKEFLAGS MFLAGS MAKELEVEL

# install_in DESTDIR PREFIX: with the tree as it is built.
install_in() {
    make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR="$1" PREFIX="$2" STATEDIR="$work/state" RUNTIMEDIR="$work/run" \
        install >"$work/out" 2>"$work/err"
}
# DESTDIR=/ keeps the system's own places out of it, and what the units name is there.
prefix=$work/prefix
check "it installs below a prefix" install_in / "$prefix"
units=$prefix/lib/systemd/system dropin=$prefix/share/rbxj/supervisor.conf
services=("$units"/rbxj-{reaper,watch,health,audit,metrics}.service)
check "it installs below a DESTDIR" install_in "$work/dest" /usr
# Where the pages are: one for each source, and one for each function.
manuals() {
    local page functions
    functions=$(sed -n 's/^ *\(rbxj_[a-z_]*\);/\1.3/p' "$top/src/librbxj.map")
    for page in "$top"/man/*.scd $functions; do
        page=$(basename "$page" .scd)
        echo "share/man/man${page##*.}/$page"
    done
}
there_in_dest() {
    local path
    # shellcheck disable=SC2046
    for path in bin/rbxj lib/librbxj.so.0 lib/systemd/system/rbxj-{reaper,watch,health,audit,metrics}.service \
        lib/systemd/system/rbxj-{health,audit,metrics}.timer lib/tmpfiles.d/rbxj.conf share/rbxj/supervisor.conf \
        share/bash-completion/completions/rbxj share/zsh/vendor-completions/_rbxj $(manuals); do
        there "$work/dest/usr/$path" || { echo "  missing: $path"; return 1; }
    done
    grep -q '^ExecStart=/usr/bin/rbxj replay --boot$' "$work/dest/usr/lib/systemd/system/rbxj-reaper.service"
}
check "everything is in its place, with the paths of the prefix" there_in_dest
uninstall() {
    make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR="$work/dest" PREFIX=/usr uninstall >"$work/out" 2>"$work/err" &&
        is "$(find "$work/dest" ! -type d)" ""
}
check "and is taken away again" uninstall
nothing_unfilled() { ! grep -rE '@[A-Z]+@' "$units" "$dropin" "$prefix/lib/tmpfiles.d"; }
check "no path is left to be filled in" nothing_unfilled

# ---- systemd's own view ----

# A supervisor as the drop-in's comment says.
mkdir -p "$work/etc/supervisor.service.d"
cp "$dropin" "$work/etc/supervisor.service.d/rbxj.conf"
printf '[Unit]\nDescription=A supervisor\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' \
    >"$work/etc/supervisor.service"
export SYSTEMD_UNIT_PATH=$work/etc:$units:
verify() {
    systemd-analyze verify --man=no "$@" >"$work/out" 2>&1 && is "$(cat "$work/out")" ""
}
check "systemd-analyze verify has nothing to say" verify "${services[@]}" "$units"/rbxj-{health,audit,metrics}.timer "$work/etc/supervisor.service"
broken_is_seen() {
    sed 's/^RequiresMountsFor/RequiresMountFor/' "$units/rbxj-reaper.service" >"$work/etc/broken.service"
    ! verify "$work/etc/broken.service"
}
check "and would say so" broken_is_seen
secure() {
    local unit
    for unit in "${services[@]}"; do
        systemd-analyze security --offline=yes --threshold=44 "$unit" >"$work/out" 2>"$work/err" || return 1
    done
}
check "exposure is 4.4 or less" secure

# Each of these would give the unit its own mounts, or let systemd remove a journal.
own_mounts='^(PrivateTmp|PrivateDevices|PrivateMounts|PrivateIPC|PrivateNetwork|PrivateUsers|ProtectSystem|ProtectHome'
own_mounts+='|ProtectKernel[A-Za-z]*|ProtectControlGroups|ProtectProc|ProcSubset|(ReadOnly|ReadWrite|Inaccessible|Exec|NoExec)Paths'
own_mounts+='|Bind[A-Za-z]*|TemporaryFileSystem|Root[A-Za-z]*|MountFlags|MountImages|Extension[A-Za-z]*|LogNamespace|DynamicUser'
own_mounts+='|IPCNamespacePath|(Runtime|State|Cache|Logs)Directory)='
no_namespace() { ! grep -E "$own_mounts" "${services[@]}"; }
check "no unit has mounts of its own, nor a directory that systemd removes" no_namespace
# systemd lets openat2() fail with ENOSYS where that is set.
no_enosys() { ! grep '^RestrictSUIDSGID=' "${services[@]}"; }
check "no filter takes away the call by which it opens" no_enosys
k33() {
    local unit
    for unit in "${services[@]}" "$dropin"; do
        grep -qx "RequiresMountsFor=$work/state" "$unit" || { echo "  not in $unit"; return 1; }
    done
}
check "k33: every unit requires the state directory's mount" k33
late_enough() { ! grep -E '^(Before=.*(sysinit|basic|local-fs)|DefaultDependencies=no)' "${services[@]}"; }
check "nothing that the machine boots by waits for the reaper" late_enough

# ---- tmpfiles.d ----

made() {
    systemd-tmpfiles --create --root="$work/root" "$prefix/lib/tmpfiles.d/rbxj.conf" >"$work/out" 2>"$work/err" &&
        is "$(stat -c '%a %u %F' "$work/root$work/state" "$work/root$work/run" | sort -u)" "700 0 directory"
}
mkdir "$work/root"
check "k33: tmpfiles.d makes both directories" made

# ---- the quarantine keeps a supervisor's unit from starting ----

fresh
condition() { systemd-analyze condition "$(grep ^Condition "$dropin")" >"$work/out" 2>"$work/err"; }
check "k31: a healthy worker's supervisor starts" condition
call health --quarantine --reason test
quarantined() { ! condition; }
check "k31: a quarantined worker's does not" quarantined
rm "$work/run/quarantined" # as a reboot does
call replay --boot
check "k31: not after a reboot either" quarantined
call health --unquarantine --reason test
check "k31: and again when the quarantine is over" condition

# ---- what the reaper may do is enough for every undo ----

# The calls that SystemCallFilter= allows, one a line.
allowed_calls() {
    python3 -I - "$1" <<'PY'
import subprocess, sys
groups, now = {}, None
for line in subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True).stdout.split("\n"):
    word = line.strip()
    if line[:1] == "@":
        now = groups.setdefault(word, [])
    elif word and word[0] != "#" and now is not None:
        now.append(word)
def calls(name):
    return {c for n in groups[name] for c in calls(n)} if name[0] == "@" else {name}
allowed = set()
for line in open(sys.argv[1]):
    if line.startswith("SystemCallFilter="):
        value = line.split("=", 1)[1].strip()
        named = {c for n in value.lstrip("~").split() for c in calls(n)}
        allowed = allowed - named if value[0] == "~" else allowed | named
print("\n".join(sorted(allowed)))
PY
}
capabilities=$(sed -n 's/^CapabilityBoundingSet=//p' "$units/rbxj-reaper.service" | tr 'A-Z\n' 'a-z ' | sed 's/cap_/+/g; s/  */,/g; s/,$//')

# as_unit ARG...: the program with the unit's capabilities; every call that it makes is in calls.
as_unit() {
    setpriv --bounding-set="-all,$capabilities" --no-new-privs strace -f -qq -o "$work/trace" "$rbxj" "$@" \
        >"$work/out" 2>"$work/err" </dev/null
    status=$?
    sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p; s/^[0-9]* *<\.\.\. \([a-z0-9_]*\) resumed.*/\1/p' "$work/trace" |
        grep -v '^syscall_' | sort -u >>"$work/calls" # without a name: ENOSYS by the filter, and known so
}
# A directory that only root's privileges open, with a file that nobody may remove, and a lock beside it.
things() {
    local box=$1 options=(--lock "$work/$1.lock" --tmpdir "$work/$1.dir" --mount "tmpfs,x,$work/$1.mnt" --mount "tmpfs,x,$shm/$1.mnt")
    [ -z "$group" ] || options+=(--cgroup "$group/$1")
    crash "$box" "${options[@]}" 2>/dev/null
    mkdir -p "$work/$box.dir/a/b"
    touch "$work/$box.dir/a/b/file" "$work/$box.dir/a/immutable"
    chown -R 12345:12345 "$work/$box.dir/a"
    chmod 0 "$work/$box.dir/a/b"
    chattr +i "$work/$box.dir/a/immutable"
}
: >"$work/calls"
fresh
# a box in a mount namespace of its own, which a helper has to enter
program=$rbxj
printf '#!/bin/sh\nexec unshare --mount --propagation private "%s" "$@"\n' "$program" >"$work/elsewhere"
chmod +x "$work/elsewhere"
rbxj=$work/elsewhere
start inside --mount "tmpfs,x,$work/inside.mnt"
rbxj=$program
nsenter -t "$supervisor" -m sleep 300 &
keeper=$!
inside() { grep -qF " $work/inside.mnt " "/proc/$keeper/mountinfo"; }
until_true inside
kill -KILL "$supervisor"
wait "$supervisor" 2>/dev/null
things boot
mv "$work/boot.dir" "$work/boot.renamed" # found by its file handle
as_unit replay --boot
check "a box of every kind is undone with the unit's capabilities" is "$status" 0
check "nothing of it is left" gone "$work/boot.lock" "$work/boot.dir" "$work/boot.renamed" "$work/boot.mnt"
not_inside() { ! inside; }
check "nor in a mount namespace that lives on" not_inside
kill -KILL "$keeper"
wait "$keeper" 2>/dev/null
fresh
# a process that is not root's, and nothing but itself to kill it by
"$rbxj" run --box another --lock "$work/another.lock" -- setpriv --reuid=12345 --clear-groups sleep 300 >"$work/run.out" \
    2>"$work/run.err" </dev/null &
supervisor=$!
payload_is_on() {
    payload=$(cut -d' ' -f1 "/proc/$supervisor/task/$supervisor/children" 2>/dev/null)
    [ -n "$payload" ] && is "$(stat -c %u "/proc/$payload")" 12345 >/dev/null
}
until_true payload_is_on || bad "a payload of another user"
kill -KILL "$supervisor"
wait "$supervisor" 2>/dev/null
as_unit replay --boot
check "a process of another user is killed with the unit's capabilities" is "$status" 0
is_dead() { ! kill -0 "$payload" 2>/dev/null; }
check "it is dead" is_dead
is_dead || kill -KILL "$payload"
fresh
# a directory that only its file handle finds: nobody knows whose business it is now, but gone it is not
crash moved --tmpdir "$shm/moved"
mkdir "$shm/away"
mv "$shm/moved" "$shm/away/moved"
as_unit replay --boot
was_moved() { is "$status" 1 && grep -qF "was moved to $shm/away/moved" "$work/err"; }
check "one that was moved away is found with the unit's capabilities" was_moved
mv "$shm/away/moved" "$shm/moved"
as_unit replay --boot
check "and removed when it is back" is "$status:$(ls "$shm")" 0:away
fresh
things recover
as_unit health --recover
check "and by health --recover" is "$status" 0
may_read_the_kernel() {
    call incidents --json && json 'd["incidents"][0]["kernel"]["error"] is None'
}
if dd if=/dev/kmsg of=/dev/null iflag=nonblock bs=8k count=1 2>/dev/null; then
    check "its incident has what the kernel logged" may_read_the_kernel
fi
check "nothing of that is left" gone "$work/recover.lock" "$work/recover.dir" "$work/recover.mnt"
allowed_calls "$units/rbxj-reaper.service" >"$work/allowed"
within_filter() {
    sort -u "$work/calls" | comm -23 - "$work/allowed" >"$work/out"
    is "$(tr '\n' ' ' <"$work/out")" ""
}
check "every system call of theirs passes the unit's filter" within_filter
was_called() { local name; for name; do grep -qx "$name" "$work/calls" || { echo "  no $name"; return 1; }; done; }
check "those that matter are among them" was_called umount2 clone3 setns open_by_handle_at pidfd_send_signal ioctl

# ---- what the service manager is told ----

# notified ARG...: the program's messages on NOTIFY_SOCKET are in out, one a line.
notified() {
    python3 -I - "$work/notify" "$rbxj" "$@" >"$work/out" 2>"$work/err" <<'PY'
import os, socket, subprocess, sys
path, command = sys.argv[1], sys.argv[2:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.bind(path)
    status = subprocess.run(command, env={**os.environ, "NOTIFY_SOCKET": path}, stdout=subprocess.DEVNULL).returncode
    os.unlink(path)
    manager.setblocking(False)
    try:
        while True:
            print(manager.recv(65536).decode())
    except BlockingIOError:
        sys.exit(status)
PY
}
printf '[replay]\nboot_deadline=100s\n' >"$work/rbxj.conf"
fresh
crash status --lock "$work/status.lock"
check "a replay at boot succeeds" notified --config "$work/rbxj.conf" replay --boot
check "it asks for its deadline and 30 s more" out_has EXTEND_TIMEOUT_USEC=130000000
result_is_told() { grep -q '^STATUS=1 stale boxes: [1-9][0-9]* undone, 0 already gone, 0 left$' "$work/out"; }
check "what became of it is its status" result_is_told

# ---- the completions ----

# complete WORD...: what the last one may become.
complete_words() {
    # shellcheck disable=SC2016
    bash --norc -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rbxj "$RBXJ" "${@: -1}" "${@: -2:1}"
        echo "${COMPREPLY[@]}"' bash "$prefix/share/bash-completion/completions/rbxj" rbxj "$@"
}
export RBXJ=$rbxj
completes() { is "$(complete_words rep)" replay && is "$(complete_words replay --dr)" --dry-run &&
    is "$(complete_words --quiet health --un)" --unquarantine && is "$(complete_words replay --lazy-umount la)" last-resort; }
check "commands and options are completed" completes
crash seven --tmpdir "$work/seven" 2>/dev/null
completes_box() { is "$(complete_words list --box se)" seven; }
check "and boxes" completes_box
call incidents --noheadings
incident=$(awk '{ print $1; exit }' "$work/out")
completes_incident() { [ -n "$incident" ] && is "$(complete_words incidents show "${incident%???}")" "$incident"; }
check "and incidents" completes_incident

# complete_line LINE: what its end may become, in a zsh on a terminal.
complete_line() {
    PATH=$(dirname "$rbxj"):$PATH timeout 60 zsh -f "$top/tests/complete.zsh" "$prefix/share/zsh/site-functions" "$1" 2>"$work/err" |
        sort -u | tr '\n' ' ' | sed 's/ $//'
}
zsh_completes() {
    is "$(complete_line 'rbxj rep')" replay && is "$(complete_line 'rbxj replay --dr')" --dry-run &&
        is "$(complete_line 'rbxj --quiet health --un')" --unquarantine &&
        is "$(complete_line 'rbxj replay --lazy-umount ')" 'last-resort never'
}
zsh_completes_names() {
    is "$(complete_line 'rbxj list --box ')" seven && is "$(complete_line 'rbxj incidents show ')" "$incident"
}
if zsh -f -c 'zmodload zsh/zpty && zpty shell true' 2>/dev/null; then
    check "zsh completes commands and options" zsh_completes
    check "zsh completes boxes and incidents" zsh_completes_names
fi

# ---- under the names that the runbook calls ----

own_patterns "$work/own.conf"
by_runbook() { PATH=$(dirname "$rbxj"):$PATH "$prefix/share/rbxj/$1" --config "$work/own.conf" >"$work/out" 2>"$work/err" </dev/null; }
recovers() { by_runbook rustbox-cleanup-all.sh && gone "$work/seven"; }
check "rustbox-cleanup-all.sh recovers" recovers
check "rustbox-audit-state.sh looks" by_runbook rustbox-audit-state.sh
finish
