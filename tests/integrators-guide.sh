#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every program of docs/integrators-guide.md, compiled, run whole and killed: integrators-guide.sh [RBXJ]
. "${0%/*}/lib.bash"
. "${0%/*}/guide.bash"

# What the page quotes of an example is in it, word by word.
quotes() {
    python3 -I -S - "$top" <<'P'
import re, sys
page = open(f"{sys.argv[1]}/docs/integrators-guide.md").read()
found = re.findall(r"^<!-- quote: (\S+) -->\n```\w+\n(.*?)^```$", page, re.M | re.S)
wrong = [name for name, text in found if text not in open(f"{sys.argv[1]}/{name}").read()]
print(*("not as in the file: " + name for name in wrong), end="")
sys.exit(len(found) < 2 or bool(wrong))
P
}
guide_machine
check "what is quoted is so" quotes
guide integrators-guide.md
finish
