#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual pages against the source and the program, both ways: man.py TREE PROGRAM BUILD DOCUMENTS. A page is read as
# it is written (man/*.scd); what it defines is what stands first in a line, in bold: "*--box*=_ID_". For man.sh.
import json
import os
import re
import subprocess
import sys
import tempfile
from email.utils import parsedate_to_datetime

tree, program, build, documents = (os.path.realpath(argument) for argument in sys.argv[1:5])
count = failures = 0


def check(what, problems):
    global count, failures
    count += 1
    failures += bool(problems)
    print(f"{'not ok' if problems else 'ok'} {count} {what}")
    for problem in problems:
        print(f"  {problem}")


def same(left, right, left_name, right_name):
    """What is in one of two sets only."""
    return [f"in {left_name} only: {x}" for x in sorted(left - right)] + [
        f"in {right_name} only: {x}" for x in sorted(right - left)
    ]


def read(path):
    with open(os.path.join(tree, path), encoding="utf-8") as file:
        return file.read()


pages = {name[:-4]: read("man/" + name) for name in sorted(os.listdir(tree + "/man")) if name.endswith(".scd")}


def plain(text):
    """Without marks of bold and underline, and escapes."""
    text = re.sub(r"\\(.)", lambda m: f"\0{ord(m[1])}\0", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)|\*", "", text)
    return re.sub("\0(\\d+)\0", lambda m: chr(int(m[1])), text)


def section(page, title):
    """What is under a heading of a page, up to the next of the same kind."""
    return "".join(re.findall(rf"^# {re.escape(title)}\n(.*?)(?=^# |\Z)", page, re.M | re.S))


def defined(text, pattern):
    """The terms that are defined in a text, plain, as far as they are like the pattern: a term is a line, or one of
    several, with what it means indented below it."""
    terms, pending, before = set(), [], ""
    for line in text.splitlines() + [""]:
        begins = line.lstrip("\t")
        if pending and line.startswith(pending[0][0] + "\t"):
            terms |= {plain(term) for _, term in pending}
            pending = []
        if begins.startswith("*") and (pending or not before.strip()):
            pending.append((line[: len(line) - len(begins)], begins))
        else:
            pending = []
        before = line
    return {term for term in terms if re.match(pattern, term)}


def example(page):
    """The first block of literal text under EXAMPLES."""
    return re.search(r"^```\n(.*?)^```", section(page, "EXAMPLES"), re.M | re.S)[1].replace("\\\\", "\\")


# ---- options ----


def help_of(*command):
    return subprocess.run([program, *command, "--help"], capture_output=True, text=True, check=True).stdout


def help_block(text, title):
    found = re.search(rf"^{title}[^\n]*:\n(.*?)(?=\n\n|\Z)", text, re.M | re.S)
    return found[1] if found else ""


def help_options(text, title):
    """As in the pages: "-J, --json", "--box=ID"."""
    return {line.strip() for line in re.findall(r"^  (?:  )?(.{2,}?)(?:   *\S.*| *)$", help_block(text, title), re.M)
            if line.strip().startswith("-")}


def page_of(command):
    """The page of a command, or what the overview has of it."""
    for section_number in "17":
        if f"rbxj-{command}.{section_number}" in pages:
            return section(pages[f"rbxj-{command}.{section_number}"], "OPTIONS")
    found = re.search(rf"^\*{command}\*.*\n((?:\t.*\n|\n)*)", section(pages["rbxj.1"], "COMMANDS"), re.M)
    return found[1] if found else ""


def options():
    commands = re.findall(r"^  (\w+)", help_block(help_of(), "Commands"), re.M)
    listed = re.findall(r"^\*(\w+)\*", section(pages["rbxj.1"], "COMMANDS"), re.M)
    check("rbxj(1) has the commands that there are, in their order",
          [] if commands and commands == listed else [f"{commands} in the program, {listed} in the page"])
    of_all = defined(section(pages["rbxj.1"], "OPTIONS"), "-")
    check("rbxj(1) has the options of every command", same(help_options(help_of(), "Options"), of_all, "--help", "the page"))
    for command in commands:
        own = help_options(help_of(command), "Options(?=:)")
        # perhaps several in one line, or with an operand: "--quarantine, --unquarantine", "--adopt [NAME...]"
        in_page = {re.sub(r" \[.*", "", each) for line in defined(page_of(command), "--") for each in re.split(r", (?=--)", line)}
        check(f"{command}: its page has its options, and no other", same(own, in_page, "--help", "the page"))


