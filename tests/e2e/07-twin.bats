#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: short
# Random operations by two processes on the mount and on tmpfs side by side.
load lib
setup_file() { begin_file; export POOL=512M; mount_fs; mkdir -p "/dev/shm/$STORE"; }
teardown_file() { rm -rf "/dev/shm/$STORE"; end_file; }

twin() { # seed steps
	rm -rf "$MNT"/t "/dev/shm/$STORE"/t
	mkdir "$MNT/t" "/dev/shm/$STORE/t"
	"$TWIN" -s "$1" -n "$2" "$MNT/t" "/dev/shm/$STORE/t"
}

@test "fixed seeds behave as tmpfs does" {
	for seed in 1 2 3; do twin "$seed" 15000; done
}

@test "a random seed behaves as tmpfs does" {
	twin "$(date +%s)" 20000
}

@test "what was published is there after a restart" {
	(cd "$MNT" && find t -type f -exec sha256sum {} +) | sort >"$SCRATCH/before"
	"$SLICEFS" umount "$MNT"
	! is_of_node || end_node
	fsck_clean
	mount_fs
	(cd "$MNT" && find t -type f -exec sha256sum {} +) | sort | cmp - "$SCRATCH/before"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
