# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The tests of hook.sh: hook.py RBXJ WORK SHM GROUP ("": no cgroups here). TAP on standard output.
# A supervisor is a forked process of its own, that talks to its hook through pipes and is killed.
import fcntl, json, os, select, signal, socket, subprocess, sys, time, traceback

RBXJ, WORK, SHM, GROUP = sys.argv[1:5]
MIB = 1 << 20
counts = {True: 0, False: 0}


def check(name, good, *shown):
    counts[bool(good)] += 1
    print("ok" if good else "not ok", sum(counts.values()), name)
    if not good:
        print("  at line", traceback.extract_stack()[-2].lineno, *(repr(s)[:600] for s in shown))


def fresh():
    """An empty journal and an empty directory for things."""
    for name in "state", "run", "w":
        subprocess.run(["rm", "-rf", f"{WORK}/{name}"], check=True)
        os.mkdir(f"{WORK}/{name}", 0o700)
    os.environ.update(RBXJ_STATE_DIR=f"{WORK}/state", RBXJ_RUNTIME_DIR=f"{WORK}/run")


def at(name):
    return f"{WORK}/w/{name}"


def program(*args):
    p = subprocess.run([RBXJ, *args, "--json"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    return p.returncode, json.loads(p.stdout)


def boxes():
    return {b["box"]: b for b in program("list")[1]["boxes"]}


def replay():
    return program("replay")


def line(op, box, **more):
    return json.dumps({"op": op, "box": box, **more}).encode() + b"\n"


class Hook:
    def __init__(self, **how):
        how = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **how}
        self.p = subprocess.Popen([RBXJ, "hook"], bufsize=0, stderr=open(f"{WORK}/err", "wb"), **how)
        self.out = self.p.stdout and open(self.p.stdout.fileno(), "rb", closefd=False)

    def raw(self, data):
        self.p.stdin.write(data)

    def reply(self):
        got = self.out.readline()
        assert got.endswith(b"\n"), got
        return json.loads(got)

    def ask(self, op, box, **more):
        self.raw(line(op, box, **more))
        return self.reply()

    def end(self):
        self.p.stdin.close()
        rest = self.out.read()
        return self.p.wait(), rest


def talk(data, **how):
    """What a hook answers to all of that and an end of input: (status, replies)."""
    p = subprocess.run([RBXJ, "hook"], input=data, capture_output=True, timeout=60, **how)
    return p.returncode, [json.loads(r) for r in p.stdout.splitlines()]


def code(reply):
    return reply["ok"] or reply["error"]["code"]


class Supervisor:
    """A process of its own that runs act(), says so, and stays until it is killed, or the tests are."""

    def __init__(self, act):
        ours, theirs = os.pipe()
        life, self.life = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ours)
            os.close(self.life)
            try:
                os.write(theirs, json.dumps(act()).encode() + b"\n")
                os.read(life, 1)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(theirs)
        os.close(life)
        said = open(ours, "rb").readline()
        self.said = json.loads(said) if said else None

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.life)


def sleeper():
    return subprocess.Popen(["sleep", "60"]).pid


def mounted(path):
    return any(l.split(" ")[1] == path for l in open("/proc/self/mounts"))


