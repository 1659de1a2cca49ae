#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the runbook's daily audit calls: what looks like ours and is not journaled, and the reverse. Changes nothing.
exec rbxj audit "$@"
