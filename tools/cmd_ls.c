/* SPDX-License-Identifier: Apache-2.0 */
/* slicefs ls: names in a node's tree, in order, one a line. */
#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/error.h"
#include "tools/client.h"
#include "tools/cmd.h"
#include "tools/output.h"

struct ls {
	struct client c;
	bool is_long, recursive, folders_only, json;
	json_t *all;
	unsigned nwords;
	bool has_printed;
};

struct row {
	char *name, *target; /* target: what a link says, or NULL */
	struct attr attr;
	struct place place;
};

struct rows {
	struct row *v;
	size_t n, cap;
};

void cmd_ls_help(void)
{
	printf("  -l               mode, links, owner, group, size, time, name\n"
	       "  -R, --recursive  folders with all that is in them\n"
	       "  -d, --directory  folders themselves, rather than what is in them\n"
	       "  --json           an array with an object for each name\n");
	client_help();
}

static void rows_fini(struct rows *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->v[i].name);
		free(s->v[i].target);
	}
	free(s->v);
}

static int add_row(struct rows *s, const char *name, const struct attr *a, struct place place)
{
	char *copy = strdup(name);

	if (!copy || array_room(s->v, s->cap, s->n + 1, 64) < 0) {
		free(copy);
		return -ENOMEM;
	}
	s->v[s->n++] = (struct row){ .name = copy, .attr = *a, .place = place };
	return 0;
}

static int add_entry(void *arg, const struct entry *e)
{
	return e->draft ? 0 : add_row(arg, e->name, &e->attr, e->place);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

/* ---- Printing ---------------------------------------------------------------- */

static char type_of(mode_t mode)
{
	return S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : S_ISCHR(mode) ? 'c' :
	       S_ISBLK(mode) ? 'b' : S_ISFIFO(mode) ? 'p' : S_ISSOCK(mode) ? 's' : '-';
}

static void mode_text(mode_t mode, char ret[11])
{
	ret[0] = type_of(mode);
	for (int i = 0; i < 9; i++)
		ret[1 + i] = mode >> (8 - i) & 1 ? "rwx"[i % 3] : '-';
	if (mode & S_ISUID)
		ret[3] = mode & S_IXUSR ? 's' : 'S';
	if (mode & S_ISGID)
		ret[6] = mode & S_IXGRP ? 's' : 'S';
	if (mode & S_ISVTX)
		ret[9] = mode & S_IXOTH ? 't' : 'T';
	ret[10] = '\0';
}

static void print_owner(const char *name, uint32_t id)
{
	if (name)
		printf("%-8s ", name);
	else
		printf("%-8u ", id);
}

static void print_long(const struct row *r)
{
	const struct attr *a = &r->attr;
	struct passwd *u = getpwuid(a->uid);
	char mode[11], time[32];
	struct tm tm;

	mode_text(a->mode, mode);
	printf("%s %3u ", mode, a->nlink);
	print_owner(u ? u->pw_name : NULL, a->uid);
	struct group *g = getgrgid(a->gid);
	print_owner(g ? g->gr_name : NULL, a->gid);
	if (localtime_r(&a->mtime.tv_sec, &tm)) /* not of a year that has no number */
		strftime(time, sizeof(time), "%Y-%m-%d %H:%M:%S", &tm);
	else
		snprintf(time, sizeof(time), "%lld", (long long)a->mtime.tv_sec);
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode))
		printf("%5u, %4u %s ", major(a->rdev), minor(a->rdev), time);
	else
		printf("%11llu %s ", (unsigned long long)a->size, time);
}

static const char *type_name(mode_t mode)
{
	switch (type_of(mode)) {
	case 'd':
		return "directory";
	case 'l':
		return "link";
	case '-':
		return "file";
	default:
		return "special";
	}
}

static void add_json(struct ls *l, const struct row *r, const char *shown)
{
	const struct attr *a = &r->attr;
	char mode[8];
	json_t *o = json_object();

	snprintf(mode, sizeof(mode), "%04o", a->mode & 07777);
	json_object_set_new(o, "path", json_text(shown, strlen(shown)));
	json_object_set_new(o, "type", json_string(type_name(a->mode)));
	json_object_set_new(o, "mode", json_string(mode));
	json_object_set_new(o, "links", json_integer(a->nlink));
	json_object_set_new(o, "uid", json_integer(a->uid));
	json_object_set_new(o, "gid", json_integer(a->gid));
	json_object_set_new(o, "size", json_integer((json_int_t)a->size));
	json_object_set_new(o, "mtime", json_real((double)a->mtime.tv_sec +
						  (double)a->mtime.tv_nsec / 1e9));
	json_object_set_new(o, "version", json_integer((json_int_t)a->version));
	json_object_set_new(o, "object", json_integer((json_int_t)a->fileid));
	if (r->target)
		json_object_set_new(o, "target", json_text(r->target, strlen(r->target)));
	json_array_append_new(l->all, o);
}

