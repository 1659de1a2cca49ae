#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj audit from outside: audit.sh [RBXJ]
. "${0%/*}/lib.bash"

fresh
boxes=$shm/boxes
mkdir -p "$boxes"
ours=rbxjaudit.${work##*.} # another run beside this one has others
cat >"$work/rbxj.conf" <<EOF
[discover]
locks=
locks=$boxes/*/lock
cgroups=
cgroups=$ours-*
mounts=
mounts=$boxes/*
tmpdirs=
tmpdirs=$boxes/tmp-*
EOF
not_mounted() { ! mounted "$1"; }
not_lives() { ! lives "$1"; }
no_escape() { ! grep -q $'\e' "$work/out"; }
audit() { call --config "$work/rbxj.conf" audit "$@"; }
picture() { find "$work/state" "$work/run" -type f -exec sha256sum {} + | sort; }

audit
check "nothing: exits 0" is "$status" 0
check "nothing: says so" out_has "nothing that is not journaled"
check "nothing: makes nothing" is "$(ls -A "$work/state")" ""

# ---- an installation that knows nothing of rbxj ----

mkdir -p "$boxes/7/root" "$boxes/tmp-7/deep/er"
echo '{"pid":999999999,"box_id":"7"}' >"$boxes/7/lock"
touch -d '3 days ago' "$boxes/7/lock"
touch "$boxes/tmp-7/deep/er/file" "$boxes/tmp-no-directory"
mount -t tmpfs old "$boxes/7/root"
touch "$boxes/7/root/inside"
[ -n "$group" ] && mkdir -p "$group/$ours-7/child"
audit --json
check "found: exits 1" is "$status" 1
check "found: the lock" json '[i for i in d["unjournaled"] if i["kind"] == "lock" and i["name"].endswith("/7/lock")]'
check "found: its age and its dead pid" \
    json '[i for i in d["unjournaled"] if i["kind"] == "lock" and 250000 < i["age_s"] < 270000 and i["pid_is_dead"]]'
check "found: the mount" json '[i for i in d["unjournaled"] if i["kind"] == "mount" and i["name"].endswith("/7/root")]'
check "found: the directory, and no file" json '[i["name"][-5:] for i in d["unjournaled"] if i["kind"] == "tmpdir"] == ["tmp-7"]'
[ -n "$group" ] && check "found: the cgroup, without its child" \
    json 'len([i for i in d["unjournaled"] if i["kind"] == "cgroup"]) == 1'
check "found: nobody uses them" json 'not any(i["live"] for i in d["unjournaled"])'
check "found: which pattern" json 'all(i["pattern"] for i in d["unjournaled"])'
check "found: nothing is missing" json 'd["missing"] == []'
check "looking makes nothing" is "$(ls -A "$work/state")" ""
audit
check "table: the lock, and its dead pid" out_has "999999999 (dead)"
audit --adopt </dev/null
check "adopt: asks on a terminal only" is "$status" 2
audit --yes
check "--yes goes with --adopt" is "$status" 2
audit "$boxes/7/lock"
check "a name goes with --adopt" is "$status" 2

# ---- what somebody uses is refused (K30) ----

(exec 9<"$boxes/tmp-7/deep/er/file"; exec sleep 1000) &
reader=$!
(cd "$boxes/7/root" && exec sleep 1000) &
dweller=$!
exec 8<"$boxes/7/lock"
flock 8
if [ -n "$group" ]; then
    sleep 1000 & member=$!
    echo $member >"$group/$ours-7/child/cgroup.procs"
fi
until [ "$(readlink /proc/$dweller/cwd)" = "$boxes/7/root" ] && [ "$(readlink /proc/$reader/exe)" != "$(readlink /proc/$$/exe)" ]; do :; done
audit --json --adopt --yes
check "in use: exits 1" is "$status" 1
check "in use: none is adopted" json 'all(i["live"] and i["adopted"] is None and i["error"]["name"] == "EBUSY" for i in d["unjournaled"])'
check "in use: the holder of the lock" json '[i for i in d["unjournaled"] if i["kind"] == "lock" and "held by pid" in i["user"]]'
check "in use: who dwells in the mount" \
    json '[i for i in d["unjournaled"] if i["kind"] == "mount" and "working directory of pid '$dweller'" in i["user"]]'
check "in use: who has a file open" json '[i for i in d["unjournaled"] if i["kind"] == "tmpdir" and "open in pid '$reader'" in i["user"]]'
[ -n "$group" ] && check "in use: who is in the cgroup" \
    json '[i for i in d["unjournaled"] if i["kind"] == "cgroup" and "'$member'" in i["user"]]'
call list --json
check "in use: nothing is journaled" json 'd["boxes"] == []'
kill -KILL $reader $dweller ${member:-}
wait $reader $dweller ${member:-} 2>/dev/null
exec 8<&-
echo '{"pid":'$$'}' >"$boxes/7/lock"
audit --json
check "a lock that names a living process is live" json '[i for i in d["unjournaled"] if i["kind"] == "lock" and i["live"]]'
echo '{"pid":'$$'}' >"$boxes/7/lock"
touch -d '3 days ago' "$boxes/7/lock"
audit --json
check "of that number, but younger than the lock: it is not" \
    json '[i for i in d["unjournaled"] if i["kind"] == "lock" and not i["live"] and i["pid_is_dead"]]'

# a sandbox that lives in it, as its root: what its processes have open is named from there
cat >"$work/sandbox" <<'EOF'
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(r):
    if r != 0: sys.exit(os.strerror(ctypes.get_errno()))
root = sys.argv[1].encode()
call(libc.unshare(0x20000))                                   # CLONE_NEWNS
call(libc.mount(None, b"/", None, 0x4000 | 0x40000, None))    # private, all of it
if sys.argv[2] == "bind":                                     # of itself
    call(libc.mount(root, root, None, 0x1000, None))
    os.chdir(root)
else:
    for d in b"low", b"up", b"work", b"all": os.mkdir(root + b"/" + d)
    call(libc.mount(b"o", root + b"/all", b"overlay", 0,
                    b"lowerdir=%s/low,upperdir=%s/up,workdir=%s/work" % (root, root, root)))
    os.chdir(root + b"/all")
    os.mkdir("old")
call(libc.syscall({"aarch64": 41, "riscv64": 41}.get(os.uname().machine, 155), b".", b"old")) # pivot_root(2)
call(libc.umount2(b"/old", 2))
os.chdir("/")
open("/ready", "w").close()
signal.pause()
EOF
for how in bind overlay; do
    mkdir "$boxes/tmp-root" "$boxes/tmp-root/old"
    python3 -I -S "$work/sandbox" "$boxes/tmp-root" $how &
    sandbox=$!
    is_up() { [ -e "/proc/$sandbox/root/ready" ]; }
    until_true is_up
    audit --json --adopt --yes "$boxes/tmp-root"
    check "a living sandbox's root is live: $how" \
        json '[i for i in d["unjournaled"] if i["name"].endswith("/tmp-root") and i["live"] and "'$sandbox'" in i["user"] and not i["adopted"]]'
    kill -KILL $sandbox
    wait $sandbox 2>/dev/null
    audit --json
    check "and no more when it is dead: $how" json '[i for i in d["unjournaled"] if i["name"].endswith("/tmp-root") and not i["live"]]'
    rm -rf "$boxes/tmp-root"
done

# what is in use without a descriptor that leads to it
mkdir -p "$boxes/tmp-socket" "$boxes/tmp-shown/below" "$boxes/tmp-layers/"{low,up,work} "$work/shown" "$work/merged"
python3 -I -S -c 'import signal, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print(flush=True)
signal.pause()' "$boxes/tmp-socket/api" >"$work/listens" &
listener=$!
mount --bind "$boxes/tmp-shown/below" "$work/shown"
mount -t overlay none "$work/merged" \
    -o "lowerdir=$boxes/tmp-layers/low,upperdir=$boxes/tmp-layers/up,workdir=$boxes/tmp-layers/work"
until_true test -s "$work/listens"
audit --json --adopt --yes "$boxes/tmp-socket" "$boxes/tmp-shown" "$boxes/tmp-layers"
check "with a bound socket, shown elsewhere, a layer: in use" json '{i["name"].rpartition("-")[2]: i["user"].rpartition("/")[2]
    for i in d["unjournaled"] if i["live"] and not i["adopted"]} == {"socket": "a socket is bound in it", "shown": "shown", "layers": "merged"}'
kill -KILL $listener
wait $listener 2>/dev/null
umount "$work/shown" "$work/merged"
audit --json
check "and then no more" json '[i["live"] for i in d["unjournaled"] if i["name"].endswith(("/tmp-socket", "/tmp-shown", "/tmp-layers"))] == [False] * 3'
rm -rf "$boxes/tmp-socket" "$boxes/tmp-shown" "$boxes/tmp-layers"

if [ -n "$group" ]; then
    mkdir "$group/$ours-open"
    exec 7<"$group/$ours-open/cgroup.events"
    audit --json --adopt --yes "$group/$ours-open"
    check "a cgroup that somebody has open: in use" \
        json '[i for i in d["unjournaled"] if i["name"].endswith("-open") and i["live"] and "open in pid" in i["user"] and not i["adopted"]]'
    exec 7<&-
    rmdir "$group/$ours-open"

    mkdir -p "$group/$ours-covered/child"
    mount -t tmpfs none "$group/$ours-covered/child"
    sleep 120 &
    covered=$!
    echo $covered >"$group/$ours-covered/cgroup.procs"
    audit --json --adopt --yes "$group/$ours-covered"
    check "a cgroup that a mount hides a part of: in use" \
        json '[i for i in d["unjournaled"] if i["name"].endswith("-covered") and i["live"] and "hides who is there" in i["user"] and not i["adopted"]]'
    kill -KILL $covered
    wait $covered 2>/dev/null
    umount "$group/$ours-covered/child"
    rmdir "$group/$ours-covered/child" "$group/$ours-covered"
fi

mkdir "$boxes/tmp-loop" "$work/loop"
truncate -s 8M "$boxes/tmp-loop/image"
if mke2fs -q "$boxes/tmp-loop/image" && mount -o loop "$boxes/tmp-loop/image" "$work/loop" 2>/dev/null; then
    audit --json --adopt --yes "$boxes/tmp-loop"
    check "with the file of a loop device: in use" \
        json '[i for i in d["unjournaled"] if "the file of /dev/loop" in (i["user"] or "") and not i["adopted"]]'
    umount "$work/loop"
fi
rm -rf "$boxes/tmp-loop"

# a lock that names a living process, in a directory that nobody has open
mkdir "$boxes/tmp-outer"
echo '{"pid":'$$'}' >"$boxes/tmp-outer/lock"
audit --json --adopt --yes "$boxes/tmp-outer" "$boxes/tmp-outer/lock"
check "what a lock in use lies in is in use" \
    json '[(i["live"], i["adopted"]) for i in d["unjournaled"] if "/tmp-outer" in i["name"]] == [(True, None)] * 2'
rm -rf "$boxes/tmp-outer"

# ---- adopted, undone ----

until [ -z "$group" ] || ! grep -q . "$group/$ours-7/child/cgroup.procs"; do :; done
before=$(picture)
audit --adopt --yes "$boxes/tmp-7" "$boxes/tmp-77"
check "by a name that is not there: nothing is adopted" is "$status" 2
check "by a name that is not there: told" grep -q "tmp-77: is not among what looks like ours" "$work/err"
audit --json --adopt --yes "$boxes/tmp-7"
check "by name: exits 1, as the others are left" is "$status" 1
check "by name: this one alone" json '[i["name"][-5:] for i in d["unjournaled"] if i["adopted"]] == ["tmp-7"]'
call list --json
check "by name: it is in the journal, stale, with evidence" \
    json '[(b["state"], [r["evidence"] for r in b["records"]]) for b in d["boxes"]] == [("stale", [True])]'
check "by name: it is still there" test -e "$boxes/tmp-7/deep/er/file"
audit --json
check "by name: it is journaled now" json '"tmpdir" not in [i["kind"] for i in d["unjournaled"]]'
audit --json --adopt --yes
check "all: exits 0" is "$status" 0
check "all: adopted" json 'd["unjournaled"] and all(i["adopted"] for i in d["unjournaled"])'
audit --json
check "all: nothing is unjournaled" json 'd == {"unjournaled": [], "missing": []}'
call replay --dry-run
check "dry run: all of it can be done" is "$status" 0
# How often all processes are searched: this one's descriptors are looked at each time.
searches() {
    strace -f -qq -e trace=openat -o "$work/trace" "$rbxj" "$@" >"$work/out" 2>"$work/err"
    grep -c "\"\(/proc/\)\?$$/fd\"" "$work/trace"
}
if command -v strace >/dev/null; then
    check "look: all processes are searched once for all boxes" is "$(searches list)" 1
    for how in --dry-run --json; do
        strace -qq -o /dev/null -P "$$/fd" -P "/proc/$$/fd" -e trace=openat -e inject=openat:error=EMFILE "$rbxj" replay --json $how \
            >"$work/out" 2>"$work/err"
        check "want of descriptors ($how): that says nothing about what was adopted" \
            json '{(e["outcome"], e["error"] and e["error"]["name"]) for b in d["boxes"] for e in b["entries"]} == {("failed", "EMFILE")}'
    done
fi
call replay --json
check "replay: exits 0" is "$status" 0
check "replay: everything undone" json 'd["summary"]["left"] == 0 and d["summary"]["undone"] == 3 + '"$([ -n "$group" ] && echo 1 || echo 0)"
check "replay: the lock is gone" test ! -e "$boxes/7/lock"
check "replay: the mount is gone" not_mounted "$boxes/7/root"
check "replay: the directory is gone" test ! -e "$boxes/tmp-7"
check "replay: what did not match is there" test -d "$boxes/7/root" -a -e "$boxes/tmp-no-directory"
[ -n "$group" ] && check "replay: the cgroup is gone" test ! -e "$group/$ours-7"
audit
check "and then nothing" is "$status" 0

# ---- replaced after it was adopted: refused ----

mkdir "$boxes/tmp-8"
audit --adopt --yes
check "replaced: adopted" is "$status" 0
mv "$boxes/tmp-8" "$work/elsewhere"
mkdir "$boxes/tmp-8"
touch "$boxes/tmp-8/not-ours"
call replay --json
check "replaced: refused" is "$status" 1
check "replaced: it is there" test -e "$boxes/tmp-8/not-ours"
call list --json
id=$(grep -o '"adopted-[0-9a-f]*"' "$work/out" | head -n 1 | tr -d '"')
call forget --box "$id" --seq 1 --reason test
rm -rf "$boxes/tmp-8"

# ---- in use again since it was adopted: refused, and undone when it is idle again ----

mkdir "$boxes/tmp-again" "$boxes/again"
mount -t tmpfs none "$boxes/again"
mkdir "$boxes/"{named,held}
echo '{"pid":999999999}' | tee "$boxes/named/lock" >"$boxes/held/lock"
touch -d '1 day ago' "$boxes/"{named,held}/lock
[ -n "$group" ] && mkdir "$group/$ours-again"
audit --adopt --yes
(cd "$boxes/tmp-again" && echo data >file && exec sleep 1000) &
user=$!
(cd "$boxes/again" && echo data >file && exec sleep 1000) &
dweller=$!
(flock 6 && exec sleep 1000) 6<"$boxes/held/lock" &
holder=$!
echo '{"pid":'$$'}' >"$boxes/named/lock"
is_held() { ! flock -n "$boxes/held/lock" true; }
until_true is_held
until_true test -s "$boxes/tmp-again/file"
until_true test -s "$boxes/again/file"
[ -n "$group" ] && echo $user >"$group/$ours-again/cgroup.procs"
all_refused() { json '{e["outcome"] for b in d["boxes"] for e in b["entries"]} == {"refused"}'; }
call replay --dry-run --json
check "in use again: the dry run says so" all_refused
call replay --json --lazy-umount=last-resort
check "in use again: refused" all_refused
check "in use again: exits 1" is "$status" 1
check "in use again: who uses it is told" grep -q "since it was adopted.*pid $user" "$work/out"
check "in use again: who uses it lives" lives $user
check "in use again: what it uses is there" test -s "$boxes/tmp-again/file"
check "in use again: nor is the mount detached" test -s "$boxes/again/file"
check "in use again: the locks are there" there "$boxes/"{named,held}/lock
call reset --yes
call health --unquarantine --reason test
check "in use again: a reset kills nobody" is "$(lives $user && lives $dweller && lives $holder && is_held && echo all)" all
echo '{"pid":999999999}' >"$boxes/named/lock"
kill -KILL $user $dweller $holder
wait $user $dweller $holder 2>/dev/null
idle() { [ -z "$group" ] || ! grep -q . "$group/$ours-again/cgroup.procs"; }
until_true idle
call replay
check "idle again: undone" is "$status" 0
check "idle again: unmounted" not_mounted "$boxes/again"
check "idle again: gone" gone "$boxes/tmp-again" "$boxes/"{named,held}/lock ${group:+"$group/$ours-again"}

# ---- what the machine mounts by itself ----

if [ -e /etc/fstab ]; then
    mkdir "$boxes/volume"
    echo "none $boxes/volume tmpfs defaults 0 0" >"$work/fstab"
    mount --bind "$work/fstab" /etc/fstab # in this mount namespace
    mount -t tmpfs none "$boxes/volume"
    audit --json --adopt --yes
    check "of fstab: refused" json '[i["error"]["code"] for i in d["unjournaled"] if not i["adopted"]] == ["protected_path"]'
    umount /etc/fstab
    audit --json --adopt --yes
    check "of no fstab: adopted" is "$status" 0
    call replay
    check "of no fstab: gone" not_mounted "$boxes/volume"
fi

# ---- mounts on one another: one after the other ----

mkdir "$boxes/stack"
mount -t tmpfs under "$boxes/stack"
mount -t tmpfs over "$boxes/stack"
audit --json --adopt --yes
check "stack: the upper one alone" json 'sorted(bool(i["adopted"]) for i in d["unjournaled"]) == [False, True]'
call replay
audit --json --adopt --yes
check "stack: then the lower one" json '[bool(i["adopted"]) for i in d["unjournaled"]] == [True]'
call replay
check "stack: both are gone" not_mounted "$boxes/stack"

# ---- a lost journal is built again ----

crash lost --lock "$boxes/7/lock" --tmpdir "$boxes/tmp-9" --mount tmpfs,x,"$boxes/9"
kill -KILL "$(cat "$work/up-lost")"
until_true not_lives "$(cat "$work/up-lost")"
find "$work/state" "$work/run" -mindepth 1 -delete
audit --json
check "lost: all of it is found" json 'sorted(i["kind"] for i in d["unjournaled"]) == ["lock", "mount", "tmpdir"]'
audit --json --adopt --yes
check "lost: adopted" is "$status" 0
call replay
check "lost: undone" is "$status" 0
check "lost: the lock is gone" test ! -e "$boxes/7/lock"
check "lost: the directory is gone" test ! -e "$boxes/tmp-9"
check "lost: the mount is gone" not_mounted "$boxes/9"

# ---- missing: journaled, acquired, gone ----

crash gone --tmpdir "$boxes/tmp-10"
rmdir "$boxes/tmp-10"
audit --json
check "missing: told" json '[(i["box"], i["kind"]) for i in d["missing"]] == [("gone", "tmpdir")]'
check "missing: exits 1" is "$status" 1
audit
check "missing: in the table" out_has missing

# ---- names with any byte ----

mkdir "$boxes/tmp-"$'\n\e[31m\377'
audit --json
check "any byte: raw beside it" json '[i for i in d["unjournaled"] if bytes.fromhex(i.get("raw", "")).endswith(b"tmp-\n\x1b[31m\xff")]'
audit
check "any byte: no escape gets through" no_escape
audit --adopt --yes
call replay
check "any byte: adopted and undone" is "$(ls "$boxes" | grep -c tmp-)" 1

# ---- a root that is an overlay, as a container's ----

overlay
mkdir "$root/tmp/rustbox-1" "$root/var/rustbox-2"
touch "$root/rbxj" "$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mount --bind "$rbxj" "$root/rbxj"
mount --bind /proc "$root/proc"
printf '[discover]\ntmpdirs=/var/rustbox-*\n' >"$root/rbxj.conf"
inside() { timeout 30 chroot "$root" /rbxj --config /rbxj.conf --state-dir /srv --runtime-dir /run "$@" >"$work/out" 2>"$work/err"; }
inside audit --json
check "overlay: it is looked at" json '[i["name"] for i in d["unjournaled"]] == ["/tmp/rustbox-1", "/var/rustbox-2"]'
inside health
check "overlay: so is its room" is "$(grep unknown: "$work/out" "$work/err")" ""

finish
