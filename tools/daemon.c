/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the foreground the two processes only change parts, so that the shell's child is
 * the daemon.
 *
 * Threads: none before the fork; then those of who works.
 */
#include "tools/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "tools/cmd.h"

int daemon_absolute(const char *cmd, struct config *c, const char *setting, const char *path)
{
	char whole[PATH_MAX];

	if (!*path || *path == '/')
		return EXIT_DONE;
	_cleanup_(freep) char *cwd = getcwd(NULL, 0);
	if (!cwd)
		return cmd_fail(EXIT_FAILED, cmd, "%s %s: working directory: %s", setting, path,
				strerror(errno));
	int n = snprintf(whole, sizeof(whole), "%s/%s", cwd, path);
	if (n >= (int)sizeof(whole) || config_set(c, setting, whole, NULL) < 0)
		return cmd_fail(EXIT_FAILED, cmd, "%s %s: its path is too long, or has bytes "
				"that do not print", setting, path);
	return EXIT_DONE;
}

int daemon_rdma(const char *cmd, const struct config *c, struct engine_rdma *ret)
{
	char *end = c->gid_index;
	unsigned long gid = strtoul(c->gid_index, &end, 10);

	if (*end || gid > UINT16_MAX || strspn(c->gid_index, "+- \t"))
		return cmd_fail(EXIT_USAGE, cmd, "gid-index \"%s\": not a number. Try: 3, or "
				"without it", c->gid_index);
	*ret = (struct engine_rdma){
		.by = (enum engine_bytes_by)c->transport,
		.device = *c->rdma_device ? c->rdma_device : NULL,
		.gid_given = *c->gid_index, .gid_index = (int)gid,
	};
	return EXIT_DONE;
}

/* ---- The daemon ----------------------------------------------------------- */

/* One message to who waits: status, then the text up to the end of the pipe. */
static int report(struct daemon *d, int status, const char *text)
{
	unsigned char s = (unsigned char)status;

	if (d->pipe >= 0 && write(d->pipe, &s, 1) == 1 && text)
		(void)!write(d->pipe, text, strlen(text));
	if (d->pipe >= 0)
		close(d->pipe);
	d->pipe = -1;
	return status;
}

void daemon_ready(struct daemon *d, const char *said)
{
	report(d, EXIT_DONE, said);
}

int daemon_fail(struct daemon *d, int err, const char *why)
{
	d->why = strdup(why ? why : strerror(-err));
	return EXIT_FAILED;
}

