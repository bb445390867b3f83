#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# long: tsan
# A node without a mount: slicefs put, get, cat, ls, rm, mkdir, mv.
load lib
setup_file() { begin_file; serve --evict-high 0; AT=$(node at); export AT; }
teardown_file() { kill -CONT "$(node pid)"; end_node || true; end_file; }
teardown() { umount_node; }

mount_node() { "$SLICEFS" mount --log "$SCRATCH/mount.log" "$AT" "$MNT"; }
umount_node() { ! is_mounted || "$SLICEFS" umount "$MNT"; }

free_bytes() {
	PYTHONPATH=$BATS_TEST_DIRNAME python3 -Bc 'import sys, wire; print(wire.Mount(sys.argv[1]).stat()["free"])' "$AT"
}

# Waits until the node has as much room as before.
all_is_free() { # bytes
	local _
	for _ in $(seq 100); do
		[[ $(free_bytes) == "$1" ]] && return 0
		sleep 0.1
	done
	echo "free: $(free_bytes), not $1"
	return 1
}

@test "a tree goes in and comes out the same" {
	(cd "$BATS_TEST_DIRNAME/../.." && tar c common engine index fs tools tests docs) |
		(mkdir "$SCRATCH/tree" && tar x -C "$SCRATCH/tree")
	ln -s common/size.h "$SCRATCH/tree/link"
	mkdir "$SCRATCH/tree/empty"
	: >"$SCRATCH/tree/empty file"
	"$SLICEFS" put -r "$SCRATCH/tree" "$AT:/"
	"$SLICEFS" get -r "$AT:/tree" "$SCRATCH/back"
	diff -r --no-dereference "$SCRATCH/tree" "$SCRATCH/back"
	[ "$(readlink "$SCRATCH/back/link")" = common/size.h ]
	"$SLICEFS" put -r "$SCRATCH/tree" "$AT:/tree/again"
	"$SLICEFS" get -r -j 1 "$AT:/tree/again" "$SCRATCH"
	diff -r --no-dereference "$SCRATCH/tree" "$SCRATCH/again"
	"$SLICEFS" rm -r "$AT:/tree/again"
}

@test "ls shows what is there" {
	[ "$("$SLICEFS" ls "$AT:/")" = tree ]
	cmp <("$SLICEFS" ls "$AT:/tree/engine") <(LC_ALL=C ls "$SCRATCH/tree/engine")
	cmp <("$SLICEFS" ls -R "$AT:/tree" | grep -c '\.c$') <(find "$SCRATCH/tree" -name '*.c' | wc -l)
	size=$(stat -c %s "$SCRATCH/tree/common/size.h")
	"$SLICEFS" ls -l "$AT:/tree/common/size.h" | grep -E "^-rw-r--r-- +1 root +root +$size 20.*$AT:/tree/common/size.h$"
	"$SLICEFS" ls -l "$AT:/tree" | grep -E '^lrwxrwxrwx .* link -> common/size.h$'
	"$SLICEFS" ls -ld "$AT:/tree" | grep -E '^drwxr-xr-x +[0-9]+ root'
	"$SLICEFS" ls "$AT:/tree/link" | grep "/tree/link$"
	"$SLICEFS" ls --json "$AT:/tree" | jq -e '
		(map(select(.type == "link")) | .[0].target == "common/size.h") and
		(map(select(.type == "directory")) | length >= 8)'
	[ -z "$("$SLICEFS" ls "$AT:/tree/empty")" ]
	"$SLICEFS" ls --json "$AT:/tree/empty" | jq -e '. == []'
}

@test "a large file has the same checksum, and holes stay holes" {
	random_file "$SCRATCH/big" 20000001
	"$SLICEFS" put "$SCRATCH/big" "$AT:/big"
	"$SLICEFS" get "$AT:/big" "$SCRATCH/big.back"
	cmp "$SCRATCH/big" "$SCRATCH/big.back"
	"$SLICEFS" cat "$AT:/big" | cmp - "$SCRATCH/big"
	truncate -s 8G "$SCRATCH/sparse"
	printf middle | dd of="$SCRATCH/sparse" bs=1 seek=5G conv=notrunc status=none
	before=$(free_bytes)
	"$SLICEFS" put "$SCRATCH/sparse" "$AT:/sparse"
	[ $((before - $(free_bytes))) -lt 1000000 ]
	"$SLICEFS" get "$AT:/sparse" "$SCRATCH/sparse.back"
	[ "$(stat -c %s "$SCRATCH/sparse.back")" = $((8 << 30)) ]
	[ "$(stat -c %b "$SCRATCH/sparse.back")" -lt 1000 ]
	[ "$(dd if="$SCRATCH/sparse.back" bs=1 skip=5G count=6 status=none)" = middle ]
	"$SLICEFS" rm "$AT:/big" "$AT:/sparse"
	rm "$SCRATCH"/sparse*
}

