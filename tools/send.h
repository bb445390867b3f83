/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What is put into a node's tree, one name at a time: what put and warm share. A file is
 * written as a draft, which nobody else sees, and published by closing it; what fails
 * before that is given up. A link takes the place of what is there at once.
 *
 * Threads: any; a struct send is only read.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "tools/client.h"

struct send {
	struct client *c;
	bool no_clobber; /* what is there stays as it is */
	bool preserve;   /* mode and times are those of what is sent */
	bool unchanged;  /* what changes while it is read is not sent */
	bool owner;      /* and so is the owner; else it is who sends it */
	bool replaces;   /* as a rename does: other names of a file that is there keep it, and a
			    link there goes; else what is there has new bytes */
	/* Before it is published; NULL: nothing. */
	int (*dress)(const struct send *s, int fd, const struct stat *st, struct file *f);
	mode_t umask;    /* without preserve */
};

/* Where to: a name in a folder. */
struct send_to {
	uint64_t dir;
	const char *name;  /* 1 to INDEX_NAME_MAX bytes */
	const char *shown; /* "HOST:/path", as the user would write it */
};

enum { SEND_LEFT = 1 }; /* outcome: it is there, and no_clobber was said */

/*
 * All that fd has, `local` in messages. 0, SEND_LEFT, or a negative errno, which has been
 * said; what has the name then is what had it before. -ESTALE: it became shorter, or
 * changed (unchanged), while it was read.
 */
int send_file(const struct send *s, int fd, const struct stat *st, const struct send_to *to,
	      const char *local);

/* A symbolic link, in place of what is there unless that is a folder. The same outcomes,
 * said by the caller. */
int send_link(const struct send *s, const char *target, const struct stat *st,
	      const struct send_to *to);

/* A folder, or the one that is there; "." is to->dir itself. *ret_new: it was not there.
 * The same. */
int send_folder(const struct send *s, const struct stat *st, const struct send_to *to,
		uint64_t *ret_fileid, bool *ret_new);

/* Gives what is at place what mask says of st; of a draft only its access ACL follows. The same. */
int send_attr(const struct send *s, uint64_t fileid, struct place place, unsigned mask,
	      const struct stat *st);

/* A name more of what was found, in place of what has it now. The same. */
int send_name(const struct send *s, const struct found *of, const struct send_to *to);

/* An open file here is not what st says any more. */
bool send_has_changed(int fd, const struct stat *st);

/* "FILE: why", of a file here. Exit status. */
int send_fail_here(const struct send *s, int err, const char *path);
