/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs put: files into a node's tree (send.h).
 *
 * Threads: the main one finds files and makes folders; jobs send the files.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/jobs.h"
#include "tools/send.h"

enum { JOBS = 4 };

struct put {
	struct client c;
	struct send s;
	bool recursive;
	unsigned njobs;
	struct jobs *jobs;
	struct folder *folders; /* whose times are set at the end, the deepest first */
};

struct folder {
	struct folder *next;
	uint64_t fileid;
	struct stat st;
};

/* One file, and where it is to go; the names are its own. */
struct item {
	struct put *p;
	char *local, *shown; /* shown: "HOST:/path", as the user would write it */
	char name[INDEX_NAME_MAX + 1];
	uint64_t dir;
};

void cmd_put_help(void)
{
	printf("  -r, --recursive    folders with all that is in them; links as links\n"
	       "  -n, --no-clobber   leave what is there already as it is\n"
	       "  -p, --preserve     keep mode and times; else files get yours, less the umask\n"
	       "  -j, --jobs N       so many files at a time, 1 to 64 (4)\n"
	       "  --transport WAY    how bytes go: auto, rdma or tcp (auto)\n");
	client_help();
	printf("\nFILE \"-\" is standard input. Several FILEs, and folders, go into a folder. A file\n"
	       "is seen by others when all of it is there, and not at all if that fails.\n");
}

static int fail_here(const struct put *p, int err, const char *path)
{
	return send_fail_here(&p->s, err, path);
}

/* ---- A file ------------------------------------------------------------------ */

