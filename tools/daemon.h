/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the commands that own a store do alike: fork before anything is opened. One
 * process becomes the daemon: it opens the log and the store, and works. The other
 * waits on a pipe for its word, and says that it is ready, or passes on the daemon's
 * reason and status.
 */
#include "common/config.h"
#include "engine/engine.h"

struct daemon {
	const char *cmd;   /* "mount": whose messages these are */
	const char *what;  /* on what: the directory, the store's name */
	const char *again; /* what to try if it ends without a word: a command's words */
	const char *store; /* the store's folder */
	const char *node;  /* whose store it is, instead: "host:port"; or NULL */
	const struct config *config;
	struct engine_rdma rdma; /* of a mount of a node */

	/* In the daemon, the store being open: gets ready, says so, works until it is told
	 * to end. Its exit status. */
	int (*work)(struct daemon *d, struct engine *e);
	/* In who waits, when the daemon has said that it is ready, and what. Exit status. */
	int (*ready)(const struct daemon *d, const char *said);

	int pipe;  /* daemon.c's: to who waits */
	char *why; /* and what has failed, until that is told */
};

/* Returns the exit status in who waits, when work() is ready or has failed; the
 * daemon ends in it. No thread may be there yet. */
int daemon_run(struct daemon *d);

/* From work(): it is usable now. `said` is for ready(). */
void daemon_ready(struct daemon *d, const char *said);

/* From work(): it failed before it was ready. The sentence, or what err is called, is
 * told when all has been put back as it was. EXIT_FAILED. */
int daemon_fail(struct daemon *d, int err, const char *why);

/* The path of a setting ("log") becomes absolute, for a daemon has another working
 * directory. Exit status; said under the name of the command. */
int daemon_absolute(const char *cmd, struct config *c, const char *setting, const char *path);

/* --transport, --rdma-device, --gid-index; strings of c. Exit status, as above: of who
 * checks before there is a daemon. */
int daemon_rdma(const char *cmd, const struct config *c, struct engine_rdma *ret);

/* " (pool 64.0 MiB, index 64.0 MiB)" of the daemon's store; "" if that is not known. */
struct daemon_sizes {
	char s[80];
};
struct daemon_sizes daemon_sizes(const struct daemon *d);
