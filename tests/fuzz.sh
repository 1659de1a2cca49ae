#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What fuzzers found once, and the seeds that they start from, given to every target again: fuzz.sh [RBXJ]
# By a plain driver (fuzz/driver.c), with and without sanitizers; clang is not needed.
. "${0%/*}/lib.bash"
build=$(dirname "$rbxj")
regress=$(realpath "${0%/*}/../fuzz/regress")

mkdir "$work/seeds"
"$build/fuzz/seeds" "$work/seeds" >"$work/out" 2>"$work/err"
check "the seeds are made" is $? 0

# replay TARGET PROGRAM: every file is read, and none of them ends it.
replay() {
    local dirs=("$work/seeds/$1") want
    [ ! -d "$regress/$1" ] || dirs+=("$regress/$1")
    want=$(find "${dirs[@]}" -type f | wc -l)
    timeout 60 "$2" "${dirs[@]}" >"$work/out" 2>"$work/err"
    status=$?
    check "$1: ends well" is "$status" 0
    check "$1: has read them all" out_has "$want inputs"
}

for flavour in "" asan/; do
    programs=("$build/${flavour}fuzz/"replay_*[a-z])
    check "${flavour}the programs are there (make replayers)" test -x "${programs[0]}"
    for program in "${programs[@]}"; do
        [ ! -x "$program" ] || replay "${program##*/replay_}" "$program"
    done
done
finish
