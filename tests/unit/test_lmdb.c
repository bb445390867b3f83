/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What index/lmdb.c promises beyond other engines: files that are refused, files
 * that are full, processes that die, and how requests share commits.
 */
#include "tests/unit/kv_model.h"
#include "tests/unit/ranges.h"

#include "index/lmdb_guard.h"
#include "index/walk.h"

#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

enum { MIB = 1 << 20 };

struct fix {
	struct folder folder;
	char path[128];
	struct kv_lmdb_opts opts;
	struct kv *kv;
};

static int setup(void **state)
{
	struct fix *x = calloc(1, sizeof(*x));

	folder_make(&x->folder);
	strcpy(x->path, folder_file(&x->folder, "index"));
	x->opts = (struct kv_lmdb_opts){ .path = x->path, .size_bytes = 4 * MIB,
					 .create = true };
	*state = x;
	return kv_lmdb_open(&x->opts, &x->kv);
}

static void shut(struct fix *x)
{
	kv_close(x->kv);
	x->kv = NULL;
}

static int teardown(void **state)
{
	struct fix *x = *state;

	if (x->kv)
		assert_kv_fine(x->kv);
	shut(x);
	folder_remove(&x->folder);
	free(x);
	assert_nothing_in_flight();
	return 0;
}

static void reopen(struct fix *x)
{
	shut(x);
	assert_int_equal(kv_lmdb_open(&x->opts, &x->kv), 0);
}

static int try_open(struct fix *x)
{
	return kv_lmdb_open(&x->opts, &x->kv);
}

static void write_file(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), n);
	close(fd);
}

static uint8_t *read_file(const char *path, size_t *ret_n)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	uint8_t *p;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	p = malloc((size_t)st.st_size);
	assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_n = (size_t)st.st_size;
	return p;
}

/* Opening ------------------------------------------------------------------------ */

static void test_one_file_is_opened_once(void **state)
{
	struct fix *x = *state;
	struct kv *second;

	assert_int_equal(kv_lmdb_open(&x->opts, &second), -EBUSY);
	x->opts.read_only = true;
	assert_int_equal(kv_lmdb_open(&x->opts, &second), -EBUSY);
	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE); /* the first still works */
	shut(x);
	assert_int_equal(try_open(x), 0);
}

static void test_what_is_not_there_is_made_only_if_asked(void **state)
{
	struct fix *x = *state;

	shut(x);
	assert_int_equal(unlink(x->path), 0);
	x->opts.create = false;
	assert_int_equal(try_open(x), -ENOENT);
	assert_int_equal(folder_count(&x->folder), 1); /* the lock file */
	x->opts.create = true;
	assert_int_equal(try_open(x), 0);
}

static void test_read_only_reads_only(void **state)
{
	struct fix *x = *state;

	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE);
	x->opts.read_only = true;
	reopen(x);
	assert_string_equal(get(x->kv, "D1"), "v");
	assert_int_equal(put(x->kv, "D1", "w"), -EROFS);
	assert_int_equal(put(x->kv, "n1", "w"), -EROFS);
}

static void test_a_map_grows_and_never_shrinks(void **state)
{
	struct fix *x = *state;
	struct kv_stat st;
	struct stat file;

	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE);
	x->opts.size_bytes = 8 * MIB;
	reopen(x);
	x->opts.size_bytes = 2 * MIB;
	reopen(x);
	assert_int_equal(x->kv->ops->stat(x->kv, &st), 0);
	assert_int_equal(st.size_bytes, 8 * MIB);
	assert_int_equal(metric_get(M_INDEX_SIZE), 8 * MIB);
	assert_int_equal(stat(x->path, &file), 0);
	assert_int_equal(file.st_size, 8 * MIB);
	assert_true(file.st_blocks * 512 >= 8 * MIB); /* no holes: no SIGBUS */
	assert_string_equal(get(x->kv, "D1"), "v");
}

static void test_no_room_for_the_map(void **state)
{
	struct fix *x = *state;
	struct statvfs fs;

	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE);
	shut(x);
	assert_int_equal(statvfs(x->path, &fs), 0);
	if (fs.f_blocks * fs.f_frsize > 1ull << 40)
		skip();
	x->opts.size_bytes = fs.f_blocks * fs.f_frsize + MIB;
	assert_int_equal(try_open(x), -ENOSPC); /* to grow it */
	strcat(x->path, "2");
	assert_int_equal(try_open(x), -ENOSPC); /* to make another */
	assert_int_equal(folder_count(&x->folder), 2);
	x->path[strlen(x->path) - 1] = 0;
	x->opts.size_bytes = 4 * MIB;
	assert_int_equal(try_open(x), 0);
	assert_string_equal(get(x->kv, "D1"), "v");
}

