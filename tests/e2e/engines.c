/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engines ENGINE MIB SECONDS DIR...: four processes use DIR, or one of several mounts of the
 * same store each, as an inference engine's file backend does, call for call, until they
 * have written MIB together. What a load misses is stored, as after computing it anew. The
 * store is to be smaller, so that it forgets files meanwhile. See engines.h for what is held
 * against it. Ends with a failure after SECONDS, and if nothing was hit, missed or forgotten.
 *
 *	vllm         vLLM's file system tier
 *	lmcache      LMCache's FSConnector
 *	sglang       SGLang's HiCacheFile
 *	llmd         llm-d's file system backend, and its evictor beside it
 *	safetensors  model files, mapped
 *	storm        all of these at once
 *	small        files of some KiB, as HiCacheFile has them
 *	lmcache-direct  LMCache's FSConnector, told to use O_DIRECT
 *
 * DEADLINE_MS (10000) is how long a call may take, SEED where chance begins.
 */
#include "tests/e2e/engines.h"

#include <dirent.h>
#include <libgen.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>

struct engine {
	const char *name;
	uint32_t least_bytes, most_bytes; /* of a file */
	bool one_owner;                   /* of each key: no process else stores it */
	bool replaces;                    /* stores what is there, too, now and then */
	bool has_evictor;

	void (*start)(void); /* of each process; or NULL */
	void (*path)(char *out, unsigned key);
	bool (*load)(unsigned key, const char *path); /* true: it was there */
	void (*store)(unsigned key, const char *path);
	void (*stop)(void); /* or NULL */
};

static const struct engine *E;
static unsigned nkeys; /* of each engine */

static unsigned key_of(unsigned i); /* E's: i < nkeys */

/* A key's is always the same. */
static uint32_t length_of(unsigned key)
{
	return E->least_bytes + (uint32_t)(random_mix(key) % (E->most_bytes - E->least_bytes + 1));
}

/* What Python does ------------------------------------------------------------------- */

static bool py_exists(const char *path)
{
	struct stat st;

	return CALL(stat, path, 0, stat(path, &st)) == 0;
}

/* os.makedirs(exist_ok=True). False: another one removes directories meanwhile. */
static bool py_makedirs(const char *path)
{
	char copy[PATH_BYTES];

	snprintf(copy, sizeof(copy), "%s", path);
	const char *head = dirname(copy);
	if (!py_exists(head) && !py_makedirs(head))
		return false;
	if (CALL(mkdir, path, EEXIST, mkdir(path, 0777)) == 0)
		return true;
	return errno == EEXIST && py_exists(path);
}

/* open(path, mode): looks at what it has got. */
static int py_open(const char *path, int flags, blksize_t *ret_block)
{
	int fd = CALL(open, path, 0, open(path, flags | O_CLOEXEC, 0666));
	struct stat st;
	struct termios t;

	if (fd < 0)
		return -1;
	must(CALL(fstat, path, 0, fstat(fd, &st)) == 0, path, "fstat");
	CALL(ioctl, path, ENOTTY, ioctl(fd, TCGETS, &t));
	must(CALL(lseek, path, 0, lseek(fd, 0, SEEK_CUR)) == 0, path, "lseek");
	*ret_block = st.st_blksize;
	return fd;
}

/* All at once. */
static void write_all(int fd, const char *p, size_t n, const char *path)
{
	if (n)
		must(CALL(write, path, 0, write(fd, p, n)) == (ssize_t)n, path, "short write");
}

static void close_it(int fd, const char *path)
{
	must(CALL(close, path, 0, close(fd)) == 0, path, "close");
}

static bool ends_with(const char *name, const char *end)
{
	size_t n = strlen(name), len = strlen(end);

	return n > len && !strcmp(name + n - len, end);
}

/* Under its last name. It may be gone: it has been published since it was closed. */
static void publish(const char *tmp, const char *path, unsigned key, uint32_t version)
{
	if (CALL(rename, path, 0, rename(tmp, path)) == 0) {
		stored(key, version, length_of(key));
		return;
	}
	S->lost++;
	S->lost_tmp += ends_with(tmp, ".tmp") || strstr(tmp, ".tmp.");
}

/* What a listing has to have: this process's keys, of which nobody else stores any. */
static struct expected {
	char name[80];
	unsigned key, seen;
	uint32_t version;
} *expected;
static size_t nexpected;

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct expected *)a)->name, ((const struct expected *)b)->name);
}

