#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: tsan
# Wrong sizes, damaged stores, full pools: one line, nothing lost, nothing changed.
load lib
setup_file() { begin_file; }
teardown_file() { end_file; }

# Where the store's files are.
files() {
	local d=/run/slicefs/$STORE
	[ -d "$d/mem/current" ] && echo "$d/mem/current" || echo "$d/current"
}

# Damages a copy of the stopped store's file, expects a refusal that keeps it, puts it back.
refused_with() { # file pattern command...
	local f
	f=$(files)/$1
	cp --sparse=always "$f" "$SCRATCH/good"
	"${@:3}" "$f"
	before=$(sha256sum <"$f")
	fails 1 "$2" mount_fs
	no is_mounted
	[ "$(sha256sum <"$f")" = "$before" ]
	[[ $("$SLICEFS" fsck "$STORE" 2>&1) != *clean* ]]
	cp --sparse=always "$SCRATCH/good" "$f"
}

@test "wrong sizes and names are refused before anything is made" {
	for bad in 0 1 x -1 4X 1e9 '' 99999999999999999999 200%; do
		fails 2 'pool-size' "$SLICEFS" mount --store "$STORE" --pool-size "$bad" "$MNT" ||
			fails 1 'pool' "$SLICEFS" mount --store "$STORE" --pool-size "$bad" "$MNT"
	done
	fails 1 'available|memory' "$SLICEFS" mount --store "$STORE" --pool-size 900G "$MNT"
	fails 2 'timeout' "$SLICEFS" mount --store "$STORE" --timeout never "$MNT"
	fails 2 'evict-low: 85 .*80' "$SLICEFS" mount --evict-high 80 --evict-low 85 "$MNT"
	fails 2 'evict-high: 0 .*ssd' "$SLICEFS" mount --evict-high 0 --ssd "$SCRATCH/ssd" --ssd-size 1G "$MNT"
	fails 2 'ssd-size: of which disk' "$SLICEFS" mount --store "$STORE" --ssd-size 1G "$MNT"
	fails 2 'ssd-wait: of which disk' "$SLICEFS" serve --store "$STORE" --ssd-wait 1s
	fails 2 'as with relatime' "$SLICEFS" mount --store "$STORE" --strictatime "$MNT"
	"$SLICEFS" store ls | no grep -q "$STORE"
}

@test "a mount that is refused leaves no store behind" {
	requires_root; requires setpriv unshare
	mkdir "$SCRATCH/his"; chown nobody "$SCRATCH/his"
	cp "$SLICEFS" "$SCRATCH/his-slicefs"; chmod 755 "$SCRATCH/his-slicefs"
	chmod 666 /dev/fuse # as udev has it; a container's may differ
	export -f fails; export SCRATCH
	unshare -m bash -ec '
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm
		: >$SCRATCH/fuse.conf; mount --bind $SCRATCH/fuse.conf /etc/fuse.conf
		his() { setpriv --reuid=nobody --regid=65534 --clear-groups "$SCRATCH/his-slicefs" "$@"; }
		fails 1 "option allow_other: needs the line" his mount --pool-size 16M -o allow_other $SCRATCH/his
		fails 1 "option suid: only root" his mount --pool-size 16M -o suid $SCRATCH/his
		[ "$(his store ls | wc -l)" = 1 ]
		echo mount_max = 0 >/etc/fuse.conf # fusermount3 refuses, when all is ready
		fails 1 . his mount --pool-size 16M $SCRATCH/his
		[ "$(his store ls | wc -l)" = 1 ]
		: >/etc/fuse.conf; his mount --pool-size 16M $SCRATCH/his; his umount $SCRATCH/his
		echo mount_max = 0 >/etc/fuse.conf
		fails 1 . his mount $SCRATCH/his
		his store ls | grep -q stopped # what was there before stays
	'
}

