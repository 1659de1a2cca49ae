# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The tests of hook.sh: hook.py RBXJ WORK SHM GROUP ("": no cgroups here). TAP on standard output.
# A supervisor is a forked process of its own, that talks to its hook through pipes and is killed.
import fcntl, json, os, select, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from hook_frame import (GROUP, SHM, WORK, Hook, Supervisor, at, boxes, check, code, fresh, line, lives, mounted, replay,
                        run, sleeper)
from hook_lines import lines, malformed

# ---- the life of a box ----


def life():
    fresh()
    h = Hook()
    plan = [{"kind": "lock", "path": at("lock")}, {"kind": "tmpdir", "path": at("tmp")},
            {"kind": "tmpdir", "path": at("root"), "rmdir_only": True}]
    r = h.ask("begin", "7", plan=plan)
    check("begin: its reply", r == {"ok": True, "box": "7", "incarnation": r.get("incarnation"), "seq": [1, 2, 3]}, r)
    check("begin: the incarnation is a string of digits", str(r.get("incarnation")).isdigit(), r)
    incarnation = r["incarnation"]
    b = boxes()["7"]
    check("begin: journaled before anything is acquired (I1)",
          [x["found"] for x in b["records"]] == ["gone"] * 3 and b["incarnation"] == incarnation, b)
    check("begin: the parent is the supervisor", b["supervisor"] == {"pid": os.getpid(), "alive": True}, b)

    lock = open(at("lock"), "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.mkdir(at("tmp"))
    os.mkdir(at("root"))
    for seq in 1, 2, 3:
        check(f"acquired {seq}", h.ask("acquired", "7", seq=seq) == {"ok": True})
    open(at("tmp/data"), "w").write("x")
    os.makedirs(at("tmp/deep/deeper"))

    r = h.ask("intend", "7", resource={"kind": "mount", "target": at("root"), "fstype": "tmpfs", "source": "rustbox"})
    check("intend: a mount's reply names the source (K1)",
          r == {"ok": True, "seq": 4, "source": f"rbxj:{incarnation}:4"}, r)
    subprocess.run(["mount", "-t", "tmpfs", r.get("source", "x"), at("root")], check=True)
    check("acquired: the mount", h.ask("acquired", "7", seq=4) == {"ok": True})

    if GROUP:
        r = h.ask("intend", "7", resource={"kind": "cgroup", "path": f"{GROUP}/7"})
        check("intend: a cgroup has no source", r == {"ok": True, "seq": 5}, r)
        os.mkdir(f"{GROUP}/7")
        check("acquired: the cgroup", h.ask("acquired", "7", seq=5) == {"ok": True})
    child = sleeper()
    r = h.ask("intend", "7", resource={"kind": "process", "pid": child})
    check("intend: a process", r["ok"] and set(r) == {"ok", "seq"}, r)
    check("acquired: the process", h.ask("acquired", "7", seq=r["seq"]) == {"ok": True})
    if GROUP:
        open(f"{GROUP}/7/cgroup.procs", "w").write(str(child))

    raw = os.fsencode(at("by")) + b"te\xff\n"
    r = h.ask("intend", "7", resource={"kind": "tmpdir", "path_raw": raw.hex()})
    check("path_raw: intend", r["ok"], r)
    os.mkdir(raw)
    check("path_raw: acquired", h.ask("acquired", "7", seq=r["seq"])["ok"])
    b = boxes()["7"]
    check("path_raw: the journal has the bytes", b["records"][-1].get("raw") == raw.hex(), b["records"][-1])
    check("all of it is there, with evidence",
          all(x["found"] == "present" and x["evidence"] for x in b["records"]), b)
    check("released: what is still there", code(h.ask("released", "7", seq=r["seq"])) == "exists")
    os.rmdir(raw)
    check("released: what was given back", h.ask("released", "7", seq=r["seq"]) == {"ok": True})
    check("released: drops the record", len(boxes()["7"]["records"]) == len(b["records"]) - 1)

    check("end refuses while something is left", code(h.ask("end", "7")) == "left")
    r = h.ask("undo", "7")
    n = 6 if GROUP else 5
    check("undo: newest first, as replay's entries",
          r["ok"] and "left" not in r and [e["seq"] for e in r["entries"]] == list(range(n, 0, -1)) and
          {e["outcome"] for e in r["entries"]} == {"undone"} and
          set(r["entries"][0]) >= {"seq", "kind", "name", "found", "action", "outcome", "error"}, r)
    check("undo: everything is gone", not lives(child) and not mounted(at("root")) and os.listdir(at("")) == [] and
          not (GROUP and os.path.exists(f"{GROUP}/7")), os.listdir(at("")))
    check("end", h.ask("end", "7") == {"ok": True})
    check("end: the box is no more", code(h.ask("end", "7")) == "no_such_box" and boxes() == {})
    check("end of input: 0, and nothing more is said", h.end() == (0, b""))
    lock.close()


def sources_and_parents():
    fresh()
    h = Hook()
    os.mkdir(at("m"))
    os.mkdir(at("n"))
    plan = [{"kind": "lock", "path": at("lock")},
            {"kind": "mount", "target_raw": at("m").encode().hex().upper(), "fstype": "tmpfs", "source": "x"},
            {"kind": "mount", "target": at("n"), "fstype": "bind", "source_raw": at("m").encode().hex()}]
    r = h.ask("begin", "outer", plan=plan)
    check("begin: sources beside seq, null where the type takes none",
          r["ok"] and r.get("sources") == [None, f"rbxj:{r['incarnation']}:2", None], r)
    subprocess.run(["mount", "-t", "tmpfs", r["sources"][1], at("m")], check=True)
    check("a mount with the source that begin named", h.ask("acquired", "outer", seq=2)["ok"])
    check("inside it: refused without parent (K4)",
          code(h.ask("begin", "inner", plan=[{"kind": "tmpdir", "path": at("m/in")}])) == "exists")
    check("no such parent", code(h.ask("begin", "inner", parent="nobody")) == "no_such_box")
    r = h.ask("begin", "inner", parent="outer", plan=[{"kind": "tmpdir", "path": at("m/in")}])
    check("inside it: with parent", r["ok"] and r["seq"] == [1], r)

    # another hook of the same supervisor goes on with the box, and begins it anew
    other = Hook()
    check("a second hook of the same supervisor: undo", other.ask("undo", "inner")["ok"])
    check("a second hook of the same supervisor: end", other.ask("end", "inner")["ok"])
    check("a second hook: undo of the outer one", other.ask("undo", "outer")["ok"] and not mounted(at("m")))
    check("a second hook: end of the outer one", other.ask("end", "outer")["ok"])
    again = other.ask("begin", "outer")
    check("begin without a plan", again["ok"] and again["seq"] == [] and "sources" not in again, again)
    r = h.ask("intend", "outer", resource={"kind": "mount", "target": at("m"), "fstype": "tmpfs", "source": "x"})
    check("the source is of the incarnation that there is now",
          r.get("source") == f"rbxj:{again['incarnation']}:1", r, again)

    # what is left is told, and end refuses
    r = h.ask("intend", "outer", resource={"kind": "tmpdir", "path": at("tmp")})
    os.mkdir(at("tmp"))
    h.ask("acquired", "outer", seq=r["seq"])
    os.rmdir(at("tmp"))
    os.mkdir(at("tmp"))
    r = h.ask("undo", "outer")
    check("undo that leaves something: ok, and says so",
          r["ok"] and r.get("left") == 1 and [e["outcome"] for e in r["entries"]] == ["refused", "already_gone"], r)
    check("and end refuses", code(h.ask("end", "outer")) == "left")
    os.rmdir(at("tmp"))
    check("once the other one is gone it is undone, and the box ends", h.ask("undo", "outer")["ok"] and
          not os.path.exists(at("tmp")) and h.ask("end", "outer")["ok"])

    h.ask("begin", "outer", plan=[{"kind": "tmpdir", "path": at("tmp"), "rmdir_only": True}])
    os.mkdir(at("tmp"))
    h.ask("acquired", "outer", seq=1)
    open(at("tmp/data"), "w").close()
    r = h.ask("undo", "outer")
    check("rmdir_only: what is not empty is left (K18)", r.get("left") == 1 and os.path.exists(at("tmp/data")), r)
    os.remove(at("tmp/data"))
    check("rmdir_only: empty, it is undone", "left" not in h.ask("undo", "outer") and not os.path.exists(at("tmp")))
    check("end of input with a box: 0", h.end()[0] == 0 and other.end()[0] == 0)


# ---- whose box it is (K8) ----


def supervisors():
    fresh()
    h = Hook()
    h.ask("begin", "7", plan=[{"kind": "tmpdir", "path": at("tmp")}])

    def another():
        return [code(Hook().ask(op, "7", **more)) for op, more in
                [("begin", {}), ("intend", {"resource": {"kind": "lock", "path": at("l")}}), ("acquired", {"seq": 1}),
                 ("released", {"seq": 1}), ("undo", {}), ("end", {})]]

    s = Supervisor(another)
    check("another supervisor's hook: box_live", s.said == ["box_live"] * 6, s.said)
    s.kill()
    check("the box is as it was", len(boxes()["7"]["records"]) == 1)

    # a hook in a session of its own, as setsid or a service manager makes it
    far = Hook(start_new_session=True)
    r = far.ask("begin", "far")
    check("another session, no pid: refused, says what to give", code(r) == "bad_request" and '"pid"' in
          r["error"]["message"], r)
    check("another session: nothing was recorded", set(boxes()) == {"7"})
    check("another session, with pid: works", far.ask("begin", "far", pid=os.getpid())["ok"])
    check("another session: the supervisor is that one", boxes()["far"]["supervisor"]["pid"] == os.getpid())
    check("pid 1 is a supervisor like any", far.ask("begin", "one", pid=1)["ok"])
    check("and its box ends", far.ask("end", "one")["ok"] and far.ask("end", "far")["ok"])
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead
    check("a dead supervisor is refused", code(far.ask("begin", "dead", pid=dead.pid)) == "bad_request")
    dead.wait()
    check("a pid that nobody has is refused", code(far.ask("begin", "dead", pid=dead.pid)) == "bad_request")
    far.end()

    # its parent dies, and it gets another one
    def leaves_hook():
        Hook(stdin=r_in, stdout=w_out)

    r_in, w_in = os.pipe()
    r_out, w_out = os.pipe()
    s = Supervisor(leaves_hook)
    os.close(w_out)
    out = open(r_out, "rb")
    os.write(w_in, line("begin", "mine", plan=[{"kind": "tmpdir", "path": at("mine")}]))
    check("its parent lives: begin", json.loads(out.readline())["ok"])
    check("its parent is the supervisor", boxes()["mine"]["supervisor"]["pid"] == s.pid)
    s.kill()
    for name in "late", "later":
        os.write(w_in, line("begin", name, plan=[{"kind": "tmpdir", "path": at("late")}]))
        r = json.loads(out.readline())
        check("its parent died: begin is refused", code(r) == "bad_request" and '"pid"' in r["error"]["message"], r)
    os.write(w_in, line("intend", "mine", resource={"kind": "tmpdir", "path": at("late")}))
    check("its parent died: intend is refused", code(json.loads(out.readline())) == "box_stale")
    check("its parent died: nothing was recorded", set(boxes()) == {"7", "mine"})
    os.write(w_in, line("begin", "given", pid=os.getpid()))
    check("its parent died: with pid it goes on", json.loads(out.readline())["ok"])
    os.close(w_in)
    out.close()
    h.end()


# ---- crashes ----


def many_boxes():
    for by_pid in True, False:
        many_boxes_of(by_pid)


def many_boxes_of(by_pid):
    """500 boxes for one supervisor that dies; every tenth one has real things."""
    fresh()
    n, real = 500, 10

    def things(k):
        place = SHM if k % real else WORK + "/w"  # on disk a plan costs a durable commit
        return [{"kind": "lock", "path": f"{place}/{k}.lock"}, {"kind": "tmpdir", "path": f"{place}/{k}.tmp"}] + (
            [{"kind": "cgroup", "path": f"{GROUP}/{k}"}] if GROUP else [])

    def act():
        h = Hook()
        h.raw(b"".join(line("begin", f"b{k}", plan=things(k)) for k in range(n)))
        good = all(h.reply()["ok"] for _ in range(n))
        for k in range(0, n, real):
            make(k)
            for seq in range(1, len(things(k)) + 1):
                good = good and h.ask("acquired", f"b{k}", seq=seq)["ok"]
            open(at(f"{k}.tmp/data"), "w").write("x")
        return good

    def make(k):
        open(at(f"{k}.lock"), "w").write('{"pid":1}')
        os.mkdir(at(f"{k}.tmp"))
        if GROUP:
            os.mkdir(f"{GROUP}/{k}")

    name = f"500 boxes, supervisor by {'pid' if by_pid else 'parentage'}: "
    if by_pid:
        s = Supervisor(lambda: True)
        h = Hook()
        h.raw(b"".join(line("begin", f"b{k}", pid=s.pid, plan=things(k)) for k in range(n)))
        good = all(h.reply()["ok"] for _ in range(n))
        for k in range(0, n, real):
            make(k)
            for seq in range(1, len(things(k)) + 1):
                good = good and h.ask("acquired", f"b{k}", seq=seq)["ok"]
        check(name + "begun and acquired", good)
    else:
        s = Supervisor(act)
        check(name + "begun and acquired", s.said is True)
    check(name + "all are live", (lambda b: len(b) == n and {x["state"] for x in b.values()} == {"live"})(boxes()))
    s.kill()
    if by_pid:
        check(name + "its hook notices", code(h.ask("intend", "b0", resource=things(n)[0])) == "box_stale")
    status, d = replay()
    check(name + "one replay undoes all", status == 0 and d["summary"]["boxes"] == n and d["summary"]["left"] == 0 and
          d["summary"]["undone"] == len(things(0)) * (n // real), status, d["summary"])
    check(name + "nothing is left", os.listdir(at("")) == [] and boxes() == {} and
          not (GROUP and [x for x in os.listdir(GROUP) if os.path.isdir(f"{GROUP}/{x}")]))
    if by_pid:
        h.end()


def killed_hook():
    for part in 1, 2, 3:
        fresh()
        h = Hook()
        n = 5000
        place = WORK + "/w" if part == 1 else SHM  # with a durable commit each, and without
        data = b"".join(line("begin", f"b{k}", plan=[{"kind": "tmpdir", "path": f"{place}/t{k}"}]) for k in range(n))
        os.set_blocking(h.p.stdin.fileno(), False)
        got, sent, buffered = [], 0, b""
        while len(got) < 200 * part:
            if sent < len(data):
                sent += h.p.stdin.write(data[sent:sent + 65536]) or 0
            if select.select([h.p.stdout], [], [], 0.01)[0]:
                buffered += os.read(h.p.stdout.fileno(), 3000)
                *whole, buffered = buffered.split(b"\n")
                got += whole
        h.p.kill()
        h.p.wait()
        buffered += h.p.stdout.read()
        *whole, rest = buffered.split(b"\n")
        got = [json.loads(g) for g in got + whole]
        there = boxes()
        acknowledged = {g["box"]: g["incarnation"] for g in got if g["ok"]}
        check("hook killed: every acknowledged box is there",
              len(acknowledged) == len(got) and
              all(there.get(b, {}).get("incarnation") == i for b, i in acknowledged.items()))
        check("hook killed: and at most one more", len(acknowledged) <= len(there) <= len(acknowledged) + 1,
              len(acknowledged), len(there))
        check("hook killed: it was half-way", rest == b"" and len(got) < n, len(got), rest)
        again = Hook()
        check("hook killed: another one of the supervisor ends them",
              all(again.ask("undo", b)["ok"] and again.ask("end", b)["ok"] for b in list(there)[:20]))
        again.end()


def killed_before_acquired():
    """The source that the hook named is all that proves a mount that was never acknowledged (K1)."""
    fresh()
    for name in "root", "late", "theirs":
        os.mkdir(at(name))

    def mount(name):
        return {"kind": "mount", "target": at(name), "fstype": "tmpfs", "source": "rustbox"}

    def act():
        h = act.hook = Hook()
        first = h.ask("begin", "7", plan=[mount("root"), mount("theirs")])["sources"][0]
        subprocess.run(["mount", "-t", "tmpfs", first, at("root")], check=True)
        second = h.ask("intend", "7", resource=mount("late"))["source"]
        subprocess.run(["mount", "-t", "tmpfs", second, at("late")], check=True)
        return True

    s = Supervisor(act)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", at("theirs")], check=True)
    s.kill()
    status, d = replay()
    check("killed before acquired: what has the named source is undone",
          not mounted(at("root")) and not mounted(at("late")) and d["summary"]["undone"] == 2, d)
    check("killed before acquired: a stranger's mount is not (I4)", mounted(at("theirs")))
    subprocess.run(["umount", at("theirs")], check=True)


def inherited():
    """Whoever inherits a lock's descriptor has the lock (K7): a hook must not."""
    fresh()
    h = Hook()
    check("inherited: begin", h.ask("begin", "7", plan=[{"kind": "lock", "path": at("lock")}])["ok"])
    lock = open(at("lock"), "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    late = Hook(pass_fds=[lock.fileno()])
    check("inherited: acquired, by a hook that was started with the lock open", late.ask("acquired", "7", seq=1)["ok"])
    lock.close()
    links = [os.readlink(f"/proc/{late.p.pid}/fd/{n}") for n in os.listdir(f"/proc/{late.p.pid}/fd")]
    check("inherited: its owner alone has the lock", at("lock") not in links, links)
    check("inherited: undone", late.ask("undo", "7")["ok"] and late.ask("end", "7")["ok"])
    h.end(), late.end()


def rustbox_lock():
    """A supervisor writes its own lock file, and journals it through the hook."""
    content = ('{"pid":4242,"box_id":3,"created_at":{"secs_since_epoch":1770000000,"nanos_since_epoch":0},'
               '"rustbox_version":"0.1.0"}')
    fresh()
    with open(at("old"), "w") as f:
        f.write("before")
    ino = os.stat(at("old")).st_ino

    def act():
        h = Hook()
        good = h.ask("begin", "3")["ok"]
        for name in "new", "old":
            r = h.ask("intend", "3", resource={"kind": "lock", "path": at(name)})
            f = open(at(name), "r+" if name == "old" else "x")
            fcntl.flock(f, fcntl.LOCK_EX)
            f.truncate(0)
            f.write(content)
            f.flush()
            good = good and h.ask("acquired", "3", seq=r["seq"])["ok"]
            act.keep = getattr(act, "keep", []) + [f]
        act.hook = h
        return good

    s = Supervisor(act)
    check("a rustbox lock: journaled", s.said is True, s.said)
    check("a rustbox lock: is what it wrote", open(at("new")).read() == open(at("old")).read() == content)
    status, d = replay()
    check("a rustbox lock: its supervisor lives", status == 0 and d["summary"]["live"] == 1 and
          os.path.exists(at("new")), d)
    s.kill()
    status, d = replay()
    check("a rustbox lock: replayed", status == 0 and d["summary"]["undone"] == 2, status, d)
    check("a rustbox lock: the new one is gone", not os.path.exists(at("new")))
    check("a rustbox lock: the one that was there before is restored",
          open(at("old")).read() == "before" and os.stat(at("old")).st_ino == ino)
    check("a rustbox lock: no record", boxes() == {})


run(life, sources_and_parents, supervisors, malformed, lines, many_boxes, killed_hook, killed_before_acquired,
    inherited, rustbox_lock)
