#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The examples, each run whole and then killed at 50 random moments: examples.sh [RBXJ]
# RBXJ_TEST_SEED repeats a run, RBXJ_TEST_KILLS=N kills more often.
. "${0%/*}/lib.bash"

[ -n "$group" ] || { echo "needs cgroup2"; exit 77; }
top=$(realpath "${0%/*}/..")
prefix=$work/prefix
unset MAKEFLAGS MFLAGS MAKELEVEL

# As a stranger has them: against an installed copy. DESTDIR=/ keeps the system's own places out of it.
make -C "$top" -s BUILD="${RBXJ_BUILD:-build}" DESTDIR=/ PREFIX="$prefix" install >"$work/out" 2>"$work/err" &&
    PKG_CONFIG_PATH=$prefix/lib/pkgconfig \
        sh -c 'cc -Wall -Wextra -Werror -o "$2" "$1" $(pkg-config --cflags --libs rbxj)' sh \
        "$top/examples/supervisor.c" "$work/supervisor" >>"$work/out" 2>>"$work/err"
check "the C example builds with pkg-config" is $? 0

fresh
export LD_LIBRARY_PATH=$prefix/lib
mkdir "$work/boxes"
python3 -I -S "$top/tests/examples.py" "$work/boxes" "$group" "$prefix/bin/rbxj" \
    "$work/supervisor" "$top/examples/supervisor.py" "$top/examples/supervisor.sh" >"$work/tap"
status=$?
cat "$work/tap"
passed=$((passed + $(grep -c '^ok' "$work/tap"))) failed=$((failed + $(grep -c '^not ok' "$work/tap")))
check "all of it was done" is $status 0
finish
