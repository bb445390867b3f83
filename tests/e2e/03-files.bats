#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: short
# Files and directories, as one works with them in a shell.
load lib
setup_file() { begin_file; export POOL=256M; mount_fs; }
teardown_file() { end_file; }
setup() { cd "$MNT" || return 1; }
teardown() { cd /; }

@test "cp in, cat out, for sizes around every limit" {
	for n in 0 1 100 1023 1024 1025 4095 4096 4097 65535 65536 65537 1048575 1048577 4194303 4194305 33554433; do
		random_file "$SCRATCH/r" "$n"; cp "$SCRATCH/r" f; cmp f "$SCRATCH/r"; cat f | cmp - "$SCRATCH/r"
		[ "$(stat -c %s f)" = "$n" ]
	done
}

@test "a 4 KiB file wastes less than a quarter, one over 1 MiB less than 1 %" {
	before=$(stat_value 'pool_bytes{state="free"}')
	for i in $(seq 100); do head -c 4096 /dev/urandom >"small$i"; done; stock_is_back
	used=$((before - $(stat_value 'pool_bytes{state="free"}'))); [ "$used" -le $((409600 * 5 / 4)) ]
	before=$(stat_value 'pool_bytes{state="free"}')
	for i in 1 2 3; do head -c $((1048577 + i * 777777)) /dev/urandom >"large$i"; done; stock_is_back
	used=$((before - $(stat_value 'pool_bytes{state="free"}')))
	want=$((3 * 1048577 + 6 * 777777)); [ "$used" -le $((want * 101 / 100)) ] || { echo "$used for $want"; false; }
	rm small* large*
}

@test "appending, in small and in large pieces" {
	: >log; for i in $(seq 300); do echo "line $i" >>log; done
	[ "$(wc -l <log)" = 300 ]; [ "$(tail -n1 log)" = "line 300" ]
	head -c 100000 /dev/zero >>log; [ "$(stat -c %s log)" = $((100000 + $(seq 300 | sed 's/^/line /' | wc -c))) ]
}

@test "cmd > f, where the shell closes a duplicate before the first byte" {
	echo old >f; (sleep 0.1; echo new) >f; [ "$(cat f)" = new ]
	(echo a; echo b; echo c) >new; [ "$(wc -l <new)" = 3 ]
	dd if=/dev/zero of=ddout bs=64k count=3 status=none; [ "$(stat -c %s ddout)" = 196608 ]
}

@test "truncated down and up again it reads as zero" {
	head -c 10000 /dev/urandom >t; truncate -s 5000 t; truncate -s 10000 t
	[ "$(tail -c 5000 t | tr -d '\0' | wc -c)" = 0 ]
	truncate -s 0 t; [ "$(stat -c '%s %b' t)" = "0 0" ]
}

@test "sparse files to 8 TiB" {
	dd if=/dev/urandom of=sparse bs=4096 count=1 seek=$((8 * 1024 * 1024 * 1024 / 4 - 2)) status=none
	[ "$(stat -c %b sparse)" -le 16 ]
	[ "$(stat -c %s sparse)" = $(((8 * 1024 * 1024 * 1024 / 4 - 1) * 4096)) ]
	[ "$(head -c 100000 sparse | tr -d '\0' | wc -c)" = 0 ]
	rm sparse
}

@test "O_DIRECT with any alignment" {
	random_file "$SCRATCH/r" 3000001
	dd if="$SCRATCH/r" of=d bs=1M oflag=direct status=none 2>/dev/null || dd if="$SCRATCH/r" of=d bs=1000003 oflag=direct status=none
	cmp d "$SCRATCH/r"
	dd if=d of="$SCRATCH/o" bs=12345 iflag=direct status=none; cmp "$SCRATCH/o" "$SCRATCH/r"
}

@test "names of 255 bytes, and odd ones; 256 is too long" {
	n=$(printf 'n%.0s' $(seq 255)); echo x >"$n"; [ "$(cat "$n")" = x ]; mv "$n" "m${n:1}"; rm "m${n:1}"
	run touch "${n}x"; [ "$status" != 0 ]; [[ $output =~ "too long" ]]
	for odd in ' ' $'a\nb' $'\xff\xfe' '*' '-rf' 'ä€😀' '...' $'\x01'; do echo "$odd" >"./$odd"; [ "$(cat "./$odd")" = "$odd" ]; rm -- "./$odd"; done
}

