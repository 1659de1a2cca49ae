#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How much slower than to believe a journal is not to believe it? pages.sh [RECORDS [ROUNDS]]
# Ends with 1 if validation takes more than twice liblmdb's own scan, or carving more than twice a checksum of the file.
set -eu

records=${1:-100000} rounds=${2:-21}
here=$(cd "$(dirname "$0")/.." && pwd)
build=$(realpath "${RBXJ_BUILD:-$here/build}")
work=$(mktemp -d /dev/shm/rbxj-bench.XXXXXX) # a tmpfs, as /run is
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -m 0700 "$work/state" "$work/run"

packages="lmdb libcjson mount libcgroup libsystemd inih libxxhash"
# shellcheck disable=SC2046
${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -pthread -I"$here/include" -I"$here/src" -o "$work/bench" \
    "$here/bench/pages.c" "$build/librbxj.a" $(pkg-config --cflags --libs $packages)
"$work/bench" "$work" "$records" "$rounds"
