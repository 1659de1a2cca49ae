#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takes each rule out of the source, and sees a test fail.

tests/mutants.txt names for each rule of the design (I1 to I10, K1 to K35) edits that take it out, and the test that
must then fail. A rule that nobody would miss is not tested.

    tests/mutants.py --check          does each edit still fit the source, once, and does its test exist?
    tests/mutants.py --run [RULE...]  makes a copy of the tree, and does them there (all: an hour)
    tests/mutants.py --table          the table of tests/README.md; --update writes it there
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RULES = [f"I{n}" for n in range(1, 11)] + [f"K{n}" for n in range(1, 36)]
LIMIT = 120  # seconds for a test program


class Mutant:
    def __init__(self, number, head):
        self.number, self.rules, self.what = number, head[0], head[1]
        self.file = self.test = None
        self.edit = None  # (old, new)
        self.found = 0

    def program(self):
        return self.test.split()[0]

    def case(self):
        return self.test.partition(" ")[2]


def fail(text):
    sys.exit(f"mutants: {text}")


def parse(path):
    """A block: '== RULE... : what it does without', 'test PROGRAM [NAME]', '<<<' old '===' new '>>>'; 'file F' where
    its text is in others, too."""
    mutants, notes = [], {}
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    i = 0
    while i < len(lines):
        line = lines[i]
        if line.startswith("== "):
            rules, _, what = line[3:].partition(": ")
            mutants.append(Mutant(len(mutants) + 1, (rules.split(), what)))
        elif line.startswith("file "):
            mutants[-1].file = line[5:]
        elif line.startswith("test "):
            mutants[-1].test = line[5:]
        elif line.startswith("note "):
            rule, _, text = line[5:].partition(": ")
            notes[rule] = text
        elif line == "<<<":
            middle = lines.index("===", i)
            end = lines.index(">>>", middle)
            mutants[-1].edit = ("\n".join(lines[i + 1:middle]), "\n".join(lines[middle + 1:end]))
            i = end
        elif line and not line.startswith("#"):
            fail(f"{path}:{i + 1}: {line}")
        i += 1
    return mutants, notes


def pattern(old):
    """The old text, however it is broken into lines."""
    return re.compile(r"\s+".join(re.escape(word) for word in old.split()))


def locate(mutants):
    """Finds each one's file, wherever its text was moved to: m.file, m.found (how often it is there)."""
    sources = [os.path.relpath(os.path.join(d, name), ROOT) for d, _, names in os.walk(os.path.join(ROOT, "src"))
               for name in names if name.endswith(".c")]
    texts = {name: read(name) for name in sorted(sources)}
    for m in mutants:
        m.found = 0
        for name in [m.file] if m.file else texts:
            n = len(pattern(m.edit[0]).findall(texts.get(name, ""))) if m.edit else 0
            m.found += n
            m.file = name if n and not m.file else m.file


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def test_source(mutant):
    program = mutant.program()
    return f"tests/{program}" if program.endswith(".sh") else f"tests/{program}.c"


def problems(mutants, notes):
    found = []
    for m in mutants:
        where = f"mutant {m.number} ({' '.join(m.rules)}: {m.what})"
        if not m.test or not m.edit:
            found.append(f"{where}: has no test or edit")
            continue
        found += [f"{where}: there is no rule {r}" for r in m.rules if r not in RULES]
        if m.found != 1:
            text = " ".join(m.edit[0].split())
            found.append(f"{where}: its text is {m.found} times in {m.file or 'src'}: {text[:70]}")
        source = test_source(m)
        if not os.path.exists(os.path.join(ROOT, source)):
            found.append(f"{where}: there is no {source}")
        elif m.case() and m.case().split(":")[0] not in read(source):
            found.append(f"{where}: {source} has no {m.case()}")
    covered = {r for m in mutants for r in m.rules} | set(notes)
    found += [f"rule {r} has no mutant" for r in RULES if r not in covered]
    return found


# ---- the table ----

def table(mutants, notes):
    lines = ["| rule | without it | fails |", "|---|---|---|"]
    for rule in RULES:
        own = [m for m in mutants if rule in m.rules]
        for m in own:
            case = f" `{m.case()}`" if m.case() else ""
            lines.append(f"| {rule} | {m.what} | {m.program()}{case} |")
        if rule in notes:
            lines.append(f"| {rule} | {notes[rule]} | |")
    return "\n".join(lines) + "\n"


def update(mutants, notes):
    head, _, _ = read("tests/README.md").partition("| rule |")
    with open(os.path.join(ROOT, "tests/README.md"), "w", encoding="utf-8") as f:
        f.write(head + table(mutants, notes))


