#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: tsan
# shapes: own node
# `slicefs wait`: it returns when a name has been published, by whomever, and not before.
load lib
setup_file() { begin_file; }
teardown_file() { end_file; }
setup() { is_mounted || mount_fs; }

# Nothing of a wait is left.
no_waits() { soon eval '[ "$(stat_value waits)" = 0 ]'; }
is_waiting() { soon eval '[ "$(stat_value waits)" = '"${1:-1}"' ]'; }

# Starts one; `ended` is its status then.
begin_wait() { "$SLICEFS" wait "$@" 2>"$SCRATCH/said" 3>&- & WAIT=$!; }
# shellcheck disable=SC2317 # run by soon
is_over() { ! kill -0 "$WAIT" 2>/dev/null; }
ended() { # status
	local status=0
	soon is_over || { kill -9 "$WAIT"; return 1; }
	wait "$WAIT" || status=$?
	[[ $status == "$1" ]] || { echo "status $status, not $1: $(<"$SCRATCH/said")"; return 1; }
}

@test "what is there already is not waited for" {
	mkdir "$MNT/d"; echo x >"$MNT/d/f"; ln -s nowhere "$MNT/link"
	within 2 "$SLICEFS" wait "$MNT/d/f" "$MNT/d" "$MNT/d/" "$MNT" "$MNT/d/.." "$MNT/link" "$MNT/.slicefs"
	(cd "$MNT/d" && within 2 "$SLICEFS" wait f ../d .)
	no_waits
}

@test "what is not is waited for, and when it is there, the wait ends at once" {
	local from took
	begin_wait "$MNT/new"
	is_waiting; no is_over
	echo x >"$MNT/new"
	ended 0
	begin_wait "$MNT/newer"
	is_waiting
	from=${EPOCHREALTIME/./}
	echo x >"$MNT/newer"
	wait "$WAIT"
	took=$(((${EPOCHREALTIME/./} - from) / 1000))
	echo "$took ms"
	[ "$took" -lt 500 ] || [ "$SLOW" -gt 1 ] # it rang: a look comes every second
	no_waits
}

@test "folders that are not there yet are waited for, too" {
	begin_wait --timeout 20 "$MNT/a/b/c"
	is_waiting
	mkdir "$MNT/a"; sleep 0.1; no is_over
	mkdir "$MNT/a/b"; sleep 0.1; no is_over
	rm -r "$MNT/a"; sleep 0.1; no is_over
	mkdir -p "$MNT/a/b"; echo x >"$MNT/a/b/c"
	ended 0
}

@test "what does not come ends it with 124, after that time" {
	within 2 fails 124 'mnt/never: not published within 0.5 s' "$SLICEFS" wait --timeout 0.5 "$MNT/never"
	fails 124 'mnt/never/x: not published within 0 s' "$SLICEFS" wait --timeout 0 "$MNT/never/x"
	fails 124 'mnt/link/x: not published within 300ms' "$SLICEFS" wait --timeout=300ms "$MNT/link/x"
	fails 124 'mnt/never' "$SLICEFS" wait --timeout 1s "$MNT/d" "$MNT/never"
	"$SLICEFS" wait --timeout 1d "$MNT/d"
	no_waits
}

@test "a file that is still written is not published, until it is closed" {
	hold "$MNT/held" 100000
	ls "$MNT" | grep -qx held
	fails 124 'mnt/held: not published' "$SLICEFS" wait --timeout 0.5 "$MNT/held"
	begin_wait "$MNT/held"
	is_waiting; sleep 0.2; no is_over
	let_go
	ended 0
}

@test "a rename into place publishes, but not of what is still written" {
	begin_wait "$MNT/place"
	is_waiting
	echo whole >"$MNT/place.tmp"
	sleep 0.1; no is_over
	mv "$MNT/place.tmp" "$MNT/place"
	ended 0
	hold "$MNT/draft.tmp" 100000
	begin_wait "$MNT/draft"
	is_waiting
	mv "$MNT/draft.tmp" "$MNT/draft"
	sleep 1.2; no is_over
	let_go
	ended 0
}

@test "links, folders, pipes are names as well" {
	begin_wait "$MNT/hard"; is_waiting; ln "$MNT/new" "$MNT/hard"; ended 0
	begin_wait "$MNT/soft"; is_waiting; ln -s new "$MNT/soft"; ended 0
	begin_wait "$MNT/folder"; is_waiting; mkdir "$MNT/folder"; ended 0
	begin_wait "$MNT/pipe"; is_waiting; mkfifo "$MNT/pipe"; ended 0
}

