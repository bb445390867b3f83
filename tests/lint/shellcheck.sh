#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shell scripts, bats files included, as shellcheck likes them. Worth most: SC2314,
# a "! command" in the middle of a bats test that can never fail it. Left out:
# files that are sourced are looked at by themselves (1091, 2034), each test is a
# sub-shell (2030, 2031), ls is under test (2010, 2012), and quoting what is on
# the right of =~ is meant to make it literal (2076).
. "$(dirname "$0")/files"
command -v shellcheck >/dev/null || {
	echo "CANNOT RUN: shellcheck is missing. Try: apt-get install shellcheck"
	exit 77
}
# shellcheck disable=SC2046 # no blanks in our file names
shellcheck -S warning -e SC1091,SC2010,SC2012,SC2030,SC2031,SC2034,SC2076 $(scripts) tests/lint/files
