#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the documents point to is there: links, `paths` of the tree, and the tests
# that the promises P1... name, each of which has one.
. "$(dirname "$0")/files"
bad=0
for doc in $(files '*.md'); do
	dir=$(dirname "$doc")
	for to in $(grep -oE '\]\([^)#]+' "$doc" | sed 's/^](//' | grep -vE '^[a-z]+:'); do
		[ -e "$dir/$to" ] && continue
		echo "lint: $doc: links to $to, which is not there"
		bad=1
	done
	# A path with * or a placeholder in capitals is not one.
	for path in $(grep -oE '`(common|index|engine|fs|tools|tests|docs)/[A-Za-z0-9_./-]+`' "$doc" |
		tr -d '`' | grep -vE 'NN-|NAME|<'); do
		[ -e "$path" ] || [ -e "$path.c" ] && continue
		echo "lint: $doc: names $path, which is not there"
		bad=1
	done
done
semantics=docs/semantics.md
if [ -e $semantics ]; then
	for n in 1 2 3 4 5 6 7 8 9 10; do
		grep -qE "\bP$n\b" $semantics || { echo "lint: $semantics: nothing of P$n"; bad=1; }
	done
	for t in $(grep -oE '\b[0-9][0-9]-[a-z]+(\.bats)?\b' $semantics | sed 's/\.bats$//' | sort -u); do
		[ -e "tests/e2e/$t.bats" ] || { echo "lint: $semantics: no test $t"; bad=1; }
	done
	for t in $(grep -oE '\btest_[a-z_]+\.c\b' $semantics | sort -u); do
		[ -e "tests/unit/$t" ] || { echo "lint: $semantics: no test $t"; bad=1; }
	done
fi
exit $bad
