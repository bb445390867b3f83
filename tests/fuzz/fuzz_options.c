/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile options. The first byte chooses: a -o list, or a command line whose
 * arguments are the lines; of which command; as whom. A refusal has a sentence of one printable line;
 * what was accepted prints as lines that set the same again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/config.h"

#define CHECK(x)                                                                                  \
	do {                                                                                      \
		if (!(x)) {                                                                       \
			fprintf(stderr, "does not hold: %s\n", #x);                               \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static int parse_line(struct config *c, char *s, char **why)
{
	char *argv[66] = { "mount" };
	int argc = 1, n = 0, r;

	for (char *arg; argc < 64 && (arg = strsep(&s, "\n"));)
		argv[argc++] = arg;
	r = config_parse(c, argc, argv, &n, why);
	if (r == 0) {
		CHECK(n >= 1 && n <= argc);
		CHECK(!argv[n]);
	}
	return r;
}

static void check_sentence(const char *s)
{
	CHECK(s && *s && strstr(s, "Try: "));
	for (; *s; s++)
		CHECK((unsigned char)*s >= 0x20 && *s != 0x7f);
}

static void check_round_trip(const struct config *c)
{
	_cleanup_(config_fini) struct config again;
	_cleanup_(writer_fini) struct writer w = { 0 }, w2 = { 0 }, json = { 0 };

	config_print(c, &w);
	CHECK(!w.bad && !config_init(&again, c->of));
	_cleanup_(freep) char *s = strndup((char *)w.p, w.len);
	char *rest = s;
	for (char *one; (one = strsep(&rest, "\n")) && *one;) {
		char *eq = strchr(one, '=');
		CHECK(eq);
		*eq = 0;
		CHECK(config_set(&again, one, eq + 1, NULL) == 0);
	}
	config_print(&again, &w2);
	CHECK(bytes_eq(writer_bytes(&w), writer_bytes(&w2)));
	config_print_json(c, &json);
	CHECK(!json.bad);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	_cleanup_(config_fini) struct config c;
	_cleanup_(freep) char *why = NULL, *options = NULL;

	bool serve = len && (bytes[0] & 5) == 5;

	CHECK(config_init(&c, serve ? CONFIG_OF_SERVE : CONFIG_OF_MOUNT) == 0);
	if (!len)
		return 0;
	_cleanup_(freep) char *s = strndup((const char *)bytes + 1, len - 1);
	int r = bytes[0] & 1 ? parse_line(&c, s, &why) : config_parse_list(&c, s, &why);
	if (r < 0)
		check_sentence(why);
	else
		CHECK(!why);
	check_round_trip(&c);
	if (serve)
		return 0;
	CHECK(config_mount_options(&c, bytes[0] & 2, &options) == 0);
	CHECK(options[0] != ',');
	return 0;
}
