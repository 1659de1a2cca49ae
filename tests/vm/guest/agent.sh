#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Does what the second serial port says: a line is a command in base64, the answer its status and output in base64.
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo "ready" >&3
while read -r line <&3; do
    output=$(base64 -d <<<"$line" | bash 2>&1 3<&- </dev/stdin)
    printf '%d %s\n' "$?" "$(base64 -w0 <<<"$output")" >&3
done