static void expect(void)
{
	unsigned first_key = key_of(0);
	char path[PATH_BYTES];

	if (!expected)
		expected = calloc(nkeys, sizeof(*expected));
	must(expected, "listing", "calloc");
	nexpected = 0;
	for (unsigned key = first_key; key < first_key + nkeys; key++) {
		if (!is_owned(key) || !may_store(key) || !S->there[key])
			continue;
		struct expected *x = &expected[nexpected++];
		E->path(path, key);
		*x = (struct expected){ .key = key, .version = S->published[key] };
		snprintf(x->name, sizeof(x->name), "%.79s", strrchr(path, '/') + 1);
	}
	qsort(expected, nexpected, sizeof(*expected), by_name);
}

static void see(const char *name)
{
	struct expected want;

	snprintf(want.name, sizeof(want.name), "%.79s", name);
	struct expected *x = bsearch(&want, expected, nexpected, sizeof(want), by_name);
	if (x)
		x->seen++;
}

static void look_at_unseen(const char *path)
{
	char file[PATH_BYTES + 100];

	for (struct expected *x = expected; x < expected + nexpected; x++) {
		snprintf(file, sizeof(file), "%s/%s", path, x->name);
		if (x->seen > 1)
			fail("%s: %u times in one listing", file, x->seen);
		S->expected++;
		if (x->seen)
			continue;
		int fd = CALL(open, file, 0, open(file, O_RDONLY | O_CLOEXEC));
		if (fd >= 0)
			fail("%s: version %u was there before a listing and is there after it, "
			     "and was not in it", file, x->version);
	}
}

/* os.listdir(), glob(), os.scandir(). Entries whose names end so. */
static void py_list(const char *path, const char *end)
{
	expect();
	DIR *d = CALL(opendir, path, 0, opendir(path));

	must(d, path, "opendir");
	for (;;) {
		struct dirent *e = CALL(readdir, path, 0, readdir(d));
		if (!e)
			break;
		S->listed += ends_with(e->d_name, end);
		see(e->d_name);
	}
	CALL(closedir, path, 0, closedir(d));
	look_at_unseen(path);
}

/* vLLM --------------------------------------------------------------------------------
 * vllm/v1/kv_offload/tiering/fs: fixed blocks, of three FUSE requests here, O_DIRECT if a probe
 * at start can write so, one write and one readv each. A block is stored if access() does not
 * find it, under a temporary name of the thread's. Earlier versions remove the file when a load
 * fails for whatever reason, later ones if it was short; here the former, which is worse.
 */
static void hashed_path(char *out, unsigned key)
{
	uint64_t h = random_mix(key);

	snprintf(out, PATH_BYTES, "%s/%s/m_5e1f_r0/%03x/%02x_g0/%016llx.bin", dir, E->name,
		 (unsigned)(h >> 52), (unsigned)(h >> 44 & 0xff), (unsigned long long)h);
}

static void vllm_start(void)
{
	char path[PATH_BYTES], probe[PATH_BYTES + 40];

	snprintf(path, sizeof(path), "%s/%s/m_5e1f", dir, E->name);
	must(py_makedirs(path), path, "mkdir");
	snprintf(probe, sizeof(probe), "%s/.o_direct_probe_%d.tmp", path, getpid());
	int fd = CALL(open, probe, 0, open(probe, O_CREAT | O_WRONLY | O_TRUNC | O_DIRECT, 0644));
	must(fd >= 0, probe, "O_DIRECT");
	write_all(fd, bytes, 4096, probe);
	close_it(fd, probe);
	CALL(unlink, probe, 0, unlink(probe));
}

static bool vllm_load(unsigned key, const char *path)
{
	uint32_t length = length_of(key), least;
	struct iovec v = { bytes, length };

	if (CALL(access, path, 0, access(path, F_OK)) < 0)
		return missed(key);
	least = least_of(key);
	int fd = CALL(open, path, 0, open(path, O_RDONLY | O_DIRECT));
	if (fd < 0) {
		CALL(unlink, path, 0, unlink(path));
		return missed(key);
	}
	ssize_t n = CALL(readv, path, 0, readv(fd, &v, 1));
	check(bytes, n < 0 ? 0 : (size_t)n, key, least, path);
	close_it(fd, path);
	S->hits++;
	return true;
}

