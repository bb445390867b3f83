/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that is full, whatever is done to it: several walkers put, overwrite, open, move, link,
 * remove, pin, give an end to, and evict, in a pool and an index that are too small for it, with a
 * disk below or without; then the process is killed at some crash point, or at any moment, and the
 * next one goes on; or memory is lost, and the disk is not. What is pinned is there; what is
 * there at all is one whole version, the last one; what has lived is not there in the end; a
 * quota is kept in the end; the policy knows what the index has, and nothing is left in flight.
 * SEED=n repeats the dice (not the threads), STEPS=n says how many processes.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/crash.h"
#include "engine/pool.h"
#include "tests/unit/disk_kit.h"
#include "tests/unit/slow.h"
#include "tests/unit/walk_world.h"

enum {
	POOL_BYTES = 16 << 20,
	INDEX_BYTES = 1 << 20,
	LATE_S = 15, /* what has an end goes in this time after it, on any host */
};

enum how_it_ended { KILLED, STOPPED, LOST_AND_KILLED, LOST_AND_STOPPED };

struct walk {
	uint64_t random;
	enum how_it_ended how; /* the process before */
	uint64_t ended_ns;
	unsigned phases, steps; /* of a process: each walker's */
	bool stops;             /* this one: in order */
	bool is_last;
	bool settled;           /* it knows what the one before has left */
	uint64_t evicted[4];    /* of the last process: for the pool, the index, quotas, an end */
	struct walker w[WALKERS];
};

static struct walk *walk;

/* After the end of a process ------------------------------------------------------------ */

static bool is_lost(void)
{
	return walk->how == LOST_AND_KILLED || walk->how == LOST_AND_STOPPED;
}

/* In the last moment before a crash of the machine it was lost. */
static bool came_back(const struct walker *w, unsigned i, struct version v)
{
	for (unsigned k = 0; walk->how == LOST_AND_KILLED && k < PASTS; k++)
		if (is_same(w->past[i][k].v, v) &&
		    w->past[i][k].until_ns + LATE_NS > walk->ended_ns)
			return true;
	return false;
}

static void must_be_there(struct walker *w, unsigned i)
{
	const struct object *now = &w->now[i], *next = w->busy ? &w->next[i] : now;
	bool pinned = now->v.id && next->v.id && is_pinned(now) && is_pinned(next);

	must(is_lost() || !pinned, "walker %u: name %u was pinned, and is not there", w->number, i);
	must(walk->how != LOST_AND_STOPPED || !w->was_away[i] || now->keep.ttl || i < TEMPS,
	     "walker %u: name %u was on the disk, and is not there", w->number, i);
}

static struct version read_name(struct walker *w, unsigned i, struct attr *a)
{
	struct version v = { 0 };
	struct place place;
	struct file *f;

	int r = call_name(index_lookup, parent_of(w, i), name_of(w, i), a, &place);
	must(r == 0 || r == INDEX_MISS, "%s: %d", name_of(w, i), r);
	if (!r)
		r = kit_open(e, a->fileid, place, 0, &f);
	must(r == 0 || r == INDEX_MISS || r == -ESTALE, "open of %s: %d", name_of(w, i), r);
	if (!r) {
		v = version_of(w, f);
		close_it(f, 0);
	}
	return v;
}

/* What is at a name is what was, or what was about to be, for all names the same. */
static void settle(struct walker *w)
{
	bool was = false, is = false;

	w->open = NULL;
	w->buf = malloc(BYTES_MAX);
	w->want = malloc(BYTES_MAX);
	must(w->buf && w->want, "memory");
	find_dirs(w);
	for (unsigned i = 0; i < NAMES; i++) {
		const struct object now = w->now[i], next = w->busy ? w->next[i] : now;
		struct attr a = { 0 };
		struct version v = { 0 };
		if (parent_of(w, i))
			v = read_name(w, i, &a);
		bool old = is_same(v, now.v), new = is_same(v, next.v);
		if (!v.id)
			must_be_there(w, i);
		bool fine = !v.id || old || new || came_back(w, i, v);
		if (!fine)
			print_said(w);
		must(fine, "walker %u: name %u shows %llu.%u; it was %llu.%u, or %llu.%u",
		     w->number, i, (unsigned long long)v.id, v.number,
		     (unsigned long long)now.v.id, now.v.number,
		     (unsigned long long)next.v.id, next.v.number);
		was |= v.id && old && !new;
		is |= v.id && new && !old;
		w->now[i] = (struct object){ v, a.keep, now_s() };
		w->npast[i] = 0;
	}
	memset(w->past, 0, sizeof(w->past));
	must(!was || !is, "walker %u: a step was done by half", w->number);
	say(w, "a new process");
	w->busy = false;
}

/* All that must hold -------------------------------------------------------------------- */

/* While nobody does anything; the eviction may be at something. */
static void check(void)
{
	struct writer report = { 0 };
	int n = 0;

	for (unsigned i = 0; i < 500; i++) {
		report.len = 0;
		n = evict_check(e->evict, &report);
		if (!n)
			break;
		usleep(10000);
	}
	must(!n, "%d: %.*s", n, (int)report.len, (const char *)report.p);
	report.len = 0;
	n = engine_check(e, false, &report, NULL);
	must(!n, "%d: %.*s", n, (int)report.len, (const char *)report.p);
	writer_fini(&report);
}

