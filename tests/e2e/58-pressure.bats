#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: tsan
# shapes: own node
# timeout: 900
# Ten times what memory has room for is written, read and written over by four processes, with a disk
# below that is slow, fails, is full, tears writes and flips bits (SLICEFS_DISK_FAULTS, engine/disk.h):
# each byte that is read was written, all that is there is whole and the last of its kind, what the
# disk has lost is an error once, nothing hangs, and nothing is left in flight.
load lib
setup_file() {
	begin_file
	export POOL=16M INDEX=16M LONG=1 DISK
	[[ -z ${SLICEFS_FULL:-} ]] || LONG=20
	DISK=$(mktemp -d "${SSD_DIR:-/var/tmp}/slicefs-pressure.XXXXXX")
}
teardown_file() { end_file; rm -rf "$DISK"; }
setup() { requires python3; }

# At its end the node says what is left.
end() {
	"$SLICEFS" umount "$MNT" 2>/dev/null || true
	! is_of_node || end_node || true
	[[ ! -e $SCRATCH/log ]] || no grep -a 'in flight when' "$SCRATCH/log"
}

# A store that is new, and has a disk with these faults.
begin() { # faults options...
	export SLICEFS_DISK_FAULTS=$1
	shift
	end
	"$SLICEFS" store rm "$STORE" 2>/dev/null || true
	rm -f "$SCRATCH/log"
	start "$@"
}

start() { # options...
	set -- --ssd "$DISK/ssd" --ssd-size 1G "$@"
	if is_of_node; then
		serve "$@" || return 1
		mount_fs
	else
		mount_fs "$@"
	fi
}

# Memory is lost, and the disk is not.
reboot() {
	crash
	! is_mounted || umount -l "$MNT"
	lose_memory
	start
}

text() { yes "file $1, version $2" | head -c 1000000; } # number version
# Over what is there: cut to nothing it would be a version of its own, since dd closes a copy of its
# descriptor before it writes (P2).
write_all() { # version
	local i
	for i in $(seq 30); do text "$i" "$1" | into "$MNT/f$i" conv=notrunc || return 1; done
}

# All that is there and can be read is one of those versions, whole: $whole files.
is_right() { # versions...
	local i v
	whole=0
	for i in $(seq 30); do
		cat "$MNT/f$i" >"$SCRATCH/got" 2>"$SCRATCH/said" || {
			grep -qE 'No such file|Input/output error|Stale' "$SCRATCH/said" && continue
			cat "$SCRATCH/said"
			return 1
		}
		v=$(sed -n '1s/.*version //p' "$SCRATCH/got")
		[[ " $* " == *" $v "* ]] && text "$i" "$v" | cmp - "$SCRATCH/got" && whole=$((whole + 1)) && continue
		echo "file $i is of version ${v:-none}, and is to be of one of these: $*"
		return 1
	done
}