static void vllm_store(unsigned key, const char *path)
{
	uint32_t length = length_of(key), version = fill(bytes, key, length);
	char tmp[PATH_BYTES + 40], parent[PATH_BYTES];

	if (CALL(access, path, 0, access(path, F_OK)) == 0)
		return;
	snprintf(parent, sizeof(parent), "%s", path);
	must(py_makedirs(dirname(parent)), parent, "mkdir");
	snprintf(tmp, sizeof(tmp), "%s_%d.tmp", path, getpid());
	int fd = CALL(open, tmp, 0,
		      open(tmp, O_CREAT | O_EXCL | O_WRONLY | O_TRUNC | O_DIRECT, 0644));
	must(fd >= 0, tmp, "open");
	write_all(fd, bytes, length, tmp);
	close_it(fd, tmp);
	publish(tmp, path, key, version);
}

/* LMCache -----------------------------------------------------------------------------
 * lmcache/v1/storage_backend/connector/fs_connector.py: 28 bytes that say what follows, then
 * the chunk, by Python's buffered files: the head and the chunk are a write each, the first
 * read takes what st_blksize says, the second the rest. The temporary name is the key's: two
 * processes that put one key would write into one file, so here each key has one owner.
 */
static void lmcache_path(char *out, unsigned key)
{
	snprintf(out, PATH_BYTES, "%s/%s/model@1@0@%016llx@bfloat16.data", dir, E->name,
		 (unsigned long long)random_mix(key));
}

static void flat_start(void)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", dir, E->name);
	must(py_makedirs(path), path, "mkdir");
}

static void list_flat(const char *end)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", dir, E->name);
	py_list(path, end);
}

static bool lmcache_load(unsigned key, const char *path)
{
	uint32_t length = length_of(key);
	blksize_t block;

	if (!py_exists(path))
		return missed(key);
	uint32_t least = least_of(key);
	int fd = py_open(path, O_RDONLY, &block);
	if (fd < 0)
		return missed(key);
	size_t n = 0;
	for (;;) {
		size_t want = n ? length - n : (size_t)block;
		ssize_t r = CALL(read, path, 0, read(fd, bytes + n, want));
		n += r > 0 ? (size_t)r : 0;
		if (r <= 0 || n >= length)
			break;
	}
	check(bytes, n, key, least, path);
	close_it(fd, path);
	S->hits++;
	return true;
}

static void lmcache_store(unsigned key, const char *path)
{
	uint32_t length = length_of(key), version = fill(bytes, key, length);
	char tmp[PATH_BYTES];
	blksize_t block;

	snprintf(tmp, sizeof(tmp), "%s", path);
	strcpy(strrchr(tmp, '.'), ".tmp");
	int fd = py_open(tmp, O_WRONLY | O_CREAT | O_TRUNC, &block);
	must(fd >= 0, tmp, "open");
	write_all(fd, bytes, sizeof(struct head), tmp);
	write_all(fd, bytes + sizeof(struct head), length - sizeof(struct head), tmp);
	close_it(fd, tmp);
	publish(tmp, path, key, version);
	if (pick(10) == 0)
		list_flat(".data");
}

/* With fs_connector_use_odirect and no save_chunk_meta: O_DIRECT, where the length is a multiple
 * of statvfs()'s f_bsize, which it asks for before it makes its directory; so that is made for
 * it (docs/engines.md). One write, one read, and no head of its own. It looks at neither what
 * write() nor what close() says; here both are to be in order.
 */
static void lmcache_direct_start(void)
{
	char path[PATH_BYTES];
	struct statvfs v;

	flat_start();
	snprintf(path, sizeof(path), "%s/%s", dir, E->name);
	must(CALL(statvfs, path, 0, statvfs(path, &v)) == 0, path, "statvfs");
	must(E->least_bytes % v.f_bsize == 0, path, "f_bsize");
	must(py_makedirs(path), path, "mkdir");
}

/* One read of all that it has: a short one is for check() to see. */
static bool load_by_one_read(unsigned key, const char *path, int fd, uint32_t least)
{
	ssize_t n = CALL(read, path, 0, read(fd, bytes, length_of(key)));

	check(bytes, n < 0 ? 0 : (size_t)n, key, least, path);
	close_it(fd, path);
	S->hits++;
	return true;
}

static bool lmcache_direct_load(unsigned key, const char *path)
{
	struct stat st;

	if (!py_exists(path))
		return missed(key);
	uint32_t least = least_of(key);
	int fd = CALL(open, path, 0, open(path, O_RDONLY | O_DIRECT | O_CLOEXEC));
	if (fd < 0)
		return missed(key);
	must(CALL(fstat, path, 0, fstat(fd, &st)) == 0, path, "fstat");
	return load_by_one_read(key, path, fd, least);
}

