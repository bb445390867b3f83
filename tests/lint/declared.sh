#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Metrics, crash points and settings that are declared are also used.
. "$(dirname "$0")/files"
bad=0
used() { # identifier, what it is, folders where it may be used
	name=$1 what=$2
	shift 2
	grep -rqwF --include='*.[ch]' "$name" "$@" 2>/dev/null && return
	echo "lint: $name: $what is declared and never used"
	bad=1
}
for id in $(sed -n 's/^METRIC(\([A-Z_]*\),.*/\1/p' common/metrics.def); do
	used "M_$id" "a metric" common index engine fs
done
for id in $(sed -n 's/^CRASH_POINT(\([A-Z_]*\),.*/\1/p' common/crash.def); do
	used "CRASH_$id" "a crash point" index engine fs
done
for id in $(sed -n 's/^CONFIG(\([a-z_]*\),.*/\1/p' common/config.def); do
	used "$id" "a setting" tools common/config_parse.c
done
exit $bad
