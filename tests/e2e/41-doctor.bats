#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# slicefs doctor: on this host, and towards a node that is there, or gone, or frozen, or
# wants another token.
load lib
setup_file() { begin_file; }
teardown_file() { stop || true; end_file; }
# One that failed leaves no node to the next.
teardown() { [[ -n ${BATS_TEST_COMPLETED:-} ]] || stop || true; }

start() { # options...
	rm -f "$SCRATCH/log"
	serve "$@"
	AT=$(node at)
	PID=$(node pid)
}

# In order, and nothing was in flight in it (P10).
stop() {
	kill -CONT "$(node pid)"
	end_node
	no grep 'in flight' "$SCRATCH/log"
}

# Its pool is as empty as it was.
all_is_free() {
	PYTHONPATH=$BATS_TEST_DIRNAME python3 -B - "$AT" "$@" <<-'PYTHON'
	import sys, time, wire
	token = open(sys.argv[2], "rb").read() if len(sys.argv) > 2 else None
	m = wire.Mount(sys.argv[1], token)
	end = time.time() + 20
	while m.stat()["free"] < m.stat()["total"]:
	    assert time.time() < end, m.stat()
	    time.sleep(0.1)
	PYTHON
}

# Its report goes to $SCRATCH/report. The status is that of the report: other mounts on this
# host are none of this test's business.
doctor() { # options...
	local status=0 want=0
	"$SLICEFS" doctor --json "$@" >"$SCRATCH/report" 2>"$SCRATCH/said" || status=$?
	[[ ! -s $SCRATCH/said ]] || { cat "$SCRATCH/said"; return 1; }
	jq -e 'all(.[]; .verdict == "bad") | not' "$SCRATCH/report" >/dev/null
	if jq -e 'any(.[]; .verdict == "bad")' "$SCRATCH/report" >/dev/null; then want=1; fi
	[[ $status == "$want" ]] || { echo "status $status, not $want"; cat "$SCRATCH/report"; return 1; }
}

# That check has that verdict, and found what matches.
finds() { # check verdict pattern
	local line
	line=$(jq -r --arg c "$1" '.[] | select(.check == $c) | .verdict + " " + .found' "$SCRATCH/report")
	[[ $line =~ ^$2\ .*$3 ]] || { echo "$1: \"$line\", not $2 $3"; return 1; }
}

advises() { # check pattern
	local try
	try=$(jq -r --arg c "$1" '.[] | select(.check == $c) | .try' "$SCRATCH/report")
	[[ $try =~ $2 ]] || { echo "$1: try \"$try\", not $2"; return 1; }
}

steps=("node name" "node port" "path MTU" "node token" "node session" "node ping"
	"tcp write" "tcp read" "rdma way" "rdma ping" "rdma write" "rdma read" "rdma requests")

# All from that step on are skipped, and each step has a line.
skips_from() { # step
	local s on=
	for s in "${steps[@]}"; do
		[[ $s != "$1" ]] || on=1
		finds "$s" '[a-z]+' ''
		[[ -z $on ]] || finds "$s" skipped '' || return 1
	done
}

@test "a table for people and JSON have the same checks" {
	requires jq
	doctor
	jq -e 'all(.[]; (.verdict | IN("ok", "warn", "bad", "skipped")) and (.check | type == "string")
		and (.found | type == "string") and (.try | type | IN("string", "null")))' "$SCRATCH/report"
	jq -e 'all(.[] | select(.verdict == "bad"); .try != null)' "$SCRATCH/report"
	"$SLICEFS" doctor >"$SCRATCH/text" || true
	diff <(grep -v '^ ' "$SCRATCH/text" | awk '{ print $1, $2 }' | grep -v -e '^.* mounts' -e '^.* stores') \
		<(jq -r '.[] | .verdict + " " + (.check | split(" ")[0])' "$SCRATCH/report" |
			grep -v -e '^.* mounts' -e '^.* stores')
}

