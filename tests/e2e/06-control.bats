#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# shapes: own node
# .slicefs/ in the root of every mount.
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

@test "it is there, but not listed, and its name is taken" {
	[ -d "$MNT/.slicefs" ]; ls -A "$MNT" | no grep -q slicefs
	for f in stats slices config check; do [ -f "$MNT/.slicefs/$f" ]; done
	node=; [[ $SHAPE != node ]] || node=' node-stats'
	[ "$(ls "$MNT/.slicefs" | sort | xargs)" = "check config$node scrub slices stats" ]
	[[ $SHAPE == node ]] || [ ! -e "$MNT/.slicefs/node-stats" ]
	run mkdir "$MNT/.slicefs"; [ "$status" != 0 ]; [[ $output =~ "exists" ]]
	run touch "$MNT/.slicefs/x"; [ "$status" != 0 ]
	run rm -rf "$MNT/.slicefs"; [ "$status" != 0 ]
	touch "$MNT/f"; run mv "$MNT/f" "$MNT/.slicefs"; [ "$status" != 0 ]
	mkdir "$MNT/sub"; mkdir "$MNT/sub/.slicefs"; rmdir "$MNT/sub/.slicefs"
}

@test "each file can be asked for all that stat(1) knows, also for its birth" {
	for f in $(ls "$MNT/.slicefs") .; do
		[ "$(stat -c '%u %a %s' "$MNT/.slicefs/$f")" = "$(python3 -c '
import os, sys
s = os.stat(sys.argv[1]); print(s.st_uid, "%o" % (s.st_mode & 0o7777), s.st_size)' "$MNT/.slicefs/$f")" ]
		stat -c '%w' "$MNT/.slicefs/$f"
	done
}

@test "stats is Prometheus text: each line a sample or a comment, each family typed" {
	cat "$MNT/.slicefs/stats" >"$SCRATCH/stats"
	no grep -vE '^# (HELP|TYPE) |^slicefs_[a-z_]+(\{[^}]*\})? -?[0-9.e+]+$' "$SCRATCH/stats"
	grep -q '^# TYPE slicefs_pool_bytes gauge' "$SCRATCH/stats"
	[ "$(awk '/^# TYPE/ { print $3 }' "$SCRATCH/stats" | sort | uniq -d | wc -l)" = 0 ]
	for want in pool_bytes pins drafts handles transfers batches op_duration_seconds_bucket index_bytes; do grep -q "^slicefs_$want" "$SCRATCH/stats"; done
}

@test "states of slices sum to the pool, whatever happens (I1)" {
	head -c 3M /dev/urandom >"$MNT/x"; hold "$MNT/y" 1048576; rm "$MNT/x"
	for _ in 1 2 3; do
		[ "$(awk '/^slicefs_pool_bytes/ { n += $2 } END { print n }' "$MNT/.slicefs/stats")" = $((64 << 20)) ]
		head -c 100000 /dev/zero >"$MNT/z"
	done
	[ "$(stat_value drafts)" = 1 ]
	# The states of a node's slices are the node's to know; a mount knows what it holds.
	if [[ $SHAPE == node ]]; then
		[ "$(stat_value remote_pins)" -ge 1 ]
	else
		[ "$(stat_value 'pool_bytes{state="writing"}')" -ge 1048576 ]
	fi
	let_go
}

@test "slices shows who holds what" {
	hold "$MNT/held" 1048576
	state=writing; [[ $SHAPE != node ]] || state=-
	ino=$(stat -c %i "$MNT/held")
	held="^ *[0-9]+ +[0-9]+ $state .* $ino\\*\\([0-9.]+s\\)"
	grep -qE "$held" "$MNT/.slicefs/slices"
	let_go; gauges_zero
	no grep -qE "$held| writing " "$MNT/.slicefs/slices"
	if [[ $SHAPE == node ]]; then # nothing is held, so there is nothing to tell
		[ "$(grep -vc '^#' "$MNT/.slicefs/slices")" = 0 ]
	fi
}

@test "config shows the settings" {
	if [[ $SHAPE == node ]]; then # what a store is made with is the node's
		no grep -qE '^(store|fresh|pool-size|index-size|huge)=' "$MNT/.slicefs/config"
		grep -q '^timeout=10s' "$MNT/.slicefs/config"
	else
		grep -q '^pool-size=64M' "$MNT/.slicefs/config" || grep -q '^pool-size=67108864' "$MNT/.slicefs/config"
	fi
	grep -q '^control=.slicefs' "$MNT/.slicefs/config"
}

@test "check finds nothing wrong on a live mount" {
	[ "$(wc -c <"$MNT/.slicefs/check")" = 0 ]
	fsck_clean "$MNT"
}

@test "status and stat, as tables and as JSON" {
	head -c 100000 /dev/urandom >"$MNT/obj"
	"$SLICEFS" status | grep -q "$MNT"
	"$SLICEFS" status --json "$MNT" | jq -e '.[0] | .pool == 67108864 and .used > 100000 and .handles >= 0'
	"$SLICEFS" stat "$MNT/obj" | grep -q 'size .*100000 bytes'
	"$SLICEFS" stat --json "$MNT/obj" "$MNT/f" | jq -e 'length == 2 and .[0].size == 100000 and .[0].version >= 1 and (.[0].extents | length) >= 1'
	fails 1 'not in a slicefs' "$SLICEFS" stat /etc/passwd
}

node_value() { awk -v s="slicefs_$1" '$1 == s { print $2 }' "$MNT/.slicefs/node-stats"; } # series
counts() { "$SLICEFS" status --json "$1" | jq -r ".[0].node$2"; } # DIR|HOST:PORT .GROUP.NAME

@test "what a node counts is seen by its mounts, and without one; an own store has no node" {
	if [[ $SHAPE != node ]]; then
		"$SLICEFS" status --json "$MNT" | jq -e '.[0] | has("node") | not'
		"$SLICEFS" status "$MNT" | no grep -q ^node
		echo x >"$MNT/seen"
		hits=$(stat_value 'cache_requests_total{outcome="hit"}')
		misses=$(stat_value 'cache_requests_total{outcome="miss"}')
		for _ in 1 2 3; do cat "$MNT/seen" >/dev/null; done
		for n in 1 2 3 4; do no test -e "$MNT/unseen$n"; done
		store_counts 'cache_requests_total{outcome="hit"}' $((hits + 3))
		store_counts 'cache_requests_total{outcome="miss"}' $((misses + 4))
		return 0
	fi
	no grep -vE '^# (HELP|TYPE) |^slicefs_[a-z_]+(\{[^}]*\})? -?[0-9.e+]+$' "$MNT/.slicefs/node-stats"
	[ "$(node_value sessions)" = 1 ]
	fails 1 "its store is that of node 127.*Try: slicefs fsck NAME there" "$SLICEFS" fsck "$MNT"
	head -c 100000 /dev/urandom >"$MNT/seen"
	hits=$(counts "$MNT" .cache.hits) misses=$(counts "$MNT" .cache.misses) asked=$(counts "$MNT" .evicted.asked)
	for _ in 1 2 3; do cat "$MNT/seen" >/dev/null; done
	for n in 1 2 3 4; do no test -e "$MNT/unseen$n"; done
	"$SLICEFS" evict "$MNT/seen"
	[ "$(counts "$MNT" .cache.hits)" -ge $((hits + 3)) ]
	[ "$(counts "$MNT" .cache.misses)" -ge $((misses + 4)) ]
	[ "$(counts "$MNT" .evicted.asked)" = $((asked + 1)) ]
	[ "$(counts "$MNT" .pool.size)" = $((64 << 20)) ]
	[ "$(counts "$MNT" .state)" = answers ]; [ "$(counts "$MNT" .disk)" = null ]
	mkdir "$MNT/q"; "$SLICEFS" quota set "$MNT/q" 1M
	[ "$(counts "$MNT" .quotas.set)" = 1 ]
	rmdir "$MNT/q"; [ "$(counts "$MNT" .quotas.set)" = 0 ]
	"$SLICEFS" status "$MNT" | grep -qE '^  evicted .*asked [1-9]'
	# Without the mount, as a session more.
	[ "$(counts "$(node at)" .sessions.open)" = 2 ]
	[ "$(counts "$(node at)" .evicted.asked)" = $((asked + 1)) ]
	"$SLICEFS" status --json "$(node at)" | jq -e '.[0] | .dir == null and .pool == 67108864 and .handles == null'
	fails 1 refused "$SLICEFS" status 127.0.0.1:1
	fails 2 neither "$SLICEFS" status a:b
	no grep -aqi token "$MNT/.slicefs/node-stats"
	rm -f "$MNT/seen"
}

# pages FILE N STEP: N single pages, STEP bytes apart.
pages() {
	perl -e 'open(F, "+<", $ARGV[0]) or open(F, "+>", $ARGV[0]) or die $!;
		for (0 .. $ARGV[1] - 1) { sysseek(F, $_ * $ARGV[2], 0) && syswrite(F, "x" x 4096) == 4096 or die $! }
		close(F) or die $!' "$@"
}
# layout FILE BODY EXTENTS STEP: all are counted, the first ones listed, in order.
layout() {
	"$SLICEFS" stat "$1" | grep -qx "  extents   $3"
	"$SLICEFS" stat --json "$1" | jq -e --arg body "$2" --argjson n "$3" --argjson step "$4" '.[0] |
		.body == $body and .pages == $n and
		(.extents | length) + (.more_extents // 0) == $n and
		((.extents | length) == $n or (.extents | length) > 400) and
		([.extents | to_entries[] | .value.offset == .key * $step and .value.bytes == 4096] | all)'
}

@test "stat lists the extents of every kind of object, and counts what has no room" {
	cd "$MNT"
	for n in 20 300 3000; do
		pages "many$n" $n 65536
		layout "many$n" "$([ $n = 20 ] && echo extents || echo blocks)" $n 65536
	done
	pages tree 7500 $((4 << 20))
	layout tree tree 7500 $((4 << 20))
	rm -f many* tree
}

@test "stat of what is written over again and again never fails" {
	cd "$MNT"
	pages busy 300 65536
	until [ -e "$SCRATCH/enough" ]; do pages busy 300 65536; done & writer=$!
	for _ in $(seq 100); do "$SLICEFS" stat --json busy | jq -e '.[0].extents | length == 300' >/dev/null || bad=1; done
	touch "$SCRATCH/enough"; wait $writer # not killed: its child would go on in here
	[ -z "${bad:-}" ]
	rm busy
}

@test "the control directory can have another name" {
	"$SLICEFS" umount "$MNT"
	mount_fs --control .ctl
	[ -f "$MNT/.ctl/stats" ]; [ ! -e "$MNT/.slicefs" ]; mkdir "$MNT/.slicefs"; rmdir "$MNT/.slicefs"
	"$SLICEFS" status "$MNT"
	"$SLICEFS" umount "$MNT"; mount_fs
}

@test "without extended attributes it is found, too, and what needs them says so" {
	"$SLICEFS" umount "$MNT"
	mount_fs --no-xattrs
	echo x >"$MNT/plain"; no getfattr -n user.x "$MNT/plain"
	[ "$("$SLICEFS" status --json "$MNT" | jq -r '.[0].state')" = mounted ]
	fsck_clean "$MNT"
	is_of_node || "$SLICEFS" scrub --rate 0 "$MNT"
	fails 1 'its mount has --no-xattrs' "$SLICEFS" stat "$MNT/plain"
	fails 1 'mounted with --no-xattrs' "$SLICEFS" pin "$MNT/plain"
	"$SLICEFS" umount "$MNT"; mount_fs; rm "$MNT/plain"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
