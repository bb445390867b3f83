#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each header compiles alone, and twice.
. "$(dirname "$0")/files"
bad=0
# shellcheck disable=SC2046 # one word a flag
set -- $(pkg-config --cflags fuse3 lmdb libxxhash libsodium libuv jansson)
for h in common/*.h index/*.h engine/*.h fs/*.h tools/*.h; do
	[ -e "$h" ] || continue
	[ "$h" = engine/rdma_verbs.h ] && ! pkg-config --exists libibverbs librdmacm && continue
	printf '#include "%s"\n#include "%s"\n' "$h" "$h" |
		${CC:-gcc} -std=gnu17 -D_GNU_SOURCE -DSLICEFS_VERSION='"0"' -Wall -Wextra -Werror \
			-Wno-unused-function "$@" -I. -fsyntax-only -x c - || {
		echo "lint: $h does not compile alone"
		bad=1
	}
	grep -q '^#pragma once' "$h" || { echo "lint: $h: no #pragma once"; bad=1; }
done
exit $bad
