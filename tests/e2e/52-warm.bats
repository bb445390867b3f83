#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: tsan
# shapes: own node
# `slicefs warm`: a tree comes to be in a mount, or at a node without one; what is there and
# equal is skipped, so it may be ended and begun again. Of a node all tests but the mount's
# go to HOST:/path, and the mount looks on.
load lib
setup_file() { begin_file; export POOL=256M; make_source; }
teardown_file() { end_file; }
setup() { is_mounted || mount_fs; }

to() { # folder: where it is for warm
	if is_of_node; then echo "$(node at):/$1"; else echo "$MNT/$1"; fi
}
# What it said last, and one of its numbers.
warm() { "$SLICEFS" warm "$@" >"$SCRATCH/out" 2>"$SCRATCH/err" 3>&-; }
said() { tail -n1 "$SCRATCH/out" | jq -r "select(.event == \"done\") | .$1"; }
counts() { # files skipped failed
	[[ "$(said files) $(said skipped) $(said failed)" == "$*" ]] || { cat "$SCRATCH/out" "$SCRATCH/err"; return 1; }
}
# Nothing under another name than its own.
no_temps() { [ -z "$(find "$MNT" -name '.*.[0-9]*-[0-9]*')" ]; }
list_tree() { # dir: times and all
	(cd "$1" && find . -mindepth 1 \( -type d -printf '%P d %m %T@\n' -o -printf '%P %y %m %s %T@ %l\n' \) | sort)
}
same_tree() { # dir
	diff -r --no-dereference "$SRC" "$MNT/$1"
	diff <(list_tree "$SRC") <(list_tree "$MNT/$1")
}

make_source() {
	export SRC=$SCRATCH/src
	mkdir -p "$SRC/a/b" "$SRC/empty" "$SRC/closed"
	local i
	for i in $(seq 40); do echo "file $i" >"$SRC/a/f$i"; done
	head -c 3000001 /dev/urandom >"$SRC/a/b/big"
	: >"$SRC/none"
	echo odd >"$SRC/with space"; echo odd >"$SRC/new"$'\n'"line"; echo odd >"$SRC/\"quote\\"
	ln -s a/f1 "$SRC/soft"; ln -s nowhere "$SRC/dangling"
	ln "$SRC/a/f2" "$SRC/hard"
	truncate -s 20M "$SRC/sparse"; echo end >>"$SRC/sparse"
	echo x >"$SRC/closed/x"
	chmod 4711 "$SRC/a/f3"; chmod 600 "$SRC/a/f4"; chmod 500 "$SRC/closed"; chmod 2775 "$SRC/empty"
	chown 7:8 "$SRC/a/f5" "$SRC/a/b"
	touch -d '2001-02-03 04:05:06.7' "$SRC/a/f6" "$SRC/a" "$SRC/empty"
	touch -h -d '2001-02-03 04:05:06.7' "$SRC/soft" "$SRC/dangling"
	setfattr -n user.note -v hello "$SRC/a/f7" || touch "$SCRATCH/no-xattrs"
}

@test "a tree comes to be there: names, bytes, modes, owners, times, links, holes" {
	warm "$SRC" "$(to t)"
	counts 50 0 0
	same_tree t
	[ "$(stat -c %i "$MNT/t/hard")" = "$(stat -c %i "$MNT/t/a/f2")" ]
	[ "$(stat -c '%u %g' "$MNT/t/a/f5" "$MNT/t/a/b")" = $'7 8\n7 8' ]
	[ "$(stat -c %b "$MNT/t/sparse")" -lt 1000 ]
	[ -e "$SCRATCH/no-xattrs" ] || [ "$(getfattr --only-values -n user.note "$MNT/t/a/f7")" = hello ]
	no_temps
}

@test "again, nothing is copied but what has changed" {
	warm "$SRC" "$(to t)"; counts 0 50 0
	echo longer than it was >"$SRC/a/f8"
	touch "$SRC/a/f9"
	chmod 640 "$SRC/a/f10"
	rm "$MNT/t/a/f11" "$MNT/t/soft"; ln -s elsewhere "$MNT/t/soft"
	warm "$SRC" "$(to t)"; counts 4 46 0
	same_tree t
	no_temps
	warm -j 1 "$SRC" "$(to t)"; counts 0 50 0
	rm "$MNT/t/hard"
	warm "$SRC" "$(to t)"; same_tree t # which of the two is the other's depends on the order
	[ "$(stat -c %i "$MNT/t/hard")" = "$(stat -c %i "$MNT/t/a/f2")" ]
}