# ---- metrics ----


def metrics():
    """Each family with its labels, as the program prints them."""
    with tempfile.TemporaryDirectory() as nothing:
        environment = {"RBXJ_STATE_DIR": nothing + "/state", "RBXJ_RUNTIME_DIR": nothing + "/run"}
        text = subprocess.run([program, "metrics"], env=environment, capture_output=True, text=True, check=True).stdout
    printed = set()
    for name in re.findall(r"^# TYPE (\S+)", text, re.M):
        label = re.search(rf"^{name}\{{(\w+)=", text, re.M)
        printed.add(name + ("{" + label[1] + "}" if label else ""))
    check("rbxj-metrics(1) has the metrics that are printed",
          same(printed, {each for line in defined(section(pages["rbxj-metrics.1"], "METRICS"), r"\w")
                         for each in line.split(", ")}, "the program", "the page"))


# ---- the configuration ----


def default_of(value):
    """An initializer of config_load(), as rbxj.conf has it."""
    number = eval(re.sub(r"U?LL", "", value))
    if "* 1000000000" in value:
        return f"{number // 10**9}s"
    shift = re.search(r"<< (\d+)", value)
    return f"{number >> int(shift[1])}{'KMGT'[int(shift[1]) // 10 - 1]}" if shift else str(number)


def configuration():
    source, text = read("src/base/config.c"), pages["rbxj.conf.5"]
    keys = {(s, name): (setter, field) for s, name, setter, field in
            re.findall(r'^    \{"(\w+)", "(\w+)", set_(\w+), TO\((\w+)\)\}', source, re.M)}
    said = {(s, term.split("=")[0]): term for s in re.findall(r"^# \[(\w+)\]$", text, re.M)
            for term in defined(section(text, f"[{s}]"), "[a-z]")}
    check("rbxj.conf(5) has the keys that there are", same(set(keys), set(said), "the source", "the page")
          or ([] if keys else ["no key was found in the source"]))
    defaults = {field: default_of(value) for field, value in
                re.findall(r"^        \.(\w+) = (\d[^,]*),", source[source.index("int config_load") :], re.M)}
    defaults |= {field: value for value, field in re.findall(r'words\("(.*?)", \w+,\s+&config->(\w+)', source)}
    of_setter = {"durability": "auto", "lazy_umount": "never", "paths": "empty", "jobs": "empty"}
    wrong = []
    for (s, name), (setter, field) in keys.items():
        default = defaults.get(field, of_setter.get(setter)) + ("%" if setter == "percent" else "")
        item = re.search(rf"^\*{name}\*=.*\n((?:\t.*\n)+)", section(text, f"[{s}]"), re.M)
        if not item or not plain(item[1]).rstrip().endswith(f"Default: {default}."):
            wrong.append(f"[{s}] {name}: it is {default}")
    check("and their defaults", wrong)
    with tempfile.TemporaryDirectory() as directory:
        with open(directory + "/rbxj.conf", "w", encoding="utf-8") as file:
            file.write(example(text))
        arguments = ["--state-dir", directory + "/state", "--runtime-dir", directory + "/run", "--config", file.name, "list"]
        ran = subprocess.run([program, *arguments], capture_output=True, text=True)
    check("its example is a configuration", [ran.stderr] if ran.returncode else [])


# ---- the hook ----