storm() { # options...
	rm -rf "${MNT:?}"/*
	python3 "$BATS_TEST_DIRNAME/storm.py" "$MNT" "$LONG" --bytes 42000000 "$@"
}

# Nothing is in flight, of the mount and of the node, when the disk has ended, too.
all_is_idle() {
	gauges_zero
	! is_of_node || soon node_is_idle
}
node_is_idle() {
	[[ -z $(awk '/^slicefs_pool_bytes\{state="(writing|sealed|dying)"\}/ ||
		/^slicefs_(pins|recalls|drops|eviction_waits|transfers|batches) / { if ($2 != 0) print }' \
		"$MNT/.slicefs/node-stats") ]]
}

# After a storm: what is said, and that a file goes in and out.
goes_on() { # pattern of the log
	all_is_idle
	grep -aqE "$1" "$SCRATCH/log" || { echo "nothing of $1 in the log"; return 1; }
	fsck_clean "$MNT"
}

is_sanitized() { ldd "$SLICEFS" | grep -qE 'lib[at]san'; }
anon_kib() {
	local pid sum=0
	for pid in $(daemon_pid) $(! is_of_node || mount_pid "$MNT"); do
		sum=$((sum + $(awk '/^RssAnon/ { print $2 }' "/proc/$pid/status")))
	done
	echo "$sum"
}

@test "a disk that is well: nothing is lost, nothing fails, and memory is flat" {
	local before after most=2048
	# Each worker of the mount and each connection has a buffer of a MiB, used sooner or later.
	! is_of_node || most=8192
	begin "" --ssd-wait 60s
	storm; all_is_idle
	before=$(anon_kib)
	storm; all_is_idle
	after=$(anon_kib)
	echo "# KiB: $before after one storm, $after after two" >&3
	is_sanitized || [ $((after - before)) -le $most ] # what was freed is kept for a while there
	store_counts 'disk_objects_total{to="disk"}' 50
	store_counts 'disk_objects_total{to="memory"}' 50
	[ "$(store_value 'evictions_total{reason="pool"}')" = 0 ]
	[ "$(store_value pool_full_total)" = 0 ]
}

@test "a disk that is slow holds up nobody beyond its time" {
	begin delay=200ms
	storm
	goes_on 'disk: .* is slow'
	store_counts 'disk_refused_total{reason="slow"}' 1
	head -c 30000000 /dev/urandom | split -a 2 -b 1000000 - "$MNT/x"
	end # while something is on its way there
}

@test "a disk that fails now and then" {
	begin eio=0.1,only=writes
	storm
	goes_on 'disk: .*cannot write: Input/output error'
	store_counts 'disk_failures_total{to="disk"}' 1
	begin eio=0.1,only=reads --ssd-wait 60s
	storm --may EIO
	goes_on 'disk: .*cannot read page [0-9]+: Input/output error'
	store_counts 'disk_failures_total{to="memory"}' 1
}

@test "a disk that takes nothing costs what would go there, and no error" {
	begin eio=1,only=writes
	storm
	goes_on 'disk: .*cannot write: Input/output error'
	[ "$(store_value 'disk_objects_total{to="disk"}')" = 0 ]
	store_counts 'disk_refused_total{reason="failed"}' 1
}

@test "a disk that is full costs no error" {
	local share
	for share in 1 ${SLICEFS_FULL:+0.3}; do
		begin enospc=$share
		storm
		goes_on 'disk: .*cannot write: No space left'
		store_counts 'disk_refused_total{reason="failed"}' 1
	done
}

@test "a journal that has no room: nothing goes to the disk, and that is all" {
	begin journal=20
	storm
	goes_on 'disk: its journal cannot be written: No space left'
}

@test "a disk that tears writes and flips bits gives no wrong byte" {
	begin tear=0.05,flip=0.05
	storm --may EIO
	goes_on 'does not match its checksum'
	store_counts checksum_failures_total 1
}

@test "killed while its disk is slow or fails: nothing older and no wrong byte comes back" {
	local faults others are
	for faults in delay=100ms eio=0.2 tear=0.05,flip=0.05 journal=20,stays=yes; do
		echo "with $faults"
		begin "$faults"
		write_all 1
		{ for _ in 1 2 3; do write_all 2 || break; done; } >/dev/null 2>&1 3>&- &
		others=$!
		sleep 0.5
		is_right 1 2 >/dev/null 2>&1 || true # so that some of it is coming back
		crash
		wait "$others" || true
		start # the disk is as it was
		is_right 1 2
		[ "$whole" -gt 0 ] # memory outlives its process
		are="1 2 3"
		if write_all 3 2>"$SCRATCH/said"; then are=3; fi
		[ "$are" = 3 ] || grep -qE 'Read-only|Input/output' "$SCRATCH/said"
		is_right $are
		[ "$whole" -gt 0 ]
		all_is_idle
		SLICEFS_DISK_FAULTS='' reboot
		is_right $are
		goes_on .
	done
}

@test "a disk smaller than what goes there forgets the oldest" {
	begin "" --ssd-size 48M --ssd-wait 60s
	storm
	all_is_idle
	store_counts 'evictions_total{reason="disk"}' 1
}

@test "an index that is full goes on, with a disk below" {
	INDEX=1M begin ""
	mkdir "$MNT/d"
	head -c 15000000 /dev/urandom | split -a 4 -b 5000 - "$MNT/d/x"
	storm --names 2000 --sizes 4500,9000 --bytes 1000000
	all_is_idle
	store_counts 'evictions_total{reason="index"}' 1
	store_counts 'disk_objects_total{to="disk"}' 1
	[ "$(grep -ac 'error:' "$SCRATCH/log")" = 0 ]
}

@test "what is misspelt ends the start with a line that says so" {
	fails 1 'SLICEFS_DISK_FAULTS: flop=1: not a fault of a disk. Try: ' begin flop=1
}

@test "when all is idle, nothing is in flight (P10)" {
	begin ""
	gauges_zero
	end
}
