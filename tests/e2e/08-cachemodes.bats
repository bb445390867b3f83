#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# shapes: own node
# labels: short
# One file, open in several ways at once: page cache and direct writes agree (P3).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

@test "readers, mappings, O_DIRECT and writers see each other, whatever the order of opening" {
	"${TWIN%/*}/modes" "$MNT" 4 4096
}

# A large file, in pieces that are not small: read past the page cache (fs/inode.c).
@test "so do those of a large file" {
	"${TWIN%/*}/modes" "$MNT" 4 131072
}

@test "a file that was read, then overwritten in place, reads as new" {
	head -c 1M /dev/zero >"$MNT/f"; cat "$MNT/f" >/dev/null
	dd if=/dev/urandom of="$MNT/f" bs=64k count=16 conv=notrunc status=none
	a=$(sha256sum <"$MNT/f"); b=$(dd if="$MNT/f" iflag=direct bs=1M status=none | sha256sum)
	[ "$a" = "$b" ]
	[ "$a" != "$(head -c 1M /dev/zero | sha256sum)" ]
}

@test "the page cache is kept from one open to the next" {
	head -c 900K /dev/urandom >"$MNT/kept"; cat "$MNT/kept" >/dev/null
	cat "$MNT/kept" >/dev/null; reads=$(stat_value 'op_duration_seconds_count{op="read"}')
	cat "$MNT/kept" >/dev/null
	again=$(stat_value 'op_duration_seconds_count{op="read"}')
	[ "$reads" -gt 0 ]
	# reading stats is direct, one read or two
	[ $((again - reads)) -le 3 ]
}

@test "large files are read past the page cache, until somebody maps them or reads small pieces" {
	requires_root
	! is_of_node || skip "off by default on a node's store, where the page cache spares the network"
	local reads again n=0
	reads() { stat_value 'op_duration_seconds_count{op="read"}'; }
	for way in none map pieces; do
		head -c 4M /dev/urandom >"$MNT/large-$way"
		cat "$MNT/large-$way" >/dev/null
		case $way in
		map) python3 -c 'import mmap,sys; f=open(sys.argv[1],"rb"); m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ); assert m[:]==f.read()' "$MNT/large-map" ;;
		pieces) dd if="$MNT/large-pieces" bs=4k status=none >/dev/null ;;
		esac
		cat "$MNT/large-$way" >/dev/null
		reads=$(reads); cat "$MNT/large-$way" >/dev/null; again=$(reads)
		case $way in
		# Of a node's store the page cache saves the way there: it is off by default.
		none) if is_of_node; then [ $((again - reads)) -le 3 ]; else [ $((again - reads)) -ge 4 ]; fi ;;
		*) [ $((again - reads)) -le 3 ] ;;
		esac
		n=$((n + 1))
	done
	[ "$n" = 3 ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
