/* SPDX-License-Identifier: Apache-2.0 */
/*
 * posix: the same system calls on two trees side by side, case by case.
 *
 *	posix [-v] [-k WORD] DIR-UNDER-TEST REFERENCE-DIR
 *
 * A case is a line of text (posix_cases.h makes some thousands from tables):
 *
 *	mk f a 644 1 ; chmod . 1777 | 1 chmod a 600 ; 2 unlink a
 *
 * Each step is a user (0 root, 1 and 2 ordinary; 0 if left out), a command of the
 * table below and its arguments. What is left of the bar prepares. The case runs in
 * an empty directory of either tree; it leaves a transcript there: each step's
 * result, then all objects: type, mode, links, owner, size, which name the inode had
 * before, and which of atime, mtime, ctime the steps right of the bar moved. The two
 * transcripts must be equal, but for the table of exceptions, each with its reason
 * (posix_exceptions.h).
 *
 * Clocks tick slowly, so cases are prepared by the dozen before a wait of a few ticks.
 * Sizes of directories are not compared, nor atimes of directories and symbolic links:
 * the kernel reads those from its cache.
 */
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ARGS = 12, MAX_OBJECTS = 64, FDS = 8, TEXT = 1 << 16, PATHS = 6000,
       CASE_SECONDS = 20, BATCH = 48,
       TICKS_US = 20000 };

struct object {
	char name[600];
	struct stat st;
};

struct snapshot {
	struct object o[MAX_OBJECTS];
	size_t n;
};

/* A case in one of the trees. */
struct side {
	char text[TEXT];
	size_t used;
	int fds[FDS], cwd;
	struct snapshot before;
};

struct job {
	char line[1024], prepare[1024], *act, dir[32];
	struct side sides[2];
};

static const char *roots[2];
static struct job jobs[BATCH];
static unsigned njobs;
static struct side *now;	/* the one we work in */
static bool verbose;
static const char *keyword;
static unsigned ncases, nbad;
static const char *now_running = "";

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(now->text + now->used, TEXT - now->used, fmt, ap);
	va_end(ap);
	now->used += (size_t)n;
	if (now->used >= TEXT)
		errx(2, "a transcript is too long: %s", now_running);
}

static long sys(long r)
{
	return r < 0 ? -errno : r;
}

/* Users --------------------------------------------------------------------------- */

static const struct { uid_t uid; gid_t gid, groups[2]; size_t n; } users[] = {
	{ 0, 0, { 0 }, 1 },
	{ 20001, 20001, { 20001, 20009 }, 2 },	/* 20009: the common group of 1 and 3 */
	{ 20002, 20002, { 20002 }, 1 },
	{ 20003, 20009, { 20009 }, 1 },
};

static void become(int u)
{
	if (seteuid(0) < 0 || setgroups(users[u].n, users[u].groups) < 0 ||
	    setegid(users[u].gid) < 0 || seteuid(users[u].uid) < 0)
		err(2, "cannot become user %d", u);
	prctl(PR_SET_DUMPABLE, 1); /* or /proc/self is root's */
}

/* Arguments ----------------------------------------------------------------------- */

static uid_t id_of(const char *a)
{
	/* A single digit is a user of ours, and likewise his group. */
	if (!strcmp(a, "-"))
		return (uid_t)-1;
	return a[1] ? (uid_t)strtoul(a, NULL, 10) : users[a[0] - '0'].uid;
}

static mode_t mode_of(const char *a)
{
	return (mode_t)strtoul(a, NULL, 8);
}

static long long num(const char *a)
{
	char *end;
	long long n = strtoll(a, &end, 0);

	return *end == 'k' ? n << 10 : *end == 'm' ? n << 20 : *end == 'g' ? n << 30 : n;
}

#ifdef __SANITIZE_ADDRESS__
static const char bad_pointer[] = ""; /* asan looks at arguments before the kernel */
#else
static const char *const bad_pointer = (const char *)16;
#endif

/* "-" is the empty path, %bad a pointer to nowhere, %N a name of N bytes, %pN a path
 * of N bytes that ends in /f. */
