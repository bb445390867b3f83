/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs mount: forks before anything is opened. One process becomes the
 * daemon: it opens the store, mounts and serves. The other waits on a pipe for
 * its word, then for the answer to a first statfs through the mount, and says
 * so; or passes on the daemon's reason and status. In the foreground the two
 * only change parts, so that the shell's child is the daemon.
 *
 * mount(8) runs it as mount.slicefs, in words of its own: as_helper().
 *
 * Threads: none before the fork; then those of engine/ and fs/.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/log.h"
#include "common/size.h"
#include "engine/engine.h"
#include "fs/fs.h"
#include "tools/cmd.h"
#include "tools/mounts.h"
#include "tools/output.h"
#include "tools/stores.h"

enum { PROBE_MS = 10000 };

struct mounting {
	struct config config;
	char dir[PATH_MAX];
	char store_name[STORES_NAME_MAX + 1];
	char store[PATH_MAX];
	int pipe; /* the daemon's end: one line when it is done or has failed */
	char *why; /* what has failed, until that is told */
	bool helper;     /* run by mount(8) */
	bool check_only;
};

void cmd_mount_help(void)
{
	struct writer w = { 0 };

	config_print_help(&w);
	print_writer(&w);
	writer_fini(&w);
}

/* ---- What is wanted, and whether it can be -------------------------------- */

static int check_source(const char *source, struct mounting *m)
{
	if (!source || !strcmp(source, "slicefs") || !strcmp(source, "none"))
		return EXIT_DONE;
	if (strstr(source, "://") || strchr(source, ':'))
		return cmd_fail(EXIT_USAGE, "mount",
				"%s: this version mounts stores of its own host only, no node and "
				"no cluster. Try: slicefs mount DIR", source);
	if (!stores_name_ok(source))
		return cmd_fail(EXIT_USAGE, "mount",
				"\"%s\" is no store's name: letters, digits, '.', '_' and '-', at "
				"most %d. Try: slicefs mount DIR", source, STORES_NAME_MAX);
	if (config_given(&m->config, CONFIG_store) && strcmp(m->config.store, source))
		return cmd_fail(EXIT_USAGE, "mount",
				"two stores are named: %s and %s. Try: one of them", source,
				m->config.store);
	snprintf(m->store_name, sizeof(m->store_name), "%s", source);
	return EXIT_DONE;
}

