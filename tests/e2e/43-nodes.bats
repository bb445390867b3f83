#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# alone: deadlines of a second
# Mounts of a node's store: what a node that dies, freezes or comes back means for
# them, and they for it. All over TCP on loopback, or by RDMA in the virtual machine.
load lib
setup_file() {
	begin_file
	[[ $SHAPE == rdma ]] || SHAPE=node
	export SHAPE MNT2=$SCRATCH/mnt2
	mkdir "$MNT2"
}
teardown_file() { end_file; }
setup() { is_mounted || mount_fs --timeout 2s; rm -rf "${MNT:?}"/*; }
teardown() { [[ -n ${BATS_TEST_COMPLETED:-} ]] || { kill -CONT "$(node pid)" "$(mount_pid "$MNT")"; unmount_all; end_node; } 2>/dev/null || true; }

# A node that takes a mount for gone soon.
serve() {
	serve_at "${1:-}" --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" --keep-alive 1s \
		--log "$SCRATCH/log"
}

kill_node() { # its pool and index stay
	local pid
	at=$(node at) pid=$(node pid)
	kill -9 "$pid"
	gone "$pid" 5
}

mount_second() { mount_at --log "$SCRATCH/mount2.log" "$@" "$(node at)" "$MNT2"; }

# Sessions of which the node heard nothing any more.
deaths() { grep -c 'ends: nothing was heard of it' "$SCRATCH/log"; }

free_bytes() { stat_value 'pool_bytes{state="free"}'; }

@test "what was published is there after the node was killed, and what is open goes on (P4, P8)" {
	random_file "$SCRATCH/a" 5000000; cp "$SCRATCH/a" "$MNT/a"
	exec 5<"$MNT/a"
	head -c 100 <&5 | cmp - <(head -c 100 "$SCRATCH/a")
	kill_node; serve "$at"
	soon ls "$MNT"
	echo 3 >/proc/sys/vm/drop_caches # what is read comes from the node
	cat <&5 | cmp - <(tail -c +101 "$SCRATCH/a")
	exec 5<&-
	cmp "$MNT/a" "$SCRATCH/a"
	echo more >"$MNT/b"; [ "$(cat "$MNT/b")" = more ]
	rm "$MNT/a" "$MNT/b"; stock_is_back; gauges_zero
}

@test "what was unlinked and open is lost with the node, and is never another one's bytes (P9)" {
	random_file "$SCRATCH/a" 4194304; cp "$SCRATCH/a" "$MNT/a"
	exec 5<"$MNT/a"
	rm "$MNT/a"
	kill_node; serve "$at"
	soon ls "$MNT"
	# What is written then is also where the other one was.
	python3 - "$MNT" <<-'END'
		import errno, os, sys
		files = []
		for i in range(12):
		    files.append(open(f"{sys.argv[1]}/z{i}", "wb", 0))
		    for part in range(4):
		        files[-1].write(bytes([i + 1]) * (1 << 20))
		for off in range(0, 4 << 20, 1 << 20):
		    try:
		        os.pread(5, 1 << 20, off)
		        raise SystemExit(f"read at {off}, though the node has lost it")
		    except OSError as e:
		        assert e.errno == errno.EIO, e
		for f in files:
		    f.close()
		for i in range(12):
		    with open(f"{sys.argv[1]}/z{i}", "rb") as f:
		        assert f.read() == bytes([i + 1]) * (4 << 20), i
	END
	exec 5<&-
	rm "$MNT"/z*; stock_is_back; gauges_zero
}

@test "what was written and not published is lost with the node, and says so (P5)" {
	hold "$MNT/draft" 3000000
	kill_node; serve "$at"
	soon ls "$MNT"
	no dd if=/dev/zero of="$MNT/draft" bs=4096 count=1 conv=notrunc,nocreat 2>/dev/null
	let_go 2>"$SCRATCH/held" || true
	soon no test -e "$MNT/draft"
	echo new >"$MNT/draft"; [ "$(cat "$MNT/draft")" = new ]
	rm "$MNT/draft"; gauges_zero
}

@test "a node that is frozen holds up no call for longer than the timeout (P6)" {
	echo x >"$MNT/x"
	freeze "$(node pid)"
	within 1 df "$MNT"
	within 1 cat "$MNT/.slicefs/stats" >/dev/null
	no within 4 cat "$MNT/nothing"
	no within 4 sh -c 'echo y >"$1"' sh "$MNT/y"
	no within 6 mkdir "$MNT/d"
	within 1 df "$MNT"
	kill -CONT "$(node pid)"
	soon cat "$MNT/x"
	echo y >"$MNT/y"; [ "$(cat "$MNT/y")" = y ]
	rm -rf "$MNT"/x "$MNT"/y "$MNT"/d
	gauges_zero
}

@test "a node that does not say what it counts is named, and holds up nobody" {
	within 4 "$SLICEFS" status "$MNT" | grep -q '^node .*: answers'
	freeze "$(node pid)"
	no within 4 cat "$MNT/.slicefs/node-stats" 2>/dev/null
	for _ in $(seq 20); do { no cat "$MNT/.slicefs/node-stats" 2>/dev/null 3>&-; } & done
	within 1 df "$MNT"
	within 1 cat "$MNT/.slicefs/stats" >/dev/null
	wait
	"$SLICEFS" status --json "$MNT" >"$SCRATCH/status" 2>"$SCRATCH/said" && return 1
	jq -e '.[0] | .state == "mounted" and .pool == 67108864 and .node.state == "does not answer"' "$SCRATCH/status"
	grep -q 'no answer.*doctor' "$SCRATCH/said"
	cat "$MNT/.slicefs/node-stats" 3>&- 2>/dev/null & local pid=$!
	sleep 0.3; kill -TERM $pid
	within 1 wait $pid || [ $? != 99 ]
	no within 4 "$SLICEFS" status --timeout 1s "$(node at)"
	kill -CONT "$(node pid)"
	soon grep -q slicefs_sessions "$MNT/.slicefs/node-stats"
	gauges_zero
}

@test "Ctrl-C ends what waits for a frozen node" {
	freeze "$(node pid)"
	cat "$MNT/nothing" 3>&- & local pid=$!
	sleep 0.3; kill -TERM $pid
	within 1 wait $pid || [ $? != 99 ]
	kill -CONT "$(node pid)"
	soon ls "$MNT"
}

@test "a mount ends while its node is gone" {
	hold "$MNT/draft" 100000
	kill_node
	let_go 2>/dev/null || true
	within 15 "$SLICEFS" umount "$MNT"
	serve "$at"; mount_fs --timeout 2s
	[ ! -e "$MNT/draft" ]
	gauges_zero
}

@test "a mount ends though its node went while a file was being closed (P6)" {
	echo x >"$MNT/x"
	exec 5>>"$MNT/x"
	local pid
	pid=$(mount_pid "$MNT")
	freeze "$(node pid)"
	exec 5>&- # the node is told that nobody writes to it any more, and does not answer
	sleep 0.3
	kill_node
	"$SLICEFS" umount "$MNT"
	gone "$pid" 15
	serve "$at"; mount_fs --timeout 2s
	[ "$(cat "$MNT/x")" = x ]
	rm "$MNT/x"; gauges_zero
}

@test "a mount ends while its node is frozen and a process stands in it (P6)" {
	"$SLICEFS" umount "$MNT"; end_node
	serve_at "" --store "$STORE" --evict-high 95 --evict-dirs 3s --keep-alive 1s --log "$SCRATCH/log"
	mount_fs --timeout 2s
	mkdir "$MNT/d"
	(cd "$MNT/d" && exec sleep 60) 3>&- & local stands=$! pid
	pid=$(mount_pid "$MNT")
	sleep 1
	freeze "$(node pid)"
	sleep 1 # it is looked for twice a second
	kill $stands
	kill -TERM "$pid"
	gone "$pid" 20
	kill -CONT "$(node pid)"
	end_node; mount_fs --timeout 2s
	rmdir "$MNT/d"; gauges_zero
}

@test "nobody mounts a node that is not there, or not let in" {
	kill_node
	mkdir -p "$SCRATCH/none"
	fails 1 'refused.*node running' mount_at "$at" "$SCRATCH/none"
	serve "$at"
	fails 1 'another token' mount_at --token-file <(echo secret) "$at" "$SCRATCH/none" ||
		fails 1 'token' mount_at --token-file <(echo secret) "$at" "$SCRATCH/none"
	fails 2 'is a node' mount_at --pool-size 1G "$at" "$SCRATCH/none"
	fails 2 'is a node' mount_at --fresh "$at" "$SCRATCH/none"
	soon ls "$MNT"
}

@test "a mount that was frozen past its session has lost its draft, and nothing else" {
	echo kept >"$MNT/kept"
	hold "$MNT/draft" 3000000
	mount_second
	local pid
	pid=$(mount_pid "$MNT")
	local before
	before=$(deaths)
	freeze "$pid"
	soon eval '[ "$(deaths)" -gt '"$before"' ]'
	echo mine >"$MNT2/draft" # the name is free
	kill -CONT "$pid"
	soon cat "$MNT/kept"
	let_go 2>/dev/null || true
	[ "$(cat "$MNT2/draft")" = mine ]
	soon grep -qx mine "$MNT/draft"
	rm "$MNT2/draft" "$MNT2/kept"
	"$SLICEFS" umount "$MNT2"
	gauges_zero
}

@test "a mount that is killed leaves neither name nor slice (P5)" {
	mount_second
	soon test "$(free_bytes)" -gt 0
	local before
	before=$(MNT=$MNT2 free_bytes)
	hold "$MNT/draft" 5000000
	[ "$(MNT=$MNT2 free_bytes)" -lt "$before" ]
	kill_daemon
	let_go 2>/dev/null || true
	soon eval '[ "$(MNT=$MNT2 free_bytes)" = '"$before"' ]'
	[ ! -e "$MNT2/draft" ]
	"$SLICEFS" umount "$MNT2"
	mount_fs --timeout 2s
	gauges_zero
}

@test "both are killed: what was published is there" {
	random_file "$SCRATCH/a" 3000000; cp "$SCRATCH/a" "$MNT/a"
	hold "$MNT/draft" 100000
	kill_node
	kill_daemon
	let_go 2>/dev/null || true
	fsck_clean
	serve "$at"; mount_fs --timeout 2s
	cmp "$MNT/a" "$SCRATCH/a"; [ "$(ls "$MNT")" = a ]
	rm "$MNT/a"; gauges_zero
}

# For what a ring brings: a second, where without one it would take thirty.
at_once() { tries 50 0.02 "$@"; } # command...

is() { # what path value
	[[ $(stat -c "$1" "$2") == "$3" ]]
}

looks() { # at the directory d, as somebody who comes again
	ls -l "$MNT2/d" >/dev/null && stat "$MNT2"/d/* >/dev/null
}

@test "what another mount changes is seen at once, by rings" {
	mkdir "$MNT/d" "$MNT/d/sub"; echo 1 >"$MNT/d/a"; echo 2 >"$MNT/d/b"; echo 3 >"$MNT/d/c"
	mount_second --cache 30s
	looks; looks
	[ "$(MNT=$MNT2 stat_value watches)" -ge 2 ]
	chmod 600 "$MNT/d/a"; at_once is %a "$MNT2/d/a" 600; looks
	echo longer >"$MNT/d/a"; at_once is %s "$MNT2/d/a" 7; looks
	mv "$MNT/d/b" "$MNT/d/e"; at_once no test -e "$MNT2/d/b"; test -e "$MNT2/d/e"; looks
	rm "$MNT/d/c"; at_once no test -e "$MNT2/d/c"; looks
	rmdir "$MNT/d/sub"; at_once no test -e "$MNT2/d/sub"; looks
	echo new >"$MNT/d/f"; at_once test -e "$MNT2/d/f"; looks
	mv "$MNT/d/f" "$MNT/d/a"; at_once is %s "$MNT2/d/a" 4; looks
	# A file of several names is not what a ring tells of: it is asked for.
	ln "$MNT/d/a" "$MNT/d/g"; at_once is %h "$MNT2/d/g" 2; looks
	chmod 700 "$MNT/d"; at_once is %a "$MNT2/d" 700; looks
	mv "$MNT/d" "$MNT/D"; at_once no test -e "$MNT2/d"; [ "$(cat "$MNT2/D/a")" = new ]
	[ "$(MNT=$MNT2 stat_value rings_total)" -gt 0 ]
	[ "$(MNT=$MNT2 stat_value invalidations_total)" -gt 0 ]
	"$SLICEFS" umount "$MNT2"
	rm -r "$MNT/D"; stock_is_back; gauges_zero
}

# How much room there is, for .slicefs/stats and statfs, is asked for once a second.
since() { echo $((SECONDS - $1 + 2)); } # SECONDS then

@test "who looks at what nobody changes asks the node nothing" {
	local i before begun n=$((SLOW > 1 ? 40 : 200)) # a watch is of a minute
	mkdir "$MNT/d"
	for i in $(seq $n); do echo "$i" >"$MNT/d/f$i"; done
	mount_second
	looks; looks
	sleep 1.2; looks # the directory was not watched yet when it was looked up
	sleep 1.2        # --cache is over
	begun=$SECONDS; before=$(MNT=$MNT2 stat_value remote_requests_total)
	for i in 1 2 3 4 5; do looks; done
	[ "$(MNT=$MNT2 stat_value remote_requests_total)" -le $((before + $(since "$begun"))) ]
	# What it changes itself rings for others.
	echo x >"$MNT2/d/own"; chmod 600 "$MNT2/d/f1"; mv "$MNT2/d/f2" "$MNT2/d/f2.new"; rm "$MNT2/d/f3"
	[ "$(MNT=$MNT2 stat_value rings_total)" = 0 ]
	[ "$(MNT=$MNT2 stat_value invalidations_total)" = 0 ]
	stat "$MNT2"/d/own "$MNT2"/d/f2.new >/dev/null
	sleep 1.2
	begun=$SECONDS; before=$(MNT=$MNT2 stat_value remote_requests_total)
	is %a "$MNT2/d/f1" 600; seq -f "$MNT2/d/f%g" 4 $n | xargs stat "$MNT2/d/f2.new" >/dev/null
	[ "$(MNT=$MNT2 stat_value remote_requests_total)" -le $((before + $(since "$begun"))) ]
	"$SLICEFS" umount "$MNT2"
	rm -r "$MNT/d"; stock_is_back; gauges_zero
}

@test "with the link, all goes that rings were to tell of" {
	mkdir "$MNT/d"; echo 1 >"$MNT/d/a"; echo 2 >"$MNT/d/b"
	mount_second --cache 30s
	looks; looks
	[ "$(MNT=$MNT2 stat_value invalidations_total)" = 0 ]
	kill_node
	at_once eval '[ "$(MNT=$MNT2 stat_value invalidations_total)" -ge 2 ]'
	serve "$at"
	soon ls "$MNT"
	rm "$MNT/d/a"; echo longer >"$MNT/d/b"
	soon ls "$MNT2"
	at_once no test -e "$MNT2/d/a"; at_once is %s "$MNT2/d/b" 7
	# It rings again.
	looks; looks
	rm "$MNT/d/b"; at_once no test -e "$MNT2/d/b"
	"$SLICEFS" umount "$MNT2"
	rm -r "$MNT/d"; stock_is_back; gauges_zero
}

# Counted by the mount whose index is elsewhere: one round trip looks the name up, one
# opens it and brings its bytes. Times of reading are told many at a time.
@test "a small file is opened, read and closed in two round trips" {
	local i before begun n=40
	mkdir "$MNT/d"
	for i in $(seq $n); do head -c 4096 /dev/urandom >"$MNT/d/f$i"; done
	touch -a -d 2001-01-01 "$MNT"/d/*
	mount_second
	ls "$MNT2/d" >/dev/null # the way to it is known
	begun=$SECONDS; before=$(MNT=$MNT2 stat_value remote_requests_total)
	for i in $(seq $n); do cmp "$MNT/d/f$i" "$MNT2/d/f$i"; done
	soon eval '[ "$(MNT=$MNT2 stat_value accesses)" = 0 ]'
	echo "$(($(MNT=$MNT2 stat_value remote_requests_total) - before)) requests for $n files"
	# And what was read is told once a second, too.
	[ "$(MNT=$MNT2 stat_value remote_requests_total)" -le $((before + 2 * n + 3 * $(since "$begun"))) ]
	"$SLICEFS" umount "$MNT2"
	rm -r "$MNT/d"; stock_is_back; gauges_zero
}

# Of each: found not to be there, begun, written, sealed, published, ended; looked up,
# removed, its slices given up. And some for the directory, and slices ahead.
@test "small files are made in six round trips and removed in three, times of the directory included" {
	local i before n=100
	mkdir "$MNT/d"
	mount_second
	ls -l "$MNT2/d"; sleep 1.2; ls -l "$MNT2/d"
	before=$(MNT=$MNT2 stat_value remote_requests_total)
	python3 -c 'import os, sys
for i in range(int(sys.argv[2])):
    f = os.open(sys.argv[1] + "/f%d" % i, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(f, b"x" * 4096)
    os.close(f)' "$MNT2/d" $n
	soon eval '[ "$(MNT=$MNT2 stat_value drafts)" = 0 ]'
	echo "$(($(MNT=$MNT2 stat_value remote_requests_total) - before)) requests to make $n files"
	[ "$(MNT=$MNT2 stat_value remote_requests_total)" -le $((before + 6 * n + 60)) ]
	soon is %y "$MNT/d" "$(stat -c %y "$MNT2/d")"
	soon is %z "$MNT/d" "$(stat -c %z "$MNT2/d")"
	before=$(MNT=$MNT2 stat_value remote_requests_total)
	python3 -c 'import os, sys
for i in range(int(sys.argv[2])):
    os.unlink(sys.argv[1] + "/f%d" % i)' "$MNT2/d" $n
	soon eval '[ "$(MNT=$MNT2 stat_value kept)" = 0 ]'
	echo "$(($(MNT=$MNT2 stat_value remote_requests_total) - before)) requests to remove them"
	[ "$(MNT=$MNT2 stat_value remote_requests_total)" -le $((before + 3 * n + 60)) ]
	soon is %y "$MNT/d" "$(stat -c %y "$MNT2/d")"
	# What others do there shows, whatever was remembered.
	echo 1 >"$MNT2/d/a"; chmod 750 "$MNT/d"; at_once is %a "$MNT2/d" 750
	mkdir "$MNT/d/sub"; echo 2 >"$MNT2/d/b"; at_once is %h "$MNT2/d" 3
	"$SLICEFS" umount "$MNT2"
	rm -r "$MNT/d"; stock_is_back; gauges_zero
}

@test "when a file was read shows here at once, there soon, and after the mount's end" {
	echo 1 >"$MNT/a"; echo 2 >"$MNT/b"; echo 3 >"$MNT/c"
	touch -a -d 2001-01-01 "$MNT"/[abc]
	mount_second
	cat "$MNT2/a" "$MNT2/b" >/dev/null
	is %x "$MNT/c" "$(stat -c %x "$MNT2/c")"
	[ "$(stat -c %X "$MNT2/a")" -gt 1000000000 ]
	[ "$(stat -c %X "$MNT2/b")" -gt 1000000000 ]
	touch -a -d 2002-02-02 "$MNT2/b" # by hand, after it was read
	mv "$MNT2/a" "$MNT2/A"
	[ "$(stat -c %X "$MNT2/A")" -gt 1000000000 ]
	soon eval '[ "$(stat -c %X "$MNT/A")" = "$(stat -c %X "$MNT2/A")" ]'
	is %y "$MNT/A" "$(stat -c %y "$MNT2/A")"
	is %X "$MNT2/b" "$(date -d 2002-02-02 +%s)"; soon is %X "$MNT/b" "$(date -d 2002-02-02 +%s)"
	cat "$MNT2/c" >/dev/null
	"$SLICEFS" umount "$MNT2"
	soon eval '[ "$(stat -c %X "$MNT/c")" -gt 1100000000 ]'
	rm "$MNT"/[Abc]; stock_is_back; gauges_zero
}

@test "a node that comes back with another store is not taken for the one before, and the log says so" {
	echo lost >"$MNT/a"
	kill_node
	sleep 1 # nobody listens there, which is another thing to say
	"$SLICEFS" store rm "$STORE"; serve "$at"
	soon grep -q 'it has another pool than before: unmount, and mount again' "$SCRATCH/mount.log"
	fails 1 . cat "$MNT/a"
	"$SLICEFS" umount "$MNT"; mount_fs --timeout 2s
	no test -e "$MNT/a"; echo new >"$MNT/a"; [ "$(cat "$MNT/a")" = new ]
	rm "$MNT/a"; gauges_zero
}

@test "when all is idle, nothing is in flight (P10)" {
	stock_is_back; gauges_zero
	"$SLICEFS" umount "$MNT"
	end_node
	fsck_clean
}
