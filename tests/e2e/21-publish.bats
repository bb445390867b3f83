#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# What is published when: what a crash leaves (P1, P2, P5).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

@test "what was closed is there after kill -9; what was not is gone, name and slices" {
	head -c 100000 /dev/urandom >"$SCRATCH/r"; cp "$SCRATCH/r" "$MNT/closed"
	exec 8>"$MNT/open"; head -c 300000 /dev/zero >&8
	[ -e "$MNT/open" ]
	kill_daemon; exec 8>&- || true
	remount
	cmp "$MNT/closed" "$SCRATCH/r"; [ ! -e "$MNT/open" ]
	gauges_zero; fsck_clean "$MNT"
}

@test "fsync publishes while the file stays open" {
	exec 8>"$MNT/synced"; echo one >&8; sync "$MNT/synced"; echo two >&8
	kill_daemon; exec 8>&- || true
	remount
	[ "$(cat "$MNT/synced")" = one ]
}

@test "an overwrite that was not closed leaves the old version whole" {
	head -c 5M /dev/urandom >"$SCRATCH/old"; cp "$SCRATCH/old" "$MNT/o"
	exec 8<>"$MNT/o"; dd if=/dev/zero bs=4096 count=10 seek=100 conv=notrunc status=none >&8
	kill_daemon; exec 8>&- || true
	remount
	cmp "$MNT/o" "$SCRATCH/old"
}

@test "a draft renamed over a published file leaves that one in place after a crash" {
	echo old >"$MNT/dst"
	exec 8>"$MNT/tmp"; echo new >&8; mv "$MNT/tmp" "$MNT/dst"
	[ "$(cat "$MNT/dst")" = new ]
	kill_daemon; exec 8>&- || true
	remount
	[ "$(cat "$MNT/dst")" = old ]; [ ! -e "$MNT/tmp" ]
}

@test "tmp, close, rename: old or new, never nothing" {
	for i in $(seq 20); do
		(for j in $(seq 100); do echo "$i $j" >"$MNT/t.tmp" && mv "$MNT/t.tmp" "$MNT/t"; done) 2>/dev/null 3>&- &
		sleep "0.0$((RANDOM % 9 + 1))"
		kill_daemon; wait || true
		remount
		if [ "$i" -gt 1 ]; then [[ $(cat "$MNT/t") =~ ^[0-9]+\ [0-9]+$ ]]; fi
		[ -e "$MNT/t" ] || echo "$i 0" >"$MNT/t"
	done
}

@test "touch is published when it is closed" {
	touch "$MNT/empty"; gauges_zero
	kill_daemon; remount
	[ -e "$MNT/empty" ]; [ "$(stat -c %s "$MNT/empty")" = 0 ]
}

@test "a link to a draft, and attributes set on it, are published with it" {
	exec 8>"$MNT/a"; echo x >&8; ln "$MNT/a" "$MNT/b"; chmod 640 "$MNT/a"; chown 5:6 "$MNT/b"; setfattr -n user.k -v v "$MNT/a"
	exec 8>&-
	kill_daemon; remount
	[ "$(stat -c '%a %u %g %h' "$MNT/b")" = "640 5 6 2" ]; [ "$(getfattr --only-values -n user.k "$MNT/a")" = v ]
	[ "$(stat -c %i "$MNT/a")" = "$(stat -c %i "$MNT/b")" ]
}

@test "writes through a mapping after close are published" {
	"${TWIN%/*}/latemap" "$MNT/late"
	gauges_zero
	kill_daemon; remount
	[ "$(head -c 4 "$MNT/late")" = LATE ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
