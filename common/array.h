/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Arrays on the heap that grow. Their owner keeps how many there are. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

static inline int array_grow(void **v, size_t *cap, size_t need, size_t first, size_t size)
{
	size_t more = *cap ? *cap * 2 : first;
	void *p;

	if (more < need)
		more = need;
	p = reallocarray(*v, more, size);
	if (!p)
		return -ENOMEM;
	*v = p;
	*cap = more;
	return 0;
}

/*
 * Makes room for `need` entries in all in `v`, which has room for `cap`: both are
 * lvalues and change. Room doubles, and begins with `first` entries.
 * -ENOMEM: nothing has changed.
 */
#define array_room(v, cap, need, first)                                        \
	({                                                                     \
		int array_r_ = 0;                                              \
		size_t array_need_ = (need);                                   \
		if (array_need_ > (cap)) {                                     \
			void *array_v_ = (v);                                  \
			size_t array_cap_ = (cap);                             \
			array_r_ = array_grow(&array_v_, &array_cap_,          \
					      array_need_, (first), sizeof(*(v))); \
			(v) = array_v_;                                        \
			(cap) = (typeof(cap))array_cap_;                       \
		}                                                              \
		array_r_;                                                      \
	})
