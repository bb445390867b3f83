/* SPDX-License-Identifier: Apache-2.0 */
/* Settings: values, command lines, -o lists, and what is printed of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/metrics.h"

static struct config conf;
static char *sentence;

static int setup(void **state)
{
	(void)state;
	return config_init(&conf, CONFIG_OF_MOUNT);
}

static int setup_serve(void **state)
{
	(void)state;
	return config_init(&conf, CONFIG_OF_SERVE);
}

static int teardown(void **state)
{
	(void)state;
	config_fini(&conf);
	free(sentence);
	sentence = NULL;
	return metrics_busy(NULL) ? -1 : 0;
}

static void set(const char *name, const char *value)
{
	int r = config_set(&conf, name, value, &sentence);

	if (r)
		fail_msg("%s=%s: %s", name, value ? value : "(none)", sentence);
}

/* Refused, with one line that begins with `begins` and says what to try. */
static void refused(int r, const char *begins)
{
	assert_int_equal(r, -EINVAL);
	assert_non_null(sentence);
	if (strncmp(sentence, begins, strlen(begins)) || !strstr(sentence, "Try: ") ||
	    strchr(sentence, '\n'))
		fail_msg("\"%s\" does not begin with \"%s\"", sentence, begins);
}

static char *printed(void (*print)(const struct config *, struct writer *))
{
	struct writer w = { 0 };

	print(&conf, &w);
	write_u8(&w, 0);
	assert_false(w.bad);
	return (char *)w.p;
}

static void test_defaults(void **state)
{
	(void)state;
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	assert_true(conf.pool_size_bytes <= memory / 4 && conf.pool_size_bytes > memory / 4 - 4096);
	assert_int_equal(conf.index_size_bytes, 0);
	assert_true(conf.xattrs);
	assert_false(conf.fresh || conf.read_only || conf.verify || conf.noatime);
	assert_int_equal(conf.timeout_ms, 10000);
	assert_int_equal(conf.spin_us, 50);
	assert_string_equal(conf.control, ".slicefs");
	assert_int_equal(conf.log_level, LOG_LEVEL_INFO);
	assert_int_equal(conf.huge, CONFIG_HUGE_AUTO);
	assert_int_equal(conf.given, 0);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "16777216", 16 << 20 }, { "16384K", 16 << 20 },    { "64M", 64 << 20 },
		{ "64MiB", 64 << 20 },	  { "4G", 4ULL << 30 },	     { "4g", 4ULL << 30 },
		{ "1T", 1ULL << 40 },	  { "1024T", 1ULL << 50 },   { "1P", 1ULL << 50 },
		{ "004G", 4ULL << 30 },	  { "5368709120", 5ULL << 30 },
	};
	static const char *const bad[] = { "",	   "G",	  "4X",	  "4 G",  "-4G", "+4G", "4GB",
					   "4.5G", "0x4G", "4Gi", "4ib", "1%%", "101%", "0%",
					   "15M",  "2P",  "18446744073709551616",
					   "99999999999999999999T", "17179869184G" };
	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		set("pool-size", good[i].text);
		assert_int_equal(conf.pool_size_bytes, good[i].bytes);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		refused(config_set(&conf, "pool-size", bad[i], &sentence), "pool-size: \"");
		assert_int_equal(conf.pool_size_bytes, 5ULL << 30);
	}
	set("pool-size", "100%");
	assert_true(conf.pool_size_bytes > 5ULL << 20);
}

static void test_times_and_counts(void **state)
{
	(void)state;
	set("timeout", "2m");
	assert_int_equal(conf.timeout_ms, 120000);
	set("timeout", "1500ms");
	assert_int_equal(conf.timeout_ms, 1500);
	set("spin", "0");
	assert_int_equal(conf.spin_us, 0);
	set("spin", "2ms");
	assert_int_equal(conf.spin_us, 2000);
	set("threads", "64");
	assert_int_equal(conf.threads, 64);
	refused(config_set(&conf, "timeout", "10", &sentence), "timeout: \"10\"");
	refused(config_set(&conf, "timeout", "99ms", &sentence),
		"timeout: \"99ms\" is out of range. Try: 100ms, 10s or 2m; 100ms to 1h");
	refused(config_set(&conf, "timeout", "1500us", &sentence), "timeout: \"1500us\"");
	refused(config_set(&conf, "timeout", "2h", &sentence), "timeout: \"2h\"");
	refused(config_set(&conf, "spin", "11ms", &sentence),
		"spin: \"11ms\" is out of range. Try: 50us or 1ms; 0 to 10ms");
	refused(config_set(&conf, "threads", "65", &sentence), "threads: \"65\"");
	refused(config_set(&conf, "threads", "4K", &sentence), "threads: \"4K\"");
	assert_int_equal(conf.timeout_ms, 1500);
}

