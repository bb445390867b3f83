#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: short
# long: asan node-tsan
# What is published when: what a crash leaves (P1, P2, P5).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

@test "what was closed is there after kill -9; what was not is gone, name and slices" {
	head -c 100000 /dev/urandom >"$SCRATCH/r"; cp "$SCRATCH/r" "$MNT/closed"
	hold "$MNT/open" 300000
	[ "$(stat -c %s "$MNT/open")" = 300000 ]
	kill_daemon; let_go
	remount
	cmp "$MNT/closed" "$SCRATCH/r"; [ ! -e "$MNT/open" ]
	gauges_zero; fsck_clean "$MNT"
}

@test "fsync publishes while the file stays open" {
	hold "$MNT/synced" 70000 0 sync
	[ "$(stat -c %s "$MNT/synced")" = 140000 ]
	kill_daemon; let_go
	remount
	[ "$(stat -c %s "$MNT/synced")" = 70000 ]; [ "$(tr -d H <"$MNT/synced" | wc -c)" = 0 ]
}

# Like hold, by a few lines of python, in which d is the mount.
hold_by() { # program
	coproc HOLD { exec python3 -c "import os, sys; d = sys.argv[1]
$1
print('ready', flush=True); sys.stdin.read()" "$MNT" 3>&-; }
	local line
	read -r line <&"${HOLD[0]}" && [[ $line == ready ]]
}

@test "what O_SYNC, O_DSYNC and RWF_DSYNC write is published when the write returns" {
	requires python3
	hold_by '
for how in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_DIRECT):
    for sync in (os.O_SYNC, os.O_DSYNC, 0):
        f = os.open("%s/sync-%o" % (d, how | sync), os.O_CREAT | how | sync)
        assert os.pwritev(f, [b"S" * 5000], 0, 0 if sync else os.RWF_DSYNC) == 5000
        if sync: os.write(os.open("%s/not-%o" % (d, how | sync), os.O_CREAT | how), b"N")'
	kill_daemon; let_go
	remount
	[ "$(cat "$MNT"/sync-* | tr -d -c S | wc -c)" = 45000 ]; [ "$(find "$MNT" -name 'not-*')" = "" ]
	gauges_zero; fsck_clean "$MNT"
}

@test "what O_RDONLY with O_TRUNC has cut is published by its close" {
	requires python3
	echo long >"$MNT/cut"
	hold_by 'os.close(os.dup(os.open(d + "/cut", os.O_RDONLY | os.O_TRUNC)))'
	kill_daemon; let_go
	remount
	[ "$(stat -c %s "$MNT/cut")" = 0 ]
}

@test "an overwrite that was not closed leaves the old version whole" {
	head -c 5M /dev/urandom >"$SCRATCH/old"; cp "$SCRATCH/old" "$MNT/o"
	hold "$MNT/o" 40960 409600
	no cmp -s "$MNT/o" "$SCRATCH/old"
	kill_daemon; let_go
	remount
	cmp "$MNT/o" "$SCRATCH/old"
}

@test "a draft renamed over a published file leaves that one in place after a crash" {
	echo old >"$MNT/dst"
	hold "$MNT/tmp" 5; mv "$MNT/tmp" "$MNT/dst"
	[ "$(cat "$MNT/dst")" = HHHHH ]
	kill_daemon; let_go
	remount
	[ "$(cat "$MNT/dst")" = old ]; [ ! -e "$MNT/tmp" ]
}

@test "tmp, close, rename: old or new, never nothing" {
	for i in $(seq 20); do
		(for j in $(seq 100); do echo "$i $j" >"$MNT/t.tmp" && mv "$MNT/t.tmp" "$MNT/t"; done) 2>/dev/null 3>&- &
		sleep "0.0$((RANDOM % 9 + 1))"
		kill_daemon; wait || true
		remount
		if [ "$i" -gt 1 ]; then [[ $(cat "$MNT/t") =~ ^[0-9]+\ [0-9]+$ ]]; fi
		[ -e "$MNT/t" ] || echo "$i 0" >"$MNT/t"
	done
}

@test "touch is published when it is closed" {
	touch "$MNT/empty"; gauges_zero
	kill_daemon; remount
	[ -e "$MNT/empty" ]; [ "$(stat -c %s "$MNT/empty")" = 0 ]
}

@test "a link to a draft, and attributes set on it, are published with it" {
	hold "$MNT/a" 5000; ln "$MNT/a" "$MNT/b"; chmod 640 "$MNT/a"; chown 5:6 "$MNT/b"; setfattr -n user.k -v v "$MNT/a"
	let_go
	kill_daemon; remount
	[ "$(stat -c '%a %u %g %h' "$MNT/b")" = "640 5 6 2" ]; [ "$(getfattr --only-values -n user.k "$MNT/a")" = v ]
	[ "$(stat -c %i "$MNT/a")" = "$(stat -c %i "$MNT/b")" ]
}

