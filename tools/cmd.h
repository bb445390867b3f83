/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The subcommands of `slicefs`: one table in main.c, one cmd_<name>.c each.
 * A command prints data to stdout and talk to stderr, and returns its exit
 * status: 0 done, 1 failed, 2 wrong usage.
 */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct cmd {
	const char *name;
	int (*run)(int argc, char **argv); /* argv[0] is the command's name */
	const char *synopsis;
	const char *sentence;
	void (*help)(void); /* prints its options, or NULL: it has none */
};

extern const struct cmd cmds[]; /* ends with a NULL name */

/* Called before each such line, with stderr locked, where something else may stand on it.
 * Or NULL. */
extern void (*cmd_before_line)(void);

/* Prints `slicefs: <cmd>: <message>` on stderr; returns status. */
int cmd_fail(int status, const char *cmd, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with EXIT_USAGE and the command's synopsis on a second line. */
int cmd_usage(const char *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same for the option that getopt_long() has just answered '?' to. */
int cmd_bad_option(const char *cmd, char **argv);

/* Whoever reads our output has enough: the end that programs have then. Returns where SIGPIPE is
 * blocked. */
void cmd_end_by_pipe(void);

int cmd_mount(int argc, char **argv);
void cmd_mount_help(void);
int cmd_serve(int argc, char **argv);
void cmd_serve_help(void);
int cmd_umount(int argc, char **argv);
void cmd_umount_help(void);
int cmd_status(int argc, char **argv);
void cmd_status_help(void);
int cmd_stat(int argc, char **argv);
void cmd_stat_help(void);
int cmd_store(int argc, char **argv);
void cmd_store_help(void);
int cmd_fsck(int argc, char **argv);
void cmd_fsck_help(void);
int cmd_scrub(int argc, char **argv);
void cmd_scrub_help(void);
int cmd_doctor(int argc, char **argv);
void cmd_doctor_help(void);
int cmd_put(int argc, char **argv);
void cmd_put_help(void);
int cmd_get(int argc, char **argv);
void cmd_get_help(void);
int cmd_warm(int argc, char **argv);
void cmd_warm_help(void);
int cmd_wait(int argc, char **argv);
void cmd_wait_help(void);
int cmd_cat(int argc, char **argv);
void cmd_cat_help(void);
int cmd_ls(int argc, char **argv);
void cmd_ls_help(void);
int cmd_rm(int argc, char **argv);
void cmd_rm_help(void);
int cmd_mkdir(int argc, char **argv);
void cmd_mkdir_help(void);
int cmd_mv(int argc, char **argv);
void cmd_mv_help(void);
int cmd_pin(int argc, char **argv);
void cmd_pin_help(void);
int cmd_unpin(int argc, char **argv);
void cmd_unpin_help(void);
int cmd_ttl(int argc, char **argv);
void cmd_ttl_help(void);
int cmd_priority(int argc, char **argv);
void cmd_priority_help(void);
int cmd_evict(int argc, char **argv);
void cmd_evict_help(void);
int cmd_quota(int argc, char **argv);
void cmd_quota_help(void);
