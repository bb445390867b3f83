/* SPDX-License-Identifier: Apache-2.0 */
/* tools/warm_list.c: which names a command copies, and none that is not below its source. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>

#include "common/cleanup.h"
#include "tools/client.h"
#include "tools/warm_list.h"

/* The one function of the client that is used; it needs a node for the others. */
char *client_join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static char top[] = "/tmp/slicefs-warm-list.XXXXXX";

static void make(const char *rel, bool folder)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), folder ? "mkdir -p '%s/%s'" : "touch '%s/%s'", top, rel);
	assert_int_equal(system(cmd), 0);
}

static int setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(top));
	make("a/b", true);
	make("a/f.o", false);
	make("a/b/g", false);
	make("f", false);
	return 0;
}

static int teardown(void **state)
{
	char cmd[256];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -r '%s'", top);
	return system(cmd);
}

static struct warm_list new_list(void)
{
	return (struct warm_list){ .root = strdup(top) };
}

struct seen {
	const struct warm_list *l;
	char text[512]; /* " a a/b ..."; with the error, if there is one */
};

static void see(void *arg, const char *rel, const struct stat *st, int err)
{
	struct seen *s = arg;
	size_t n = strlen(s->text);

	if (!st)
		snprintf(s->text + n, sizeof(s->text) - n, " %s(%d)", rel, -err);
	else
		snprintf(s->text + n, sizeof(s->text) - n, " %s", rel);
	if (st && S_ISDIR(st->st_mode))
		warm_list_folder(s->l, rel, see, s);
}

static bool has(const struct seen *s, const char *name)
{
	char with[64], all[600];

	snprintf(with, sizeof(with), " %s ", name);
	snprintf(all, sizeof(all), "%s ", s->text);
	return strstr(all, with);
}

static void test_all_but_what_is_excluded(void **state)
{
	char *excludes[] = { "*.o", "/a/b" };
	struct warm_list l = new_list();
	struct seen s = { .l = &l };
	struct stat st;

	(void)state;
	warm_list_folder(&l, "", see, &s);
	assert_true(has(&s, "a") && has(&s, "a/b") && has(&s, "a/b/g") && has(&s, "a/f.o") &&
		    has(&s, "f"));
	l.excludes = excludes;
	l.nexcludes = 2;
	s.text[0] = '\0';
	warm_list_folder(&l, "", see, &s);
	assert_true(has(&s, "a") && has(&s, "f"));
	assert_false(has(&s, "a/b") || has(&s, "a/b/g") || has(&s, "a/f.o"));
	/* By name, too, below what is excluded. */
	s.text[0] = '\0';
	warm_list_name(&l, "a/b/g", see, &s);
	warm_list_name(&l, "f", see, &s);
	assert_string_equal(s.text, " f");
	/* Nor does it go into where it copies to. */
	assert_int_equal(stat(top, &st), 0);
	l.nexcludes = 0;
	char *path = warm_path(&l, "a");
	assert_int_equal(stat(path, &st), 0);
	free(path);
	l.skip_dev = st.st_dev;
	l.skip_ino = st.st_ino;
	s.text[0] = '\0';
	warm_list_folder(&l, "", see, &s);
	assert_string_equal(s.text, " f");
	warm_list_fini(&l);
}

static void test_names_are_below_the_root(void **state)
{
	static const struct {
		const char *said, *is; /* NULL: refused; "": the root, which is no name */
	} cases[] = {
		{ "f", "f" }, { "./f", "f" }, { "a//b/", "a/b" }, { "a/./b/.", "a/b" },
		{ "...", "..." }, { ".x/..y", ".x/..y" }, { ".", "" }, { "./", "" }, { "", "" },
		{ "/f", NULL }, { "..", NULL }, { "../f", NULL }, { "a/../f", NULL },
		{ "a/..", NULL }, { "./..", NULL },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct warm_list l = new_list();
		int r = warm_list_add(&l, cases[i].said);
		assert_int_equal(r, cases[i].is ? 0 : -EINVAL);
		assert_int_equal(l.nnames, cases[i].is && *cases[i].is ? 1 : 0);
		if (l.nnames)
			assert_string_equal(l.names[0], cases[i].is);
		warm_list_fini(&l);
	}
}

static int read_text(struct warm_list *l, const char *text, size_t len, bool nul, char **ret_bad)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/list", top);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	fclose(f);
	int r = warm_list_read(l, path, nul, ret_bad);
	unlink(path);
	return r;
}

static void test_lists(void **state)
{
	static const char lines[] = "f\n\nwith space\nlast";
	static const char nuls[] = "new\nline\0f\0";
	struct warm_list l = new_list(), z = new_list(), none = new_list(), bad = new_list();
	char *said = NULL;

	(void)state;
	assert_int_equal(read_text(&l, lines, sizeof(lines) - 1, false, &said), 0);
	assert_int_equal(l.nnames, 3);
	assert_string_equal(l.names[1], "with space");
	assert_string_equal(l.names[2], "last");
	assert_int_equal(read_text(&z, nuls, sizeof(nuls) - 1, true, &said), 0);
	assert_int_equal(z.nnames, 2);
	assert_string_equal(z.names[0], "new\nline");
	/* A list of nothing is not all. */
	assert_int_equal(read_text(&none, "", 0, false, &said), 0);
	assert_int_equal(none.nnames, 0);
	assert_non_null(none.names);
	assert_int_equal(read_text(&bad, "f\n/etc/x\n", 9, false, &said), -EINVAL);
	assert_string_equal(said, "/etc/x");
	free(said);
	assert_int_equal(warm_list_read(&bad, "/no/such/list", false, &said), -ENOENT);
	warm_list_fini(&l);
	warm_list_fini(&z);
	warm_list_fini(&none);
	warm_list_fini(&bad);
}

static void test_many_names(void **state)
{
	struct warm_list l = new_list();
	char name[16];

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(warm_list_add(&l, name), 0);
	}
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(atoi(l.names[i]), i);
	warm_list_fini(&l);
}

static void test_what_cannot_be_looked_at(void **state)
{
	struct warm_list l = new_list();
	struct seen s = { .l = &l };

	(void)state;
	warm_list_name(&l, "none", see, &s);
	warm_list_folder(&l, "f", see, &s);
	warm_list_name(&l, "f/x", see, &s);
	assert_string_equal(s.text, " none(2) f(20) f/x(20)");
	warm_list_fini(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_but_what_is_excluded),
		cmocka_unit_test(test_names_are_below_the_root),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_what_cannot_be_looked_at),
	};

	return cmocka_run_group_tests_name("warm_list", tests, setup, teardown);
}