@test "the ctime of what has not been closed yet moves with its names, and is published" {
	hold "$MNT/c" 5000
	for change in "ln c c2" "rm c" "mv c2 c3"; do
		before=$(stat -c %.Z "$MNT"/c* | head -n 1); sleep 0.02
		(cd "$MNT" && eval "$change")
		[[ $(stat -c %.Z "$MNT"/c* | head -n 1) > $before ]]
	done
	after=$(stat -c %.Z "$MNT/c3")
	let_go
	kill_daemon; remount
	[ "$(stat -c %.Z "$MNT/c3")" = "$after" ]
}

@test "writes through a mapping after close are published" {
	"${TWIN%/*}/latemap" "$MNT/late"
	gauges_zero
	kill_daemon; remount
	[ "$(head -c 4 "$MNT/late")" = LATE ]
}

@test "unlinking a draft's name gives back what it replaced and hid" {
	head -c 3000000 /dev/urandom >"$MNT/old"; live=$(stat_value 'pool_bytes{state="live"}')
	perl -e 'open(D, ">", "$ARGV[0]/draft") && syswrite(D, "n" x 5000) && rename("$ARGV[0]/draft", "$ARGV[0]/old") &&
		unlink("$ARGV[0]/old") or die $!' "$MNT"
	[ ! -e "$MNT/old" ]; gauges_zero; fsck_clean "$MNT"
	[ "$(stat_value 'pool_bytes{state="live"}')" -le $((live - 3000000)) ]
}

# O_PATH: it was looked up, and not opened yet. Then a rename replaces it, and
# what was looked up is opened.
replaced_then_opened() { # file replacement
	perl -e 'sysopen(P, $ARGV[0], 010000000) && rename($ARGV[1], $ARGV[0]) or die $!;
		open(F, "<", "/proc/self/fd/" . fileno(P)) or die "open: $!\n"; print <F>' "$@"
}

@test "who looked a name up before a rename replaced it can open what was there (P2)" {
	for size in 0 1 900 5000 3000000; do
		head -c "$size" /dev/urandom >"$SCRATCH/r"; cp "$SCRATCH/r" "$MNT/r"; echo new >"$MNT/n"
		replaced_then_opened "$MNT/r" "$MNT/n" | cmp - "$SCRATCH/r"
		[ "$(cat "$MNT/r")" = new ]
	done
	gauges_zero; fsck_clean "$MNT"
}

# hidden_then_opened DIR WHEN: what a draft's name replaces is opened, before and
# after the draft is published, or given up.
hidden_then_opened() {
	perl -e 'my ($dir, $when) = @ARGV; chdir $dir or die;
		open(D, ">", "draft") && syswrite(D, "n" x 5000) or die $!;
		sysopen(P, "h", 010000000) && rename("draft", "h") or die $!;
		close(D) or die $! if $when eq "after";
		unlink("h") or die $! if $when eq "unlinked";
		open(F, "<", "/proc/self/fd/" . fileno(P)) or die "open: $!\n";
		close(D) or die $! if $when eq "before";
		print <F>' "$MNT" "$1"
}

@test "who looked a name up before a draft replaced it can open what was there (P2, P9)" {
	for size in 0 900 5000 3000000; do
		for when in before after unlinked; do
			head -c "$size" /dev/urandom >"$SCRATCH/h"; cp "$SCRATCH/h" "$MNT/h"
			hidden_then_opened "$when" | cmp - "$SCRATCH/h"
			if [ "$when" = unlinked ]; then [ ! -e "$MNT/h" ]; else [ "$(stat -c %s "$MNT/h")" = 5000 ]; fi
		done
		gauges_zero; fsck_clean "$MNT"
	done
}

@test "what was replaced is open for writing like any file without a name" {
	head -c 9000 /dev/urandom >"$MNT/w"; echo new >"$MNT/n"
	perl -e 'sysopen(P, $ARGV[0], 010000000) && rename($ARGV[1], $ARGV[0]) or die $!;
		open(F, "+<", "/proc/self/fd/" . fileno(P)) or die "open: $!\n";
		print F "x" x 9000; seek(F, 0, 0); <F> eq "x" x 9000 or die;
		open(G, "<", "/proc/self/fd/" . fileno(P)) or die "open: $!\n"; <G> eq "x" x 9000 or die;
		close F or die; <G>; seek(G, 0, 0); <G> eq "x" x 9000 or die; close G or die' "$MNT/w" "$MNT/n"
	[ "$(cat "$MNT/w")" = new ]
	gauges_zero; fsck_clean "$MNT"
}