static void test_switches(void **state)
{
	(void)state;
	set("fresh", NULL);
	assert_true(conf.fresh && config_given(&conf, CONFIG_fresh));
	set("fresh", "no");
	assert_false(conf.fresh);
	set("no-xattrs", NULL);
	assert_false(conf.xattrs);
	set("xattrs", NULL);
	assert_true(conf.xattrs);
	set("noxattrs", NULL);
	assert_false(conf.xattrs);
	set("allow_other", "true");
	assert_true(conf.allow_other);
	refused(config_set(&conf, "fresh", "maybe", &sentence), "fresh: \"maybe\"");
	refused(config_set(&conf, "no-fresh", "on", &sentence), "no-fresh: takes no value");
	refused(config_set(&conf, "no-pool-size", NULL, &sentence), "no-pool-size: no such");
	refused(config_set(&conf, "pool-sise", "4G", &sentence),
		"pool-sise: no such option. Try: pool-size");
	refused(config_set(&conf, "ro", NULL, &sentence), "ro: no such option. Try: -o ro");
	refused(config_set(&conf, "xy", NULL, &sentence), "xy: no such option. Try: slicefs mount");
	refused(config_set(&conf, "\n\x1b[31m", NULL, &sentence), "\\x0a\\x1b[31m: no such");
	refused(config_set(&conf, "", NULL, &sentence), ": no such");
}

static void test_strings(void **state)
{
	(void)state;
	set("store", "a store");
	assert_string_equal(conf.store, "a store");
	set("log", "/var/log/slicefs.log");
	set("log-level", "debug");
	assert_int_equal(conf.log_level, LOG_LEVEL_DEBUG);
	set("huge", "off");
	assert_int_equal(conf.huge, CONFIG_HUGE_OFF);
	refused(config_set(&conf, "huge", "o", &sentence), "huge: \"o\"");
	refused(config_set(&conf, "huge", "auto|on", &sentence), "huge: \"auto|on\"");
	refused(config_set(&conf, "store", "a/b", &sentence), "store: \"a/b\"");
	refused(config_set(&conf, "store", "..", &sentence), "store: \"..\"");
	refused(config_set(&conf, "store", "a\nb", &sentence), "store: \"a\\x0ab\"");
	refused(config_set(&conf, "store", "\xff", &sentence), "store: \"");
	refused(config_set(&conf, "control", "", &sentence), "control: \"\"");
	refused(config_set(&conf, "store", NULL, &sentence), "store: needs a value");
	assert_string_equal(conf.store, "a store");
}

static void list(const char *s)
{
	int r = config_parse_list(&conf, s, &sentence);

	if (r)
		fail_msg("-o %s: %s", s, sentence);
}

static void options_are(bool root, const char *want)
{
	char *s = NULL;

	assert_int_equal(config_mount_options(&conf, root, &s), 0);
	assert_string_equal(s, want);
	free(s);
}

static void test_mount_lists(void **state)
{
	(void)state;
	options_are(false, "");
	options_are(true, "dev,suid,allow_other");
	list("defaults,_netdev,nofail,noauto,user=joe,x-systemd.automount,comment=a,,");
	options_are(false, "");
	list("ro,nosuid,nodev,noatime,pool-size=64M");
	assert_int_equal(conf.pool_size_bytes, 64 << 20);
	assert_true(conf.read_only && conf.noatime);
	options_are(false, "ro,noatime,nosuid,nodev");
	options_are(true, "dev,suid,allow_other,ro,noatime,nosuid,nodev");
	list("rw,atime,allow_other,store=a\\,b\\\\c");
	assert_string_equal(conf.store, "a,b\\c");
	options_are(false, "allow_other,nosuid,nodev");
	list("noallow_other");
	options_are(true, "dev,suid,nosuid,nodev");
	refused(config_parse_list(&conf, "rw,remount", &sentence), "remount: a mount cannot");
	refused(config_parse_list(&conf, "nosuid=1", &sentence), "nosuid: no such");
	refused(config_parse_list(&conf, "x", &sentence), "x: no such");
	refused(config_parse_list(&conf, "=", &sentence), ": no such");
}