static const char *path(const char *a)
{
	static char bufs[4][PATHS];
	static unsigned turn;
	char *b = bufs[turn++ % 4];
	const char *p = strchr(a, '%');
	size_t at, n;

	if (!strcmp(a, "-"))
		return "";
	if (!strcmp(a, "%bad"))
		return bad_pointer;
	if (a[0] == '/')
		errx(2, "an absolute path: %s", now_running);
	if (!p)
		return a;
	at = (size_t)(p - a);
	memcpy(b, a, at);
	if (p[1] == 'p') {
		n = strtoul(p + 2, NULL, 10);
		memset(b, '/', n);
		b[0] = '.'; /* never from the root: these calls are made by root */
		b[n - 1] = 'f';
		b[n] = 0;
		return b;
	}
	char *rest;
	n = strtoul(p + 1, &rest, 10);
	memset(b + at, 'n', n);
	strcpy(b + at + n, rest);
	return b;
}

static const struct { const char *name; int flag; } open_flags[] = {
	{ "r", O_RDONLY }, { "w", O_WRONLY }, { "rw", O_RDWR }, { "creat", O_CREAT },
	{ "excl", O_EXCL }, { "trunc", O_TRUNC }, { "dir", O_DIRECTORY },
	{ "nofollow", O_NOFOLLOW }, { "append", O_APPEND }, { "path", O_PATH },
	{ "tmp", O_TMPFILE }, { "sync", O_SYNC }, { "nonblock", O_NONBLOCK },
	{ "direct", O_DIRECT }, { "noatime", O_NOATIME }, { "bad", O_ACCMODE },
};

static int flags_of(const char *a)
{
	char list[128], *save = NULL;
	int flags = 0;

	snprintf(list, sizeof(list), "%s", a);
	for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		size_t i, n = sizeof(open_flags) / sizeof(open_flags[0]);
		for (i = 0; i < n && strcmp(w, open_flags[i].name); i++)
			;
		if (i == n)
			errx(2, "no open flag %s", w);
		flags |= open_flags[i].flag;
	}
	return flags;
}

static int *fd_slot(const char *a)
{
	return &now->fds[(a[0] - 'A') % FDS];
}

static int fd(const char *a)
{
	return !strcmp(a, "cwd") ? AT_FDCWD : *fd_slot(a);
}

/* Objects of each type; a fifo or a device is never opened so that it blocks. */
static long make(char type, const char *p, mode_t mode)
{
	int f;

	switch (type) {
	case 'f':
		f = open(p, O_CREAT | O_EXCL | O_WRONLY, mode);
		if (f < 0)
			return -errno;
		if (write(f, "some text\n", 10) != 10)
			return -errno;
		return sys(close(f));
	case 'e': return sys(mknod(p, S_IFREG | mode, 0));
	case 'd': return sys(mkdir(p, mode));
	case 'l': return sys(symlink("nowhere", p));
	case 'p': return sys(mkfifo(p, mode));
	case 's': return sys(mknod(p, S_IFSOCK | mode, 0));
	case 'b': return sys(mknod(p, S_IFBLK | mode, makedev(240, 77)));
	case 'c': return sys(mknod(p, S_IFCHR | mode, makedev(1, 3)));
	}
	errx(2, "no type %c", type);
}

#include "posix_calls.h"

/* One step ------------------------------------------------------------------------ */

static void show(int argc, char **argv, long r)
{
	for (int i = 0; i < argc; i++)
		say("%s%s", i ? " " : "", argv[i]);
	if (r < 0)
		say(" = %s\n", strerrorname_np((int)-r) ? strerrorname_np((int)-r) : "?");
	else
		say(" = %ld\n", r);
}

