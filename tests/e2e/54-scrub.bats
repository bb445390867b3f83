#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# long: tsan
# shapes: own node
# timeout: 900
# slicefs scrub finds bytes that rotted in use, and nothing else; --verify never lets one out (P9).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

is_sound() { scrub >"$SCRATCH/out" && [ "$(jq 'select(.event == "bad")' "$SCRATCH/out")" = "" ]; }
is_scrubbing() { grep -qxs scrub /proc/"$(daemon_pid)"/task/*/comm; }
ending() { jq -r "select(.event == \"end\") | .$1" "$SCRATCH/out"; } # field
bad() { jq -r 'select(.event == "bad") | .path' "$SCRATCH/out"; }

pool_file() { ls /run/slicefs/"$STORE"/mem/current/pool.0 2>/dev/null || ls /run/slicefs/"$STORE"/current/pool.0; }

# A file with a word that is nowhere else, and one that changes it in the pool, behind the
# daemon's back.
needle() { # path
	echo "needle-$1-$RANDOM$RANDOM" | tr / _ >"$SCRATCH/needle-${1##*/}"
	(cat "$SCRATCH/needle-${1##*/}"; head -c "${2:-200000}" /dev/zero | tr '\0' q) >"$MNT/$1"
}
rot() { # path
	local at
	at=$(grep -obUaF -m1 -- "$(cat "$SCRATCH/needle-${1##*/}")" "$(pool_file)" | head -n1 | cut -d: -f1)
	[ -n "$at" ]
	printf '\xff' | dd of="$(pool_file)" bs=1 seek=$((at + 3)) conv=notrunc status=none
}
read_directly() { dd if="$MNT/$1" iflag=direct bs=64k status=none; }

remount_with() { # options of whoever has pool and index
	"$SLICEFS" umount "$MNT"
	if is_of_node; then end_node; serve "$@"; mount_fs; else mount_fs "$@"; fi
}

@test "a store in which all is well" {
	mkdir -p "$MNT/a/b"
	head -c 9000000 /dev/urandom >"$MNT/a/large"; head -c 5000 /dev/urandom >"$MNT/a/b/small"
	echo tiny >"$MNT/tiny"; : >"$MNT/empty"; ln -s tiny "$MNT/link"; ln "$MNT/a/large" "$MNT/other"
	truncate -s 3000000 "$MNT/holes"; printf x | dd of="$MNT/holes" bs=1 seek=1000000 conv=notrunc status=none
	scrub >"$SCRATCH/out"
	[ "$(ending objects)" = 6 ]; [ "$(ending bad)" = 0 ]; [ "$(ending error)" = null ]
	[ "$(ending bytes)" -ge 9005000 ]
	[ "$(ending bytes)" -lt 20000000 ]
}

@test "a byte that rotted is found, by its path; whoever reads it from then on gets an error" {
	needle a/b/f; needle good
	is_sound
	rot a/b/f
	no scrub >"$SCRATCH/out"
	[ "$(bad)" = a/b/f ]; [ "$(ending bad)" = 1 ]; [ "$(ending evicted)" = 0 ]
	jq -re 'select(.event == "bad") | .reason' "$SCRATCH/out" | grep checksum
	no read_directly a/b/f >/dev/null
	[ "$(read_directly good | head -c 7)" = needle- ]
	grep -q "a/b/f: .*checksum" "$SCRATCH/log"
	# the blocks beside it are sound
	[ "$(tail -c 1000 "$MNT/a/b/f" | tr -d q | wc -c)" = 0 ]
	rm "$MNT/a/b/f"; needle a/b/f
	read_directly a/b/f | cmp - <(cat "$SCRATCH/needle-f"; head -c 200000 /dev/zero | tr '\0' q)
	is_sound
	rm "$MNT/a/b/f"
}

@test "--evict-bad takes the names away, all of one object" {
	needle one; needle two; ln "$MNT/two" "$MNT/a/second"; needle three
	cat "$MNT/one" "$MNT/two" >/dev/null; ls -l "$MNT" "$MNT/a" >/dev/null
	rot one; rot two
	no scrub --evict-bad >"$SCRATCH/out"
	[ "$(ending bad)" = 2 ]; [ "$(ending evicted)" = 2 ]
	[ "$(store_value 'evictions_total{reason="bad"}')" = 2 ]
	[ "$(bad | grep -cE '^(one|two|a/second)$')" = 2 ]
	soon [ ! -e "$MNT/one" ]; soon [ ! -e "$MNT/two" ]; soon [ ! -e "$MNT/a/second" ]
	[ "$(head -c 7 "$MNT/three")" = needle- ]
	needle one; is_sound
	rm "$MNT/one" "$MNT/three"
	fsck_clean "$MNT"
}

@test "fsck --repair says each in a line, whatever it is called" {
	! is_of_node || skip "the same, of the node's store"
	local odd=$'a/new\nline'
	needle "$odd"
	"$SLICEFS" umount "$MNT"
	rot "$odd"
	no "$SLICEFS" fsck "$STORE"
	"$SLICEFS" fsck --repair "$STORE" >"$SCRATCH/out" || { cat "$SCRATCH/out"; false; }
	grep -q ', 0 left$' "$SCRATCH/out"
	grep -qE '^dropped object [0-9]+: /?a/new\\x0aline$' "$SCRATCH/out"; no grep -q ^line "$SCRATCH/out"
	fsck_clean
	mount_fs
	[ ! -e "$MNT/$odd" ]
}

@test "what is open keeps its bytes, whatever becomes of its name" {
	needle held
	exec 5<"$MNT/held"
	rot held
	no scrub --evict-bad >"$SCRATCH/out"
	[ "$(ending bad)" = 1 ]
	[ "$(tail -c 1000 <&5 | tr -d q | wc -c)" = 0 ]
	exec 5<&-
	rm -f "$MNT/held"
	is_sound
}

@test "one at a time; it ends with the command" {
	env --default-signal=INT "$SLICEFS" scrub --rate 1M "$(store_at)" >"$SCRATCH/slow" 3>&- &
	local slow=$!
	soon is_scrubbing
	fails 1 "another scrub" "$SLICEFS" scrub "$(store_at)"
	is_scrubbing
	kill -INT $slow
	within 3 wait $slow || [ $? = 130 ]
	soon no is_scrubbing
	tail -n5 "$SCRATCH/log" | grep -q "scrub: .*stopped"
	is_sound
}

@test "it ends when nobody reads it any more" {
	within 6 eval '"$SLICEFS" scrub --rate 500K "$(store_at)" | head -n1'
	soon no is_scrubbing
}

@test "no faster than it was told" {
	local from=$EPOCHREALTIME
	"$SLICEFS" scrub --rate 4M "$(store_at)" >"$SCRATCH/out"
	[ "$(ending bytes)" -ge 9000000 ]
	awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a > 1.9) }'
	[ "$(jq -s '[.[] | select(.event == "progress")] | length' "$SCRATCH/out")" -ge 1 ]
}

