/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs mount: a daemon (daemon.h) that mounts a store and serves it to the kernel.
 * Who waits for it waits for the answer to a first statfs through the mount, and says
 * so.
 *
 * mount(8) runs it as mount.slicefs, in words of its own: as_helper().
 *
 * Threads: none before the fork; then those of engine/ and fs/.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/log.h"
#include "engine/engine.h"
#include "fs/fs.h"
#include "tools/cmd.h"
#include "tools/daemon.h"
#include "tools/guard.h"
#include "tools/mounts.h"
#include "tools/output.h"
#include "tools/stores.h"

enum { PROBE_MS = 10000, NODE_NAME_MAX = 300 };

struct mounting {
	struct daemon daemon; /* first: work() and ready() get it */
	struct config config;
	char dir[PATH_MAX];
	char store_name[NODE_NAME_MAX]; /* or the node's */
	char store[PATH_MAX];
	char node[NODE_NAME_MAX]; /* "host:port", whose store it is; or "" */
	struct engine_rdma rdma;
	bool helper;     /* run by mount(8) */
	bool default_store; /* named after dir, since nobody named one */
	bool check_only;
};

static void help(bool often)
{
	struct writer w = { 0 };

	config_print_help(CONFIG_OF_MOUNT, often, &w);
	print_writer(&w);
	writer_fini(&w);
}

void cmd_mount_help(void)
{
	help(false);
}

static void help_often(void)
{
	help(true);
	printf("\nThose that are seldom needed: slicefs help mount\n");
}

/* ---- What is wanted, and whether it can be -------------------------------- */

static bool store_exists(const char *name)
{
	struct store_stat st;
	char dir[PATH_MAX];

	if (!stores_name_ok(name))
		return false;
	stores_dir(name, dir);
	return engine_store_stat(dir, &st) == 0 && st.state != STORE_NONE;
}

/* What is a store's of this host only: a node's store has the node's sizes, and is
 * the node's to begin anew. */
static const struct {
	enum config_id id;
	const char *name;
} own[] = {
	{ CONFIG_store, "store" },
	{ CONFIG_fresh, "fresh" },
	{ CONFIG_pool_size_bytes, "pool-size" },
	{ CONFIG_index_size_bytes, "index-size" },
	{ CONFIG_huge, "huge" },
	{ CONFIG_evict_high, "evict-high" },
	{ CONFIG_evict_low, "evict-low" },
	{ CONFIG_temp_ms, "temp-ttl" },
	{ CONFIG_evict_dirs_ms, "evict-dirs" },
	{ CONFIG_ssd, "ssd" },
	{ CONFIG_ssd_size_bytes, "ssd-size" },
	{ CONFIG_ssd_wait_ms, "ssd-wait" },
};

enum { NOWN = sizeof(own) / sizeof(own[0]) };

/* The first of these that was given, or NULL. */
static const char *own_setting(const struct config *c)
{
	for (size_t i = 0; i < NOWN; i++)
		if (config_given(c, own[i].id))
			return own[i].name;
	return NULL;
}

/*
 * With a colon it is a node; without, a store that is there, or one that is to be made
 * (options of a store say so, and that there is no host of that name), else a node.
 */
static bool is_node(const char *source, const struct mounting *m)
{
	if (strchr(source, ':') || *m->config.token_file || !stores_name_ok(source))
		return true;
	if (store_exists(source) || own_setting(&m->config))
		return false;
	return engine_node_resolves(source);
}

static int choose_node(const char *source, struct mounting *m)
{
	const char *given = own_setting(&m->config);

	if (given)
		return cmd_fail(EXIT_USAGE, "mount", "%s: is for a store of this host, and "
				"%s is a node. Try: without --%s, or slicefs serve --%s there",
				given, source, given, given);
	for (size_t i = 0; i < NOWN; i++)
		m->config.unused |= UINT64_C(1) << own[i].id;
	/* With its port, so that its name is never that of a store. */
	if (engine_node_name(source, m->node, sizeof(m->node)) < 0)
		return cmd_fail(EXIT_USAGE, "mount", "\"%s\" is neither a store nor a node. Try: a "
				"name of letters, digits, '.', '_' and '-', or HOST:PORT", source);
	snprintf(m->store_name, sizeof(m->store_name), "%s", m->node);
	return EXIT_DONE;
}

