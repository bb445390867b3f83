/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the trees may differ, and why. A case that contains `word` may have the line
 * `here` where the reference has `ref` (parts of lines; "" is any). How often each of
 * them occurs is printed.
 */
static const struct exception {
	const char *word, *here, *ref, *why;
} exceptions[] = {
	/* What slicefs does not have: said loudly by the test. */
	{ ",tmp", "", "", "LACKS O_TMPFILE, which needs libfuse 3.17 or newer" },
	{ "btime o", "= 0", "= 1", "LACKS the birth time in statx, which needs a newer libfuse" },
	{ "whiteout", "", "", "LACKS RENAME_WHITEOUT (EINVAL)" },
	{ "handle d/e/o drop", "ESTALE", "= 0",
	  "a file handle of what the kernel has forgotten may be stale (docs/semantics.md)" },
	{ "0x7fffffffffffff", "", "", "files end before 2^63 - 1 bytes (EFBIG)" },
	/* What the kernel does not ask a FUSE file system for. */
	{ "own ", " - - = 0", " - - = EPERM",
	  "chown(-1, -1) of a set-gid file is not checked for its owner" },
	{ "2644 1 |", "moved c", "moved ", "the same, and so it moves the ctime" },
	{ "2644 1 ; open A o r |", "moved c", "moved ", "the same" },
	{ "mk p o", "moved c", "moved mc", "a fifo's mtime does not move when it is written" },
	/* Where the reference, tmpfs, is the odd one. */
	{ "mk e o", "moved mc", "moved ", "tmpfs moves no times of a truncation to the same size" },
	{ "ftrunc A 3000 | map A 4096 w", "sum o", "sum o",
	  "tmpfs shows what was mapped beyond the end once the file grows; POSIX says zeros" },
	{ "open A o rw ; map A 1 w", "mc", "moved a",
	  "tmpfs moves no mtime of a write through a mapping" },
	{ "open A o rw | map A ", "mc", "moved a",
	  "tmpfs moves no mtime of a write through a mapping" },
	{ "fallocate A zero", "", "", "tmpfs lacks FALLOC_FL_ZERO_RANGE" },
	{ 0 },
};

static unsigned occurred[sizeof(exceptions) / sizeof(exceptions[0])];

/* Last: lines that differ in nothing but that the reference moved the atime: the
 * kernel reads from its cache and maps without a word to us. */
static unsigned atimes;

static bool only_atime(const char *here, const char *ref)
{
	const char *h = here ? strstr(here, " moved ") : NULL;
	const char *r = ref ? strstr(ref, " moved a") : NULL;
	size_t word = strlen(" moved ");

	if (!h || !r || h - here != r - ref || memcmp(here, ref, (size_t)(h - here)))
		return false;
	return h[word] != 'a' && !strcmp(h + word, r + word + 1);
}

static bool excepted(const char *line, const char *here, const char *ref)
{
	for (const struct exception *e = exceptions; e->word; e++) {
		if (!strstr(line, e->word) || !strstr(here ? here : "", e->here) ||
		    !strstr(ref ? ref : "", e->ref))
			continue;
		occurred[e - exceptions]++;
		return true;
	}
	if (!only_atime(here, ref))
		return false;
	atimes++;
	return true;
}

static void exceptions_occurred(void)
{
	for (const struct exception *e = exceptions; e->word; e++)
		printf("# excepted in %u lines with \"%s\": %s\n", occurred[e - exceptions],
		       e->word, e->why);
	printf("# excepted in %u lines: what the kernel reads from its cache moves no atime\n",
	       atimes);
}
