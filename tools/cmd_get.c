/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs get, cat: files out of a node's tree. A file is read as the version that it
 * was when it was opened, and comes under a temporary name that becomes its own when all
 * of it is there (temps.h).
 *
 * Threads: the main one walks the tree and makes folders; jobs fetch the files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/carry.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/jobs.h"
#include "tools/temps.h"

enum { JOBS = 4, TRIES = 16 };

struct get {
	struct client c;
	bool recursive, no_clobber, preserve;
	const char *to;
	unsigned njobs;
	mode_t umask;
	struct jobs *jobs;
	struct folder *folders; /* whose mode and times are set at the end, the deepest first */
};

struct folder {
	struct folder *next;
	char *path;
	struct attr attr;
};

/* One file, and where it is to go; the names are its own. */
struct item {
	struct get *g;
	char *shown, *local; /* shown: "HOST:/path", as the user would write it */
	char name[INDEX_NAME_MAX + 1];
	uint64_t dir;
};

void cmd_get_help(void)
{
	printf("  -r, --recursive    folders with all that is in them; links as links\n"
	       "  -n, --no-clobber   leave what is there already as it is\n"
	       "  -p, --preserve     keep mode and times; else files get the mode less the umask\n"
	       "  -j, --jobs N       so many files at a time, 1 to 64 (4)\n"
	       "  --transport WAY    how bytes go: auto, rdma or tcp (auto)\n");
	client_help();
	printf("\nTO is a file, a folder, or \"-\" for standard output. A file has its name when all\n"
	       "of it is there. Holes stay holes.\n");
}

void cmd_cat_help(void)
{
	client_help();
}

static int fail_here(const struct get *g, int err, const char *path)
{
	return cmd_fail(EXIT_FAILED, g->c.cmd, "%s: %s", path, error_text(err));
}

/* ---- A file ------------------------------------------------------------------ */

/* What is looked up may be another thing by the time that it is opened: then anew. */
static int open_remote(struct client *c, uint64_t dir, const char *path, struct file **ret)
{
	int r = -ESTALE;

	for (int n = 0; n < TRIES && r == -ESTALE; n++) {
		struct found at;
		r = client_find(c, dir, path, true, &at);
		if (!r && !at.is_there)
			r = -ENOENT;
		if (!r && !S_ISREG(at.attr.mode))
			r = S_ISDIR(at.attr.mode) ? -EISDIR : -EINVAL;
		if (!r)
			r = client_open_file(c, at.attr.fileid, at.place, 0, ret);
	}
	return r;
}

static int fail_write(const struct get *g, int err, const char *path)
{
	if (err == -EPIPE)
		cmd_end_by_pipe();
	return fail_here(g, err, path);
}

static int carry_to(struct get *g, struct file *f, int fd, bool sparse, const char *shown,
		    const char *local)
{
	struct carried by;
	int r = carry_out(&g->c, f, fd, sparse, shown, &by);

	return !r ? EXIT_DONE : by.is_local ? fail_write(g, r, local) :
					      client_fail(&g->c, r, shown);
}

static int set_mode(const struct get *g, int fd, const struct attr *a, const struct stat *old)
{
	const struct timespec times[2] = { a->atime, a->mtime };
	mode_t mode = g->preserve ? a->mode & 07777 :
		      old ? old->st_mode & 07777 : a->mode & 0777 & ~g->umask;

	if (fchmod(fd, mode) < 0 || (g->preserve && futimens(fd, times) < 0))
		return -errno;
	return 0;
}

/* `old`: what has the name now, or NULL. */
static int fetch_new(struct get *g, struct file *f, const char *shown, const char *local,
		     const struct stat *old)
{
	_cleanup_(closep) int fd = -1;
	struct attr a;
	char *name;

	file_attr(f, &a);
	fd = temps_open(local, 0600, &name);
	if (fd < 0)
		return fail_here(g, fd, local);
	int status = carry_to(g, f, fd, true, shown, local);
	if (!status) {
		int r = set_mode(g, fd, &a, old);
		if (r >= 0) {
			r = temps_keep(name, local);
			name = NULL;
		}
		status = r < 0 ? fail_here(g, r, local) : EXIT_DONE;
	}
	temps_drop(name);
	return status;
}

