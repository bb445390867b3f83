#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# One file, open in several ways at once: page cache and direct writes agree (P3).
load lib
setup_file() { begin_file; mount_fs; }
teardown_file() { end_file; }

@test "readers, mappings, O_DIRECT and writers see each other, whatever the order of opening" {
	"${TWIN%/*}/modes" "$MNT"
}

@test "a file that was read, then overwritten in place, reads as new" {
	head -c 1M /dev/zero >"$MNT/f"; cat "$MNT/f" >/dev/null
	dd if=/dev/urandom of="$MNT/f" bs=64k count=16 conv=notrunc status=none
	a=$(sha256sum <"$MNT/f"); b=$(dd if="$MNT/f" iflag=direct bs=1M status=none | sha256sum)
	[ "$a" = "$b" ]
	[ "$a" != "$(head -c 1M /dev/zero | sha256sum)" ]
}

@test "the page cache is kept from one open to the next" {
	head -c 4M /dev/urandom >"$MNT/kept"; cat "$MNT/kept" >/dev/null
	cat "$MNT/kept" >/dev/null; reads=$(stat_value 'op_duration_seconds_count{op="read"}')
	cat "$MNT/kept" >/dev/null
	again=$(stat_value 'op_duration_seconds_count{op="read"}')
	[ "$reads" -gt 0 ]
	# reading stats is direct, one read or two
	[ $((again - reads)) -le 3 ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
