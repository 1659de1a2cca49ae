#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Every command of docs/operators-guide.md, in the situation that it speaks of, in a machine with a systemd of its own
# (machine.bash): what it shows must be what the page shows, and afterwards nothing is left: guides.sh [RBXJ]
# RBXJ_TEST_UPDATE=1 writes what is shown into the page.
. "${0%/*}/lib.bash"
. "${0%/*}/machine.bash"

page=$top/docs/operators-guide.md
machine_make /usr/local
unit rustbox.service '[Service]' \
    'ExecStart=rbxj run --box 9 --lock /var/lib/rustbox/boxes/9/lock --tmpdir /tmp/rustbox-9 -- sleep 1000' \
    "ExecStartPost=sh -c 'until rbxj -n list --box 9 | grep -q process; do sleep 0.1; done'" \
    '[Install]' WantedBy=multi-user.target
mkdir -p "$root/var/lib/rustbox/boxes/9" "$root/srv/pages"
cp "$top/tests/page.py" "$page" "$top/tests/pages/"*.bash "$root/srv/pages/"
machine_runs "bash -c 'cd /srv/pages; python3 -I -S page.py operators-guide.md operators-guide.bash ${RBXJ_TEST_UPDATE:+--update}; echo finished'"
enable inside.service systemd-tmpfiles-setup.service
boot 1 "${RBXJ_TEST_UPDATE:+60}"
cut
[ -z "${RBXJ_TEST_UPDATE:-}" ] || cp "$root/srv/pages/operators-guide.md" "$page"
report "operators-guide.md "
finish