def hook():
    source, page = read("src/cli/hook_request.c"), pages["rbxj-hook.7"]
    for what, table, title in ("requests", "ops", "REQUESTS"), ("resources", "kinds", "RESOURCES"):
        rows = re.search(rf"\}} {table}\[\] = \{{\n(.*?)\n\}};", source, re.S)[1]
        names = set(re.findall(r'\{"(\w+)",', rows))
        check(f"rbxj-hook(7) has the {what} that there are",
              same(names, {re.split(r"[ ,]", term)[0] for term in defined(section(page, title), "[a-z]")}, "the source", "the page"))
        fields = set(re.findall(r'FIELD\("(\w+)"', rows)) | {"op", "box", "seq"}
        fields |= {name + form for name in re.findall(r'BYTES\("(\w+)"', rows) for form in ("", "_raw")}
        check(f"and their fields ({what})", [name for name in sorted(fields) if f"*{name}*" not in page.replace("\\_", "_")])
    codes = set(re.findall(r'= "(\w+)",', re.search(r"names\[\] = \{(.*?)\};", read("src/base/error.c"), re.S)[1], re.M))
    codes |= set(re.findall(r'failure\("(\w+)"', read("src/cli/hook.c")))
    check("and the codes of its errors",
          same(codes - {"forked"}, defined(section(page, "ERRORS"), "[a-z]"), "the source", "the page"))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.mkdir(directory + "/state", 0o700)
        os.symlink(program, directory + "/rbxj")
        environment = {"RBXJ_STATE_DIR": directory + "/state", "RBXJ_RUNTIME_DIR": directory + "/run",
                       "PATH": directory + ":" + os.environ["PATH"]}
        os.mkdir(directory + "/run", 0o700)
        code = example(page).replace("/srv/box7", directory + "/box7")
        ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        left = sorted(set(os.listdir(directory)) - {"state", "run", "rbxj"})
    check("its example works, and leaves nothing", [ran.stderr] if ran.returncode else left)


# ---- the library ----


def members(header):
    """The members of the public structs, but for those that have no use yet."""
    for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", header, re.M | re.S):
        for member in body.split(";"):
            function = re.search(r"\(\*(\w+)\)\(", member)
            names = [function[1]] if function else re.findall(r"(\w+)\s*(?:\[\w+\])?\s*(?:,|$)", member.strip())
            yield from ((name, each) for each in names if each != "reserved" and (name, each) not in UNUSED)


UNUSED = {("rbxj_result_box", "flags"), ("rbxj_health", "flags")}


def library():
    page, header = pages["librbxj.3"], re.sub(r"/\*.*?\*/", "", read("include/rbxj.h"), flags=re.S)

    def prototypes(text):
        found = re.findall(r"^(?:int|void|size_t|const char \*) ?rbxj_\w+\([^;{]*\);", text, re.M)
        return {re.sub(r"\s+", " ", each) for each in found}

    check("librbxj(3) has the functions of the header",
          same(prototypes(header), prototypes(section(page, "SYNOPSIS")), "the header", "the page"))
    described = re.findall(r"\*(rbxj_\w+)\*\(\)", page)
    check("and says what they do", [each for each in re.findall(r"\b(rbxj_\w+)\(", header) if each not in described])
    check("and has the members of the structs",
          [f"struct {name}: {each}" for name, each in members(header) if f"_{each}_" not in page])
    check("and the codes of errors", same(set(re.findall(r"\bRBXJ_E_\w+(?= =)", header)),
                                          defined(section(page, "ERRORS"), "[A-Z]"), "the header", "the page"))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        for name in "state", "run":
            os.mkdir(f"{directory}/{name}", 0o700)
        with open(directory + "/example.c", "w", encoding="utf-8") as file:
            file.write(example(page))
        compiler = [os.environ.get("CC", "cc"), "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", tree + "/include"]
        built = subprocess.run([*compiler, "-o", directory + "/example", file.name, "-L", build, "-lrbxj"],
                               capture_output=True, text=True)
        check("its example is compiled without a warning", [built.stderr] if built.returncode else [])
        environment = {"RBXJ_STATE_DIR": directory + "/state", "RBXJ_RUNTIME_DIR": directory + "/run",
                       "LD_LIBRARY_PATH": build, "PATH": os.environ["PATH"]}
        ran = built.returncode == 0 and subprocess.run([directory + "/example", directory + "/box"], env=environment,
                                                       capture_output=True, text=True, timeout=60)
        check("its example works, and leaves nothing",
              [] if ran and ran.returncode == 0 and ran.stdout.startswith("d") and not os.path.exists(directory + "/box")
              else [f"{ran}"])