@test "on a terminal there is a bar, and text" {
	requires script
	script -qec "$SLICEFS scrub --rate 8M $(store_at)" /dev/null >"$SCRATCH/tty" </dev/null
	grep -q '\[#.* MiB of .*/s, .* left' "$SCRATCH/tty"
	grep -q '6 objects\|7 objects' "$SCRATCH/tty"
	grep -q '0 bad' "$SCRATCH/tty"
	script -qec "stty cols 40; $SLICEFS scrub --rate 8M $(store_at)" /dev/null </dev/null | tr '\r' '\n' >"$SCRATCH/tty"
	grep -q '\[#.* MiB of' "$SCRATCH/tty"
	no grep -E '\[#.{40}' "$SCRATCH/tty"
}

@test "by the name of the store; and what cannot be scrubbed is said" {
	"$SLICEFS" scrub --store "$STORE" >"$SCRATCH/out"
	[ "$(ending bad)" = 0 ]
	fails 2 "which directory" "$SLICEFS" scrub
	fails 2 "one of them" "$SLICEFS" scrub --store "$STORE" "$(store_at)"
	fails 2 "rate" "$SLICEFS" scrub --rate fast "$(store_at)"
	fails 1 "no such store" "$SLICEFS" scrub --store "$STORE-none"
	fails 1 "mounted there" "$SLICEFS" scrub "$SCRATCH"
	mkdir "$SCRATCH/folder"
	cd "$SCRATCH"; fails 1 "mounted there" "$SLICEFS" scrub folder
	! is_of_node || fails 1 "slicefs scrub .*:" "$SLICEFS" scrub "$MNT"
}

