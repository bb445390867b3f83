/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Killed at any moment: a process works on files until it dies at a crash point
 * (or without one), the next one finds every published version whole, verified,
 * and nothing else (P1, P5, P8), and goes on. The model outlives them in shared
 * memory. SEED=n repeats, STEPS=n says how many processes.
 */
#include "tests/unit/file_world.h"

#include <sys/mman.h>
#include <sys/wait.h>

#include "common/crash.h"

static const enum crash_point points[] = {
	CRASH_WRITE_ALLOCATED, CRASH_WRITE_COPIED, CRASH_WRITE_DONE, CRASH_PUBLISH_BEGIN,
	CRASH_PUBLISH_SEALED, CRASH_PUBLISH_BLOCKS, CRASH_PUBLISH_COMMITTED,
	CRASH_PUBLISH_DONE, CRASH_UNLINK_DROPPED, CRASH_INDEX_BEFORE_COMMIT,
	CRASH_INDEX_AFTER_COMMIT, CRASH_REBUILD_SCANNED, CRASH_REBUILD_DONE,
};
enum { NPOINTS = sizeof(points) / sizeof(points[0]), PROCESSES = 60 };

static bool same(struct world *w, const struct content *c, uint64_t size)
{
	return c->size == size && !memcmp(w->old, c->b, size);
}

/* After a crash: which of its contents does the file have? It has that from now
 * on, and no draft. */
static void settle(struct world *w, int i)
{
	struct slot *s = &w->slot[i];
	bool busy = w->busy == i, publishing = busy && w->publishing;
	struct place place;
	struct attr a = { 0 };
	int r = kit_lookup(w->e, s->name, &a, &place);

	memset(s->h, 0, sizeof(s->h));
	s->dirty = s->unsure = false;
	assert_true(r == 0 || r == INDEX_MISS);
	if (r == INDEX_MISS) {
		if (s->named && s->published && !(busy && w->unlinking))
			fail_msg("%s was published and is gone", s->name);
		s->named = s->published = false;
		set_size(&s->now, 0);
		return;
	}
	if (!(s->named && s->published) && !publishing)
		fail_msg("%s was never published and is there", s->name);
	struct file *f = NULL;
	assert_int_equal(kit_open_name(w->e, s->name, 0, &f), 0);
	assert_int_equal(kit_read(f, 0, w->old, BYTES_MAX), a.size);
	assert_int_equal(kit_close(f, 0), 0);
	bool is_old = s->published && same(w, &s->pub, a.size);
	bool is_new = publishing && same(w, &s->now, a.size);
	if (!is_old && !is_new)
		fail_msg("%s has neither its old nor its new content", s->name);
	if (!is_old)
		copy_content(&s->pub, &s->now);
	copy_content(&s->now, &s->pub);
	s->named = s->published = true;
}

static void work(struct world *w, const struct engine_opts *o, unsigned nsteps, bool ends)
{
	char *why = NULL;

	if (engine_open(o, &w->e, &why))
		fail_msg("%s", why);
	for (int i = 0; i < NFILES; i++)
		settle(w, i);
	w->busy = -1;
	check_engine(w);
	drops_wait(&w->e->drops);
	assert_idle();
	for (unsigned i = 0; i < nsteps; i++)
		step(w);
	if (!ends)
		_exit(0);
	close_all(w);
	check_engine(w);
	engine_close(w->e);
	_exit(0);
}

static void killed_anywhere_keeps_what_was_published(void **state)
{
	char dir[] = "/dev/shm/slicefs-test-XXXXXX", crash[64];
	struct engine_opts o = { .dir = dir, .pool_bytes = 32 << 20, .index_bytes = 64 << 20 };
	struct world *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const char *env = getenv("SEED"), *n = getenv("STEPS");
	unsigned processes = n ? (unsigned)strtoul(n, NULL, 0) : PROCESSES, died = 0;

	(void)state;
	assert_true(w != MAP_FAILED);
	assert_non_null(mkdtemp(dir));
	w->random = env ? strtoull(env, NULL, 0) : clock_ns();
	printf("crash: SEED=%lu\n", w->random);
	fflush(stdout);
	for (int i = 0; i < NFILES; i++)
		snprintf(w->slot[i].name, sizeof(w->slot[i].name), "file%d", i);
	w->busy = -1;
	for (unsigned i = 0; i <= processes; i++) {
		bool last = i == processes;
		enum crash_point p = points[pick(w, NPOINTS)];
		snprintf(crash, sizeof(crash), "%s:%u", crash_point_name(p),
			 (unsigned)(1 + pick(w, p >= CRASH_REBUILD_SCANNED ? 1 : 25)));
		pid_t pid = fork();
		if (!pid) {
			if (!last)
				setenv("SLICEFS_CRASH", crash, 1);
			work(w, &o, 150, last);
		}
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		died += WIFSIGNALED(status);
		if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) &&
		    !(WIFEXITED(status) && !WEXITSTATUS(status)))
			fail_msg("process %u (%s) ended with %x", i, crash, status);
	}
	assert_true(died > processes / 4);
	munmap(w, sizeof(*w));
	assert_int_equal(engine_store_remove(dir, true), 0);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_anywhere_keeps_what_was_published),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