@test "a log that cannot be opened is refused with its path and the reason" {
	fails 1 'log .*/missing/log: No such file or directory. Try:' mount_fs --log "$SCRATCH/missing/log"
	fails 1 'log .*: Is a directory. Try:' mount_fs --log "$SCRATCH"
	"$SLICEFS" store ls | no grep -q "$STORE"
}

@test "another size for a store that exists is refused, and says what to do" {
	mount_fs; echo kept >"$MNT/f"; "$SLICEFS" umount "$MNT"
	fails 1 '64 MiB.*128 MiB' "$SLICEFS" mount --store "$STORE" --pool-size 128M "$MNT"
	mount_fs; [ "$(cat "$MNT/f")" = kept ]; "$SLICEFS" umount "$MNT"
}

@test "a damaged index is refused with the reason, and kept" {
	requires_root
	cut() { truncate -s 10000 "$1"; }
	zero() { dd if=/dev/zero of="$1" bs=4096 count=2 conv=notrunc status=none; }
	noise() { dd if=/dev/urandom of="$1" bs=4096 count=2 conv=notrunc status=none; }
	foreign() { printf 'SQLite format 3' | dd of="$1" conv=notrunc status=none; dd if=/dev/zero of="$1" bs=4096 seek=1 count=1 conv=notrunc status=none; }
	for how in cut zero noise foreign; do refused_with index.lmdb "store.*Try:" $how; done
}

@test "a damaged pool is refused with the reason, and kept" {
	requires_root
	cut() { truncate -s 4096 "$1"; }
	refused_with pool.0 "store.*Try:" cut
	tail_noise() { dd if=/dev/urandom of="$1" bs=4096 seek=$(($(stat -c %s "$1") / 4096 - 1)) count=1 conv=notrunc status=none; head -c 4096 /dev/urandom | dd of="$1" bs=1 seek=$(($(stat -c %s "$1") - 2097152)) conv=notrunc status=none; }
	refused_with pool.0 "store.*Try:" tail_noise
	mount_fs; [ "$(cat "$MNT/f")" = kept ]; "$SLICEFS" umount "$MNT"
}

@test "a missing file, a newer format" {
	requires_root
	mv "$(files)/pool.0" "$SCRATCH/pool"; fails 1 'pool.0.*No such file' mount_fs; mv "$SCRATCH/pool" "$(files)/pool.0"
	f=/run/slicefs/$STORE/store.txt
	cp "$f" "$SCRATCH/txt"; sed -i '0,/[0-9]\+/s//99/' "$f"
	fails 1 'newer' mount_fs
	cp "$SCRATCH/txt" "$f"
	mount_fs; [ "$(cat "$MNT/f")" = kept ]; "$SLICEFS" umount "$MNT"
}

@test "mount --fresh starts anew and keeps the old one aside" {
	requires_root
	f=$(files)/index.lmdb; dd if=/dev/zero of="$f" bs=4096 count=2 conv=notrunc status=none
	mount_fs --fresh; [ ! -e "$MNT/f" ]
	ls -d /run/slicefs/"$STORE"/mem/old-* || ls -d /run/slicefs/"$STORE"/old-*
	"$SLICEFS" umount --discard "$MNT"
}

# Runs a script as root with a /dev/shm, /etc/fuse.conf and fusermount3 of its own. In it:
# refused PATTERN OPTIONS...: an ordinary user's mount is, in one line; the same in the foreground.
as_user() {
	mkdir -p "$SCRATCH/user"; chown nobody "$SCRATCH/user"
	cp "$SLICEFS" "$SCRATCH/slicefs-user"; chmod 755 "$SCRATCH/slicefs-user"
	cp "$(command -v fusermount3)" "$SCRATCH/fusermount3"; : >"$SCRATCH/fuse.conf"
	chmod 666 /dev/fuse # as udev has it; a container's may differ
	export -f fails refused; export SCRATCH
	unshare -m bash -ec "
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm
		mount --bind $SCRATCH/fuse.conf /etc/fuse.conf
		$1"
}
refused() {
	local as=(setpriv --reuid=nobody --regid=65534 --clear-groups
		"$SCRATCH/slicefs-user" mount --pool-size 16M --index-size 16M)
	fails 1 "$1" "${as[@]}" "${@:2}"
	fails 1 "$1" "${as[@]}" --foreground --log /dev/null "${@:2}"
}

