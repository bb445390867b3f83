/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs pin, unpin, ttl, priority, evict, quota: what is to stay, and for how long. On a mount
 * they set extended attributes (fs/keep.c), on a node's path what those mean.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <utlist.h>

#include "common/cleanup.h"
#include "common/dir.h"
#include "common/error.h"
#include "common/size.h"
#include "common/units.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"

enum { US_PER_S = 1000000, LOOKS = 20, LOOK_US = 100000 };

struct keeping {
	struct client c;
	const char *what;      /* "pin": of user.slicefs.pin; "evict" */
	const char *value;     /* NULL: takes it away */
	unsigned mask;         /* as keep_set() says; 0: evict */
	struct keep keep;
	bool only_itself;
	bool shows;            /* what there is of a quota, and changes nothing */
	int status;
};

/* ---- What went wrong --------------------------------------------------------------- */

static int fail(struct keeping *k, int err, const char *path)
{
	const char *cmd = k->c.cmd;

	k->status = EXIT_FAILED;
	switch (err) {
	case -EPERM:
		if (!k->mask)
			return cmd_fail(EXIT_FAILED, cmd, "%s: is pinned. Try: slicefs unpin, "
					"first", path);
		return cmd_fail(EXIT_FAILED, cmd, "%s: you may not change it", path);
	case -EBUSY:
		return cmd_fail(EXIT_FAILED, cmd, "%s: is being written. Try: again when it is "
				"closed", path);
	case -EAGAIN:
		return cmd_fail(EXIT_FAILED, cmd, "%s: is moving about, or not known there yet. "
				"Try: again", path);
	case -EOPNOTSUPP:
		if (!client_is_remote(path) && lgetxattr(path, "slicefs.layout", NULL, 0) < 0 &&
		    errno == EOPNOTSUPP)
			return cmd_fail(EXIT_FAILED, cmd, "%s: it is mounted with --no-xattrs. Try: "
					"HOST:/PATH, if it is a node's", path);
		return cmd_fail(EXIT_FAILED, cmd, "%s: it knows nothing of that. Try: a newer "
				"slicefs there", path);
	default:
		return client_is_remote(path) ? client_fail(&k->c, err, path) :
			cmd_fail(EXIT_FAILED, cmd, "%s: %s", path, error_text(err));
	}
}

static int has_none(struct keeping *k, const char *dir)
{
	return cmd_fail(EXIT_FAILED, k->c.cmd, "%s: has none", dir);
}

/* ---- What there is of a quota ------------------------------------------------------- */

static int show(const char *dir, uint64_t used, const char *quota)
{
	print_name(dir);
	printf(": %s of %s\n", size_text(used).s, quota);
	return EXIT_DONE;
}

static int show_here(struct keeping *k, const char *dir)
{
	char quota[64], used[64];
	ssize_t n = getxattr(dir, "user.slicefs.quota", quota, sizeof(quota) - 1);
	ssize_t m = n < 0 ? n : getxattr(dir, "user.slicefs.used", used, sizeof(used) - 1);

	if (m < 0)
		return errno == ENODATA ? has_none(k, dir) : fail(k, -errno, dir);
	quota[n] = used[m] = 0;
	return show(dir, strtoull(used, NULL, 10), quota);
}

static int show_there(struct keeping *k, const struct found *at, const char *dir)
{
	struct engine_ask a = { .fileid = at->attr.fileid, .place = at->place };
	struct keep_text quota;

	if (keep_get(&at->attr.keep, "quota", &quota) < 0)
		return has_none(k, dir);
	int r = client_ask(&k->c, &a, engine_about);
	return r ? fail(k, r, dir) : show(dir, a.used, quota.s);
}

/* ---- On a mount -------------------------------------------------------------------- */

static int set_here(struct keeping *k, const char *path, bool is_dir)
{
	char name[64];
	int r;

	if (!k->mask && is_dir)
		return 0;
	snprintf(name, sizeof(name), "user.slicefs.%s", k->what);
	if (k->value)
		r = lsetxattr(path, name, k->value, strlen(k->value), 0);
	else
		r = lremovexattr(path, name);
	r = r < 0 ? -errno : 0;
	return r == -ENODATA && !k->value ? 0 : r;
}

