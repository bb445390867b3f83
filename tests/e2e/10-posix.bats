#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: short
# long: asan tsan node
# Every system call on names, attributes and bytes, by three users, on the mount
# and on tmpfs side by side: results and what they leave behind.
load lib
setup_file() {
	begin_file
	mkdir "$SCRATCH/tmpfs"
	# Its own: /dev/shm is nodev and nosuid, and somebody else's.
	mount -t tmpfs -o dev,suid,mode=755,size=256M slicefs-test "$SCRATCH/tmpfs"
	export POOL=256M
	mount_fs
}
teardown_file() {
	umount -l "$SCRATCH/tmpfs"
	end_file
}

@test "thousands of calls behave as they do on tmpfs" {
	mkdir -p "$MNT/posix" "$SCRATCH/tmpfs/posix"
	status=0
	posix "$MNT/posix" "$SCRATCH/tmpfs/posix" >"$SCRATCH/posix.out" || status=$?
	grep -E '^# excepted.*LACKS' "$SCRATCH/posix.out" >&3 || true
	head -n 100 "$SCRATCH/posix.out"
	tail -n 1 "$SCRATCH/posix.out"
	[ "$status" = 0 ]
}

@test "a read-only mount changes nothing and says EROFS" {
	requires setfattr
	echo x >"$MNT/f"; mkdir "$MNT/d"; ln -s f "$MNT/l"; mkfifo "$MNT/p"
	"$SLICEFS" umount "$MNT"
	mount_fs -o ro
	cd "$MNT"
	before=$(stat -c '%n %a %u %h %s %y %z' f d l p .)
	erofs() { LC_ALL=C "$@" 2>&1 | grep -q 'Read-only file system'; }
	erofs touch f; erofs touch new; erofs mkdir new; erofs rmdir d; erofs rm -f f
	erofs mv f g; erofs ln f g; erofs ln -s f g; erofs mkfifo g; erofs chmod 600 f
	erofs chown 1 f; erofs truncate -s 0 f; erofs setfattr -n user.a -v b f
	erofs dd if=/dev/null of=f; erofs mknod n c 1 3
	[ "$(cat f)" = x ]
	[ "$(stat -c '%n %a %u %h %s %y %z' f d l p .)" = "$before" ]
	cd /
	"$SLICEFS" umount "$MNT"
	mount_fs
}

@test "when all is idle, nothing is in flight (P10)" { cd /; gauges_zero; fsck_clean "$MNT"; }
