#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# A node: slicefs serve.
load lib
setup_file() { begin_file; }
teardown_file() { end_node || true; end_file; }
# One that failed leaves no node to the next.
teardown() { [[ -n ${BATS_TEST_COMPLETED:-} ]] || end_node || true; }

# Runs Python against the node. It has wire.py, and in `at` where the node is.
client() { # script
	PYTHONPATH=$BATS_TEST_DIRNAME python3 -B - "$(node at)" "$1" <<-'PYTHON'
	import os, sys, textwrap, time, wire
	at = sys.argv[1]
	def closed(s): # by the node
	    try:
	        while s.recv(65536): pass
	    except ConnectionError: pass
	    return True
	def said(*words):
	    print(*words, flush=True)
	exec(textwrap.dedent(sys.argv[2]))
	PYTHON
}

# The same in the background, until it has said a line; `finish` waits for its end.
begin() { # script
	: >"$SCRATCH/client"
	client "$1" >"$SCRATCH/client" 2>&1 3>&- &
	CLIENT=$!
	until_said . "$SCRATCH/client"
}

finish() { # pattern that it has said
	wait "$CLIENT"
	grep -q "$1" "$SCRATCH/client"
}

until_said() { # pattern file
	local _
	for _ in $(seq 500); do
		grep -q "$1" "$2" && return 0
		sleep 0.02
	done
	cat "$2"
	return 1
}

@test "serve returns when mounts can connect, and says where" {
	serve 2>"$SCRATCH/said"
	[[ $(cat "$SCRATCH/said") =~ ^"slicefs: node $STORE serves 127.0.0.1:"[0-9]+" (pool 64.0 MiB, index 64.0 MiB)"$ ]]
	client 'wire.Mount(at)'
}

@test "store ls and status show it as serving, and where" {
	[ "$(node state)" = serving ]
	[[ $(cat "$SCRATCH/said") =~ $(node at) ]]
	[ "$(readlink "/proc/$(node pid)/exe")" = "$(realpath "$SLICEFS")" ]
	"$SLICEFS" status --json | jq -e --arg s "$STORE" '.[] | select(.store == $s) |
		.state == "serving" and .pool == 67108864 and .used == null and .dir == null'
	"$SLICEFS" status | grep "^- *$STORE *serving *64.0 MiB *- "
}

@test "a store has one owner: no second node, no mount, no fsck, no removal" {
	pid=$(node pid)
	fails 1 "store $STORE: process $pid serves it already, at .*Try: kill $pid" serve
	fails 1 "in use by process $pid, which serves it at 127.*Try: kill $pid" mount_fs
	fails 1 "in use by process $pid, which serves it at 127.*Try: kill $pid" "$SLICEFS" fsck "$STORE"
	fails 1 "process $pid serves it at 127.*Try: kill $pid" "$SLICEFS" store rm "$STORE"
	fails 1 "no mount, but a store that process $pid serves.*Try: kill $pid" "$SLICEFS" umount "$STORE"
	[ "$(node pid)" = "$pid" ]
}

@test "rubbish is not let in, and the node goes on" {
	client '
	for bad in b"GET / HTTP/1.1\r\n\r\n" * 40, os.urandom(4096), b"\0" * 4096, b"\xff" * 4096:
	    c = wire.connect(at)
	    try: c.sendall(bad)
	    except ConnectionError: pass
	    assert closed(c)
	    m = wire.Mount(at)
	    try: m.s.sendall(bad)
	    except ConnectionError: pass
	    assert m.is_closed()
	c = wire.connect(at); c.sendall(b"\1"); c.close()
	many = [wire.connect(at) for _ in range(200)]
	for c in many: c.close()'
	client 'wire.Mount(at)'
	[ "$(node state)" = serving ]
}

@test "who says nothing is shown out, in seconds" {
	requires python3
	client 't = time.time(); assert closed(wire.connect(at)); assert time.time() - t < 9'
}

@test "TERM ends it in order, with the gauges at zero" {
	pid=$(node pid)
	end_node
	[ "$(node state)" = stopped ]
	[ "$(node at)" = null ]
	grep -q "told to end" "$SCRATCH/log"
	grep -E ' (error|warn): ' "$SCRATCH/log" | grep -v 'not let in' | no grep .
	fsck_clean
}

@test "the store is the one that a mount had, and a mount has it again" {
	mount_fs
	head -c 3M /dev/urandom >"$MNT/kept"
	sha256sum <"$MNT/kept" >"$SCRATCH/sum"
	fails 1 "store $STORE: in use by process $(daemon_pid), a mount or fsck. Try: slicefs status" serve
	"$SLICEFS" umount "$MNT"
	serve
	end_node
	mount_fs
	sha256sum <"$MNT/kept" | cmp - "$SCRATCH/sum"
	"$SLICEFS" umount "$MNT"
}

