# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the end-to-end tests share. Each file has a store of its own and a
# scratch folder; whatever happens, the mount and the store are gone at its end.
#
#   SLICEFS   the binary under test
#   TWIN      the side-by-side tester (tests/e2e/twin.c)
#   SHAPE     node: what is mounted is a node's store, over TCP on loopback; rdma: the
#             same from host h2 to host h1 of the virtual machine, by RDMA or not at
#             all (tests/vm/test-e2e); else the store of the mount itself
#   SLOW      how many times longer than elsewhere something may take (1)
#
# A file is:  load lib
#             setup_file() { begin_file; }
#             teardown_file() { end_file; }
#             setup() { begin_test; }
#             @test "..." { ... }
#             @test "when all is idle, nothing is in flight (P10)" { gauges_zero; }

: "${SLICEFS:=$BATS_TEST_DIRNAME/../../build/test/slicefs}"
: "${TWIN:=$(dirname "$SLICEFS")/tests/twin}"
: "${SHAPE:=}"
: "${SLOW:=1}"

begin_file() {
	export SCRATCH STORE MNT POOL=64M INDEX=64M
	SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/slicefs-e2e.XXXXXX")
	STORE=e2e-${BATS_TEST_FILENAME##*/}-$$
	STORE=${STORE//[^A-Za-z0-9._-]/-}
	MNT=$SCRATCH/mnt
	mkdir "$MNT"
	chmod 755 "$SCRATCH"
}

end_file() {
	local status=0
	unmount_all
	# A mount cannot ask a node to check itself.
	if is_of_node && [[ -n $(node pid) ]]; then
		[[ $(node pid) = 0 ]] || end_node || status=1
		fsck_clean || status=1
	fi
	"$SLICEFS" store rm "$STORE" 2>/dev/null
	rm -rf --one-file-system "$SCRATCH"
	return $status
}

begin_test() {
	[[ -n ${SCRATCH:-} ]] || begin_file
}

# Ends every slicefs mount below the scratch folder, answering or not.
unmount_all() {
	local dir
	while read -r dir; do
		"$SLICEFS" umount "$dir" 2>/dev/null || {
			"$SLICEFS" umount --abort "$dir" 2>/dev/null
			umount -l "$dir" 2>/dev/null
		}
	done < <(awk -v p="$SCRATCH/" '$3 == "fuse.slicefs" && index($2, p) == 1 { print $2 }' /proc/mounts | tac)
	return 0
}

mount_fs() { # options...
	if is_of_node; then
		[[ $(node state) == serving ]] || serve || return 1
		mount_at --log "$SCRATCH/mount.log" "$@" "$(node at)" "$MNT"
	else
		"$SLICEFS" mount --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" \
			--log "$SCRATCH/log" "$@" "$MNT"
	fi
}

# Nodes ---------------------------------------------------------------------------

is_of_node() { [[ $SHAPE == node || $SHAPE == rdma ]]; }

# Where the node is, and where the mounts are: the test itself is in h2. (Not ip netns exec,
# which has mounts of its own.)
serve_at() { # address or nothing, options...
	if [[ $SHAPE == rdma ]]; then
		nsenter --net=/run/netns/h1 "$SLICEFS" serve --listen "${1:-10.77.0.1:0}" --insecure \
			--transport rdma "${@:2}"
	else
		"$SLICEFS" serve --listen "${1:-127.0.0.1:0}" "${@:2}"
	fi
}

mount_at() { # options... HOST DIR
	if [[ $SHAPE == rdma ]]; then
		"$SLICEFS" mount --transport rdma --timeout $((10 * SLOW))s "$@"
	else
		"$SLICEFS" mount "$@"
	fi
}

# shellcheck disable=SC2120 # files pass options
serve() { # options...
	serve_at "" --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" --log "$SCRATCH/log" "$@"
}

node() { # a field of its line in `store ls`
	"$SLICEFS" store ls --json | jq -r --arg s "$STORE" --arg f "$1" '.[] | select(.store == $s) | .[$f]'
}

# Whoever has pool and index, as commands want it.
store_at() { if is_of_node; then node at; else echo "$MNT"; fi; }
# shellcheck disable=SC2120 # some pass options
scrub() { "$SLICEFS" scrub --rate 0 "$@" "$(store_at)"; }

# Waits until the process is gone, or waits for its parent only, for no longer than so
# many seconds: all of its threads, the last of which closes its files.
gone() { # pid seconds
	local _
	for _ in $(seq $(($2 * 50 * SLOW))); do
		grep -qv '[ZX] (' < <(grep -hs ^State /proc/"$1"/task/*/status) || return 0
		sleep 0.02
	done
	echo "process $1 is still there after $2 s"
	threads_of "$1"
	return 1
}

# In order.
end_node() {
	local pid
	pid=$(node pid)
	[[ $pid -gt 0 ]] || return 1
	kill -TERM "$pid"
	gone "$pid" 20
}

# What a mount has in hand of a node's slices is given back when it is idle.
stock_is_back() {
	local _
	for _ in $(seq $((50 * SLOW))); do
		[[ $(stat_value stock_bytes) != 0 ]] || return 0
		sleep 0.1
	done
	return 1
}

# The process behind the mount: of a node's store, its mount's.
mount_pid() { # dir
	local exe
	for exe in /proc/[0-9]*/exe; do
		[[ $exe -ef $SLICEFS ]] || continue # without a process for each
		tr '\0' '\n' <"${exe%exe}cmdline" | grep -qx mount &&
			tr '\0' '\n' <"${exe%exe}cmdline" | grep -qxF "$1" && basename "${exe%/exe}"
	done 2>/dev/null
	return 0 # the last one may be another one's
}

# ------------------------------------------------------------------------------------

# As mount_fs, the daemon's memory and threads watched by nobody else: a store of
# its own that starts empty.
mount_fresh() {
	"$SLICEFS" umount "$MNT" 2>/dev/null || true
	! is_of_node || end_node || true
	"$SLICEFS" store rm "$STORE" 2>/dev/null || true
	mount_fs "$@"
}

is_mounted() {
	awk -v d="$MNT" '$3 == "fuse.slicefs" && $2 == d { f = 1 } END { exit !f }' /proc/mounts
}

daemon_pid() {
	"$SLICEFS" store ls --json | jq -r --arg s "$STORE" '.[] | select(.store == $s) | .pid'
}

# The process behind $MNT.
served_by() {
	if is_of_node; then mount_pid "$MNT"; else daemon_pid; fi
}

# kill -9, and wait until the kernel has taken it away.
kill_daemon() {
	local pid
	pid=$(served_by)
	[[ $pid =~ ^[1-9][0-9]*$ ]] || { echo "not one process behind $MNT: '$pid'"; return 1; }
	kill -9 "$pid"
	while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}

# The same of whoever has the store; of a node's, its mount is ended as well.
crash() {
	local pid
	pid=$(daemon_pid)
	kill -9 "$pid"
	gone "$pid" 20
	! is_of_node || "$SLICEFS" umount --abort "$MNT"
}

# What a reboot leaves of a store that nobody has: what is on its disk.
lose_memory() {
	umount "/run/slicefs/$STORE/mem"
	sed -i 's/^boot .*/boot another/' "/run/slicefs/$STORE/store.txt"
}

remount() { # after a kill: the stale mount point is cleaned by mount itself
	mount_fs "$@"
}

stat_value() { # series, as in .slicefs/stats without its prefix
	awk -v s="slicefs_$1" '$1 == s { print $2 }' "$MNT/.slicefs/stats"
}

# The same of whoever has pool and index.
store_stats() { if is_of_node; then echo "$MNT/.slicefs/node-stats"; else echo "$MNT/.slicefs/stats"; fi; }
store_value() { awk -v s="slicefs_$1" '$1 == s { print $2 }' "$(store_stats)"; }

store_counts() { # series at-least
	[[ $(store_value "$1") -ge $2 ]] || { echo "$1: $(store_value "$1"), and not $2"; return 1; }
}

# What each is at: its name, and where in the kernel.
threads_of() { # pid
	local task
	for task in "/proc/$1/task"/*; do
		echo "$(<"$task/comm"): $(<"$task/wchan") $(<"$task/syscall")"
	done 2>/dev/null
	return 0
}

# P10: every gauge of things in flight is 0. The kernel sends RELEASE and FORGET
# after close() has returned, so it may take a moment; it may not take long. The
# reader itself is one request and one handle.
gauges_zero() {
	is_mounted || mount_fs
	local busy
	for _ in $(seq $((50 * SLOW))); do
		busy=$(awk '
			/^#/ { next }
			/^slicefs_pool_bytes\{state="(writing|sealed|dying)"\}/ ||
			/^slicefs_slices\{state="(writing|sealed|dying)"\}/ ||
			/^slicefs_(pins|remote_pins|stock_bytes|kept|drafts|files|transfers|batches|drops|accesses|notifications|index_calls|session_keys|eviction_waits|waits|scrubs) / {
				if ($2 != 0) print; next }
			/^slicefs_(handles|requests) / { if ($2 > 1) print }' "$MNT/.slicefs/stats")
		[[ $busy ]] || { by_rdma_only; return; }
		sleep 0.1
	done
	echo "still in flight when all is idle: $busy"
	grep -E '^slicefs_(handles|requests|inodes) ' "$MNT/.slicefs/stats"
	cat "$MNT/.slicefs/slices"
	threads_of "$(served_by)"
	return 1
}

# Where that was asked for, no byte of a slice has gone by TCP.
by_rdma_only() {
	[[ $SHAPE != rdma || $(stat_value 'transfer_bytes_total{transport="tcp"}') == 0 ]]
}

# The store is clean, stopped or mounted. (A node's is checked when it is stopped.)
# shellcheck disable=SC2120 # files pass DIR
fsck_clean() { # nothing, or DIR
	! is_of_node || [[ $# == 0 ]] || return 0
	"$SLICEFS" fsck "${1:-$STORE}"
}

# Skips, loudly, what this machine cannot do.
requires() { # command...
	local c
	for c; do
		command -v "$c" >/dev/null || {
			echo "# CANNOT RUN: $BATS_TEST_DESCRIPTION: $c is missing" >&3
			skip "$c is missing"
		}
	done
}

requires_root() {
	[[ $EUID == 0 ]] || {
		echo "# CANNOT RUN: $BATS_TEST_DESCRIPTION: needs root" >&3
		skip "needs root"
	}
}

# within SECONDS COMMAND...: it ends, however, in that time; 99: it did not.
within() {
	local limit=$1 from=${EPOCHREALTIME/./} status=0
	shift
	"$@" || status=$?
	local took=$(((${EPOCHREALTIME/./} - from) / 1000))
	((took <= limit * 1000 * SLOW)) || { echo "$* took $took ms"; return 99; }
	return $status
}

# Waits until it succeeds: tries so many times, so many seconds apart, and once more.
tries() { # times seconds command...
	local times=$1 pause=$2 _
	shift 2
	for _ in $(seq "$times"); do
		if "$@" >/dev/null 2>&1; then return 0; fi
		sleep "$pause"
	done
	"$@"
}

# For no longer than ten seconds.
soon() { tries $((100 * SLOW)) 0.1 "$@"; } # command...

# freeze PID: none of its threads runs any more. kill -CONT wakes it.
freeze() {
	kill -STOP "$1"
	soon is_frozen "$1"
}
is_frozen() { ! grep -h ^State /proc/"$1"/task/*/status | grep -qv 'T (stopped)'; }

# no COMMAND...: succeeds if the command fails, in its time. ("! command" never fails a test.)
no() {
	local status=0
	"$@" || status=$?
	((status != 0 && status != 99))
}

# fails STATUS PATTERN COMMAND...: exits so, with one line on stderr that matches.
fails() {
	local want=$1 pattern=$2 out status=0
	shift 2
	out=$("$@" 2>&1 >/dev/null) || status=$?
	[[ $status == "$want" ]] || { echo "status $status, not $want: $* said: $out"; return 1; }
	[[ $out =~ $pattern ]] || { echo "\"$out\" does not match \"$pattern\""; return 1; }
	[[ $(grep -vc '^Usage:' <<<"$out") == 1 ]] || { echo "not one line: $out"; return 1; }
}

# Starts `hold` (see hold.c) on a file and waits until it has written; its end is
# let_go, or the daemon's death.
hold() { # file bytes [offset [sync]]
	coproc HOLD { exec "${TWIN%/*}/hold" "$@" 3>&-; }
	local line
	read -r line <&"${HOLD[0]}" && [[ $line == ready ]]
}

let_go() {
	local pid=$HOLD_PID fd=${HOLD[1]}
	exec {fd}>&-
	wait "$pid" || true
}

# Writes what comes in, in as few requests as can be.
into() { dd of="$1" bs=1M iflag=fullblock status=none "${@:2}"; } # path, more of dd's

# A file of random bytes, with its checksum beside it in $SCRATCH/sums.
random_file() { # path bytes
	head -c "$2" /dev/urandom >"$1"
}