@test "standard input and output are files, too" {
	head -c 9000000 "$SCRATCH/big" | "$SLICEFS" put - "$AT:/piped"
	"$SLICEFS" get "$AT:/piped" - | cmp - <(head -c 9000000 "$SCRATCH/big")
	"$SLICEFS" put <(echo one) "$AT:/one"
	echo two | "$SLICEFS" put - "$AT:/two"
	: | "$SLICEFS" put - "$AT:/none"
	[ "$("$SLICEFS" cat "$AT:/one" "$AT:/none" "$AT:/two")" = $'one\ntwo' ]
	"$SLICEFS" put /proc/version "$AT:/version"
	"$SLICEFS" cat "$AT:/version" | cmp - /proc/version
	"$SLICEFS" get "$AT:/piped" /dev/null
	"$SLICEFS" get "$AT:/piped" /dev/full 2>"$SCRATCH/said" && false
	grep -q '/dev/full: No space left' "$SCRATCH/said"
	"$SLICEFS" cat "$AT:/piped" 2>"$SCRATCH/said" | head -c 10 >/dev/null
	[ ! -s "$SCRATCH/said" ]
	"$SLICEFS" rm "$AT:/piped" "$AT:/one" "$AT:/two" "$AT:/none" "$AT:/version"
}

@test "paths are looked up as the kernel would, within the node's tree" {
	ln -s /tree/engine "$SCRATCH/abs"; ln -s loop "$SCRATCH/loop"; ln -s ../tree/link "$SCRATCH/far"
	"$SLICEFS" put -r "$SCRATCH/abs" "$SCRATCH/loop" "$SCRATCH/far" "$AT:/"
	cmp <("$SLICEFS" cat "$AT:/abs/../common/./size.h") "$SCRATCH/tree/common/size.h"
	cmp <("$SLICEFS" cat "$AT:/../..//far") "$SCRATCH/tree/common/size.h"
	cmp <("$SLICEFS" ls "$AT:/abs/") <("$SLICEFS" ls "$AT:/tree/engine")
	fails 1 '/loop: Too many levels' "$SLICEFS" cat "$AT:/loop"
	fails 1 '/far/: Not a directory' "$SLICEFS" cat "$AT:/far/"
	fails 1 '/far/x: Not a directory' "$SLICEFS" cat "$AT:/far/x"
	fails 1 'name too long' "$SLICEFS" cat "$AT:/$(printf '%0300d' 1)"
	"$SLICEFS" rm "$AT:/abs" "$AT:/loop" "$AT:/far"
	"$SLICEFS" ls "$AT:/tree/engine" | grep -q engine.h
}

@test "put overwrites as cp does, and not with -n" {
	echo old >"$SCRATCH/f"; chmod 640 "$SCRATCH/f"
	"$SLICEFS" put -p "$SCRATCH/f" "$AT:/f"
	object=$("$SLICEFS" ls --json "$AT:/f" | jq '.[0].object')
	echo newer >"$SCRATCH/g"
	"$SLICEFS" put -n "$SCRATCH/g" "$AT:/f"
	[ "$("$SLICEFS" cat "$AT:/f")" = old ]
	"$SLICEFS" put "$SCRATCH/g" "$AT:/f"
	[ "$("$SLICEFS" cat "$AT:/f")" = newer ]
	"$SLICEFS" ls --json "$AT:/f" | jq -e --argjson o "$object" '.[0] | .object == $o and .mode == "0640"'
	"$SLICEFS" get "$AT:/f" "$SCRATCH/f"
	[ "$(cat "$SCRATCH/f")" = newer ]
	[ "$(stat -c %a "$SCRATCH/f")" = 640 ]
	echo mine >"$SCRATCH/f"
	"$SLICEFS" get -n "$AT:/f" "$SCRATCH/f"
	[ "$(cat "$SCRATCH/f")" = mine ]
	(umask 077; "$SLICEFS" put "$SCRATCH/g" "$AT:/h")
	"$SLICEFS" ls --json "$AT:/h" | jq -e '.[0].mode == "0600"'
	"$SLICEFS" rm "$AT:/f" "$AT:/h"
}

