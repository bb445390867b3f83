#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# Bytes that fail their checksum are never returned (P9).
load lib
setup_file() { begin_file; }
teardown_file() { end_file; }

pool_file() { ls /run/slicefs/"$STORE"/mem/current/pool.0 2>/dev/null || ls /run/slicefs/"$STORE"/current/pool.0; }

# Changes one byte of the slice that holds the file's byte at `off`.
flip() { # pattern-file offset
	local at
	at=$(grep -obUaF -m1 -- "$(cat "$1")" "$(pool_file)" | head -n1 | cut -d: -f1)
	[ -n "$at" ]
	printf '\xff' | dd of="$(pool_file)" bs=1 seek=$((at + $2)) conv=notrunc status=none
}

@test "a bit that flipped while the daemon was away is found on the first read" {
	requires_root
	mount_fs
	echo "needle-$RANDOM$RANDOM-in-the-pool" >"$SCRATCH/needle"
	(cat "$SCRATCH/needle"; head -c 200000 /dev/zero | tr '\0' q) >"$MNT/f"
	head -c 300000 /dev/urandom >"$MNT/good"; sum=$(sha256sum <"$MNT/good")
	"$SLICEFS" umount "$MNT"
	flip "$SCRATCH/needle" 3
	mount_fs
	run cat "$MNT/f"
	[ "$status" != 0 ]
	[[ $output != *needle* ]]
	[ "$(stat_value checksum_failures_total)" -ge 1 ]
	grep -qi checksum "$SCRATCH/log"
	# what is far from the flipped byte, and other files, read as ever
	[ "$(tail -c 1000 "$MNT/f" | tr -d q | wc -c)" = 0 ]
	[ "$(sha256sum <"$MNT/good")" = "$sum" ]
	rm "$MNT/f"
}

@test "no reader sees what the memory held before" {
	mount_fresh --evict-high 0
	i=0; while yes SECRETSECRET | head -c 1000000 >"$MNT/s$i" 2>/dev/null; do i=$((i + 1)); [ $i -lt 200 ]; done
	rm "$MNT"/s*
	for n in 1 100 4095 5000 70000 1048577; do head -c "$n" /dev/zero >"$MNT/z"; truncate -s $((n + 9000)) "$MNT/z"; no grep -q SECRET "$MNT/z"; done
	fallocate -l 3M "$MNT/alloc"; no grep -q SECRET "$MNT/alloc"
	truncate -s 5M "$MNT/hole"; printf x | dd of="$MNT/hole" bs=1 seek=3000000 conv=notrunc status=none; no grep -q SECRET "$MNT/hole"
	"${TWIN%/*}/latemap" "$MNT/m"; no grep -q SECRET "$MNT/m"
}

@test "--verify checks every read" {
	"$SLICEFS" umount "$MNT"; mount_fs --verify
	head -c 2M /dev/urandom >"$SCRATCH/r"; cp "$SCRATCH/r" "$MNT/r"; cmp "$SCRATCH/r" "$MNT/r"
	echo "pin-$RANDOM$RANDOM-drop" >"$SCRATCH/needle2"; cp "$SCRATCH/needle2" "$MNT/n"; head -c 8000 /dev/zero >>"$MNT/n"
	flip "$SCRATCH/needle2" 1
	run dd if="$MNT/n" iflag=direct bs=4096 count=1 status=none
	[ "$status" != 0 ]
	rm "$MNT/n"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