@test "without a node it looks at this host only" {
	doctor
	finds /dev/fuse ok ''
	finds libfuse ok '3\.[0-9]+'
	finds memory '(ok|bad)' 'pool of .* with an index of'
	finds 'rdma devices' '(ok|skipped)' ''
	skips_from "node name"
}

@test "a pool that does not fit is bad, and one that does is said" {
	doctor --pool-size 900T
	finds memory bad 'a pool of 900 TiB .* does not fit'
	advises memory 'slicefs mount --pool-size [0-9]+M DIR'
	doctor --pool-size 16M
	finds memory ok 'a pool of 16 MiB .* fits'
}

@test "a mount whose daemon was killed, and its store, are found" {
	mount_fs
	doctor
	finds mounts '(ok|bad)' ''
	jq -e --arg m "$MNT" 'all(.[]; .found | contains($m) | not)' "$SCRATCH/report"
	kill_daemon
	doctor
	jq -e --arg m "$MNT" 'any(.[]; .check == "mounts" and .verdict == "bad" and
		.found == $m + ": its daemon is gone" and .try == "slicefs umount " + $m)' "$SCRATCH/report"
	jq -e --arg s "$STORE" 'any(.[]; .check == "stores" and .verdict == "warn" and
		(.try | contains(" " + $s)))' "$SCRATCH/report"
	"$SLICEFS" umount "$MNT"
}

@test "a mount that does not answer is found in time" {
	mount_fs
	pid=$(daemon_pid)
	freeze "$pid"
	SECONDS=0
	doctor --timeout 1s
	took=$SECONDS
	kill -CONT "$pid"
	jq -e --arg m "$MNT" 'any(.[]; .check == "mounts" and .verdict == "bad" and
		.found == $m + ": no answer within 1 s" and .try == "slicefs umount --abort " + $m)' "$SCRATCH/report"
	[ "$took" -lt 15 ]
	"$SLICEFS" umount "$MNT"
}

@test "a node is reached, let us in, and moved bytes; all that was taken is given back" {
	requires python3
	start
	doctor "$AT"
	finds "node name" ok "$AT"
	finds "node port" ok 'connected after [0-9.]+ ms'
	finds "path MTU" '(ok|warn)' '[0-9]+ bytes by lo'
	finds "node token" ok 'lets anybody in'
	finds "node session" ok 'protocol version 6, .* pool of 64 MiB, 64 MiB free'
	finds "node ping" ok '100 by TCP: min 0\.[0-9]+, avg [0-9.]+, max [0-9.]+ ms'
	finds "tcp write" ok '[1-9][0-9]* MB/s'
	finds "tcp read" ok '[1-9][0-9]* MB/s'
	finds "rdma way" skipped '(there is no RDMA device|built without)'
	finds "rdma write" skipped ''
	all_is_free
	doctor "localhost:${AT##*:}"
	finds "node name" ok 'localhost'
	stop
}

@test "the right token lets us in, and another, or none, does not" {
	requires python3
	(umask 077; echo one >"$SCRATCH/token"; echo two >"$SCRATCH/other")
	start --token-file "$SCRATCH/token"
	doctor --token-file "$SCRATCH/token" "$AT"
	finds "node token" ok 'both have the same'
	finds "tcp read" ok 'MB/s'
	doctor --token-file "$SCRATCH/other" "$AT"
	finds "node token" bad 'another token'
	advises "node token" 'without --token-file, or with that of the node'
	skips_from "node session"
	doctor "$AT"
	finds "node token" bad 'another token'
	advises "node token" '--token-file PATH'
	chmod 644 "$SCRATCH/token"
	doctor --token-file "$SCRATCH/token" "$AT"
	finds "node token" bad 'its mode 644 lets others at it'
	doctor --token-file "$SCRATCH/none" "$AT"
	finds "node token" bad 'No such file'
	chmod 600 "$SCRATCH/token"
	all_is_free "$SCRATCH/token"
	stop
}