@test "with --checksum equal is what has the same bytes" {
	echo FILE 12 >"$SRC/a/f12.new"; touch -r "$SRC/a/f12" "$SRC/a/f12.new"; mv "$SRC/a/f12.new" "$SRC/a/f12"
	touch "$SRC/a/f13" "$SRC/a/b/big"
	warm "$SRC" "$(to t)" --checksum; counts 1 49 0
	same_tree t
	warm "$SRC" "$(to t)"; counts 0 50 0
}

@test "-n copies nothing and says what it would" {
	warm -n "$SRC" "$(to dry)"
	[ ! -e "$MNT/dry" ]
	tail -n1 "$SCRATCH/out" | jq -e '.event == "would be done" and .files == 50 and .skipped == 0'
	grep -c '"copy"' "$SCRATCH/out" | grep -qx 50
	jq -e -s 'map(select(.event == "copy").path) | any(endswith("/new\nline")) and any(endswith("/with space")) and any(endswith("/\"quote\\"))' "$SCRATCH/out"
	echo changed >"$SRC/a/f14"
	warm -n "$SRC" "$(to t)"
	tail -n1 "$SCRATCH/out" | jq -e '.files == 1 and .skipped == 49'
	jq -e -s 'any(.event == "copy" and (.path | endswith("/a/f14")))' "$SCRATCH/out"
	no cmp "$SRC/a/f14" "$MNT/t/a/f14"
}

@test "what cannot be read is said and counted, and the rest is copied" {
	mkdir -p "$SCRATCH/bad/d"; echo 1 >"$SCRATCH/bad/d/1"; echo 3 >"$SCRATCH/bad/d/3"; mkfifo "$SCRATCH/bad/d/pipe"
	mkdir "$SCRATCH/bad/locked"; echo 2 >"$SCRATCH/bad/d/"$'no\nread'
	chmod 000 "$SCRATCH/bad/d/"$'no\nread' "$SCRATCH/bad/locked"
	chmod 755 "$SCRATCH" "$SCRATCH/bad"; mkdir -p "$MNT/nobody"; chmod 777 "$MNT/nobody"
	local status=0
	setpriv --reuid 65534 --regid 65534 --clear-groups "$SLICEFS" warm "$SCRATCH/bad" "$(to nobody)" >"$SCRATCH/out" 2>"$SCRATCH/err" || status=$?
	[ "$status" = 1 ]
	counts 2 0 3
	[ "$(cat "$MNT/nobody/d/1" "$MNT/nobody/d/3")" = $'1\n3' ]
	jq -e -s 'map(select(.event == "failed").path) | any(endswith("/d/no\nread")) and any(endswith("/locked")) and any(endswith("/pipe"))' "$SCRATCH/out"
	[ "$(wc -l <"$SCRATCH/err")" = 3 ]
}

@test "names that are excluded, and lists of names" {
	warm --exclude 'f*' --exclude a/b --exclude sparse "$SRC" "$(to some)"
	[ "$(ls "$MNT/some/a")" = "" ]; [ -e "$MNT/some/with space" ]; [ ! -e "$MNT/some/sparse" ]
	printf '%s\n' a/f1 ./a//b/big empty closed/x none none/x >"$SCRATCH/list"
	no warm -T - "$SRC" "$(to listed)" <"$SCRATCH/list"
	counts 4 0 1; grep -q 'src/none: Not a directory' "$SCRATCH/err"
	[ "$(cd "$MNT/listed" && find . -type f | sort)" = $'./a/b/big\n./a/f1\n./closed/x\n./none' ]
	[ -d "$MNT/listed/empty" ]
	printf '%s\0' $'new\nline' "with space" | warm -0 -T - "$SRC" "$(to zero)"
	counts 2 0 0
	cmp "$SRC/new"$'\n'"line" "$MNT/zero/new"$'\n'"line"
	echo ../etc/passwd >"$SCRATCH/list"
	fails 2 'passwd" is not below' "$SLICEFS" warm -T "$SCRATCH/list" "$SRC" "$(to zero)"
	warm "$SRC/a/f1" "$(to zero)"; counts 1 0 0; cmp "$SRC/a/f1" "$MNT/zero/f1"
}