/* A device, a pipe: there is nothing to take the place of. */
static int fetch_through(struct get *g, struct file *f, const char *shown, const char *local,
			 int flags)
{
	_cleanup_(closep) int fd = open(local, O_WRONLY | O_CLOEXEC | flags);

	return fd < 0 ? fail_here(g, -errno, local) : carry_to(g, f, fd, false, shown, local);
}

/* Where a link stands in its place, what it leads to is replaced, as cp would; but with -r the
 * link itself, unless it is TO: one that came with the tree could lead anywhere. */
static int fetch_to(struct get *g, struct file *f, const char *shown, const char *local)
{
	_cleanup_(freep) char *real = NULL;
	struct stat st;
	bool follows = !g->recursive || !strcmp(local, g->to);
	bool any = !(follows ? stat(local, &st) : lstat(local, &st));
	bool is_link = any && S_ISLNK(st.st_mode);

	if (any && g->no_clobber)
		return EXIT_DONE;
	if (any && S_ISDIR(st.st_mode))
		return fail_here(g, -EISDIR, local);
	if (any && !S_ISREG(st.st_mode) && !is_link)
		return fetch_through(g, f, shown, local, follows ? 0 : O_NOFOLLOW);
	real = any && follows ? realpath(local, NULL) : NULL;
	return fetch_new(g, f, shown, real ? real : local, any && !is_link ? &st : NULL);
}

static int fetch_file(void *arg)
{
	struct item *i = arg;
	struct get *g = i->g;
	struct file *f;
	int r = open_remote(&g->c, i->dir, i->name, &f), status;

	if (r < 0) {
		status = client_fail(&g->c, r, i->shown);
	} else {
		status = fetch_to(g, f, i->shown, i->local);
		client_close_file(&g->c, f, 0);
	}
	free(i->shown);
	free(i->local);
	free(i);
	return status;
}

/* ---- Folders and links ------------------------------------------------------- */

static int make_link(const char *as, const void *target)
{
	return symlink(target, as);
}

static int get_link(struct get *g, const struct attr *a, struct place place, const char *shown,
		    const char *local)
{
	_cleanup_(freep) char *target = NULL;
	int r = client_link(&g->c, a, place, &target);

	if (r < 0)
		return client_fail(&g->c, r, shown);
	if (g->no_clobber)
		r = symlink(target, local) < 0 && errno != EEXIST ? -errno : 0;
	else
		r = temps_make(local, make_link, target);
	return r < 0 ? fail_here(g, r, local) : EXIT_DONE;
}

static int remember_folder(struct get *g, const char *local, const struct attr *a)
{
	struct folder *f = malloc(sizeof(*f));

	if (!f)
		return -ENOMEM;
	*f = (struct folder){ g->folders, strdup(local), *a };
	g->folders = f;
	return f->path ? 0 : -ENOMEM;
}

/* Ours alone until all is in it: then it gets its mode. 1: a link is there, and not followed. */
static int make_folder(struct get *g, const char *local, const struct attr *a)
{
	struct stat st;
	bool is_new = !mkdir(local, 0700);

	if (!is_new && (errno != EEXIST || lstat(local, &st) < 0))
		return -errno;
	if (!is_new && S_ISLNK(st.st_mode))
		return 1;
	if (!is_new && !S_ISDIR(st.st_mode))
		return -ENOTDIR;
	return is_new || g->preserve ? remember_folder(g, local, a) : 0;
}

static int get_any(struct get *g, uint64_t dir, const char *name, const struct attr *a,
		   struct place place, const char *shown, const char *local);

struct listing {
	struct get *g;
	uint64_t dir;
	const char *shown, *local;
	int status;
};

/* A node could say anything, and this becomes a path here. */
static bool is_plain(const char *name)
{
	return *name && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
}