/* A mount that has just begun may not know all names of a file yet. */
static int set_known_here(struct keeping *k, const char *path, bool is_dir)
{
	int r = set_here(k, path, is_dir);

	for (unsigned i = 0; r == -EAGAIN && i < LOOKS; i++) {
		usleep(LOOK_US);
		r = set_here(k, path, is_dir);
	}
	return r;
}

/* Directories that are still to be gone through; one is open at a time. */
struct walk {
	struct keeping *k;
	dev_t dev;
	struct todo {
		struct todo *next;
		char path[];
	} *first;
};

static int walk_later(struct walk *w, const char *path)
{
	size_t size = strlen(path) + 1;
	struct todo *t = malloc(sizeof(*t) + size);

	if (!t)
		return -ENOMEM;
	memcpy(t->path, path, size);
	LL_PREPEND(w->first, t);
	return 0;
}

/* Only what was named has to be there. What is in it may have been evicted or renamed meanwhile, or
 * replaced: as good. */
static void tell(struct keeping *k, int r, const char *path, bool is_named)
{
	bool is_gone = r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -ESTALE;

	if (r && (is_named || !is_gone))
		fail(k, r, path);
}

static void visit_here(struct walk *w, const char *path, bool is_named)
{
	struct keeping *k = w->k;
	struct stat st;
	int r = lstat(path, &st) < 0 ? -errno : 0, later = 0;

	if (r || st.st_dev != w->dev) {
		tell(k, r, path, is_named);
		return;
	}
	bool is_dir = S_ISDIR(st.st_mode);
	if (is_dir || S_ISREG(st.st_mode))
		r = set_known_here(k, path, is_dir);
	else if (is_named)
		cmd_fail(k->status = EXIT_FAILED, k->c.cmd, "%s: is neither a file nor a "
			 "directory", path);
	if (is_dir && !k->only_itself)
		later = walk_later(w, path);
	tell(k, r ? r : later, path, is_named);
}

static int visit_names(struct walk *w, const char *dir, DIR *d)
{
	for (;;) {
		errno = 0;
		const struct dirent *e = readdir(d);
		if (!e)
			return -errno;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		_cleanup_(freep) char *path = client_join(dir, e->d_name);
		if (!path)
			return -ENOMEM;
		visit_here(w, path, false);
	}
}

/* Never one that a link leads to. */
static int visit_dir(struct walk *w, const char *dir)
{
	_cleanup_(closedirp) DIR *d = dir_open_at(AT_FDCWD, dir, O_NOFOLLOW);

	return d ? visit_names(w, dir, d) : -errno;
}

static void walk_here(struct walk *w, const char *path)
{
	visit_here(w, path, true);
	for (struct todo *t; (t = w->first);) {
		LL_DELETE(w->first, t);
		tell(w->k, visit_dir(w, t->path), t->path, false);
		free(t);
	}
}

static int is_on(const struct mount_line *m, void *arg)
{
	const struct stat *st = arg;

	return major(st->st_dev) == m->major && minor(st->st_dev) == m->minor;
}

static int do_here(struct keeping *k, const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return cmd_fail(EXIT_FAILED, k->c.cmd, "%s: %s", path, strerror(errno));
	if (mounts_each(is_on, &st) <= 0)
		return cmd_fail(EXIT_FAILED, k->c.cmd, "%s: is not on a slicefs mount. Try: slicefs "
				"status", path);
	if (k->shows)
		return S_ISDIR(st.st_mode) ? show_here(k, path) : fail(k, -ENOTDIR, path);
	k->status = EXIT_DONE;
	walk_here(&(struct walk){ .k = k, .dev = st.st_dev }, path);
	return k->status;
}

/* ---- On a node --------------------------------------------------------------------- */

static int evict_there(struct keeping *k, uint64_t fileid, struct place place)
{
	struct engine_ask a = { .fileid = fileid, .place = place };

	return client_ask(&k->c, &a, engine_evict);
}

