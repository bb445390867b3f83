#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: crash
# long: tsan
# shapes: own node
# timeout: 900
# What memory has no room for is on a disk, and comes back when it is opened: ten times the
# pool, read as it was written, after kill -9, and after a reboot (here: the store's memory is
# unmounted, and it was another boot) as much of it as had gone there. A pool of 32 MiB, 1 GiB of disk.
load lib
setup_file() {
	begin_file
	# Where all is slow, half of each: the pool, the disk, files.
	export K=$((SLOW > 1 ? 2 : 1)) INDEX=16M DISK DISK_OPTIONS
	export POOL=$((32 / K))M SSD=$((1024 / K))
	# Not the scratch folder: that may be memory.
	DISK=$(mktemp -d "${SSD_DIR:-/var/tmp}/slicefs-ssd.XXXXXX")
	# No object is to be given up for the disk of a shared host is slow now and then.
	DISK_OPTIONS="--ssd $DISK/ssd --ssd-size ${SSD}M --ssd-wait 60s"
}
teardown_file() { end_file; rm -rf "$DISK"; }
setup() {
	is_mounted || start
	rm -rf "${MNT:?}"/*
}

# shellcheck disable=SC2086 # words
start() {
	if is_of_node; then
		[[ $(node state) == serving ]] || serve ${DISK_OPTIONS} || return 1
		mount_fs
	else
		mount_fs ${DISK_OPTIONS}
	fi
}

stop() {
	"$SLICEFS" umount "$MNT"
	! is_of_node || end_node
}

# Its memory is gone, and the disk is not.
reboot() { # how: stop, crash
	"$1"
	! is_mounted || "$SLICEFS" umount --abort "$MNT" 2>/dev/null || umount -l "$MNT"
	lose_memory
	start
}

# A file of a megabyte that says which one it is.
put() { # number
	yes "file $1" | head -c 1000000 | into "$MNT/f$1"
}

is_whole() { # number
	yes "file $1" | head -c 1000000 | cmp - "$MNT/f$1"
}

all_whole() { # numbers...
	local i
	for i; do is_whole "$i" || { echo "file $i"; return 1; }; done
}

@test "ten times the pool goes in and is read as it was written" {
	local i
	for i in $(seq $((320 / K))); do put "$i"; done
	[ "$(ls "$MNT" | wc -l)" = $((320 / K)) ]
	store_counts 'disk_objects_total{to="disk"}' $((250 / K))
	[ "$(getfattr --only-values -n user.slicefs.location "$MNT/f1")" = ssd ]
	all_whole $(seq $((320 / K)))
	store_counts 'disk_objects_total{to="memory"}' $((250 / K))
	[ "$(store_value 'evictions_total{reason="pool"}')" = 0 ]
	# What was read is in memory.
	[ "$(getfattr --only-values -n user.slicefs.location "$MNT/f$((320 / K))")" = memory ]
}

@test "small ones share segments, and a large one is whole" {
	local i
	mkdir "$MNT/d"
	for i in $(seq $((1500 / K))); do yes "small $i" | head -c 20000 >"$MNT/d/$i"; done
	random_file "$SCRATCH/large" $((20000000 / K))
	cp "$SCRATCH/large" "$MNT/large"
	for i in $(seq $((60 / K))); do put "$i"; done
	cmp "$SCRATCH/large" "$MNT/large"
	for i in $(seq 1 7 $((1500 / K))); do yes "small $i" | head -c 20000 | cmp - "$MNT/d/$i"; done
}

@test "what is on the disk is renamed, linked, written, and unlinked" {
	local i
	for i in $(seq $((80 / K))); do put "$i"; done
	mv "$MNT/f1" "$MNT/f1001"; ln "$MNT/f2" "$MNT/f1002"
	printf XY | dd of="$MNT/f3" bs=1 seek=500000 conv=notrunc status=none
	rm "$MNT/f4"; put 5; mv "$MNT/f6" "$MNT/f7"
	for i in $(seq 2000 $((2000 + 80 / K))); do put "$i"; done
	yes "file 1" | head -c 1000000 | cmp - "$MNT/f1001"
	is_whole 2
	yes "file 2" | head -c 1000000 | cmp - "$MNT/f1002"
	[ "$(stat -c %h "$MNT/f2")" = 2 ]
	[ "$(dd if="$MNT/f3" bs=1 skip=500000 count=2 status=none)" = XY ]
	[ ! -e "$MNT/f4" ]; is_whole 5
	yes "file 6" | head -c 1000000 | cmp - "$MNT/f7"
}

@test "it is all there after an orderly stop, and after kill -9" {
	local i
	for i in $(seq $((100 / K))); do put "$i"; done
	stop; start
	all_whole $(seq $((100 / K)))
	crash; start
	[ "$(ls "$MNT" | wc -l)" = $((100 / K)) ]
	all_whole $(seq $((100 / K)))
}

@test "after a reboot it has what was on the disk, and nothing that is wrong" {
	local i there how
	for how in stop crash; do
		rm -rf "${MNT:?}"/*
		mkdir -p "$MNT/a/b"
		for i in $(seq $((100 / K))); do put "$i"; done
		setfattr -n user.x -v y "$MNT/f1"; ln "$MNT/f2" "$MNT/a/b/other"
		for i in $(seq $((100 / K + 1)) $((150 / K))); do put "$i"; done
		sync "$MNT/f$((150 / K))"
		sleep 1
		reboot $how
		[ -d "$MNT/a/b" ]
		there=$(ls "$MNT" | grep -c ^f)
		[ "$there" -ge $((110 / K)) ]; [ "$there" -lt $((150 / K)) ]
		for i in $(seq $((150 / K))); do [ ! -e "$MNT/f$i" ] || is_whole "$i"; done
		[ "$(getfattr --only-values -n user.x "$MNT/f1")" = y ]
		[ "$(stat -c %h "$MNT/f2")" = 2 ]
		cmp "$MNT/f2" "$MNT/a/b/other"
		put 1000; is_whole 1000
		is_of_node || { stop; "$SLICEFS" fsck "$STORE"; start; }
	done
}

@test "what came back from the disk and was overwritten is never the older one again" {
	local i
	for i in $(seq $((80 / K))); do put "$i"; done
	for i in $(seq $((20 / K))); do yes "new $i" | head -c 1000000 | into "$MNT/f$i"; done
	reboot crash
	for i in $(seq $((20 / K))); do
		[ ! -e "$MNT/f$i" ] || yes "new $i" | head -c 1000000 | cmp - "$MNT/f$i"
	done
}

@test "what was unlinked is not there after a reboot, once its directory was synced" {
	local i
	for i in $(seq $((80 / K))); do put "$i"; done
	for i in $(seq $((20 / K))); do rm "$MNT/f$i"; done
	sync "$MNT"
	! is_of_node || sleep 1 # a mount of a node does not wait for that
	reboot crash
	for i in $(seq $((20 / K))); do [ ! -e "$MNT/f$i" ]; done
	[ -e "$MNT/f$((20 / K + 1))" ]
}

@test "a disk that is damaged gives an error, and then the file can be made anew" {
	local i bad=0
	for i in $(seq $((80 / K))); do put "$i"; done
	sleep 1
	# All of it but the head; the pool has the rest.
	dd if=/dev/urandom of="$DISK/ssd/data" bs=1M seek=1 count=$((SSD - 1)) conv=notrunc status=none
	for i in $(seq $((80 / K))); do
		is_whole "$i" 2>/dev/null || bad=$((bad + 1))
	done
	[ "$bad" -ge $((40 / K)) ]
	soon eval '[ "$(ls "$MNT" | wc -l)" -le $((40 / K)) ]'
	for i in $(seq $((80 / K))); do put "$i"; done
	all_whole $(seq $((80 / K)))
}

@test "slicefs scrub reads what is on the disk where it is, and finds what is damaged" {
	local i
	for i in $(seq $((80 / K))); do put "$i"; done
	sleep 1
	scrub >"$SCRATCH/scrub"
	[ "$(jq 'select(.event == "end") | .objects, .bad, .elsewhere' "$SCRATCH/scrub" | xargs)" = "$((80 / K)) 0 0" ]
	[ "$(jq 'select(.event == "end") | .bytes' "$SCRATCH/scrub")" -ge $((80000000 / K)) ]
	dd if=/dev/urandom of="$DISK/ssd/data" bs=1M seek=1 count=$((SSD - 1)) conv=notrunc status=none
	no scrub >"$SCRATCH/scrub"
	[ "$(jq 'select(.event == "end") | .bad' "$SCRATCH/scrub")" -ge $((40 / K)) ]
	no scrub --evict-bad >"$SCRATCH/scrub"
	[ "$(jq 'select(.event == "end") | .evicted' "$SCRATCH/scrub")" -ge $((40 / K)) ]
	scrub >"$SCRATCH/scrub"
	for i in $(seq $((80 / K))); do [ ! -e "$MNT/f$i" ] || is_whole "$i"; done
}

@test "killed at each moment of going to the disk and coming back, it has all" {
	! is_of_node || skip "crash points are the mount's"
	local i point at
	for point in disk.written disk.moved disk.journaled disk.back disk.dropped; do
		rm -rf "${MNT:?}"/*
		for i in $(seq $((60 / K))); do put "$i"; done
		stop
		SLICEFS_CRASH=$point:20 start
		for i in $(seq $((60 / K))); do is_whole "$i" >/dev/null 2>&1 || break; done
		for i in $(seq $((60 / K))); do : 2>/dev/null >>"$MNT/f$i" || break; done
		for at in $(seq 100 160); do put "$at" 2>/dev/null || break; done
		is_mounted && ls "$MNT" >/dev/null 2>&1 && { echo "$point was not reached"; return 1; }
		start
		all_whole $(seq $((60 / K)))
	done
}

# f1 has come back from the disk, and whoever was to write it was killed when its copy was none any
# more, and the disk did not know. Nothing else is there. Then it is without --ssd.
leave_copied() {
	local i
	for i in $(seq $((60 / K))); do put "$i"; done
	for i in $(seq 2 $((60 / K))); do rm "$MNT/f$i"; done
	is_whole 1
	stop
	SLICEFS_CRASH=disk.dropped:1 start
	no timeout 20 bash -c 'printf x 2>/dev/null >>"$MNT/f1"'
	! is_of_node || "$SLICEFS" umount --abort "$MNT"
	DISK_OPTIONS=
}

@test "what had a copy on a disk that is not there is not written, and the log says why" {
	local there=${DISK_OPTIONS} note
	leave_copied
	mv "$DISK/ssd" "$DISK/elsewhere"
	start
	is_whole 1
	( printf x >>"$MNT/f1" ) 2>&1 | grep -q 'Read-only file system'
	grep -q "$DISK/ssd, is not there.*rm .*/disk.txt" "$SCRATCH/log"
	put 2
	stop
	# Another one takes its place no more silently; where it was, or elsewhere.
	DISK_OPTIONS=$there; fails 1 "$DISK/ssd, is not there" start
	DISK_OPTIONS="--ssd $DISK/other --ssd-size ${SSD}M"; fails 1 "$DISK/ssd, is not there" start
	[ ! -e "$DISK/ssd" ]; [ ! -e "$DISK/other" ]
	# It is there again, and forgets.
	mv "$DISK/elsewhere" "$DISK/ssd"
	DISK_OPTIONS=; start
	yes "new 1" | head -c 1000000 >"$MNT/f1"
	stop; lose_memory
	DISK_OPTIONS=$there; start
	[ ! -e "$MNT/f1" ]
	# It is gone for good.
	leave_copied
	rm -r "$DISK/ssd"
	note=$(grep -o 'rm /[^ ]*/disk.txt' "$SCRATCH/log" | tail -n 1)
	$note
	start
	printf x >>"$MNT/f1"
	stop
	DISK_OPTIONS=$there; start
	[ "$(stat -c %s "$MNT/f1")" = 1000001 ]
}

