#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A folder includes only from itself and from folders to its right, and of
# another folder only the public headers. Foreign libraries have one home each.
. "$(dirname "$0")/files"
order="tools fs engine index common"
bad=0
seen=
for dir in $order; do
	for up in $seen; do
		grep -nE "#\s*include \"$up/" "$dir"/*.[ch] 2>/dev/null && bad=1
	done
	for other in $order; do
		case $other in "$dir" | common) continue ;; esac
		public="$other/$other\\.h"
		[ "$other" = index ] && public="index/(index|kv)\\.h"
		[ "$other" = engine ] && public="engine/(engine|probe|rdma_port)\\.h"
		grep -nE "#\s*include \"$other/" "$dir"/*.[ch] 2>/dev/null |
			grep -vE "\"$public\"" && bad=1
	done
	# From the root, always.
	grep -nE '#\s*include "' "$dir"/*.[ch] 2>/dev/null |
		grep -vE '"(tools|fs|engine|index|common)/' && bad=1
	seen="$seen $dir"
done
home() { # pattern, the places where it may appear
	grep -nE "#\s*include <($1)" tools/*.[ch] fs/*.[ch] engine/*.[ch] index/*.[ch] \
		common/*.[ch] 2>/dev/null | grep -vE "^($2)" && bad=1
}
home 'fuse' 'fs/'
home 'lmdb\.h' 'index/'
home 'curl/' 'index/'
home 'uv\.h' 'common/loop_uv\.h'
home 'liburing' 'engine/disk\.c'
home 'sodium' 'index/|engine/auth\.c'
home 'infiniband/|rdma/' 'engine/rdma_verbs\.h'
[ $bad = 0 ] || echo "lint: an include goes against the layers tools -> fs -> engine -> index -> common"
exit $bad
