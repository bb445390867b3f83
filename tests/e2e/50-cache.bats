#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# shapes: own node
# A store that is full goes on: it forgets what is least worth keeping (P7). With a pool of
# 16 MiB, of which eviction begins at 95 percent.
load lib
setup_file() { begin_file; export POOL=16M INDEX=8M; }
teardown_file() { end_file; }
# What was removed is kept for a moment for who has looked it up.
setup() {
	is_mounted || start
	rm -rf "${MNT:?}"/*
	soon eval '[ "$(stat_value kept)" = 0 ] || ! is_of_node'
}

start() {
	if is_of_node; then
		[[ $(node state) == serving ]] || serve --evict-high 95 --evict-low 90
		mount_fs
	else
		mount_fs --evict-high 95 --evict-low 90
	fi
}

# A file of half a megabyte that says which one it is.
put() { # number
	yes "file $1" | head -c 500000 | into "$MNT/f$1"
}

is_whole() { # number
	yes "file $1" | head -c 500000 | cmp - "$MNT/f$1"
}

# What evicts does not stop for who looks.
is_whole_or_gone() { # number
	local said
	said=$(is_whole "$1" 2>&1) || [[ $said == *"No such file"* ]] || { echo "$said"; return 1; }
}

@test "more than the pool holds goes in; what is there is whole, what is not has no name" {
	local i there=0
	for i in $(seq 100); do put "$i"; done
	for i in $(seq 100); do
		if [[ -e $MNT/f$i ]]; then
			is_whole_or_gone "$i"
			there=$((there + 1))
		else
			no cat "$MNT/f$i" 2>/dev/null
		fi
	done
	[ "$there" -ge 10 ]; [ "$there" -lt 34 ]
	is_whole 100
	[ "$(ls "$MNT" | wc -l)" = "$there" ]
	[ ! -e "$MNT/f1" ]
	put 1; is_whole 1
}

@test "what is read again and again stays" {
	local i
	put 0
	for i in $(seq 80); do
		put "$i"
		is_whole 0
	done
}

@test "what is open stays, by its name, too" {
	local i
	put 0
	exec 5<"$MNT/f0"
	for i in $(seq 80); do put "$i"; done
	is_whole 0
	yes "file 0" | head -c 500000 | cmp - <(cat <&5)
	exec 5<&-
}

@test "a file with two names loses both" {
	local i
	put 0; ln "$MNT/f0" "$MNT/other"
	for i in $(seq 80); do put "$i"; done
	[ ! -e "$MNT/f0" ]; [ ! -e "$MNT/other" ]
}

@test "what is free and what can be evicted is available" {
	local i
	for i in $(seq 60); do put "$i"; done
	soon eval '[ "$(df --output=avail -B1 "$MNT" | tail -n1)" -ge 9000000 ]'
}

@test "one file as large as the pool has no room, at once, and leaves nothing" {
	SECONDS=0
	run dd if=/dev/zero of="$MNT/large" bs=1M count=20
	[ "$status" != 0 ]; [[ $output =~ "No space left" ]]; [ "$SECONDS" -le $((8 * SLOW)) ]
	rm -f "$MNT/large"
	put 1; is_whole 1
}

@test "an allocation of more than the pool has evicts nobody" {
	for i in $(seq 8); do head -c 1M /dev/urandom >"$MNT/stays$i"; done
	before=$(store_value 'evictions_total{reason="pool"}')
	no fallocate -l 1T "$MNT/big"; no fallocate -z -l 1T "$MNT/big"
	[ "$(stat -c %s "$MNT/big")" = 0 ]; rm "$MNT/big"
	[ "$(store_value 'evictions_total{reason="pool"}')" = "$before" ]
	[ "$(ls "$MNT"/stays* | wc -l)" = 8 ]; rm "$MNT"/stays*
	# What is there already is not asked for.
	truncate -s 1T "$MNT/sparse"; fallocate -o 900G -l 1M "$MNT/sparse"; rm "$MNT/sparse"
}

@test "an index that is full goes on, too, and keeps directories" {
	mkdir "$MNT/d"
	seq 1 30000 | sed "s|^|$MNT/d/a-rather-long-name-that-fills-the-index-soon-|" | xargs touch
	[ "$(ls -f "$MNT/d" | wc -l)" -gt 1000 ]
	[ "$(ls -f "$MNT/d" | wc -l)" -lt 30000 ]
	[ -e "$MNT/d/a-rather-long-name-that-fills-the-index-soon-30000" ]
	ln -s target "$MNT/link"; [ "$(readlink "$MNT/link")" = target ]
	rm -rf "$MNT/d"
}

@test "nobody sees part of a file, or another one's bytes, in a storm" {
	requires python3
	python3 "$BATS_TEST_DIRNAME/storm.py" "$MNT" 8
	fsck_clean "$MNT"
}

@test "killed under pressure: what is there is whole" {
	local i at pid writer
	(i=0; while :; do put $((i = (i + 1) % 50)) || break; done) 2>/dev/null 3>&- &
	writer=$!
	sleep 2
	at=$(node at) pid=$(node pid)
	kill -9 "$pid"; gone "$pid" 10
	if is_of_node; then
		serve_at "$at" --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" \
			--log "$SCRATCH/log" --evict-high 95 --evict-low 90
		soon ls "$MNT"
	fi
	kill $writer 2>/dev/null || true
	wait $writer || true
	is_of_node || { umount -l "$MNT"; start; }
	for i in $(seq 0 49); do
		# What was being written then is published by nobody, or is as it was before.
		[[ ! -s $MNT/f$i ]] || is_whole_or_gone "$i"
	done
	for i in $(seq 60); do put "$i"; is_whole "$i"; done
	fsck_clean "$MNT"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; }
