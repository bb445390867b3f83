/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs: one binary, one table of subcommands. Called as mount.slicefs (by
 * mount(8)) it is `slicefs mount`.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/crash.h"
#include "common/error.h"
#include "tools/cmd.h"
#include "tools/guard.h"
#include "tools/output.h"

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("slicefs %s\n", SLICEFS_VERSION);
	return EXIT_DONE;
}

static int cmd_help(int argc, char **argv);

const struct cmd cmds[] = {
	{ "mount", cmd_mount, "mount [OPTIONS] [SOURCE] DIR",
	  "mount a memory cache on DIR", cmd_mount_help },
	{ "serve", cmd_serve, "serve [OPTIONS]",
	  "serve a store to mounts on other machines", cmd_serve_help },
	{ "put", cmd_put, "put [OPTIONS] FILE... HOST[:PORT]:/PATH",
	  "copy files to a node, without a mount", cmd_put_help },
	{ "get", cmd_get, "get [OPTIONS] HOST[:PORT]:/PATH... TO",
	  "copy files from a node, without a mount", cmd_get_help },
	{ "cat", cmd_cat, "cat [OPTIONS] HOST[:PORT]:/PATH...",
	  "print files of a node", cmd_cat_help },
	{ "warm", cmd_warm, "warm [OPTIONS] SRC DIR",
	  "fill a folder from another one, what it does not have", cmd_warm_help },
	{ "wait", cmd_wait, "wait [--timeout SECONDS] PATH...",
	  "wait until names are published", cmd_wait_help },
	{ "ls", cmd_ls, "ls [-l] [-R] [-d] [--json] HOST[:PORT]:/PATH...",
	  "list names of a node", cmd_ls_help },
	{ "rm", cmd_rm, "rm [-r] [-f] HOST[:PORT]:/PATH...",
	  "remove files of a node", cmd_rm_help },
	{ "mkdir", cmd_mkdir, "mkdir [-p] HOST[:PORT]:/PATH...",
	  "make folders on a node", cmd_mkdir_help },
	{ "mv", cmd_mv, "mv [-n] HOST[:PORT]:/PATH... HOST[:PORT]:/TO",
	  "rename files of a node", cmd_mv_help },
	{ "pin", cmd_pin, "pin [-d] [--until TIME | --for TIME] PATH...",
	  "never evict files, or not until then", cmd_pin_help },
	{ "unpin", cmd_unpin, "unpin [-d] PATH...", "let them be evicted again", cmd_unpin_help },
	{ "ttl", cmd_ttl, "ttl [-d] [--after-use] TIME|none PATH...",
	  "evict files when they are so old", cmd_ttl_help },
	{ "priority", cmd_priority, "priority [-d] low|normal|high PATH...",
	  "evict files before or after others", cmd_priority_help },
	{ "evict", cmd_evict, "evict PATH...", "let files go now", cmd_evict_help },
	{ "quota", cmd_quota, "quota set DIR SIZE | quota unset DIR... | quota show DIR...",
	  "limit what a directory may have", cmd_quota_help },
	{ "umount", cmd_umount, "umount [--discard|--abort|--lazy] DIR...",
	  "unmount DIR; its store stays for the next mount", cmd_umount_help },
	{ "status", cmd_status, "status [--json] [DIR|HOST:PORT]",
	  "show what is mounted, and how full it is", cmd_status_help },
	{ "stat", cmd_stat, "stat [--json] PATH...",
	  "show objects: version, size, slices", cmd_stat_help },
	{ "store", cmd_store, "store ls [--json] | store rm NAME...",
	  "list stores, or give their memory back", cmd_store_help },
	{ "fsck", cmd_fsck, "fsck [--repair] [--json] STORE|DIR",
	  "check a store, stopped or mounted", cmd_fsck_help },
	{ "scrub", cmd_scrub, "scrub [OPTIONS] DIR|HOST:PORT|--store NAME",
	  "compare all bytes with their checksums, in use", cmd_scrub_help },
	{ "doctor", cmd_doctor, "doctor [OPTIONS] [HOST[:PORT]]",
	  "look for what keeps this host, or a node, from working well", cmd_doctor_help },
	{ "version", cmd_version, "version", "print the version", NULL },
	{ "help", cmd_help, "help [COMMAND]", "show this, or a command's options",
	  NULL },
	{ 0 }
};

