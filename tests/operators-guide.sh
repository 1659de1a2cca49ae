#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every command of docs/operators-guide.md, in the situation that it speaks of: what it shows must be what the page shows,
# and afterwards nothing is left: operators-guide.sh [RBXJ]
. "${0%/*}/lib.bash"
. "${0%/*}/guide.bash"

guide_machine
unit rustbox.service '[Service]' \
    'ExecStart=rbxj run --box 9 --lock /var/lib/rustbox/boxes/9/lock --tmpdir /tmp/rustbox-9 -- sleep 1000' \
    "ExecStartPost=sh -c 'until rbxj -n list --box 9 | grep -q process; do sleep 0.1; done'" \
    '[Install]' WantedBy=multi-user.target
guide operators-guide.md
finish
