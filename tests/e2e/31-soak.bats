#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: soak
# timeout: 1800
# Memory stays flat: 100,000 cycles of open, write, close, unlink (a million with
# tests/run --full).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

# What the daemon has beside the pool and the index (which are shared memory).
anon_kib() { awk '/^RssAnon/ { print $2 }' "/proc/$(daemon_pid)/status"; }

@test "resident memory is flat to within 1 MiB after warm-up" {
	n=100000; [ -z "${SLICEFS_FULL:-}" ] || n=1000000
	"${TWIN%/*}/cycles" "$MNT" 20000
	before=$(anon_kib)
	"${TWIN%/*}/cycles" "$MNT" "$n"
	gauges_zero
	after=$(anon_kib)
	echo "# $n cycles: $before KiB before, $after KiB after" >&3
	[ $((after - before)) -le 1024 ]
}

@test "the pool is as free as before" {
	[ "$(stat_value 'pool_bytes{state="free"}')" = $((64 << 20)) ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
