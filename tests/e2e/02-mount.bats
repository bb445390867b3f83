#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# Mounting and unmounting.
load lib
setup_file() { begin_file; }
teardown_file() { end_file; }

@test "mount returns when the directory is usable, and says so" {
	run mount_fs
	[ "$status" = 0 ]
	[[ $output =~ "is mounted on $MNT (pool 64.0 MiB, index 64.0 MiB)" ]]
	echo hello >"$MNT/f"
	[ "$(cat "$MNT/f")" = hello ]
}

@test "it shows in mountinfo as fuse.slicefs with the store as its source" {
	grep -q " $MNT .* - fuse.slicefs $STORE " /proc/self/mountinfo
}

@test "the store is mounted once, the directory too" {
	mkdir -p "$SCRATCH/other"
	fails 1 "mounted|running|in use" "$SLICEFS" mount --store "$STORE" "$SCRATCH/other"
	fails 1 "a slicefs is mounted there already" "$SLICEFS" mount "$MNT"
	[ "$(cat "$MNT/f")" = hello ]
}

@test "umount keeps the store for the next mount" {
	"$SLICEFS" umount "$MNT"
	no is_mounted
	"$SLICEFS" store ls --json | jq -e --arg s "$STORE" '.[] | select(.store == $s) | .state == "stopped"'
	fsck_clean
	mount_fs
	[ "$(cat "$MNT/f")" = hello ]
}

@test "a daemon that was killed leaves a mount point that the next mount cleans" {
	kill_daemon
	run ls "$MNT"
	[ "$status" != 0 ]
	run "$SLICEFS" status "$MNT"
	[ "$status" = 1 ]
	[[ $output =~ dead|"not connected" ]]
	run remount
	[ "$status" = 0 ]
	[[ $output =~ "cleaned up after a slicefs that had ended" ]]
	[ "$(cat "$MNT/f")" = hello ]
}

@test "what has died is not replaced by an empty store of the directory's own" {
	kill_daemon
	fails 1 "what has ended there had $STORE. Try: slicefs mount $STORE $MNT" "$SLICEFS" mount "$MNT"
	remount
	[ "$(cat "$MNT/f")" = hello ]
}

@test "a killed daemon's mount point can be unmounted, too" {
	kill_daemon
	"$SLICEFS" umount "$MNT"
	no is_mounted
	mount_fs
	[ "$(cat "$MNT/f")" = hello ]
}

@test "a busy mount is not unmounted, and says what to do" {
	(cd "$MNT" && fails 1 'busy.*--lazy' "$SLICEFS" umount "$MNT")
	is_mounted
}

@test "SIGTERM unmounts in order" {
	pid=$(daemon_pid)
	kill -TERM "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
	no is_mounted
	mount_fs
	[ "$(cat "$MNT/f")" = hello ]
}

@test "a mount that was given up before it was there does not come later" {
	local waits daemon at="$SCRATCH/late.mnt" new="$STORE.late" log="$SCRATCH/late.log"
	mkdir "$at"
	"$SLICEFS" mount --store "$new" --pool-size 2G --index-size 16M --log "$log" "$at" 3>&- &
	waits=$!
	soon pgrep -P "$waits"
	daemon=$(pgrep -P "$waits")
	kill -STOP "$daemon"
	kill -9 "$waits"; wait "$waits" || true
	kill -CONT "$daemon"; gone "$daemon" 20
	grep -q 'who waited for it has gone' "$log"
	no mountpoint -q "$at"
	"$SLICEFS" store ls | no grep -q "$new" # its memory has been given back
}

@test "umount --discard gives the memory back" {
	"$SLICEFS" umount --discard "$MNT"
	"$SLICEFS" store ls | no grep -q "$STORE"
	mount_fs
	[ ! -e "$MNT/f" ]
}

@test "SOURCE DIR -o options, as mount(8) calls it" {
	"$SLICEFS" umount --discard "$MNT"
	ln -sf "$SLICEFS" "$SCRATCH/mount.slicefs"
	"$SCRATCH/mount.slicefs" "$STORE" "$MNT" -o "rw,_netdev,nofail,x-systemd.automount,noauto,user,pool-size=64M,index-size=64M"
	is_mounted
	echo x >"$MNT/x"
}