static int check_source(const char *source, struct mounting *m)
{
	if (!source || !strcmp(source, "slicefs") || !strcmp(source, "none"))
		return EXIT_DONE;
	if (strstr(source, "://"))
		return cmd_fail(EXIT_USAGE, "mount",
				"%s: this version mounts stores and nodes, and no cluster. "
				"Try: slicefs mount HOST:PORT DIR", source);
	if (is_node(source, m))
		return choose_node(source, m);
	if (config_given(&m->config, CONFIG_store) && strcmp(m->config.store, source))
		return cmd_fail(EXIT_USAGE, "mount",
				"two stores are named: %s and %s. Try: one of them", source,
				m->config.store);
	snprintf(m->store_name, sizeof(m->store_name), "%s", source);
	return EXIT_DONE;
}

/* What only a mount of a node has a use for. */
static int check_no_token(const struct mounting *m)
{
	return *m->node || !*m->config.token_file ? EXIT_DONE :
		       cmd_fail(EXIT_USAGE, "mount", "token-file: is for a node's store, and %s is "
				"to have one of this host. Try: without --token-file", m->dir);
}

static int choose_store(const char *source, struct mounting *m)
{
	int status = check_source(source, m);

	if (!status)
		status = check_no_token(m);
	if (status || *m->node)
		return status;
	if (*m->config.store) {
		if (!stores_name_ok(m->config.store))
			return cmd_fail(EXIT_USAGE, "mount",
					"store \"%s\": letters, digits, '.', '_' and '-', at most "
					"%d, not beginning with '.'", m->config.store,
					STORES_NAME_MAX);
		snprintf(m->store_name, sizeof(m->store_name), "%s", m->config.store);
	}
	m->default_store = !*m->store_name;
	if (m->default_store)
		stores_name_of_dir(m->dir, m->store_name);
	stores_dir(m->store_name, m->store);
	return EXIT_DONE;
}

/* The mount point of a daemon that died: only one that is ours is cleaned. -1: what
 * is wanted is there. mount -a cannot know that of fstab's "slicefs". */
static int clean_stale(const struct mounting *m)
{
	const char *dir = m->dir;
	struct mount_line line;

	if (!mounts_find(dir, &line))
		return EXIT_DONE;
	int dead = mounts_is_dead(dir, PROBE_MS);
	/* Whoever names nothing wants what was there, and not an empty store in its place. */
	if (dead > 0 && m->default_store && strcmp(line.source, m->store_name))
		return cmd_fail(EXIT_FAILED, "mount",
				"%s: what has ended there had %s. Try: slicefs mount %s %s, with its "
				"options; or, for another store: slicefs umount %s", dir, line.source,
				line.source, dir, dir);
	if (dead == 0 && m->helper && !strcmp(line.source, m->store_name))
		return -1;
	if (dead == 0)
		return cmd_fail(EXIT_FAILED, "mount",
				"%s: a slicefs is mounted there already (store %s). Try: slicefs "
				"status %s", dir, line.source, dir);
	if (dead < 0)
		return cmd_fail(EXIT_FAILED, "mount",
				"%s: a slicefs is mounted there and does not answer. Try: slicefs "
				"umount --abort %s", dir, dir);
	char *umount[] = { (char *)"umount", (char *)"--lazy", (char *)dir, NULL };
	int status = cmd_umount(3, umount);
	if (status == EXIT_DONE)
		fprintf(stderr, "slicefs: mount: %s: cleaned up after a slicefs that had ended "
				"(store %s)\n", dir, line.source);
	return status;
}

/* What slicefs itself needs and would not find any more below a mount on dir. */
static bool would_hide(const char *dir, const char *path)
{
	size_t n = strcmp(dir, "/") ? strlen(dir) : 0;

	return !strncmp(dir, path, n) && (path[n] == '/' || !path[n]);
}

static int check_hidden(const char *dir)
{
	char stores[64];

	stores_root(stores, sizeof(stores));
	const char *const needed[] = { "/proc", "/dev/fuse", "/sys/fs/fuse", stores };
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (would_hide(dir, needed[i]))
			return cmd_fail(EXIT_FAILED, "mount",
					"%s: a mount there would hide %s, which slicefs needs. "
					"Try: a directory of its own", dir, needed[i]);
	return EXIT_DONE;
}

