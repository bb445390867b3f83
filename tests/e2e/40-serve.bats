#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short crash
# A node: slicefs serve.
load lib
setup_file() { begin_file; }
teardown_file() { end_node || true; end_file; }

serve() { # options...
	"$SLICEFS" serve --store "$STORE" --pool-size "$POOL" --index-size "$INDEX" \
		--listen 127.0.0.1:0 --log "$SCRATCH/log" "$@"
}

node() { # a field of its line in `store ls`
	"$SLICEFS" store ls --json | jq -r --arg s "$STORE" --arg f "$1" '.[] | select(.store == $s) | .[$f]'
}

# Waits until the process is gone, or waits for its parent only, for no longer than so
# many seconds.
gone() { # pid seconds
	local _
	for _ in $(seq $(($2 * 50))); do
		[[ -e /proc/$1/exe ]] || return 0
		sleep 0.02
	done
	echo "process $1 is still there after $2 s"
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

# A client that speaks no slicefs. In the script: s is a socket of the node's.
client() { # script
	python3 - "$(node at)" "$1" <<-'PYTHON'
	import os, socket, sys, textwrap, time
	host, port = sys.argv[1].rsplit(":", 1)
	def connect():
	    s = socket.create_connection((host, int(port)), 5)
	    s.settimeout(20)
	    return s
	def closed(s): # by the node
	    try:
	        while s.recv(65536): pass
	    except ConnectionError: pass
	    return True
	s = connect()
	exec(textwrap.dedent(sys.argv[2]))
	PYTHON
}

@test "serve returns when mounts can connect, and says where" {
	serve 2>"$SCRATCH/said"
	[[ $(cat "$SCRATCH/said") =~ ^"slicefs: node $STORE serves 127.0.0.1:"[0-9]+" (pool 64.0 MiB, index 64.0 MiB)"$ ]]
	client 'assert s.getpeername()'
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
	    c = connect()
	    try: c.sendall(bad)
	    except ConnectionError: pass
	    assert closed(c)
	c = connect(); c.sendall(b"\1"); c.close()
	many = [connect() for _ in range(200)]
	for c in many: c.close()'
	client 'assert s.getpeername()'
	[ "$(node state)" = serving ]
}

@test "who says nothing is shown out, in seconds" {
	requires python3
	client 't = time.time(); assert closed(s); assert time.time() - t < 9'
}

@test "TERM ends it in order, with the gauges at zero" {
	pid=$(node pid)
	end_node
	[ "$(node state)" = stopped ]
	[ "$(node at)" = null ]
	grep -q "told to end" "$SCRATCH/log"
	no grep -qiE 'error|assert' "$SCRATCH/log"
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

@test "an idle connection does not hold up its end" {
	serve --drain 1m
	client 'print("there", flush=True); closed(s); print("closed", flush=True)' >"$SCRATCH/idle" 3>&- &
	idle=$!
	for _ in $(seq 250); do grep -q there "$SCRATCH/idle" && break; sleep 0.02; done
	SECONDS=0
	end_node
	[ "$SECONDS" -lt 10 ]
	wait "$idle"
	grep -q closed "$SCRATCH/idle"
}

@test "in the foreground it is the shell's child, and INT ends it with status 0" {
	"$SLICEFS" serve --foreground --store "$STORE" --listen 127.0.0.1:0 2>"$SCRATCH/fg" 3>&- &
	pid=$!
	for _ in $(seq 250); do grep -q "node $STORE serves" "$SCRATCH/fg" && break; sleep 0.02; done
	grep -q "slicefs: node $STORE serves 127.0.0.1:" "$SCRATCH/fg"
	[ "$(node pid)" = "$pid" ]
	kill -INT "$pid"
	wait "$pid"
	[ "$(node state)" = stopped ]
}

@test "who supervises it is told when it is ready, and when it stops" {
	requires python3
	for where in "$SCRATCH/notify" "@slicefs-$STORE"; do
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
		for _ in $(seq 250); do grep -q bound "$SCRATCH/told" && break; sleep 0.02; done
		NOTIFY_SOCKET=$where serve
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
