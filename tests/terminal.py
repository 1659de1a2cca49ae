# SPDX-License-Identifier: LGPL-2.1-or-later
"""rbxj run on a terminal of its own, of which this program is the other end: terminal.py RBXJ DIR

Each wait is for what must happen, at most 30 seconds. What is left at the end goes with the script's pid namespace.
"""

import os
import pty
import select
import signal
import sys
import time

RBXJ, WORK = sys.argv[1:]
READY = f"{WORK}/ready"
SLEEP = ["sh", "-c", f': >"{READY}"; exec sleep 600']


def handler(name, action):
    """A CMD that does so at the signal."""
    return [sys.executable, "-I", "-S", "-c", f"""
import os, signal, time
signal.signal(signal.{name}, lambda *_: {action})
open({READY!r}, "w").close()
time.sleep(600)"""]  # fmt: skip


STOPS = "(os.kill(os.getpid(), signal.SIGSTOP), os._exit(5))"  # as top(1): it puts the terminal in order first
count = failed = 0


def check(name, got, wanted):
    global count, failed
    count, failed = count + 1, failed + (got != wanted)
    print(f"{'ok' if got == wanted else 'not ok'} {count} {name}")
    if got != wanted:
        print(f"  got {got!r}, not {wanted!r}")


def until(true):
    """What true() returns at last: something true, in time."""
    end = time.monotonic() + 30
    while not (got := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return got


def execute(command, before):
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGALRM, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(number, signal.SIG_DFL)  # whatever these tests were started with
    if before:
        before()
    os.execv(RBXJ, [RBXJ, "run", "--tmpdir", f"{WORK}/box", "--", *command])


def shell(command, before, tell):
    """Runs a job in the foreground, and tells what becomes of it."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        execute(command, before)
    os.write(tell, f"{job}\n".encode())
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            os.write(tell, f"{os.waitstatus_to_exitcode(status)}\n".encode())
            os._exit(0)
        os.write(tell, f"stopped {signal.Signals(os.WSTOPSIG(status)).name}\n".encode())


class Run:
    """rbxj run on a terminal: in the foreground of a shell, or alone, as the leader of the session."""

    def __init__(self, command, alone=False, before=None):
        if os.path.exists(READY):
            os.unlink(READY)
        self.told, tell = os.pipe()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.set_inheritable(tell, False)
            execute(command, before) if alone else shell(command, before, tell)
        os.close(tell)
        self.alone = alone
        self.job = self.pid if alone else int(self.line())

    def line(self):
        """The next that the shell tells, None if it does not."""
        got = b""
        while not got.endswith(b"\n"):
            if not select.select([self.told], [], [], 30)[0] or not (byte := os.read(self.told, 1)):
                return None
            got += byte
        return got.decode().strip()

    def ready(self):
        """CMD is there: its pid."""
        until(lambda: os.path.exists(READY))
        with open(f"/proc/{self.job}/task/{self.job}/children", encoding="ascii") as file:
            return int(file.read())

    def type(self, keys):
        os.write(self.terminal, keys)

    def status(self):
        """What it gave at its end, None if it does not end."""
        if not self.alone:
            line = self.line()
            return line if line is None or line.startswith("stopped") else int(line)
        pid, status = until(lambda: (got := os.waitpid(self.pid, os.WNOHANG))[0] and got) or (0, 0)
        return os.waitstatus_to_exitcode(status) if pid else None


def a_job_is_stopped_and_goes_on():
    run = Run(SLEEP)
    command = run.ready()
    run.type(b"\x1a")
    check("^Z: the shell sees it stop", run.line(), "stopped SIGTSTP")
    os.killpg(run.job, signal.SIGCONT)
    os.kill(command, signal.SIGTERM)
    check("^Z: it goes on, and ends as CMD does", run.status(), 128 + signal.SIGTERM)

    run = Run(handler("SIGTSTP", STOPS))
    run.ready()
    run.type(b"\x1a")
    check("^Z, CMD stops by SIGSTOP: the shell sees it stop", run.line(), "stopped SIGTSTP")
    os.killpg(run.job, signal.SIGCONT)
    check("^Z, CMD stops by SIGSTOP: it goes on", run.status(), 5)

    run = Run(handler("SIGTSTP", "os._exit(5)"))
    run.ready()
    run.type(b"\x1a")
    check("^Z, CMD does not stop: nor does rbxj", run.status(), 5)

    run = Run(SLEEP)
    os.kill(run.ready(), signal.SIGTSTP)
    check("CMD alone is told to stop: the shell sees it", run.line(), "stopped SIGTSTP")
    os.kill(run.job, signal.SIGCONT)
    os.kill(run.job, signal.SIGTERM)
    check("CMD alone was stopped: rbxj lets it go on", run.status(), 128 + signal.SIGTERM)


def nobody_is_there_to_let_it_on():
    run = Run(["sh", "-c", f": >'{READY}'; read -r line; exit 5"], alone=True)
    run.ready()
    run.type(b"\x1a\n")
    check("^Z without a shell: as CMD, it goes on", run.status(), 5)


def the_terminal_hangs_up():
    run = Run(SLEEP, alone=True)
    run.ready()
    os.close(run.terminal)
    check("hung up on the session's leader: CMD hears of it", run.status(), 128 + signal.SIGHUP)


def what_was_pressed_before_there_is_a_command():
    def press():
        """The terminal's SIGINT waits when rbxj begins; so does one that comes while it acquires."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        open(f"{WORK}/press", "w", encoding="ascii").close()
        until(lambda: signal.SIGINT in signal.sigpending())

    run = Run(SLEEP, before=press)
    until(lambda: os.path.exists(f"{WORK}/press"))
    run.type(b"\x03")
    check("^C while it acquires is not lost", run.status(), 128 + signal.SIGINT)


def an_alarm_of_the_caller():
    def set_alarm():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # it is for rbxj, however late that is
        signal.setitimer(signal.ITIMER_REAL, 0.5)

    run = Run(SLEEP, before=set_alarm)
    check("an alarm that the caller has set ends CMD", run.status(), 128 + signal.SIGALRM)


def what_the_caller_ignores():
    run = Run(handler("SIGTERM", "os._exit(5)"), before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    run.ready()
    os.kill(run.job, signal.SIGHUP)
    os.kill(run.job, signal.SIGTERM)  # after that one, whose number is smaller
    check("SIGHUP is ignored by CMD as by nohup", run.status(), 5)


for test in (
    a_job_is_stopped_and_goes_on,
    nobody_is_there_to_let_it_on,
    the_terminal_hangs_up,
    what_was_pressed_before_there_is_a_command,
    an_alarm_of_the_caller,
    what_the_caller_ignores,
):
    test()
    check("nothing is left", os.path.exists(f"{WORK}/box"), False)
print(f"1..{count}")
sys.exit(failed > 0)