static int check_dir(struct mounting *m)
{
	struct stat st;

	if (check_hidden(m->dir) != EXIT_DONE)
		return EXIT_FAILED;
	if (stat(m->dir, &st) < 0)
		return errno == ENOENT ?
			       cmd_fail(EXIT_FAILED, "mount", "%s: %s. Try: mkdir -p %s", m->dir,
					strerror(errno), m->dir) :
			       cmd_fail(EXIT_FAILED, "mount", "%s: %s", m->dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return cmd_fail(EXIT_FAILED, "mount",
				"%s: not a directory; a mount point has to be one", m->dir);
	if (geteuid() != 0 && access(m->dir, W_OK) < 0)
		return cmd_fail(EXIT_FAILED, "mount",
				"%s: %s: a user may mount only on a directory that he may write "
				"to. Try: sudo slicefs mount %s", m->dir, strerror(errno), m->dir);
	return EXIT_DONE;
}

static int check_device(void)
{
	if (access("/dev/fuse", R_OK | W_OK) == 0)
		return EXIT_DONE;
	return cmd_fail(EXIT_FAILED, "mount", "/dev/fuse: %s. Try: %s", strerror(errno),
			errno == ENOENT ? "modprobe fuse, or, in a container, --device /dev/fuse" :
					  "as root: chmod 666 /dev/fuse");
}

/* What fs_mount() would refuse is refused before there is a store. */
static int check_options(const struct mounting *m)
{
	_cleanup_(freep) char *options = NULL, *why = NULL;
	int r = config_mount_options(&m->config, geteuid() == 0, &options);

	if (r == 0) {
		struct fs_opts o = { .dir = m->dir, .source = m->store_name, .options = options };
		r = fs_check(&o, &why);
	}
	return r == 0 ? EXIT_DONE :
			cmd_fail(EXIT_FAILED, "mount", "%s", why ? why : strerror(-r));
}

/* The mount point, the device, the options, the folder of stores. */
static int make_ready(struct mounting *m)
{
	int status = clean_stale(m);

	if (!status)
		status = check_dir(m);
	if (!status)
		status = check_device();
	if (!status)
		status = check_options(m);
	return status || *m->node ? status : stores_root_make("mount");
}

/* mount(8) hands -n, -v and -f (check only) on. Takes them out of argv; its new
 * length. */
static int as_helper(int argc, char **argv, struct mounting *m)
{
	int n = 1;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-f"))
			m->check_only = true;
		else if (strcmp(argv[i], "-n") && strcmp(argv[i], "-v"))
			argv[n++] = argv[i];
		if (!strcmp(argv[i], "-o") && i + 1 < argc)
			argv[n++] = argv[++i];
	}
	return n;
}

static int prepare(int argc, char **argv, struct mounting *m)
{
	_cleanup_(freep) char *why = NULL;
	int n;

	m->helper = strcmp(argv[0], "mount") != 0;
	if (m->helper)
		argc = as_helper(argc, argv, m);
	int r = config_parse(&m->config, argc, argv, &n, &why);

	if (r == CONFIG_HELP) {
		printf("Usage: slicefs mount [OPTIONS] [SOURCE] DIR\n\n");
		help_often();
		return -1;
	}
	if (r < 0)
		return cmd_usage("mount", "%s", why ? why : strerror(-r));
	if (n < 2 || n > 3)
		return cmd_usage("mount", n < 2 ? "on which directory?" :
						  "one source and one directory at most");
	r = mounts_canonical(argv[n - 1], m->dir);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "mount", "%s: %s", argv[n - 1], strerror(-r));
	const char *source = n == 3 ? argv[1] : NULL;
	/* mount(8) makes it a path if there is such a file here: a checkout, say. */
	if (m->helper && source && *source == '/')
		source = strrchr(source, '/') + 1;
	int status = strcmp(m->config.log, "syslog") ?
			     daemon_absolute("mount", &m->config, "log", m->config.log) :
			     EXIT_DONE;
	if (!status)
		status = daemon_absolute("mount", &m->config, "token-file", m->config.token_file);
	if (!status)
		status = daemon_absolute("mount", &m->config, "ssd", m->config.ssd);
	if (!status)
		status = daemon_rdma("mount", &m->config, &m->rdma);
	if (!status)
		status = choose_store(source, m);
	return status ? status : m->check_only ? -1 : make_ready(m);
}

/* ---- The daemon ----------------------------------------------------------- */

static struct fs *serving; /* for the signal handler */