def lives(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


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


# ---- what is no request ----


def malformed():
    fresh()
    good = {"kind": "tmpdir", "path": at("x")}
    h = Hook()
    h.ask("begin", "7", plan=[{"kind": "tmpdir", "path": at("seven")}])
    h.ask("begin", "8", plan=[{"kind": "tmpdir", "path": at("eight")}, {"kind": "lock", "path": at("l")}])
    before = program("list")

    def no_age(listed):
        return json.loads(json.dumps(listed), object_hook=lambda d: {k: v for k, v in d.items() if k != "age_s"})

    def b(**more):
        return json.dumps({"op": "begin", "box": "n", **more})

    def i(resource, box="7"):
        return json.dumps({"op": "intend", "box": box, "resource": resource})

    j, q = "bad_json", "bad_request"
    deep = "[" * 10000 + "]" * 10000
    table = [
        ("an empty line", j, ""),
        ("white space", j, " \t \r"),
        ("no JSON", j, "begin 7"),
        ("half an object", j, '{"op":"end","box":"7"'),
        ("a string", j, '"end"'),
        ("a number", j, "7"),
        ("null", j, "null"),
        ("an array", j, '[{"op":"end","box":"7"}]'),
        ("two objects", j, '{"op":"end","box":"7"}{"op":"end","box":"7"}'),
        ("garbage after the object", j, '{"op":"end","box":"7"} x'),
        ("a brace too many", j, '{"op":"end","box":"7"}}'),
        ("a comma too many", j, '{"op":"end","box":"7",}'),
        ("single quotes", j, "{'op':'end','box':'7'}"),
        ("a key without quotes", j, '{op:"end","box":"7"}'),
        ("a comment", j, '{"op":"end"/**/,"box":"7"}'),
        ("a byte order mark", j, b'\xef\xbb\xbf{"op":"end","box":"7"}'),
        ("a NUL byte", j, b'{"op":"end","box":"7\0"}'),
        ("a NUL byte in front", j, b'\0{"op":"end","box":"7"}'),
        ("a NUL byte behind", j, b'{"op":"end","box":"7"}\0'),
        ("a tab in a string", j, '{"op":"end","box":"7\t"}'),
        ("an escape in a string", j, b'{"op":"end","box":"\x1b7"}'),
        ("a form feed", j, b'{"op":"end",\x0c"box":"7"}'),
        ("no UTF-8", j, b'{"op":"end","box":"\xff"}'),
        ("no UTF-8 beside strings", j, b'{"op":"end"\xff,"box":"7"}'),
        ("overlong UTF-8", j, b'{"op":"end","box":"\xc0\xb7"}'),
        ("a surrogate", j, b'{"op":"end","box":"\xed\xa0\x80"}'),
        ("UTF-8 cut short", j, b'{"op":"end","box":"\xe2\x82"}'),
        ("beyond Unicode", j, b'{"op":"end","box":"\xf4\x90\x80\x80"}'),
        ("half a surrogate pair", j, '{"op":"end","box":"\\ud800"}'),
        ("an escape that is none", j, '{"op":"end","box":"\\x37"}'),
        ("\\u without digits", j, '{"op":"end","box":"7\\uZZZZ"}'),
        ("\\u cut short", j, '{"op":"end","box":"7\\u00'),
        ("a backslash at the end", j, '{"op":"end","box":"7\\'),
        ("a leading zero", j, '{"op":"acquired","box":"7","seq":01}'),
        ("a plus", j, '{"op":"acquired","box":"7","seq":+1}'),
        ("a bare point", j, '{"op":"acquired","box":"7","seq":1.}'),
        ("hexadecimal", j, '{"op":"acquired","box":"7","seq":0x1}'),
        ("NaN", j, '{"op":"acquired","box":"7","seq":NaN}'),
        ("depth of 10,000", q, '{"op":"end","box":' + deep + "}"),
        ("depth of 10,000, no object", j, deep),
        ("depth of 10,000, no end", q, '{"op":' + "[" * 10000),
        ("\\u0000", q, '{"op":"end","box":"7\\u0000"}'),
        ("\\u0000 in a key", q, '{"op\\u0000":"x","op":"end","box":"7"}'),
        ("\\u0000 in a path", q, b(plan=[{"kind": "tmpdir", "path": at("x\0y")}])),
        ("an empty object", q, "{}"),
        ("no op", q, '{"box":"7"}'),
        ("an unknown op", q, '{"op":"destroy","box":"7"}'),
        ("op in capitals", q, '{"op":"End","box":"7"}'),
        ("op of another type", q, '{"op":1,"box":"7"}'),
        ("op null", q, '{"op":null,"box":"7"}'),
        ("op twice", q, '{"op":"end","op":"end","box":"7"}'),
        ("box twice", q, '{"op":"end","box":"7","box":"7"}'),
        ("box twice, once escaped", q, '{"op":"end","box":"7","b\\u006fx":"7"}'),
        ("no box", q, '{"op":"end"}'),
        ("an empty box", q, '{"op":"end","box":""}'),
        ("a number for a box", q, '{"op":"end","box":7}'),
        ("an unknown field", q, '{"op":"end","box":"7","force":true}'),
        ("a field of another op", q, '{"op":"end","box":"7","seq":1}'),
        ("a field in capitals", q, '{"op":"end","Box":"7"}'),
        ("pid for intend", q, i(good)[:-1] + ',"pid":1}'),
        ("a bad name", q, '{"op":"begin","box":".n"}'),
        ("a name with a slash", q, '{"op":"begin","box":"../n"}'),
        ("a long name", q, '{"op":"begin","box":"%s"}' % ("n" * 65)),
        ("pid 0", q, b(pid=0)),
        ("a negative pid", q, b(pid=-1)),
        ("a pid of 2^31", q, b(pid=2**31)),
        ("a pid of 2^32+1", q, b(pid=2**32 + 1)),
        ("half a pid", q, b(pid=1.5)),
        ("a huge pid", q, b(pid=10**30)),
        ("an infinite pid", q, '{"op":"begin","box":"n","pid":1e999}'),
        ("a number of 1,000 digits", q, '{"op":"begin","box":"n","pid":%s}' % ("1" * 1000)),
        ("a string for a pid", q, b(pid="1")),
        ("pid null", q, b(pid=None)),
        ("pid twice", q, '{"op":"begin","box":"n","pid":1,"pid":1}'),
        ("no such pid", q, b(pid=2**31 - 1)),
        ("parent of another type", q, b(parent=7)),
        ("two plans", q, '{"op":"begin","box":"n","plan":[],"plan":[]}'),
        ("a plan that is no array", q, b(plan=good)),
        ("plan null", q, b(plan=None)),
        ("an array in a plan", q, b(plan=[[good]])),
        ("null in a plan", q, b(plan=[None])),
        ("no kind", q, b(plan=[{"path": at("x")}])),
        ("an unknown kind", q, b(plan=[{"kind": "file", "path": at("x")}])),
        ("kind twice", q, b(plan=[good])[:-3] + ',"kind":"lock"}]}'),
        ("no path", q, b(plan=[{"kind": "lock"}])),
        ("path twice", q, b(plan=[good])[:-3] + ',"path":"/x"}]}'),
        ("a number for a path", q, b(plan=[{"kind": "lock", "path": 7}])),
        ("an unknown field of a kind", q, b(plan=[{**good, "mode": 448}])),
        ("a field of another kind", q, b(plan=[{"kind": "lock", "path": at("x"), "rmdir_only": True}])),
        ("rmdir_only of another type", q, b(plan=[{**good, "rmdir_only": 1}])),
        ("path and path_raw", q, b(plan=[{**good, "path_raw": at("x").encode().hex()}])),
        ("path_raw and path", q, b(plan=[{"kind": "lock", "path_raw": at("x").encode().hex(), "path": at("x")}])),
        ("half a byte", q, b(plan=[{"kind": "lock", "path_raw": at("x").encode().hex()[:-1]}])),
        ("no hex", q, b(plan=[{"kind": "lock", "path_raw": "2g"}])),
        ("hex with spaces", q, b(plan=[{"kind": "lock", "path_raw": "2f 78"}])),
        ("NUL in hex", q, b(plan=[{"kind": "lock", "path_raw": at("x").encode().hex() + "00"}])),
        ("empty hex", q, b(plan=[{"kind": "lock", "path_raw": ""}])),
        ("hex that is a relative path", q, b(plan=[{"kind": "lock", "path_raw": "78"}])),
        ("a relative path", q, b(plan=[{"kind": "tmpdir", "path": "x"}])),
        ("..", q, b(plan=[{"kind": "tmpdir", "path": at("../w/x")}])),
        (".", q, b(plan=[{"kind": "tmpdir", "path": at("./x")}])),
        ("//", q, b(plan=[{"kind": "tmpdir", "path": at("/x")}])),
        ("a slash at the end", q, b(plan=[{"kind": "tmpdir", "path": at("x/")}])),
        ("an empty path", q, b(plan=[{"kind": "tmpdir", "path": ""}])),
        ("the root", q, b(plan=[{"kind": "tmpdir", "path": "/"}])),
        ("a path of 5,000 bytes", q, b(plan=[{"kind": "tmpdir", "path": "/" + "/".join(["x" * 99] * 50)}])),
        ("a name of 1,000 bytes", None, b(plan=[{"kind": "tmpdir", "path": at("x" * 1000)}])),
        ("a missing directory", q, b(plan=[{"kind": "tmpdir", "path": at("no/x")}])),
        ("a protected path", "protected_path", b(plan=[{"kind": "tmpdir", "path": "/etc/x"}])),
        ("a path twice in a plan", "exists", b(plan=[good, {"kind": "lock", "path": at("y")}, good])),
        ("a path of another box", "exists", b(plan=[{"kind": "tmpdir", "path": at("seven")}])),
        ("the last of many is bad", q,
         b(plan=[{"kind": "lock", "path": at(str(n))} for n in range(500)] + [{"kind": "lock"}])),
        ("a mount without type", q, i({"kind": "mount", "target": at("x"), "source": "x"})),
        ("a mount without source", q, i({"kind": "mount", "target": at("x"), "fstype": "tmpfs"})),
        ("path of a mount", q, i({"kind": "mount", "path": at("x"), "fstype": "tmpfs", "source": "x"})),
        ("source and source_raw", q,
         i({"kind": "mount", "target": at("x"), "fstype": "tmpfs", "source": "x", "source_raw": "78"})),
        ("a mount on nothing", q, i({"kind": "mount", "target": at("x"), "fstype": "tmpfs", "source": "x"})),
        ("a resource that is none", q, i("lock")),
        ("resource null", q, i(None)),
        ("two resources", q, i(good)[:-1] + ',"resource":{}}'),
        ("no resource", q, '{"op":"intend","box":"7"}'),
        ("a cgroup that is none", None, i({"kind": "cgroup", "path": at("x")})),
        ("process 0", q, i({"kind": "process", "pid": 0})),
        ("process 1", q, i({"kind": "process", "pid": 1})),
        ("no such process", q, i({"kind": "process", "pid": 2**31 - 1})),
        ("the hook itself", q, i({"kind": "process", "pid": h.p.pid})),
        ("the supervisor", q, i({"kind": "process", "pid": os.getpid()})),
        ("a process and a path", q, i({"kind": "process", "pid": 9, "path": "/x"})),
        ("intend for no box", "no_such_box", i(good, "nobody")),
        ("a long name of no box", "no_such_box", i(good, "n" * 600)),
        ("no seq", q, '{"op":"acquired","box":"7"}'),
        ("seq 0", q, '{"op":"acquired","box":"7","seq":0}'),
        ("a negative seq", q, '{"op":"released","box":"7","seq":-1}'),
        ("half a seq", q, '{"op":"released","box":"7","seq":0.5}'),
        ("a seq of 2^32", q, '{"op":"acquired","box":"7","seq":4294967296}'),
        ("a string for seq", q, '{"op":"acquired","box":"7","seq":"1"}'),
        ("an unknown seq", "no_such_box", '{"op":"acquired","box":"7","seq":9}'),
        ("a seq of another box", "no_such_box", '{"op":"released","box":"7","seq":2}'),
        ("acquired, and nothing is there", None, '{"op":"acquired","box":"7","seq":1}'),
        ("a line of 2 MiB", q, '{"op":"end","box":"' + "x" * (2 * MIB) + '"}'),
        ("2 MiB of nothing", q, " " * (2 * MIB)),
    ]
    lines = [x.encode() if isinstance(x, str) else x for _, _, x in table]
    for (name, want, _), data in zip(table, lines):
        h.raw(data + b"\n")
        r = h.reply()
        good_one = (not r["ok"] and set(r) == {"ok", "error"} and r["error"]["code"] == (want or r["error"]["code"]) and
                    isinstance(r["error"]["errno"], int) and r["error"]["message"] and
                    "\n" not in r["error"]["message"] and r["error"]["code"] != "journal_damaged")
        check("malformed: " + name, good_one, data[:200], r)
    check("malformed: nothing was recorded, nothing lost", no_age(program("list")) == no_age(before))
    status, rest = h.end()
    check("malformed: exactly one reply each", (status, rest) == (0, b""), status, rest)
    status, replies = talk(b"\n".join(lines) + b"\n")
    check("malformed, pipelined: one reply each, in order", status == 0 and len(replies) == len(lines) and
          [code(r) for r in replies] == [want or code(r) for (_, want, _), r in zip(table, replies)], len(replies))
    check("malformed, pipelined: nothing was recorded", no_age(program("list")) == no_age(before))


# ---- lines and pipes ----


def lines():
    fresh()
    end = b'{"op":"end","box":"7"}'
    longest = end + b" " * (MIB - len(end))
    status, replies = talk(longest + b"\n" + longest + b" \n" + end + b"\r\n" + longest)
    check("1 MiB is a line, one byte more is none, the last needs no newline",
          [code(r) for r in replies] == ["no_such_box", "bad_request", "no_such_box", "no_such_box"], replies)
    status, replies = talk(longest + b"x" * (3 * MIB))
    check("a long line without an end: one reply", status == 0 and [code(r) for r in replies] == ["bad_request"],
          replies)
    check("no input at all: 0, no reply", talk(b"") == (0, []))
    check("half a line at the end: one reply", [code(r) for r in talk(b"\n" + end[:5])[1]] == ["bad_json"] * 2)

    n = 5000
    data = b"".join(line("begin", f"b{k}", pid=os.getpid()) + line("end", f"b{k}") for k in range(n // 2))
    start = time.monotonic()
    status, replies = talk(data)
    check(f"{n} pipelined requests: all answered, in order", status == 0 and len(replies) == n and
          all(r["ok"] for r in replies) and [r["box"] for r in replies[::2]] == [f"b{k}" for k in range(n // 2)])
    print(f"# {n} requests: {time.monotonic() - start:.2f} s")

    plan = [{"kind": "lock", "path": at(f"l{k}")} for k in range(9000)]
    data = line("begin", "big", pid=os.getpid(), plan=plan)
    if len(data) > MIB:
        plan = plan[:len(plan) * MIB // len(data) - 10]
        data = line("begin", "big", pid=os.getpid(), plan=plan)
    start = time.monotonic()
    status, replies = talk(data)
    check("a plan of thousands", status == 0 and replies[0].get("seq") == list(range(1, len(plan) + 1)), replies)
    print(f"# a plan of {len(plan)}: {time.monotonic() - start:.2f} s")

    fresh()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    h = Hook(stdout=theirs)
    theirs.close()
    h.raw(b"".join(line("begin", f"b{k}") for k in range(100)))
    got = [ours.recv(MIB) for _ in range(100)]
    check("each reply is one write", all(g.endswith(b"\n") and g.count(b"\n") == 1 for g in got), got[0])
    h.p.stdin.close()
    h.p.wait()
    ours.close()

    os.set_blocking((r := os.pipe())[0], False)
    os.set_blocking((w := os.pipe())[1], False)
    h = Hook(stdin=r[0], stdout=w[1])
    time.sleep(0.1)
    os.write(r[1], b"\n" * 4000)  # whose replies do not fit into a pipe
    time.sleep(0.2)
    os.close(r[1])
    os.close(w[1])
    got = open(w[0], "rb").read()
    check("pipes that do not block: everything is answered", h.p.wait() == 0 and got.count(b"\n") == 4000,
          got.count(b"\n"))
    os.close(r[0])

    h = Hook()
    h.out.close()
    h.p.stdout.close()
    h.raw(line("begin", "x"))
    status = h.p.wait(timeout=30)
    said = open(f"{WORK}/err").read()
    check("standard output closed: 6, and one line", status == 6 and said.startswith("rbxj: hook: ") and
          said.count("\n") == 1, status, said)
    full = open("/dev/full", "wb")
    h = Hook(stdout=full)
    h.raw(line("begin", "y"))
    check("standard output full: 6", h.p.wait(timeout=30) == 6)

    subprocess.run(["rm", "-rf", f"{WORK}/state"])
    p = subprocess.run([RBXJ, "hook"], input=line("begin", "7"), capture_output=True)
    check("no journal: no reply, a message, a status", p.returncode != 0 and p.stdout == b"" and
          p.stderr.startswith(b"rbxj: hook: ") and p.stderr.count(b"\n") == 1, p)
    p = subprocess.run([RBXJ, "hook", "extra"], input=b"", capture_output=True)
    check("wrong usage: 2", p.returncode == 2 and p.stdout == b"", p)


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


for test in life, sources_and_parents, supervisors, malformed, lines, many_boxes, killed_hook, \
        killed_before_acquired, rustbox_lock:
    before = time.monotonic()
    try:
        test()
    except Exception:
        check(f"{test.__name__} came to its end", False, traceback.format_exc())
        print(traceback.format_exc())
    print(f"# {test.__name__}: {time.monotonic() - before:.1f} s")
print(f"1..{sum(counts.values())}")
sys.exit(1 if counts[False] else 0)
