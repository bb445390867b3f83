/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call on a file is cancelled while an index call or transfers of it are under
 * way. It ends when those have ended (I9, I10), soon after, as cancelled; nothing
 * of it is left, and whoever else uses the file does not notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "engine/open.h"
#include "tests/unit/file_kit.h"

enum { MIB = 1 << 20, SCATTERED = 200 };

static uint64_t seed;
static struct engine *engine;
static struct kv *faults;

static int wrap(struct kv *inner, struct kv **ret)
{
	int r = kv_fault_open(inner, seed, true, ret);

	faults = r < 0 ? NULL : *ret;
	return r;
}

static int setup(void **state)
{
	struct engine_opts o = { .in_memory = true, .pool_bytes = 64 * MIB,
				 .index_bytes = 64 * MIB, .wrap_kv = wrap };
	const char *given = getenv("SEED");

	(void)state;
	seed = given ? strtoull(given, NULL, 0) : clock_ns() | 1;
	print_message("SEED=%llu\n", (unsigned long long)seed);
	o.fault_seed = seed;
	return engine_open(&o, &engine, NULL);
}

static int teardown(void **state)
{
	struct writer w = { 0 };
	int64_t n = 0;
	const char *busy = metrics_busy(&n);
	int bad = engine_check(engine, false, &w, NULL);

	(void)state;
	if (busy)
		print_error("%s is %lld\n", busy, (long long)n);
	if (bad)
		print_error("%.*s", (int)w.len, (char *)w.p);
	writer_fini(&w);
	engine_close(engine);
	return busy || bad ? -1 : 0;
}

static void sleep_us(unsigned us)
{
	nanosleep(&(struct timespec){ .tv_nsec = us * 1000L }, NULL);
}

/* A call under way ---------------------------------------------------------------- */

struct under_way {
	struct kit_wait wait;
	struct file_op op;
};

static void begin(struct under_way *u, void (*call)(struct file_op *op))
{
	u->wait = (struct kit_wait)KIT_WAIT;
	u->op.done = kit_done;
	u->op.arg = &u->wait;
	call(&u->op);
}

static void cancel(struct under_way *u)
{
	atomic_store(&u->op.call.cancelled, true);
}

/* Begins it, and cancels when bytes of it are out. */
static void cancel_on_its_way(struct under_way *u, void (*call)(struct file_op *op))
{
	transport_fault_hold(engine->transport, true);
	begin(u, call);
	while (!metric_get(M_TRANSFERS))
		sleep_us(100);
	cancel(u);
	sleep_us(20000);
}

static bool has_ended(struct under_way *u)
{
	pthread_mutex_lock(&u->wait.mutex);
	bool done = u->wait.done;
	pthread_mutex_unlock(&u->wait.mutex);
	return done;
}

/* Files ------------------------------------------------------------------------------ */

static struct place place_of(const char *name, uint64_t *ret_fileid)
{
	struct index_op op = { .parent = INDEX_ROOT, .name = name };

	assert_int_equal(index_wait(engine_index(engine), &op, index_lookup), 0);
	struct place p = op.entry.place;
	*ret_fileid = op.entry.attr.fileid;
	index_op_fini(&op);
	return p;
}

static void fill(uint8_t *buf, size_t n, unsigned c)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = (uint8_t)(i * 7 + c);
}

static void assert_content(struct file *f, const uint8_t *want, size_t n)
{
	uint8_t *got = malloc(n + 1);

	assert_int_equal(kit_read(f, 0, got, n + 1), (int64_t)n);
	assert_memory_equal(got, want, n);
	free(got);
}