static void test_command_lines(void **state)
{
	char *line[] = { "mount", "src", "--pool-size", "64M", "-o", "ro,nodev", "--fresh", "dir",
			 "--timeout=1s", "-osync", "-", "--", "--odd", NULL };
	char *help[] = { "mount", "dir", "--help", "--nonsense", NULL };
	char *lacks[] = { "mount", "--pool-size", NULL };
	char *odd[] = { "mount", "-x", NULL };
	int n = 0;
	(void)state;

	assert_int_equal(config_parse(&conf, 13, line, &n, &sentence), 0);
	assert_int_equal(n, 5);
	assert_string_equal(line[1], "src");
	assert_string_equal(line[2], "dir");
	assert_string_equal(line[3], "-");
	assert_string_equal(line[4], "--odd");
	assert_null(line[5]);
	assert_true(conf.read_only && conf.fresh);
	assert_int_equal(conf.timeout_ms, 1000);
	assert_string_equal(conf.kernel_words, "nodev,sync");
	assert_int_equal(config_parse(&conf, 4, help, &n, &sentence), CONFIG_HELP);
	refused(config_parse(&conf, 2, lacks, &n, &sentence), "pool-size: needs a value");
	refused(config_parse(&conf, 2, odd, &n, &sentence), "-x: no such");
}

/* Each line of what is printed sets what it says. */
static void test_print_comes_back(void **state)
{
	(void)state;
	enum config_of of = conf.of;

	set("pool-size", "65M");
	set("timeout", "1500ms");
	set("store", "x=y,z");
	set("no-xattrs", NULL);
	char *before = printed(config_print), *copy = strdup(before), *rest = copy;

	assert_non_null(strstr(before, "pool-size=65M\n"));
	assert_non_null(strstr(before, "timeout=1500ms\nthreads=0\nspin=50us\n"));
	config_fini(&conf);
	assert_int_equal(config_init(&conf, of), 0);
	for (char *one; (one = strsep(&rest, "\n")) && *one;) {
		char *eq = strchr(one, '=');
		*eq = 0;
		set(one, eq + 1);
	}
	char *after = printed(config_print);
	assert_string_equal(before, after);
	free(before);
	free(copy);
	free(after);
}

static void test_unused_is_not_printed(void **state)
{
	(void)state;
	set("pool-size", "65M");
	conf.unused = UINT64_C(1) << CONFIG_pool_size_bytes;
	char *s = printed(config_print);
	assert_null(strstr(s, "pool-size="));
	assert_non_null(strstr(s, "index-size="));
	free(s);
}

static unsigned count_rows(enum config_of of)
{
	static const enum config_of owners[] = {
#define CONFIG(id, of, ...) CONFIG_OF_##of,
#include "common/config.def"
#undef CONFIG
	};
	unsigned n = 0;

	for (unsigned i = 0; i < CONFIG_COUNT; i++)
		n += (owners[i] & of) != 0;
	return n;
}

static void test_json(void **state)
{
	(void)state;
	set("store", "\"\\ \xc3\xa4");
	char *s = printed(config_print_json);
	json_t *o = json_loads(s, JSON_REJECT_DUPLICATES, NULL);

	assert_non_null(o);
	assert_int_equal(json_object_size(o), count_rows(CONFIG_OF_MOUNT));
	assert_int_equal(json_integer_value(json_object_get(o, "timeout-ms")), 10000);
	assert_true(json_is_true(json_object_get(o, "xattrs")));
	assert_string_equal(json_string_value(json_object_get(o, "store")), "\"\\ \xc3\xa4");
	assert_string_equal(json_string_value(json_object_get(o, "huge")), "auto");
	json_decref(o);
	free(s);
}

/* --help fits 80 columns and, but for its head, 28 lines. */
static void help_fits(enum config_of of)
{
	struct writer w = { 0 };
	unsigned lines = 0, column = 0;

	config_print_help(of, &w);
	for (size_t i = 0; i < w.len; i++) {
		column = w.p[i] == '\n' ? 0 : column + 1;
		lines += w.p[i] == '\n';
		if (column > 78)
			fail_msg("line %u of --help is too long", lines + 1);
	}
	assert_int_equal(lines, count_rows(of));
	assert_true(lines <= 28); /* a little more than a screen has, and no more than that */
	writer_fini(&w);
}

