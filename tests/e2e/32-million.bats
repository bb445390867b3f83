#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: long
# timeout: 1800
# A directory of a million entries: listed in constant memory, each once, also
# while it changes.
load lib
setup_file() { begin_file; export POOL=64M INDEX=1G; mount_fs; }
teardown_file() { end_file; }

own_kib() { awk '/^Rss(Anon|File)/ { n += $2 } END { print n }' "/proc/$(daemon_pid)/status"; }
anon_kib() { awk '/^RssAnon/ { print $2 }' "/proc/$(daemon_pid)/status"; }

@test "a million entries are made and listed, each once" {
	"${TWIN%/*}/bigdir" make "$MNT/big" 1000000
	# What the kernel knows costs less than 300 bytes each, beside 64 MiB for all.
	inodes=$(stat_value inodes) rss=$(own_kib)
	echo "# $inodes objects known to the kernel: $rss KiB" >&3
	[ "$rss" -lt $((65536 + inodes * 300 / 1024)) ]
	echo 2 >/proc/sys/vm/drop_caches; sleep 2
	before=$(anon_kib)
	"${TWIN%/*}/bigdir" list "$MNT/big" 1000000
	echo 2 >/proc/sys/vm/drop_caches; sleep 2
	after=$(anon_kib)
	echo "# listing a million: $before KiB before, $after KiB after" >&3
	[ $((after - before)) -le 16384 ]
}

@test "telldir and seekdir come back to the same entry, also under change" {
	"${TWIN%/*}/bigdir" seek "$MNT/big" 1000000
}

@test "removing all of them leaves nothing" {
	"${TWIN%/*}/bigdir" remove "$MNT/big" 1000000
	[ ! -e "$MNT/big" ]
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