@test "what fusermount3 says against an ordinary user's mount is passed on" {
	requires_root; requires setpriv fusermount3 unshare
	as_user "
		echo mount_max = 0 >/etc/fuse.conf
		refused '/user: .*too many FUSE filesystems.*Try:.*mount_max' $SCRATCH/user
		echo no-such-word >/etc/fuse.conf
		refused 'user_allow_other' -o allow_other $SCRATCH/user
		mkdir -m 1777 $SCRATCH/sticky
		refused '/sticky: .*not owned by user.*Try:' $SCRATCH/sticky
		refused '/mnt: .*write' $SCRATCH/mnt
		mkdir $SCRATCH/ramfs; mount -t ramfs ramfs $SCRATCH/ramfs; chown nobody $SCRATCH/ramfs
		refused '/ramfs: .*filesystem type 0x858458f6 is forbidden.*Try:' $SCRATCH/ramfs
	"
}

@test "a fusermount3 that cannot do it, and a device that is not there" {
	requires_root; requires setpriv fusermount3 unshare
	as_user "
		chmod 755 $SCRATCH/fusermount3; mount --bind $SCRATCH/fusermount3 $(readlink -f "$(command -v fusermount3)")
		refused '/user: .*fusermount3.*not permitted.*Try:.*setuid' $SCRATCH/user
		chmod 644 $SCRATCH/fusermount3
		refused 'fusermount3 is not installed, or not for this user.*Try:' $SCRATCH/user
		touch $SCRATCH/fuse; chmod 600 $SCRATCH/fuse; mount --bind $SCRATCH/fuse /dev/fuse
		refused '/dev/fuse: Permission denied. Try:' $SCRATCH/user
	"
}

@test "a full pool that may not evict is ENOSPC at once, and nothing half-written is left" {
	POOL=16M mount_fs --evict-high 0
	head -c 4M /dev/urandom >"$MNT/keep"; sum=$(sha256sum <"$MNT/keep")
	SECONDS=0
	run cp /dev/zero "$MNT/fill"
	[ "$status" != 0 ]; [[ $output =~ "No space left" ]]; [ "$SECONDS" -le 5 ]
	rm -f "$MNT/fill"
	[ "$(sha256sum <"$MNT/keep")" = "$sum" ]
	head -c 8M /dev/zero >"$MNT/again"; rm "$MNT/again"
	gauges_zero; fsck_clean "$MNT"
}

@test "df and writes agree on the last byte" {
	i=0
	while head -c 65536 /dev/zero >"$MNT/x$i" 2>/dev/null; do i=$((i + 1)); [ $i -lt 1000 ]; done
	[ "$(df --output=avail -B1 "$MNT" | tail -n1)" -le 65536 ]
	rm -f "$MNT"/x*
	"$SLICEFS" umount --discard "$MNT"
}

@test "a full index that may not evict is ENOSPC; removing works, and then there is room again" {
	POOL=16M INDEX=4M mount_fs --evict-high 0 || POOL=16M INDEX=8M mount_fs --evict-high 0
	mkdir "$MNT/d"
	run bash -c "seq 1 200000 | sed 's|^|$MNT/d/a-rather-long-name-that-fills-the-index-soon-|' | xargs touch"
	[ "$status" != 0 ]; [[ $output =~ "No space left" ]]
	n=$(ls -f "$MNT/d" | wc -l); [ "$n" -gt 1000 ]
	(cd "$MNT/d" && ls -f | grep -v '^\.' | head -n 2000 | xargs rm)
	touch "$MNT/d/room"; gauges_zero
	rm -rf "$MNT/d"; [ ! -e "$MNT/d" ]
	gauges_zero; fsck_clean "$MNT"
	"$SLICEFS" umount --discard "$MNT"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
