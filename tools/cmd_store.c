/* SPDX-License-Identifier: Apache-2.0 */
/* slicefs store ls|rm: the memory that stores of this user take. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/engine.h"
#include "tools/cmd.h"
#include "tools/output.h"
#include "tools/stores.h"

void cmd_store_help(void)
{
	printf("  ls [--json]  name, state, sizes, daemon, and where it is served\n"
	       "  rm NAME...   give a stopped store's memory back: its objects are gone\n");
}

static const char *state_name(const struct store_stat *st)
{
	static const char *const names[] = { "none", "stopped", "running", "damaged" };

	return *st->serves ? "serving" : names[st->state];
}

static int add_row(const char *name, const char *dir, void *arg)
{
	struct table *t = arg;
	struct store_stat st;

	if (engine_store_stat(dir, &st) < 0)
		return 0;
	table_row(t);
	table_str(t, name);
	table_str(t, state_name(&st));
	table_size(t, st.pool_bytes);
	table_size(t, st.index_bytes);
	table_int(t, st.state == STORE_RUNNING ? (int64_t)st.pid : 0);
	if (*st.serves)
		table_str(t, st.serves);
	else
		table_none(t);
	return 0;
}

static int store_ls(bool json)
{
	struct table t;

	table_init(&t, (const char *const[]){ "store", "state", "pool", "index", "pid", "at",
					       NULL });
	int r = stores_each(add_row, &t);
	if (r < 0)
		cmd_fail(EXIT_FAILED, "store", "cannot list stores: %s", strerror(-r));
	else
		table_print(&t, json);
	table_fini(&t);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

static int store_rm(const char *name)
{
	char dir[PATH_MAX];
	struct store_stat st;

	stores_dir(name, dir);
	int r = engine_store_remove(dir, true);
	if (r == -ENOENT)
		return cmd_fail(EXIT_FAILED, "store", "%s: no such store. Try: slicefs store ls",
				name);
	if (r == -EBUSY && engine_store_stat(dir, &st) == 0 && *st.serves)
		return cmd_fail(EXIT_FAILED, "store", "%s: process %d serves it at %s. Try: kill %d, "
				"which ends it in order", name, (int)st.pid, st.serves,
				(int)st.pid);
	if (r == -EBUSY)
		return cmd_fail(EXIT_FAILED, "store",
				"%s: it is mounted. Try: slicefs umount --discard DIR", name);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "store", "%s: cannot remove: %s", name,
				strerror(-r));
	return EXIT_DONE;
}

/* Before any is gone. */
static int check_names(char **names)
{
	for (; *names; names++)
		if (!stores_name_ok(*names))
			return cmd_usage("store", "\"%s\" is no store's name: letters, digits, '.', "
					 "'_' and '-', at most %d", *names, STORES_NAME_MAX);
	return EXIT_DONE;
}

int cmd_store(int argc, char **argv)
{
	int status = EXIT_DONE;

	if (argc >= 2 && !strcmp(argv[1], "ls")) {
		bool json = argc == 3 && !strcmp(argv[2], "--json");
		if (argc > 3 || (argc == 3 && !json))
			return cmd_usage("store", "ls takes --json and nothing else");
		return store_ls(json);
	}
	if (argc >= 2 && !strcmp(argv[1], "rm")) {
		if (argc == 2)
			return cmd_usage("store", "rm: which store?");
		status = check_names(argv + 2);
		if (status)
			return status;
		for (int i = 2; i < argc; i++) {
			int s = store_rm(argv[i]);
			status = s ? s : status;
		}
		return status;
	}
	return cmd_usage("store", "ls, or rm NAME?");
}