static void test_half_made_files_are_made_again(void **state)
{
	struct fix *x = *state;

	shut(x);
	assert_int_equal(unlink(x->path), 0);
	write_file(folder_file(&x->folder, "index.new"), "half", 4);
	assert_int_equal(try_open(x), 0);
	assert_int_equal(folder_count(&x->folder), 2); /* index, its lock file */
}

/* Files that are refused ------------------------------------------------------------- */

static void test_foreign_files_are_refused(void **state)
{
	static const char text[9000] = "not an index";
	struct fix *x = *state;

	shut(x);
	write_file(x->path, "", 0);
	assert_int_equal(try_open(x), -EUCLEAN);
	write_file(x->path, text, 100);
	assert_int_equal(try_open(x), -EUCLEAN);
	write_file(x->path, text, sizeof(text));
	assert_int_equal(try_open(x), -EUCLEAN);
	assert_int_equal(unlink(x->path), 0);
	assert_int_equal(mkdir(x->path, 0700), 0);
	assert_int_equal(try_open(x), -EISDIR);
	assert_int_equal(rmdir(x->path), 0);
}

/* Changes the engine's own row, as only somebody else could. */
static void change_engine_row(const char *path, bool remove, uint32_t version)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	uint8_t b[KV_KEY_MAX + 1];
	struct { uint32_t magic, version; uint64_t revisions; } row = {
		0x766b7373, version, 0 };
	MDB_val key = { sizeof(b), b }, value = { sizeof(row), &row };

	memset(b, 0xff, sizeof(b));
	assert_int_equal(mdb_env_create(&env), 0);
	assert_int_equal(mdb_env_open(env, path, MDB_NOSUBDIR, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
	if (remove)
		assert_int_equal(mdb_del(txn, dbi, &key, NULL), 0);
	else
		assert_int_equal(mdb_put(txn, dbi, &key, &value, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void test_other_formats_are_told_apart(void **state)
{
	struct fix *x = *state;
	uint8_t *file;
	size_t n;

	shut(x);
	change_engine_row(x->path, false, 2);
	assert_int_equal(try_open(x), -EPROTONOSUPPORT);
	change_engine_row(x->path, false, 1);
	assert_int_equal(try_open(x), 0);
	shut(x);
	change_engine_row(x->path, true, 0); /* LMDB, but not of slicefs */
	assert_int_equal(try_open(x), -EUCLEAN);
	file = read_file(x->path, &n);
	file[16 + 4] = 2; /* mm_version of the first header */
	write_file(x->path, file, n);
	assert_int_equal(try_open(x), -EPROTONOSUPPORT);
	free(file);
}

/* Rows of all sizes, deletions and free pages. */
static void fill_at_random(struct fix *x, struct rng *g, unsigned steps)
{
	struct model m = { 0 };

	for (unsigned i = 0; i < steps; i++)
		model_step(&m, x->kv, g);
	for (uint32_t i = m.nrows; i-- > 0;)
		model_remove(&m, i);
	free(m.rows);
}

static void test_cut_files_are_refused(void **state)
{
	struct fix *x = *state;
	struct rng g = { 5 };
	uint8_t *file;
	size_t n;

	fill_at_random(x, &g, 100);
	shut(x);
	file = read_file(x->path, &n);
	for (size_t cut = 1; cut < n; cut *= 2) {
		assert_int_equal(truncate(x->path, (off_t)(n - cut)), 0);
		assert_int_equal(try_open(x), -EUCLEAN);
		write_file(x->path, file, n);
	}
	free(file);
	assert_int_equal(try_open(x), 0);
}

/* Whatever is in a file: it is refused, or can be read, written and closed. */
static unsigned damage(struct fix *x, struct rng *g, const uint8_t *file, size_t used)
{
	int fd = open(x->path, O_WRONLY);
	unsigned nwrong = 1 + (unsigned)below(g, 4);
	struct writer report = { 0 };
	int r;

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, file, used, 0), used);
	for (unsigned i = 0; i < nwrong; i++) {
		static const uint64_t nasty[] = { 0, 1, 2, UINT64_MAX, UINT32_MAX, 4096 };
		uint64_t wrong = chance(g, 50) ? nasty[below(g, 6)] : draw(g);
		size_t len = (size_t)1 << below(g, 4), at = below(g, used - 8);

		if (chance(g, 60)) /* in the header of a page, or a little behind */
			at = (at & ~(size_t)4095) + below(g, 200);
		if (chance(g, 20)) /* in the header of the file */
			at = below(g, 2) * 4096 + below(g, 16 + 136);
		if (at > used - 8)
			at = used - 8;
		assert_int_equal(pwrite(fd, &wrong, len, (off_t)at), len);
	}
	close(fd);
	r = try_open(x);
	if (r < 0) {
		assert_true(r == -EUCLEAN || r == -EPROTONOSUPPORT);
		return 1;
	}
	x->kv->ops->check(x->kv, &report);
	writer_fini(&report);
	for (unsigned i = 0; i < 20; i++) {
		struct made d = { 0 };
		assert_true(put_bytes(x->kv, random_key(&d, g), random_value(&d, g)) <= 0);
		kv_req_fini(&d.pool);
	}
	shut(x);
	return 0;
}

static void walk_damage(void *arg, uint64_t seed)
{
	struct fix *x = arg;
	struct rng g = { seed };
	unsigned refused = 0, tries = 300;
	struct kv_stat st;
	uint8_t *file;
	size_t n, used;

	shut(x);
	unlink(x->path);
	assert_int_equal(try_open(x), 0);
	fill_at_random(x, &g, 200);
	assert_int_equal(x->kv->ops->stat(x->kv, &st), 0);
	shut(x);
	file = read_file(x->path, &n);
	for (used = n; used > 4096 && !file[used - 1]; used--)
		;
	used = (used + 4095) & ~(size_t)4095;
	for (unsigned i = 0; i < tries; i++)
		refused += damage(x, &g, file, used);
	print_message("%u of %u damaged files were refused\n", refused, tries);
	assert_true(refused > tries / 10);
	write_file(x->path, file, n);
	free(file);
	assert_int_equal(try_open(x), 0);
}

static void test_damaged_files_do_no_harm(void **state)
{
	for_seeds("damage", walk_damage, *state);
}

/* Files that are full ---------------------------------------------------------------- */

static struct bytes numbered(char kind, uint64_t n)
{
	static _Thread_local char key[32];

	snprintf(key, sizeof(key), "%c%06llu", kind, (unsigned long long)n);
	return bytes_str(key);
}

/* Puts until it is refused; how many there were. */
static unsigned fill(struct kv *kv, struct rng *g, size_t most)
{
	static const uint8_t zeros[KV_VALUE_MAX];

	for (unsigned n = 0;; n++) {
		int r = put_bytes(kv, numbered('D', n),
				  BYTES_OF(zeros, 1 + below(g, most)));
		if (r == -ENOSPC)
			return n;
		assert_int_equal(r, KV_DONE);
	}
}

/* A session key that is the beginning of more, as a draft's. */
static int put_beginning(struct kv *kv)
{
	struct kv_write w = { bytes_str("w00000001"), bytes_str("draft") };
	struct kv_req req = { .writes = &w, .nwrites = 1, .needs_room = true };

	return run(kv, &req);
}

static void walk_full(void *arg, uint64_t seed)
{
	static const size_t most[] = { 100, 3000, 20000, KV_VALUE_MAX };
	struct fix *x = arg;
	struct rng g = { seed };
	struct kv_stat st;
	bool was_full = false;

	for (unsigned round = 0; round < 12; round++) {
		unsigned n = fill(x->kv, &g, most[below(&g, 4)]);

		assert_true(n > 5);
		assert_string_equal(get(x->kv, "D999999"), "-");
		assert_int_equal(x->kv->ops->stat(x->kv, &st), 0);
		assert_int_equal(put_beginning(x->kv), st.full ? -ENOSPC : KV_DONE);
		was_full |= st.full;
		while (n > 0) { /* deleting works, in any order */
			uint64_t victim = below(&g, n);
			assert_int_equal(put_bytes(x->kv, numbered('D', victim),
						   BYTES_NONE), KV_DONE);
			n--;
			assert_int_equal(put_bytes(x->kv, numbered('D', n),
						   BYTES_NONE), KV_DONE);
		}
		for (n = 0; n < 30000; n += 100) { /* what chance left over */
			struct kv_write w[100];
			char keys[100][32];
			struct kv_req req = { .writes = w, .nwrites = 100 };
			for (unsigned i = 0; i < 100; i++) {
				strcpy(keys[i], numbered('D', n + i).p);
				w[i] = (struct kv_write){ bytes_str(keys[i]), BYTES_NONE };
			}
			assert_int_equal(run(x->kv, &req), KV_DONE);
		}
		assert_kv_fine(x->kv);
		assert_int_equal(x->kv->ops->stat(x->kv, &st), 0);
		assert_int_equal(st.keys, 0);
		assert_false(st.full);
		assert_int_equal(put_beginning(x->kv), KV_DONE);
	}
	assert_true(was_full);
}

static void test_deleting_works_on_a_full_map(void **state)
{
	for_seeds("full", walk_full, *state);
}

/* One request with as many writes as there may be, on keys far apart: each copies
 * a page of its own before it frees anything. */
enum { MANY = 1024 };

static int write_many(struct kv *kv, const uint64_t *numbers, struct bytes value)
{
	static struct kv_write w[MANY];
	static char keys[MANY][32];
	struct kv_req req = { .writes = w, .nwrites = MANY };

	assert_true(MANY <= kv->ops->caps(kv).max_writes);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(keys[i], sizeof(keys[i]), "D%016llx",
			 (unsigned long long)(numbers[i] * 0x9e3779b97f4a7c15));
		w[i] = (struct kv_write){ bytes_str(keys[i]), value };
	}
	return run(kv, &req);
}

static void test_the_largest_deletion_works_on_a_full_map(void **state)
{
	static const uint8_t zeros[100];
	struct fix *x = *state;
	struct rng g = { 6 };
	uint64_t numbers[MANY], n = 0;

	x->opts.size_bytes = 24 * MIB;
	reopen(x);
	for (unsigned round = 0; round < 20; round++) {
		do { /* then with rows that leave no room for another */
			for (unsigned i = 0; i < MANY; i++)
				numbers[i] = n + i;
			n += MANY;
		} while (!write_many(x->kv, numbers, BYTES_OF(zeros, 100)));
		while (!put_bytes(x->kv, numbered('E', n), BYTES_OF(zeros, 100)))
			n++;
		for (unsigned i = 0; i < MANY; i++)
			numbers[i] = below(&g, n);
		assert_int_equal(write_many(x->kv, numbers, BYTES_NONE), KV_DONE);
	}
}

static void test_the_reserve_is_for_those_who_ask(void **state)
{
	struct fix *x = *state;
	struct rng g = { 3 };
	struct kv_write w[] = { { bytes_str("D000001"), BYTES_NONE },
				{ bytes_str("Ex"), bytes_str("work order") } };
	struct kv_req req = { .writes = w, .nwrites = 2 };

	fill(x->kv, &g, 4000);
	assert_int_equal(run(x->kv, &req), -ENOSPC);
	assert_string_equal(get(x->kv, "Ex"), "-");
	req.reserve = true;
	assert_int_equal(run(x->kv, &req), KV_DONE);
	assert_string_equal(get(x->kv, "Ex"), "work order");
	assert_string_equal(get(x->kv, "D000001"), "-");
	assert_int_equal(put(x->kv, "n1", "v"), KV_DONE); /* not in the map */
}

/* Groups -------------------------------------------------------------------------------- */

struct member {
	struct kv_req req;
	struct kv_write write;
	int outcome;
};

struct party { /* what one done() submits is committed together */
	struct kv_req opener;
	struct kv *kv;
	struct member *members;
	unsigned n;
	sem_t ended;
};

static void member_done(struct kv_req *req, int outcome)
{
	((struct member *)req)->outcome = outcome;
	kv_req_fini(req);
}

static void open_party(struct kv_req *req, int outcome)
{
	struct party *p = (struct party *)req;

	assert_int_equal(outcome, KV_DONE);
	kv_req_fini(req);
	for (unsigned i = 0; i < p->n; i++) {
		struct member *m = &p->members[i];
		m->req.writes = &m->write;
		m->req.nwrites = 1;
		m->req.done = member_done;
		m->outcome = 99;
		kv_submit(p->kv, &m->req);
	}
}

static void hold_party(struct kv *kv, struct member *members, unsigned n)
{
	struct kv_write w = { bytes_str("nopener"), bytes_str("v") };
	struct party p = { .kv = kv, .members = members, .n = n,
			   .opener = { .writes = &w, .nwrites = 1, .done = open_party } };

	kv_submit(kv, &p.opener); /* nobody else submits: all is done in here */
	for (unsigned i = 0; i < n; i++)
		assert_int_not_equal(members[i].outcome, 99);
}

static void test_a_group_shares_one_commit(void **state)
{
	struct fix *x = *state;
	struct member m[50] = { 0 };
	char keys[50][8];
	int64_t commits, txns;

	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE); /* reserves revisions */
	commits = metric_get(M_INDEX_COMMITS), txns = metric_get(M_INDEX_TXNS);
	for (unsigned i = 0; i < 50; i++) {
		snprintf(keys[i], sizeof(keys[i]), "D%u", i);
		m[i].write = (struct kv_write){ bytes_str(keys[i]), bytes_str("v") };
	}
	hold_party(x->kv, m, 50);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(m[i].outcome, KV_DONE);
		assert_int_equal(m[i].req.revision, m[0].req.revision + i);
	}
	assert_int_equal(metric_get(M_INDEX_COMMITS) - commits, 1);
	assert_int_equal(metric_get(M_INDEX_TXNS) - txns, 51);
}