static void lmcache_direct_store(unsigned key, const char *path)
{
	uint32_t length = length_of(key), version = fill(bytes, key, length);
	char tmp[PATH_BYTES];

	snprintf(tmp, sizeof(tmp), "%s", path);
	strcpy(strrchr(tmp, '.'), ".tmp");
	int fd = CALL(open, tmp, 0, open(tmp, O_CREAT | O_WRONLY | O_DIRECT | O_CLOEXEC, 0644));
	must(fd >= 0, tmp, "open");
	write_all(fd, bytes, length, tmp);
	close_it(fd, tmp);
	publish(tmp, path, key, version);
	if (pick(10) == 0)
		list_flat(".data");
}

/* SGLang ------------------------------------------------------------------------------
 * python/sglang/srt/mem_cache/hicache_storage.py, HiCacheFile: one directory, listed at start
 * and to find which of many keys are there. numpy's tofile() writes by a duplicate of the
 * descriptor that Python has opened, so the file is flushed, and published, before it is
 * closed; a read is one readinto() without a buffer.
 */
static void sglang_path(char *out, unsigned key)
{
	snprintf(out, PATH_BYTES, "%s/%s/%016llx_model_0_1.bin", dir, E->name,
		 (unsigned long long)random_mix(key));
}

static void sglang_start(void)
{
	flat_start();
	list_flat(".bin");
}

static bool sglang_load(unsigned key, const char *path)
{
	blksize_t block;

	if (pick(nkeys) == 0)
		list_flat(".bin");
	if (!py_exists(path))
		return missed(key);
	uint32_t least = least_of(key);
	int fd = py_open(path, O_RDONLY, &block);
	if (fd < 0)
		return missed(key);
	return load_by_one_read(key, path, fd, least);
}

static void sglang_store(unsigned key, const char *path)
{
	uint32_t length = length_of(key), version = fill(bytes, key, length);
	char tmp[PATH_BYTES + 60];
	blksize_t block;

	if (py_exists(path))
		return;
	snprintf(tmp, sizeof(tmp), "%s.tmp.%d.%d.%08x", path, getpid(), getpid(), version);
	int fd = py_open(tmp, O_WRONLY | O_CREAT | O_TRUNC, &block);
	must(fd >= 0, tmp, "open");
	int twin = CALL(dup, tmp, 0, fcntl(fd, F_DUPFD_CLOEXEC, 0));
	CALL(lseek, tmp, 0, lseek(twin, 0, SEEK_CUR));
	/* As stdio does: whole blocks past its buffer, the rest when it is closed. */
	size_t whole = length - length % (size_t)block;
	write_all(twin, bytes, whole, tmp);
	write_all(twin, bytes + whole, length - whole, tmp);
	close_it(twin, tmp);
	CALL(lseek, tmp, 0, lseek(fd, 0, SEEK_SET));
	CALL(lseek, tmp, 0, lseek(fd, length, SEEK_SET));
	close_it(fd, tmp);
	publish(tmp, path, key, version);
}

/* llm-d -------------------------------------------------------------------------------
 * kv_connectors/llmd_fs_backend: writes of 4 MiB at most under the thread's temporary name,
 * renamed while it is open yet, and removed after that, which finds nothing; or, if it is told
 * to (where the mount has it), O_TMPFILE and linkat, where EEXIST is success. A block that is
 * there already is marked as used by utimensat. kv_connectors/pvc_evictor beside it: looks at
 * statvfs (free, not available) every now and then; from 85 percent on, down to 70, what a walk
 * through the tree comes to is removed, in the order of the walk, unless its st_atime is younger
 * than so many minutes (here milliseconds, as all files are); and directories that are empty.
 * Later versions take the oldest first; a walk that removes what it is just listing is harder.
 */
static bool has_tmpfile, several; /* mounts */

static void llmd_start(void)
{
	int fd = CALL(open, dir, EOPNOTSUPP, open(dir, O_RDWR | O_TMPFILE, 0664));

	has_tmpfile = fd >= 0;
	if (has_tmpfile)
		close_it(fd, dir);
}

static bool llmd_create_directories(const char *path)
{
	char copy[PATH_BYTES];
	struct stat st;

	if (CALL(stat, path, 0, stat(path, &st)) == 0)
		return true;
	snprintf(copy, sizeof(copy), "%s", path);
	if (!llmd_create_directories(dirname(copy)))
		return false;
	return CALL(mkdir, path, EEXIST, mkdir(path, 0777)) == 0 || errno == EEXIST;
}

