# SPDX-License-Identifier: LGPL-2.1-or-later
"""Does what a page of the documentation says, and compares what it shows: page.py PAGE.md SITUATIONS.bash

In the page, before a block of commands (```console: lines that begin with "# ", each with its output below it):

    <!-- situation: NAME -->    the bash function situation_NAME is called first; a block without it goes on
    <!-- not run: REASON -->    this one is not run
    <!-- file: PATH -->         before a block of any language: it is written to that file

A situation is over where the next one begins, and at the end; then the function situation_is_over must succeed. A
command's output must be what the page shows, white space aside, where "<word>" stands for whatever is there, "<WORD>" for
one thing from its first appearance to the end of the situation, in later commands, too; "…" for a rest of a line, alone
for any number of lines. A command exits with 0 unless "# echo $?" comes next.

--update writes the output that there is into the page, for a person to look at. --list names what would be run.
"""
import os
import re
import subprocess
import sys

FENCE = re.compile(r"^```(\w*)$")
DIRECTIVE = re.compile(r"^<!-- (situation|not run|file): (.*) -->$")
# What differs from run to run, for --update.
VARIABLE = [
    (r"\b\d{8}T\d{6}Z-[0-9a-f]{8}\b", "<ID>"),
    (r"\b\d{8}T\d{6}Z\b", "<time>"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(Z| UTC)", "<time>"),
    (r"\bpid \d+", "pid <pid>"),
    (r"\b\d{15,20}\b", "<incarnation>"),
    (r"\b\d+\.\d{3} ?s\b", "<s>"),
    (r"\b\d+s(?=  *[-\d])", "<age>"),
    (r"\bplan [0-9a-f]{16}\b", "plan <PLAN>"),
    (r"\badopted-[0-9a-f]{16}\b", "adopted-<hex>"),
    (r"^\w{3} \d\d \d\d:\d\d:\d\d \S+ (\S+)\[\d+\]", r"<date> <host> \1[<pid>]"),
]


class Command:
    def __init__(self, line, number):
        self.text, self.number = line[2:], number
        self.shown = []
        self.got = self.problem = None


class Block:
    def __init__(self, number, kind, argument):
        self.number, self.kind, self.argument = number, kind, argument
        self.commands = []  # or, of a file,
        self.content = []


def read(path):
    """The lines of the page, and its blocks of commands."""
    lines = open(path, encoding="utf-8").read().split("\n")
    blocks, block, language, directive = [], None, None, (None, None)
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if fence and language is None:
            language = fence[1] or "text"
            if language == "console" or directive[0] == "file":
                block = Block(number, *directive)
                blocks.append(block)
            directive = (None, None)
        elif fence:
            language = block = None
        elif language and block and block.kind == "file":
            block.content.append(line + "\n")
        elif language == "console" and line.startswith("# "):
            block.commands.append(Command(line, number))
        elif language == "console" and block:
            block.commands[-1].shown.append(line)
        elif language is None and line:
            match = DIRECTIVE.match(line)
            directive = (match[1], match[2]) if match else (None, None)
    return lines, blocks


class Shell:
    """One bash for the whole page."""
    LOOP = r"""
. "$1"; last=0
while IFS= read -r -d '' text; do
    (exit "$last")
    eval "$text" </dev/null >"$2" 2>&1
    last=$?
    echo "$last" >&3
done"""

    def __init__(self, situations, output):
        self.output = output
        self.child = subprocess.Popen(["bash", "-c", "exec 3>&1 >/dev/null" + self.LOOP, "page", situations, output],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, text):
        """Its exit status and its output."""
        self.child.stdin.write(text.encode() + b"\0")
        self.child.stdin.flush()
        status = self.child.stdout.readline().decode().strip()
        if not status:
            sys.exit(f"the shell has died at: {text}")
        with open(self.output, encoding="utf-8", errors="replace") as file:
            return int(status), [line.rstrip() for line in file.read().rstrip("\n").split("\n")]


def pattern(shown, bound):
    """A regular expression of the lines that the page shows, and the names that it binds."""
    names, out = [], []

    def word(match):
        name = match[1]
        if name in bound:
            return re.escape(bound[name])
        if name.isupper() and name not in names:
            names.append(name)
            return f"(?P<{name}>\\S+)"
        return f"(?P={name})" if name in names else r"\S.*?"

    for line in shown:
        if line.strip() == "…":
            out.append(r"(?:.*\n)*?")
            continue
        text = re.split(r"(<\w+>|…|\s+)", line.rstrip())
        parts = [word(m) if (m := re.fullmatch(r"<(\w+)>", p)) else ".*" if p == "…" else r"\s+" if p.isspace() else re.escape(p)
                 for p in text]
        out.append("".join(parts) + r"[ \t]*\n")
    return re.compile("".join(out)), names


def compare(shown, got, bound):
    """None, or what is wrong."""
    expression, names = pattern(shown, bound)
    match = expression.fullmatch("".join(line + "\n" for line in got if line or shown))
    if not match:
        return "\n".join(["shown:", *(f"    {s}" for s in shown), "is:", *(f"    {g}" for g in got)])
    bound.update({name: match[name] for name in names})
    return None


def marked(line):
    """With markers for what differs, and its columns kept where there is room."""
    def mark(match):
        text = match.expand(replacement)
        return text + " " * (max(1, len(match[0]) - len(text)) if match["spaces"] else 0)

    for expression, replacement in VARIABLE:
        line = re.sub(expression + "(?P<spaces> *)", mark, line)
    return line.rstrip()


def run_block(shell, block, bound):
    """Its commands, each when it was run."""
    for i, command in enumerate(block.commands):
        text = re.sub(r"<([A-Z]+)>", lambda m: bound.get(m[1], m[0]), command.text)
        status, command.got = shell.run(text)
        command.got = [] if command.got == [""] else command.got
        problem = compare(command.shown, command.got, bound)
        asked = i + 1 < len(block.commands) and block.commands[i + 1].text == "echo $?"
        if status != 0 and not asked:
            problem = f"exit status {status}\n{problem or ''}"
        command.problem = problem
        yield command


def update(path, lines, blocks):
    for block in reversed(blocks):
        for command in reversed(block.commands):
            if command.got is not None and command.problem:
                lines[command.number:command.number + len(command.shown)] = map(marked, command.got)
    open(path, "w", encoding="utf-8").write("\n".join(lines))


def main():
    options = [a for a in sys.argv[1:] if a.startswith("--")]
    page, situations = [a for a in sys.argv[1:] if not a.startswith("--")]
    lines, blocks = read(page)
    if "--list" in options:
        for block in blocks:
            for command in block.commands:
                print("not run:" if block.kind == "not run" else "run:", command.text)
        return
    shell, bound, failed, current, count = Shell(situations, "/tmp/page.out"), {}, 0, None, 0

    def report(problem, name):
        nonlocal failed, count
        count += 1
        failed += problem is not None
        print(f"{'ok' if problem is None else 'not ok'} {count} {name}")
        if problem is not None:
            print("\n".join(f"  {line}" for line in problem.split("\n")))
        sys.stdout.flush()

    def call(function, name):
        status, got = shell.run(function)
        if status != 0:
            report("\n".join(got), name)
        return status == 0

    for block in [*blocks, Block(0, "situation", None)]:
        if block.kind == "not run":
            continue
        if block.kind == "file":
            os.makedirs(os.path.dirname(block.argument), exist_ok=True)
            open(block.argument, "w", encoding="utf-8").write("".join(block.content))
            continue
        if block.kind == "situation":
            if current:
                call("situation_is_over", f"line {current.number}: nothing is left of {current.argument}")
            bound, current = {}, block
            if block.argument is None or not call(f"situation_{block.argument}", f"line {block.number}: {block.argument}"):
                continue
        for command in run_block(shell, block, bound):
            report(command.problem, f"line {command.number}: {command.text}")
    if "--update" in options:
        update(page, lines, blocks)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