@test "what is named twice is copied once; a link that is named is followed" {
	printf '%s\n' a/f1 ./a/f1 a a//f1 a >"$SCRATCH/list"
	warm -j 8 -T "$SCRATCH/list" "$SRC" "$(to twice)"; counts 1 0 0
	warm "$SRC/soft" "$(to twice)"; counts 1 0 0
	[ -f "$MNT/twice/soft" ]; [ ! -L "$MNT/twice/soft" ]; cmp "$SRC/a/f1" "$MNT/twice/soft"
	warm "$SRC/soft" "$(to twice)"; counts 0 1 0
	no_temps
}

@test "other names of what is replaced keep it" {
	local src=$SCRATCH/names
	mkdir "$src"; echo one >"$src/x"; ln "$src/x" "$src/y"; ln -s x "$src/link"
	warm "$src" "$(to names)"
	ln "$MNT/names/x" "$MNT/names/kept"
	cp "$src/y" "$src/new"; echo two >>"$src/new"; mv "$src/new" "$src/y"
	rm "$src/link"; echo no link >"$src/link"
	warm "$src" "$(to names)"; counts 2 1 0
	cmp "$src/x" "$MNT/names/x"; cmp "$src/y" "$MNT/names/y"; cmp "$src/link" "$MNT/names/link"
	echo three >"$src/x"; echo four >"$src/y"
	warm "$src" "$(to names)"; counts 2 1 0
	[ "$(cat "$MNT"/names/{x,y,kept,link})" = $'three\nfour\none\nno link' ]
	[ "$(stat -c %h "$MNT/names/x" "$MNT/names/kept")" = $'1\n1' ]
	ln -f "$src/x" "$src/y"; rm "$src/link"; ln -s y "$src/link"
	warm "$src" "$(to names)"
	diff -r --no-dereference -x kept "$src" "$MNT/names"
	[ "$(stat -c %i "$MNT/names/x")" = "$(stat -c %i "$MNT/names/y")" ]
	no_temps
}

@test "attributes and ACLs of folders are kept, too; what has too many is left out" {
	[ ! -e "$SCRATCH/no-xattrs" ] || skip "the source has no extended attributes"
	local i src=$SCRATCH/attrs
	mkdir -p "$src/d"; echo x >"$src/d/x"; echo x >"$src/many"; touch -d 2001-01-01 "$src/d"
	setfattr -n user.note -v hello "$src/d"
	for i in $(seq 70); do setfattr -n user.a$i -v 1 "$src/many"; done
	! setfacl -d -m u:7:rwx,g::r-x "$src/d" 2>/dev/null || local acl=yes
	no warm "$src" "$(to attrs)"; counts 1 0 1
	grep -q 'many: .*more extended attributes than a file may have' "$SCRATCH/err"
	[ "$(getfattr --only-values -n user.note "$MNT/attrs/d")" = hello ]
	[ "$(stat -c %Y "$MNT/attrs/d")" = "$(stat -c %Y "$src/d")" ]
	[ ! -e "$MNT/attrs/many" ]
	[ -z "${acl:-}" ] || diff <(cd "$src" && getfacl -n d) <(cd "$MNT/attrs" && getfacl -n d)
	# Modes are those of the source, whatever a folder's default ACL says.
	mkdir "$MNT/acl"; setfacl -d -m u::rw,g::-,o::- "$MNT/acl"
	chmod 644 "$src/d/x"
	warm "$src/d" "$(to acl)"
	[ "$(stat -c %a "$MNT/acl/x")" = 644 ]
	no_temps
}