static void on_signal(int sig)
{
	(void)sig;
	if (serving)
		fs_stop(serving);
}

static void catch_signals(struct fs *fs)
{
	struct sigaction a = { .sa_handler = on_signal };

	serving = fs;
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGHUP, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Of another host's bytes what the page cache has is not fetched again. */
static uint64_t direct_from(const struct config *c, const struct engine *e)
{
	return engine_is_alone(e) || config_given(c, CONFIG_direct_from_bytes) ?
		       c->direct_from_bytes : 0;
}

/* Of what is made by way of this mount, where its directory says nothing. */
static struct keep keep_of(const struct config *c)
{
	return (struct keep){
		.pinned = c->pin ? KEEP_FOREVER : 0,
		.ttl = (uint32_t)((c->ttl_ms + 999) / 1000),
		.ttl_by_use = c->ttl_ms && c->ttl_from == CONFIG_TTL_FROM_USE,
		.priority = (int8_t)(c->priority - CONFIG_PRIORITY_NORMAL + KEEP_NORMAL),
	};
}

static int mount_and_serve(struct daemon *d, struct engine *e)
{
	const struct mounting *m = (const struct mounting *)d;
	const struct config *c = &m->config;
	_cleanup_(freep) char *why = NULL;
	_cleanup_(freep) char *options = NULL;
	struct writer text = { 0 };
	struct keep keep = keep_of(c);
	struct fs *fs;

	config_print(c, &text);
	write_u8(&text, 0);
	int r = config_mount_options(c, geteuid() == 0, &options);
	if (r < 0 || text.bad)
		return daemon_fail(d, -ENOMEM, NULL);
	struct fs_opts o = {
		.dir = m->dir,
		.source = m->store_name,
		.options = options,
		.threads = (unsigned)c->threads,
		.timeout_ms = (unsigned)c->timeout_ms,
		.read_only = c->read_only,
		.xattrs = c->xattrs,
		.noatime = c->noatime,
		.config = (const char *)text.p,
		.control = c->control,
		.spin_us = (unsigned)c->spin_us,
		.direct_from_bytes = direct_from(c, e),
		.cache_ms = c->cache_ms,
		.keep = &keep,
	};
	r = fs_mount_told(e, &o, &fs, &why);
	if (r < 0) {
		writer_fini(&text);
		return daemon_fail(d, r, why);
	}
	catch_signals(fs);
	r = guard_begin(m->dir);
	if (r < 0)
		log_debug("mount", "%s: no guard beside it: %s", m->dir, strerror(-r));
	daemon_ready(d, NULL);
	r = fs_run(fs);
	if (r < 0)
		log_error("mount", "%s: serving ended: %s", m->dir, strerror(-r));
	serving = NULL;
	fs_free(fs);
	writer_fini(&text);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

/* ---- Who waits for it ----------------------------------------------------- */

static int check_mounted(const struct daemon *d, const char *said)
{
	const struct mounting *m = (const struct mounting *)d;
	int r = mounts_probe(m->dir, PROBE_MS);

	(void)said;
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "mount", "%s: mounted, but does not answer: %s. "
				"Try: slicefs umount --abort %s", m->dir, strerror(-r), m->dir);
	fprintf(stderr, "slicefs: %s is mounted on %s%s\n", m->store_name, m->dir,
		daemon_sizes(d).s);
	return EXIT_DONE;
}

static int mount_it(struct mounting *m)
{
	_cleanup_(freep) char *again = NULL;

	if (asprintf(&again, "mount --foreground %s", m->dir) < 0)
		return cmd_fail(EXIT_FAILED, "mount", "%s: out of memory", m->dir);
	m->daemon = (struct daemon){
		.cmd = "mount", .what = m->dir, .again = again, .store = m->store,
		.node = *m->node ? m->node : NULL, .config = &m->config,
		.rdma = m->rdma, .work = mount_and_serve, .ready = check_mounted,
	};
	return daemon_run(&m->daemon);
}

int cmd_mount(int argc, char **argv)
{
	struct mounting m = { 0 };
	int status = EXIT_FAILED;

	if (config_init(&m.config, CONFIG_OF_MOUNT) == 0) {
		status = prepare(argc, argv, &m);
		status = status < 0 ? EXIT_DONE : status ? status : mount_it(&m);
	}
	config_fini(&m.config);
	return status;
}
