#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the runbook's step 5.3 calls: everything that dead boxes left is undone, and nothing else.
exec rbxj health --recover "$@"