static int put_item(void *arg)
{
	struct item *i = arg;
	bool is_stdin = !strcmp(i->local, "-");
	int fd = is_stdin ? dup(STDIN_FILENO) : open(i->local, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int status;

	if (fd < 0 || fstat(fd, &st) < 0) {
		status = fail_here(i->p, -errno, i->local);
	} else {
		if (!S_ISREG(st.st_mode)) { /* a pipe has no mode that a file should have */
			st.st_mode = 0666;
			clock_gettime(CLOCK_REALTIME, &st.st_mtim);
			st.st_atim = st.st_mtim;
		}
		const struct send_to to = { i->dir, i->name, i->shown };
		status = send_file(&i->p->s, fd, &st, &to, i->local) < 0 ? EXIT_FAILED : EXIT_DONE;
	}
	if (fd >= 0)
		close(fd);
	free(i->local);
	free(i->shown);
	free(i);
	return status;
}

/* ---- Folders and links ------------------------------------------------------- */

static int put_link(struct put *p, const char *local, const struct stat *st, uint64_t dir,
		    const char *name, const char *shown)
{
	const struct send_to to = { dir, name, shown };
	char target[PATH_MAX];
	ssize_t n = readlink(local, target, sizeof(target) - 1);

	if (n < 0)
		return fail_here(p, -errno, local);
	target[n] = '\0';
	int r = send_link(&p->s, target, st, &to);
	return r < 0 ? client_fail(&p->c, r, shown) : EXIT_DONE;
}

/* Its times would change with each name in it: they wait. */
static int remember_folder(struct put *p, uint64_t fileid, const struct stat *st)
{
	struct folder *f = p->s.preserve ? malloc(sizeof(*f)) : NULL;

	if (!f)
		return p->s.preserve ? -ENOMEM : 0;
	*f = (struct folder){ p->folders, fileid, *st };
	p->folders = f;
	return 0;
}

static int put_any(struct put *p, const char *local, bool follow, uint64_t dir,
		   const char *name, const char *shown);

static int put_names(struct put *p, DIR *d, const char *local, uint64_t dir, const char *shown)
{
	int status = EXIT_DONE;

	for (;;) {
		errno = 0;
		struct dirent *e = readdir(d);
		if (!e)
			return errno ? fail_here(p, -errno, local) : status;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		_cleanup_(freep) char *from = client_join(local, e->d_name);
		_cleanup_(freep) char *to = client_join(shown, e->d_name);
		int s = from && to ? put_any(p, from, false, dir, e->d_name, to) :
				     fail_here(p, -ENOMEM, local);
		status = s ? s : status;
	}
}

static int put_folder(struct put *p, const char *local, const struct stat *st, uint64_t dir,
		      const char *name, const char *shown)
{
	const struct send_to to = { dir, name, shown };
	uint64_t fileid;
	bool is_new;

	if (!p->recursive)
		return cmd_fail(EXIT_FAILED, p->c.cmd, "%s: is a directory. Try: slicefs put -r",
				local);
	int r = send_folder(&p->s, st, &to, &fileid, &is_new);
	if (r >= 0)
		r = remember_folder(p, fileid, st);
	if (r < 0)
		return client_fail(&p->c, r, shown);
	DIR *d = opendir(local);
	if (!d)
		return fail_here(p, -errno, local);
	int status = put_names(p, d, local, fileid, shown);
	closedir(d);
	return status;
}

static int put_file(struct put *p, const char *local, uint64_t dir, const char *name,
		    const char *shown)
{
	struct item *i = calloc(1, sizeof(*i));

	if (!i)
		return fail_here(p, -ENOMEM, local);
	*i = (struct item){ .p = p, .local = strdup(local), .shown = strdup(shown), .dir = dir };
	if (!i->local || !i->shown || strlen(name) > INDEX_NAME_MAX) {
		int r = i->local && i->shown ? -ENAMETOOLONG : -ENOMEM;
		free(i->local);
		free(i->shown);
		free(i);
		return fail_here(p, r, local);
	}
	strcpy(i->name, name);
	jobs_add(p->jobs, put_item, i);
	return EXIT_DONE;
}

/* `follow`: as a command's word a link stands for what it leads to, unless with -r. */
static int put_any(struct put *p, const char *local, bool follow, uint64_t dir,
		   const char *name, const char *shown)
{
	struct stat st;

	if (follow && !strcmp(local, "-"))
		return put_file(p, local, dir, name, shown);
	if ((p->recursive ? lstat(local, &st) : stat(local, &st)) < 0)
		return fail_here(p, -errno, local);
	if (S_ISDIR(st.st_mode))
		return put_folder(p, local, &st, dir, name, shown);
	if (S_ISLNK(st.st_mode))
		return put_link(p, local, &st, dir, name, shown);
	if (S_ISREG(st.st_mode) || (follow && !S_ISSOCK(st.st_mode) && !p->recursive))
		return put_file(p, local, dir, name, shown);
	return cmd_fail(EXIT_FAILED, p->c.cmd, "%s: neither a file nor a folder nor a link: left out",
			local);
}

/* ---- The command ------------------------------------------------------------- */

/* The name that a word gives to what it becomes in a folder, to be freed. Of "." and
 * "/" it is ".": what is in them goes into the folder itself. */
static char *name_of(const char *local)
{
	size_t n = strlen(local);

	while (n && local[n - 1] == '/')
		n--;
	bool is_up = n >= 2 && !memcmp(local + n - 2, "..", 2) && (n == 2 || local[n - 3] == '/');
	_cleanup_(freep) char *whole = is_up ? realpath(local, NULL) : NULL;
	return client_name_of(whole ? whole : local);
}

/* "-" has no name that it could have in a folder. Exit status. */
static int check_words(const struct put *p, char **words, int n, const char *shown)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(words[i], "-"))
			return cmd_fail(EXIT_USAGE, "put", "%s: standard input needs a name. Try: "
					"slicefs put - %s%sNAME", shown, shown,
					shown[strlen(shown) - 1] == '/' ? "" : "/");
	return client_check_names(&p->c, words, n, name_of);
}