static void test_session_keys_and_reads_cost_no_commit(void **state)
{
	struct fix *x = *state;
	int64_t commits;

	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE);
	commits = metric_get(M_INDEX_COMMITS);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(put(x->kv, "n1", "v"), KV_DONE);
		assert_string_equal(get(x->kv, "D1"), "v");
		assert_int_equal(del(x->kv, "n1"), KV_DONE);
	}
	assert_int_equal(metric_get(M_INDEX_COMMITS), commits);
	assert_int_equal(metric_get(M_SESSION_KEYS), 0);
}

/* One that does not fit fails alone, whichever way that is found out. */
static void test_a_group_survives_one_that_does_not_fit(void **state)
{
	static const uint8_t zeros[KV_VALUE_MAX];
	struct fix *x = *state;
	struct rng g = { 4 };
	unsigned n;

	for (unsigned reserve = 0; reserve < 2; reserve++) {
		struct member m[41] = { 0 };
		char keys[41][8];
		n = fill(x->kv, &g, 2000);
		for (unsigned i = 0; i < 41; i++) {
			snprintf(keys[i], sizeof(keys[i]), "%c%u", i % 2 ? 'n' : 'D', i);
			m[i].write = (struct kv_write){ bytes_str(keys[i]),
							bytes_str("v") };
			m[i].req.reserve = true;
			if (i % 4 == 0) { /* too large in sum */
				m[i].write.value = BYTES_OF(zeros, KV_VALUE_MAX);
				m[i].req.reserve = reserve;
			}
		}
		hold_party(x->kv, m, 41);
		unsigned refused = 0;
		for (unsigned i = 0; i < 41; i++) {
			bool is_large = m[i].write.value.len > 1;
			if (!is_large)
				assert_int_equal(m[i].outcome, KV_DONE);
			refused += m[i].outcome == -ENOSPC;
			assert_string_equal(get(x->kv, keys[i]),
					    m[i].outcome ? "-" : is_large ? "" : "v");
		}
		assert_true(refused > 0);
		for (unsigned i = 0; i < 41; i++)
			assert_int_equal(del(x->kv, keys[i]), KV_DONE);
		while (n-- > 0)
			assert_int_equal(put_bytes(x->kv, numbered('D', n), BYTES_NONE),
					 KV_DONE);
	}
}

