/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ledger: writes objects and notes elsewhere what was promised about them, so
 * that after a crash every promise can be checked.
 *
 *	ledger write  DIR LEDGER SEED STEPS   until STEPS, or an error (status 3:
 *	                                      the mount went away)
 *	ledger verify DIR LEDGER
 *
 * Each object's content says its name, its generation and its length, and is a
 * pattern of them. Before a step the ledger gets a line "? name gen", after its
 * success "! name gen" (generation 0: the name is gone). So a name may show
 * the last acknowledged generation, or one that was begun after it, and nothing
 * else, and always whole (P1, P2, P8). Lines are appended with O_SYNC-less write():
 * the ledger outlives the daemon, not the machine.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAMES = 40, MAX_LEN = 3 << 20 };

struct state {
	unsigned acked;
	unsigned begun[64]; /* after the acknowledged one */
	unsigned nbegun;
};

static struct state states[NAMES];
static unsigned char content[MAX_LEN + 64];
static uint64_t rng;

static uint64_t below(uint64_t n)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return (rng * 2685821657736338717ULL >> 11) % n;
}

static uint64_t mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 29;
	return x;
}

/* Length and bytes follow from name and generation. */
static size_t make(unsigned name, unsigned gen)
{
	uint64_t h = mix((uint64_t)name << 32 | gen);
	size_t len = h % 5 == 0 ? h % MAX_LEN : h % 5 == 1 ? h % 1000 : h % 60000;

	if (len < 32)
		len = 32;
	memset(content, 0, 32);
	snprintf((char *)content, 32, "%u %u %zu\n", name, gen, len);
	for (size_t i = 32; i < len; i += 8) {
		uint64_t v = mix(h + i);
		memcpy(content + i, &v, 8);
	}
	return len;
}

static void note(int ledger, char what, unsigned name, unsigned gen)
{
	char line[64];
	int n = snprintf(line, sizeof(line), "%c %u %u\n", what, name, gen);

	if (write(ledger, line, (size_t)n) != n)
		err(2, "ledger");
}

static void path_of(char *out, const char *dir, unsigned name)
{
	snprintf(out, 4096, "%s/d%u/o%u", dir, name % 4, name);
}

/* Writes the current `content` in pieces of random size. */
static bool write_all(int fd, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t n = below(3) ? 65536 : below(200000) + 1;
		if (n > len - at)
			n = len - at;
		if (write(fd, content + at, n) != (ssize_t)n)
			return false;
		at += n;
	}
	return true;
}

static bool put(const char *path, const char *tmp, size_t len, bool sync)
{
	int fd = open(tmp, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	bool ok;

	if (fd < 0)
		return false;
	ok = write_all(fd, len) && (!sync || fsync(fd) == 0);
	ok = close(fd) == 0 && ok;
	return ok && rename(tmp, path) == 0;
}

static bool step(const char *dir, int ledger, unsigned *gen)
{
	unsigned name = (unsigned)below(NAMES);
	char path[4096], tmp[4200];

	path_of(path, dir, name);
	snprintf(tmp, sizeof(tmp), "%s.tmp", path);
	if (below(6) == 0) {
		note(ledger, '?', name, 0);
		if (unlink(path) < 0 && errno != ENOENT)
			return false;
		note(ledger, '!', name, 0);
		return true;
	}
	unsigned g = ++*gen;
	size_t len = make(name, g);
	note(ledger, '?', name, g);
	if (!put(path, tmp, len, below(4) == 0))
		return false;
	note(ledger, '!', name, g);
	return true;
}

static unsigned last_generation(const char *path)
{
	FILE *f = fopen(path, "r");
	char what;
	unsigned name, gen, max = 0;

	while (f && fscanf(f, " %c %u %u", &what, &name, &gen) == 3)
		max = gen > max ? gen : max;
	if (f)
		fclose(f);
	return max;
}

static int write_steps(const char *dir, const char *path, unsigned steps)
{
	unsigned gen = last_generation(path);
	int ledger = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	char sub[4096];

	if (ledger < 0)
		err(2, "%s", path);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(sub, sizeof(sub), "%s/d%u", dir, i);
		if (mkdir(sub, 0755) < 0 && errno != EEXIST)
			return 3;
	}
	for (unsigned i = 0; i < steps; i++)
		if (!step(dir, ledger, &gen)) {
			warn("step %u", i);
			return 3;
		}
	return 0;
}

static void read_ledger(const char *path)
{
	FILE *f = fopen(path, "r");
	char what;
	unsigned name, gen;

	if (!f)
		err(2, "%s", path);
	while (fscanf(f, " %c %u %u", &what, &name, &gen) == 3) {
		struct state *s = &states[name];
		if (what == '!') {
			s->acked = gen;
			s->nbegun = 0;
		} else if (s->nbegun < 64) {
			s->begun[s->nbegun++] = gen;
		}
	}
	fclose(f);
}

static bool allowed(const struct state *s, unsigned gen)
{
	if (gen == s->acked)
		return true;
	for (unsigned i = 0; i < s->nbegun; i++)
		if (s->begun[i] == gen)
			return true;
	return false;
}

/* The generation that the object shows, 0: no such name. Exits if it is torn. */
static unsigned shown(const char *path, unsigned name)
{
	static unsigned char got[MAX_LEN + 64];
	unsigned n, gen;
	size_t len;
	int fd = open(path, O_RDONLY);

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		err(1, "%s", path);
	size_t have = 0;
	ssize_t r;
	while ((r = read(fd, got + have, sizeof(got) - have)) > 0)
		have += (size_t)r;
	if (r < 0)
		err(1, "read %s", path);
	close(fd);
	if (have < 32 || sscanf((char *)got, "%u %u %zu", &n, &gen, &len) != 3 || n != name)
		errx(1, "%s: no whole version: %zu bytes without a header", path, have);
	if (len != have || make(name, gen) != len || memcmp(got, content, len))
		errx(1, "%s: generation %u is torn: %zu bytes of %zu", path, gen, have, len);
	return gen;
}

static int verify(const char *dir, const char *path)
{
	unsigned present = 0;
	char p[4096];

	read_ledger(path);
	for (unsigned i = 0; i < NAMES; i++) {
		path_of(p, dir, i);
		unsigned gen = shown(p, i);
		present += gen != 0;
		if (!allowed(&states[i], gen))
			errx(1, "%s: shows generation %u; acknowledged was %u, begun after it %u "
				"others", p, gen, states[i].acked, states[i].nbegun);
	}
	printf("%u objects, all whole and as promised\n", present);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && !strcmp(argv[1], "write")) {
		rng = strtoull(argv[4], NULL, 10) * 0x9e3779b97f4a7c15ULL + 7;
		return write_steps(argv[2], argv[3], (unsigned)strtoul(argv[5], NULL, 10));
	}
	if (argc == 4 && !strcmp(argv[1], "verify"))
		return verify(argv[2], argv[3]);
	errx(2, "usage: ledger write DIR LEDGER SEED STEPS | ledger verify DIR LEDGER");
}
