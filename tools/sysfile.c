/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/sysfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

enum { LIST_MAX = 4096, LINES_MAX = 10000 };

static int vpath(const struct sys *s, char ret[PATH_MAX], const char *fmt, va_list ap)
{
	int n = snprintf(ret, PATH_MAX, "%s", s->root);

	if (n >= PATH_MAX)
		return -ENAMETOOLONG;
	return vsnprintf(ret + n, PATH_MAX - (size_t)n, fmt, ap) < PATH_MAX - n ? 0 :
										  -ENAMETOOLONG;
}

/* The path of a function whose last named argument is fmt. */
#define PATH_OF(s, path, fmt)                              \
	({                                                 \
		va_list path_ap_;                          \
		va_start(path_ap_, fmt);                   \
		int path_r_ = vpath(s, path, fmt, path_ap_); \
		va_end(path_ap_);                          \
		path_r_;                                   \
	})

static void trim(char *s)
{
	size_t n = strlen(s);

	while (n && strchr(" \t\n", s[n - 1]))
		s[--n] = '\0';
}

static int read_text(const char *path, char *ret, size_t len)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t at = 0;

	*ret = '\0';
	if (fd < 0)
		return -errno;
	while (at < len - 1) {
		ssize_t n = read(fd, ret + at, len - 1 - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			*ret = '\0';
			return -errno;
		}
		if (!n)
			break;
		at += (size_t)n;
	}
	ret[at] = '\0';
	trim(ret);
	return 0;
}

int sys_text(const struct sys *s, char *ret, size_t len, const char *fmt, ...)
{
	char path[PATH_MAX];
	int r = PATH_OF(s, path, fmt);

	*ret = '\0';
	return r < 0 ? r : read_text(path, ret, len);
}

bool sys_number(const struct sys *s, int64_t *ret, const char *fmt, ...)
{
	char path[PATH_MAX], text[32], *end;

	if (PATH_OF(s, path, fmt) < 0 || read_text(path, text, sizeof(text)) < 0)
		return false;
	errno = 0;
	long long v = strtoll(text, &end, 10);
	if (end == text || errno)
		return false;
	*ret = v;
	return true;
}

static bool field_of(char *line, const char *name, char *ret, size_t len)
{
	line += strspn(line, " \t");
	if (strncmp(line, name, strlen(name)))
		return false;
	line += strlen(name);
	line += strspn(line, " \t");
	snprintf(ret, len, "%s", line);
	trim(ret);
	return true;
}

bool sys_field(const struct sys *s, const char *name, char *ret, size_t len, const char *fmt, ...)
{
	char path[PATH_MAX], line[1024];

	*ret = '\0';
	if (PATH_OF(s, path, fmt) < 0)
		return false;
	_cleanup_(fclosep) FILE *f = fopen(path, "re");
	for (unsigned i = 0; f && i < LINES_MAX && fgets(line, sizeof(line), f); i++)
		if (field_of(line, name, ret, len))
			return true;
	return false;
}

bool sys_exists(const struct sys *s, const char *fmt, ...)
{
	char path[PATH_MAX];

	return PATH_OF(s, path, fmt) == 0 && access(path, F_OK) == 0;
}

int sys_access(const struct sys *s, int how, const char *fmt, ...)
{
	char path[PATH_MAX];
	int r = PATH_OF(s, path, fmt);

	return r < 0 ? r : faccessat(AT_FDCWD, path, how, AT_EACCESS) ? -errno : 0;
}

static int name_cmp(const void *a, const void *b)
{
	return strverscmp(a, b);
}

void sys_names(const struct sys *s, struct sys_names *ret, const char *fmt, ...)
{
	char path[PATH_MAX];
	struct dirent *e;

	ret->n = 0;
	DIR *d = PATH_OF(s, path, fmt) == 0 ? opendir(path) : NULL;
	while (d && ret->n < SYS_NAMES_MAX && (e = readdir(d)))
		if (e->d_name[0] != '.' && strlen(e->d_name) < SYS_NAME)
			strcpy(ret->v[ret->n++], e->d_name);
	if (d)
		closedir(d);
	qsort(ret->v, ret->n, sizeof(ret->v[0]), name_cmp);
}

/* The next run of a list; false: it ends, or is none. */
static bool next_run(const char **at, unsigned *from, unsigned *to)
{
	char *end;

	*from = *to = (unsigned)strtoul(*at, &end, 10);
	if (end == *at)
		return false;
	if (*end == '-')
		*to = (unsigned)strtoul(end + 1, &end, 10);
	*at = *end == ',' ? end + 1 : end;
	if (*to >= LIST_MAX)
		*to = LIST_MAX - 1;
	return *from <= *to;
}

bool sys_list_has(const char *list, unsigned n)
{
	unsigned from, to;

	while (next_run(&list, &from, &to))
		if (n >= from && n <= to)
			return true;
	return false;
}

bool sys_list_within(const char *a, const char *b)
{
	unsigned from, to;

	while (next_run(&a, &from, &to))
		for (; from <= to; from++)
			if (!sys_list_has(b, from))
				return false;
	return true;
}

unsigned sys_list_count(const char *list)
{
	unsigned from, to, n = 0;

	while (next_run(&list, &from, &to))
		n += to - from + 1;
	return n;
}
