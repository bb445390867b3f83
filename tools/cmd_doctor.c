/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slicefs doctor: looks for all that commonly keeps slicefs from working, or from
 * working fast, on this host and towards a node; says what it found, and what mends
 * it. It changes nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/config.h"
#include "common/error.h"
#include "common/log.h"
#include "fs/fs.h"
#include "tools/cmd.h"
#include "tools/doctor.h"

struct request {
	int json;
	const char *token_file, *node;
	struct config config; /* of a mount: pool-size and timeout are its settings */
};

void cmd_doctor_help(void)
{
	printf("  HOST[:PORT]        look at this node, too, and measure the way to it\n"
	       "  --token-file PATH  the node's token\n"
	       "  --pool-size SIZE   pool that is meant (25%%)\n"
	       "  --timeout TIME     for each answer of others (10s)\n"
	       "  --json             an array of objects: verdict, check, found, try\n\n"
	       "A line each: ok, warn (works, could be better), bad, skipped; then what to try.\n"
	       "Exit status: 0 nothing is bad, 1 something is, 2 wrong usage.\n");
}

enum { OPT_TOKEN = 256, OPT_POOL, OPT_TIMEOUT };

static int set(struct request *q, const char *name)
{
	_cleanup_(freep) char *why = NULL;
	int r = config_set(&q->config, name, optarg, &why);

	return r < 0 ? cmd_usage("doctor", "%s", why ? why : error_text(r)) : EXIT_DONE;
}

static int take_option(struct request *q, int c, char **argv)
{
	switch (c) {
	case 0:
		return EXIT_DONE;
	case OPT_TOKEN:
		q->token_file = optarg;
		return EXIT_DONE;
	case OPT_POOL:
		return set(q, "pool-size");
	case OPT_TIMEOUT:
		return set(q, "timeout");
	case ':':
		return cmd_usage("doctor", "%s: it takes a value", argv[optind - 1]);
	default:
		return cmd_bad_option("doctor", argv);
	}
}

static int parse(struct request *q, int argc, char **argv)
{
	const struct option longs[] = { { "json", no_argument, &q->json, 1 },
					{ "token-file", required_argument, NULL, OPT_TOKEN },
					{ "pool-size", required_argument, NULL, OPT_POOL },
					{ "timeout", required_argument, NULL, OPT_TIMEOUT },
					{ 0 } };
	int c, status = EXIT_DONE;

	opterr = 0;
	while (!status && (c = getopt_long(argc, argv, ":", longs, NULL)) != -1)
		status = take_option(q, c, argv);
	if (status)
		return status;
	if (argc > optind + 1)
		return cmd_usage("doctor", "one node at most");
	if (argc == optind)
		return q->token_file ? cmd_usage("doctor", "token-file: of which node?") :
				       EXIT_DONE;
	if (!*argv[optind] || *argv[optind] == ':')
		return cmd_usage("doctor", "\"%.40s\" is no node. Try: HOST or HOST:PORT",
				 argv[optind]);
	q->node = argv[optind];
	return EXIT_DONE;
}

static int examine(const struct request *q)
{
	struct fs_library lib;
	struct doctor d = {
		.sys = { "" }, .is_root = geteuid() == 0, .ports = rdma_ports,
		.pool_bytes = q->config.pool_size_bytes,
		.timeout_ms = (uint32_t)q->config.timeout_ms,
	};

	log_open("/dev/null"); /* what a link says of its end is in the report */
	report_init(&d.report);
	fs_library(&lib);
	if (probe_memory(&d.memory) < 0)
		d.memory = (struct probe_memory){ 0 };
	doctor_fuse(&d, &lib);
	doctor_memory(&d);
	doctor_huge(&d);
	doctor_stores(&d);
	doctor_rdma(&d);
	doctor_memlock(&d);
	doctor_node(&d, q->node, q->token_file);
	doctor_sockets(&d);
	doctor_numa(&d);
	report_print(&d.report, q->json);
	unsigned nbad = d.report.nbad;
	report_fini(&d.report);
	return nbad ? EXIT_FAILED : EXIT_DONE;
}

int cmd_doctor(int argc, char **argv)
{
	struct request q = { 0 };
	int status = EXIT_FAILED;

	if (config_init(&q.config, CONFIG_OF_MOUNT) == 0) {
		status = parse(&q, argc, argv);
		status = status ? status : examine(&q);
	}
	config_fini(&q.config);
	return status;
}
