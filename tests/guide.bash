# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A guide of docs/ that is done, command by command, in a machine with a systemd of its own (machine.bash, page.py).
# Sourced after lib.bash. RBXJ_TEST_UPDATE=1 writes what the commands show into the page.
. "$top/tests/machine.bash"

guide_machine() {
    machine_make /usr/local
    mkdir -p "$root/var/lib/rustbox/boxes/9"
    enable systemd-tmpfiles-setup.service
}
# guide PAGE.md: with the situations of pages/PAGE.bash.
guide() {
    local name=${1%.md}
    mkdir -p "$root/opt/pages"
    cp "$top/tests/page.py" "$top/docs/$1" "$top/tests/pages/$name.bash" "$root/opt/pages/"
    machine_runs "bash -c 'cd /opt/pages; python3 -I -S page.py $1 $name.bash ${RBXJ_TEST_UPDATE:+--update}; echo finished'"
    enable inside.service
    boot 1 "${RBXJ_TEST_UPDATE:+60}"
    cut
    [ -z "${RBXJ_TEST_UPDATE:-}" ] || cp "$root/opt/pages/$1" "$top/docs/$1"
    report "$1 "
}
