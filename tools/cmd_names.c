/* SPDX-License-Identifier: Apache-2.0 */
/* slicefs rm, mkdir, mv: names in a node's tree. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "tools/client.h"
#include "tools/cmd.h"

struct names {
	struct client c;
	bool recursive, force, parents, no_clobber;
	mode_t umask;
};

/* ---- rm ---------------------------------------------------------------------- */

void cmd_rm_help(void)
{
	printf("  -r, --recursive  folders with all that is in them\n"
	       "  -f, --force      what is not there is no error\n");
	client_help();
}

/* index_unlink() or index_rmdir(). */
static int remove_name(struct names *x, uint64_t dir, const char *name,
		       void (*call)(struct index *ix, struct index_op *op))
{
	struct index_op op = { .parent = dir, .name = name };
	int r = client_index(&x->c, &op, call);

	if (!r)
		client_drop(&x->c, &op);
	index_op_fini(&op);
	return r;
}

static int remove_tree(struct names *x, uint64_t dir, const char *name, const struct attr *a,
		       const char *shown);

struct removal {
	struct names *x;
	uint64_t dir;
	const char *shown;
	int status;
};

static int remove_entry(void *arg, const struct entry *e)
{
	struct removal *m = arg;
	_cleanup_(freep) char *path = client_join(m->shown, e->name);

	if (!path)
		return -ENOMEM;
	int s = remove_tree(m->x, m->dir, e->name, &e->attr, path);
	m->status = s ? s : m->status;
	return 0;
}

/* What somebody else adds meanwhile makes the last step fail, and is not his loss. */
static int remove_tree(struct names *x, uint64_t dir, const char *name, const struct attr *a,
		       const char *shown)
{
	struct removal m = { .x = x, .dir = a->fileid, .shown = shown };
	bool is_dir = S_ISDIR(a->mode);
	int r = is_dir ? client_list(&x->c, a->fileid, false, remove_entry, &m) : 0;

	if (m.status)
		return m.status;
	if (r >= 0)
		r = remove_name(x, dir, name, is_dir ? index_rmdir : index_unlink);
	return r < 0 && r != -ENOENT ? client_fail(&x->c, r, shown) : EXIT_DONE;
}

static int remove_word(struct names *x, const char *word)
{
	struct found at;
	int r = client_find(&x->c, INDEX_ROOT, strchr(word, '/'), false, &at);

	if (!r && !at.is_there)
		r = -ENOENT;
	if (x->force && (r == -ENOENT || r == -ENOTDIR))
		return EXIT_DONE;
	if (r < 0)
		return client_fail(&x->c, r, word);
	if (!*at.name)
		return cmd_fail(EXIT_FAILED, "rm", "%s: the root, \".\" and \"..\" are not removed. "
				"Try: the names in it", word);
	if (S_ISDIR(at.attr.mode) && !x->recursive)
		return cmd_fail(EXIT_FAILED, "rm", "%s: is a directory. Try: slicefs rm -r", word);
	return remove_tree(x, at.parent, at.name, &at.attr, word);
}

/* ---- mkdir --------------------------------------------------------------------- */

void cmd_mkdir_help(void)
{
	printf("  -p, --parents  those above it, too, and it is no error if it is there\n");
	client_help();
}

static int make_dir(struct names *x, uint64_t parent, const char *name)
{
	struct index_op op = {
		.parent = parent, .name = name, .umask = x->umask,
		.attr = { .mode = S_IFDIR | 0777, .uid = geteuid(), .gid = getegid() },
	};
	int r = client_index(&x->c, &op, index_make);

	index_op_fini(&op);
	return r;
}

/* The folder that path names, made if it is missing. */
static int make_path(struct names *x, const char *path, bool is_last)
{
	struct found at;
	int r = client_find(&x->c, INDEX_ROOT, path, true, &at);

	if (!r && !at.is_there)
		r = make_dir(x, at.parent, at.name);
	else if (!r && x->parents)
		r = S_ISDIR(at.attr.mode) ? 0 : -ENOTDIR;
	else if (!r)
		r = -EEXIST;
	/* Somebody else was faster: as good. */
	return r == -EEXIST && (x->parents || !is_last) ? 0 : r;
}

static int make_parents(struct names *x, const char *path)
{
	_cleanup_(freep) char *part = strdup(path);
	int r = part ? 0 : -ENOMEM;

	for (char *at = part; !r && (at = strchr(at + 1, '/'));) {
		*at = '\0';
		r = make_path(x, part, false);
		*at = '/';
	}
	return r;
}

static int make_word(struct names *x, const char *word)
{
	const char *path = strchr(word, '/');
	int r = x->parents ? make_parents(x, path) : 0;

	if (!r)
		r = make_path(x, path, true);
	if (r == -EEXIST)
		return cmd_fail(EXIT_FAILED, "mkdir", "%s: is there already", word);
	return r < 0 ? client_fail(&x->c, r, word) : EXIT_DONE;
}

/* ---- mv ------------------------------------------------------------------------ */

void cmd_mv_help(void)
{
	printf("  -n, --no-clobber  leave what is there already as it is\n");
	client_help();
}

