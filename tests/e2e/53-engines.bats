#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# long: tsan
# timeout: 1800
# shapes: own node
# What inference engines do with a directory, call for call (engines.c, docs/engines.md), in
# four processes that write ten times the pool, hundred times with tests/run --full. The mount
# forgets meanwhile: no wrong byte, no part of a file, no call past the deadline, no error but
# ENOENT.
load lib
setup_file() {
	begin_file
	export POOL=32M INDEX=8M MIB=320 MNT2=$SCRATCH/mnt2
	[[ -z ${SLICEFS_FULL:-} ]] || MIB=3200
	mkdir "$MNT2"
	mount_fs
}
teardown_file() { end_file; }
setup() {
	is_mounted || mount_fs
	rm -rf "${MNT:?}"/*
	soon eval '[ "$(stat_value kept)" = 0 ] || ! is_of_node'
}

# What has gone for want of room: of a node's store only the node knows. What an engine's own
# evictor unlinks is none of it.
evicted() { store_value 'evictions_total{reason="pool"}'; }

use_as() { # engine dirs...
	local before
	before=$(evicted)
	engines "$1" "$MIB" 300 "${@:2}"
	[ "$(evicted)" -gt "$before" ]
	rm -rf "${MNT:?}"/*
	gauges_zero
}

@test "vLLM's file system tier: O_DIRECT, one write, one readv" { use_as vllm "$MNT"; }

@test "LMCache's FSConnector: a head and a chunk" { use_as lmcache "$MNT"; }

@test "LMCache's FSConnector with O_DIRECT: one write, one read" { use_as lmcache-direct "$MNT"; }

@test "SGLang's HiCacheFile: a duplicate descriptor, one read" { use_as sglang "$MNT"; }

@test "llm-d's backend, and its evictor, at the same time as the mount's own" { use_as llmd "$MNT"; }

@test "safetensors: what is mapped stays whole when its name has gone (P4)" { use_as safetensors "$MNT"; }

@test "all of them at once" { use_as storm "$MNT"; }

@test "two mounts of a node: what one has stored the other one loads" {
	is_of_node || skip "an own store has one mount"
	mount_at --log "$SCRATCH/mount2.log" "$(node at)" "$MNT2"
	local e
	for e in vllm lmcache lmcache-direct sglang llmd safetensors storm; do use_as "$e" "$MNT" "$MNT2"; done
	MNT=$MNT2 gauges_zero
	"$SLICEFS" umount "$MNT2"
}

@test "what utimensat marks as used stays" {
	local i
	head -c 500000 /dev/urandom >"$SCRATCH/marked"; cp "$SCRATCH/marked" "$MNT/marked"
	for i in $(seq 200); do
		head -c 500000 /dev/zero >"$MNT/f$i"
		touch -a -c "$MNT/marked"
	done
	cmp "$SCRATCH/marked" "$MNT/marked"
	[ ! -e "$MNT/f1" ]
}

@test "the store is whole" { fsck_clean "$MNT"; }

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; }