@test "readers of a name that is replaced all the time find it always, whole (P1, P2)" {
	seq -w 0 9999 >"$MNT/target"
	(for i in $(seq 400); do seq -w 0 9999 >"$MNT/t$i"; mv "$MNT/t$i" "$MNT/target"; done) 3>&- &
	while kill -0 $! 2>/dev/null; do [ "$(wc -c <"$MNT/target")" = 50000 ]; done
	wait $!
	gauges_zero; fsck_clean "$MNT"
}

@test "what was replaced and is still known gives way to who needs the room (P7)" {
	# each is more than half of the pool
	head -c 40M /dev/zero >"$MNT/half"; echo new >"$MNT/n"
	perl -e 'sysopen(P, $ARGV[0], 010000000) && rename($ARGV[1], $ARGV[0]) or die $!;
		system("head -c 40M /dev/zero >$ARGV[2]") == 0 or die "no room";
		open(F, "<", "/proc/self/fd/" . fileno(P)) and die "still there"; exit 0' \
		"$MNT/half" "$MNT/n" "$MNT/other"
	[ "$(stat -c %s "$MNT/other")" = 41943040 ]
	rm "$MNT/half" "$MNT/other"
	gauges_zero; fsck_clean "$MNT"
}

# unnamed PERL: done to a file, named $p, of $n times "o", that was looked up. There are
# open_it(MODE), text() and size() of what was looked up, whatever its name is by now.
unnamed() {
	perl -e '$dir = shift; $n = 9000; $p = "$dir/unnamed";
		sub open_it { open(my $f, shift, "/proc/self/fd/" . fileno(P)) or die "open: $!"; return $f }
		sub text { my $f = open_it("<"); local $/; my $t = <$f>; return $t }
		sub size { return (stat(P))[7] }
		open($f, ">", $p) && syswrite($f, "o" x $n) && close($f) or die $!;
		sysopen(P, $p, 010000000) or die $!;
		eval shift; die $@ if $@;' "$MNT" "$1"
}

@test "who looked a name up before it was unlinked can open it, as everywhere" {
	unnamed 'unlink($p) or die; text() eq "o" x $n or die; text() eq "o" x $n or die'
	# what one writes, the next one reads
	unnamed 'unlink($p) or die; my $f = open_it("+<"); syswrite($f, "new"); close($f) or die; text() eq "new" . "o" x ($n - 3) or die'
	# open while it loses its name
	unnamed 'my $f = open_it("<"); unlink($p) or die; close($f); text() eq "o" x $n or die'
	unnamed 'my $f = open_it("+<"); syswrite($f, "one"); unlink($p) or die; seek($f, 0, 0); syswrite($f, "two"); close($f) or die;
		text() eq "two" . "o" x ($n - 3) or die'
	# never published
	unnamed 'close(P); open($f, ">", "$p.d") && syswrite($f, "draft") or die; sysopen(P, "$p.d", 010000000) or die;
		unlink("$p.d") or die; close($f) or die; text() eq "draft" or die; unlink($p)'
	# cut short
	unnamed 'unlink($p) or die; truncate("/proc/self/fd/" . fileno(P), 5) or die "truncate: $!"; size() == 5 or die size(); text() eq "ooooo" or die'
	unnamed 'unlink($p) or die; open_it(">"); size() == 0 && text() eq "" or die'
	gauges_zero; fsck_clean "$MNT"
}

@test "what has no name and is still known is no damage" {
	unnamed 'unlink($p) or die; system("grep -q \"^slicefs_kept 1\" $dir/.slicefs/stats") == 0 or die;
		system("cat $dir/.slicefs/check >&2; ! grep -q . $dir/.slicefs/check") == 0 or die'
	gauges_zero
}

@test "what has no name gives way to who needs the room, whatever he does (P7)" {
	full() {
		unnamed "open(\$f, '>', \$p) && syswrite(\$f, 'o' x (40 << 20)) && close(\$f) or die; unlink(\$p) or die;
			my \$q = \"\$dir/other\"; $1; open(\$f, '<', '/proc/self/fd/' . fileno(P)) and die 'still there'; unlink(\$q)"
		gauges_zero
	}
	full 'system("head -c 40M /dev/zero >$q") == 0 or die'
	full 'system("fallocate -l 40M $q") == 0 or die'
	full 'my @df = split(" ", qx(df -B1 --output=avail $dir)); $df[1] > (50 << 20) or die "df: $df[1]"; system("head -c 40M /dev/zero >$q") == 0 or die'
	fsck_clean "$MNT"
}

@test "names that come and go are there or are not, and nothing else is said" {
	for run in 1 2 3; do
		mkdir "$MNT/races$run"
		races "$MNT/races$run" 15
	done
	rm -rf "$MNT"/races*
	gauges_zero; fsck_clean "$MNT"
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