# ---- the journal ----

SIZES = {"u8": 1, "u16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8}
TYPES = {"F_U32": "u32", "F_U64": "u64", "F_BYTES16": "id", "F_NAME": "text", "F_STRING": "text", "F_BLOB": "blob",
         "F_FILEID": "file", "F_PROCID": "process"}


def layout(source, name):
    """What a struct has: (offset, type, name), without padding."""
    body = re.sub(r"/\*.*?\*/", "", re.search(rf"struct {name} \{{\n(.*?)^\}};", source, re.M | re.S)[1], flags=re.S)
    constants = {"BOX_NAME_MAX": 64, "FILEID_HANDLE_MAX": 36}
    members, at = set(), 0
    for kind, member, length in re.findall(r"(\w+) (\w+)(?:\[(.*?)\])?;", body):
        kind = re.sub(r"^(u?)int(\d+)_t$", lambda m: ("u" if m[1] else "i") + m[2], kind.replace("char", "uint8_t"))
        count = eval(length, constants) if length else 1
        members.add((at, f"{kind}[{count}]" if length else kind, member))
        at += SIZES[kind] * count
    return members


def journal():
    page, record, internal = pages["rbxj-journal.5"], read("src/journal/record.h"), read("src/journal/internal.h")
    blocks = {frozenset((int(at), kind, name) for at, kind, name in re.findall(r"^ ?(\d+)  (\S+) +(\w+)", block, re.M))
              for block in re.findall(r"^```\n(.*?)^```", page, re.M | re.S)}
    for source, name in ((record, "record_head"), (record, "log_frame"), (read("src/base/fileid.h"), "fileid"),
                         (read("src/base/procid.h"), "procid")):
        there = layout(source, name)
        near = max(blocks, key=lambda block: len(block & there))
        check(f"rbxj-journal(5) has struct {name} as it is", same(there, near, "the source", "the page"))
    fields = read("src/journal/record.c")
    for table, title in ("box_fields", "FIELDS OF A BOX"), ("record_fields", "FIELDS OF A RESOURCE"):
        rows = re.search(rf"{table}\[\] = \{{\n(.*?)^\}};", fields, re.M | re.S)[1]
        there = {f"{tag} {name} ({TYPES[kind]})" for tag, kind, name in re.findall(r"[BR]\((\d+), (\w+), ([\w.]+)\)", rows)}
        there |= {f"{tag} {name} ({TYPES[kind]})" for tag, kind, name in
                  re.findall(r"\{(\d+), (\w+), offsetof\(struct record, (\w+)\)", rows)}
        # a term without an explanation is one, too
        said = {plain(term) for line in re.findall(r"^\*\d.*", section(page, title), re.M) for term in line.split("), ")}
        said = {term if term.endswith(")") else term + ")" for term in said if re.match(r"\d+ \w", term) and "(" in term}
        check(f"and the {title.lower()}", same(there, said, "the source", "the page"))
    flags = re.search(r"enum record_flags \{(.*?)\};", record, re.S)[1]
    there = {f"{value} {name}" for name, value in re.findall(r"REC_(\w+) =\s+(\d+),", flags)}
    check("and the flags of a resource",
          same(there, defined(section(page, "FIELDS OF A RESOURCE"), r"\d+ [A-Z]"), "the source", "the page"))
    there = set(re.findall(r'#define (?:DB|META)_\w+\s+(?:\\\n\s*)?"(\w+)"', internal))
    check("and the databases, and what is in meta",
          same(there, defined(section(page, "DATABASES"), "[a-z]"), "the source", "the page"))
    marks = re.findall(r"MARK_\w+ = '(\w)'", internal)
    check("and the marks", [mark for mark in marks if f"_{mark}_" not in section(page, "DATABASES")])
    numbers = {"RECORD_VERSION": "version       1", "JOURNAL_FORMAT": "32 bits: 1."}
    check("and the versions", [name for name, text in numbers.items()
                               if not re.search(rf"#define {name} 1$", record + internal, re.M) or text not in page])


# ---- the overview ----


def overview():
    page = pages["rbxj.1"]
    there = set(re.findall(r'X\("(\w+)"', read("src/reaper/event_ids.h")))
    said = {name for line in re.findall(r"^_.*_$", section(page, "EVENTS"), re.M) for name in re.findall(r"\b_?([a-z]+(?:_[a-z]+)*)_", line)}
    check("rbxj(1) has the events that there are", same(there, said, "the source", "the page"))
    statuses = set(re.findall(r"STATUS_\w+ = (\d)", read("src/cli/cli.h")))
    check("and the exit statuses", same(statuses, defined(section(page, "EXIT STATUS"), r"\d"), "the source", "the page"))
    text = "".join(read(f"{path}/{name}") for path in ("src/base", "src/journal", "src/reaper", "src/cli")
                   for name in sorted(os.listdir(f"{tree}/{path}")))
    there = set(re.findall(r'getenv\("(\w+)"\)', text))
    there |= {name for call in re.findall(r"variable\((.*)\)", text) for name in re.findall(r'"(\w+)"', call)}
    there |= {"WATCHDOG_USEC"} if "sd_watchdog_enabled" in text else set()
    said = {name for line in defined(section(page, "ENVIRONMENT"), "[A-Z]") for name in line.split(", ")}
    check("and the environment", same(there, said, "the source", "the page"))
    without = [name for name in pages if name[-1] == "1" and not section(pages[name], "EXIT STATUS")]
    check("every command's page has its exit status", without)


# ---- JSON ----


def keys_of(value):
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    for each in value if isinstance(value, list) else []:
        yield from keys_of(each)


def documents_said():
    """Each key of the documents that man.sh has made is in the page of the command, or in one to which that refers."""
    for name in sorted(os.listdir(documents)):
        page, what = name.rsplit(".", 1)
        with open(f"{documents}/{name}", "rb") as file:
            keys = set(keys_of(json.load(file)))
        text = pages[page]
        for other in "rbxj-health.1", "rbxj-replay.1", "rbxj.1":
            if f"*{other[:-2]}*(1)" in section(text, "OUTPUT"):
                text += pages[other]
        text = text.replace("\\_", "_")
        check(f"{page}: JSON ({what})", [key for key in sorted(keys) if f"_{key}_" not in text] if keys else ["none"])


# ---- what pages say of each other ----


def references():
    there = set(pages) | {name + ".3" for name in re.findall(r"\brbxj_\w+(?=;)", read("src/librbxj.map"))}
    texts = pages | {name: read(name) for name in ("include/rbxj.h", "src/cli/main.c", "systemd/rbxj.catalog", "README.md")}
    texts |= {f"systemd/{name}": read(f"systemd/{name}") for name in os.listdir(tree + "/systemd") if name.endswith(".in")}
    missing = []
    for name, text in sorted(texts.items()):
        said = {f"{n}.{s}" for n, s in re.findall(r"\*?\b((?:lib)?rbxj[\w.-]*?)\*?\((\d)\)", text.replace("\\_", "_"))}
        missing += [f"{name}: {page}" for page in sorted(said - there)]
    check("the pages that are referred to are there", missing)
    for name, page in pages.items():
        check(f"{name}: version and SEE ALSO",
              [] if re.match(r'\S+ "rbxj @VERSION@"\n', page) and section(page, "SEE ALSO") else ["one of them is missing"])
    released = re.search(r"^RELEASED := (\S+)$", read("Makefile"), re.M)[1]
    date = re.search(r"^ -- .*  (.*)$", read("debian/changelog"), re.M)[1]
    check("their date is that of the packages",
          same({released}, {parsedate_to_datetime(date).strftime("%Y-%m-%d")}, "Makefile", "debian/changelog"))
    seen = section(pages["rbxj.1"], "SEE ALSO").replace("*", "")
    check("rbxj(1) names every page",
          [name for name in pages if name != "rbxj.1" and f"{name[:-2]}({name[-1]})" not in seen])


options()
metrics()
configuration()
hook()
library()
journal()
overview()
documents_said()
references()
print(f"1..{count}")
sys.exit(failures > 0)