static int get_name(void *arg, const struct entry *e)
{
	struct listing *l = arg;
	_cleanup_(freep) char *from = client_join(l->shown, e->name);
	_cleanup_(freep) char *to = client_join(l->local, e->name);
	int s;

	if (!from || !to)
		return -ENOMEM;
	if (e->draft)
		return 0;
	s = is_plain(e->name) ?
		    get_any(l->g, l->dir, e->name, &e->attr, e->place, from, to) :
		    cmd_fail(EXIT_FAILED, l->g->c.cmd, "%s: not a name for a file: left out", from);
	l->status = s ? s : l->status;
	return 0;
}

static int get_folder(struct get *g, const struct attr *a, const char *shown, const char *local)
{
	struct listing l = { .g = g, .dir = a->fileid, .shown = shown, .local = local };

	if (!g->recursive)
		return cmd_fail(EXIT_FAILED, g->c.cmd, "%s: is a directory. Try: slicefs get -r",
				shown);
	int r = make_folder(g, local, a);
	if (r > 0)
		return cmd_fail(EXIT_FAILED, g->c.cmd, "%s: a link is there, which -r does not "
				"follow", local);
	if (r < 0)
		return fail_here(g, r, local);
	r = client_list(&g->c, a->fileid, true, get_name, &l);
	return r < 0 ? client_fail(&g->c, r, shown) : l.status;
}

static int get_file(struct get *g, uint64_t dir, const char *name, const char *shown,
		    const char *local)
{
	struct item *i = calloc(1, sizeof(*i));

	if (!i)
		return fail_here(g, -ENOMEM, local);
	*i = (struct item){ .g = g, .shown = strdup(shown), .local = strdup(local), .dir = dir };
	strcpy(i->name, name);
	if (i->shown && i->local) {
		jobs_add(g->jobs, fetch_file, i);
		return EXIT_DONE;
	}
	free(i->shown);
	free(i->local);
	free(i);
	return fail_here(g, -ENOMEM, local);
}

static int get_any(struct get *g, uint64_t dir, const char *name, const struct attr *a,
		   struct place place, const char *shown, const char *local)
{
	if (S_ISDIR(a->mode))
		return get_folder(g, a, shown, local);
	if (S_ISLNK(a->mode))
		return get_link(g, a, place, shown, local);
	if (S_ISREG(a->mode))
		return get_file(g, dir, name, shown, local);
	return cmd_fail(EXIT_FAILED, g->c.cmd, "%s: neither a file nor a folder nor a link: left out",
			shown);
}

static int end_folders(struct get *g, int status)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

	for (struct folder *f = g->folders, *next; f; f = next) {
		next = f->next;
		int fd = f->path ? open(f->path, flags) : -1;
		int r = fd < 0 ? -errno : set_mode(g, fd, &f->attr, NULL);
		if (r < 0)
			status = fail_here(g, r, f->path ? f->path : "a folder");
		if (fd >= 0)
			close(fd);
		free(f->path);
		free(f);
	}
	return status;
}

/* ---- The commands ------------------------------------------------------------ */

static int cat_one(struct get *g, const char *path, const char *shown)
{
	struct file *f;
	int r = open_remote(&g->c, INDEX_ROOT, path, &f);

	if (r < 0)
		return client_fail(&g->c, r, shown);
	int status = carry_to(g, f, STDOUT_FILENO, false, shown, "standard output");
	client_close_file(&g->c, f, 0);
	return status;
}

static int get_one(struct get *g, const char *path, const char *shown, const char *to,
		   bool into)
{
	_cleanup_(freep) char *name = client_name_of(path);
	_cleanup_(freep) char *inside = name && into ? client_join(to, name) : NULL;
	struct found at;
	int r = client_find(&g->c, INDEX_ROOT, path, !g->recursive, &at);

	if (!name || (into && !inside))
		return fail_here(g, -ENOMEM, to);
	if (!r && !at.is_there)
		r = -ENOENT;
	if (r < 0)
		return client_fail(&g->c, r, shown);
	return get_any(g, at.parent, at.name, &at.attr, at.place, shown, into ? inside : to);
}