# ---- running ----

def copy_tree(to):
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], stdout=subprocess.PIPE, check=True).stdout
    for name in files.decode().split("\0"):
        source = os.path.join(ROOT, name)
        if name and os.path.isfile(source):
            target = os.path.join(to, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(source, target)


def make(tree, target):
    return subprocess.run(["make", "-C", tree, "-s", "--no-print-directory", target], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False)


def run_test(tree, mutant):
    """The names of the tests that failed; or what became of the program, if it did not come to its end."""
    program, case = mutant.program(), mutant.case()
    env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", RBXJ=f"{tree}/build/rbxj", RBXJ_BUILD=f"{tree}/build")
    path = f"{tree}/tests/{program}" if program.endswith(".sh") else f"{tree}/build/tests/{program}"
    command = [path]
    if program.startswith("crash/") and case:
        command += case.split(":")[-1].split()
    elif case and not program.endswith(".sh"):
        env["RBXJ_TEST_ONLY"] = case
    process = subprocess.Popen(command, cwd=tree, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
    try:
        output, _ = process.communicate(timeout=LIMIT)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        status = "time"
    with open(f"{tree}/mutant.log", "w", encoding="utf-8") as f:
        f.write(output)
    failed = re.findall(r"^not ok \d+ (?:- )?(?!.*# SKIP)(.*)$", output, re.M)
    skipped = re.findall(r"^(?:not )?ok \d+ .*# SKIP ?(.*)$", output, re.M)
    return failed, skipped, status


def build(tree, mutant):
    if mutant.program().endswith(".sh"):
        return make(tree, "all")
    return make(tree, f"build/tests/{mutant.program()}")


def attempt(tree, mutant):
    """True: killed. Else why not."""
    path = os.path.join(tree, mutant.file)
    with open(path, encoding="utf-8") as f:
        before = f.read()
    old, new = mutant.edit
    after = pattern(old).sub(lambda _: f" {new} ", before, count=1)
    try:
        with open(path, "w", encoding="utf-8") as f:
            f.write(after)
        built = build(tree, mutant)
        if built.returncode:
            return f"does not build:\n{built.stdout[-2000:]}"
        failed, skipped, status = run_test(tree, mutant)
    finally:
        with open(path, "w", encoding="utf-8") as f:
            f.write(before)
    case = mutant.case()
    if not case or mutant.program().startswith("crash/"):
        killed = bool(failed)
    else:
        killed = any(name.startswith(case) for name in failed)
    if killed:
        return True
    if any(name.startswith(case) for name in skipped) if case else False:
        return "its test is skipped here"
    if status not in (0, 1):
        return True  # it died, or hung
    return f"nobody missed it; failed: {', '.join(failed) or 'nothing'}"


def run(mutants, wanted):
    chosen = [m for m in mutants if m.found == 1 and (not wanted or set(wanted) & set(m.rules + [str(m.number)]))]
    tree = tempfile.mkdtemp(prefix="rbxj-mutants-")
    bad = 0
    try:
        copy_tree(tree)
        made = make(tree, "all")
        if made.returncode:
            fail(f"the tree does not build:\n{made.stdout[-2000:]}")
        print(f"1..{len(chosen)}", flush=True)
        for number, m in enumerate(chosen, 1):
            began = time.monotonic()
            result = attempt(tree, m)
            good = result is True
            bad += not good
            print(f"{'ok' if good else 'not ok'} {number} - {m.number} {' '.join(m.rules)}: {m.what} [{m.test}] "
                  f"({time.monotonic() - began:.0f} s)", flush=True)
            if not good:
                print("# " + result.replace("\n", "\n# "), flush=True)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    print(f"# {len(chosen) - bad} of {len(chosen)} edits were noticed")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true")
    what.add_argument("--table", action="store_true")
    what.add_argument("--update", action="store_true")
    what.add_argument("--run", nargs="*", metavar="RULE")
    args = parser.parse_args()
    mutants, notes = parse(os.path.join(ROOT, "tests/mutants.txt"))
    locate(mutants)
    if args.table:
        print(table(mutants, notes), end="")
        return 0
    if args.update:
        update(mutants, notes)
        return 0
    found = problems(mutants, notes)
    if args.check:
        if table(mutants, notes) not in read("tests/README.md"):
            found.append("the table of tests/README.md is not that of tests/mutants.py --table")
        for line in found:
            print(line)
        return 1 if found else 0
    unfit = [line for line in found if "mutant " in line]
    for line in unfit:
        print(f"# {line}")
    return 1 if run(mutants, args.run) else 0


if __name__ == "__main__":
    sys.exit(main())
