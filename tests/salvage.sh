#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A damaged journal is mended as rbxj-forensics(1) says, beside a box that lives and a stranger's things: salvage.sh [RBXJ]
. "${0%/*}/lib.bash"
[ -n "$group" ] || { echo "needs cgroup2"; exit 77; }

# damage FILE HOW: "newest", "older" and "metas" lose meta pages; "page", "swap" and "cut" hit the page of a record.
damage() {
    call forensics --json "$1"
    python3 -I -S - "$work/out" "$@" <<'P'
import json, struct, sys
out, path, how = sys.argv[1:]
entries = json.load(open(out))["files"][0]["entries"]
size = 4096
with open(path, "r+b") as f:
    b = bytearray(f.read())
    txn = [struct.unpack_from("<Q", b, page * size + 144)[0] for page in (0, 1)]
    newest = txn.index(max(txn))
    pages = sorted({int(e["offset"]) // size for e in entries if e["newest_snapshot"]})
    for page in {"newest": [newest], "older": [1 - newest], "metas": [0, 1], "page": pages[:1]}.get(how, []):
        b[page * size:(page + 1) * size] = bytes(size)
    if how == "swap": # with a page of the other trees
        x, y = pages[-1] * size, struct.unpack_from("<Q", b, newest * size + 128)[0] * size
        b[x:x + size], b[y:y + size] = b[y:y + size], b[x:x + size]
    if how == "cut":
        del b[pages[-1] * size:]
    f.seek(0)
    f.write(b)
    f.truncate()
P
}

# A box that lives by a process, begun by a hook that has ended: nobody has the journals open.
live() {
    sleep 120 &
    owner=$!
    python3 -I -S - "$rbxj" "$owner" "$1" "$2" <<'P' || bad "a box that lives"
import json, os, subprocess, sys
rbxj, pid, tmpdir, cgroup = sys.argv[1:]
hook = subprocess.Popen([rbxj, "hook"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def ask(**request):
    hook.stdin.write(json.dumps(request).encode() + b"\n")
    hook.stdin.flush()
    reply = json.loads(hook.stdout.readline())
    assert reply["ok"], reply
ask(op="begin", box="live", pid=int(pid), plan=[{"kind": "tmpdir", "path": tmpdir}, {"kind": "cgroup", "path": cgroup}])
os.mkdir(tmpdir, 0o700)
os.mkdir(cgroup)
ask(op="acquired", box="live", seq=1)
ask(op="acquired", box="live", seq=2)
P
    touch "$1/file"
    sleep 120 &
    inside=$!
    echo "$inside" >"$2/cgroup.procs"
}

left() { # of the crashed boxes, by the system's own view: what is there and not in the journal
    local path
    call list --json
    for path in "$w/a" "$w/a.lock" "$g/a" "$w/b" "$shm/b"; do [ ! -e "$path" ] || out_has "\"$path\"" || echo "$path"; done
    for path in "$w/a.mount" "$shm/b.mount"; do ! mounted "$path" || out_has "\"$path\"" || echo "$path"; done
}

mount -t tmpfs stranger "$(mkdir "$work/stranger" && echo "$work/stranger")"
touch "$work/stranger/file"
for durability in resource always; do
    for how in newest older metas page swap cut; do
        export RBXJ_DURABILITY=$durability
        name="$durability, $how"
        w=$work/$durability-$how g=$group/$durability-$how
        mkdir "$w" "$g"
        fresh
        live "$w/live" "$g/live"
        crash a --lock "$w/a.lock" --cgroup "$g/a" --tmpdir "$w/a" --mount "tmpfs,x,$w/a.mount"
        crash b --tmpdir "$w/b" --tmpdir "$shm/b" --mount "tmpfs,x,$shm/b.mount"
        damage "$work/state/journal/data.mdb" $how
        damage "$(echo "$work"/run/journal-*/data.mdb)" $how
        call replay
        check "$name: nothing is undone" is "$status" 3
        rm -rf "$work/new" "$work/put"
        call forensics --salvage "$work/new"
        check "$name: salvaged" test "$status" -le 1
        mkdir -p "$work/put/state" "$work/put/run"
        mv "$work"/state/journal* "$work/put/state/"
        mv "$work"/run/journal* "$work/put/run/"
        mv -T "$work/new/journal" "$work/state/journal"
        call replay
        check "$name: replayed" test "$status" -le 1
        check "$name: a stranger's is untouched" there "$work/stranger/file"
        check "$name: the living box, too" there "$w/live/file" "$g/live"
        check "$name: and its processes" lives "$inside"
        [ $how = older ] && check "$name: with the newest snapshot whole, all is undone" \
            gone "$w/a" "$w/a.lock" "$g/a" "$w/b" "$shm/b"
        [ $how = metas ] || [ $how = cut ] || check "$name: nothing is lost" is "$(left)" ""
        kill -KILL "$owner" "$inside"
        wait "$owner" "$inside" 2>/dev/null
        umount -l "$w/a.mount" "$shm/b.mount" 2>/dev/null
        rm -rf "$w" "$shm/b" "$shm/b.mount"
    done
done
call health --unquarantine --reason "looked into"
call run --box again --tmpdir "$work/again" -- true
check "in use again" is "$status" 0

finish
