# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The tests of hook.py that are about what is no request, about lines and about pipes.
import json, os, socket, subprocess, time

from hook_frame import RBXJ, WORK, MIB, Hook, at, check, code, fresh, line, program, talk

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