static bool wants_huge(const struct config *c)
{
	return c->huge == CONFIG_HUGE_ON || (c->huge == CONFIG_HUGE_AUTO && geteuid() == 0);
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

static int open_log(struct daemon *d)
{
	const struct config *c = d->config;
	_cleanup_(freep) char *why = NULL;
	int r = *c->log ? log_open(c->log) : 0;

	log_set_level((enum log_level)c->log_level);
	if (r == 0)
		return EXIT_DONE;
	if (asprintf(&why, "log %s: %s. Try: --log syslog", c->log, strerror(-r)) < 0)
		why = NULL;
	return daemon_fail(d, r, why);
}

/* Where nothing is evicted for want of room, a name says too little to lose a file for. */
static uint32_t temp_s(const struct config *c)
{
	bool wanted = c->evict_high || config_given(c, CONFIG_temp_ms);

	return wanted ? (uint32_t)((c->temp_ms + 999) / 1000) : 0;
}

static bool store_is_there(const struct daemon *d)
{
	struct store_stat st;

	return d->node || (engine_store_stat(d->store, &st) == 0 && st.state != STORE_NONE);
}

/* Who has asked for it may have been killed meanwhile, and does not want it any more. */
static bool is_awaited(struct daemon *d)
{
	struct pollfd p = { .fd = d->pipe, .events = POLLOUT };

	if (d->pipe < 0 || poll(&p, 1, 0) < 1 || !(p.revents & POLLERR))
		return true;
	log_warn("daemon", "%s: who waited for it has gone: it ends", d->what);
	close(d->pipe);
	d->pipe = -1;
	return false;
}

/* A store that was made for nothing goes again. */
static int work(struct daemon *d)
{
	const struct config *c = d->config;
	_cleanup_(freep) char *why = NULL;
	struct engine *e;
	bool there = store_is_there(d);

	keep_memory();
	if (open_log(d) != EXIT_DONE)
		return EXIT_FAILED;
	struct engine_opts o = {
		.dir = d->store,
		/* What was not asked for stays as it is in a store that exists. */
		.pool_bytes = config_given(c, CONFIG_pool_size_bytes) ? c->pool_size_bytes : 0,
		.index_bytes = config_given(c, CONFIG_index_size_bytes) ? c->index_size_bytes : 0,
		.huge = wants_huge(c),
		.fresh = c->fresh,
		.verify = c->verify,
		.evict_high = c->evict_high,
		.evict_low = c->evict_low,
		.temp_s = temp_s(c),
		.evict_dirs_ms = c->evict_dirs_ms,
		.ssd = *c->ssd ? c->ssd : NULL,
		.ssd_bytes = c->ssd_size_bytes,
		.ssd_wait_ms = (uint32_t)c->ssd_wait_ms,
		.node = d->node,
		.token_file = *c->token_file ? c->token_file : NULL,
		.name = d->what,
		.timeout_ms = (uint32_t)c->timeout_ms,
		.rdma = d->rdma,
		.only_reads = d->node && c->read_only,
	};
	int r = engine_open(&o, &e, &why);
	if (r < 0)
		return daemon_fail(d, r, why);
	int status = is_awaited(d) ? d->work(d, e) :
				     daemon_fail(d, -EPIPE, "who waited for it has gone");
	engine_close(e);
	/* Its memory, that is: what is on its disk may be all that a reboot has left. */
	if (d->why && !there)
		engine_store_remove(d->store, false);
	return status;
}

/* What the caller had open is not ours to keep open, but for who waits for us. */
static void close_others(struct daemon *d)
{
	int kept = dup2(d->pipe, STDERR_FILENO + 1);

	if (kept < 0)
		_exit(EXIT_FAILED);
	d->pipe = kept;
	fcntl(kept, F_SETFD, FD_CLOEXEC);
	close_range((unsigned)kept + 1, ~0U, 0);
}

static void become_daemon(struct daemon *d)
{
	const struct config *c = d->config;
	int null;

	close_others(d);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
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

struct daemon_sizes daemon_sizes(const struct daemon *d)
{
	struct daemon_sizes text = { "" };
	struct store_stat st;

	if (!d->node && engine_store_stat(d->store, &st) == 0)
		snprintf(text.s, sizeof(text.s), " (pool %s, index %s)",
			 size_column(st.pool_bytes).s, size_column(st.index_bytes).s);
	return text;
}

static int await(const struct daemon *d, int fd)
{
	unsigned char status;
	char text[2048];
	size_t n = 0;
	ssize_t got;

	do {
		got = read(fd, &status, 1);
	} while (got < 0 && errno == EINTR);
	if (got != 1)
		return cmd_fail(EXIT_FAILED, d->cmd, "%s: the daemon ended without a word. "
				"Try: slicefs %s", d->what, d->again);
	while (n < sizeof(text) - 1 && (got = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)got;
	text[n] = '\0';
	if (status != EXIT_DONE)
		return cmd_fail(status, d->cmd, "%s", text);
	return d->ready(d, text);
}

/* In the foreground the daemon is the shell's child, and who waits is a
 * grandchild, so that the daemon has nobody to reap. */
static void await_aside(const struct daemon *d, int fd)
{
	if (d->config->foreground) {
		pid_t pid = fork();
		if (pid != 0)
			_exit(pid < 0 ? EXIT_FAILED : EXIT_DONE);
		_exit(await(d, fd));
	}
}

int daemon_run(struct daemon *d)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return cmd_fail(EXIT_FAILED, d->cmd, "pipe: %s", strerror(errno));
	fflush(NULL);
	bool foreground = d->config->foreground;
	pid_t pid = fork();
	if (pid < 0)
		return cmd_fail(EXIT_FAILED, d->cmd, "fork: %s", strerror(errno));
	if ((pid == 0) == foreground) {
		close(fds[1]);
		await_aside(d, fds[0]);
		int status = await(d, fds[0]);
		close(fds[0]);
		return status;
	}
	close(fds[0]);
	d->pipe = fds[1];
	if (foreground)
		waitpid(pid, NULL, 0);
	else
		become_daemon(d);
	int status = work(d);
	exit(report(d, status, d->why));
}
