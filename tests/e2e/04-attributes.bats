#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: short
# Attributes, links, special files, extended attributes, ACLs.
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }
setup() { cd "$MNT" || return 1; }
teardown() { cd /; }

@test "chmod, chown and times stick, also over a remount" {
	echo x >f; chmod 4751 f; chown 12:34 f; chmod 4751 f; touch -d '2001-02-03 04:05:06.789' f
	[ "$(stat -c '%a %u %g %y' f)" = "4751 12 34 $(stat -c %y f)" ]
	before=$(stat -c '%a %u %g %y %s %i' f)
	cd /; "$SLICEFS" umount "$MNT"; mount_fs; cd "$MNT"
	[ "$(stat -c '%a %u %g %y %s %i' f)" = "$before" ]
	[[ $(stat -c %y f) == "2001-02-03 04:05:06.789"* ]]
}

@test "times far away in both directions" {
	touch -d '1902-01-01 00:00:00 UTC' old; touch -d '2400-01-01 00:00:00 UTC' new
	[ "$(stat -c %Y old)" = "$(date -d '1902-01-01 00:00:00 UTC' +%s)" ]
	[ "$(stat -c %Y new)" = "$(date -d '2400-01-01 00:00:00 UTC' +%s)" ]
}

@test "hard links share one inode and count" {
	echo one >a; ln a b; mkdir -p d; ln b d/c
	[ "$(stat -c '%h' a)" = 3 ]
	[ "$(stat -c %i a)" = "$(stat -c %i d/c)" ]
	echo two >>d/c; [ "$(tail -n1 a)" = two ]
	rm a; [ "$(stat -c %h b)" = 2 ]; rm b; [ "$(stat -c %h d/c)" = 1 ]; [ "$(wc -l <d/c)" = 2 ]
}

@test "directories count their sub-directories" {
	mkdir -p p/a p/b p/c; [ "$(stat -c %h p)" = 5 ]
	rmdir p/a; [ "$(stat -c %h p)" = 4 ]
	mkdir q; mv p/b q/; [ "$(stat -c %h p) $(stat -c %h q)" = "3 3" ]
}

@test "symbolic links, fifos, sockets and devices" {
	requires_root
	ln -s "some/where else" s; [ "$(readlink s)" = "some/where else" ]
	long=$(printf 'x%.0s' $(seq 4000)); ln -s "$long" l; [ "$(readlink l)" = "$long" ]
	mkfifo pipe; (echo through >pipe &); [ "$(cat pipe)" = through ]
	mknod n c 1 3; echo gone >n; [ "$(stat -c '%t,%T %F' n)" = "1,3 character special file" ]
	mknod z b 7 300; [ "$(stat -c '%t,%T' z)" = "7,12c" ]
}

@test "set-group-id directories hand their group on" {
	mkdir g; chown 0:77 g; chmod 2775 g; touch g/f; mkdir g/d
	[ "$(stat -c %g g/f) $(stat -c '%g %a' g/d)" = "77 77 2755" ]
}

@test "the umask applies" {
	(umask 027; touch m; mkdir md); [ "$(stat -c %a m) $(stat -c %a md)" = "640 750" ]
}

@test "a write by another user clears set-user-id" {
	requires setpriv
	echo x >suid; chown 12345:12345 suid; chmod 6777 suid; chmod 777 .
	setpriv --reuid=23456 --regid=23456 --clear-groups sh -c 'echo y >>suid'
	[ "$(stat -c %a suid)" = 777 ]
}

@test "a stat for the mode alone, right after such a write, says so as well" {
	requires setpriv
	for _ in $(seq 100); do
		rm -f suid; echo x >suid; chown 12345:12345 suid; chmod 6777 suid
		setpriv --reuid=23456 --regid=23456 --clear-groups sh -c 'echo y >>suid'
		[ "$(stat -c %a suid)" = 777 ]
	done
}

# The kernel takes it away of what goes through its cache, and leaves the rest to us.
loses_capability() { # perl's flags, who writes
	cp /bin/true cap; chmod 777 cap; setcap cap_net_raw+ep cap; [ -n "$(getcap cap)" ]
	"${@:2}" perl -e 'use Fcntl; sysopen(F, "cap", eval $ARGV[0]) && syswrite(F, "x") or die $!' "$1"
	[ -z "$(getcap cap)" ]
}

@test "a write takes capabilities away, however the file is opened, and root's, too" {
	requires setcap getcap setpriv perl
	chmod 777 .
	for flags in O_WRONLY O_RDWR "O_WRONLY | $(python3 -c 'import os; print(os.O_DIRECT)')"; do
		loses_capability "$flags"
		loses_capability "$flags" setpriv --reuid=12345 --regid=12345 --clear-groups
	done
	# Of what is open, was written to and is not published yet.
	perl -e 'open(F, ">", "cap2") && syswrite(F, "x") && !system("setcap", "cap_net_raw+ep", "cap2") &&
		!system("getcap cap2 | grep -q cap_net_raw") && syswrite(F, "y") or die $!'
	[ -z "$(getcap cap2)" ]
}