@test "killed when a store made anew is there, it is that one that is there" {
	local there=${DISK_OPTIONS} i
	put 1; stop
	SLICEFS_CRASH=store.committed:1; export SLICEFS_CRASH
	DISK_OPTIONS="$there --fresh"
	no start
	unset SLICEFS_CRASH
	[ -d "$DISK/ssd/aside" ]
	DISK_OPTIONS=$there; start
	[ ! -e "$MNT/f1" ]; [ ! -e "$DISK/ssd/aside" ]; [ -e "$DISK/ssd/old/data" ]
	for i in $(seq $((60 / K))); do put "$i"; done
	all_whole $(seq $((60 / K)))
	stop
	"$SLICEFS" store rm "$STORE"
	[ ! -e "$DISK/ssd/data" ]; [ -e "$DISK/ssd/old/data" ]
	rm -r "$DISK/ssd/old"
}

@test "what cannot be used is refused with a line that says so" {
	local i
	for i in $(seq $((60 / K))); do put "$i"; done
	stop
	local there=${DISK_OPTIONS}
	DISK_OPTIONS="--ssd $DISK/ssd --ssd-size 2G"; fails 1 "has $SSD MiB, and 2048" start
	DISK_OPTIONS="--ssd /dev/shm/slicefs-ssd --ssd-size 1G"; fails 1 'is memory' start
	rmdir /dev/shm/slicefs-ssd
	DISK_OPTIONS="--ssd $DISK/other --ssd-size 15T"; fails 1 'no room' start
	DISK_OPTIONS=; fails 1 'on a disk' start
	DISK_OPTIONS=$there; start
	all_whole $(seq $((60 / K)))
}

@test "with the store goes what it has on the disk" {
	put 1; stop
	[ -e "$DISK/ssd/data" ]
	"$SLICEFS" store rm "$STORE"
	[ ! -e "$DISK/ssd" ]
	start; put 1; is_whole 1
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; }
