#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: tsan
# shapes: own node
# What users say of how long something stays: pinned, for a time, before others or after them;
# what is left over, and directories that eviction emptied.
load lib
setup_file() { begin_file; export POOL=16M INDEX=8M; }
teardown_file() { end_file; }

# In seconds: something of each test is done within three of them.
U=$(((SLOW + 2) / 3))
EVICTS=(--evict-high 95 --evict-low 90 --temp-ttl $((3 * U))s --evict-dirs $((3 * U))s)

filled=0

setup() {
	is_mounted || start
	rm -rf "${MNT:?}"/*
	setfattr -x user.slicefs.ttl "$MNT" 2>/dev/null || true
}

start() {
	if is_of_node; then
		[[ $(node state) == serving ]] || serve "${EVICTS[@]}"
		mount_fs "$@"
	else
		mount_fs "${EVICTS[@]}" "$@"
	fi
}

put() { yes "file $1" | head -c 500000 | into "$MNT/$1"; } # name
is_whole() { yes "file $1" | head -c 500000 | cmp - "$MNT/$1"; } # name
says() { getfattr --only-values -n "user.slicefs.$1" "$2"; } # what path
asked() { slicefs status --json "$1" | jq ".[0].node.evicted.asked"; } # node
evicted() { store_value "evictions_total{reason=\"$1\"}"; } # reason
# Everything anew, where nothing goes for want of room.
remount_off() {
	EVICTS=(--evict-high 0 --evict-dirs $((3 * U))s)
	if is_of_node; then
		"$SLICEFS" umount "$MNT"; end_node; start
	else
		mount_fresh "${EVICTS[@]}"
	fi
}
# What was read, or written twice, is in use, and would stay before these.
fill() {
	filled=$((filled + 1))
	head -c 30000000 /dev/zero | split -b 500000 - "$MNT/fill$filled-"
}

@test "what is pinned stays, and may go when it is not any more" {
	mkdir "$MNT/d"
	put a; put b; put d/c
	slicefs pin "$MNT/a" "$MNT/d"
	[ "$(says pin "$MNT/a")" = forever ]; [ "$(says pin "$MNT/d")" = forever ]
	put d/new # inherits it
	[ "$(says pin "$MNT/d/new")" = forever ]
	fill
	[ -e "$MNT/a" ]; [ -e "$MNT/d/c" ]; is_whole d/new
	[ ! -e "$MNT/b" ]
	slicefs unpin "$MNT/a" "$MNT/d"
	no getfattr -n user.slicefs.pin "$MNT/d/new"
	fill
	[ ! -e "$MNT/a" ]; [ ! -e "$MNT/d/c" ]
}

@test "pinned until then" {
	local for
	SECONDS=0; fill; for=$((2 * SECONDS + 6))
	put a
	slicefs pin --for ${for}s "$MNT/a"
	fill
	[ -e "$MNT/a" ]
	sleep $for
	soon eval 'fill; [ ! -e "$MNT/a" ]'
}

@test "if all that is left is pinned a write fails, at once; df knows" {
	local i
	slicefs pin -d "$MNT"
	SECONDS=0
	for i in $(seq 60); do put "p$i" 2>/dev/null || break; done
	[ "$i" -lt 40 ]; [ "$SECONDS" -le $((8 * SLOW)) ]
	rm -f "$MNT/p$i"
	soon eval '[ "$(df --output=avail -B1 "$MNT" | tail -n1)" -lt 3000000 ]'
	is_whole p1
	slicefs unpin "$MNT"
	soon eval '[ "$(df --output=avail -B1 "$MNT" | tail -n1)" -gt 9000000 ]'
	fill
	# p1 was read; one that has just been told so may be open still when its turn comes
	[ "$(find "$MNT" -name 'p*' | wc -l)" -le 4 ]
}

@test "what has lived goes: after publishing, after use, and by its directory" {
	mkdir "$MNT/d"
	put a; put b; put c
	slicefs ttl $((2 * U))s "$MNT/a" "$MNT/d"
	slicefs ttl --after-use $((4 * U))s "$MNT/b"
	[ "$(says ttl "$MNT/b")" = "$((4 * U))s after use" ]
	put d/inherits
	[ "$(says ttl "$MNT/d/inherits")" = $((2 * U))s ]
	[ "$(date -d "$(says expires "$MNT/a")" +%s)" -le $(($(date +%s) + 2 * U + 1)) ]
	soon eval '[ ! -e "$MNT/a" ] && [ ! -e "$MNT/d/inherits" ]'
	is_whole b; sleep $((3 * U)); is_whole b; sleep $((3 * U)); is_whole b
	soon eval '[ ! -e "$MNT/b" ]'
	is_whole c
	# Writing it anew begins anew.
	put a; slicefs ttl $((3 * U))s "$MNT/a"; sleep $((2 * U)); echo more >>"$MNT/a"; sleep $((2 * U))
	[ -e "$MNT/a" ]
	slicefs ttl none "$MNT/a"
	sleep $((2 * U))
	[ -e "$MNT/a" ]
}

@test "settings of a mount are those of what is made by way of it" {
	slicefs umount "$MNT"
	start --ttl 1h --ttl-from use --priority low
	put a; mkdir "$MNT/d"
	slicefs ttl 2h "$MNT/d"
	put d/b
	[ "$(says ttl "$MNT/a")" = "1h after use" ]; [ "$(says priority "$MNT/a")" = low ]
	[ "$(says ttl "$MNT/d/b")" = 2h ]; [ "$(says priority "$MNT/d/b")" = low ]
	slicefs umount "$MNT"
	start --pin
	put p
	[ "$(says pin "$MNT/p")" = forever ]
	slicefs umount "$MNT"
	start
	put q
	no getfattr -n user.slicefs.pin "$MNT/q"
	slicefs unpin "$MNT"
}

@test "temporary files that are left over go; those that are open, renamed, or used stay" {
	put left.tmp; put open.tmp; put renamed.tmp; put used.tmp
	[[ -n $(says expires "$MNT/left.tmp") ]]
	exec 5<"$MNT/open.tmp"
	mv "$MNT/renamed.tmp" "$MNT/renamed"
	local i
	for i in 1 2 3 4 5; do sleep $U; touch -a "$MNT/used.tmp"; done
	soon eval '[ ! -e "$MNT/left.tmp" ]'
	yes "file renamed.tmp" | head -c 500000 | cmp - "$MNT/renamed"
	[ -e "$MNT/used.tmp" ]
	[ -e "$MNT/open.tmp" ]
	(($(evicted temp) >= 1))
	yes "file open.tmp" | head -c 500000 | cmp - <(cat <&5)
	exec 5<&-
	soon eval '[ ! -e "$MNT/used.tmp" ]'
}

@test "what is left over stays where that is switched off" {
	"$SLICEFS" umount "$MNT"
	! is_of_node || end_node
	EVICTS=(--temp-ttl 0 --evict-dirs 0)
	start
	put left.tmp; mkdir "$MNT/d"; put d/a
	no getfattr -n user.slicefs.expires "$MNT/left.tmp"
	slicefs evict "$MNT/d"
	sleep $((6 * U))
	[ -e "$MNT/left.tmp" ]; [ -d "$MNT/d" ]; [ ! -e "$MNT/d/a" ]
	"$SLICEFS" umount "$MNT"
	! is_of_node || end_node
}

@test "slicefs evict lets go at once, but what is pinned, or written" {
	mkdir "$MNT/d"
	put a; put b; put c; put d/x; put d/y; ln "$MNT/d/x" "$MNT/link"; ln -s a "$MNT/symlink"
	slicefs pin "$MNT/b"
	exec 5<"$MNT/a"
	slicefs evict "$MNT/a" "$MNT/d"
	# Of a node's store as if another mount had done it.
	soon eval '[ ! -e "$MNT/a" ] && [ ! -e "$MNT/d/x" ] && [ ! -e "$MNT/d/y" ] &&
		[ ! -e "$MNT/link" ]'
	yes "file a" | head -c 500000 | cmp - <(cat <&5) # P4
	exec 5<&-
	fails 1 "pinned" slicefs evict "$MNT/b"
	exec 5>>"$MNT/c"
	fails 1 "being written" slicefs evict "$MNT/c"
	exec 5>&-
	slicefs unpin "$MNT/b"
	slicefs evict "$MNT/b" "$MNT/c"
	# A directory that was emptied goes after a while.
	soon eval '[[ "$(ls -A "$MNT" | tr "\n" " ")" =~ ^(d )?symlink\ $ ]]'
}

@test "nobody is told that what has just gone stays" {
	requires python3
	local how
	for how in O_PATH O_RDONLY; do
		put a
		# By what it was looked up as, or opened: a name may be known for a moment.
		python3 -c 'import os, subprocess, sys
fd = os.open(sys.argv[1], getattr(os, sys.argv[2]))
subprocess.run(["slicefs", "evict", sys.argv[1]], check=True)
for what, value in ("pin", b"forever"), ("ttl", b"1h"), ("priority", b"high"):
    try:
        os.setxattr("/proc/self/fd/%d" % fd, "user.slicefs." + what, value)
        sys.exit(what + " was set")
    except OSError as e:
        print(e)' "$MNT/a" "$how"
	done
	soon eval '[ ! -e "$MNT/a" ]'
}

@test "directories that eviction emptied go, but not who has been there" {
	mkdir -p "$MNT/a/b" "$MNT/cwd" "$MNT/open" "$MNT/by-hand" "$MNT/xattr" "$MNT/never" "$MNT/told"
	local d
	slicefs ttl 1h "$MNT/told"
	mkdir "$MNT/told/inherits"
	for d in a/b cwd open by-hand xattr told/inherits; do put "$d/f"; done
	rm "$MNT/by-hand/f"
	setfattr -n user.x -v y "$MNT/xattr"
	(cd "$MNT/cwd" && exec sleep $((60 * U)) 3>&-) &
	local there=$!
	exec 5<"$MNT/open"
	slicefs evict "$MNT/a" "$MNT/cwd" "$MNT/open" "$MNT/xattr" "$MNT/told"
	tries $((200 * SLOW)) 0.1 eval '[ ! -e "$MNT/a" ] && [ ! -e "$MNT/told/inherits" ]'
	[ -d "$MNT/told" ]
	[ -d "$MNT/cwd" ]; [ -d "$MNT/open" ]; [ -d "$MNT/by-hand" ]; [ -d "$MNT/xattr" ]
	[ -d "$MNT/never" ]
	exec 5<&-
	kill $there; wait $there || true
	tries $((200 * SLOW)) 0.1 eval '[ ! -e "$MNT/cwd" ] && [ ! -e "$MNT/open" ]'
	[ -d "$MNT/by-hand" ]; [ -d "$MNT/xattr" ]; [ -d "$MNT/never" ]; [ -d "$MNT/told" ]
	(($(evicted empty) >= 5))
}

@test "a directory over its quota lets go of its own, also of what is below it" {
	mkdir -p "$MNT/q/sub"
	slicefs quota set "$MNT/q" 2M
	local i
	put outside
	for i in $(seq 8); do put "q/a$i"; put "q/sub/b$i"; done
	soon eval '[ "$(says used "$MNT/q")" -le $((2 << 20)) ]'
	[ "$(find "$MNT/q" -type f | wc -l)" -ge 2 ]
	[ -e "$MNT/outside" ]
	[[ $(slicefs quota show "$MNT/q") == *"of 2M" ]]
	fails 1 "Not a directory" slicefs quota show "$MNT/outside"
	# What is moved into it counts, too, and pinned things stay, whatever it says.
	mkdir "$MNT/moved"
	for i in $(seq 8); do put "moved/c$i"; done
	slicefs pin "$MNT/moved"
	mv "$MNT/moved" "$MNT/q/"
	soon eval '[ ! -e "$MNT/q/sub/b8" ]'
	[ "$(find "$MNT/q/moved" -type f | wc -l)" = 8 ]
	slicefs unpin "$MNT/q"
	soon eval '[ "$(says used "$MNT/q")" -le $((2 << 20)) ]'
	[ -e "$MNT/outside" ]
	slicefs quota unset "$MNT/q"
	for i in $(seq 8); do put "q/d$i"; done
	[ "$(find "$MNT/q" -name 'd*' -type f | wc -l)" = 8 ]
	fails 1 "has none" slicefs quota show "$MNT/q"
}

@test "who has a lower priority goes first" {
	put low; put high; put normal
	slicefs priority low "$MNT/low"; slicefs priority high "$MNT/high"
	cat "$MNT/low" "$MNT/low" >/dev/null
	fill
	[ ! -e "$MNT/low" ]; [ ! -e "$MNT/normal" ]
	is_whole high
}

@test "attributes that inform: version, location, hits, expires; they are not listed" {
	put a; echo small >"$MNT/s"
	[ "$(says version "$MNT/a")" = 1 ]
	echo more >>"$MNT/a"
	[ "$(says version "$MNT/a")" = 2 ]
	[ "$(says location "$MNT/a")" = memory ]; [ "$(says location "$MNT/s")" = index ]
	local before
	before=$(says hits "$MNT/s")
	cat "$MNT/s" "$MNT/s" >/dev/null
	[ "$(says hits "$MNT/s")" -ge $((before + 1)) ]
	no getfattr -n user.slicefs.expires "$MNT/a"
	[ -z "$(getfattr -d "$MNT/a")" ]
	no setfattr -n user.slicefs.hits -v 1 "$MNT/a"
	no setfattr -n user.slicefs.nothing -v 1 "$MNT/a"
	no setfattr -n user.slicefs.ttl -v soon "$MNT/a"
	no setfattr -n user.slicefs.quota -v 1G "$MNT/a"
	no setfattr -x user.slicefs.pin "$MNT/a"
	setfattr -n user.slicefs.priority -v high "$MNT/a"
	[ "$(getfattr -d --absolute-names "$MNT/a" | grep -c user.slicefs)" = 1 ]
	cp --preserve=xattr "$MNT/a" "$MNT/copy"
	[ "$(says priority "$MNT/copy")" = high ]
	setfattr -n user.slicefs.pin -v 1 "$MNT/a"; setfattr -x user.slicefs.pin "$MNT/a"
	# Of what is not published yet, too.
	exec 5>"$MNT/draft"
	echo x >&5
	setfattr -n user.slicefs.ttl -v 1h "$MNT/draft"
	exec 5>&-
	[ "$(says ttl "$MNT/draft")" = 1h ]
}

@test "on a node's paths, without a mount" {
	is_of_node || skip "there is no node"
	local at
	at=$(node at)
	mkdir "$MNT/d"; put d/a; put b
	slicefs pin "$at:/d"
	[ "$(says pin "$MNT/d/a")" = forever ]
	slicefs ttl --after-use 1h "$at:/b"
	soon eval '[ "$(says ttl "$MNT/b")" = "1h after use" ]'
	fails 1 pinned slicefs evict "$at:/d"
	slicefs unpin "$at:/d"
	slicefs evict "$at:/d" "$at:/b"
	soon eval '[ ! -e "$MNT/d/a" ] && [ ! -e "$MNT/b" ]'
	fails 1 "No such file" slicefs evict "$at:/b"
	put d/c
	slicefs quota set "$at:/d" 2M
	soon eval '[[ $(slicefs quota show "$at:/d") == "$at:/d: "[4-5]??" KiB of 2M" ]]'
	slicefs quota unset "$at:/d"
	fails 1 "has none" slicefs quota show "$at:/d"
	fails 1 "Not a directory" slicefs quota show "$at:/d/c"
}

@test "a node's file that moves meanwhile is not said to have gone if it has not" {
	is_of_node || skip "there is no node"
	requires python3
	local at i pid before n=0
	at=$(node at)
	before=$(asked "$at")
	put a
	python3 - "$MNT" <<'END' &
import os, sys

a, b, done = (f"{sys.argv[1]}/{name}" for name in ("a", "b", "done"))
while not os.path.exists(done):
    for old, new in (a, b), (b, a):
        try:
            os.rename(old, new)
        except FileNotFoundError:
            pass  # evicted
END
	pid=$!
	for i in $(seq $((60 / SLOW))); do
		[ -e "$MNT/a" ] || [ -e "$MNT/b" ] || : >"$MNT/a"
		if slicefs evict "$at:/a" 2>/dev/null; then n=$((n + 1)); fi
	done
	touch "$MNT/done"
	wait $pid
	[ "$(asked "$at")" = $((before + n)) ]
	rm -f "$MNT/a" "$MNT/b"
}

@test "of several paths those that can be are changed, whatever becomes of the others" {
	put a; put b
	run slicefs pin "$MNT/none" "$MNT/a" /etc/hostname "$MNT/b"
	[ "$status" = 1 ]; [ "${#lines[@]}" = 2 ]
	[[ ${lines[0]} == *none:* && ${lines[1]} == */etc/hostname:* ]]
	[ "$(says pin "$MNT/a")" = forever ]; [ "$(says pin "$MNT/b")" = forever ]
	fails 1 "127.0.0.1:1: Connection refused" slicefs unpin 127.0.0.1:1:/x "$MNT/a"
	[ "$(says pin "$MNT/a")" != forever ]
}