static bool llmd_load(unsigned key, const char *path)
{
	struct stat st;

	if (CALL(stat, path, 0, stat(path, &st)) < 0)
		return missed(key);
	uint32_t least = least_of(key);
	int fd = CALL(open, path, 0, open(path, O_RDONLY));
	if (fd < 0)
		return missed(key);
	off_t size = CALL(lseek, path, 0, lseek(fd, 0, SEEK_END));
	CALL(lseek, path, 0, lseek(fd, 0, SEEK_SET));
	must(size == length_of(key), path, "another length");
	ssize_t n = CALL(read, path, 0, read(fd, bytes, (size_t)size));
	check(bytes, n < 0 ? 0 : (size_t)n, key, least, path);
	close_it(fd, path);
	S->hits++;
	return true;
}

/* It is there: in use. */
static bool llmd_touch(const char *path)
{
	struct timespec times[2] = { { 0, UTIME_NOW }, { 0, UTIME_OMIT } };
	int fd = CALL(open, path, 0, open(path, O_RDONLY));

	if (fd < 0)
		return false;
	close_it(fd, path);
	CALL(utimensat, path, 0, utimensat(AT_FDCWD, path, times, 0));
	return true;
}

/* False: the evictor has removed the directory. It cannot while the temporary name is in it,
 * unless it comes by another mount. */
static bool llmd_write(const char *tmp, const char *parent, const char *path, bool unnamed,
		       uint32_t length)
{
	int flags = unnamed ? O_RDWR | O_TMPFILE : O_RDWR | O_CREAT;
	const char *at = unnamed ? parent : tmp;
	int fd = CALL(open, at, 0, open(at, flags, 0664));
	bool done;

	if (fd < 0)
		return false;
	for (uint32_t n, i = 0; i < length; i += n) {
		n = length - i < 4 << 20 ? length - i : 4 << 20;
		write_all(fd, bytes + i, n, at);
	}
	if (unnamed)
		done = CALL(linkat, path, EEXIST,
			    linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH)) == 0;
	else
		done = CALL(rename, path, 0, rename(tmp, path)) == 0;
	must(done || unnamed || several, path, "rename");
	close_it(fd, path);
	if (!unnamed)
		CALL(unlink, tmp, 0, unlink(tmp));
	return done;
}

static void llmd_store(unsigned key, const char *path)
{
	uint32_t length = length_of(key), version;
	char tmp[PATH_BYTES + 40], parent[PATH_BYTES];

	if (llmd_touch(path))
		return;
	version = fill(bytes, key, length);
	snprintf(parent, sizeof(parent), "%s", path);
	dirname(parent);
	snprintf(tmp, sizeof(tmp), "%s_%d.tmp", path, getpid());
	if (llmd_create_directories(parent) &&
	    llmd_write(tmp, parent, path, has_tmpfile && key % 4 < 2, length))
		stored(key, version, length);
}

static unsigned used_percent(void)
{
	struct statvfs v;

	must(CALL(statvfs, dir, 0, statvfs(dir, &v)) == 0, dir, "statvfs");
	return (unsigned)(100 - v.f_bfree * 100 / v.f_blocks);
}

enum { RECENT_NS = 100000000 };

static void evict_unless_recent(const char *path)
{
	struct timespec now;
	struct stat st;

	if (CALL(stat, path, 0, stat(path, &st)) < 0)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	int64_t age_ns = (now.tv_sec - st.st_atim.tv_sec) * INT64_C(1000000000) +
			 now.tv_nsec - st.st_atim.tv_nsec;
	if (age_ns >= RECENT_NS && used_percent() > 70)
		S->deleted += CALL(unlink, path, 0, unlink(path)) == 0;
}

/* A directory may go before it is looked into. */
static void evict_below(const char *path)
{
	DIR *d = CALL(opendir, path, 0, opendir(path));
	char sub[PATH_BYTES];

	if (!d)
		return;
	for (;;) {
		struct dirent *e = CALL(readdir, path, 0, readdir(d));
		if (!e)
			break;
		if (e->d_name[0] == '.')
			continue;
		snprintf(sub, sizeof(sub), "%.400s/%.100s", path, e->d_name);
		if (e->d_type == DT_DIR)
			evict_below(sub);
		else if (ends_with(e->d_name, ".bin"))
			evict_unless_recent(sub);
	}
	CALL(closedir, path, 0, closedir(d));
	CALL(rmdir, path, ENOTEMPTY, rmdir(path));
}

