/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs serve: a daemon (daemon.h) that owns a store and serves it to mounts on
 * other machines; a node.
 *
 * The first SIGTERM or SIGINT lets nobody in any more and gives sessions some time to
 * finish; a second one ends the process where it stands, which is as safe as any kill:
 * what was published is in the store, and nothing else is kept anywhere.
 *
 * Threads: one that waits for a signal, and those of engine/. Handlers run in any.
 */
#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/engine.h"
#include "tools/cmd.h"
#include "tools/daemon.h"
#include "tools/notify.h"
#include "tools/output.h"
#include "tools/stores.h"

struct serving {
	struct daemon daemon; /* first: work() and ready() get it */
	struct config config;
	struct engine_rdma rdma;
	char store[PATH_MAX];
};

static void help(bool often)
{
	struct writer w = { 0 };

	config_print_help(CONFIG_OF_SERVE, often, &w);
	print_writer(&w);
	writer_fini(&w);
}

void cmd_serve_help(void)
{
	help(false);
}

static void help_often(void)
{
	help(true);
	printf("\nThose that are seldom needed: slicefs help serve\n");
}

static struct serve_opts opts_of(const struct serving *s)
{
	const struct config *c = &s->config;

	return (struct serve_opts){
		.listen = c->listen,
		.token_file = *c->token_file ? c->token_file : NULL,
		.insecure = c->insecure,
		.keep_alive_ms = (uint32_t)c->keep_alive_ms,
		.max_sessions = (uint32_t)c->max_sessions,
		.threads = (uint32_t)c->node_threads,
		.rdma = s->rdma,
	};
}

/* ---- What is wanted, and whether it can be -------------------------------- */

static int make_absolute(struct config *c)
{
	int status = strcmp(c->log, "syslog") ? daemon_absolute("serve", c, "log", c->log) :
						EXIT_DONE;

	if (!status)
		status = daemon_absolute("serve", c, "token-file", c->token_file);
	return status ? status : daemon_absolute("serve", c, "ssd", c->ssd);
}

/* A store that somebody uses is said to be in use, not its port. */
static int check_free(const struct serving *s)
{
	struct store_stat st;

	if (engine_store_await(s->store, &st) < 0 || st.state != STORE_RUNNING)
		return EXIT_DONE;
	if (!*st.serves)
		return cmd_fail(EXIT_FAILED, "serve", "store %s: in use by process %d, a mount or "
				"fsck. Try: slicefs status, or slicefs umount",
				s->config.node_store, (int)st.pid);
	return cmd_fail(EXIT_FAILED, "serve", "store %s: process %d serves it already, at %s. "
			"Try: kill %d, which ends it in order", s->config.node_store, (int)st.pid,
			st.serves, (int)st.pid);
}

/* What engine_serve() would refuse is refused before there is a store. */
static int check_opts(const struct serving *s)
{
	_cleanup_(freep) char *why = NULL;
	struct serve_opts o = opts_of(s);
	int r = engine_serve_check(&o, &why);

	return r < 0 ? cmd_fail(EXIT_FAILED, "serve", "%s", why ? why : strerror(-r)) : EXIT_DONE;
}

/* -1: nothing is left to do. */
static int prepare(int argc, char **argv, struct serving *s)
{
	_cleanup_(freep) char *why = NULL;
	int n, r = config_parse(&s->config, argc, argv, &n, &why);

	if (r == CONFIG_HELP) {
		printf("Usage: slicefs serve [OPTIONS]\n\n");
		help_often();
		return -1;
	}
	if (r < 0)
		return cmd_usage("serve", "%s", why ? why : strerror(-r));
	if (n > 1)
		return cmd_usage("serve", "\"%s\": it takes options only", argv[1]);
	const char *name = s->config.node_store;
	if (!stores_name_ok(name))
		return cmd_fail(EXIT_USAGE, "serve", "store \"%s\": letters, digits, '.', '_' and "
				"'-', at most %d, not beginning with '.'", name, STORES_NAME_MAX);
	stores_dir(name, s->store);
	int status = make_absolute(&s->config);
	if (!status)
		status = daemon_rdma("serve", &s->config, &s->rdma);
	if (!status)
		status = check_free(s);
	if (!status)
		status = check_opts(s);
	return status ? status : stores_root_make("serve");
}

/* ---- The daemon ----------------------------------------------------------- */

static sem_t told_to_end;

/* A terminal that goes may say SIGHUP more than once. */
static void on_signal(int sig)
{
	static atomic_bool told;

	if (atomic_exchange(&told, true) && sig != SIGHUP)
		_exit(EXIT_FAILED);
	sem_post(&told_to_end);
}

static void catch_signals(void)
{
	struct sigaction a = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

	sem_init(&told_to_end, 0, 0);
	sigaction(SIGTERM, &a, NULL);
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGHUP, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
}

enum { IDLE_MS = 3000 };

/* All sessions have ended: what is in flight now is a leak (P10), but for what the eviction has
 * begun: a slow disk takes its time. */
static void complain_if_busy(void)
{
	int64_t n;
	const char *name;

	for (unsigned ms = 0; (name = metrics_busy(&n)) && ms < IDLE_MS; ms += 10)
		usleep(10000);
	if (name)
		log_error("node", "in flight when all sessions have ended: %s %lld", name,
			  (long long)n);
}

static int serve(struct daemon *d, struct engine *e)
{
	const struct config *c = d->config;
	_cleanup_(freep) char *why = NULL;
	struct serve_opts o = opts_of((const struct serving *)d);
	char at[64];

	catch_signals();
	int r = engine_serve(e, &o, &why);
	if (r < 0)
		return daemon_fail(d, r, why);
	engine_serve_address(e, at);
	log_info("node", "store %s is served at %s", d->what, at);
	notify("READY=1\nSTATUS=store %s at %s\nMAINPID=%d", d->what, at, (int)getpid());
	daemon_ready(d, at);
	while (sem_wait(&told_to_end) < 0)
		;
	log_info("node", "store %s: told to end", d->what);
	notify("STOPPING=1\nSTATUS=waits up to %u s for sessions to finish",
	       (unsigned)(c->drain_ms / 1000));
	engine_serve_end(e, (uint32_t)c->drain_ms);
	complain_if_busy();
	return EXIT_DONE;
}

/* ---- Who waits for it ----------------------------------------------------- */

static int say_served(const struct daemon *d, const char *at)
{
	fprintf(stderr, "slicefs: node %s serves %s%s\n", d->what, at, daemon_sizes(d).s);
	return EXIT_DONE;
}

static int serve_it(struct serving *s)
{
	_cleanup_(freep) char *again = NULL;
	const char *name = s->config.node_store;

	if (asprintf(&again, "serve --foreground --store %s", name) < 0)
		return cmd_fail(EXIT_FAILED, "serve", "%s: out of memory", name);
	s->daemon = (struct daemon){
		.cmd = "serve", .what = name, .again = again, .store = s->store,
		.config = &s->config, .work = serve, .ready = say_served,
	};
	return daemon_run(&s->daemon);
}

int cmd_serve(int argc, char **argv)
{
	struct serving s = { 0 };
	int status = EXIT_FAILED;

	if (config_init(&s.config, CONFIG_OF_SERVE) == 0) {
		status = prepare(argc, argv, &s);
		status = status < 0 ? EXIT_DONE : status ? status : serve_it(&s);
	}
	config_fini(&s.config);
	return status;
}
