/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Small texts of /proc, /sys and /etc, below a root that a test may choose. Any of them
 * may be missing or say something else than expected. Paths begin with '/'. Any thread.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sys {
	const char *root; /* "": this machine */
};

/* What the file begins with, up to len - 1 bytes, without blanks at the end. Or a negative
 * errno, and ret is "". */
int sys_text(const struct sys *s, char *ret, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The number that the file begins with; false: it does not. */
bool sys_number(const struct sys *s, int64_t *ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* What follows `name`, and blanks, in the first line that begins with it, blanks before
 * it aside. False: there is none. */
bool sys_field(const struct sys *s, const char *name, char *ret, size_t len, const char *fmt,
	       ...) __attribute__((format(printf, 5, 6)));

bool sys_exists(const struct sys *s, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* 0, -EACCES, -ENOENT, ...: can this process do that (R_OK, W_OK, X_OK)? */
int sys_access(const struct sys *s, int how, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

enum { SYS_NAMES_MAX = 256, SYS_NAME = 64 };

/* Names in a folder, in order. Longer ones, and whichever are too many, are left out. */
struct sys_names {
	unsigned n;
	char v[SYS_NAMES_MAX][SYS_NAME];
};
void sys_names(const struct sys *s, struct sys_names *ret, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Is n in a list as the kernel writes them, "0-3,8"? */
bool sys_list_has(const char *list, unsigned n);
/* Is all of a in b? */
bool sys_list_within(const char *a, const char *b);
/* How many are in it. */
unsigned sys_list_count(const char *list);