static void evictor(void)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", dir, E->name);
	while (!S->ended) {
		if (used_percent() >= 85)
			evict_below(path);
		usleep(20000);
	}
}

/* safetensors -------------------------------------------------------------------------
 * A model comes as its hub's library brings it, under a temporary name that is renamed when
 * all is there: the header and each tensor are a write. It is read by mapping: the header by
 * a read-only mapping, shared or private (bindings/python/src/lib.rs, memmap2), the tensors,
 * where torch is used, by a private one that may be written to; descriptors are closed at
 * once, and pages are touched when a tensor is wanted. So each process keeps some mappings,
 * and looks at them when their names have been removed or given to others.
 */
static struct mapping {
	char *p;
	size_t n;
	unsigned key;
	uint32_t least;
	ino_t ino;
	bool may_write;
	char path[PATH_BYTES];
} kept[3];

static void safetensors_path(char *out, unsigned key)
{
	snprintf(out, PATH_BYTES, "%s/%s/model-%05u.safetensors", dir, E->name, key);
}

static void look(struct mapping *m)
{
	CALL(fault, m->path, 0, (check(m->p, m->n, m->key, m->least, m->path), 0));
	if (!m->may_write)
		return;
	/* A page of its own; whom else it reached would see a wrong checksum. */
	volatile char *mine = &m->p[m->n / 2];
	*mine ^= 1;
	usleep(100);
	*mine ^= 1;
}

static void let_go(struct mapping *m)
{
	struct stat st;

	if (!m->p)
		return;
	bool is_there = CALL(stat, m->path, 0, stat(m->path, &st)) == 0;
	S->outlived += !is_there || st.st_ino != m->ino;
	look(m);
	must(CALL(munmap, m->path, 0, munmap(m->p, m->n)) == 0, m->path, "munmap");
	m->p = NULL;
}

static void safetensors_stop(void)
{
	for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		let_go(&kept[i]);
}

/* False: it is not there. */
static bool map(struct mapping *m, const char *path, int prot, int flags)
{
	struct stat st;
	int fd = CALL(open, path, 0, open(path, O_RDONLY | O_CLOEXEC));

	if (fd < 0)
		return false;
	must(CALL(fstat, path, 0, fstat(fd, &st)) == 0, path, "fstat");
	m->n = (size_t)st.st_size;
	m->ino = st.st_ino;
	m->may_write = prot & PROT_WRITE;
	m->p = CALL(mmap, path, 0, mmap(NULL, m->n, prot, flags, fd, 0));
	must(m->p != MAP_FAILED, path, "mmap");
	close_it(fd, path);
	return true;
}

static bool safetensors_load(unsigned key, const char *path)
{
	struct mapping *m = &kept[pick(sizeof(kept) / sizeof(kept[0]))], head = { 0 };
	int how = pick(2) ? MAP_SHARED : MAP_PRIVATE;
	struct head h;

	let_go(m);
	snprintf(m->path, sizeof(m->path), "%s", path);
	m->key = key;
	m->least = least_of(key);
	if (!map(&head, path, PROT_READ, how))
		return missed(key);
	memcpy(&h, head.p, sizeof(h));
	if (head.n != length_of(key) || h.magic != MAGIC || h.key != key || h.length != head.n)
		fail("%s: %zu bytes, the head of key %llu, %u bytes", path, head.n,
		     (unsigned long long)h.key, h.length);
	bool there = pick(2) ? map(m, path, PROT_READ | PROT_WRITE, MAP_PRIVATE) :
			       map(m, path, PROT_READ, how);
	must(CALL(munmap, path, 0, munmap(head.p, head.n)) == 0, path, "munmap");
	if (!there)
		return missed(key);
	/* Else it is touched for the first time when it is let go of. */
	if (pick(2))
		look(m);
	S->hits++;
	/* What others have mapped. */
	if (pick(20) == 0) {
		S->there[key] = false;
		S->deleted += CALL(unlink, path, 0, unlink(path)) == 0;
	}
	return true;
}

