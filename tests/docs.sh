#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Pages against each other and against the tree: docs.sh
cd "${0%/*}/.." || exit 1
python3 -I -S - <<'P'
import glob, os, re

count = failed = 0


def check(name, wrong):
    global count, failed
    count += 1
    failed += bool(wrong)
    print(f"{'not ok' if wrong else 'ok'} {count} {name}")
    for line in wrong:
        print(f"  {line}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


pages = sorted([*glob.glob("*.md"), *glob.glob("*/*.md")])
text = {page: re.sub(r"^```.*?^```$", "", read(page), flags=re.M | re.S) for page in pages}


def anchors(page):
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text[page], re.M)}


def broken(page, link):
    if "://" in link:
        return False
    path, _, anchor = link.partition("#")
    target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
    return not os.path.exists(target) or (anchor and anchor not in anchors(target))


check("every link leads somewhere", [f"{page}: {link}" for page in pages
                                     for link in re.findall(r"\]\(([^)\s]+)\)", text[page]) if broken(page, link)])
check("every file that is named in docs/ is there",
      [f"{page}: {name}" for page in pages if page.startswith("docs/")
       for name in re.findall(r"`((?:src|tests|examples|monitoring|include)/[\w./-]+\.\w+)`", text[page])
       if not os.path.exists(name)])
named = set(re.findall(r"^\| ([IK]\d+) \|", text["tests/README.md"], re.M))
explained = set(re.findall(r"^\| \**([IK]\d+)\** \|", text["docs/design.md"], re.M))
check("every rule that has a test is explained", sorted(named - explained))
check("I1 to I10 and K1 to K35 are", sorted({*(f"I{i}" for i in range(1, 11)), *(f"K{i}" for i in range(1, 36))} ^ explained))
check("every page of docs/ is linked from README.md", [p for p in pages if p.startswith("docs/") and f"({p})" not in text["README.md"]])
statuses = re.findall(r"^- alert: (\w+)", read("monitoring/rbxj.rules.yml").replace("      - alert", "- alert"), re.M)
check("every alert is in the operator's guide", [a for a in statuses if f"`{a}`" not in text["docs/operators-guide.md"]])
reasons = re.findall(r'\[QUARANTINE_\w+\] = "(\w+)"', read("src/reaper/quarantine.c"))
assert len(statuses) >= 9 and len(reasons) >= 6
check("every reason of a quarantine is, too", [r for r in reasons if f"`{r}`" not in text["docs/operators-guide.md"]])
print(f"1..{count}")
raise SystemExit(failed > 0)
P