@test "ended in the middle there is no half file, and the next one goes on" {
	local sig i status ended=0
	mkdir -p "$SCRATCH/many"
	for i in $(seq 300); do head -c 100000 </dev/zero | tr '\0' "$((i % 10))" >"$SCRATCH/many/$i"; done
	for sig in TERM HUP KILL; do
		rm -rf "$MNT/many"
		"$SLICEFS" warm -q "$SCRATCH/many" "$(to many)" 2>/dev/null 3>&- & local pid=$!
		# Not the shell that it was made by.
		tries 500 0.01 eval '[ ! -e /proc/'$pid' ] || grep -qx slicefs /proc/'$pid'/comm'
		tries 500 0.01 eval '[ ! -e /proc/'$pid' ] || [ -n "$(ls "$MNT/many")" ]'
		kill -$sig $pid 2>/dev/null || true
		status=0
		wait $pid || status=$?
		[ $status = 0 ] || ended=$((ended + 1))
		for i in $(seq 300); do
			[ ! -e "$MNT/many/$i" ] || cmp "$SCRATCH/many/$i" "$MNT/many/$i"
		done
		[ $sig = KILL ] || no_temps
	done
	[ $ended -ge 1 ]
	warm "$SCRATCH/many" "$(to many)"
	[ "$(($(said files) + $(said skipped)))" = 300 ]; [ "$(said failed)" = 0 ]
	find "$MNT/many" -name '.*.[0-9]*-[0-9]*' -delete
	diff -r "$SCRATCH/many" "$MNT/many"
}

@test "two at once into one folder" {
	"$SLICEFS" warm -q "$SCRATCH/many" "$(to both)" 3>&- & local one=$!
	"$SLICEFS" warm -q "$SCRATCH/many" "$(to both)" 3>&- & local two=$!
	wait $one; wait $two
	diff -r "$SCRATCH/many" "$MNT/both"
	no_temps
	rm -r "$MNT/many" "$MNT/both"
}

@test "a source that changes is not copied as a mix of two" {
	head -c 50000000 /dev/zero >"$SCRATCH/moving"
	timeout 60 python3 - "$SCRATCH/moving" 3>&- <<-'END' & local pid=$!
		import os, sys
		fd = os.open(sys.argv[1], os.O_WRONLY)
		while True:
		    os.pwrite(fd, b"x", 0)
	END
	soon eval '[ "$(head -c 1 "$SCRATCH/moving")" = x ]'
	no warm "$SCRATCH/moving" "$(to moving)"
	grep -q 'it was changed while it was read' "$SCRATCH/err"
	kill $pid; wait $pid || true
	[ ! -e "$MNT/moving/moving" ]
	warm "$SCRATCH/moving" "$(to moving)"; counts 1 0 0
	rm -r "$MNT/moving"; no_temps
}

# What they look like: tests/unit/test_progress.c.
@test "on a terminal there is a bar, and a sentence at the end" {
	requires python3
	mkdir "$SCRATCH/shown"
	head -c 30000000 /dev/urandom >"$SCRATCH/shown/large"; truncate -s 1G "$SCRATCH/shown/hole"
	python3 - "$SLICEFS" "$SCRATCH/shown" "$(to bar)" >"$SCRATCH/tty" <<-'E'
		import os, pty, sys
		sys.exit(os.waitstatus_to_exitcode(pty.spawn(["sh", "-c", '"$0" warm "$1" "$2"', *sys.argv[1:]])))
	E
	grep -aq $'\r\033\[K' "$SCRATCH/tty" # the bar went
	grep -aq '2 files (1.0 GiB) copied, 0 (0 B) skipped, 0 failed' "$SCRATCH/tty"
	"$SLICEFS" warm -q "$SCRATCH/shown" "$(to bar)" >"$SCRATCH/out" 2>&1; [ ! -s "$SCRATCH/out" ]
	rm -r "$MNT/bar"
}

