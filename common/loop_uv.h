/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What loop.c and stream.c share, and nobody else: the loop as libuv has it. */
#include <uv.h>

struct loop;

uv_loop_t *loop_uv(struct loop *l); /* on the loop's thread only */