/* Its extents take blocks: opening it is three calls of the index. */
static void make_scattered(const char *name)
{
	uint8_t page[PAGE_BYTES] = { 1 };
	struct file *f = NULL;

	assert_int_equal(kit_create(engine, name, &f), 0);
	for (unsigned i = 0; i < SCATTERED; i++)
		assert_int_equal(kit_write(f, i * 65536ULL, page, PAGE_BYTES), PAGE_BYTES);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

/* Transfers -------------------------------------------------------------------------- */

static void test_write(void **state)
{
	static uint8_t old[3 * MIB], new[3 * MIB];
	struct under_way u = { 0 };
	struct file *f = NULL;

	(void)state;
	fill(old, sizeof(old), 1);
	fill(new, sizeof(new), 2);
	assert_int_equal(kit_create(engine, "w", &f), 0);
	assert_int_equal(kit_write(f, 0, old, sizeof(old)), sizeof(old));
	assert_int_equal(kit_publish(f, true), 0);
	u.op = (struct file_op){ .file = f, .buf = new, .len = sizeof(new) };
	cancel_on_its_way(&u, file_write);
	assert_false(has_ended(&u)); /* I10: `new` is lent */
	assert_true(metric_get(M_TRANSFERS) > 0);
	transport_fault_hold(engine->transport, false);
	assert_int_equal(kit_wait(&u.wait), -ECANCELED);
	assert_int_equal(metric_get(M_TRANSFERS), 0);
	assert_content(f, old, sizeof(old));
	assert_int_equal(kit_write(f, 0, new, sizeof(new)), sizeof(new));
	assert_content(f, new, sizeof(new));
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

static void test_read(void **state)
{
	static uint8_t old[2 * MIB];
	struct under_way u = { 0 };
	struct file *f = NULL;

	(void)state;
	fill(old, sizeof(old), 3);
	assert_int_equal(kit_create(engine, "r", &f), 0);
	assert_int_equal(kit_write(f, 0, old, sizeof(old)), sizeof(old));
	int64_t pins = metric_get(M_PINS);
	u.op = (struct file_op){ .file = f, .len = sizeof(old) };
	cancel_on_its_way(&u, file_read);
	assert_false(has_ended(&u));
	transport_fault_hold(engine->transport, false);
	assert_int_equal(kit_wait(&u.wait), -ECANCELED);
	assert_int_equal(metric_get(M_PINS), pins);
	assert_content(f, old, sizeof(old));
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
}

static void test_copy(void **state)
{
	static uint8_t old[MIB];
	struct under_way u = { 0 };
	struct file *from, *to;

	(void)state;
	fill(old, sizeof(old), 4);
	assert_int_equal(kit_create(engine, "from", &from), 0);
	assert_int_equal(kit_create(engine, "to", &to), 0);
	assert_int_equal(kit_write(from, 0, old, sizeof(old)), sizeof(old));
	/* By bytes: the two are not on the same place of a page. */
	u.op = (struct file_op){ .file = from, .to = to, .off2 = 1, .len = sizeof(old) };
	cancel_on_its_way(&u, file_copy);
	assert_false(has_ended(&u));
	transport_fault_hold(engine->transport, false);
	assert_true(kit_wait(&u.wait) < (int64_t)sizeof(old));
	assert_int_equal(kit_close(from, FILE_WRITE), 0);
	assert_int_equal(kit_close(to, FILE_WRITE), 0);
}

/* Calls of the index ------------------------------------------------------------------ */

static void start_open(struct under_way *u, uint64_t fileid, struct place p)
{
	u->wait = (struct kit_wait)KIT_WAIT;
	u->op = (struct file_op){ .done = kit_done, .arg = &u->wait };
	file_open(engine, fileid, p, 0, &u->op);
}

/* Who waits for the one that loads goes on when that one gives up. */
static void test_open(void **state)
{
	struct under_way one = { 0 }, other = { 0 };
	uint64_t fileid, calls;

	(void)state;
	make_scattered("o");
	struct place p = place_of("o", &fileid);
	kv_fault_hold(faults, true);
	calls = kv_fault_count(faults);
	start_open(&one, fileid, p);
	start_open(&other, fileid, p);
	cancel(&one);
	sleep_us(20000);
	assert_false(has_ended(&one));
	kv_fault_hold(faults, false);
	assert_int_equal(kit_wait(&one.wait), -ECANCELED);
	assert_null(one.op.file);
	assert_int_equal(kit_wait(&other.wait), 0);
	/* Its own record and blocks, and of the first one the record. */
	assert_true(kv_fault_count(faults) - calls <= 4);
	struct attr a;
	file_attr(other.op.file, &a);
	assert_int_equal(a.pages, SCATTERED);
	assert_int_equal(kit_close(other.op.file, 0), 0);
}

/* At whatever step it is cancelled: the version is there, or can be published. */
static void test_publish(void **state)
{
	uint8_t page[PAGE_BYTES] = { 1 };
	unsigned cancelled = 0;
	struct file *f = NULL;

	(void)state;
	make_scattered("p");
	uint64_t fileid;
	struct place p = place_of("p", &fileid);
	assert_int_equal(kit_open(engine, fileid, p, FILE_WRITE, &f), 0);
	for (unsigned i = 1; i < 100; i++) {
		struct under_way u = { 0 };
		page[0] = (uint8_t)i;
		for (unsigned k = 0; k < 20; k++)
			assert_int_equal(kit_write(f, k * 655360ULL, page, PAGE_BYTES), PAGE_BYTES);
		u.op = (struct file_op){ .file = f, .off = 1 };
		begin(&u, file_publish);
		sleep_us(i * 37 % 100 * 50);
		cancel(&u);
		int64_t r = kit_wait(&u.wait);
		assert_true(!r || r == -ECANCELED);
		cancelled += r != 0;
		assert_int_equal(file_is_dirty(f), r != 0);
		assert_int_equal(kit_publish(f, true), 0);
		assert_false(file_is_dirty(f));
	}
	print_message("%u of 99 were cancelled\n", cancelled);
	assert_true(cancelled > 0);
	assert_int_equal(kit_close(f, FILE_WRITE), 0);
	assert_int_equal(kit_open(engine, fileid, p, 0, &f), 0);
	assert_int_equal(kit_read(f, 655360, page, PAGE_BYTES), PAGE_BYTES);
	assert_int_equal(page[0], 99);
	assert_int_equal(kit_close(f, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_open, setup, teardown),
		cmocka_unit_test_setup_teardown(test_publish, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