@test "kill -9, and the next one has the store" {
	serve
	kill_daemon
	[ "$(node state)" = stopped ]
	fsck_clean
	serve
	kill_daemon
	mount_fs
	sha256sum <"$MNT/kept" | cmp - "$SCRATCH/sum"
	gauges_zero
	"$SLICEFS" umount "$MNT"
}

@test "killed, and started again at once, at the port that it had" {
	local at _
	serve
	at=$(node at)
	end_node
	for _ in 1 2 3; do
		serve --listen "$at"
		[ "$(node at)" = "$at" ]
		kill -9 "$(node pid)"
	done
	serve --listen "$at"
	end_node
}

@test "an idle connection does not hold up its end" {
	serve --drain 1m
	begin 's = wire.connect(at); m = wire.Mount(at); said("there"); closed(s); m.is_closed(); said("closed")'
	SECONDS=0
	end_node
	[ "$SECONDS" -lt 10 ]
	finish closed
}

@test "what a session wrote and did not publish is free again when it is gone" {
	serve
	client '
	m = wire.Mount(at)
	assert m.stat()["total"] == 64 << 20 == m.pages * 4096
	free = m.stat()["free"]
	m.alloc(1000)
	assert m.stat()["free"] == free - 1000 * 4096
	m.s.close()
	n = wire.Mount(at)
	t = time.time()
	while n.stat()["free"] < free: assert time.time() - t < 10'
	end_node
}

@test "TERM lets a session finish what it writes, and nobody new in" {
	serve --drain 1m
	begin '
	m = wire.Mount(at)
	one = m.alloc(10)
	said("writes")
	while True:
	    try: wire.connect(at).close()
	    except ConnectionError: break
	    time.sleep(0.02)
	m.ask(wire.PING)
	assert m.seal(one) == 0
	m.unpin(one)
	m.is_closed()
	said("finished")'
	SECONDS=0
	end_node
	[ "$SECONDS" -lt 20 ]
	finish finished
	[ "$(node state)" = stopped ]
	fsck_clean
}

@test "it does not wait for longer than --drain" {
	serve --drain 300ms
	begin 'm = wire.Mount(at); m.alloc(10); said("writes"); m.is_closed(); said("closed")'
	SECONDS=0
	end_node
	[ "$SECONDS" -lt 10 ]
	finish closed
	grep -q "1 sessions end with something under way" "$SCRATCH/log"
	fsck_clean
}

@test "a second TERM ends it at once, and nothing is lost" {
	serve --drain 1h
	free=$(client 'said(wire.Mount(at).stat()["free"])')
	begin 'm = wire.Mount(at); m.alloc(10); said("writes"); m.is_closed(); said("closed")'
	pid=$(node pid)
	: >"$SCRATCH/log"
	kill -TERM "$pid"
	until_said "told to end" "$SCRATCH/log"
	sleep 0.5
	[ "$(node state)" = serving ]
	kill -TERM "$pid"
	gone "$pid" 5
	finish closed
	fsck_clean
	serve
	client "assert wire.Mount(at).stat()['free'] == $free"
	end_node
}

@test "as many sessions as it was told, and none that is silent for too long" {
	serve --max-sessions 2 --keep-alive 500ms
	client '
	a, b = wire.Mount(at), wire.Mount(at)
	try: wire.Mount(at); assert False
	except (wire.Refused, ConnectionError): pass
	t = time.time()
	while time.time() - t < 1.5: a.ask(wire.PING); time.sleep(0.1)
	assert b.is_closed()
	wire.Mount(at); a.ask(wire.PING)'
	end_node
}

@test "the token lets in who has it, and nobody else" {
	(umask 077; printf 'one token\n' >"$SCRATCH/token")
	serve --token-file "$SCRATCH/token"
	client 'wire.Mount(at, b"one token\n").ask(wire.PING)'
	client '
	for token in None, b"one token", b"another":
	    try: wire.Mount(at, token); assert False
	    except wire.Refused: pass'
	end_node
}

@test "in the foreground it is the shell's child, and INT ends it with status 0" {
	"$SLICEFS" serve --foreground --store "$STORE" --listen 127.0.0.1:0 2>"$SCRATCH/fg" 3>&- &
	pid=$!
	until_said "slicefs: node $STORE serves 127.0.0.1:" "$SCRATCH/fg"
	[ "$(node pid)" = "$pid" ]
	kill -INT "$pid"
	wait "$pid"
	[ "$(node state)" = stopped ]
	fails 1 '64 MiB.*128 MiB' serve --foreground --pool-size 128M
}

