#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# long: asan tsan
# shapes: own node
# timeout: 1800
# What users say of how long something stays, below a store that has no room for what is
# written, beside kill -9, SIGTERM, and the end of a mount that is in use: what is pinned and
# published is there, in its last version; what has lived is not; quotas are kept; nothing
# else is ever there than what was written (P1, P2, P5, P7, P8). keepers.py does and checks it.
load lib
setup_file() {
	begin_file
	export POOL=16M INDEX=8M LEDGER=$SCRATCH/ledger MNT2=$SCRATCH/mnt2 SEED=${SEED:-1}
	if is_of_node; then export ROUNDS=1 EVENTS=2 TIMEOUT_S=2; else export ROUNDS=3; fi
	if [[ -n ${SLICEFS_FULL:-} ]]; then
		ROUNDS=$((ROUNDS * 12)) EVENTS=4
	fi
	export DISK
	DISK=$(mktemp -d "${SSD_DIR:-/var/tmp}/slicefs-ssd.XXXXXX") # the scratch folder may be memory
	mkdir "$MNT2"
	echo "# SEED=$SEED" >&3
}
teardown_file() { end_file; rm -rf "$DISK"; }
setup() {
	requires python3
	RANDOM=$SEED
	OPTIONS=(--evict-high 95 --evict-low 90)
}
teardown() {
	[[ -n ${BATS_TEST_COMPLETED:-} ]] || { touch "$LEDGER/stop"; unmount_all; end_node; } 2>/dev/null || true
}

keepers() { python3 "$BATS_TEST_DIRNAME/keepers.py" "$@"; }

# Whoever has the store; begun again at the same address.
start_store() { # address or nothing
	if is_of_node; then
		serve_at "${1:-}" --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" \
			--keep-alive 1s --drain 1s --log "$SCRATCH/log" "${OPTIONS[@]}"
	else
		mount_fs "${OPTIONS[@]}"
	fi
}

start_mount() { # dir
	! is_of_node || mount_at --log "$SCRATCH/mount.log" --timeout "${TIMEOUT_S}s" "$(node at)" "$1"
}

begin() {
	unmount_all
	! is_of_node || end_node || true
	"$SLICEFS" store rm "$STORE" 2>/dev/null || true
	rm -rf "$LEDGER"; mkdir "$LEDGER"
	start_store
	start_mount "$MNT"; start_mount "$MNT2"
	keepers make "$LEDGER" "$MNT" k1 k2 k3 k4
}

# Of the own store all keepers are at its mount, else half of them at each.
declare -gA at_work
go_to_work() { # dir
	local who=(k1 k2 k3 k4) mnt=$1 k
	if is_of_node; then
		export AWAY=1
		if [[ $1 == "$MNT" ]]; then
			who=(k1 k2) mnt=$MNT:$MNT2
		else
			who=(k3 k4) mnt=$MNT2:$MNT
		fi
	fi
	keepers work "$LEDGER" "$mnt" "${who[@]}" >>"$SCRATCH/said" 2>&1 3>&- &
	at_work[$1]=$!
	AWAY=0
	for k in "${who[@]}"; do soon test -e "$LEDGER/$k.at-work"; done
}

comes_back() { # dir: from work
	wait "${at_work[$1]}" || { cat "$SCRATCH/said"; return 1; }
}

a_while() { sleep "$((RANDOM % 2)).$((RANDOM % 10))"; }

# The ends of a mount's process, or a node's. A thread that is just telling the kernel to
# forget a name stays, if somebody holds the directory and waits for an answer; then only an
# abort ends it (docs/next.md).
kills() { # pid [dir]
	kill -9 "$1"
	[[ -z ${2:-} ]] || gone "$1" 3 || "$SLICEFS" umount --abort "$2"
	gone "$1" 10
}
terms() { kill -TERM "$1"; gone "$1" 20; } # pid
lets_go() { "$SLICEFS" umount --lazy "$2"; gone "$1" 20; } # pid dir

process_of() { if is_of_node; then mount_pid "$1"; else daemon_pid; fi; } # dir

# A mount ends with all that is done in it, and there is another one.
mount_ends() { # how dir
	"$1" "$(process_of "$2")" "$2"
	comes_back "$2"
}

set_torn() { # how
	export TORN=0
	[[ $1 != terms ]] || TORN=1
}