@test "what has other extended attributes is asked for its capabilities once, not at each write" {
	requires setfattr perl
	touch cap3; setfattr -n user.a -v b cap3
	asked() { echo $(($(stat_value index_reads_total) + $(stat_value remote_requests_total))); }
	before=$(asked)
	perl -e 'open(F, ">", "cap3") or die; syswrite(F, "x") or die $! for 1 .. 200'
	[ $(($(asked) - before)) -lt 100 ]
}

@test "extended attributes" {
	requires setfattr getfattr
	touch x
	setfattr -n user.one -v 1 x; setfattr -n user.two -v 22 x; setfattr -n trusted.t -v 3 x
	[ "$(getfattr --only-values -n user.two x)" = 22 ]
	[ "$(getfattr -d x | grep -c user)" = 2 ]
	setfattr -x user.one x; no getfattr -n user.one x
	head -c 60000 /dev/zero | tr '\0' v >"$SCRATCH/v"
	setfattr -n user.big -v "$(cat "$SCRATCH/v")" x; [ "$(getfattr --only-values -n user.big x | wc -c)" = 60000 ]
	cd /; "$SLICEFS" umount "$MNT"; mount_fs; cd "$MNT"
	[ "$(getfattr --only-values -n user.two x)" = 22 ]
}

@test "extended attributes have four namespaces, and trusted.* is root's" {
	requires setfattr getfattr setpriv setfacl
	touch y; chmod 666 y; chmod 755 .
	for name in none.a system.a user. user .; do no setfattr -n "$name" -v 1 y; done
	setfattr -n user.mine -v 1 y; setfattr -n trusted.yours -v 2 y
	[ "$(getfattr -m - y | grep -c trusted)" = 1 ]
	as="setpriv --reuid=12345 --regid=12345 --clear-groups"
	[ "$($as getfattr -m - y | grep -cE 'trusted|user')" = 1 ]
	touch z; setfattr -x system.posix_acl_access z
}

@test "a read is noted as with relatime, and with --noatime not at all" {
	local option later
	for option in --noatime ""; do
		cd /; "$SLICEFS" umount "$MNT"; mount_fs $option; cd "$MNT"
		echo x >noted; touch -d '2001-02-03 04:05:06' noted; touch -m noted
		[ "$(stat -c %X noted)" = "$(date -d '2001-02-03 04:05:06' +%s)" ]
		cat noted >/dev/null
		# That is told within a second; the end of the mount does not wait for it.
		sleep $((2 * SLOW))
		cd /; "$SLICEFS" umount "$MNT"; mount_fs; cd "$MNT"
		later=$(stat -c %X noted)
		case $option in
		--noatime) [ "$later" = "$(date -d '2001-02-03 04:05:06' +%s)" ] ;;
		*) [ "$later" -ge "$(($(date +%s) - 60 * SLOW))" ] ;;
		esac
	done
}

@test "a chown to the same owner moves the ctime" {
	touch same; before=$(stat -c %z same); sleep 0.05; chown 0:0 same
	[ "$(stat -c %z same)" != "$before" ]
	before=$(stat -c %z same); sleep 0.05
	perl -e 'chown(-1, -1, "same") == 1 or die'
	[ "$(stat -c %z same)" != "$before" ]
}

@test "access control lists, inherited and rewritten by chmod" {
	requires setfacl getfacl
	mkdir acl; setfacl -d -m u:12345:rwx acl; touch acl/f; mkdir acl/d
	getfacl -c acl/f | grep -q 'user:12345:rwx'
	getfacl -c acl/d | grep -q 'default:user:12345:rwx'
	touch w; setfacl -m u:12345:rw,g:7:r w; getfacl -c w | grep -q 'mask::rw'
	chmod 600 w; getfacl -c w | grep -q 'mask::---'
	setfacl -b w; [ "$(getfacl -c w | grep -c 12345)" = 0 ]
}

@test "an ACL decides who may read" {
	requires setfacl setpriv
	chmod 755 .; echo secret >priv; chmod 600 priv
	as="setpriv --reuid=12345 --regid=12345 --clear-groups"
	no $as cat priv
	setfacl -m u:12345:r priv; $as cat priv | grep -q secret
	no $as sh -c 'echo >>priv'
}

@test "permissions are checked" {
	requires setpriv
	echo x >root; chmod 600 root; mkdir closed; chmod 700 closed
	as="setpriv --reuid=12345 --regid=12345 --clear-groups"
	no $as cat root; no $as ls closed; no $as rm -f closed/x; no $as touch closed/x
}

@test "when all is idle, nothing is in flight (P10)" { cd /; gauges_zero; fsck_clean "$MNT"; }
