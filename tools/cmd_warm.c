/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs warm: what is below SRC comes to be below DIR, but for what is there and equal.
 * So it may be ended at any time, and begun again.
 *
 * Threads: the main one walks SRC, makes folders and links; jobs copy the files; `count`
 * walks ahead of them, for how much there is. Files of several names that are copied get
 * the others, and folders their times, when all files are there.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/size.h"
#include "common/table.h"
#include "tools/cmd.h"
#include "tools/jobs.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/warm.h"
#include "tools/warm_list.h"

enum { JOBS = 4 };

/* A folder that was made or found: what is in it goes there. */
struct folder {
	struct folder *next;   /* the deepest first */
	struct warm_at at;     /* of the folder; its rel is its own */
	struct warm_at inside; /* of what is in it; the same rel */
	struct stat st;
	UT_hash_handle hh;     /* by rel, for a list */
};

/* A file of several names: the first one that was found. */
struct first {
	struct { dev_t dev; ino_t ino; } id;
	struct item *item;     /* its own */
	UT_hash_handle hh;
};

/* One file; the name is its own. */
struct item {
	struct warm *w;
	struct warm_at at;
	struct stat st;
	struct first *first;   /* of another name */
	struct item *next;
};

struct warm {
	struct client c;
	struct warm_target t;
	struct warm_list list;
	struct progress p;
	struct jobs *jobs;
	struct folder *folders, *by_rel;
	struct first *firsts;
	struct item *names;    /* other names, for the end */
	struct warm_at top;
	atomic_bool stopped;   /* it makes no sense to go on */
	bool checksum, dry_run, quiet, json, nul;
	const char *names_file;
	unsigned njobs;
	uint64_t begun_ns;
};

void cmd_warm_help(void)
{
	printf("  -j, --jobs N          so many files at a time, 1 to 64 (4)\n"
	       "  -n, --dry-run         print what would be copied, and copy nothing\n"
	       "  --checksum            equal is what has the same bytes, not size and time\n"
	       "  --exclude PATTERN     leave out names, or with a / paths, that match; repeatable\n"
	       "  -T, --files-from FILE only names that FILE (-: standard input) lists, as they are\n"
	       "                        below SRC; a folder stands for itself alone\n"
	       "  -0, --null            they end with NUL, not with a line's end\n"
	       "  --json                lines of JSON, as where there is no terminal\n"
	       "  -q, --quiet           nothing but what fails\n"
	       "  --transport WAY       how bytes go to a node: auto, rdma or tcp (auto)\n");
	client_help();
	printf("\nWhat is below SRC comes to be below DIR, which is in a mount, or HOST:/PATH on a\n"
	       "node. What is there and equal is skipped: so it may be ended and begun again.\n");
}

/* ---- What is said ---------------------------------------------------------------- */

static json_t *path_text(const struct warm *w, const char *rel)
{
	_cleanup_(freep) char *path = warm_path(&w->list, rel);

	return path ? json_text(path, strlen(path)) : NULL;
}

/* It has been said on stderr. */
static void failed(struct warm *w, const char *rel, int err)
{
	atomic_fetch_add(&w->p.failed, 1);
	if (err == -ENOSPC || err == -ENOTCONN || err == -ECONNABORTED)
		atomic_store(&w->stopped, true);
	if (w->json && !w->quiet)
		progress_event("failed", json_pack("{s:o,s:s}", "path", path_text(w, rel), "error",
						   warm_error(err)));
}

static void failed_here(struct warm *w, const char *rel, int err)
{
	_cleanup_(freep) char *path = warm_path(&w->list, rel);

	send_fail_here(&w->t.s, err, path ? path : rel);
	failed(w, rel, err);
}

static void failed_there(struct warm *w, const struct warm_at *at, int err)
{
	if (!atomic_load(&w->stopped))
		w->t.ops->say(&w->t, at, err);
	failed(w, at->rel, err);
}

static void would_copy(struct warm *w, const char *rel)
{
	if (w->quiet)
		return;
	if (w->json) {
		progress_event("copy", json_pack("{s:o}", "path", path_text(w, rel)));
	} else {
		print_name(rel);
		putchar('\n');
	}
}