@test "a signal ends it, and nothing is left" {
	local sig
	for sig in TERM HUP KILL; do
		begin_wait "$MNT/never"
		is_waiting
		kill -"$sig" "$WAIT"
		ended $((128 + $(kill -l "$sig")))
		no_waits
	done
	requires python3
	# Ctrl-C: a shell has its background jobs ignore that.
	python3 - "$SLICEFS" "$MNT/never" <<-'E'
		import signal, subprocess, sys, time
		signal.signal(signal.SIGINT, signal.default_int_handler)
		p = subprocess.Popen([sys.argv[1], "wait", sys.argv[2]])
		time.sleep(0.3)
		p.send_signal(signal.SIGINT)
		sys.exit(p.wait(5) != -signal.SIGINT)
	E
	no_waits
}

@test "those who wait hold up nobody" {
	local i pids=()
	for i in $(seq 20); do
		"$SLICEFS" wait "$MNT/all" 2>/dev/null 3>&- & pids+=($!)
	done
	is_waiting 20
	within 2 ls -l "$MNT" >/dev/null
	echo x >"$MNT/other"; [ "$(cat "$MNT/other")" = x ]
	echo x >"$MNT/all"
	for i in "${pids[@]}"; do wait "$i"; done
	no_waits
}

@test "a daemon that stands still does not hold it up, one that ends it does not survive" {
	local pid
	pid=$(served_by)
	freeze "$pid"
	within 4 fails 124 'not published within 0.5 s' "$SLICEFS" wait --timeout 0.5 "$MNT/never"
	kill -CONT "$pid"
	no_waits
	begin_wait "$MNT/never"
	is_waiting
	kill -TERM "$pid"
	ended 1
	grep -q 'gone\|Transport' "$SCRATCH/said"
	gone "$pid" 10
	is_mounted && umount -l "$MNT"
	mount_fs
}

@test "what is in no mount is said in a line, status 2" {
	fails 2 'is in no slicefs mount. Try: slicefs status' "$SLICEFS" wait "$SCRATCH/x"
	fails 2 'is in no slicefs mount' "$SLICEFS" wait "$SCRATCH"
	fails 2 'for which path' "$SLICEFS" wait
	fails 2 'timeout "soon": seconds' "$SLICEFS" wait --timeout soon "$MNT/x"
	fails 2 'timeout "-1"' "$SLICEFS" wait --timeout -1 "$MNT/x"
	fails 2 'no node' "$SLICEFS" wait "ho st:99999999:/x"
	fails 1 'Not a directory' "$SLICEFS" wait "$MNT/new/x"
	fails 1 'nothing is published there' "$SLICEFS" wait "$MNT/.slicefs/x"
	fails 1 'name too long' "$SLICEFS" wait "$MNT/$(printf '%0300d' 1)"
}

@test "at a node it needs no mount, and sees what mounts publish" {
	is_of_node || skip "of a node"
	local at
	at=$(node at)
	"$SLICEFS" wait "$at:/new" "$at:/" "$MNT/new"
	fails 124 ':/never/x: not published within 0.3 s' "$SLICEFS" wait --timeout 0.3 "$at:/never/x"
	begin_wait "$at:/made/by/mount"
	sleep 0.3; no is_over
	mkdir -p "$MNT/made/by"; sleep 0.2; no is_over
	hold "$MNT/made/by/mount" 100000
	sleep 1.2; no is_over
	let_go
	ended 0
	begin_wait "$at:/killed"
	soon grep -qx slicefs "/proc/$WAIT/comm"; sleep 0.3
	kill -TERM "$WAIT"; ended 143
	# Nor does a node that stands still hold it up.
	freeze "$(node pid)"
	within 4 fails 124 'not published within 0.5 s' "$SLICEFS" wait --timeout 0.5 "$at:/never"
	kill -CONT "$(node pid)"
	stat "$MNT" >/dev/null
}

@test "a mount's wait sees what others publish at the node" {
	is_of_node || skip "of a node"
	local at
	at=$(node at)
	begin_wait "$MNT/put/by"
	is_waiting
	"$SLICEFS" mkdir "$at:/put"
	(echo x; sleep 1.5) | "$SLICEFS" put - "$at:/put/by" 3>&- & local put=$!
	sleep 1; no is_over
	wait $put
	ended 0
	[ "$(cat "$MNT/put/by")" = x ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; }