/*
 * No thread is kept committing for the others for ever. On a disk, a commit takes
 * so much longer than telling its outcome that others nearly always submit while
 * somebody leads.
 */
enum { CAPTIVES = 3, SUBMITS = 2000, SUBMIT_EVERY_US = 200 };

static _Thread_local unsigned done_here;
static sem_t captives_done;

static void captive_done(struct kv_req *req, int outcome)
{
	assert_int_equal(outcome, KV_DONE);
	done_here++;
	kv_req_fini(req);
	free(req);
	sem_post(&captives_done);
}

static void *submit_many(void *arg)
{
	static const struct kv_write w = { { "Dx", 2 }, { "v", 1 } };
	unsigned most = 0;

	for (unsigned i = 0; i < SUBMITS; i++) {
		struct kv_req *req = calloc(1, sizeof(*req));
		req->writes = &w;
		req->nwrites = 1;
		req->done = captive_done;
		done_here = 0;
		kv_submit(arg, req);
		most = done_here > most ? done_here : most;
		usleep(SUBMIT_EVERY_US);
	}
	return (void *)(uintptr_t)most;
}

static void test_no_thread_leads_for_ever(void **state)
{
	char path[] = "/var/tmp/slicefs-test.XXXXXX", file[64], lock[64];
	struct kv_lmdb_opts o = { .path = file, .size_bytes = 4 * MIB,
				  .create = true, .sync = true };
	pthread_t t[CAPTIVES];
	struct kv *kv;

	(void)state;
	assert_non_null(mkdtemp(path));
	snprintf(file, sizeof(file), "%s/index", path);
	snprintf(lock, sizeof(lock), "%s/index-lock", path);
	assert_int_equal(kv_lmdb_open(&o, &kv), 0);
	sem_init(&captives_done, 0, 0);
	for (unsigned i = 0; i < CAPTIVES; i++)
		assert_int_equal(pthread_create(&t[i], NULL, submit_many, kv), 0);
	for (unsigned i = 0; i < CAPTIVES; i++) {
		void *most;
		pthread_join(t[i], &most);
		print_message("one call did %u requests at most\n",
			      (unsigned)(uintptr_t)most);
		assert_true((uintptr_t)most < CAPTIVES * SUBMITS / 4);
	}
	for (unsigned i = 0; i < CAPTIVES * SUBMITS; i++)
		while (sem_wait(&captives_done) < 0)
			;
	sem_destroy(&captives_done);
	kv_close(kv);
	unlink(file);
	unlink(lock);
	assert_int_equal(rmdir(path), 0);
}

