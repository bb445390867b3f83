#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: asan tsan
# timeout: 900
# Two mounts of a node's store take turns on the same tree, as people on two hosts
# do: what one has done the other goes on with, with caches as they are by default.
load lib
setup_file() {
	begin_file
	export SHAPE=node POOL=1G B=$SCRATCH/b
	mkdir "$B"
	mount_fs
	"$SLICEFS" mount --log "$SCRATCH/mountb.log" "$(node at)" "$B"
}
teardown_file() { end_file; }

@test "a tree of files: in through one, out through the other, changed by both" {
	tar -C /usr/include -cf - . | { mkdir "$MNT/tree"; tar -C "$MNT/tree" -xpf -; }
	diff -r --no-dereference /usr/include "$B/tree"
	cp -a /usr/include "$SCRATCH/model"
	local turn at other i
	for turn in 1 2 3 4; do
		at=$MNT other=$B
		((turn % 2)) || at=$B other=$MNT
		i=0
		# Each turn changes, moves and removes some of what the turn before left.
		find "$SCRATCH/model" -type f -printf '%P\n' | sort | awk "NR % 97 == $turn" >"$SCRATCH/some"
		while read -r f; do
			for tree in "$at/tree" "$SCRATCH/model"; do
				case $((i % 4)) in
				0) echo "turn $turn" >>"$tree/$f" ;;
				1) mv "$tree/$f" "$tree/$f.moved$turn" ;;
				2) rm "$tree/$f" ;;
				3) sed -i "1i turn $turn" "$tree/$f" ;;
				esac
			done
			i=$((i + 1))
		done <"$SCRATCH/some"
		[ "$i" -gt 3 ]
		diff -r --no-dereference "$SCRATCH/model" "$other/tree"
		diff -r --no-dereference "$SCRATCH/model" "$at/tree"
	done
	rm -r "$B/tree"
	[ ! -e "$MNT/tree" ]
}

@test "a repository: one commits, the other one goes on" {
	requires git
	export HOME=$SCRATCH GIT_CONFIG_NOSYSTEM=1
	git config --global user.name x; git config --global user.email x@localhost
	git config --global safe.directory '*'; git config --global init.defaultBranch main
	git init -q "$MNT/repo"
	local turn at
	for turn in $(seq 10); do
		at=$MNT
		((turn % 2)) || at=$B
		cp -r "$BATS_TEST_DIRNAME/../../common" "$at/repo/$turn"
		echo "$turn" >>"$at/repo/log"
		git -C "$at/repo" add -A
		git -C "$at/repo" commit -q -m "turn $turn"
		((turn != 5)) || git -C "$at/repo" gc -q
	done
	sleep 1 # what stat says may be as old as --cache, and git goes by it
	for at in "$MNT" "$B"; do
		git -C "$at/repo" fsck --full --strict
		git -C "$at/repo" status --porcelain >"$SCRATCH/status"
		cat "$SCRATCH/status"; [ ! -s "$SCRATCH/status" ]
		[ "$(git -C "$at/repo" rev-list --count HEAD)" = 10 ]
		[ "$(wc -l <"$at/repo/log")" = 10 ]
	done
	git clone -q "$B/repo" "$SCRATCH/clone"
	diff -r "$SCRATCH/clone/10" "$BATS_TEST_DIRNAME/../../common"
	rm -rf "$MNT/repo" "$SCRATCH/clone"
}

@test "a directory that is removed and made again is the new one for the other" {
	local i
	for i in $(seq 200); do
		mkdir "$MNT/again"
		echo "$i" >"$MNT/again/$i"
		[ "$(cat "$B/again/$i")" = "$i" ]
		rm -r "$MNT/again"
		mkdir "$MNT/again"
		echo "new $i" >"$MNT/again/x$i"
		[ "$(cat "$B/again/x$i")" = "new $i" ]
		rm -r "$MNT/again"
		(cd "$B" && no test -e again/x) # what is in neither is in neither
	done
}

@test "a directory that the other one removes and makes all the time is there, or is not" {
	requires python3
	python3 - "$MNT" "$B" $((4 * SLOW)) <<'EOF'
import errno, os, signal, sys, time

here, there, begun, least_s = sys.argv[1], sys.argv[2], time.monotonic(), int(sys.argv[3])
MOST_S = 15 * least_s # until each way has been met

def tried(call, *args):
    """True: done; False: others have been there."""
    try:
        call(*args)
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR):
            raise
        return False
    return True

def make(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))

def remove(path):
    return tried(os.unlink, path) or tried(os.rmdir, path)

parent = os.getpid()
child = os.fork()
if not child:
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    at = f"{there}/comes-and-goes"
    while not ended and os.getppid() == parent:
        tried(os.mkdir, at)
        if not remove(at):
            remove(f"{at}/x")
    os._exit(0)
at, of, moves = f"{here}/comes-and-goes/x", f"{here}/of", f"{here}/moves"
ways = [(os.mkdir, at), (os.symlink, "x", at), (os.mkfifo, at), (os.link, of, at), (make, at),
        (os.rename, moves, at)]
