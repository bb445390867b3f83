#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shell scripts, bats files included, as shellcheck likes them. SC1091: sourced
# files are looked at by themselves. SC2314, SC2315: our bats runs with set -e.
. "$(dirname "$0")/files"
command -v shellcheck >/dev/null || {
	echo "CANNOT RUN: shellcheck is missing. Try: apt-get install shellcheck"
	exit 77
}
# shellcheck disable=SC2046 # no blanks in our file names
shellcheck -S warning -e SC1091,SC2030,SC2031,SC2034 $(scripts) tests/lint/files