static int move_to(struct names *x, const struct found *from, uint64_t dir, const char *name,
		   const char *shown)
{
	struct index_op op = {
		.parent = from->parent, .name = from->name, .parent2 = dir, .name2 = name,
		.flags = x->no_clobber ? RENAME_NOREPLACE : 0,
	};
	int r = client_index(&x->c, &op, index_rename);

	if (!r)
		client_drop(&x->c, &op);
	index_op_fini(&op);
	if (r == -EEXIST && x->no_clobber)
		return EXIT_DONE;
	if (r == -EINVAL)
		return cmd_fail(EXIT_FAILED, "mv", "%s: cannot be moved into itself", shown);
	return r ? client_fail(&x->c, r, shown) : EXIT_DONE;
}

/* `last`: `to`, as the user wrote it. */
static int move_word(struct names *x, const char *word, const struct found *to, const char *last)
{
	bool into = to->is_there && S_ISDIR(to->attr.mode);
	struct found from;
	int r = client_find(&x->c, INDEX_ROOT, strchr(word, '/'), false, &from);

	if (!r && !from.is_there)
		r = -ENOENT;
	if (r < 0)
		return client_fail(&x->c, r, word);
	if (!*from.name)
		return cmd_fail(EXIT_FAILED, "mv", "%s: the root, \".\" and \"..\" are not "
				"moved", word);
	if (!into && last[strlen(last) - 1] == '/' && !S_ISDIR(from.attr.mode))
		return cmd_fail(EXIT_FAILED, "mv", "%s: no such folder. Try: slicefs mkdir -p %s",
				last, last);
	return into ? move_to(x, &from, to->attr.fileid, from.name, word) :
		      move_to(x, &from, to->parent, to->name, word);
}

static int move_words(struct names *x, char **words, int n)
{
	const char *last = words[n - 1];
	struct found to;
	int r = client_find(&x->c, INDEX_ROOT, strchr(last, '/'), true, &to);

	if (r < 0)
		return client_fail(&x->c, r, last);
	bool into = to.is_there && S_ISDIR(to.attr.mode);
	if (n > 2 && !into)
		return cmd_fail(EXIT_FAILED, "mv", "%s: no such folder, which several files need. "
				"Try: slicefs mkdir -p %s", last, last);
	int status = into ? client_check_names(&x->c, words, n - 1, NULL) : EXIT_DONE;
	if (status)
		return status;
	for (int i = 0; i < n - 1; i++) {
		int s = move_word(x, words[i], &to, last);
		status = s ? s : status;
	}
	return status;
}

/* ---- The commands ---------------------------------------------------------------- */

static int each_word(struct names *x, char **words, int n,
		     int (*fn)(struct names *x, const char *word))
{
	int status = EXIT_DONE;

	for (int i = 0; i < n; i++) {
		int s = fn(x, words[i]);
		status = s ? s : status;
	}
	return status;
}

/* Which of the letters in `takes` were given; then a session. Exit status. */
static int begin(struct names *x, const char *cmd, const char *takes, int least, int argc,
		 char **argv)
{
	static const struct option all[] = {
		{ "recursive", no_argument, NULL, 'r' }, { "force", no_argument, NULL, 'f' },
		{ "parents", no_argument, NULL, 'p' },	 { "no-clobber", no_argument, NULL, 'n' },
		CLIENT_OPTIONS, { 0 },
	};
	const char *path;
	int option, status = EXIT_DONE;

	client_init(&x->c, cmd, false);
	x->umask = umask(0);
	umask(x->umask);
	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, takes, all, NULL)) != -1) {
		bool mine = option < 256 && strchr(takes + 1, option) && option != '?' &&
			    option != ':';
		x->recursive |= mine && (option == 'r' || option == 'R');
		x->force |= mine && option == 'f';
		x->parents |= mine && option == 'p';
		x->no_clobber |= mine && option == 'n';
		if (!mine && option < 256 && option != '?' && option != ':')
			status = cmd_usage(cmd, "unknown option \"%s\"", argv[optind - 1]);
		else if (!mine)
			status = client_option(&x->c, option, argv);
	}
	if (!status && argc - optind < least)
		return cmd_usage(cmd, "%s", argc == optind ? "which one? Try: HOST:/path" :
							      "where to?");
	for (int i = optind; !status && i < argc; i++)
		status = client_take(&x->c, argv[i], &path);
	return status ? status : client_open(&x->c);
}

int cmd_rm(int argc, char **argv)
{
	struct names x = { 0 };
	int status = begin(&x, "rm", ":rRf", 1, argc, argv);

	if (!status)
		status = each_word(&x, argv + optind, argc - optind, remove_word);
	client_close(&x.c);
	return status;
}

int cmd_mkdir(int argc, char **argv)
{
	struct names x = { 0 };
	int status = begin(&x, "mkdir", ":p", 1, argc, argv);

	if (!status)
		status = each_word(&x, argv + optind, argc - optind, make_word);
	client_close(&x.c);
	return status;
}

int cmd_mv(int argc, char **argv)
{
	struct names x = { 0 };
	int status = begin(&x, "mv", ":n", 2, argc, argv);

	if (!status)
		status = move_words(&x, argv + optind, argc - optind);
	client_close(&x.c);
	return status;
}