static int get_words(struct get *g, char **words, int n, const char *to)
{
	struct stat st;
	bool is_stdout = !strcmp(to, "-");
	bool into = !is_stdout && !stat(to, &st) && S_ISDIR(st.st_mode);
	bool needs_folder = n > 1 || (to[strlen(to) - 1] == '/' && !g->recursive);
	g->to = to;
	int status = into ? client_check_names(&g->c, words, n, NULL) : EXIT_DONE;

	if (status)
		return status;
	if (!into && needs_folder && !is_stdout)
		return cmd_fail(EXIT_FAILED, "get", "%s: no such folder%s. Try: mkdir -p %s", to,
				n > 1 ? ", which several files need" : "", to);
	for (int i = 0; i < n; i++) {
		const char *path = strchr(words[i], '/');
		int s = is_stdout ? cat_one(g, path, words[i]) :
				    get_one(g, path, words[i], to, into);
		status = s ? s : status;
	}
	return status;
}

static int parse(struct get *g, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "recursive", no_argument, NULL, 'r' }, { "no-clobber", no_argument, NULL, 'n' },
		{ "preserve", no_argument, NULL, 'p' },	 { "jobs", required_argument, NULL, 'j' },
		CLIENT_OPTIONS, CLIENT_OPTION_TRANSPORT, { 0 },
	};
	int option, status = EXIT_DONE;

	g->njobs = JOBS;
	while (!status && (option = getopt_long(argc, argv, ":rRnpj:", longs, NULL)) != -1) {
		if (option == 'r' || option == 'R')
			g->recursive = true;
		else if (option == 'n')
			g->no_clobber = true;
		else if (option == 'p')
			g->preserve = true;
		else if (option == 'j')
			status = client_jobs(&g->c, &g->njobs);
		else
			status = client_option(&g->c, option, argv);
	}
	if (!status && (argc - optind < 2 || !*argv[argc - 1]))
		return cmd_usage("get", argc == optind ? "which file, and where to?" :
							 "where to? Try: a folder here, or -");
	return status;
}

static int take_all(struct client *c, char **words, int n)
{
	const char *path;
	int status = EXIT_DONE;

	for (int i = 0; i < n && !status; i++)
		status = client_take(c, words[i], &path);
	return status;
}

int cmd_get(int argc, char **argv)
{
	struct get g = { 0 };

	client_init(&g.c, "get", true);
	g.c.by = ENGINE_AUTO;
	g.umask = umask(0);
	umask(g.umask);
	opterr = 0;
	int status = parse(&g, argc, argv), n = argc - optind - 1;
	char **words = argv + optind;
	if (!status)
		status = take_all(&g.c, words, n);
	if (!status && client_is_remote(words[n]) && access(words[n], F_OK) < 0)
		return cmd_usage("get", "\"%s\" is on a node, and what is got comes here. Try: "
				 "slicefs mv, or get and put", words[n]);
	if (!status)
		status = client_open(&g.c);
	if (status)
		return status;
	g.jobs = jobs_new(g.njobs);
	status = g.jobs ? get_words(&g, words, n, words[n]) :
			  cmd_fail(EXIT_FAILED, "get", "cannot start threads");
	int s = jobs_end(g.jobs);
	status = end_folders(&g, s ? s : status);
	client_close(&g.c);
	return status;
}

int cmd_cat(int argc, char **argv)
{
	static const struct option longs[] = { CLIENT_OPTIONS, { 0 } };
	struct get g = { 0 };
	int option, status = EXIT_DONE;

	client_init(&g.c, "cat", true);
	g.c.by = ENGINE_AUTO;
	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":", longs, NULL)) != -1)
		status = client_option(&g.c, option, argv);
	if (!status && optind == argc)
		return cmd_usage("cat", "which file?");
	if (!status)
		status = take_all(&g.c, argv + optind, argc - optind);
	if (!status)
		status = client_open(&g.c);
	if (status)
		return status;
	status = get_words(&g, argv + optind, argc - optind, "-");
	client_close(&g.c);
	return status;
}
