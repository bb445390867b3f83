#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each source says its licence within its first three lines.
. "$(dirname "$0")/files"
bad=0
for f in $(files '*.c' '*.h' '*.pml'; scripts); do
	head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' && continue
	echo "lint: $f: no SPDX line"
	bad=1
done
exit $bad
