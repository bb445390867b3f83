/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A node without a mount: what put, get, ls and their like have in common. Each runs in
 * one session of its own, so that what it has not published vanishes with it, however it
 * ends; and each call ends after --timeout, however the node is.
 *
 * A path on a node is written HOST:/path or HOST:PORT:/path, with [ADDRESS] for IPv6.
 * Paths are looked up name by name here, as the kernel would: links are followed within
 * the node's tree.
 *
 * Threads: client_open() and client_close() are the main thread's; the rest is any's.
 */
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"

enum { CLIENT_NODE_MAX = 300 };

struct client {
	const char *cmd;
	char node[CLIENT_NODE_MAX]; /* "host:port"; "": not known yet */
	const char *token_file;     /* or NULL */
	uint64_t timeout_ms;
	bool only_reads;
	enum engine_bytes_by by;    /* ENGINE_NONE at first: names only */
	struct engine *engine;
	struct index *ix;
	struct progress *progress;  /* or NULL: is told of bytes that were read to be sent */
};

/* ---- The command line -------------------------------------------------------- */

enum { CLIENT_TOKEN = 256, CLIENT_TIMEOUT, CLIENT_TRANSPORT, CLIENT_MORE };

/* For a table of long options. */
#define CLIENT_OPTIONS                                                         \
	{ "token-file", required_argument, NULL, CLIENT_TOKEN },               \
	{ "timeout", required_argument, NULL, CLIENT_TIMEOUT }
void client_help(void); /* of these */

/* For commands that move much. */
#define CLIENT_OPTION_TRANSPORT { "transport", required_argument, NULL, CLIENT_TRANSPORT }

void client_init(struct client *c, const char *cmd, bool only_reads);
/* What getopt_long() gave that is none of the command's own. Exit status. */
int client_option(struct client *c, int option, char **argv);

/* -j, in optarg. Exit status. */
int client_jobs(struct client *c, unsigned *ret);

/* Does it look like a path on a node, and not like one here? "./a:/b" is here. */
bool client_is_remote(const char *word);
/* Takes a path on a node apart: *ret_path begins with '/', in `word`. All words of a
 * command name one node. Exit status. */
int client_take(struct client *c, const char *word, const char **ret_path);

/* Opens a session at the node. Exit status. */
int client_open(struct client *c);
void client_close(struct client *c); /* when all is done; NULL engine is fine */

/* ---- Calls -------------------------------------------------------------------- */

/* The outcome of call(), -ENOENT for INDEX_MISS. */
int client_index(struct client *c, struct index_op *op,
		 void (*call)(struct index *ix, struct index_op *op));
int client_ask(struct client *c, struct engine_ask *a,
	       void (*call)(struct engine *e, struct engine_ask *a));
int64_t client_file(struct client *c, struct file_op *op, void (*call)(struct file_op *op));

/* The same in two steps, for several at a time. */
struct client_wait {
	_Atomic int ended; /* a futex */
	int64_t r;
	uint64_t until_ns;
};
void client_begin(struct client *c, struct file_op *op, struct client_wait *w);
/* `about`: the path that is named if it never ends, or "". */
int64_t client_await(struct client *c, struct client_wait *w, const char *about);

int client_open_file(struct client *c, uint64_t fileid, struct place place, unsigned flags,
		     struct file **ret);
int client_close_file(struct client *c, struct file *f, unsigned flags);

/* "put: h:1:/a/b: No space left on device. Try: ...", of a path as the user wrote it.
 * Exit status; does not return where the node is gone. */
int client_fail(struct client *c, int err, const char *path);

/* ---- Names -------------------------------------------------------------------- */

struct found {
	uint64_t parent;               /* the directory that it is in, or would be */
	char name[INDEX_NAME_MAX + 1]; /* its name there; "": the root, or "." and ".." */
	bool is_there;
	bool is_draft;                 /* being written by this very command */
	struct attr attr;              /* if it is there */
	struct place place;
};

/* path, from the directory `from` on unless it begins with '/'. The last name may be
 * missing: is_there. -ENOENT (one before it is), -ENOTDIR, -ELOOP, -ENAMETOOLONG. */
int client_find(struct client *c, uint64_t from, const char *path, bool follow,
		struct found *ret);

/* The last name of a path, as in "a/b/", to be freed: what it becomes in a folder. Of ".", ".." and
 * "/" it is ".". NULL: no memory. */
char *client_name_of(const char *path);

/* Words that would become one name in a folder are refused: which of them would be luck.
 * name_of(word): that name, to be freed; NULL: client_name_of() its path on a node. Exit status. */
int client_check_names(const struct client *c, char **words, int n,
		       char *(*name_of)(const char *word));

/* What a link says, to be freed. */
int client_link(struct client *c, const struct attr *a, struct place place, char **ret);

/* each(arg, entry) for all names until non-zero, which it returns. */
int client_list(struct client *c, uint64_t dir, bool plus,
		int (*each)(void *arg, const struct entry *e), void *arg);

/* What lost its last name is given up. After unlink and rename. */
void client_drop(struct client *c, struct index_op *op);

/* "dir/name", to be freed; of "/" no second slash. NULL: no memory. */
char *client_join(const char *dir, const char *name);
