#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Includes point one way only: cli -> reaper -> journal -> base. The cli's own headers are the cli's alone.
set -eu
cd "${1:-$(dirname "$0")/..}"

layers="base journal reaper cli"
bad=0
above=$layers
for layer in $layers; do
    above=${above#"$layer"}
    above=${above# }
    [ -n "$above" ] && [ -d "src/$layer" ] || continue
    # "journal/x.h", <journal/x.h>, and "../journal/x.h" alike
    if grep -rnE --include='*.[ch]' "^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<](.*/)?(${above// /|})/" "src/$layer"; then
        bad=1
    fi
done
if [ -d include ] && grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' include; then
    echo "the public header includes one of our own" >&2
    bad=1
fi
[ "$bad" = 0 ] || { echo "upward includes: each layer may include only itself and those below it ($layers)" >&2; exit 1; }
