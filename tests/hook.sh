#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# rbxj hook from outside, as a supervisor in another language uses it: hook.sh [RBXJ]
# The tests are in hook.py and hook_lines.py; here is the place for them, taken away however they end.
. "${0%/*}/lib.bash"

export RBXJ_DURABILITY=resource
python3 -I -S -B -u "${0%/*}/hook.py" "$rbxj" "$work" "$shm" "$group"
