#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# A daemon that is stopped, and processes that are interrupted (P6).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

@test "status names a stopped daemon and returns" {
	echo x >"$MNT/f"
	freeze "$(daemon_pid)"
	SECONDS=0
	run "$SLICEFS" status "$MNT"
	kill -CONT "$(daemon_pid)"
	[ "$status" = 1 ]; [[ $output =~ "does not answer" ]]; [ "$SECONDS" -le 8 ]
	[ "$(cat "$MNT/f")" = x ]
}

@test "umount --abort ends a stopped daemon's mount; its data is there again" {
	freeze "$(daemon_pid)"
	pid=$(daemon_pid)
	(cat "$MNT/f" >"$SCRATCH/out" 2>&1; echo $? >"$SCRATCH/status") 3>&- &
	sleep 0.3
	(sleep 1; kill -CONT "$pid") 3>&- &
	"$SLICEFS" umount --abort "$MNT"
	no is_mounted
	wait
	mount_fs
	[ "$(cat "$MNT/f")" = x ]
}

@test "umount --abort of a daemon that stays stopped says which process it is" {
	pid=$(daemon_pid)
	freeze "$pid"
	fails 1 "has not ended after 15 s.*Try: kill -9 $pid" "$SLICEFS" umount --abort "$MNT"
	no is_mounted
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
	mount_fs
	[ "$(cat "$MNT/f")" = x ]
}

@test "Ctrl-C reaches a process that waits for a stopped daemon, once it goes on" {
	pid=$(daemon_pid)
	freeze "$pid"
	timeout --signal=INT 1 dd if=/dev/zero of="$MNT/g" bs=1M count=1 status=none 3>&- &
	waiter=$!
	sleep 1.3
	kill -CONT "$pid"
	wait "$waiter" || true
	[ "$(cat "$MNT/f")" = x ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
