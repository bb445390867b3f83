#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# docs/lifetime.md: each test that it names, file:test, is in that file, and is
# run: its name is there twice, where it is written and where it is listed.
. "$(dirname "$0")/files"
doc=docs/lifetime.md
bad=0
named=$(grep -oE '\btest_[a-z_]+\.c:[a-z_]+' $doc | sort -u)
[ -n "$named" ] || { echo "lint: $doc: names no test"; exit 1; }
for t in $named; do
	file=${t%%:*}
	name=${t#*:}
	path=tests/unit/$file
	[ -e "$path" ] || path=tests/vm/$file
	[ -e "$path" ] || { echo "lint: $doc: no file $file"; bad=1; continue; }
	grep -qE "^static void $name\(void \*\*" "$path" &&
		[ "$(grep -cwE "$name" "$path")" -ge 2 ] && continue
	echo "lint: $doc: $file has, or runs, no test $name"
	bad=1
done
# No row is without a test or a reason.
grep -nE '^\|' $doc | grep -E '\| *\|$' && { echo "lint: $doc: an empty cell"; bad=1; }
exit $bad