@test "what goes below a directory while that is pinned is no failure" {
	local i pid
	mkdir "$MNT/d"
	(while [ ! -e "$MNT/done" ]; do
		mkdir -p "$MNT/d/sub/sub"
		for i in 1 2 3 4 5 6; do : >"$MNT/d/f$i"; : >"$MNT/d/sub/sub/g$i"; done
		for i in 1 2 3; do mv "$MNT/d/f$i" "$MNT/d/sub/h$i"; done
		mv "$MNT/d/sub" "$MNT/d/other"
		rm -r "$MNT"/d/*
	done) &
	pid=$!
	for i in $(seq $((100 / SLOW))); do
		slicefs priority high "$MNT/d" || break
	done
	touch "$MNT/done"
	wait $pid
	[ "$i" = $((100 / SLOW)) ]
	fails 1 "No such file" slicefs priority high "$MNT/d/none"
}

@test "bad words are refused in one line" {
	put a
	fails 2 "no time" slicefs ttl soon "$MNT/a"
	fails 2 "no PATH" slicefs pin
	fails 2 "no time" slicefs pin --until yesterday "$MNT/a"
	fails 2 "has passed" slicefs pin --until 2020-01-01 "$MNT/a"
	fails 2 "no priority" slicefs priority best "$MNT/a"
	fails 2 "no size" slicefs quota set "$MNT" much
	fails 2 "no size" slicefs quota set "$MNT" 50%
	fails 2 '"0" is no size. Try: .*none' slicefs quota set "$MNT" 0
	fails 2 'unknown option "-d"' slicefs quota -d show "$MNT"
	fails 2 'unknown option "-d"' slicefs evict -d "$MNT"
	fails 2 "no time" slicefs pin --until 2027-02-29 "$MNT/a"
	fails 2 "none of set, unset and show" slicefs quota "$MNT"
	fails 2 "one DIR and a SIZE" slicefs quota set "$MNT"
	fails 2 "no DIR" slicefs quota show
	fails 1 "not on a slicefs mount" slicefs quota show /etc
	fails 1 "not on a slicefs mount" slicefs pin /etc/hostname
	fails 1 "No such file" slicefs pin "$MNT/none"
	fails 1 "neither a file" eval 'mkfifo "$MNT/fifo" && slicefs pin "$MNT/fifo"'
}

@test "a file of several names counts for no quota, and goes for none" {
	mkdir "$MNT/q" "$MNT/other"
	put q/a; ln "$MNT/q/a" "$MNT/other/a"; put q/b
	slicefs quota set "$MNT/q" 200K
	soon eval '[ ! -e "$MNT/q/b" ]'
	sleep 1
	is_whole q/a; cmp "$MNT/q/a" "$MNT/other/a"
	[ "$(stat -c %h "$MNT/q/a")" = 2 ]; [ "$(says used "$MNT/q")" = 0 ]
	rm -rf "$MNT/q" "$MNT/other"
}

@test "without watermarks what has an end ends, and a full store refuses" {
	remount_off
	mkdir "$MNT/q" "$MNT/t"
	put stays; put gone; put t/a; put left.tmp
	slicefs ttl 1s "$MNT/t/a"
	slicefs evict "$MNT/gone"; soon eval '[ ! -e "$MNT/gone" ]'
	soon eval '[ ! -e "$MNT/t/a" ]'
	soon eval '[ ! -e "$MNT/t" ]' # emptied
	slicefs quota set "$MNT/q" 1M
	for i in 1 2 3 4; do put q/$i; done
	soon eval '[ "$(du -s --apparent-size -B1 "$MNT/q" | cut -f1)" -le 1100000 ]'
	for i in $(seq 60); do put "f$i" 2>/dev/null || break; done
	[ "$i" -lt 40 ]; rm -f "$MNT/f$i"
	is_whole stays; is_whole f1; is_whole left.tmp # the name alone is no end here
	[ "$(df --output=avail -B1 "$MNT" | tail -n1)" -lt 3000000 ]
}

@test "an index full of directories that eviction emptied has room again" {
	requires python3
	EVICTS=(--evict-high 95 --evict-low 90 --evict-dirs $((12 * U))s) INDEX=1M
	if is_of_node; then
		"$SLICEFS" umount "$MNT"; end_node
		"$SLICEFS" store rm "$STORE"
		start
	else
		mount_fresh "${EVICTS[@]}"
	fi
	mkdir "$MNT/cwd"
	put cwd/f
	slicefs evict "$MNT/cwd"
	(cd "$MNT/cwd" && exec sleep 1000 3>&-) &
	local there=$!
	python3 - "$MNT" $((8 * U)) <<'END'
import os, sys, time

for i in range(6000):
    until = time.monotonic() + int(sys.argv[2])
    while True:
        try:
            os.makedirs(f"{sys.argv[1]}/d{i}", exist_ok=True)
            with open(f"{sys.argv[1]}/d{i}/f", "x") as f:
                f.write("x")
            break
        except OSError as e:  # they have a quarter of their time, so that mounts can say who is there
            if time.monotonic() > until:
                sys.exit(f"directory {i}: {e}")
            time.sleep(0.05)
END
	[ "$(ls -f "$MNT" | wc -l)" -lt 5000 ]
	[ -e "$MNT/d5999/f" ]
	[ -d "$MNT/cwd" ]
	kill $there; wait $there || true
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; }