static void test_help_fits(void **state)
{
	struct writer w = { 0 };
	(void)state;

	help_fits(CONFIG_OF_MOUNT);
	help_fits(CONFIG_OF_SERVE);
	config_print_man(CONFIG_OF_MOUNT, &w);
	write_u8(&w, 0);
	assert_non_null(strstr((char *)w.p, ".TP\n\\fB\\-\\-pool\\-size\\fR \\fISIZE\\fR\n"));
	assert_non_null(strstr((char *)w.p, "\\fB\\-\\-no\\-xattrs\\fR\n"));
	assert_null(strstr((char *)w.p, "listen"));
	writer_fini(&w);
	config_print_man(CONFIG_OF_SERVE, &w);
	write_u8(&w, 0);
	assert_non_null(strstr((char *)w.p, ".TP\n\\fB\\-\\-listen\\fR \\fIHOST:PORT\\fR\n"));
	assert_null(strstr((char *)w.p, "xattrs"));
	writer_fini(&w);
}

/* A node's settings, some of which have a mount's names. */
static void test_serve(void **state)
{
	char *line[] = { "serve", "--store=n1", "--no-insecure", "--listen", "[::1]:0",
			 "--threads", "3", NULL };
	char *odd[] = { "serve", "-o", "ro", NULL };
	int n = 0;
	(void)state;

	assert_string_equal(conf.node_store, "node");
	assert_string_equal(conf.listen, "127.0.0.1:7747");
	assert_int_equal(conf.keep_alive_ms, 10000);
	assert_int_equal(conf.drain_ms, 10000);
	assert_int_equal(conf.max_sessions, 256);
	assert_null(conf.store);
	assert_int_equal(config_parse(&conf, 7, line, &n, &sentence), 0);
	assert_int_equal(n, 1);
	assert_string_equal(conf.node_store, "n1");
	assert_string_equal(conf.listen, "[::1]:0");
	assert_int_equal(conf.node_threads, 3);
	assert_int_equal(conf.threads, 0);
	assert_true(config_given(&conf, CONFIG_node_store) && !config_given(&conf, CONFIG_store));
	char *s = printed(config_print);
	assert_non_null(strstr(s, "store=n1\n"));
	assert_non_null(strstr(s, "drain=10s\n"));
	assert_null(strstr(s, "timeout="));
	free(s);
	refused(config_parse(&conf, 3, odd, &n, &sentence), "-o: no such option. Try: slicefs serve");
	refused(config_set(&conf, "ro", NULL, &sentence), "ro: no such option. Try: slicefs serve");
	refused(config_set(&conf, "listen", "", &sentence),
		"listen: \"\" is out of range. Try: a HOST:PORT of 1 to 255 bytes");
	refused(config_set(&conf, "max-sessions", "0", &sentence), "max-sessions: \"0\"");
}

/* An option of the other command is none. */
static void test_others_options(void **state)
{
	static const char *const mine[] = { "timeout", "xattrs", "no-xattrs", "spin", "verify" };
	static const char *const its[] = { "listen", "insecure", "noinsecure", "drain" };
	struct config mount;
	(void)state;

	for (unsigned i = 0; i < sizeof(mine) / sizeof(mine[0]); i++) {
		refused(config_set(&conf, mine[i], "1s", &sentence), mine[i]);
		assert_non_null(strstr(sentence, ": no such option of slicefs serve, but one of "
						 "slicefs mount. Try: slicefs serve --help"));
	}
	assert_int_equal(config_init(&mount, CONFIG_OF_MOUNT), 0);
	for (unsigned i = 0; i < sizeof(its) / sizeof(its[0]); i++) {
		refused(config_set(&mount, its[i], "1s", &sentence), its[i]);
		assert_non_null(strstr(sentence, ": no such option of slicefs mount, but one of "
						 "slicefs serve. Try: slicefs mount --help"));
	}
	config_fini(&mount);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_defaults),	 TEST(test_sizes),	     TEST(test_times_and_counts),
		TEST(test_switches),	 TEST(test_strings),	     TEST(test_mount_lists),
		TEST(test_command_lines), TEST(test_print_comes_back), TEST(test_json),
		TEST(test_unused_is_not_printed),
		TEST(test_help_fits),
		cmocka_unit_test_setup_teardown(test_serve, setup_serve, teardown),
		cmocka_unit_test_setup_teardown(test_others_options, setup_serve, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