@test "rename replaces, moves directories, and refuses what it must" {
	echo 1 >a; echo 2 >b; mv a b; [ "$(cat b)" = 1 ]; [ ! -e a ]
	mkdir -p x/y; mv x z; [ -d z/y ]; run mv z z/y/; [ "$status" != 0 ]
	mkdir full; touch full/f; mkdir empty; run mv -T empty full; [ "$status" != 0 ]; mv -T full empty; [ -e empty/f ]
	run rmdir empty; [ "$status" != 0 ]; rm -r empty z b
}

parent_listed() { # dir: the number of ".." in its listing, where stat would look it up
	python3 -c '
import ctypes, os, sys
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_uint16),
                ("type", ctypes.c_uint8), ("name", ctypes.c_char * 256)]
c = ctypes.CDLL(None)
c.opendir.restype = ctypes.c_void_p
c.readdir.restype = ctypes.POINTER(Dirent)
d = ctypes.c_void_p(c.opendir(os.fsencode(sys.argv[1])))
while e := c.readdir(d):
    if e.contents.name == b"..":
        print(e.contents.ino)' "$1"
}

@test "a directory that has moved lists its new parent, whatever the kernel had kept" {
	requires python3
	mkdir -p "$MNT/p1/a" "$MNT/p2/b"
	for _ in 1 2 3; do parent_listed "$MNT/p1/a"; parent_listed "$MNT/p2/b"; done
	mv "$MNT/p1/a" "$MNT/p2/a"
	for _ in 1 2 3; do [ "$(parent_listed "$MNT/p2/a")" = "$(stat -c %i "$MNT/p2")" ]; done
	mv "$MNT/p2/a" "$MNT/p1/a"
	for _ in 1 2 3; do [ "$(parent_listed "$MNT/p1/a")" = "$(stat -c %i "$MNT/p1")" ]; done
	python3 -c '
import ctypes, os, sys
names = [os.fsencode(n) for n in sys.argv[1:]]
assert ctypes.CDLL(None).renameat2(-100, names[0], -100, names[1], 2) == 0' "$MNT/p1/a" "$MNT/p2/b"
	[ "$(parent_listed "$MNT/p1/a")" = "$(stat -c %i "$MNT/p1")" ]
	[ "$(parent_listed "$MNT/p2/b")" = "$(stat -c %i "$MNT/p2")" ]
	rm -r "$MNT/p1" "$MNT/p2"
}

@test "an unlinked file that is open lives on" {
	echo keep >u; exec 7<>u; rm u; echo more >&7; [ "$(cat /proc/self/fd/7)" = "$(printf 'more\n')" ] || cat <&7 | grep -q keep; exec 7>&-
	[ ! -e u ]
}

@test "a directory of 20,000 files lists each once" {
	mkdir many; (cd many && seq 20000 | xargs touch)
	[ "$(ls many | sort -n | uniq | wc -l)" = 20000 ]; [ "$(ls -f many | wc -l)" = 20002 ]
	[ "$(find many -name '*7' | wc -l)" = 2000 ]
	rm -r many; [ ! -e many ]
}

@test "removing while listing removes all" {
	mkdir gone; (cd gone && seq 3000 | xargs touch); find gone -type f -delete; rmdir gone
}

@test "what has gone before a listing begins is not in it, whoever lists beside" {
	local n bigdir="${TWIN%/*}/bigdir"
	for n in 6 64 3000; do
		"$bigdir" make turns $n
		"$bigdir" turns turns $n
		"$bigdir" remove turns $((n / 2))
	done
}

@test "df counts what is used" {
	# What is available is that and what can be evicted.
	before=$(df --output=used -B1 . | tail -n1); head -c 20M /dev/zero >z; sync
	after=$(df --output=used -B1 . | tail -n1); [ $((after - before)) -ge 20000000 ]
	rm z
}

@test "when all is idle, nothing is in flight (P10)" { cd /; gauges_zero; fsck_clean "$MNT"; }
