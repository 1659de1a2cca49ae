#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj run on a terminal, and its signals: terminal.sh [RBXJ]
# The tests are in terminal.py; here is the place for them, taken away however they end.
. "${0%/*}/lib.bash"

fresh
export RBXJ_DURABILITY=resource
python3 -I -S -B -u "${0%/*}/terminal.py" "$rbxj" "$work"
