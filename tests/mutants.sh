#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Do the edits of mutants.txt still fit the source, does every rule have one, and is the table of README.md theirs?
# (Whether each makes its test fail is "make mutants": it takes an hour.)
set -eu
exec "$(dirname "$0")/mutants.py" --check