static void skipped(struct warm *w, uint64_t bytes)
{
	atomic_fetch_add(&w->p.skipped, 1);
	atomic_fetch_add(&w->p.skipped_bytes, bytes);
}

static void copied(struct warm *w, uint64_t bytes)
{
	atomic_fetch_add(&w->p.files, 1);
	atomic_fetch_add(&w->p.bytes, bytes);
}

/* ---- A file ------------------------------------------------------------------------ */

static bool is_same_time(const struct stat *a, const struct stat *b)
{
	return a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* It may have become a FIFO since it was listed: nobody waits for who writes into that. */
static int open_source(const struct warm *w, const char *path)
{
	return open(path, O_RDONLY | (w->list.follows ? 0 : O_NOFOLLOW) | O_NONBLOCK | O_CLOEXEC);
}

static int has_same_bytes(struct warm *w, const struct item *i)
{
	_cleanup_(freep) char *path = warm_path(&w->list, i->at.rel);
	_cleanup_(closep) int fd = path ? open_source(w, path) : -1;

	return fd < 0 ? 0 : w->t.ops->same(&w->t, &i->at, fd, (uint64_t)i->st.st_size);
}

/* Is it there, and equal? What else it has of SRC's file then is not worth a copy. */
static bool is_there(struct warm *w, const struct item *i)
{
	struct stat st;

	if (i->at.fresh || w->t.ops->look(&w->t, &i->at, &st) || !S_ISREG(st.st_mode) ||
	    st.st_size != i->st.st_size)
		return false;
	if (w->checksum ? has_same_bytes(w, i) != 1 : !is_same_time(&st, &i->st))
		return false;
	if (!w->dry_run && ((st.st_mode ^ i->st.st_mode) & 07777 || !is_same_time(&st, &i->st)))
		w->t.ops->attr(&w->t, &i->at, &i->st);
	return true;
}

static int copy(struct warm *w, struct item *i)
{
	_cleanup_(freep) char *path = warm_path(&w->list, i->at.rel);
	_cleanup_(closep) int fd = path ? open_source(w, path) : -1;

	if (fd < 0 || fstat(fd, &i->st) < 0) {
		failed_here(w, i->at.rel, path ? -errno : -ENOMEM);
		return EXIT_FAILED;
	}
	int r = S_ISREG(i->st.st_mode) ? 0 : -ESTALE;
	if (r)
		failed_here(w, i->at.rel, r);
	else if ((r = w->t.ops->file(&w->t, &i->at, fd, &i->st, path)))
		failed(w, i->at.rel, r);
	else
		copied(w, (uint64_t)i->st.st_size);
	return r ? EXIT_FAILED : EXIT_DONE;
}

static void item_free(struct item *i)
{
	free((char *)i->at.rel);
	free(i);
}

static int do_item(struct warm *w, struct item *i)
{
	uint64_t counted = (uint64_t)i->st.st_size;

	if (atomic_load(&w->stopped))
		return EXIT_FAILED;
	if (is_there(w, i)) {
		skipped(w, counted);
		return EXIT_DONE;
	}
	if (!w->dry_run) {
		int status = copy(w, i);
		progress_ended(&w->p, counted);
		return status;
	}
	would_copy(w, i->at.rel);
	copied(w, (uint64_t)i->st.st_size);
	return EXIT_DONE;
}

static int job(void *arg)
{
	struct item *i = arg;
	int status = do_item(i->w, i);

	if (!i->first)
		item_free(i);
	return status;
}

/* ---- Files of several names -------------------------------------------------------- */

/* Theirs is the first one's object. Where that has been evicted it is a file of its own. */
static int add_name(struct warm *w, struct item *i)
{
	const struct warm_at *first = &i->first->item->at;
	struct stat a, b;

	if (atomic_load(&w->stopped))
		return EXIT_FAILED;
	if (!w->dry_run && !w->t.ops->look(&w->t, first, &b)) {
		if (!w->t.ops->look(&w->t, &i->at, &a) && a.st_ino == b.st_ino) {
			skipped(w, (uint64_t)i->st.st_size);
			return EXIT_DONE;
		}
		int r = w->t.ops->name(&w->t, &i->at, first);
		if (!r) {
			progress_ended(&w->p, (uint64_t)i->st.st_size);
			copied(w, 0);
			return EXIT_DONE;
		}
		if (r != -ENOENT && r != -ESTALE && r != -EMLINK) {
			failed_there(w, &i->at, r);
			progress_ended(&w->p, (uint64_t)i->st.st_size);
			return EXIT_FAILED;
		}
	}
	return do_item(w, i);
}

static int add_names(struct warm *w)
{
	int status = EXIT_DONE;

	for (struct item *i = w->names, *next; i; i = next) {
		next = i->next;
		int s = add_name(w, i);
		status = s ? s : status;
		item_free(i);
	}
	for (struct first *f = w->firsts, *next; f; f = next) {
		next = f->hh.next;
		HASH_DEL(w->firsts, f);
		item_free(f->item);
		free(f);
	}
	return status;
}

/* True: it is another name of what was found before, and is left for the end. */
static bool is_another(struct warm *w, struct item *i)
{
	struct first *f, id = { .id = { i->st.st_dev, i->st.st_ino } };

	HASH_FIND(hh, w->firsts, &id.id, sizeof(id.id), f);
	if (f) {
		i->first = f;
		i->next = w->names;
		w->names = i;
		return true;
	}
	f = malloc(sizeof(*f));
	if (!f)
		return false;
	*f = (struct first){ .id = id.id, .item = i };
	HASH_ADD(hh, w->firsts, id, sizeof(f->id), f);
	i->first = f;
	return false;
}

/* ---- Names ---------------------------------------------------------------------------- */

static void add_file(struct warm *w, const struct warm_at *at, const struct stat *st)
{
	struct item *i = calloc(1, sizeof(*i));

	if (i)
		*i = (struct item){ .w = w, .at = { strdup(at->rel), at->dir, at->fresh }, .st = *st };
	if (!i || !i->at.rel) {
		free(i);
		failed_here(w, at->rel, -ENOMEM);
	} else if (st->st_nlink < 2 || !is_another(w, i)) {
		jobs_add(w->jobs, job, i);
	}
}

static bool has_link(struct warm *w, const struct warm_at *at, const char *target)
{
	char there[PATH_MAX];
	struct stat st;

	return !at->fresh && !w->t.ops->look(&w->t, at, &st) && S_ISLNK(st.st_mode) &&
	       !w->t.ops->read_link(&w->t, at, there) && !strcmp(there, target);
}

static void add_link(struct warm *w, const struct warm_at *at, const struct stat *st)
{
	_cleanup_(freep) char *path = warm_path(&w->list, at->rel);
	char target[PATH_MAX];
	ssize_t n = path ? readlink(path, target, sizeof(target) - 1) : -1;

	if (n < 0) {
		failed_here(w, at->rel, path ? -errno : -ENOMEM);
		return;
	}
	target[n] = '\0';
	if (has_link(w, at, target)) {
		skipped(w, 0);
		return;
	}
	int r = w->dry_run ? 0 : w->t.ops->link(&w->t, at, target, st);
	if (r < 0) {
		failed_there(w, at, r);
		return;
	}
	if (w->dry_run)
		would_copy(w, at->rel);
	copied(w, 0);
}

/* NULL: there is none, which was said. */
static struct folder *add_folder(struct warm *w, const struct warm_at *at, const struct stat *st)
{
	struct folder *f = calloc(1, sizeof(*f));
	char *rel = f ? strdup(at->rel) : NULL;
	struct stat there;
	int r = rel ? 0 : -ENOMEM;

	if (!r) {
		*f = (struct folder){ .at = { rel, at->dir, at->fresh }, .inside = { .rel = rel },
				      .st = *st };
		r = w->dry_run ? 0 : w->t.ops->folder(&w->t, &f->at, st, &f->inside);
	}
	if (!r && w->dry_run) {
		f->inside.fresh = at->fresh || w->t.ops->look(&w->t, at, &there) < 0;
		f->inside.dir = f->inside.fresh ? 0 : there.st_ino;
		r = f->inside.fresh || S_ISDIR(there.st_mode) ? 0 : -ENOTDIR;
	}
	if (!r) {
		f->next = w->folders;
		w->folders = f;
		return f;
	}
	failed_there(w, at, r);
	free(rel);
	free(f);
	return NULL;
}

struct level {
	struct warm *w;
	const struct warm_at *inside;
	bool only;   /* a name of a list: a folder without what is in it */
	bool folder; /* it has to be one */
};

static void visit(void *arg, const char *rel, const struct stat *st, int err)
{
	const struct level *l = arg;
	struct warm *w = l->w;
	const struct warm_at at = { rel, l->inside->dir, l->inside->fresh };
	struct folder *f;

	if (atomic_load(&w->stopped))
		return;
	if (!st || (l->folder && !S_ISDIR(st->st_mode))) {
		failed_here(w, rel, st ? -ENOTDIR : err);
	} else if (S_ISREG(st->st_mode)) {
		add_file(w, &at, st);
	} else if (S_ISLNK(st->st_mode)) {
		add_link(w, &at, st);
	} else if (!S_ISDIR(st->st_mode)) {
		_cleanup_(freep) char *path = warm_path(&w->list, rel);
		cmd_fail(EXIT_FAILED, "warm", "%s: neither a file nor a folder nor a link: left out",
			 path ? path : rel);
		failed(w, rel, -EOPNOTSUPP);
	} else if ((f = add_folder(w, &at, st)) && !l->only) {
		struct level below = { .w = w, .inside = &f->inside };
		warm_list_folder(&w->list, rel, visit, &below);
	} else if (f) {
		HASH_ADD_KEYPTR(hh, w->by_rel, f->at.rel, strlen(f->at.rel), f);
	}
}

/* The folders above a name of a list. NULL: they cannot be, which was said. */
static const struct warm_at *add_parents(struct warm *w, const char *rel)
{
	const char *slash = strrchr(rel, '/');
	_cleanup_(freep) char *up = slash ? strndup(rel, (size_t)(slash - rel)) : NULL;
	struct folder *f;

	if (!slash)
		return &w->top;
	HASH_FIND_STR(w->by_rel, up, f);
	if (f)
		return &f->inside;
	const struct warm_at *above = add_parents(w, up);
	struct level l = { w, above, true, true };
	if (above)
		warm_list_name(&w->list, up, visit, &l);
	HASH_FIND_STR(w->by_rel, up, f);
	return f ? &f->inside : NULL;
}

static void add_listed(struct warm *w, const char *rel)
{
	struct folder *f;

	HASH_FIND_STR(w->by_rel, rel, f);
	const struct warm_at *inside = f ? NULL : add_parents(w, rel);
	struct level l = { w, inside, true, false };
	if (inside)
		warm_list_name(&w->list, rel, visit, &l);
}

static void add_all(struct warm *w)
{
	struct level l = { .w = w, .inside = &w->top };

	if (!w->list.names)
		warm_list_folder(&w->list, "", visit, &l);
	for (size_t i = 0; i < w->list.nnames && !atomic_load(&w->stopped); i++)
		add_listed(w, w->list.names[i]);
}

/* When all is in it: a default ACL is not for what was copied. The mode may be one with which
 * nothing can be set any more. Of one that cannot be read none are. */
static int end_folder(struct warm *w, const struct folder *f)
{
	_cleanup_(freep) char *path = warm_path(&w->list, f->at.rel);
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	_cleanup_(closep) int fd = path ? open(path, flags) : -1;
	int r = fd >= 0 ? w->t.ops->xattrs(&w->t, &f->at, fd) : 0;

	if (!r)
		r = w->t.ops->attr(&w->t, &f->at, &f->st);
	if (r < 0)
		failed_there(w, &f->at, r);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

static int end_folders(struct warm *w)
{
	int status = EXIT_DONE;

	HASH_CLEAR(hh, w->by_rel);
	for (struct folder *f = w->folders, *next; f; f = next) {
		next = f->next;
		if (!w->dry_run && !atomic_load(&w->stopped) && end_folder(w, f))
			status = EXIT_FAILED;
		free((char *)f->at.rel);
		free(f);
	}
	return status;
}

/* ---- How much there is ---------------------------------------------------------------- */

static void count_one(void *arg, const char *rel, const struct stat *st, int err)
{
	struct warm *w = arg;

	(void)err;
	if (!st || atomic_load(&w->stopped))
		return;
	if (S_ISDIR(st->st_mode) && !w->list.names)
		warm_list_folder(&w->list, rel, count_one, w);
	if (S_ISREG(st->st_mode) || S_ISLNK(st->st_mode))
		atomic_fetch_add(&w->p.total_files, 1);
	if (S_ISREG(st->st_mode))
		atomic_fetch_add(&w->p.total_bytes, (uint64_t)st->st_size);
}

static void *count(void *arg)
{
	struct warm *w = arg;

	if (!w->list.names)
		warm_list_folder(&w->list, "", count_one, w);
	for (size_t i = 0; i < w->list.nnames; i++)
		warm_list_name(&w->list, w->list.names[i], count_one, w);
	atomic_store(&w->p.is_total, true);
	return NULL;
}

/* ---- The command ------------------------------------------------------------------------- */

static void print_summary(const struct warm *w)
{
	const struct progress *p = &w->p;
	double s = (double)(clock_ns() - w->begun_ns) / NS_PER_S;

	if (w->quiet)
		return;
	if (w->json) {
		json_t *o = progress_numbers(p);
		json_object_set_new(o, "seconds", json_real(s));
		progress_event(atomic_load(&w->stopped) ? "stopped" :
			       w->dry_run ? "would be done" : "done", o);
		return;
	}
	printf("%llu files (%s) %s, %llu (%s) skipped, %llu failed, in %.1f s (%s/s)\n",
	       (unsigned long long)atomic_load(&p->files), size_text(atomic_load(&p->bytes)).s,
	       w->dry_run ? "to be copied" : "copied", (unsigned long long)atomic_load(&p->skipped),
	       size_text(atomic_load(&p->skipped_bytes)).s,
	       (unsigned long long)atomic_load(&p->failed), s,
	       size_text((uint64_t)((double)atomic_load(&p->bytes) / (s > 0.001 ? s : 0.001))).s);
}

/* All of it. Exit status. */
static int copy_all(struct warm *w)
{
	bool shows = !w->quiet && !w->dry_run;
	pthread_t counter;

	w->begun_ns = clock_ns();
	w->jobs = jobs_new(w->njobs);
	if (!w->jobs)
		return cmd_fail(EXIT_FAILED, "warm", "cannot start threads");
	shows = shows && !pthread_create(&counter, NULL, count, w);
	if (shows)
		progress_begin(&w->p, w->json ? PROGRESS_LINES : PROGRESS_BAR);
	add_all(w);
	int status = jobs_end(w->jobs);
	int s = add_names(w);
	int f = end_folders(w);
	if (shows)
		pthread_join(counter, NULL);
	progress_end();
	print_summary(w);
	return status || s || f || atomic_load(&w->p.failed) ? EXIT_FAILED : EXIT_DONE;
}

/* SRC: a folder, or a file, which goes into DIR. *ret: what DIR is like if it is made. */
static int take_source(struct warm *w, const char *src, struct stat *ret)
{
	_cleanup_(freep) char *bad = NULL;
	int r = stat(src, ret) < 0 ? -errno : 0;
	const char *slash = strrchr(src, '/');

	if (!r && !S_ISDIR(ret->st_mode)) {
		w->list.root = !slash ? strdup(".") : slash > src ?
				       strndup(src, (size_t)(slash - src)) : strdup("/");
		w->list.follows = true;
		r = w->names_file ? -ENOTDIR : w->list.root ?
				    warm_list_add(&w->list, slash ? slash + 1 : src) : -ENOMEM;
		*ret = (struct stat){ .st_mode = 0755 };
	} else if (!r) {
		w->list.root = strdup(src);
		r = w->list.root ? 0 : -ENOMEM;
	}
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "warm", "%s: %s", src, error_text(r));
	r = w->names_file ? warm_list_read(&w->list, w->names_file, w->nul, &bad) : 0;
	if (r == -EINVAL)
		return cmd_usage("warm", "\"%s\" is not below %s", bad, src);
	return r < 0 ? cmd_fail(EXIT_FAILED, "warm", "%s: %s", w->names_file, error_text(r)) :
		       EXIT_DONE;
}

static int take_target(struct warm *w, const char *dir)
{
	w->t.word = dir;
	w->t.c = &w->c;
	w->t.only_looks = w->c.only_reads = w->dry_run;
	w->t.progress = w->c.progress = &w->p;
	w->t.s = (struct send){ .c = &w->c, .preserve = true, .unchanged = true,
				.owner = !geteuid() };
	w->t.ops = &warm_mount_ops;
	if (!client_is_remote(dir))
		return EXIT_DONE;
	w->t.ops = &warm_node_ops;
	return client_take(&w->c, dir, &w->t.path);
}

/* DIR is there, or has been made. Exit status. */
static int begin(struct warm *w, const struct stat *src)
{
	int status = w->t.ops->begin(&w->t, src, &w->top);
	struct stat st;

	if (!status && w->t.ops == &warm_mount_ops && !stat(w->t.word, &st)) {
		w->list.skip_dev = st.st_dev;
		w->list.skip_ino = st.st_ino;
	}
	return status;
}

static int add_exclude(struct warm *w)
{
	char **more = reallocarray(w->list.excludes, w->list.nexcludes + 1, sizeof(*more));

	if (!more)
		return cmd_fail(EXIT_FAILED, "warm", "%s", error_text(-ENOMEM));
	w->list.excludes = more;
	more[w->list.nexcludes++] = optarg;
	return EXIT_DONE;
}

static int take_option(struct warm *w, int option, char **argv)
{
	switch (option) {
	case 'j':
		return client_jobs(&w->c, &w->njobs);
	case 'n':
		w->dry_run = true;
		return EXIT_DONE;
	case 'c':
		w->checksum = true;
		return EXIT_DONE;
	case 'x':
		return add_exclude(w);
	case 'T':
		w->names_file = optarg;
		return EXIT_DONE;
	case '0':
		w->nul = true;
		return EXIT_DONE;
	case 'J':
		w->json = true;
		return EXIT_DONE;
	case 'q':
		w->quiet = true;
		return EXIT_DONE;
	default:
		return client_option(&w->c, option, argv);
	}
}

static int parse(struct warm *w, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "jobs", required_argument, NULL, 'j' }, { "dry-run", no_argument, NULL, 'n' },
		{ "checksum", no_argument, NULL, 'c' },	  { "exclude", required_argument, NULL, 'x' },
		{ "files-from", required_argument, NULL, 'T' }, { "null", no_argument, NULL, '0' },
		{ "json", no_argument, NULL, 'J' },	  { "quiet", no_argument, NULL, 'q' },
		CLIENT_OPTIONS, CLIENT_OPTION_TRANSPORT, { 0 },
	};
	int option, status = EXIT_DONE;

	w->njobs = JOBS;
	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":j:nT:0q", longs, NULL)) != -1)
		status = take_option(w, option, argv);
	if (!status && argc - optind != 2)
		return cmd_usage("warm", argc == optind ? "what, and where to?" :
				 argc - optind == 1 ? "where to? Try: a folder in a mount, or "
						      "HOST:/path" : "one folder goes to one folder");
	if (!status && !w->json)
		w->json = !isatty(STDERR_FILENO);
	return status;
}

int cmd_warm(int argc, char **argv)
{
	struct warm w = { 0 };
	struct stat st;

	client_init(&w.c, "warm", false);
	w.c.by = ENGINE_AUTO;
	umask(0);
	int status = parse(&w, argc, argv);
	if (!status)
		status = take_target(&w, argv[optind + 1]);
	if (!status)
		status = take_source(&w, argv[optind], &st);
	if (!status)
		status = begin(&w, &st);
	if (!status) {
		status = copy_all(&w);
		w.t.ops->end(&w.t);
	}
	free(w.list.excludes);
	warm_list_fini(&w.list);
	return status;
}
