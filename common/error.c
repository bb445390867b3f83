/* SPDX-License-Identifier: Apache-2.0 */
#include "common/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int why(char **ret_why, int err, const char *fmt, ...)
{
	va_list ap;
	char *s;
	int n;

	if (!ret_why)
		return err;
	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n >= 0) {
		free(*ret_why);
		*ret_why = s;
	}
	return err;
}

static _Thread_local char unnamed[2][32];

const char *error_name(int err)
{
	unsigned e = err < 0 ? -(unsigned)err : (unsigned)err;
	const char *s = strerrorname_np((int)e);

	if (s)
		return s;
	snprintf(unnamed[0], sizeof(unnamed[0]), "E%u", e);
	return unnamed[0];
}

const char *error_text(int err)
{
	unsigned e = err < 0 ? -(unsigned)err : (unsigned)err;
	const char *s = strerrordesc_np((int)e);

	if (s)
		return s;
	snprintf(unnamed[1], sizeof(unnamed[1]), "Error %u", e);
	return unnamed[1];
}

/* Terminals obey U+0080 to U+009F, too, which UTF-8 has as 0xc2 and one more. */
static bool is_c1(const char *s, size_t at)
{
	at -= at && (unsigned char)s[at] != 0xc2;
	return (unsigned char)s[at] == 0xc2 && ((unsigned char)s[at + 1] & 0xe0) == 0x80;
}

void error_quote(char *to, size_t cap, const char *from)
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (size_t i = 0; from[i]; i++) {
		unsigned char c = (unsigned char)from[i];
		bool plain = c >= 0x20 && c != 0x7f && !is_c1(from, i);
		/* room for this, and for "..." if it should be the last */
		if (n + (plain ? 1 : 4) + 4 > cap) {
			memcpy(to + n, "...", 3);
			n += 3;
			break;
		}
		if (plain) {
			to[n++] = (char)c;
			continue;
		}
		to[n++] = '\\';
		to[n++] = 'x';
		to[n++] = hex[c >> 4];
		to[n++] = hex[c & 15];
	}
	to[n] = 0;
}

unsigned error_distance(const char *a, const char *b)
{
	unsigned row[64];
	size_t na = strlen(a), nb = strlen(b);

	if (na >= 64 || nb >= 64)
		return 64;
	for (unsigned j = 0; j <= nb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= na; i++) {
		unsigned diagonal = row[0];
		row[0] = i;
		for (unsigned j = 1; j <= nb; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[nb];
}
