#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual pages, as make manuals has made them, are what mandoc and man read without a complaint.
set -eu
cd "$(dirname "$0")/.."

for tool in mandoc man; do
    command -v "$tool" >/dev/null || { echo "needs $tool"; exit 77; }
done
pages=("${RBXJ_BUILD:-build}"/man/*.[1-9])
[ -e "${pages[0]}" ] || { echo "no pages: make manuals"; exit 77; }

status=0
mandoc -T lint "${pages[@]}" || status=1
for page in "${pages[@]}"; do
    said=$(LC_ALL=C.UTF-8 MANWIDTH=80 MANROFFSEQ='' man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
    [ -z "$said" ] || { echo "$page: $said"; status=1; }
done
exit $status