@test "mount(8) finds it by fstab, from a folder with a file of the source's name, with -v, -n, -f" {
	requires_root; requires unshare
	"$SLICEFS" umount "$MNT"
	mkdir "$SCRATCH/here"; touch "$SCRATCH/here/$STORE"; cp -a /sbin/. "$SCRATCH/sbin"; ln -sf "$SLICEFS" "$SCRATCH/sbin/mount.slicefs"
	echo "$STORE $MNT slicefs pool-size=64M,index-size=64M,nofail 0 0" >"$SCRATCH/fstab"
	export MNT STORE SCRATCH
	unshare -m bash -ec '
		mount --bind "$SCRATCH/sbin" "$(readlink -f /sbin)"; mount --bind "$SCRATCH/fstab" /etc/fstab
		cd "$SCRATCH/here"
		shown() { findmnt -rno SOURCE "$MNT"; }
		mount -fv "$MNT"; [ -z "$(shown)" ]
		for how in "-a" "-av" "$MNT" "-n $MNT" "-v $MNT"; do
			mount $how; [ "$(shown)" = "$STORE" ]; umount "$MNT"
			while "$SLICEFS" store ls | grep "$STORE" | grep -q running; do sleep 0.05; done
		done
		echo "slicefs $MNT slicefs pool-size=64M,index-size=64M 0 0" >/etc/fstab
		mount -a; mount -a; [ "$(shown | wc -l)" = 1 ]
		"$SLICEFS" umount --discard "$MNT"
		! mount -o bogus "$MNT" || exit 1
		[ -z "$(shown)" ]
	'
	mount_fs
}

@test "-o ro is read-only" {
	"$SLICEFS" umount "$MNT"
	mount_fs -o ro
	[ "$(cat "$MNT/x")" = x ]
	run touch "$MNT/y"
	[ "$status" != 0 ]
	[[ $output =~ "Read-only file system" ]]
	"$SLICEFS" umount "$MNT"
	mount_fs
}

@test "every word of mount(8) that the man page names is taken, and does what it says" {
	"$SLICEFS" umount "$MNT"
	for word in rw suid nosuid dev nodev exec noexec sync dirsync noatime nodiratime allow_other; do
		mount_fs -o "$word"
		case $word in
		nosuid | nodev | noexec | sync | dirsync | noatime) findmnt -no OPTIONS "$MNT" | grep -qw "$word" ;;
		esac
		"$SLICEFS" umount "$MNT"
	done
	mount_fs
}

@test "root's mount lets in everybody, or with --no-allow-other nobody else" {
	requires setpriv
	nobody="setpriv --reuid=nobody --regid=65534 --clear-groups"
	$nobody ls "$MNT"
	"$SLICEFS" umount "$MNT"
	mount_fs --no-allow-other
	run $nobody ls "$MNT"
	[ "$status" != 0 ]
	[[ $output =~ "Permission denied" ]]
	"$SLICEFS" umount "$MNT"
	mount_fs
}

@test "a log's path may be relative" {
	"$SLICEFS" umount "$MNT"
	(cd "$SCRATCH" && mount_fs --log here.log)
	grep -q "$STORE" "$SCRATCH/here.log"
	grep -qx "log=$SCRATCH/here.log" "$MNT/.slicefs/config"
}

@test "an ordinary user mounts through fusermount3" {
	requires setpriv fusermount3
	dir=$(mktemp -d "$SCRATCH/user.XXXX")
	chown nobody "$dir"
	as="setpriv --reuid=nobody --regid=65534 --clear-groups" # fusermount3 wants a user with a name
	chmod 666 /dev/fuse # as udev has it; a container's may differ
	cp "$SLICEFS" "$SCRATCH/slicefs-user" && chmod 755 "$SCRATCH/slicefs-user"
	$as "$SCRATCH/slicefs-user" mount --pool-size 32M "$dir"
	$as sh -c "echo mine >$dir/f && cat $dir/f" | grep -q mine
	$as "$SCRATCH/slicefs-user" umount --discard "$dir"
	rmdir "/dev/shm/slicefs-$(id -u nobody)"
}

