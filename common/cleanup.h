/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Scope-bound clean-up. A local that owns something says so where it is
 * declared; handing it on is spelled steal(). Destructors take NULL.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Moves the value out of *pp and leaves NULL behind. */
#define steal(pp)                                                              \
	({                                                                     \
		__auto_type steal_pp_ = (pp);                                  \
		__auto_type steal_v_ = *steal_pp_;                             \
		*steal_pp_ = NULL;                                             \
		steal_v_;                                                      \
	})

/* Defines fn##p(), the form that _cleanup_() wants, for a destructor fn(). */
#define DEFINE_CLEANUP(type, fn)                                               \
	static inline void fn##p(type *p)                                      \
	{                                                                      \
		if (*p)                                                        \
			fn(*p);                                                \
	}

static inline void freep(void *p)
{
	free(*(void **)p);
}

static inline void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}