@test "who supervises it is told when it is ready, and when it stops" {
	requires python3
	for where in "$SCRATCH/notify" "@slicefs-$STORE"; do
		: >"$SCRATCH/told"
		python3 - "$where" >"$SCRATCH/told" 3>&- <<-'PYTHON' &
		import socket, sys
		at = sys.argv[1]
		s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
		s.bind("\0" + at[1:] if at[0] == "@" else at)
		s.settimeout(30)
		print("bound", flush=True)
		while True:
		    text = s.recv(4096).decode()
		    print(text, flush=True)
		    if "STOPPING=1" in text: break
		PYTHON
		listener=$!
		until_said bound "$SCRATCH/told"
		NOTIFY_SOCKET=$where serve
		until_said '^MAINPID=' "$SCRATCH/told"
		grep -qx READY=1 "$SCRATCH/told"
		grep -qx "MAINPID=$(node pid)" "$SCRATCH/told"
		grep -qx "STATUS=store $STORE at $(node at)" "$SCRATCH/told"
		no grep -q STOPPING "$SCRATCH/told"
		end_node
		wait "$listener"
		grep -qx STOPPING=1 "$SCRATCH/told"
	done
	NOTIFY_SOCKET=$SCRATCH/nobody serve
	end_node
	NOTIFY_SOCKET=nonsense serve
	end_node
}

@test "an address that cannot be listened at is refused before there is a store" {
	refused() { fails 1 "$1" "$SLICEFS" serve --store "$STORE-none" --pool-size 16M --log "$SCRATCH/log" "${@:2}"; }
	serve
	refused 'listen 127.0.0.1:[0-9]+: another process listens there. Try:' --listen "$(node at)"
	end_node
	refused 'listen nonsense.invalid:1: no such address. Try: --listen' --listen nonsense.invalid:1
	refused 'listen 127.0.0.1:99999: no such address. Try:' --listen 127.0.0.1:99999
	refused 'listen 127.0.0.1:port: no such address. Try:' --listen 127.0.0.1:port
	refused 'listen 192.0.2.1:7747: no address of this machine. Try:' --insecure --listen 192.0.2.1:7747
	refused 'listen 0.0.0.0:0: other machines can reach it, and there is no token. Try: --token-file' --listen 0.0.0.0:0
	"$SLICEFS" store ls | no grep -q "$STORE-none"
}

@test "beyond loopback with a token, or when it is told to" {
	(umask 077; head -c 32 /dev/urandom | base64 >"$SCRATCH/token")
	(cd "$SCRATCH" && serve --listen 0.0.0.0:0 --token-file token)
	[[ $(node at) =~ ^0.0.0.0: ]]
	end_node
	serve --listen 0.0.0.0:0 --insecure
	end_node
}

@test "a token file that is missing, empty, no file or anybody's is refused" {
	refused() { fails 1 "$1" serve --token-file "$2"; }
	refused "token file $SCRATCH/none: No such file" "$SCRATCH/none"
	: >"$SCRATCH/empty"; chmod 600 "$SCRATCH/empty"
	refused "token file $SCRATCH/empty: empty. Try:" "$SCRATCH/empty"
	refused "token file $SCRATCH: not a file" "$SCRATCH"
	echo secret >"$SCRATCH/open"; chmod 644 "$SCRATCH/open"
	refused "token file $SCRATCH/open: its mode 644 lets others at it. Try: chmod 600" "$SCRATCH/open"
	[ "$(node state)" = stopped ]
	fails 2 'token-file: is for a node' mount_fs --token-file "$SCRATCH/token"
}

@test "wrong options, sizes and names" {
	fails 2 'max-sessions: "0" is out of range. Try: 1 to 1024' serve --max-sessions 0
	fails 2 'keep-alive: "10" is not a value for it' serve --keep-alive 10
	fails 2 'timeout: no such option of slicefs serve, but one of slicefs mount. Try: slicefs serve --help' serve --timeout 1s
	fails 2 'listen: no such option of slicefs mount, but one of slicefs serve' mount_fs --listen 127.0.0.1:1
	fails 2 'lissen: no such option. Try: listen' serve --lissen x
	fails 2 '"here": it takes options only' serve here
	fails 2 'store "a b": letters' serve --store 'a b'
	fails 1 'available|memory' "$SLICEFS" serve --store "$STORE-none" --pool-size 900G --listen 127.0.0.1:0
	fails 1 '64 MiB.*128 MiB' serve --pool-size 128M
	fails 1 'log .*/missing/log: No such file or directory. Try:' serve --log "$SCRATCH/missing/log"
	"$SLICEFS" store ls | no grep -q "$STORE-none"
}

@test "an ordinary user can serve, too" {
	requires_root; requires setpriv unshare
	cp "$SLICEFS" "$SCRATCH/his-slicefs"; chmod 755 "$SCRATCH/his-slicefs"
	export SCRATCH STORE
	unshare -m bash -ec '
		mount -t tmpfs -o mode=1777 tmpfs /dev/shm
		his() { setpriv --reuid=nobody --regid=65534 --clear-groups "$SCRATCH/his-slicefs" "$@"; }
		his serve --store "$STORE" --pool-size 16M --index-size 16M --listen 127.0.0.1:0 --log /dev/null
		his store ls | grep -q serving
		pid=$(his store ls --json | jq ".[0].pid")
		kill -TERM "$pid"
		while [ -e "/proc/$pid/exe" ]; do sleep 0.02; done
		his fsck "$STORE"
	'
}

@test "when all is idle, nothing is in flight (P10)" { gauges_zero; fsck_clean "$MNT"; }