static void step(char *line, bool prepares)
{
	char *argv[MAX_ARGS + 1], *save = NULL;
	int argc = 0, user = 0;

	for (char *w = strtok_r(line, " ", &save); w && argc < MAX_ARGS;
	     w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	if (argc && isdigit(argv[0][0])) {
		user = argv[0][0] - '0';
		memmove(argv, argv + 1, (size_t)argc-- * sizeof(argv[0]));
	}
	if (!argc)
		return;
	for (const struct call *c = calls; c->name; c++) {
		if (strcmp(c->name, argv[0]))
			continue;
		if (argc - 1 < c->args)
			errx(2, "%s takes %d arguments: %s", c->name, c->args, now_running);
		become(user);
		long r = c->fn(argv + 1, argc - 1);
		become(0);
		show(argc, argv, r);
		if (prepares && r < 0)
			say("(a preparation failed)\n");
		return;
	}
	errx(2, "no command %s: %s", argv[0], now_running);
}

static void steps(const char *list, bool prepares)
{
	char copy[2048], *save = NULL;

	snprintf(copy, sizeof(copy), "%s", list);
	for (char *s = strtok_r(copy, ";", &save); s; s = strtok_r(NULL, ";", &save))
		step(s, prepares);
}

/* What is there ------------------------------------------------------------------- */

static void look(struct snapshot *s, const char *name)
{
	if (s->n == MAX_OBJECTS)
		errx(2, "too many objects: %s", now_running);
	struct object *o = &s->o[s->n];
	snprintf(o->name, sizeof(o->name), "%s", name);
	if (lstat(name, &o->st) < 0) {
		say("lstat %s: %s\n", name, strerrorname_np(errno));
		return;
	}
	s->n++;
	if (!S_ISDIR(o->st.st_mode))
		return;
	struct dirent **v;
	int n = scandir(name, &v, NULL, alphasort);
	if (n < 0)
		say("scandir %s: %s\n", name, strerrorname_np(errno));
	for (int i = 0; i < n; i++) {
		char sub[600];
		if (!strcmp(v[i]->d_name, ".") || !strcmp(v[i]->d_name, "..")) {
			free(v[i]);
			continue;
		}
		snprintf(sub, sizeof(sub), "%s/%s", name, v[i]->d_name);
		mode_t type = s->n < MAX_OBJECTS ? DTTOIF(v[i]->d_type) : 0;
		size_t at = s->n;
		look(s, sub);
		if (at < s->n && type && type != (s->o[at].st.st_mode & S_IFMT))
			say("%s: d_type %o\n", sub, type);
		if (at < s->n && v[i]->d_ino != s->o[at].st.st_ino)
			say("%s: another d_ino\n", sub);
		free(v[i]);
	}
	if (n >= 0)
		free(v);
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool since(struct timespec t, struct timespec start)
{
	long long d = (t.tv_sec - start.tv_sec) * 1000000000LL + t.tv_nsec - start.tv_nsec;

	return d >= -20000000; /* a tick of the coarse clock, and some */
}

static void show_object(const struct object *o, const struct snapshot *before,
			struct timespec start)
{
	const struct stat *s = &o->st;
	const struct object *was = NULL;

	for (size_t i = 0; i < before->n && !was; i++)
		if (before->o[i].st.st_ino == s->st_ino &&
		    (before->o[i].st.st_mode & S_IFMT) == (s->st_mode & S_IFMT))
			was = &before->o[i];
	say("%s: %o links %lu owner %u:%u", o->name, s->st_mode, (unsigned long)s->st_nlink,
	    s->st_uid, s->st_gid);
	if (!S_ISDIR(s->st_mode))
		say(" size %lld rdev %u,%u", (long long)s->st_size, major(s->st_rdev),
		    minor(s->st_rdev));
	if (!was) {
		say(" new%s%s%s\n", since(s->st_atim, start) ? " a" : "",
		    since(s->st_mtim, start) ? " m" : "", since(s->st_ctim, start) ? " c" : "");
		return;
	}
	bool cached = S_ISDIR(s->st_mode) || S_ISLNK(s->st_mode);
	say(" was %s moved %s%s%s\n", was->name,
	    cached || same_time(s->st_atim, was->st.st_atim) ? "" : "a",
	    same_time(s->st_mtim, was->st.st_mtim) ? "" : "m",
	    same_time(s->st_ctim, was->st.st_ctim) ? "" : "c");
}

static void show_all(const struct snapshot *before, struct timespec start)
{
	static struct snapshot after;

	after.n = 0;
	look(&after, ".");
	for (size_t i = 0; i < after.n; i++)
		show_object(&after.o[i], before, start);
}

/* One case ------------------------------------------------------------------------ */

static void remove_all(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d || chdir(dir) < 0)
		err(2, "%s", dir);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (unlink(e->d_name) == 0)
			continue;
		remove_all(e->d_name);
		if (rmdir(e->d_name) < 0)
			err(2, "cleaning up: rmdir %s after %s", e->d_name, now_running);
	}
	closedir(d);
	if (chdir("..") < 0)
		err(2, "..");
}

static void enter(const char *root, const char *dir)
{
	if (chdir(root) < 0 || chdir(dir) < 0)
		err(2, "%s/%s", root, dir);
}

