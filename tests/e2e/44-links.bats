#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: crash
# long: tsan
# alone: deadlines of a second
# Three hosts, each a network namespace: a node, and two mounts of its store. Links
# are cut and healed.
load lib
setup_file() {
	begin_file
	export SHAPE=node A=$SCRATCH/a B=$SCRATCH/b TOKEN=$SCRATCH/token
	mkdir "$A" "$B"
	(umask 077; head -c 32 /dev/urandom >"$TOKEN")
	requires_root; requires ip nsenter
	# Numbers of their own, for others that run at the same time.
	export NET=slicefs$$ SUBNET=10.$((RANDOM % 100 + 100)).$((RANDOM % 250))
	ip netns add "$NET-n"
	nsenter --net="/run/netns/$NET-n" sh -c 'ip link set lo up; ip link add lan type bridge; ip link set dev lan up'
	nsenter --net="/run/netns/$NET-n" ip address add "$SUBNET.1/24" dev lan
	host 2; host 3
	nsenter --net="/run/netns/$NET-n" "$SLICEFS" serve --store "$STORE" --pool-size "$POOL" \
		--index-size "$INDEX" --keep-alive 3s --token-file "$TOKEN" --listen "$SUBNET.1:7747" \
		--log "$SCRATCH/log"
	mount_on 2 "$A"; mount_on 3 "$B"
}
teardown_file() {
	unmount_all
	end_node || true
	for n in n 2 3; do ip netns delete "$NET-$n" 2>/dev/null; done
	"$SLICEFS" store rm "$STORE" 2>/dev/null
	rm -rf --one-file-system "$SCRATCH"
}
teardown() { link 2 up; link 3 up; }

host() { # number
	ip netns add "$NET-$1"
	ip link add "v$1" netns "$NET-n" type veth peer name eth0 netns "$NET-$1"
	nsenter --net="/run/netns/$NET-n" ip link set "v$1" master lan up
	nsenter --net="/run/netns/$NET-$1" sh -c "ip link set lo up; ip link set eth0 up; ip address add $SUBNET.$1/24 dev eth0"
}

mount_on() { # number dir
	nsenter --net="/run/netns/$NET-$1" "$SLICEFS" mount --timeout 2s --cache 0s --token-file "$TOKEN" \
		--log "$SCRATCH/mount$1.log" "$SUBNET.1:7747" "$2"
}

link() { nsenter --net="/run/netns/$NET-n" ip link set "v$1" "$2"; } # number up|down

walk() { # steps
	mkdir "$A/walk"
	"${TWIN%/*}/walk" -n "$1" "$A/walk" "$B/walk" >"$SCRATCH/walk" || { cat "$SCRATCH/walk"; return 1; }
	cat "$SCRATCH/walk"
	rmdir "$B/walk"
}

@test "who has not the token is not let in" {
	mkdir -p "$SCRATCH/none"
	fails 1 'another token' nsenter --net="/run/netns/$NET-2" "$SLICEFS" mount "$SUBNET.1:7747" "$SCRATCH/none"
}

@test "what one mount has closed the other one opens (P2)" {
	for i in $(seq 20); do
		random_file "$SCRATCH/f" $((i * 50021)); cp "$SCRATCH/f" "$A/f"
		cmp "$B/f" "$SCRATCH/f"
		echo "$i" >"$B/g"; [ "$(cat "$A/g")" = "$i" ]
		mv "$B/g" "$B/h"; [ ! -e "$A/g" ]; [ "$(cat "$A/h")" = "$i" ]
		rm "$A/h"; [ ! -e "$B/h" ]
	done
	mkdir "$A/d"; cp -r "$BATS_TEST_DIRNAME" "$A/d"; diff -r "$BATS_TEST_DIRNAME" "$B/d/${BATS_TEST_DIRNAME##*/}"
	rm -r "$B/d" "$B/f"; [ -z "$(ls "$A")" ]
}

@test "what is open keeps its version, whatever the other mount does (P4)" {
	random_file "$SCRATCH/old" 3000000; cp "$SCRATCH/old" "$A/f"
	exec 5<"$A/f"
	echo new >"$B/f"; [ "$(cat "$A/f")" = new ]
	rm "$B/f"
	cmp "$SCRATCH/old" - <&5
	exec 5<&-
}

@test "a link that is cut for a moment costs nothing" {
	hold "$A/f" 1000000
	link 2 down; sleep 0.4; link 2 up
	let_go
	[ "$(stat -c %s "$B/f")" = 1000000 ]
	rm "$B/f"
}

@test "random operations through both mounts are as the model says (P2, P4)" {
	walk 20000
}

@test "and are while links are cut for a moment now and then (P6)" {
	local cuts longest=0
	: >"$SCRATCH/cuts"
	(
		trap 'exit 0' TERM
		while :; do
			for n in 2 3; do link "$n" down; sleep 0.3; link "$n" up; echo "$n"; sleep 0.8; done
		done
	) >"$SCRATCH/cuts" 3>&- & cuts=$!
	until [ "$(wc -l <"$SCRATCH/cuts")" -ge 6 ]; do
		walk 1000 || { kill "$cuts"; false; }
		# Calls wait for the link, and none for longer than it may: a step has some.
		longest=$(sed -n 's/.*longest step took \([0-9]*\) ms/\1/p' "$SCRATCH/walk")
		[ "$longest" -lt 6000 ] || { kill "$cuts"; false; }
	done
	kill "$cuts"
	wait "$cuts" || true
}

@test "a link that is cut for long costs what was not published, and no call more than its time (P5, P6)" {
	echo kept >"$A/kept"
	hold "$A/draft" 1000000
	link 2 down
	no within 4 cat "$A/nothing"
	within 1 df "$A"
	no within 6 sh -c 'echo x >"$1"' sh "$A/x"
	echo mine >"$B/draft" # the other one goes on, and the name is free
	link 2 up
	soon cat "$A/kept"
	let_go 2>/dev/null || true
	[ "$(cat "$A/draft")" = mine ]
	rm -f "$B"/*
}

@test "a mount ends while its link is cut" {
	link 3 down
	within 15 "$SLICEFS" umount "$B"
	link 3 up
	mount_on 3 "$B"
}

@test "when all is idle, nothing is in flight (P10)" {
	MNT=$A gauges_zero; MNT=$B gauges_zero
	"$SLICEFS" umount "$A"; "$SLICEFS" umount "$B"
	end_node
	fsck_clean
}
