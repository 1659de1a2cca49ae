# rbxj group work n members pid: n boxes with a cgroup each (members[i] processes), one supervisor
import json, os, subprocess, sys, time
rbxj, group, work, n, per = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
hook = subprocess.Popen([rbxj, "hook"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def ask(**r):
    hook.stdin.write(json.dumps(r).encode() + b"\n"); hook.stdin.flush()
    a = json.loads(hook.stdout.readline()); assert a["ok"], a
for i in range(n):
    p = f"{group}/b{i}"
    ask(op="begin", box=f"b{i}", pid=os.getpid(), plan=[{"kind": "cgroup", "path": p}, {"kind":"tmpdir","path":f"{work}/bb{i}"}])
    os.mkdir(p); ask(op="acquired", box=f"b{i}", seq=1); os.mkdir(f"{work}/bb{i}"); ask(op="acquired", box=f"b{i}", seq=2)
    for k in range(per):
        if os.fork() == 0:
            open(p + "/cgroup.procs", "w").write("0")
            time.sleep(600); os._exit(0)
hook.stdin.close(); hook.wait()
for k in range(int(sys.argv[5+1])):  # zombies
    if os.fork() == 0: os._exit(0)
open(work + "/up", "w").write("up")
time.sleep(600)