own_round() { # how number
	echo "round $2: $1"
	set_torn "$1"
	go_to_work "$MNT"
	a_while
	mount_ends "$1" "$MNT"
	fsck_clean
	start_store
	fsck_clean "$MNT"
	((TORN == 0 && RANDOM % 2)) || keepers check "$LEDGER" "$MNT"
}

own_rounds() {
	local how hows=(kills lets_go kills terms) i
	for i in $(seq "$ROUNDS"); do
		how=${hows[(i - 1) % 4]}
		own_round "$how" "$i"
	done
}

# Of a node -----------------------------------------------------------------------------

node_ends() { # how
	local at pid
	at=$(node at) pid=$(node pid)
	"$1" "$pid"
	fsck_clean
	start_store "$at"
}

mount_ends_and_begins() { # how dir
	mount_ends "$1" "$2"
	start_mount "$2"
	set_torn "$1"
	go_to_work "$2"
}

# In any order, at nearly the same moment; or one, and the other goes on.
something_ends() { # which how
	local dir=$MNT
	[[ $1 != *2 ]] || dir=$MNT2
	echo "$1: $2"
	set_torn kills
	case $1 in
	node) node_ends "$2" ;;
	mount[12]) mount_ends_and_begins "$2" "$dir" ;;
	node+mount*)
		local at
		at=$(node at)
		"$2" "$(node pid)"
		"$2" "$(mount_pid "$dir")" "$dir"
		fsck_clean
		comes_back "$dir"
		start_store "$at"; start_mount "$dir"; go_to_work "$dir" ;;
	mount+node*)
		kills "$(mount_pid "$dir")" "$dir"
		node_ends "$2"
		comes_back "$dir"
		start_mount "$dir"; go_to_work "$dir" ;;
	esac
}

both_answer() { ls "$MNT" "$MNT2"; }

all_stop_and_check() {
	touch "$LEDGER/stop"
	comes_back "$MNT"; comes_back "$MNT2"
	rm "$LEDGER/stop"
	soon both_answer
	sleep 1.2 # --cache
	keepers check "$LEDGER" "$MNT"
}

node_rounds() {
	local whats=("node kills" "mount1 kills" "mount2 lets_go" "node+mount1 kills" "mount1 terms"
		"node terms" "mount+node2 kills" "mount2 kills") i
	for i in $(seq "$ROUNDS"); do
		go_to_work "$MNT"; go_to_work "$MNT2"
		for _ in $(seq "$EVENTS"); do
			a_while
			# shellcheck disable=SC2086 # two words
			something_ends ${whats[RANDOM % ${#whats[@]}]}
		done
		a_while
		all_stop_and_check
	done
}

# What the node counts, for all of its mounts.
node_is_idle() {
	awk '/^slicefs_(pins|remote_pins|stock_bytes|kept|drafts|files|handles|transfers|batches|drops|session_keys|eviction_waits|recalls) / ||
		/^slicefs_slices\{state="(writing|sealed|dying)"\}/ { if ($2 != 0) { print; bad = 1 } }
		/^slicefs_sessions / { if ($2 != 2) { print; bad = 1 } } END { exit bad }' "$MNT/.slicefs/node-stats"
}

# ----------------------------------------------------------------------------------------

free_bytes() { # of the store
	local file=$MNT/.slicefs/stats
	! is_of_node || file=$MNT/.slicefs/node-stats
	awk '$1 == "slicefs_pool_bytes{state=\"free\"}" { print $2 }' "$file"
}
all_is_given_back() { [[ $(free_bytes) == $((16 << 20)) ]]; }

idle() {
	if is_of_node; then
		stock_is_back
		MNT=$MNT2 stock_is_back
		MNT=$MNT2 gauges_zero
		soon node_is_idle
	fi
	gauges_zero
}

finish() {
	keepers rest "$LEDGER" "$MNT"
	is_of_node || fsck_clean "$MNT"
	idle
	cat "$SCRATCH/said" >&3
	[[ ${OPTIONS[*]} == *--ssd* ]] || keepers turns "$MNT"
	rm -rf "${MNT:?}"/*
	soon all_is_given_back || { grep '^slicefs_pool_bytes' "$MNT/.slicefs/stats"; return 1; }
	idle
}

rounds() { if is_of_node; then node_rounds; else own_rounds; fi; }

@test "what is said of files holds beside the ends of the processes" {
	begin
	rounds
	finish
}

@test "the same with a disk below, where nothing goes for want of room" {
	OPTIONS=(--ssd "$DISK/ssd" --ssd-size 1G --ssd-wait 60s)
	export STRICT=1
	begin
	rounds
	finish
}