static int put_into(struct put *p, char **words, int n, uint64_t dir, const char *shown)
{
	int status = check_words(p, words, n, shown);

	if (status)
		return status;
	for (int i = 0; i < n; i++) {
		_cleanup_(freep) char *name = name_of(words[i]);
		_cleanup_(freep) char *to = name ? client_join(shown, name) : NULL;
		int s = to ? put_any(p, words[i], true, dir, name, to) :
			     fail_here(p, -ENOMEM, words[i]);
		status = s ? s : status;
	}
	return status;
}

static int put_words(struct put *p, char **words, int n, const char *path, const char *shown)
{
	struct found at;
	int r = client_find(&p->c, INDEX_ROOT, path, true, &at);

	if (r < 0)
		return client_fail(&p->c, r, shown);
	if (at.is_there && S_ISDIR(at.attr.mode))
		return put_into(p, words, n, at.attr.fileid, shown);
	if (n > 1 || path[strlen(path) - 1] == '/')
		return cmd_fail(EXIT_FAILED, "put", "%s: no such folder%s. Try: slicefs mkdir -p %s",
				shown, n > 1 ? ", which several files need" : "", shown);
	return put_any(p, words[0], true, at.parent, at.name, shown);
}

static int keep_times(struct put *p, int status)
{
	const struct place place = { .kind = PLACE_FILEID };

	for (struct folder *f = p->folders, *next; f; f = next) {
		next = f->next;
		int r = send_attr(&p->s, f->fileid, place,
				 INDEX_SET_MODE | INDEX_SET_ATIME | INDEX_SET_MTIME, &f->st);
		if (r < 0)
			status = client_fail(&p->c, r, "times of folders");
		free(f);
	}
	return status;
}

static int parse(struct put *p, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "recursive", no_argument, NULL, 'r' }, { "no-clobber", no_argument, NULL, 'n' },
		{ "preserve", no_argument, NULL, 'p' },	 { "jobs", required_argument, NULL, 'j' },
		CLIENT_OPTIONS, CLIENT_OPTION_TRANSPORT, { 0 },
	};
	int option, status = EXIT_DONE;

	p->njobs = JOBS;
	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":rRnpj:", longs, NULL)) != -1) {
		if (option == 'r' || option == 'R')
			p->recursive = true;
		else if (option == 'n')
			p->s.no_clobber = true;
		else if (option == 'p')
			p->s.preserve = true;
		else if (option == 'j')
			status = client_jobs(&p->c, &p->njobs);
		else
			status = client_option(&p->c, option, argv);
	}
	if (!status && argc - optind < 2)
		return cmd_usage("put", argc == optind ? "which file, and where to?" :
							 "where to? Try: HOST:/path");
	return status;
}

static int check_local(char **words, int n)
{
	int stdins = 0;

	for (int i = 0; i < n; i++) {
		stdins += !strcmp(words[i], "-");
		if (client_is_remote(words[i]) && access(words[i], F_OK) < 0)
			return cmd_usage("put", "\"%s\" is on a node, and what is put is here. Try: "
					 "slicefs get, slicefs mv", words[i]);
	}
	return stdins > 1 ? cmd_usage("put", "standard input has one end only") : EXIT_DONE;
}

int cmd_put(int argc, char **argv)
{
	struct put p = { 0 };
	const char *path;

	client_init(&p.c, "put", false);
	p.c.by = ENGINE_AUTO;
	p.s.c = &p.c;
	p.s.umask = umask(0);
	umask(p.s.umask);
	int status = parse(&p, argc, argv);
	char **words = argv + optind;
	int n = argc - optind - 1;
	if (!status)
		status = client_take(&p.c, words[n], &path);
	if (!status)
		status = check_local(words, n);
	if (!status)
		status = client_open(&p.c);
	if (status)
		return status;
	p.jobs = jobs_new(p.njobs);
	status = p.jobs ? put_words(&p, words, n, path, words[n]) :
			  cmd_fail(EXIT_FAILED, "put", "cannot start threads");
	int s = jobs_end(p.jobs);
	status = keep_times(&p, s ? s : status);
	client_close(&p.c);
	return status;
}
