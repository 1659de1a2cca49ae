# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The situations of docs/integrators-guide.md (page.py), inside a machine with nothing of rbxj enabled.
# shellcheck disable=SC2317
umount -l /dev/kmsg 2>/dev/null
rm -f /dev/kmsg # what the kernel says here is not about this machine
shopt -u expand_aliases
export LD_LIBRARY_PATH=/usr/local/lib PKG_CONFIG_PATH=/usr/local/lib/pkgconfig
mount -t tmpfs box /srv
until_true() {
    local until=$((SECONDS + 30))
    while ((SECONDS < until)); do
        ! "$@" || return 0
        command sleep 0.02
    done
    return 1
}
# A person is not as fast as the next command here. Nobody is told of its death.
kill() {
    disown
    builtin kill "$@" && until_true is_dead "${*: -1}"
}
is_dead() { ! grep -q '^[^)]*) [^ZX]' "/proc/$1/stat" 2>/dev/null; }

situation_programs() { true; }
situation_is_over() {
    rbxj health && rbxj health --verify-clean && [ -z "$(ls /srv)" ] && [ ! -e /sys/fs/cgroup/box3 ] &&
        ! grep ' /srv/' /proc/self/mountinfo
}