@test "a node that is full does not let us in, and goes on" {
	requires python3
	start --max-sessions 1
	: >"$SCRATCH/client"
	rm -f "$SCRATCH/done"
	PYTHONPATH=$BATS_TEST_DIRNAME python3 -B -c "
import os, time, wire
m = wire.Mount('$AT')
print('there', flush=True)
while not os.path.exists('$SCRATCH/done'): time.sleep(0.05); m.ask(wire.PING)" \
		>"$SCRATCH/client" 3>&- &
	client=$!
	for _ in $(seq 200); do grep -q there "$SCRATCH/client" && break; sleep 0.05; done
	doctor "$AT"
	touch "$SCRATCH/done"
	wait "$client"
	finds "node session" bad 'or is full'
	skips_from "node ping"
	stop
}

@test "nobody there, no such host, nonsense" {
	start
	stop
	doctor "$AT"
	finds "node port" bad 'Connection refused'
	advises "node port" "slicefs serve --listen $AT"
	skips_from "path MTU"
	doctor nobody.invalid
	finds "node name" bad 'no such host|do not answer'
	skips_from "node port"
	doctor 127.0.0.1:99999
	finds "node name" bad 'not HOST or HOST:PORT'
}

@test "what is no slicefs is said to be none" {
	requires python3
	python3 -c "
import socket
s = socket.create_server(('127.0.0.1', 0))
print(s.getsockname()[1], flush=True)
s.settimeout(20)
while True:
    c, _ = s.accept()
    try: c.recv(100); c.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n' * 4)
    except OSError: pass
    c.close()" >"$SCRATCH/port" 2>/dev/null 3>&- &
	other=$!
	for _ in $(seq 200); do [[ -s $SCRATCH/port ]] && break; sleep 0.05; done
	doctor "127.0.0.1:$(cat "$SCRATCH/port")"
	kill "$other"
	finds "node session" bad 'no slicefs node'
	skips_from "node ping"
}

@test "a frozen node is bad in time, and has nothing of it left when it goes on" {
	requires python3
	start
	freeze "$PID"
	SECONDS=0
	doctor --timeout 1s "$AT"
	took=$SECONDS
	kill -CONT "$PID"
	finds "node port" ok ''
	finds "node session" bad 'timed out'
	advises "node session" 'kill -CONT'
	skips_from "node ping"
	[ "$took" -lt 15 ]
	all_is_free
	stop
}

@test "one that freezes or is killed while bytes move is bad in time, too" {
	requires python3
	for signal in STOP KILL; do
		start
		SECONDS=0
		doctor --timeout 1s "$AT" &
		for _ in $(seq 200); do grep -q begins "$SCRATCH/log" && break; sleep 0.02; done
		sleep 0.7
		kill -$signal "$PID"
		wait $!
		[ "$SECONDS" -lt 20 ]
		jq -e 'any(.[]; .verdict == "bad" and (.check | IN("tcp write", "tcp read", "node ping")))' "$SCRATCH/report"
		if [ "$signal" = STOP ]; then
			kill -CONT "$PID"
			all_is_free
			stop
		fi
	done
	fsck_clean
}

@test "wrong options" {
	fails 2 'one node at most' "$SLICEFS" doctor a b
	fails 2 'token-file: of which node' "$SLICEFS" doctor --token-file x
	fails 2 '":1" is no node' "$SLICEFS" doctor :1
	fails 2 '"" is no node' "$SLICEFS" doctor ""
	fails 2 'timeout: "soon" is not a value' "$SLICEFS" doctor --timeout soon
	fails 2 'pool-size: "x" is not' "$SLICEFS" doctor --pool-size x
	fails 2 '--timeout: it takes a value' "$SLICEFS" doctor --timeout
}

@test "an ordinary user gets a report, too" {
	requires_root; requires setpriv
	cp "$SLICEFS" "$SCRATCH/his-slicefs"; chmod 755 "$SCRATCH/his-slicefs"
	status=0
	setpriv --reuid=nobody --regid=65534 --clear-groups "$SCRATCH/his-slicefs" doctor --json \
		>"$SCRATCH/report" || status=$?
	[ "$status" -le 1 ]
	finds "huge pages" '(ok|warn)' '/dev/shm, which is mounted with'
	finds user_allow_other '(ok|warn)' ''
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