/* Pages and readers --------------------------------------------------------------------- */

static void *keep_reading(void *arg)
{
	struct fix *x = arg;

	for (unsigned i = 0; i < 20000; i++)
		get(x->kv, "Dx");
	return NULL;
}

static void test_overwriting_with_readers_does_not_grow(void **state)
{
	static const uint8_t zeros[3000];
	struct fix *x = *state;
	pthread_t t[2];
	struct kv_stat st;

	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, keep_reading, x), 0);
	for (unsigned i = 0; i < 20000; i++)
		assert_int_equal(put_bytes(x->kv, bytes_str("Dx"),
					   BYTES_OF(zeros, 1 + i % 3000)), KV_DONE);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(x->kv->ops->stat(x->kv, &st), 0);
	assert_true(st.used_bytes < 200000);
	/* The gauge leaves out what the commit itself did to the list of free pages. */
	assert_uint_in_range((uint64_t)metric_get(M_INDEX_BYTES) + 40000, st.used_bytes,
			     st.used_bytes + 80000);
}

static void test_a_forked_child_is_refused(void **state)
{
	struct fix *x = *state;
	int status;
	pid_t pid;

	assert_int_equal(put(x->kv, "D1", "v"), KV_DONE);
	pid = fork();
	if (!pid) {
		struct kv_write w = { bytes_str("D1"), bytes_str("child") };
		struct kv_read rd = { .from = bytes_str("D1") };
		struct kv_req write = { .writes = &w, .nwrites = 1 };
		struct kv_req rread = { .reads = &rd, .nreads = 1 };
		bool fine = run(x->kv, &write) == -EIO && run(x->kv, &rread) == -EIO;
		kv_close(x->kv);
		_exit(fine ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_string_equal(get(x->kv, "D1"), "v");
	assert_int_equal(put(x->kv, "D1", "w"), KV_DONE);
}

/* Death ------------------------------------------------------------------------------------ */

enum { WRITERS = 3 }; /* start_child() has it, too */

/* In memory shared with the child: how far each of its threads got. */
struct progress {
	_Atomic uint64_t acknowledged[WRITERS];
};

struct child {
	struct kv *kv;
	struct progress *progress;
	unsigned number;
};

static void *child_writes(void *arg)
{
	static const uint8_t zeros[5000];
	struct child *c = arg;
	struct rng g = { c->number + clock_ns() };
	char key[8], other[8];

	snprintf(key, sizeof(key), "D%u", c->number);
	for (uint64_t n = c->progress->acknowledged[c->number] + 1;; n++) {
		snprintf(other, sizeof(other), "E%u", (unsigned)below(&g, 50));
		struct kv_write w[] = {
			{ bytes_str(key), BYTES_OF(&n, sizeof(n)) },
			{ bytes_str(other), BYTES_OF(zeros, below(&g, 5000)) },
			{ bytes_str("nx"), bytes_str("v") },
		};
		struct kv_req req = { .writes = w, .nwrites = 3 };
		int r = run(c->kv, &req);
		if (r != KV_DONE) {
			print_error("child: %d\n", r);
			abort();
		}
		atomic_store(&c->progress->acknowledged[c->number], n);
		get(c->kv, other);
	}
	return NULL;
}

/* The other half of the tests below: a process of its own, with one writer if it
 * is to die at a point of its own choosing. */
static int child_main(char **argv)
{
	struct kv_lmdb_opts o = { .path = argv[2], .size_bytes = 4 * MIB,
				  .sync = argv[3][0] == 's' };
	struct child c[WRITERS];
	pthread_t t[WRITERS];
	unsigned writers = (unsigned)atoi(argv[5]);
	struct kv *kv;
	struct progress *p;
	int r;

	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[4]), 0);
	r = kv_lmdb_open(&o, &kv);
	if (r < 0 || p == MAP_FAILED) {
		print_error("child: open: %d\n", r);
		return 1;
	}
	for (unsigned i = 0; i < writers; i++) {
		c[i] = (struct child){ kv, p, i };
		pthread_create(&t[i], NULL, child_writes, &c[i]);
	}
	for (unsigned i = 0; i < writers; i++)
		pthread_join(t[i], NULL);
	return 1;
}