static int choose_store(const char *source, struct mounting *m)
{
	int status = check_source(source, m);

	if (status)
		return status;
	if (*m->config.store) {
		if (!stores_name_ok(m->config.store))
			return cmd_fail(EXIT_USAGE, "mount",
					"store \"%s\": letters, digits, '.', '_' and '-', at most "
					"%d, not beginning with '.'", m->config.store,
					STORES_NAME_MAX);
		snprintf(m->store_name, sizeof(m->store_name), "%s", m->config.store);
	}
	if (!*m->store_name)
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

/* The daemon has another working directory. */
static int make_log_absolute(struct mounting *m)
{
	const char *log = m->config.log;
	char path[PATH_MAX];

	if (!*log || *log == '/' || !strcmp(log, "syslog"))
		return EXIT_DONE;
	_cleanup_(freep) char *cwd = getcwd(NULL, 0);
	if (!cwd)
		return cmd_fail(EXIT_FAILED, "mount", "log %s: working directory: %s", log,
				strerror(errno));
	int n = snprintf(path, sizeof(path), "%s/%s", cwd, log);
	if (n >= (int)sizeof(path) || config_set(&m->config, "log", path, NULL) < 0)
		return cmd_fail(EXIT_FAILED, "mount", "log %s: its path is too long, or has bytes "
				"that do not print", log);
	return EXIT_DONE;
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

static int make_stores_root(void)
{
	char root[64];
	int r = stores_root_make();

	stores_root(root, sizeof(root));
	if (r == -EPERM)
		return cmd_fail(EXIT_FAILED, "mount",
				"%s: not a folder that is this user's and that nobody else may "
				"write to. Try: as root: mv %s %s.away", root, root, root);
	return r < 0 ? cmd_fail(EXIT_FAILED, "mount", "%s: cannot be made: %s", root,
				strerror(-r)) : EXIT_DONE;
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
	return status ? status : make_stores_root();
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
		cmd_mount_help();
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
	int status = make_log_absolute(m);
	if (!status)
		status = choose_store(source, m);
	return status ? status : m->check_only ? -1 : make_ready(m);
}

/* ---- The daemon ----------------------------------------------------------- */

/* One message to who waits: status, then the text up to the end of the pipe. */
static int report(struct mounting *m, int status, const char *text)
{
	unsigned char s = (unsigned char)status;

	if (m->pipe >= 0 && write(m->pipe, &s, 1) == 1 && text)
		(void)!write(m->pipe, text, strlen(text));
	if (m->pipe >= 0)
		close(m->pipe);
	m->pipe = -1;
	return status;
}

/* To be told when all has been put back as it was. */
static int fail_why(struct mounting *m, int err, const char *why)
{
	m->why = strdup(why ? why : strerror(-err));
	return EXIT_FAILED;
}

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

static bool wants_huge(const struct config *c)
{
	return c->huge == CONFIG_HUGE_ON || (c->huge == CONFIG_HUGE_AUTO && geteuid() == 0);
}

static int run_fs(struct mounting *m, struct engine *e)
{
	const struct config *c = &m->config;
	_cleanup_(freep) char *why = NULL;
	_cleanup_(freep) char *options = NULL;
	struct writer text = { 0 };
	struct fs *fs;

	config_print(c, &text);
	write_u8(&text, 0);
	int r = config_mount_options(c, geteuid() == 0, &options);
	if (r < 0 || text.bad)
		return fail_why(m, -ENOMEM, NULL);
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
		.direct_from_bytes = c->direct_from_bytes,
	};
	r = fs_mount_told(e, &o, &fs, &why);
	if (r < 0) {
		writer_fini(&text);
		return fail_why(m, r, why);
	}
	catch_signals(fs);
	report(m, EXIT_DONE, NULL);
	r = fs_run(fs);
	if (r < 0)
		log_error("mount", "%s: serving ended: %s", m->dir, strerror(-r));
	serving = NULL;
	fs_free(fs);
	writer_fini(&text);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

/*
 * glibc would give memory back to the kernel, and fault it in again, with every
 * publish of a file in many extents: keep some instead.
 */
static void keep_memory(void)
{
	mallopt(M_TRIM_THRESHOLD, 16 << 20);
	mallopt(M_MMAP_THRESHOLD, 16 << 20);
}

static int open_log(struct mounting *m)
{
	const struct config *c = &m->config;
	_cleanup_(freep) char *why = NULL;
	int r = *c->log ? log_open(c->log) : 0;

	log_set_level((enum log_level)c->log_level);
	if (r == 0)
		return EXIT_DONE;
	if (asprintf(&why, "log %s: %s. Try: --log syslog", c->log, strerror(-r)) < 0)
		why = NULL;
	return fail_why(m, r, why);
}

static bool store_is_there(const struct mounting *m)
{
	struct store_stat st;

	return engine_store_stat(m->store, &st) == 0 && st.state != STORE_NONE;
}

static int serve(struct mounting *m)
{
	const struct config *c = &m->config;
	_cleanup_(freep) char *why = NULL;
	struct engine *e;
	bool there = store_is_there(m);

	keep_memory();
	if (open_log(m) != EXIT_DONE)
		return EXIT_FAILED;
	struct engine_opts o = {
		.dir = m->store,
		/* What was not asked for stays as it is in a store that exists. */
		.pool_bytes = config_given(c, CONFIG_pool_size_bytes) ? c->pool_size_bytes : 0,
		.index_bytes = config_given(c, CONFIG_index_size_bytes) ? c->index_size_bytes : 0,
		.huge = wants_huge(c),
		.fresh = c->fresh,
		.verify = c->verify,
	};
	int r = engine_open(&o, &e, &why);
	if (r < 0)
		return fail_why(m, r, why);
	int status = run_fs(m, e);
	engine_close(e);
	if (m->why && !there)
		engine_store_remove(m->store);
	return status;
}

static void become_daemon(const struct config *c)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	umask(0);
	if (chdir("/") < 0 || null < 0)
		_exit(EXIT_FAILED);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	if (!*c->log)
		log_open("syslog");
}

/* ---- Who waits for it ----------------------------------------------------- */

static void say_mounted(const struct mounting *m)
{
	struct store_stat st;

	if (engine_store_stat(m->store, &st) < 0)
		return;
	fprintf(stderr, "slicefs: %s is mounted on %s (pool %s, index %s)\n", m->store_name,
		m->dir, size_column(st.pool_bytes).s, size_column(st.index_bytes).s);
}

static int await(const struct mounting *m, int fd)
{
	unsigned char status;
	char text[2048];
	size_t n = 0;
	ssize_t got;

	do {
		got = read(fd, &status, 1);
	} while (got < 0 && errno == EINTR);
	if (got != 1)
		return cmd_fail(EXIT_FAILED, "mount", "%s: the daemon ended without a word. "
				"Try: slicefs mount --foreground %s", m->dir, m->dir);
	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	if (status != EXIT_DONE)
		return cmd_fail(status, "mount", "%s", text);
	int r = mounts_probe(m->dir, PROBE_MS);
	if (r < 0)
		return cmd_fail(EXIT_FAILED, "mount", "%s: mounted, but does not answer: %s. "
				"Try: slicefs umount --abort %s", m->dir, strerror(-r), m->dir);
	say_mounted(m);
	return EXIT_DONE;
}

/* In the foreground the daemon is the shell's child, and who waits is a
 * grandchild, so that the daemon has nobody to reap. */
static void await_aside(const struct mounting *m, int fd)
{
	if (m->config.foreground) {
		pid_t pid = fork();
		if (pid != 0)
			_exit(pid < 0 ? EXIT_FAILED : EXIT_DONE);
		_exit(await(m, fd));
	}
}

static int mount_it(struct mounting *m)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return cmd_fail(EXIT_FAILED, "mount", "pipe: %s", strerror(errno));
	fflush(NULL);
	bool foreground = m->config.foreground;
	pid_t pid = fork();
	if (pid < 0)
		return cmd_fail(EXIT_FAILED, "mount", "fork: %s", strerror(errno));
	if ((pid == 0) == foreground) {
		close(fds[1]);
		await_aside(m, fds[0]);
		int status = await(m, fds[0]);
		close(fds[0]);
		return status;
	}
	close(fds[0]);
	m->pipe = fds[1];
	if (foreground)
		waitpid(pid, NULL, 0);
	else
		become_daemon(&m->config);
	int status = serve(m);
	exit(report(m, status, m->why));
}

int cmd_mount(int argc, char **argv)
{
	struct mounting m = { .pipe = -1 };
	int status = EXIT_FAILED;

	if (config_init(&m.config) == 0) {
		status = prepare(argc, argv, &m);
		status = status < 0 ? EXIT_DONE : status ? status : mount_it(&m);
	}
	config_fini(&m.config);
	return status;
}