static bool look(const struct walker *w, unsigned i, struct place *ret)
{
	struct attr a;

	return parent_of(w, i) && !call_name(index_lookup, parent_of(w, i), name_of(w, i), &a, ret);
}

/* When it ends, if nobody uses it: since somebody said so, or since its name is a temporary one,
 * which counts of what never had another one. 0: never. */
static int64_t end_of(const struct walker *w, unsigned i)
{
	const struct object *o = &w->now[i];
	int64_t from = o->keep.pinned > o->touched_s ? o->keep.pinned : o->touched_s;
	struct place place = { 0 };

	if (!o->v.id || o->keep.pinned == KEEP_FOREVER)
		return 0;
	if (o->keep.ttl)
		return from + o->keep.ttl;
	return i < TEMPS && look(w, i, &place) && place.kind == PLACE_NAME ? from + TEMP_S : 0;
}

static void check_end(struct walker *w, unsigned i)
{
	int64_t end = end_of(w, i);
	struct place place;

	while (end && look(w, i, &place)) {
		must(now_s() < end + LATE_S, "walker %u: name %u has lived, and is there (ttl %u, "
		     "pinned until %lld, used at %lld)", w->number, i, w->now[i].keep.ttl,
		     (long long)w->now[i].keep.pinned, (long long)w->now[i].touched_s);
		usleep(10000);
	}
	if (end)
		is_gone(w, w->now[i].v.id);
}

static void check_quota(struct walker *w)
{
	struct engine_ask x = { .fileid = w->dir[1], .place.kind = PLACE_FILEID };
	uint64_t stays = 0;

	if (!w->dir[1])
		return;
	for (unsigned n = 0; n < LATE_S * 100; n++) {
		stays = 0;
		for (unsigned i = 1; i < NAMES; i += PLACES)
			if (is_pinned(&w->now[i]))
				stays += w->now[i].v.bytes + PAGE_BYTES;
		int r = kit_ask(e, engine_about, &x);
		must(r == 0 || r == INDEX_MISS, "about the directory: %d", r);
		if (r || x.used <= QUOTA_BYTES || x.used <= stays)
			return;
		usleep(10000);
	}
	must(false, "walker %u: a directory has %llu bytes, and more than its quota", w->number,
	     (unsigned long long)x.used);
}

/* What is there by the model is there, or has been evicted: all names of it. */
static void check_all(struct walker *w)
{
	for (unsigned i = 0; i < NAMES; i++)
		step_read(w, i);
	for (unsigned i = 0; i < NAMES; i++) {
		struct attr a = { 0 };
		struct place place;
		w->was_away[i] = parent_of(w, i) && !find(w, i, &a, &place) && a.away;
	}
}

/* A process ----------------------------------------------------------------------------- */

static void *walks(void *arg)
{
	for (unsigned i = 0; i < walk->steps; i++)
		step(arg);
	return NULL;
}

static void note_evicted(void)
{
	static const enum metric by[] = { M_EVICTED_POOL, M_EVICTED_INDEX, M_EVICTED_QUOTA,
					  M_EVICTED_TTL };

	for (unsigned i = 0; i < 4; i++)
		walk->evicted[i] = (uint64_t)metric_get(by[i]);
}

static void phase(void)
{
	pthread_t t[WALKERS];

	for (unsigned i = 0; i < WALKERS; i++)
		must(!pthread_create(&t[i], NULL, walks, &walk->w[i]), "thread");
	for (unsigned i = 0; i < WALKERS; i++)
		pthread_join(t[i], NULL);
	note_evicted();
	check();
}

static void stop(void)
{
	for (unsigned i = 0; i < WALKERS; i++)
		if (walk->w[i].open)
			step_hold(&walk->w[i], 0);
	for (unsigned i = 0; walk->is_last && i < WALKERS; i++) {
		for (unsigned k = 0; k < NAMES; k++)
			check_end(&walk->w[i], k);
		check_quota(&walk->w[i]);
	}
	drops_wait(&e->drops);
	check();
	for (unsigned i = 0; i < WALKERS; i++)
		check_all(&walk->w[i]);
	drops_wait(&e->drops);
	note_evicted();
	must(kit_is_idle(), "P10");
	engine_close(e);
}

static void work(const struct engine_opts *o)
{
	char *why = NULL;
	int r = engine_open(o, &e, &why);

	must(!r, "%d: %s", r, why);
	for (unsigned i = 0; i < WALKERS; i++)
		settle(&walk->w[i]);
	walk->settled = true;
	check();
	for (unsigned i = 0; i < walk->phases; i++)
		phase();
	if (walk->stops)
		stop();
	_exit(0);
}