static pid_t start_child(struct fix *x, int fd, bool sync, const char *crash)
{
	char number[16];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd);
	pid = fork();
	if (pid)
		return pid;
	if (crash)
		setenv("SLICEFS_CRASH", crash, 1);
	execl("/proc/self/exe", "test_lmdb", "--child", x->path, sync ? "s" : "n",
	      number, crash ? "1" : "3", NULL);
	_exit(127);
}

static uint64_t stored(struct kv *kv, unsigned writer)
{
	char key[8];
	struct kv_read rd;
	struct kv_req req = { .reads = &rd, .nreads = 1 };
	uint64_t n = 0;

	snprintf(key, sizeof(key), "D%u", writer);
	rd = (struct kv_read){ .from = bytes_str(key) };
	assert_int_equal(kv_wait(kv, &req), KV_DONE);
	if (req.rows[0].nrows)
		memcpy(&n, req.rows[0].rows[0].value.p, sizeof(n));
	kv_req_fini(&req);
	return n;
}

/* Lets a child write and die; then all that it was told is there, and at most
 * one more for each of its threads. Returns how many were one ahead. */
static unsigned live_and_die(struct fix *x, struct progress *p, int fd, bool sync,
			     const char *crash, unsigned us)
{
	unsigned ahead = 0;
	int status;
	pid_t pid = start_child(x, fd, sync, crash);

	assert_true(pid > 0);
	if (!crash) {
		while (!p->acknowledged[0] && !waitpid(pid, &status, WNOHANG))
			usleep(500);
		usleep(us);
		kill(pid, SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(try_open(x), 0);
	assert_kv_fine(x->kv);
	assert_string_equal(get(x->kv, "nx"), "-");
	for (unsigned i = 0; i < WRITERS; i++) {
		uint64_t told = p->acknowledged[i], there = stored(x->kv, i);
		assert_true(there == told || there == told + 1);
		ahead += there != told;
		p->acknowledged[i] = there;
	}
	return ahead;
}

static struct progress *share_progress(int *ret_fd)
{
	struct progress *p;

	*ret_fd = memfd_create("progress", 0);
	assert_true(*ret_fd >= 0);
	assert_int_equal(ftruncate(*ret_fd, sizeof(*p)), 0);
	p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, *ret_fd, 0);
	assert_true(p != MAP_FAILED);
	return p;
}

static void unshare_progress(struct progress *p, int fd)
{
	munmap(p, sizeof(*p));
	close(fd);
}

static void walk_killed(void *arg, uint64_t seed)
{
	struct fix *x = arg;
	struct rng g = { seed };
	int fd;
	struct progress *p = share_progress(&fd);

	for (unsigned i = 0; i < WRITERS; i++) {
		if (!x->kv)
			assert_int_equal(try_open(x), 0);
		p->acknowledged[i] = stored(x->kv, i);
	}
	for (unsigned i = 0; i < 30; i++) {
		shut(x);
		live_and_die(x, p, fd, chance(&g, 25), NULL, (unsigned)below(&g, 10000));
	}
	unshare_progress(p, fd);
}

static void test_what_was_acknowledged_survives_kill(void **state)
{
	for_seeds("killed", walk_killed, *state);
}

static void test_crash_points_of_a_commit(void **state)
{
	struct fix *x = *state;
	int fd;
	struct progress *p = share_progress(&fd);

	for (unsigned i = 1; i < 6; i++) {
		char crash[64];

		shut(x);
		snprintf(crash, sizeof(crash), "index.before-commit:%u", i * 7);
		assert_int_equal(live_and_die(x, p, fd, i % 2, crash, 0), 0);
		shut(x);
		snprintf(crash, sizeof(crash), "index.after-commit:%u", i * 7);
		assert_int_equal(live_and_die(x, p, fd, i % 2, crash, 0), 1);
	}
	unshare_progress(p, fd);
}

/* Readers of a killed process keep no page from being used again. */
static void test_readers_that_died_keep_nothing(void **state)
{
	static const uint8_t zeros[3000];
	struct fix *x = *state;
	int fd;
	struct progress *p = share_progress(&fd);

	for (unsigned i = 0; i < 5; i++) {
		shut(x);
		live_and_die(x, p, fd, false, NULL, 1000);
	}
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(put_bytes(x->kv, bytes_str("Dx"), BYTES_OF(zeros, 3000)),
				 KV_DONE);
	unshare_progress(p, fd);
}

/* Looking at a large file ------------------------------------------------------------ */

enum { ROWS = 8000, NUMBER_LEN = 8 };

/* Rows "D0000000" and so on. */
static void fill_in_order(struct fix *x)
{
	static const char value[100] = "so that many pages are needed";

	for (unsigned i = 0; i < ROWS;) {
		char keys[50][NUMBER_LEN + 1];
		struct kv_write w[50];
		struct kv_req req = { .writes = w };
		for (; req.nwrites < 50 && i < ROWS; i++, req.nwrites++) {
			snprintf(keys[req.nwrites], sizeof(*keys), "D%07u", i);
			w[req.nwrites] = (struct kv_write){ bytes_str(keys[req.nwrites]),
							    BYTES_OF(value, sizeof(value)) };
		}
		assert_int_equal(kv_wait(x->kv, &req), KV_DONE);
		kv_req_fini(&req);
	}
}

static unsigned number_of(struct bytes key)
{
	char text[NUMBER_LEN];

	memcpy(text, (const char *)key.p + 1, NUMBER_LEN - 1);
	text[NUMBER_LEN - 1] = 0;
	return (unsigned)strtoul(text, NULL, 10);
}

struct tally {
	unsigned rows;
	uint64_t sum;
};

static int tally_row(void *arg, const struct kv_row *row)
{
	struct tally *t = arg;

	assert_int_equal(row->key.len, NUMBER_LEN);
	assert_int_equal(row->value.len, 100);
	t->rows++;
	t->sum += number_of(row->key);
	return t->rows == ROWS + 1 ? -EIO : 0;
}

static int fail_row(void *arg, const struct kv_row *row)
{
	(void)arg;
	return memcmp(row->key.p, "D0004711", NUMBER_LEN) ? 0 : -EBUSY;
}

static void test_rows_are_walked_in_parts(void **state)
{
	struct fix *x = *state;
	struct tally t[4] = { 0 };
	void *args[4] = { &t[0], &t[1], &t[2], &t[3] };
	unsigned n;

	fill_in_order(x);
	assert_int_equal(put(x->kv, "C", "before"), KV_DONE);
	assert_int_equal(put(x->kv, "E", "behind"), KV_DONE);
	reopen(x);
	const struct bytes *v = x->kv->ops->marks(x->kv, &n);
	assert_true(n >= 100 && n <= 256);
	for (unsigned i = 1; i < n; i++)
		assert_true(bytes_cmp(v[i - 1], v[i]) < 0);
	for (unsigned threads = 1; threads <= 4; threads++) {
		memset(t, 0, sizeof(t));
		assert_int_equal(walk_rows(x->kv, 'D', tally_row, args, threads), 0);
		assert_int_equal(t[0].rows + t[1].rows + t[2].rows + t[3].rows, ROWS);
		assert_int_equal(t[0].sum + t[1].sum + t[2].sum + t[3].sum,
				 (uint64_t)ROWS * (ROWS - 1) / 2);
		assert_int_equal(walk_rows(x->kv, 'D', fail_row, args, threads), -EBUSY);
		assert_int_equal(walk_rows(x->kv, 'B', tally_row, args, threads), 0);
	}
}

/* Gives the i-th row the key of the k-th, wherever it stands. */
static void rename_row(uint8_t *file, size_t n, unsigned i, unsigned k)
{
	char from[NUMBER_LEN + 1], to[NUMBER_LEN + 1];
	uint8_t *at = file;

	snprintf(from, sizeof(from), "D%07u", i);
	snprintf(to, sizeof(to), "D%07u", k);
	while ((at = memmem(at, n - (size_t)(at - file), from, NUMBER_LEN)))
		memcpy(at, to, NUMBER_LEN);
}

/* A key that is out of order is seen, also where it is the first or the last of a part. */
static void test_parts_are_in_order(void **state)
{
	struct fix *x = *state;
	struct lmdb_shape shape;
	const char *why;
	size_t n;

	fill_in_order(x);
	reopen(x);
	shut(x);
	uint8_t *file = read_file(x->path, &n), *copy = malloc(n);
	assert_non_null(copy);
	assert_int_equal(lmdb_guard(file, n, &shape, &why), 0);
	assert_true(shape.nmarks >= 100);
	for (unsigned i = 0; i < shape.nmarks; i++) {
		unsigned first = number_of(shape.marks[i]);
		struct lmdb_shape none;
		for (unsigned k = 0; k < 3; k++) {
			static const int wrong[3][2] = { { 0, -1 }, { -1, 0 }, { 1, -2 } };
			memcpy(copy, file, n);
			rename_row(copy, n, first + wrong[k][0], first + wrong[k][1]);
			assert_int_equal(lmdb_guard(copy, n, &none, &why), -EUCLEAN);
			assert_non_null(strstr(why, "order"));
		}
	}
	lmdb_shape_fini(&shape);
	free(copy);
	free(file);
	assert_int_equal(try_open(x), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_one_file_is_opened_once),
		T(test_what_is_not_there_is_made_only_if_asked),
		T(test_read_only_reads_only),
		T(test_a_map_grows_and_never_shrinks),
		T(test_no_room_for_the_map),
		T(test_half_made_files_are_made_again),
		T(test_foreign_files_are_refused),
		T(test_other_formats_are_told_apart),
		T(test_cut_files_are_refused),
		T(test_damaged_files_do_no_harm),
		T(test_rows_are_walked_in_parts),
		T(test_parts_are_in_order),
		T(test_deleting_works_on_a_full_map),
		T(test_the_largest_deletion_works_on_a_full_map),
		T(test_the_reserve_is_for_those_who_ask),
		T(test_a_group_shares_one_commit),
		T(test_session_keys_and_reads_cost_no_commit),
		T(test_a_group_survives_one_that_does_not_fit),
		T(test_no_thread_leads_for_ever),
		T(test_overwriting_with_readers_does_not_grow),
		T(test_a_forked_child_is_refused),
		T(test_what_was_acknowledged_survives_kill),
		T(test_crash_points_of_a_commit),
		T(test_readers_that_died_keep_nothing),
	};

	if (argc > 5 && !strcmp(argv[1], "--child"))
		return child_main(argv);
	alarm(250);
	if (getenv("TEST")) /* a pattern: run some only */
		cmocka_set_test_filter(getenv("TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
