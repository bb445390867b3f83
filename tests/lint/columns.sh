#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No line of C is over 100 columns, tabs being 8, but for a few that read better
# uncut: 104 pass. Functions are 60 lines at most.
. "$(dirname "$0")/files"
bad=0
for f in $(files '*.c' '*.h'); do
	expand "$f" | awk -v f="$f" '
		length > 104 { print "lint: " f ":" NR ": " length " columns"; bad = 1 }
		/^{$/ { begin = NR }
		/^}/ && begin {
			if (NR - begin > 61) {
				print "lint: " f ":" begin ": a function of " NR - begin - 1 " lines"
				bad = 1
			}
			begin = 0
		}
		END { exit bad }' || bad=1
done
exit $bad