static void safetensors_store(unsigned key, const char *path)
{
	uint32_t length = length_of(key), version = fill(bytes, key, length), at;
	char tmp[PATH_BYTES + 40];

	snprintf(tmp, sizeof(tmp), "%s.%d.incomplete", path, getpid());
	int fd = CALL(open, tmp, 0, open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
	must(fd >= 0, tmp, "open");
	write_all(fd, bytes, 1000, tmp);
	for (at = 1000; at < length; at += length / 3)
		write_all(fd, bytes + at, length - at < length / 3 ? length - at : length / 3, tmp);
	close_it(fd, tmp);
	publish(tmp, path, key, version);
}

/* ------------------------------------------------------------------------------------ */

static const struct engine engines[] = {
	{ "vllm", 5 << 19, 5 << 19, .start = vllm_start, .path = hashed_path,
	  .load = vllm_load, .store = vllm_store },
	{ "lmcache", 100000, 2500000, .one_owner = true, .replaces = true, .start = flat_start,
	  .path = lmcache_path, .load = lmcache_load, .store = lmcache_store },
	{ "sglang", 1300001, 1300001, .start = sglang_start, .path = sglang_path,
	  .load = sglang_load, .store = sglang_store },
	{ "llmd", 700000, 700000, .replaces = true, .has_evictor = true, .start = llmd_start,
	  .path = hashed_path, .load = llmd_load, .store = llmd_store },
	{ "safetensors", 50000, 1200000, .replaces = true, .start = flat_start,
	  .path = safetensors_path, .load = safetensors_load, .store = safetensors_store,
	  .stop = safetensors_stop },
	{ "small", 100, 12000, .start = sglang_start, .path = sglang_path, .load = sglang_load,
	  .store = sglang_store },
	{ "lmcache-direct", 2 << 20, 2 << 20, .one_owner = true, .replaces = true,
	  .start = lmcache_direct_start, .path = lmcache_path, .load = lmcache_direct_load,
	  .store = lmcache_direct_store },
};

enum { NENGINES = sizeof(engines) / sizeof(engines[0]), STORM = 5, EACH = KEYS / NENGINES & ~1 };

static const struct engine *first = engines; /* of those that run */
static unsigned nrun = STORM;

/* The keys of all engines differ. */
static unsigned key_of(unsigned i)
{
	return (unsigned)(E - engines) * EACH + i;
}

/* The low ones are asked for most. */
static unsigned pick_key(void)
{
	double u = pick(1 << 20) / (double)(1 << 20);

	return key_of((unsigned)(u * u * nkeys) | E->one_owner);
}

static void one_turn(unsigned key)
{
	char path[PATH_BYTES];

	E->path(path, key);
	bool there = E->load(key, path);
	if (may_store(key) && (!there || (E->replaces && pick(16) == 0)))
		E->store(key, path);
}

static uint64_t target; /* bytes to be written by all */

static void work(void)
{
	for (E = first; E < first + nrun; E++)
		if (E->start)
			E->start();
	while (S->written < target) {
		E = first + pick(nrun);
		one_turn(pick_key());
	}
	for (E = first; E < first + nrun; E++)
		if (E->stop)
			E->stop();
}

static void begin(unsigned which, char **dirs, unsigned ndirs)
{
	const char *seed = getenv("SEED");

	me = which;
	dir = dirs[which % ndirs];
	dice = random_mix((seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL)) + which * 77);
	S->now[which].pid = getpid();
	bytes = aligned_alloc(4096, BYTES_MAX);
	must(bytes, "buffer", "aligned_alloc");
	memset(bytes, 'e', BYTES_MAX);
}

static void start_process(unsigned which, void (*job)(void), char **dirs, unsigned ndirs)
{
	pid_t pid = fork();

	if (pid < 0)
		err(2, "fork");
	if (pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	begin(which, dirs, ndirs);
	job();
	_exit(S->failed);
}

/* Ends all if a call does not come back. */
static void watch(uint64_t end_ns)
{
	uint64_t now = now_ns();

	if (now > end_ns)
		fail("not at an end by now, %llu MiB written",
		     (unsigned long long)S->written >> 20);
	for (unsigned i = 0; i <= PROCS; i++) {
		uint64_t since = S->now[i].since_ns;
		if (since && now > since && now - since > deadline_ns + deadline_ns / 4)
			fail("process %u is in %s %s for %.1f s", i, call_names[S->now[i].call],
			     S->now[i].path, (double)(now - since) / 1e9);
	}
}

/* Until all that work are done; then the evictor ends, too. */
static void wait_for(unsigned left, uint64_t seconds)
{
	uint64_t end_ns = now_ns() + seconds * 1000000000;
	int status;

	for (bool has_evictor = left > PROCS; left;) {
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid < 0)
			err(1, "wait");
		if (!pid) {
			watch(end_ns);
			usleep(10000);
			continue;
		}
		if (WIFSIGNALED(status))
			fail("process %d: %s", pid, strsignal(WTERMSIG(status)));
		if (status)
			fail("process %d failed", pid);
		left--;
		S->ended = has_evictor && left == 1;
	}
}