static int set_there(struct keeping *k, uint64_t fileid, struct place place, bool is_dir)
{
	if (!k->mask && is_dir)
		return 0;
	struct index_op op = { .fileid = fileid, .place = place, .mask = k->mask,
			       .attr.keep = k->keep };
	int r = k->mask ? client_index(&k->c, &op, index_setattr) :
			  evict_there(k, fileid, place);

	index_op_fini(&op);
	return r;
}

static int find_there(struct keeping *k, const char *word, struct found *ret)
{
	int r = client_find(&k->c, INDEX_ROOT, strchr(word, '/'), false, ret);

	return !r && !ret->is_there ? -ENOENT : r;
}

/* It may have moved since it was found, and a node that has just begun may not know all its names
 * yet: then it is looked for again. */
static int set_known_there(struct keeping *k, const char *word, struct found *at)
{
	for (unsigned i = 0;; i++) {
		int r = set_there(k, at->attr.fileid, at->place, S_ISDIR(at->attr.mode));
		if (r != -ENOENT)
			return r;
		if (i == LOOKS)
			return -EAGAIN;
		usleep(LOOK_US);
		r = find_there(k, word, at);
		if (r)
			return r;
	}
}

struct level {
	struct keeping *k;
	const char *shown;
};

static void list_there(struct keeping *k, const struct attr *a, const char *shown);

/* As on a mount: what is below the path that was named may have moved, or gone. */
static int visit_entry(void *arg, const struct entry *e)
{
	struct level *l = arg;
	struct keeping *k = l->k;
	bool is_dir = S_ISDIR(e->attr.mode);
	_cleanup_(freep) char *path = client_join(l->shown, e->name);

	if (!path)
		return -ENOMEM;
	if (!is_dir && !S_ISREG(e->attr.mode))
		return 0;
	struct found at = { .attr = e->attr, .place = e->place };
	int r = set_known_there(k, path, &at);
	if (r < 0 && r != -ENOENT)
		fail(k, r, path);
	if (!r && is_dir)
		list_there(k, &at.attr, path);
	return 0;
}

static void list_there(struct keeping *k, const struct attr *a, const char *shown)
{
	struct level l = { k, shown };
	int r = client_list(&k->c, a->fileid, true, visit_entry, &l);

	if (r < 0 && r != -ENOENT)
		fail(k, r, shown);
}

static int do_there(struct keeping *k, const char *word)
{
	struct found at;
	int r = find_there(k, word, &at);

	if (r < 0)
		return client_fail(&k->c, r, word);
	if (k->shows)
		return S_ISDIR(at.attr.mode) ? show_there(k, &at, word) : fail(k, -ENOTDIR, word);
	if (!S_ISREG(at.attr.mode) && !S_ISDIR(at.attr.mode))
		return cmd_fail(EXIT_FAILED, k->c.cmd, "%s: is neither a file nor a directory",
				word);
	k->status = EXIT_DONE;
	r = set_known_there(k, word, &at);
	if (r)
		fail(k, r, word);
	else if (S_ISDIR(at.attr.mode) && !k->only_itself)
		list_there(k, &at.attr, word);
	return k->status;
}

/* ---- All words --------------------------------------------------------------------- */

static int take_node(struct keeping *k, char **words)
{
	const char *path;
	int status = EXIT_DONE;

	for (; *words && !status; words++)
		if (client_is_remote(*words))
			status = client_take(&k->c, *words, &path);
	return status;
}

static int do_each(struct keeping *k, char **words, bool remote,
		   int (*fn)(struct keeping *k, const char *word))
{
	int worst = EXIT_DONE;

	for (; *words; words++) {
		int status = client_is_remote(*words) == remote ? fn(k, *words) : EXIT_DONE;
		worst = status ? status : worst;
	}
	return worst;
}

/* Each of them, also after one that failed. A node that is gone ends the process: so those that are
 * here come first. */