@test "-p keeps modes and times, of folders as well" {
	mkdir -p "$SCRATCH/p/q"; echo x >"$SCRATCH/p/q/x"
	chmod 4751 "$SCRATCH/p/q/x"; chmod 500 "$SCRATCH/p/q"
	touch -d '2001-02-03 04:05:06.7' "$SCRATCH/p/q/x" "$SCRATCH/p/q" "$SCRATCH/p"
	"$SLICEFS" put -rp "$SCRATCH/p" "$AT:/"
	"$SLICEFS" get -rp "$AT:/p" "$SCRATCH/p.back"
	for f in p p/q p/q/x; do
		[ "$(stat -c '%a %y' "$SCRATCH/$f")" = "$(stat -c '%a %y' "$SCRATCH/p.back${f#p}")" ]
	done
	"$SLICEFS" rm -r "$AT:/p"
}

@test "names are made, moved and removed" {
	"$SLICEFS" mkdir -p "$AT:/a/b/c" "$AT:/a/b"
	fails 1 '/a: is there already' "$SLICEFS" mkdir "$AT:/a"
	fails 1 '/x/y: No such file' "$SLICEFS" mkdir "$AT:/x/y"
	echo 1 | "$SLICEFS" put - "$AT:/a/1"
	echo 2 | "$SLICEFS" put - "$AT:/a/2"
	"$SLICEFS" mv "$AT:/a/1" "$AT:/a/2" "$AT:/a/b/c"
	"$SLICEFS" mv -n "$AT:/a/b/c/1" "$AT:/a/b/c/2"
	[ "$("$SLICEFS" ls "$AT:/a/b/c")" = $'1\n2' ]
	"$SLICEFS" mv "$AT:/a/b/c/1" "$AT:/a/b/c/2"
	[ "$("$SLICEFS" cat "$AT:/a/b/c/2")" = 1 ]
	fails 1 '/a: cannot be moved into itself' "$SLICEFS" mv "$AT:/a" "$AT:/a/b"
	fails 1 '/a: is a directory. Try: slicefs rm -r' "$SLICEFS" rm "$AT:/a"
	fails 1 '/a/none: No such file' "$SLICEFS" rm "$AT:/a/none"
	"$SLICEFS" rm -f "$AT:/a/none"
	fails 1 'are not removed' "$SLICEFS" rm -r "$AT:/"
	fails 1 'are not removed' "$SLICEFS" rm -r "$AT:/a/.."
	"$SLICEFS" rm -r "$AT:/a"
	[ "$("$SLICEFS" ls "$AT:/")" = tree ]
}

@test "words that would become one file are refused before anything is done" {
	mkdir "$SCRATCH/dup"
	"$SLICEFS" mkdir "$AT:/w" "$AT:/w/a" "$AT:/w/b" "$AT:/w/dir"
	echo a | "$SLICEFS" put - "$AT:/w/a/x"; echo b | "$SLICEFS" put - "$AT:/w/b/x"
	fails 2 'both become "x"' "$SLICEFS" mv "$AT:/w/a/x" "$AT:/w/b/x" "$AT:/w/dir"
	fails 2 'both become "x"' "$SLICEFS" get "$AT:/w/a/x" "$AT:/w/b/x" "$SCRATCH/dup"
	fails 1 'no such folder, which several' "$SLICEFS" get -r "$AT:/w/a" "$AT:/w/b" "$SCRATCH/dup/new"
	[ -z "$("$SLICEFS" ls "$AT:/w/dir")" ]; [ -z "$(ls "$SCRATCH/dup")" ]
	echo - | fails 2 'standard input needs a name.*/dir/NAME' "$SLICEFS" put /proc/version - "$AT:/w/dir/"
	[ -z "$("$SLICEFS" ls "$AT:/w/dir")" ]
	fails 1 '/new/: no such folder' "$SLICEFS" mv "$AT:/w/a/x" "$AT:/w/new/"
	"$SLICEFS" mv "$AT:/w/dir" "$AT:/w/new/"
	"$SLICEFS" mv "$AT:/w/a/x" "$AT:/w/b" "$AT:/w/new/"
	[ "$("$SLICEFS" ls "$AT:/w/new")" = $'b\nx' ]
	fails 2 'where to' "$SLICEFS" get "$AT:/w/new/x" ""
	"$SLICEFS" rm -r "$AT:/w"
}

@test "get -r follows no link below TO" {
	local l=$SCRATCH/l got=$SCRATCH/got out=$SCRATCH/out
	mkdir -p "$l/d" "$got/l" "$out" "$SCRATCH/real"
	echo in >"$l/d/f"; echo top >"$l/f"; ln -s target "$l/link"
	"$SLICEFS" put -r "$l" "$AT:/"
	echo keep >"$out/f"; ln -s "$out" "$got/l/d"; ln -s "$out/f" "$got/l/f"; ln -s old "$got/l/link"
	"$SLICEFS" get -rn "$AT:/l/f" "$AT:/l/link" "$got/l"
	[ "$(readlink "$got/l/f" "$got/l/link")" = "$out/f"$'\nold' ]
	fails 1 '/l/d: a link is there' "$SLICEFS" get -r "$AT:/l" "$got"
	[ "$(cat "$out/f")" = keep ]
	[ ! -L "$got/l/f" ]; [ "$(cat "$got/l/f")" = top ]; [ "$(readlink "$got/l/link")" = target ]
	ln -s "$SCRATCH/real" "$SCRATCH/there"; ln -s "$SCRATCH/real/l/d/f" "$SCRATCH/file"
	"$SLICEFS" get -r "$AT:/l" "$SCRATCH/there"
	diff -r --no-dereference "$l" "$SCRATCH/real/l"
	"$SLICEFS" get -r "$AT:/l/f" "$SCRATCH/file" # TO itself may be one
	[ "$(cat "$SCRATCH/real/l/d/f")" = top ]
	"$SLICEFS" rm -r "$AT:/l"
}

@test "a time of no year that has a number is shown in seconds" {
	requires_root
	requires python3
	mount_node
	echo x >"$MNT/late"
	python3 -c 'import os, sys; os.utime(sys.argv[1], (1 << 61, 1 << 61))' "$MNT/late"
	"$SLICEFS" ls -l "$AT:/late" | grep " $((1 << 61)) $AT:/late"
	rm "$MNT/late"
}

@test "a mount of the node sees at once what was put, and the reverse" {
	requires_root
	mount_node
	echo put | "$SLICEFS" put - "$AT:/seen"
	[ "$(cat "$MNT/seen")" = put ]
	echo mounted >"$MNT/seen"
	[ "$("$SLICEFS" cat "$AT:/seen")" = mounted ]
	"$SLICEFS" mv "$AT:/seen" "$AT:/moved"
	[ -e "$MNT/moved" ]
	mkdir "$MNT/dir"
	"$SLICEFS" put "$SCRATCH/big" "$AT:/dir/"
	cmp "$SCRATCH/big" "$MNT/dir/big"
	"$SLICEFS" rm -r "$AT:/dir" "$AT:/moved"
	[ "$(ls "$MNT")" = tree ]
}

@test "a mount of the node has no store that it could give back" {
	requires_root
	mount_node
	fails 1 "its store is that of node $AT" "$SLICEFS" umount --discard "$MNT"
	is_mounted
}

@test "who reads a file goes on with its version while another takes its place" {
	requires_root
	mount_node
	"$SLICEFS" put "$SCRATCH/big" "$AT:/v"
	exec {fd}<"$MNT/v"
	head -c 1000000 <&"$fd" >"$SCRATCH/read"
	tac "$SCRATCH/tree/engine/pool.c" | "$SLICEFS" put - "$AT:/v"
	cat <&"$fd" >>"$SCRATCH/read"
	exec {fd}<&-
	cmp "$SCRATCH/read" "$SCRATCH/big"
	umount_node
	"$SLICEFS" cat "$AT:/v" | tac | cmp - "$SCRATCH/tree/engine/pool.c"
	"$SLICEFS" rm "$AT:/v"
}

@test "nobody sees a file that is still being put, and none that was not finished" {
	before=$(free_bytes)
	echo whole | "$SLICEFS" put - "$AT:/half"
	for sig in TERM INT KILL; do
		for to in half new; do
			mkfifo "$SCRATCH/fifo"
			env --default-signal=INT "$SLICEFS" put "$SCRATCH/fifo" "$AT:/$to" 3>&- &
			pid=$!
			exec {fd}>"$SCRATCH/fifo"
			head -c 12000000 /dev/zero >&"$fd"
			for _ in $(seq 200); do
				[[ $(free_bytes) -ge $((before - 8000000)) ]] || break
				sleep 0.05
			done
			[ "$(free_bytes)" -lt $((before - 8000000)) ]
			[ "$("$SLICEFS" cat "$AT:/half")" = whole ]
			[ "$("$SLICEFS" ls "$AT:/")" = $'half\ntree' ]
			kill -$sig "$pid"
			wait "$pid" && false
			exec {fd}>&-
			rm "$SCRATCH/fifo"
			all_is_free "$before"
			[ "$("$SLICEFS" cat "$AT:/half")" = whole ]
			[ "$("$SLICEFS" ls "$AT:/")" = $'half\ntree' ]
		done
	done
	"$SLICEFS" rm "$AT:/half"
}

@test "a get that is interrupted leaves nothing" {
	mkdir "$SCRATCH/to"
	"$SLICEFS" put "$SCRATCH/big" "$AT:/"
	freeze "$(node pid)"
	"$SLICEFS" get --timeout 30s "$AT:/big" "$SCRATCH/to/" 3>&- &
	pid=$!
	sleep 0.5
	kill -TERM "$pid"
	wait "$pid" && false
	kill -CONT "$(node pid)"
	[ -z "$(ls -A "$SCRATCH/to")" ]
}

@test "a pool that is full refuses a file, and nothing of it stays" {
	before=$(free_bytes)
	head -c 70M /dev/urandom >"$SCRATCH/huge"
	fails 1 "/huge: no space on node $AT .pool: .* of 64 MiB free, .*Try: slicefs rm" "$SLICEFS" put "$SCRATCH/huge" "$AT:/huge"
	all_is_free "$before"
	fails 1 "/big: no space" "$SLICEFS" put "$SCRATCH/huge" "$AT:/big"
	"$SLICEFS" cat "$AT:/big" | cmp - "$SCRATCH/big"
	all_is_free "$before"
	"$SLICEFS" rm "$AT:/big"
	rm "$SCRATCH/huge"
}

@test "what went wrong is said in a line, and the rest is done" {
	echo x >"$SCRATCH/x"
	fails 1 '/tree/none: No such file' "$SLICEFS" get "$AT:/tree/none" "$SCRATCH/x.back"
	fails 1 '/tree: is a directory. Try: slicefs get -r' "$SLICEFS" get "$AT:/tree" "$SCRATCH/x.back"
	fails 1 '/tree: Is a directory' "$SLICEFS" cat "$AT:/tree"
	fails 1 "$SCRATCH/tree: is a directory. Try: slicefs put -r" "$SLICEFS" put "$SCRATCH/tree" "$AT:/z"
	fails 1 "$SCRATCH/none: No such file" "$SLICEFS" put "$SCRATCH/none" "$SCRATCH/x" "$AT:/"
	[ "$("$SLICEFS" cat "$AT:/x")" = x ]
	fails 1 '/x/: Not a directory' "$SLICEFS" put "$SCRATCH/x" "$AT:/x/"
	fails 1 'no such folder' "$SLICEFS" put "$SCRATCH/x" "$SCRATCH/g" "$AT:/many"
	fails 1 'no such folder' "$SLICEFS" get "$AT:/x" "$AT:/x" "$SCRATCH/many"
	[ ! -e "$SCRATCH/x.back" ]
	"$SLICEFS" rm "$AT:/x"
}

@test "words that are no path on a node are refused, with the way to write it" {
	fails 2 'which file, and where to' "$SLICEFS" put
	fails 2 'where to' "$SLICEFS" put "$SCRATCH/x"
	fails 2 'is no path on a node. Try: HOST:/path' "$SLICEFS" put "$SCRATCH/x" "$SCRATCH/y"
	fails 2 'is no path on a node. Try: HOST:/path' "$SLICEFS" ls localhost:path
	fails 2 'is no path on a node. Try: HOST:/path' "$SLICEFS" ls ./a:/b
	fails 2 'which part is the port' "$SLICEFS" ls ::1:/x
	fails 2 'is a URL' "$SLICEFS" ls http://host/x
	fails 2 'is no node' "$SLICEFS" ls host:port:/x
	fails 2 'is on another node' "$SLICEFS" ls host:/x host:1:/x
	fails 2 'is on a node, and what is put is here' "$SLICEFS" put "$AT:/x" "$AT:/y"
	fails 2 'is on a node, and what is got comes here' "$SLICEFS" get "$AT:/x" "$AT:/y"
	fails 2 'both become "x"' "$SLICEFS" put "$SCRATCH/x" "$SCRATCH/to/../x" "$AT:/"
	fails 2 'a number from 1 to 64' "$SLICEFS" put -j 0 "$SCRATCH/x" "$AT:/"
	fails 2 'needs a value' "$SLICEFS" ls --timeout
	fails 2 'timeout: "10" is not a value' "$SLICEFS" ls --timeout 10 "$AT:/"
	fails 2 'unknown option "-x"' "$SLICEFS" rm -x "$AT:/"
	fails 2 'unknown option' "$SLICEFS" mkdir -f "$AT:/"
	fails 1 'no such host' "$SLICEFS" ls nonsense.invalid:/
}

@test "a node that is not there, or has another token, is said to be" {
	fails 1 '127.0.0.1:1: Connection refused. Is a node running there' "$SLICEFS" ls 127.0.0.1:1:/
	(umask 077; echo secret >"$SCRATCH/token")
	fails 1 "$AT: the node has another token. Try: --token-file" "$SLICEFS" ls --token-file "$SCRATCH/token" "$AT:/"
	fails 1 'token file .*none: No such file' "$SLICEFS" ls --token-file "$SCRATCH/none" "$AT:/"
}

@test "a node that does not answer is given up after --timeout" {
	pid=$(node pid)
	freeze "$pid"
	SECONDS=0
	fails 1 "$AT: " "$SLICEFS" ls --timeout 1s "$AT:/"
	[ "$SECONDS" -lt 10 ]
	kill -CONT "$pid"
	mkfifo "$SCRATCH/slow"
	"$SLICEFS" put --timeout 1s "$SCRATCH/slow" "$AT:/slow" 2>"$SCRATCH/said" 3>&- &
	put=$!
	exec {fd}>"$SCRATCH/slow"
	head -c 9000000 /dev/zero >&"$fd"
	sleep 0.3
	freeze "$pid"
	SECONDS=0
	head -c 9000000 /dev/zero >&"$fd" || true
	exec {fd}>&-
	wait "$put" && false
	kill -CONT "$pid"
	[ "$SECONDS" -lt 15 ]
	[ "$(wc -l <"$SCRATCH/said")" = 1 ]
	grep -Eq "(/slow: )?node $AT has not answered in time" "$SCRATCH/said"
}

@test "a node that is killed ends it, and the next one has what was published" {
	mkfifo "$SCRATCH/killed"
	"$SLICEFS" put --timeout 2s "$SCRATCH/killed" "$AT:/killed" 2>"$SCRATCH/said" 3>&- &
	put=$!
	exec {fd}>"$SCRATCH/killed"
	head -c 9000000 /dev/zero >&"$fd"
	kill_daemon
	SECONDS=0
	exec {fd}>&-
	wait "$put" && false
	[ "$SECONDS" -lt 15 ]
	[ "$(wc -l <"$SCRATCH/said")" = 1 ]
	fsck_clean
	serve --evict-high 0 --listen "$AT"
	[ "$("$SLICEFS" ls "$AT:/")" = tree ]
	"$SLICEFS" get -r "$AT:/tree" "$SCRATCH/tree.after"
	diff -r --no-dereference "$SCRATCH/tree" "$SCRATCH/tree.after"
}

@test "when all is idle, the node has nothing in flight (P10)" {
	"$SLICEFS" rm -r "$AT:/tree"
	all_is_free $((64 << 20))
	end_node
	no grep -q 'in flight when all sessions have ended' "$SCRATCH/log"
	gauges_zero
	fsck_clean "$MNT"
}