/* What is there now is whole, too. */
static void look_at_all(void)
{
	char path[PATH_BYTES];

	for (E = first; E < first + nrun; E++) {
		for (unsigned i = 0; i < nkeys; i++) {
			E->path(path, key_of(i));
			E->load(key_of(i), path);
		}
		if (E->stop)
			E->stop();
	}
}

static void report(const char *name, double took, unsigned left)
{
	printf("%s: %llu MiB in %.1f s: %llu stored, %llu hits, %llu misses, %llu forgotten, "
	       "%llu of them before they were renamed (%llu *.tmp), %llu deleted, %llu mappings "
	       "outlived their names, %llu names listed, %llu of them had to be; %u left\n",
	       name, (unsigned long long)S->written >> 20, took, (unsigned long long)S->stored,
	       (unsigned long long)S->hits, (unsigned long long)S->misses,
	       (unsigned long long)(S->forgotten + S->lost), (unsigned long long)S->lost,
	       (unsigned long long)S->lost_tmp, (unsigned long long)S->deleted,
	       (unsigned long long)S->outlived, (unsigned long long)S->listed,
	       (unsigned long long)S->expected, left);
	printf("longest, ms:");
	for (unsigned c = 0; c < NCALLS; c++)
		if (S->count[c])
			printf(" %s %.1f (of %llu)", call_names[c], (double)S->longest_ns[c] / 1e6,
			       (unsigned long long)S->count[c]);
	putchar('\n');
}

/* Files named *.tmp go when there is nothing else to be let go of (docs/cache.md): none did in
 * tens of thousands. One in so many leaves room for a moment at which all others are open. */
enum { LOST_PART = 50 };

/* Something came of it. */
static bool has_run(void)
{
	bool maps = first + nrun == engines + STORM, deletes = nrun > 1 || first->has_evictor;
	bool lists = nrun > 1 || first->one_owner || !strcmp(first->name, "sglang");

	return S->hits && S->misses && S->forgotten && (!maps || S->outlived) &&
	       (!deletes || S->deleted) && (!lists || S->expected);
}

static void choose(const char *name, const char *at)
{
	struct statvfs v;
	uint64_t size = 0;

	for (unsigned i = 0; i < NENGINES; i++)
		if (!strcmp(name, engines[i].name)) {
			first = engines + i;
			nrun = 1;
		}
	if (nrun > 1 && strcmp(name, "storm"))
		errx(2, "no such engine: %s", name);
	if (statvfs(at, &v) < 0)
		err(2, "%s", at);
	for (E = first; E < first + nrun; E++)
		size += (E->least_bytes + E->most_bytes) / 2;
	/* Two and a half times of what there is room for. */
	nkeys = (unsigned)((uint64_t)v.f_blocks * v.f_frsize / size * 5 / 2);
	if (nkeys > EACH)
		nkeys = EACH;
	nkeys &= ~1U; /* pick_key() */
}

int main(int argc, char **argv)
{
	const char *ms = getenv("DEADLINE_MS");
	unsigned ndirs = (unsigned)argc - 4, n;

	if (argc < 5)
		errx(2, "usage: engines ENGINE MIB SECONDS DIR...");
	deadline_ns = (ms ? strtoull(ms, NULL, 10) : 10000) * 1000000;
	S = mmap(NULL, sizeof(*S), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (S == MAP_FAILED)
		err(2, "mmap");
	choose(argv[1], argv[4]);
	several = ndirs > 1;
	target = strtoull(argv[2], NULL, 10) << 20;
	uint64_t start = now_ns();
	for (n = 0; n < PROCS; n++)
		start_process(n, work, argv + 4, ndirs);
	for (E = first; E < first + nrun; E++)
		if (E->has_evictor)
			start_process(n++, evictor, argv + 4, ndirs);
	wait_for(n, strtoull(argv[3], NULL, 10));
	double took = (double)(now_ns() - start) / 1e9;
	uint64_t hits = S->hits;
	start_process(PROCS, look_at_all, argv + 4, ndirs);
	wait_for(1, strtoull(argv[3], NULL, 10));
	report(argv[1], took, (unsigned)(S->hits - hits));
	if (!has_run())
		fail("nothing came of it");
	if (S->lost_tmp > S->stored / LOST_PART)
		fail("%llu files named *.tmp went before they were renamed, of %llu stored",
		     (unsigned long long)S->lost_tmp, (unsigned long long)S->stored);
	return 0;
}
