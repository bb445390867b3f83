/* SPDX-License-Identifier: Apache-2.0 */
#include "common/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

const struct unit units_of_size[] = {
	{ "P", 1ULL << 50 }, { "T", 1ULL << 40 }, { "G", 1ULL << 30 }, { "M", 1ULL << 20 },
	{ "K", 1ULL << 10 }, { "", 1 },		  { NULL, 0 },
};

const struct unit units_of_time[] = {
	{ "d", 86400000000 }, { "h", 3600000000 }, { "m", 60000000 }, { "s", 1000000 },
	{ "ms", 1000 },	      { "us", 1 },	   { NULL, 0 },
};

int units_digits(const char **s, uint64_t *ret)
{
	uint64_t v = 0;

	if (!isdigit((unsigned char)**s))
		return -EINVAL;
	for (; isdigit((unsigned char)**s); (*s)++)
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(**s - '0'), &v))
			return -ERANGE;
	*ret = v;
	return 0;
}

static int percent(uint64_t percent, uint64_t *ret)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (percent > 100)
		return -ERANGE;
	*ret = (uint64_t)sysconf(_SC_PHYS_PAGES) * percent / 100 * page;
	return 0;
}

int units_size(const char *s, uint64_t *ret)
{
	uint64_t v;
	int r = units_digits(&s, &v);

	if (r < 0)
		return r;
	if (!strcmp(s, "%"))
		return percent(v, ret);
	for (const struct unit *x = units_of_size; x->text; x++) {
		size_t n = strlen(x->text);

		if (strncasecmp(s, x->text, n) || (s[n] && !(n && !strcasecmp(s + n, "ib"))))
			continue;
		return __builtin_mul_overflow(v, x->factor, ret) ? -ERANGE : 0;
	}
	return -EINVAL;
}

/* A number without a unit is refused: timeout=10 is seconds to one reader and
 * milliseconds to another. */
int units_time(const char *s, uint64_t *ret_us)
{
	uint64_t v;
	int r = units_digits(&s, &v);

	if (r < 0)
		return r;
	if (!v && !*s) {
		*ret_us = 0;
		return 0;
	}
	for (const struct unit *x = units_of_time; x->text; x++)
		if (!strcmp(s, x->text))
			return __builtin_mul_overflow(v, x->factor, ret_us) ? -ERANGE : 0;
	return -EINVAL;
}

struct units_text units_text(const struct unit *of, uint64_t n)
{
	struct units_text t = { "0" };

	if (!n)
		return t;
	while (n % of->factor)
		of++; /* the last factor is 1 */
	snprintf(t.s, sizeof(t.s), "%" PRIu64 "%s", n / of->factor, of->text);
	return t;
}
