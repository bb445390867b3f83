#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# labels: short
# The command line: what it says of itself, and what it says to what is wrong.
load lib
setup_file() { begin_file; }
teardown_file() { end_file; }

@test "help and version go to stdout with status 0" {
	"$SLICEFS" --version | grep -q '^slicefs [0-9]'
	"$SLICEFS" version | grep -q '^slicefs [0-9]'
	"$SLICEFS" --help | grep -q 'Usage: slicefs COMMAND'
	"$SLICEFS" help | grep -q 'Usage: slicefs COMMAND'
}

@test "each command has a help that fits a screen" {
	for c in mount serve put get cat ls rm mkdir mv umount status stat store fsck doctor; do
		"$SLICEFS" "$c" --help >"$SCRATCH/help"
		grep -q "^Usage: slicefs $c" "$SCRATCH/help"
		[ "$(wc -l <"$SCRATCH/help")" -le 48 ]
		[ "$(wc -L <"$SCRATCH/help")" -le 100 ]
		cmp "$SCRATCH/help" <("$SLICEFS" help "$c")
	done
}

@test "no command, or one that does not exist, is status 2 with the nearest name" {
	run "$SLICEFS"
	[ "$status" = 2 ]
	fails 2 'no command "mout". Try: slicefs mount' "$SLICEFS" mout
	fails 2 'no command "xyzzyx". Try: slicefs help' "$SLICEFS" xyzzyx
	fails 2 'no command "nix"' "$SLICEFS" help nix
}

@test "an unknown option is status 2 and says which one" {
	for c in mount serve put get cat ls rm mkdir mv umount status stat fsck doctor; do
		fails 2 '--nonsense|nonsense: no such' "$SLICEFS" "$c" --nonsense /tmp
		fails 2 '--nonsense|nonsense: no such' "$SLICEFS" "$c" /tmp --nonsense
	done
	for c in put get cat ls rm mkdir mv umount status stat fsck doctor; do
		fails 2 'unknown option "-x"' "$SLICEFS" "$c" -xy /tmp
		fails 2 'unknown option "-x"' "$SLICEFS" "$c" /tmp -x
	done
	fails 2 'nonsense' "$SLICEFS" mount -o nonsense /tmp
	fails 2 'option "--json" takes no value' "$SLICEFS" status --json=yes /tmp
	fails 2 'option "--recursive" takes no value' "$SLICEFS" put /tmp --recursive=1
	fails 2 'option "--after-use" takes no value' "$SLICEFS" ttl --after-use=1h /tmp
	fails 2 'unknown option "-x"' "$SLICEFS" ls --timeout=1s -xy
}

@test "a missing argument is status 2" {
	fails 2 'which directory' "$SLICEFS" mount
	fails 2 'which directory' "$SLICEFS" umount
	fails 2 'of which path' "$SLICEFS" stat
	fails 2 'which store' "$SLICEFS" fsck
	fails 2 'ls, or rm' "$SLICEFS" store
	fails 2 'which store' "$SLICEFS" store rm
}

@test "store rm removes nothing if one of the names is none" {
	"$SLICEFS" mount --pool-size 16M --store "$STORE" "$MNT"; "$SLICEFS" umount "$MNT"
	fails 2 "is no store's name" "$SLICEFS" store rm "$STORE" bad/name
	"$SLICEFS" store rm "$STORE"
}

@test "options go before or behind, and -- ends them" {
	"$SLICEFS" status --json -- | jq -e 'type == "array"'
	fails 1 'no slicefs is mounted there' "$SLICEFS" status -- "$MNT"
	fails 1 'no slicefs is mounted there' "$SLICEFS" umount -- "$MNT"
	fails 1 'not in a slicefs' "$SLICEFS" stat "$MNT" --json
	fails 1 '/-- *x: No such file' "$SLICEFS" stat -- "$MNT/--x"
	fails 1 ': No such file' "$SLICEFS" status ""
}

@test "a message is one line whatever the name, and --json is JSON" {
	fails 1 '/a\\x0ab: No such' "$SLICEFS" mount --pool-size 16M "$MNT/"$'a\nb'
	fails 1 '/a\\x1bb: no slicefs' "$SLICEFS" status "$MNT/"$'a\x1bb'
	fails 1 '/nothing: no such store' "$SLICEFS" fsck "$MNT/nothing"
	odd=$SCRATCH/$'o\xffd\xfe'; mkdir "$odd"
	"$SLICEFS" mount --pool-size 16M --store "$STORE" "$odd"; echo x >"$odd/"$'\xff'
	"$SLICEFS" status --json "$odd" | jq -re '.[0].dir' | grep -qF 'o\xffd\xfe'
	"$SLICEFS" status "$odd" | grep -qF 'o\xffd\xfe'
	"$SLICEFS" stat --json "$odd/"$'\xff' | jq -re '.[0].path' | grep -qF 'd\xfe/\xff'
	"$SLICEFS" fsck --json "$odd" | jq -re '.target' | grep -qF 'o\xffd\xfe'
	"$SLICEFS" umount --discard "$odd"
}

@test "a terminal does not obey what somebody called his folder" {
	requires script
	local odd=$SCRATCH/$'e\x1b[31md'
	mkdir "$odd"
	"$SLICEFS" mount --pool-size 16M --store "$STORE" "$odd"
	script -qec "$SLICEFS status '$odd'" /dev/null >"$SCRATCH/tty" </dev/null
	"$SLICEFS" status "$odd" >"$SCRATCH/out"
	mkdir "$SCRATCH/src"; touch {"$odd","$SCRATCH/src"}/$'f\x1b[31m'
	script -qec "$SLICEFS stat '$odd/'*; $SLICEFS warm -n '$SCRATCH/src' '$odd/new'; $SLICEFS quota set '$odd' 1G; $SLICEFS quota show '$odd'" \
		/dev/null >>"$SCRATCH/tty" </dev/null
	"$SLICEFS" umount --discard "$odd"
	[ "$(grep -acF 'f\x1b[31m' "$SCRATCH/tty")" = 2 ]; grep -aq '0 B of 1G' "$SCRATCH/tty"
	grep -aqF 'e\x1b[31md' "$SCRATCH/tty"; no grep -aq $'\x1b\[31m' "$SCRATCH/tty"
	grep -qF $'e\x1b[31md' "$SCRATCH/out"
}

@test "what cannot be printed has failed" {
	local c
	for c in help version "help put" "store ls" "store ls --json"; do
		fails 1 'standard output: No space left' bash -c '"$0" '"$c"' >/dev/full' "$SLICEFS"
	done
}

@test "status without a mount is an empty table; of a directory that is none, status 1" {
	"$SLICEFS" status --json | jq -e 'type == "array"'
	fails 1 'no slicefs is mounted there' "$SLICEFS" status "$MNT"
}