static const struct cmd *cmd_find(const char *name)
{
	for (const struct cmd *c = cmds; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

void (*cmd_before_line)(void);

/* One line, whatever a user's words have in them. */
static void vfail(const char *cmd, const char *fmt, va_list ap)
{
	_cleanup_(freep) char *said = NULL, *line = NULL;

	if (vasprintf(&said, fmt, ap) < 0)
		said = NULL;
	size_t cap = said ? 4 * strlen(said) + 8 : 0;
	line = malloc(cap);
	if (said && line)
		error_quote(line, cap, said);
	flockfile(stderr);
	if (cmd_before_line)
		cmd_before_line();
	fprintf(stderr, "slicefs: %s%s%s\n", cmd ? cmd : "", cmd ? ": " : "",
		said && line ? line : "out of memory");
	funlockfile(stderr);
}

int cmd_fail(int status, const char *cmd, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfail(cmd, fmt, ap);
	va_end(ap);
	return status;
}

int cmd_usage(const char *cmd, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfail(cmd, fmt, ap);
	va_end(ap);
	const struct cmd *c = cmd_find(cmd);
	if (c)
		fprintf(stderr, "Usage: slicefs %s\n", c->synopsis);
	return EXIT_USAGE;
}

/* optind is not behind a short option that has others behind it: "-xy". Of a long option that is
 * known, but takes no value, optopt is what it would have given. */
int cmd_bad_option(const char *cmd, char **argv)
{
	const char *word = argv[optind - 1], *next = argv[optind];
	size_t n = strcspn(word, "=");
	bool in_next = next && *next == '-' && next[1] != '-' && strchr(next, optopt);

	if (optopt && !strncmp(word, "--", 2) && word[n] && !in_next)
		return cmd_usage(cmd, "option \"%.*s\" takes no value", (int)n, word);
	if (optopt > ' ')
		return cmd_usage(cmd, "unknown option \"-%c\"", optopt);
	return cmd_usage(cmd, "unknown option \"%s\"", word);
}

static void usage(FILE *to)
{
	fprintf(to, "slicefs %s: a memory cache that is mounted as a directory\n\n"
		    "Usage: slicefs COMMAND [OPTIONS] ...\n\n", SLICEFS_VERSION);
	for (const struct cmd *c = cmds; c->name; c++)
		fprintf(to, "  %-8s %s\n", c->name, c->sentence);
	fprintf(to, "\n`slicefs help COMMAND` shows a command's options. A mount in "
		    "a minute:\n\n  slicefs mount /mnt/cache\n");
}

static int help_crash_points(void)
{
	for (unsigned i = 0; crash_point_name(i); i++)
		printf("%-20s %s\n", crash_point_name(i), crash_point_sentence(i));
	return EXIT_DONE;
}

/* For the build: the settings in slicefs-mount(8) and slicefs-serve(8). */
static int help_man_settings(const char *cmd)
{
	bool serve = cmd && !strcmp(cmd, "serve");
	struct writer w = { 0 };

	config_print_man(serve ? CONFIG_OF_SERVE : CONFIG_OF_MOUNT, &w);
	print_writer(&w);
	writer_fini(&w);
	return EXIT_DONE;
}

static int help_of(const struct cmd *c)
{
	printf("Usage: slicefs %s\n\n%s\n", c->synopsis, c->sentence);
	if (c->help) {
		putchar('\n');
		c->help();
	}
	return EXIT_DONE;
}

static int cmd_help(int argc, char **argv)
{
	if (argc < 2) {
		usage(stdout);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "crash-points"))
		return help_crash_points();
	if (!strcmp(argv[1], "man-settings"))
		return help_man_settings(argv[2]);
	const struct cmd *c = cmd_find(argv[1]);
	if (!c)
		return cmd_fail(EXIT_USAGE, "help",
				"no command \"%s\". Try: slicefs help", argv[1]);
	return help_of(c);
}

static int unknown(const char *word)
{
	const struct cmd *near = NULL;
	unsigned least = 3;

	for (const struct cmd *c = cmds; c->name; c++) {
		unsigned d = error_distance(word, c->name);
		if (d < least) {
			least = d;
			near = c;
		}
	}
	return cmd_fail(EXIT_USAGE, NULL, "no command \"%s\". Try: slicefs %s", word,
			near ? near->name : "help");
}

static bool is_help(const char *s)
{
	return !strcmp(s, "--help") || !strcmp(s, "-h");
}

void cmd_end_by_pipe(void)
{
	signal(SIGPIPE, SIG_DFL);
	raise(SIGPIPE);
}

/* What could not be printed was not done. */
static int end_output(int status)
{
	errno = 0;
	if (!fflush(stdout) && !ferror(stdout))
		return status;
	if (errno == EPIPE)
		cmd_end_by_pipe();
	return cmd_fail(EXIT_FAILED, NULL, "standard output: %s",
			errno ? error_text(errno) : "not all could be written");
}

static int run(int argc, char **argv)
{
	const char *self = strrchr(argv[0], '/');

	self = self ? self + 1 : argv[0];
	if (!strcmp(self, "mount.slicefs"))
		return cmd_mount(argc, argv);
	int status;
	if (guard_main(argc, argv, &status))
		return status;
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (is_help(argv[1]))
		return cmd_help(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--version"))
		return cmd_version(0, NULL);
	const struct cmd *c = cmd_find(argv[1]);
	if (!c)
		return unknown(argv[1]);
	for (int i = 2; i < argc && strcmp(argv[i], "--"); i++)
		if (is_help(argv[i]))
			return help_of(c);
	return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	return end_output(run(argc, argv));
}