static void prepare(struct job *j, int t)
{
	now = &j->sides[t];
	now->used = 0;
	if (chdir(roots[t]) < 0 || mkdir(j->dir, 0777) < 0)
		err(2, "%s/%s", roots[t], j->dir);
	enter(roots[t], j->dir);
	for (int i = 0; i < FDS; i++)
		now->fds[i] = -1;
	steps(j->prepare, true);
	umask(0);
	now->cwd = open(".", O_PATH | O_CLOEXEC);
}

static void act(struct job *j, int t)
{
	struct timespec start;

	now = &j->sides[t];
	enter(roots[t], j->dir);
	now->before.n = 0;
	look(&now->before, ".");
	if (fchdir(now->cwd) < 0)
		err(2, "fchdir");
	clock_gettime(CLOCK_REALTIME, &start);
	steps(j->act, false);
	umask(0);
	enter(roots[t], j->dir);
	show_all(&now->before, start);
	for (int i = 0; i < FDS; i++)
		if (now->fds[i] >= 0)
			close(now->fds[i]);
	close(now->cwd);
	if (chdir(roots[t]) < 0)
		err(2, "%s", roots[t]);
	remove_all(j->dir);
	if (rmdir(j->dir) < 0)
		err(2, "cleaning up: %s after %s", j->dir, now_running);
}

#include "posix_exceptions.h"

static char *next_line(char **at)
{
	char *l = *at, *end = strchr(l, '\n');

	if (!*l)
		return NULL;
	if (end)
		*end++ = 0;
	*at = end ? end : l + strlen(l);
	return l;
}

static void compare(struct job *j)
{
	char *a = j->sides[0].text, *b = j->sides[1].text, *la, *lb;
	const char *line = j->line;
	bool bad = false;

	do {
		la = next_line(&a);
		lb = next_line(&b);
		if ((!la && !lb) || (la && lb && !strcmp(la, lb)) || excepted(line, la, lb))
			continue;
		if (!bad)
			printf("differs: %s\n", line);
		bad = true;
		printf("   here: %s\n   ref.: %s\n", la ? la : "(nothing)", lb ? lb : "(nothing)");
	} while (la || lb);
	nbad += bad;
}

static void each_job(void (*fn)(struct job *j, int t))
{
	for (struct job *j = jobs; j < jobs + njobs; j++)
		for (int t = 0; t < 2; t++) {
			now_running = j->line;
			alarm(CASE_SECONDS);
			fn(j, t);
		}
	alarm(0);
}

static void run_batch(void)
{
	each_job(prepare);
	usleep(TICKS_US);
	each_job(act);
	for (struct job *j = jobs; j < jobs + njobs; j++) {
		if (verbose)
			printf("-- %s\n%s", j->line, j->sides[0].text);
		compare(j);
	}
	njobs = 0;
}

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void run(const char *fmt, ...)
{
	struct job *j = &jobs[njobs];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(j->line, sizeof(j->line), fmt, ap);
	va_end(ap);
	if (keyword && !strstr(j->line, keyword))
		return;
	memcpy(j->prepare, j->line, sizeof(j->line));
	j->act = strchr(j->prepare, '|');
	if (!j->act)
		errx(2, "no bar: %s", j->line);
	*j->act++ = 0;
	snprintf(j->dir, sizeof(j->dir), "case%u", ncases++);
	if (++njobs == BATCH)
		run_batch();
}

static void too_long(int sig)
{
	(void)sig;
	static const char hung[] = "posix: hangs: ";
	(void)!write(2, hung, sizeof(hung) - 1);
	(void)!write(2, now_running, strlen(now_running));
	(void)!write(2, "\n", 1);
	_exit(3);
}

#include "posix_cases.h"

int main(int argc, char **argv)
{
	int o;

	while ((o = getopt(argc, argv, "vk:")) != -1) {
		if (o == 'v')
			verbose = true;
		else if (o == 'k')
			keyword = optarg;
		else
			return 2;
	}
	if (argc - optind != 2)
		errx(2, "usage: posix [-v] [-k WORD] DIR-UNDER-TEST REFERENCE-DIR");
	roots[0] = realpath(argv[optind], NULL);
	roots[1] = realpath(argv[optind + 1], NULL);
	if (!roots[0] || !roots[1])
		err(2, "%s, %s", argv[optind], argv[optind + 1]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, too_long);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	umask(0);
	all_cases();
	run_batch();
	if (!keyword)
		exceptions_occurred();
	printf("%u cases, %u differ\n", ncases, nbad);
	return nbad ? 1 : 0;
}