done = [0] * len(ways)
missed = 0
make(of)
while time.monotonic() < begun + (MOST_S if not all(done) or not missed else least_s):
    for i, way in enumerate(ways):
        make(moves)
        if tried(*way):
            done[i] += 1
        else:
            missed += 1
        remove(at)
    for call, *args in (os.chmod, 0o755), (os.utime,), (os.setxattr, "user.a", b"x"), (os.listdir,):
        tried(call, os.path.dirname(at), *args)
print(done, "made", missed, "missed")
os.kill(child, signal.SIGTERM)
sys.exit(os.waitpid(child, 0)[1] != 0 or not all(done) or not missed)
EOF
	rm -rf "$MNT"/{of,moves,comes-and-goes}
}

@test "what is in directories that the other one replaces as a whole is there for one call after another" {
	requires python3
	python3 - "$MNT" "$B" <<'EOF'
import ctypes, os, shutil, sys

here, there = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2

def make(at):
    os.makedirs(f"{at}/sub")
    for name in "f", "sub/f":
        with open(f"{at}/{name}", "w") as f:
            f.write(at)

def replace(name):
    at, new = f"{there}/{name}", f"{there}/new"
    make(new)
    if libc.renameat2(AT_FDCWD, new.encode(), AT_FDCWD, at.encode(), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")
    shutil.rmtree(new)

def replace_file(name):
    with open(f"{there}/new", "w") as f:
        f.write(name)
    os.rename(f"{there}/new", f"{there}/{name}")

for name in "d", "e":
    make(f"{here}/{name}")
replace_file("g")
for i in range(20):
    for name in "d/f", "d/sub/f", "e/f", "e/sub/f", "g":
        os.stat(f"{here}/{name}")
    replace("e"); replace("d")
    os.stat(f"{here}/d/f"); os.stat(f"{here}/e/sub/f")
    replace("d"); replace("e")
    os.stat(f"{here}/e/f"); os.stat(f"{here}/d/sub/f")
    for change in (lambda at: os.chmod(at, 0o640), os.utime, lambda at: os.setxattr(at, "user.a", b"b")):
        os.stat(f"{here}/g")
        replace("d"); replace_file("g")
        os.stat(f"{here}/d/sub"); change(f"{here}/g")
    for at in "d/x", "d/sub/x":
        for way in (os.mkdir, lambda at: os.symlink("f", at), os.mkfifo, lambda at: os.link(f"{here}/e/f", at)):
            replace("d")
            way(f"{here}/{at}")
    replace("d")
    os.link(f"{here}/d/sub/f", f"{here}/x")
    os.unlink(f"{here}/x")
for name in "d", "e":
    shutil.rmtree(f"{there}/{name}")
os.unlink(f"{there}/g")
EOF
}

@test "a database: one writes, the other one reads and writes" {
	requires sqlite3
	local turn at
	sqlite3 "$MNT/db" 'pragma journal_mode=delete; create table t(turn, s)' >/dev/null
	for turn in $(seq 20); do
		at=$MNT
		((turn % 2)) || at=$B
		sqlite3 "$at/db" "insert into t select $turn, hex(randomblob(400)) from (select 1 union select 2 union select 3)"
		[ "$(sqlite3 "$at/db" 'select count(*) from t')" = $((turn * 3)) ]
	done
	for at in "$MNT" "$B"; do [ "$(sqlite3 "$at/db" 'pragma integrity_check')" = ok ]; done
	rm "$B/db"
}

@test "a build: made on one, finished and run on the other" {
	requires make
	mkdir "$MNT/src"
	printf 'prog: main.o a.o b.o\n\tgcc -o $@ $^\n%%.o: %%.c v.h\n\tgcc -c -o $@ $<\n' >"$MNT/src/Makefile"
	echo '#define V 1' >"$MNT/src/v.h"
	echo 'int a(void) { return 40; }' >"$MNT/src/a.c"
	printf '#include "v.h"\nint b(void) { return V; }\n' >"$B/src/b.c"
	echo 'int a(void); int b(void); int main(void) { return a() + b(); }' >"$B/src/main.c"
	make -s -C "$MNT/src" main.o a.o
	make -s -C "$B/src" prog
	make -s -C "$B/src" -q prog
	run "$MNT/src/prog"
	[ "$status" = 41 ]
	# A time stamp of the other's is newer.
	sleep 1.1
	echo '#define V 2' >"$B/src/v.h"
	make -s -C "$MNT/src" prog
	run "$B/src/prog"
	[ "$status" = 42 ]
	rm -r "$MNT/src"
}

@test "rsync from one to the other finds nothing to copy" {
	requires rsync
	rsync -aHAX /usr/include/linux/ "$MNT/rs/"
	[ -z "$(rsync -aHAXi /usr/include/linux/ "$B/rs/")" ]
	[ -z "$(rsync -aHAXic "$MNT/rs/" "$B/rs/")" ]
	rm -r "$B/rs"
}

@test "when all is idle, nothing is in flight (P10)" {
	MNT=$B gauges_zero
	gauges_zero
	"$SLICEFS" umount "$B"
	fsck_clean "$MNT"
}
