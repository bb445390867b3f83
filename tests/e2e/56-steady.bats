#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: soak
# shapes: own node
# timeout: 900
# A store that forgets all the time needs no more memory for it: what the daemons have beside
# pool and index (which are shared memory) while files of some KiB are written, twenty times
# the pool, forty with tests/run --full. Until ten times threads and tables come to their size.
load lib
setup_file() {
	begin_file
	export POOL=16M INDEX=8M
	if is_of_node; then serve --evict-high 95 --evict-low 90; mount_fs
	else mount_fs --evict-high 95 --evict-low 90; fi
}
teardown_file() { end_file; }

anon_kib() { awk '/^RssAnon/ { print $2 }' "/proc/$1/status"; }
all_kib() {
	local sum
	sum=$(anon_kib "$(daemon_pid)")
	! is_of_node || sum=$((sum + $(anon_kib "$(mount_pid "$MNT")")))
	echo "$sum"
}

write_pools() { # how many times the pool
	engines small $(($1 * 16)) 300 "$MNT"
	rm -rf "${MNT:?}"/*
	gauges_zero
}

@test "memory is flat to within 1 MiB after ten times the pool was written" {
	local start two ten end more=10
	[[ -z ${SLICEFS_FULL:-} ]] || more=30
	start=$(all_kib)
	write_pools 2; two=$(all_kib)
	write_pools 8; ten=$(all_kib)
	write_pools $more; end=$(all_kib)
	echo "# KiB: $start at first, $two after 2 pools, $ten after 10, $end after $((10 + more))" >&3
	[ $((end - ten)) -le 1024 ]
}

@test "neither the kernel nor the mount remembers what was evicted" {
	! is_of_node || skip "a mount of a node has the kernel ask again, and drop nothing"
	local before there
	before=$(stat_value 'evictions_total{reason="pool"}')
	head -c 64M /dev/zero | split -b 10000 -a 4 - "$MNT/f" # names that nobody asks for again
	[ $(($(stat_value 'evictions_total{reason="pool"}') - before)) -gt 1000 ]
	there=$(find "$MNT" | wc -l)
	soon eval '[ "$(stat_value inodes)" -le $((there + 16)) ]'
	rm -rf "${MNT:?}"/*
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