@test "what is written, replaced, renamed and removed under it is not bad" {
	requires python3
	remount_with --evict-high 80 --evict-low 60
	(until [ -e "$SCRATCH/enough" ]; do scrub >>"$SCRATCH/many" || exit; done) 3>&- &
	local scrubs=$!
	python3 "$BATS_TEST_DIRNAME/storm.py" "$MNT" 6
	touch "$SCRATCH/enough"; wait $scrubs
	[ "$(grep -c '"event":"end"' "$SCRATCH/many")" -ge 3 ]
	no grep -q '"event":"bad"' "$SCRATCH/many"
	soon no is_scrubbing
	is_sound
	fsck_clean "$MNT"
}

@test "--verify: what rots while a file is open is never read" {
	remount_with --verify
	needle open 3000000
	exec 5<"$MNT/open" 6<"$MNT/open"
	[ "$(dd bs=4096 count=1 status=none <&5 | head -c 7)" = needle- ]
	rot open
	# what the kernel has is its own; a direct read and a fresh one come to the daemon
	no read_directly open >/dev/null
	echo 1 >/proc/sys/vm/drop_caches || true
	no cat "$MNT/open" >/dev/null
	no dd bs=4096 count=1 of=/dev/null status=none <&6 || [ "$(id -u)" != 0 ]
	python3 -c 'import mmap, sys
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
print(m[2900000:2900004])' "$MNT/open" | grep qqqq
	local log=$SCRATCH/log; ! is_of_node || log=$SCRATCH/mount.log
	grep -q "file [0-9]*: block 0 of slice" "$log"
	[ "$(stat_value checksum_failures_total)" -ge 1 ]
	exec 5<&- 6<&-
	# a part of it written over does not make the rest good
	printf x | dd of="$MNT/open" bs=1 seek=100 conv=notrunc status=none || true
	no read_directly open >/dev/null
	needle open 3000000
	read_directly open | cmp - "$MNT/open"
	rm "$MNT/open"
}

@test "what rotted while nobody served the store is found on the first read" {
	needle away; needle good
	"$SLICEFS" umount "$MNT"
	! is_of_node || end_node
	rot away
	if is_of_node; then serve; fi
	mount_fs
	no cat "$MNT/away" >"$SCRATCH/read"
	no grep -q needle "$SCRATCH/read"
	[ "$(head -c 7 "$MNT/good")" = needle- ]
	[ "$(stat_value checksum_failures_total)" -ge 1 ]
	rm "$MNT/away"
}

@test "killed under a scrub: the next start is right" {
	"$SLICEFS" scrub --rate 1M "$(store_at)" >/dev/null 2>"$SCRATCH/lost" 3>&- &
	local slow=$! pid at
	pid=$(daemon_pid) at=$(node at)
	soon is_scrubbing
	kill -9 "$pid"; gone "$pid" 10
	is_of_node || within 5 wait $slow || true
	if is_of_node; then
		serve_at "$at" --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" --log "$SCRATCH/log"
		soon ls "$MNT"
		no within 25 wait $slow
		cat "$SCRATCH/lost"
		grep -q "^slicefs: scrub: .*\(lost\|timed out\|closed\)" "$SCRATCH/lost"
	else
		umount -l "$MNT"; mount_fs
	fi
	is_sound
	fsck_clean "$MNT"
}

@test "when all is idle, nothing is in flight (P10)" {
	gauges_zero
	is_of_node || [ "$(stat_value scrubs)" = 0 ]
}