/* Dies at a crash point, in a moment, or not at all. */
static void run(const struct engine_opts *o, bool ends_badly)
{
	unsigned p = (unsigned)(random_next(&walk->random) % CRASH_NPOINTS);
	uint64_t after_us = 20000 + random_next(&walk->random) % 400000;
	bool at_point = random_next(&walk->random) % 3;
	unsigned n = 1 + (unsigned)(random_next(&walk->random) % 60);
	char crash[64];
	int status;

	if (p >= CRASH_REBUILD_SCANNED)
		n = 1;
	snprintf(crash, sizeof(crash), "%s:%u", crash_point_name(p), n);
	walk->stops = !ends_badly;
	walk->settled = false;
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (ends_badly && at_point)
			setenv("SLICEFS_CRASH", crash, 1);
		work(o);
	}
	if (ends_badly && !at_point) {
		usleep((useconds_t)after_us);
		kill(pid, SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	if (!killed && !(WIFEXITED(status) && !WEXITSTATUS(status)))
		fail_msg("a process (%s) ended with %x", crash, status);
	if (!ends_badly && killed)
		fail_msg("a process was killed by somebody else");
	if (!walk->settled) /* all is as it was for the next one */
		return;
	walk->how = ends_badly ? KILLED : STOPPED;
	walk->ended_ns = clock_ns();
}

/* Walks --------------------------------------------------------------------------------- */

static char store[] = "/dev/shm/slicefs-test-XXXXXX";

static void begin(void)
{
	const char *seed = getenv("SEED");

	walk = mmap(NULL, sizeof(*walk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(walk != MAP_FAILED);
	strcpy(store + sizeof(store) - 7, "XXXXXX");
	assert_non_null(mkdtemp(store));
	walk->random = seed ? strtoull(seed, NULL, 0) : clock_ns();
	print_message("SEED=%llu\n", (unsigned long long)walk->random);
	for (unsigned i = 0; i < WALKERS; i++)
		walk->w[i] = (struct walker){ .number = i,
					      .random = random_next(&walk->random) };
}

static void end(void)
{
	unsigned done = 0, missed = 0;

	for (unsigned i = 0; i < WALKERS; i++) {
		done += walk->w[i].done;
		missed += walk->w[i].missed;
	}
	print_message("%u steps, %u found something gone; the last process evicted %llu for the "
		      "pool, %llu for the index, %llu for a quota, %llu for they had lived\n",
		      done, missed, (unsigned long long)walk->evicted[0],
		      (unsigned long long)walk->evicted[1], (unsigned long long)walk->evicted[2],
		      (unsigned long long)walk->evicted[3]);
	assert_true(missed > 0);
	munmap(walk, sizeof(*walk));
	engine_store_remove(store, true);
	rmdir(store);
}

static unsigned processes(unsigned n)
{
	const char *given = getenv("STEPS");

	return given ? (unsigned)strtoul(given, NULL, 0) : 1 + (n - 1) / KIT_SLOW;
}

static struct engine_opts options(const char *disk, uint64_t disk_bytes)
{
	return (struct engine_opts){
		.dir = store, .pool_bytes = POOL_BYTES, .index_bytes = INDEX_BYTES,
		.evict_high = 95, .evict_low = 90, .temp_s = TEMP_S, .evict_dirs_ms = 1000,
		.ssd = disk, .ssd_bytes = disk_bytes, .verify = true,
	};
}

static void under_pressure(void **state)
{
	struct engine_opts o = options(NULL, 0);

	(void)state;
	begin();
	walk->phases = 4;
	walk->steps = 2000 / KIT_SLOW;
	walk->is_last = true;
	run(&o, false);
	end();
}

static void killed_at_any_moment(void **state)
{
	struct engine_opts o = options(NULL, 0);

	(void)state;
	begin();
	for (unsigned i = 0, n = processes(16); i < n; i++) {
		walk->phases = 2;
		walk->steps = 300 / KIT_SLOW;
		walk->is_last = i + 1 == n;
		run(&o, i + 1 < n);
	}
	end();
}

/* Memory is lost, and the disk is not. */
static void reboot(void)
{
	/* Who was killed as it began may have moved something already. */
	bool in_order = walk->settled && walk->how == STOPPED;

	assert_int_equal(engine_store_remove(store, false), 0);
	walk->how = in_order ? LOST_AND_STOPPED : LOST_AND_KILLED;
}

static void with_a_disk(uint64_t bytes)
{
	struct engine_opts o = options(disk_kit_begin(), bytes);

	begin();
	for (unsigned i = 0, n = processes(12); i < n; i++) {
		walk->phases = 2;
		walk->steps = 300 / KIT_SLOW;
		walk->is_last = i + 1 == n;
		run(&o, !walk->is_last && random_next(&walk->random) % 3);
		if (!walk->is_last && random_next(&walk->random) % 2)
			reboot();
	}
	end();
	disk_kit_end();
}

static void with_a_disk_and_reboots(void **state)
{
	(void)state;
	with_a_disk(256 << 20);
}

/* Its log comes round. */
static void with_a_disk_that_is_full(void **state)
{
	(void)state;
	with_a_disk(24 << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(under_pressure),
		cmocka_unit_test(killed_at_any_moment),
		cmocka_unit_test(with_a_disk_and_reboots),
		cmocka_unit_test(with_a_disk_that_is_full),
	};

	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
