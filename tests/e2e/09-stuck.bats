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

@test "stat does not wait for a stopped daemon" {
	freeze "$(daemon_pid)"
	within 15 fails 1 'no answer in time' "$SLICEFS" stat "$MNT/f"
	kill -CONT "$(daemon_pid)"
	"$SLICEFS" stat "$MNT/f" | grep -q 'size .*2 bytes'
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

# As a thread of it does that waits in the kernel when all are killed.
keep_connection() { # pid
	python3 - "$1" <<'END'
import ctypes, os, sys, time

pid, pidfd_getfd = int(sys.argv[1]), 438
fds = f"/proc/{pid}/fd"
kept = [
    ctypes.CDLL(None).syscall(pidfd_getfd, os.pidfd_open(pid), int(fd), 0)
    for fd in os.listdir(fds)
    if os.readlink(f"{fds}/{fd}") == "/dev/fuse"
]
print("kept" if kept and min(kept) >= 0 else "not kept", flush=True)
time.sleep(60)
END
}

@test "nobody waits for a daemon that was killed, if its connection stays open, too" {
	requires python3
	local daemon keeper guard
	daemon=$(daemon_pid)
	guard=$(pgrep -P "$daemon")
	[[ $(tr '\0' ' ' <"/proc/$guard/cmdline") == "slicefs guard $MNT $daemon " ]]
	keep_connection "$daemon" >"$SCRATCH/kept" 3>&- &
	keeper=$!
	soon grep -qx kept "$SCRATCH/kept"
	freeze "$daemon"
	(cat "$MNT/f" >"$SCRATCH/out" 2>&1 || echo $? >"$SCRATCH/failed") 3>&- &
	sleep 0.3
	kill -9 "$daemon"
	soon grep -qx 1 "$SCRATCH/failed"
	grep -q 'Software caused connection abort\|not connected' "$SCRATCH/out"
	no within 5 touch "$MNT/new"
	soon eval "! kill -0 $guard 2>/dev/null"
	kill "$keeper"
	wait
	mount_fs
	[ "$(cat "$MNT/f")" = x ]
}

@test "a daemon whose mount was detached leaves what has been mounted there since" {
	requires_root
	local pid held
	pid=$(daemon_pid)
	exec {held}<"$MNT/f"
	umount -l "$MNT"
	mount -t tmpfs none "$MNT"
	kill "$pid"
	gone "$pid" 15
	exec {held}<&-
	[ "$(findmnt -rno FSTYPE "$MNT")" = tmpfs ]
	umount "$MNT"
	mount_fs
	[ "$(cat "$MNT/f")" = x ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