@test "who reads nothing any more is told of, and all is copied" {
	local status=0
	mkdir "$SCRATCH/go"; : >"$SCRATCH/go/1"; : >"$SCRATCH/go/2"
	"$SLICEFS" warm "$SCRATCH/go" "$(to go)" 2>"$SCRATCH/err" >/dev/full 3>&- || status=$?
	[ $status = 1 ]; grep -q 'No space left' "$SCRATCH/err"
	[ "$(ls "$MNT/go")" = $'1\n2' ]
	"$SLICEFS" warm --json "$SCRATCH/shown" "$(to bar)" 2>"$SCRATCH/err" 3>&- | true
	[ "${PIPESTATUS[0]}" != 0 ]; grep -q 'Broken pipe. It goes on' "$SCRATCH/err"
	[ "$(stat -c %s "$MNT/bar/large")" = 30000000 ]
	rm -r "$MNT/bar" "$SCRATCH/shown"
}

@test "a link that stands in DIR is not followed" {
	local src=$SCRATCH/in out=$SCRATCH/outside
	! is_of_node || out=$MNT/outside
	mkdir -p "$src/d" "$out" "$MNT/in"; chmod 700 "$src/d"; echo in >"$src/d/f"; echo top >"$src/f"
	chmod 755 "$out"; echo keep >"$out/f"
	ln -s "$(realpath --relative-to "$MNT/in" "$out")" "$MNT/in/d"
	no warm -n "$src" "$(to in)"; grep -q 'in/d: Not a directory' "$SCRATCH/err"
	no warm "$src" "$(to in)"; counts 1 0 1; grep -q 'in/d: Not a directory' "$SCRATCH/err"
	[ "$(cat "$out/f")" = keep ]; [ "$(stat -c %a "$out")" = 755 ]
	rm "$MNT/in/d"; ln -s in "$MNT/to-in"
	warm "$src" "$(to to-in)"; counts 1 1 0 # DIR itself may be one
	diff -r "$src" "$MNT/in"
}

@test "what cannot be is said in a line" {
	fails 2 'what, and where to' "$SLICEFS" warm
	fails 2 'where to' "$SLICEFS" warm "$SRC"
	fails 2 'one folder goes to one folder' "$SLICEFS" warm a b c
	fails 2 'is in no slicefs mount' "$SLICEFS" warm "$SRC" "$SCRATCH"
	fails 1 'src/nothing: No such file' "$SLICEFS" warm "$SRC/nothing" "$(to t)"
	fails 1 'no such folder|No such file' "$SLICEFS" warm "$SRC" "$(to no/such)"
	fails 1 'Not a directory' "$SLICEFS" warm "$SRC" "$(to t/none)"
	fails 2 'number from 1 to 64' "$SLICEFS" warm -j 0 "$SRC" "$(to t)"
	fails 2 'unknown option' "$SLICEFS" warm --bogus "$SRC" "$(to t)"
}

@test "a folder is not copied into itself" {
	is_of_node && skip "paths of two kinds"
	mkdir "$MNT/self"; echo 1 >"$MNT/self/1"
	warm "$MNT/self" "$MNT/self/copy"
	[ "$(cd "$MNT/self" && find . -type f | sort)" = $'./1\n./copy/1' ]
}

@test "a pool that is smaller: without eviction it stops with a line, with it goes on" {
	local dir=$SCRATCH/more i
	mkdir "$dir"
	for i in $(seq 120); do yes "$i" | head -c 500000 >"$dir/$i"; done
	if is_of_node; then
		"$SLICEFS" umount "$MNT"; end_node; "$SLICEFS" store rm "$STORE"
		POOL=16M serve --evict-high 0; mount_fs
	else
		POOL=16M mount_fresh --evict-high 0
	fi
	no warm "$dir" "$(to more)"
	grep -qi 'no space' "$SCRATCH/err"
	[ "$(wc -l <"$SCRATCH/err")" -le 5 ]
	tail -n1 "$SCRATCH/out" | jq -e '.event == "stopped" and .failed > 0'
	"$SLICEFS" umount "$MNT"; ! is_of_node || end_node
	"$SLICEFS" store rm "$STORE"
	if is_of_node; then POOL=16M serve; mount_fs; else POOL=16M mount_fs; fi
	warm "$dir" "$(to more)"; counts 120 0 0
	[ "$(ls "$MNT/more" | wc -l)" -lt 40 ]
	for i in "$MNT/more"/*; do cmp "$i" "$dir/${i##*/}"; done
	no_temps
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; }