@test "why an ordinary user cannot unmount is said as it is" {
	requires setpriv fusermount3 unshare
	cp "$SLICEFS" "$SCRATCH/slicefs-user" && chmod 755 "$SCRATCH/slicefs-user"
	as="setpriv --reuid=nobody --regid=65534 --clear-groups"
	fails 1 'not permitted: it was mounted by another user. Try: sudo' $as "$SCRATCH/slicefs-user" umount "$MNT"
	is_mounted
	export -f fails; export MNT SCRATCH as
	unshare -m bash -ec '
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm; chmod 666 /dev/fuse
		mkdir "$SCRATCH/his"; chown nobody "$SCRATCH/his"
		$as "$SCRATCH/slicefs-user" mount --pool-size 16M "$SCRATCH/his"
		$as bash -c "cd $SCRATCH/his; exec sleep 30" & pid=$!
		until [ "$(readlink /proc/$pid/cwd)" = "$SCRATCH/his" ]; do sleep 0.05; done
		fails 1 "Permission denied: it lets in only user .*Try: as that user" "$SLICEFS" status "$SCRATCH/his"
		fails 1 "busy: .*Try: fuser" $as "$SCRATCH/slicefs-user" umount "$SCRATCH/his"
		kill $pid; wait $pid || true
		fails 1 "fusermount3: .*Try: sudo" env PATH=/nonexistent "$(command -v setpriv)" --reuid=nobody --regid=65534 --clear-groups "$SCRATCH/slicefs-user" umount "$SCRATCH/his"
		store=$(findmnt -rno SOURCE "$SCRATCH/his") # root has another one of that name
		mkdir "$SCRATCH/mine"; "$SLICEFS" mount --pool-size 16M --store "$store" "$SCRATCH/mine"; "$SLICEFS" umount "$SCRATCH/mine"
		fails 1 "its store is user .*Try:.*store rm $store" "$SLICEFS" umount --discard "$SCRATCH/his"
		"$SLICEFS" umount "$SCRATCH/his"
		"$SLICEFS" store rm "$store"
		while $as "$SCRATCH/slicefs-user" store ls | grep -q running; do sleep 0.05; done
		$as "$SCRATCH/slicefs-user" mount "$SCRATCH/his"
		$as "$SCRATCH/slicefs-user" umount --discard "$SCRATCH/his"
	'
}

@test "a folder of stores that others may write to is refused, by its name" {
	requires setpriv unshare
	cp "$SLICEFS" "$SCRATCH/slicefs-user" && chmod 755 "$SCRATCH/slicefs-user"
	mkdir "$SCRATCH/hers"; chown nobody "$SCRATCH/hers"
	export -f fails; export SCRATCH
	unshare -m bash -ec '
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm; chmod 666 /dev/fuse
		his() { setpriv --reuid=nobody --regid=65534 --clear-groups "$SCRATCH/slicefs-user" "$@"; }
		dir=/dev/shm/slicefs-$(id -u nobody)
		refused() { fails 1 "mount: $dir: not a folder that is this user.*Try:" his mount --pool-size 16M "$SCRATCH/hers"; }
		mkdir "$dir"; refused; rmdir "$dir"
		mkdir "$dir"; chown nobody "$dir"; chmod 777 "$dir"; refused; rmdir "$dir"
		ln -s /tmp "$dir"; chown -h nobody "$dir"; refused
	'
}

@test "wrong places are refused with one line" {
	fails 1 'No such file' "$SLICEFS" mount --pool-size 32M "$SCRATCH/missing/dir"
	touch "$SCRATCH/file"
	fails 1 'not a directory' "$SLICEFS" mount --pool-size 32M "$SCRATCH/file"
	for dir in / /proc /dev /run /sys; do # away from this machine's, should it succeed
		fails 1 "^slicefs: mount: $dir: .* would hide .*Try:" unshare -m "$SLICEFS" mount --pool-size 16M "$dir"
	done
	fails 1 'no such host' "$SLICEFS" mount host.invalid:1234 "$SCRATCH"
	fails 1 'no such host' "$SLICEFS" mount 'a b' "$SCRATCH"
	fails 2 'is not a value for it' "$SLICEFS" mount --store 'a/b' "$SCRATCH"
	fails 1 'no slicefs is mounted there' "$SLICEFS" umount "$SCRATCH"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