static void print_row(struct ls *l, const struct row *r, const char *shown)
{
	l->has_printed = true;
	if (l->json) {
		add_json(l, r, shown);
		return;
	}
	if (l->is_long)
		print_long(r);
	print_name(r->name);
	if (l->is_long && r->target) {
		fputs(" -> ", stdout);
		print_name(r->target);
	}
	putchar('\n');
}

/* ---- Listing ----------------------------------------------------------------- */

static int read_target(struct ls *l, struct row *r)
{
	return (l->is_long || l->json) && S_ISLNK(r->attr.mode) ?
		       client_link(&l->c, &r->attr, r->place, &r->target) : 0;
}

static int list_folder(struct ls *l, uint64_t dir, const char *shown);

static int print_rows(struct ls *l, struct rows *s, const char *shown)
{
	int status = EXIT_DONE;

	for (size_t i = 0; i < s->n; i++) {
		_cleanup_(freep) char *path = client_join(shown, s->v[i].name);
		int r = path ? read_target(l, &s->v[i]) : -ENOMEM;
		if (r == -ENOENT) /* unlinked since it was listed */
			continue;
		if (r < 0)
			return client_fail(&l->c, r, path ? path : shown);
		print_row(l, &s->v[i], path);
	}
	for (size_t i = 0; l->recursive && i < s->n; i++) {
		_cleanup_(freep) char *path = client_join(shown, s->v[i].name);
		if (!path || !S_ISDIR(s->v[i].attr.mode))
			continue;
		int st = list_folder(l, s->v[i].attr.fileid, path);
		status = st ? st : status;
	}
	return status;
}

static int list_folder(struct ls *l, uint64_t dir, const char *shown)
{
	bool plus = l->is_long || l->json;
	struct rows s = { 0 };

	if ((l->recursive || l->nwords > 1) && !l->json) {
		if (l->has_printed)
			putchar('\n');
		print_name(shown);
		fputs(":\n", stdout);
		l->has_printed = true;
	}
	int r = client_list(&l->c, dir, plus, add_entry, &s);
	if (s.n)
		qsort(s.v, s.n, sizeof(*s.v), by_name);
	int status = r < 0 ? client_fail(&l->c, r, shown) : print_rows(l, &s, shown);
	rows_fini(&s);
	return status;
}

/* A link stands for the folder that it leads to, unless it is to be shown itself. */
static int list_word(struct ls *l, const char *word)
{
	const char *path = strchr(word, '/');
	struct found at;
	int r = client_find(&l->c, INDEX_ROOT, path, !l->folders_only && !l->is_long, &at);

	if (!r && !at.is_there)
		r = -ENOENT;
	if (r < 0)
		return client_fail(&l->c, r, word);
	if (S_ISDIR(at.attr.mode) && !l->folders_only)
		return list_folder(l, at.attr.fileid, word);
	struct row row = { .name = (char *)word, .attr = at.attr, .place = at.place };
	r = read_target(l, &row);
	if (r < 0)
		return client_fail(&l->c, r, word);
	print_row(l, &row, word);
	free(row.target);
	return EXIT_DONE;
}

static int list_words(struct ls *l, char **words)
{
	int status = EXIT_DONE;

	l->all = json_array();
	for (unsigned i = 0; i < l->nwords; i++) {
		int s = list_word(l, words[i]);
		status = s ? s : status;
	}
	if (l->json) {
		json_dumpf(l->all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
		putchar('\n');
	}
	json_decref(l->all);
	return status;
}

static int parse(struct ls *l, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "recursive", no_argument, NULL, 'R' }, { "directory", no_argument, NULL, 'd' },
		{ "json", no_argument, NULL, CLIENT_MORE }, CLIENT_OPTIONS, { 0 },
	};
	const char *path;
	int option, status = EXIT_DONE;

	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":lRd", longs, NULL)) != -1) {
		if (option == 'l')
			l->is_long = true;
		else if (option == 'R')
			l->recursive = true;
		else if (option == 'd')
			l->folders_only = true;
		else if (option == CLIENT_MORE)
			l->json = true;
		else
			status = client_option(&l->c, option, argv);
	}
	if (!status && optind == argc)
		return cmd_usage("ls", "which folder? Try: HOST:/");
	for (int i = optind; !status && i < argc; i++)
		status = client_take(&l->c, argv[i], &path);
	return status;
}

int cmd_ls(int argc, char **argv)
{
	struct ls l = { 0 };

	client_init(&l.c, "ls", true);
	int status = parse(&l, argc, argv);
	l.nwords = (unsigned)(argc - optind);
	if (!status)
		status = client_open(&l.c);
	if (status)
		return status;
	status = list_words(&l, argv + optind);
	client_close(&l.c);
	return status;
}
