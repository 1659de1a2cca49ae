#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual pages say what the source and the program say, and nothing is missing in either: man.sh
exec python3 -I -S "${0%/*}/man.py" "${0%/*}/.." "${RBXJ:-build/rbxj}" "${RBXJ_BUILD:-build}"
