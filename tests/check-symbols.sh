#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the public header declares is exactly what the version script exports, the shared library has and test_abi.c
# lists.
set -eu
cd "$(dirname "$0")/.."

library=${RBXJ_BUILD:-build}/librbxj.so
declared=$(grep -v '^ \*' include/rbxj.h | grep -oE '\brbxj_[a-z_]+\(' | tr -d '(' | sort -u)
mapped=$(grep -oE '^ +rbxj_[a-z_]+;' src/librbxj.map | tr -d ' ;' | sort -u)
status=0

compare() {
    diff <(echo "$2") <(echo "$3") >/dev/null && return
    echo "in rbxj.h (<) and in $1 (>):"
    diff <(echo "$2") <(echo "$3") | grep '^[<>]'
    status=1
}
compare src/librbxj.map "$declared" "$mapped"
compare tests/test_abi.c "$declared" "$(grep -oE 'SIGNATURE\(rbxj_[a-z_]+' tests/test_abi.c | sed 's/.*(//' | sort -u)"
if [ -e "$library" ]; then
    compare "$library" "$declared" "$(nm -D --defined-only "$library" | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' | sort -u)"
fi
exit $status