static int do_words(struct keeping *k, char **words)
{
	int status = take_node(k, words);

	if (status)
		return status;
	int here = do_each(k, words, false, do_here);
	if (*k->c.node)
		status = client_open(&k->c);
	if (*k->c.node && !status)
		status = do_each(k, words, true, do_there);
	client_close(&k->c);
	return status ? status : here;
}

/* What is to be set, as its extended attribute has it. */
static int take_value(struct keeping *k, const char *what, const char *value)
{
	k->what = what;
	k->value = value;
	if (!value)
		return keep_unset(&k->keep, what, &k->mask) == -ENOENT ? -EINVAL : 0;
	return keep_set(&k->keep, what, bytes_str(value), &k->mask);
}

/* ---- Command lines ------------------------------------------------------------------- */

enum { OPTION_UNTIL = CLIENT_MORE, OPTION_FOR, OPTION_AFTER_USE };

struct words {
	struct keeping k;
	const char *until, *for_;
	bool after_use;
	char **v; /* NULL after the last */
	int n;
};

/* `letters`: ":d", or ":". `first`: what stands before the PATHs, of which there is one at least; or
 * NULL. */
static int parse(struct words *w, int argc, char **argv, const char *letters,
		 const struct option *options, const char *first)
{
	client_init(&w->k.c, argv[0], false);
	for (int o; (o = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
		if (o == 'd')
			w->k.only_itself = true;
		else if (o == OPTION_UNTIL)
			w->until = optarg;
		else if (o == OPTION_FOR)
			w->for_ = optarg;
		else if (o == OPTION_AFTER_USE)
			w->after_use = true;
		else {
			int status = client_option(&w->k.c, o, argv);
			if (status)
				return status;
		}
	}
	w->v = argv + optind;
	w->n = argc - optind;
	if (first && !w->n)
		return cmd_usage(argv[0], "no %s was given", first);
	if (w->n < (first ? 2 : 1))
		return cmd_usage(argv[0], "no PATH was given");
	return EXIT_DONE;
}

static const struct option plain[] = {
	{ "directory", no_argument, NULL, 'd' }, CLIENT_OPTIONS, { 0 },
};

static void help_common(void)
{
	printf("  -d, --directory  a directory itself, for what will be made in it, and not\n"
	       "                   what is in it already\n");
	client_help();
}

void cmd_pin_help(void)
{
	printf("  --until TIME     only until then: 2026-12-01, 2026-12-01T12:00:00Z, @SECONDS\n"
	       "  --for TIME       only so long: 90s, 2h, 7d\n");
	help_common();
	printf("\nWhat is pinned is never evicted. Of a directory all that is in it, and what will\n"
	       "be.\n");
}

int cmd_pin(int argc, char **argv)
{
	static const struct option options[] = {
		{ "until", required_argument, NULL, OPTION_UNTIL },
		{ "for", required_argument, NULL, OPTION_FOR },
		{ "directory", no_argument, NULL, 'd' }, CLIENT_OPTIONS, { 0 },
	};
	struct words w = { 0 };
	struct keep_text until;
	uint64_t us;
	int status = parse(&w, argc, argv, ":d", options, NULL);

	if (status)
		return status;
	if (w.until && w.for_)
		return cmd_usage(argv[0], "--until and --for say the same in two ways. Try: one");
	if (w.for_) {
		if (units_time(w.for_, &us) < 0 || us < US_PER_S || us / US_PER_S > INT32_MAX)
			return cmd_usage(argv[0], "--for: \"%s\" is no time. Try: 90s, 2h, 7d",
					 w.for_);
		keep_moment(time(NULL) + (int64_t)(us / US_PER_S), &until);
		w.until = until.s;
	}
	if (take_value(&w.k, "pin", w.until ? w.until : "forever") < 0)
		return cmd_usage(argv[0], "--until: \"%s\" is no time. Try: 2026-12-01, "
				 "2026-12-01T12:00:00Z", w.until);
	if (w.k.keep.pinned <= time(NULL))
		return cmd_usage(argv[0], "--until: \"%s\" has passed. Try: slicefs unpin", w.until);
	return do_words(&w.k, w.v);
}

void cmd_unpin_help(void)
{
	help_common();
	printf("\nThe other way round: they may be evicted again.\n");
}

int cmd_unpin(int argc, char **argv)
{
	struct words w = { 0 };
	int status = parse(&w, argc, argv, ":d", plain, NULL);

	if (status)
		return status;
	take_value(&w.k, "pin", NULL);
	return do_words(&w.k, w.v);
}

void cmd_ttl_help(void)
{
	printf("  --after-use      counted from the last use, not from the last publishing\n");
	help_common();
	printf("\nTIME is 90s, 2h, 7d; none: there is no end. What has lived so long is evicted.\n");
}

int cmd_ttl(int argc, char **argv)
{
	static const struct option options[] = {
		{ "after-use", no_argument, NULL, OPTION_AFTER_USE },
		{ "directory", no_argument, NULL, 'd' }, CLIENT_OPTIONS, { 0 },
	};
	struct words w = { 0 };
	char value[64];
	int status = parse(&w, argc, argv, ":d", options, "TIME");

	if (status)
		return status;
	bool none = !strcmp(w.v[0], "none");
	snprintf(value, sizeof(value), "%s%s", w.v[0], w.after_use ? " after use" : "");
	if (take_value(&w.k, "ttl", none ? NULL : value) < 0)
		return cmd_usage(argv[0], "\"%s\" is no time. Try: 90s, 2h, 7d, none", w.v[0]);
	return do_words(&w.k, w.v + 1);
}

void cmd_priority_help(void)
{
	help_common();
	printf("\nWho has a lower one is evicted first: low, normal, high.\n");
}

int cmd_priority(int argc, char **argv)
{
	struct words w = { 0 };
	int status = parse(&w, argc, argv, ":d", plain, "priority");

	if (status)
		return status;
	if (take_value(&w.k, "priority", w.v[0]) < 0)
		return cmd_usage(argv[0], "\"%s\" is no priority. Try: low, normal, high", w.v[0]);
	return do_words(&w.k, w.v + 1);
}

void cmd_evict_help(void)
{
	client_help();
	printf("\nFiles go at once, as if there were no room for them, of a directory all that are in\n"
	       "it. Who has one open keeps it.\n");
}

int cmd_evict(int argc, char **argv)
{
	static const struct option options[] = { CLIENT_OPTIONS, { 0 } };
	struct words w = { 0 };
	int status = parse(&w, argc, argv, ":", options, NULL);

	if (status)
		return status;
	w.k.what = "evict";
	w.k.value = "1";
	return do_words(&w.k, w.v);
}

void cmd_quota_help(void)
{
	client_help();
	printf("\nWhat is in DIR, and below it, is evicted when there is more of it than SIZE (as\n"
	       "10G; none: as unset), before anything else is.\n"
	       "show: how much there is, of how much.\n");
}

static int quota_words(struct words *w, const char *verb)
{
	bool set = !strcmp(verb, "set"), unset = !strcmp(verb, "unset");

	w->k.only_itself = true;
	w->k.shows = !strcmp(verb, "show");
	if (!set && !unset && !w->k.shows)
		return cmd_usage("quota", "\"%s\" is none of set, unset and show", verb);
	if (set && w->n != 3)
		return cmd_usage("quota", "set takes one DIR and a SIZE");
	if (w->n < 2)
		return cmd_usage("quota", "no DIR was given");
	if (unset)
		take_value(&w->k, "quota", NULL);
	else if (set && (take_value(&w->k, "quota", w->v[2]) < 0 ||
			 (!w->k.keep.quota && strcmp(w->v[2], "none"))))
		return cmd_usage("quota", "\"%s\" is no size. Try: 512M, 10G, none", w->v[2]);
	if (set)
		w->v[2] = NULL;
	return do_words(&w->k, w->v + 1);
}

int cmd_quota(int argc, char **argv)
{
	static const struct option options[] = { CLIENT_OPTIONS, { 0 } };
	struct words w = { 0 };
	int status = parse(&w, argc, argv, ":", options, NULL);

	return status ? status : quota_words(&w, w.v[0]);
}
