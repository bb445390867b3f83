#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# kill -9 at every named point; then restart, fsck, and every promise checked.
load lib
setup_file() { begin_file; export POOL=128M LEDGER=${TWIN%/*}/ledger; mount_fs; }
teardown_file() { end_file; }

# Has the daemon killed at the n-th passing of a point while objects are written.
crash_at() { # point n seed
	"$SLICEFS" umount "$MNT" 2>/dev/null || true
	SLICEFS_CRASH="$1:$2" mount_fs || return 0 # it may die while mounting
	"$LEDGER" write "$MNT" "$SCRATCH/ledger" "$3" 400 2>/dev/null
}

recover() {
	if is_mounted; then "$SLICEFS" umount "$MNT"; fi
	fsck_clean || return 1
	mount_fs || return 1
	fsck_clean "$MNT" || return 1
	touch -a "$SCRATCH/ledger"
	"$LEDGER" verify "$MNT" "$SCRATCH/ledger"
}

crash_points() { "$SLICEFS" help crash-points | awk '{ print $1 }'; }

@test "this build has crash points" {
	[ "$(crash_points | wc -l)" -ge 10 ]
	"$LEDGER" write "$MNT" "$SCRATCH/ledger" 1 200
	"$LEDGER" verify "$MNT" "$SCRATCH/ledger"
}

@test "killed at each point, first and later times: all closed objects are whole" {
	seed=10
	for point in $(crash_points); do
		for n in 1 7 40; do
			seed=$((seed + 1))
			crash_at "$point" "$n" "$seed" || true
			recover || { echo "after $point:$n, seed $seed"; false; }
		done
	done
}

@test "the points are really passed: each kills the daemon" {
	# Those of a rebuild, of the disk, and of a store that replaces one with a disk have tests of their own (51-ssd).
	for point in $(crash_points | grep -vE '^(rebuild|disk|store)\.'); do
		"$SLICEFS" umount "$MNT" 2>/dev/null || true
		SLICEFS_CRASH="$point:1" mount_fs || true
		# big enough for extent blocks, unlinked again
		(head -c 9000000 /dev/zero >"$MNT/big"; cp "$MNT/big" "$MNT/big2"; mv "$MNT/big" "$MNT/big3"
		 dd if=/dev/zero of="$MNT/huge" bs=1M count=40; rm -f "$MNT/big2" "$MNT/big3" "$MNT/huge") 2>/dev/null || true
		sleep 0.2
		pid=$(daemon_pid)
		[ "${pid:-0}" = 0 ] || { echo "$point was not passed"; false; }
		recover
	done
}

@test "killed at random moments" {
	for i in $(seq 8); do
		"$LEDGER" write "$MNT" "$SCRATCH/ledger" "$((RANDOM))" 100000 2>/dev/null &
		sleep "0.$((RANDOM % 8 + 1))"
		kill_daemon
		wait || true
		"$SLICEFS" umount "$MNT" 2>/dev/null || true
		recover
	done
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
