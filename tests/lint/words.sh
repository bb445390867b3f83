#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No unfinished business, and no path of the machine that something was written
# on. (XXX: is for what is known to be wrong and says so.)
. "$(dirname "$0")/files"
bad=0
list=$(files '*.c' '*.h' '*.def' '*.cmake' 'CMakeLists.txt' '*.md' '*.json' '*.[1-8]'; scripts)
list=$(echo "$list" | grep -v '^tests/lint/words\.sh$')
forbid() { # pattern, sentence
	# shellcheck disable=SC2086 # no blanks in our file names
	grep -nE "$1" $list && { echo "lint: $2"; bad=1; }
}
forbid '\b(TODO|FIXME|HACK|WIP|XXX[^:X"])' "unfinished; finish it, or say with XXX: what is wrong"
forbid '(^|[^A-Za-z0-9_.])/(work|home|root|Users)/[a-z]' "a path of somebody's machine"
forbid '/tmp/build' "a path of somebody's machine"
forbid '[ 	]+$' "blanks at the end of a line"
exit $bad
