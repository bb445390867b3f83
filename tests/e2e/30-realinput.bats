#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: long
# timeout: 1800
# The main job on real input.
load lib
setup_file() { begin_file; export POOL=${SLICEFS_REAL_POOL:-6G} INDEX=${SLICEFS_REAL_INDEX:-512M}; mount_fs; }
teardown_file() { end_file; }
setup() { cd "$MNT" || return 1; }
teardown() { cd /; }

@test "tar of /usr/include and /usr/share in; every byte and attribute as in the source" {
	mkdir tree; tar -C /usr --xattrs --acls -cf - include share | tar -C tree --xattrs --acls -xpf -
	for d in include share; do
		diff -r --no-dereference "/usr/$d" "tree/$d"
		fmt='%P %y %m %U %G %s %T@ %n %l\n'
		# sizes of directories are each file system's own; links may count names outside
		diff <(cd "/usr/$d" && find . -type d -printf '%P %y %m %U %G\n' | sort) <(cd "tree/$d" && find . -type d -printf '%P %y %m %U %G\n' | sort)
		diff <(cd "/usr/$d" && find . ! -type d -printf '%P %y %m %U %G %s %T@ %l\n' | sort) <(cd "tree/$d" && find . ! -type d -printf '%P %y %m %U %G %s %T@ %l\n' | sort)
	done
}

@test "rsync -aHAX twice: the second time copies nothing" {
	requires rsync
	mkdir rs; rsync -aHAX /usr/include/ rs/; diff -r --no-dereference /usr/include rs
	[ -z "$(rsync -aHAXi /usr/include/ rs/)" ]
	rm -rf rs
}

@test "a 4 GiB file in by cp, out by cat" {
	head -c 4G /dev/urandom >"$SCRATCH/big"; sum=$(sha256sum <"$SCRATCH/big")
	cp "$SCRATCH/big" big; rm "$SCRATCH/big"
	[ "$(cat big | sha256sum)" = "$sum" ]; rm big
}

@test "git clone, git fsck, a build with ccache's cache beside it, and the built binary runs" {
	requires git cmake ninja ccache
	src=$(git -C "$BATS_TEST_DIRNAME" rev-parse --show-toplevel)
	git -c safe.directory='*' clone -q "$src" clone; git -C clone fsck --full
	export CCACHE_DIR=$MNT/ccache
	cmake -S clone -B clone/build/x -G Ninja -DCMAKE_C_COMPILER_LAUNCHER=ccache >/dev/null
	cmake --build clone/build/x >/dev/null
	clone/build/x/slicefs version | grep -q '^slicefs'
	rm -rf clone/build/x; cmake -S clone -B clone/build/x -G Ninja -DCMAKE_C_COMPILER_LAUNCHER=ccache >/dev/null
	cmake --build clone/build/x >/dev/null
	ccache -s | grep -qi hits
	[ -z "$(git -C clone status --porcelain)" ]
	rm -rf clone ccache
}

@test "sqlite with two writers, WAL and rollback journal" {
	requires sqlite3
	for mode in wal delete; do
		rm -f db*; sqlite3 db "pragma journal_mode=$mode; create table t(w, n, s)" >/dev/null
		for w in 1 2; do
			(for n in $(seq 60); do sqlite3 -cmd '.timeout 20000' db "begin immediate; insert into t select $w, $n, hex(randomblob(500)) from (select 1 union select 2 union select 3); commit;"; done) 3>&- &
		done
		wait
		[ "$(sqlite3 db 'pragma integrity_check')" = ok ]; [ "$(sqlite3 db 'select count(*) from t')" = 360 ]
	done
	rm -f db*
}

@test "fio writes and verifies" {
	requires fio
	fio --name=v --directory="$MNT" --rw=randwrite --bs=4k-200k --size=200M --verify=crc32c --do_verify=1 --numjobs=2 --direct=0 --output="$SCRATCH/fio1"
	fio --name=d --directory="$MNT" --rw=randrw --bs=4k --size=100M --verify=crc32c --direct=1 --ioengine=libaio --iodepth=8 --output="$SCRATCH/fio2"
	fio --name=m --directory="$MNT" --rw=randwrite --bs=4k --size=50M --verify=crc32c --ioengine=mmap --output="$SCRATCH/fio3"
	rm -f v.* d.* m.*
}

@test "stress-ng's file system stressors" {
	requires stress-ng
	mkdir st
	local s known stressors=()
	known=$(stress-ng --help)
	# what this version has
	for s in dir dentry dirdeep dirmany rename link symlink chmod chown fstat flock lockf open \
		hdd fallocate punch seek utime xattr mmap copy-file io iomix filename getdent \
		sendfile splice sync-file readahead verity inotify file-ioctl touch unlink locka; do
		grep -q -- " --$s N" <<<"$known" && stressors+=("--$s" 1)
	done
	stress-ng --temp-path "$MNT/st" "${stressors[@]}" --hdd-bytes 64M --fallocate-bytes 64M \
		--mmap-file --mmap-bytes 32M --copy-file-bytes 128M --iomix-bytes 64M \
		--dirdeep-inodes 2000 --readahead-bytes 32M --sync-file-bytes 32M \
		--timeout 20 --metrics-brief --verify
	rm -rf st
}

@test "killed in the middle of a tar: everything that was closed is intact" {
	rm -rf tree2; mkdir tree2
	(tar -C /usr -cf - include share | tar -C tree2 -xpvf - >"$SCRATCH/extracted" 2>/dev/null) 3>&- &
	soon eval '[ "$(wc -l <"$SCRATCH/extracted")" -gt 500 ]'; cd /
	# tar goes on listing names when nothing can be made any more
	cp "$SCRATCH/extracted" "$SCRATCH/before"
	kill_daemon; wait || true
	remount; cd "$MNT"
	n=$(wc -l <"$SCRATCH/before")
	# the last names may not have been closed; tar prints a name before it writes it
	head -n $((n - 2)) "$SCRATCH/before" | while read -r f; do
		if [ -f "/usr/$f" ] && [ ! -L "/usr/$f" ]; then cmp "/usr/$f" "tree2/$f" || exit 1; fi
	done
	# and whatever else is there is whole (P1)
	(cd tree2 && find . -type f -print0) | while IFS= read -r -d '' f; do
		if [ ! -L "/usr/$f" ]; then cmp "/usr/$f" "tree2/$f" || exit 1; fi
	done
	fsck_clean "$MNT"; rm -rf tree2 tree
}

@test "when all is idle, nothing is in flight (P10)" { cd /; gauges_zero; fsck_clean "$MNT"; }
