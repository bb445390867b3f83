/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* cmocka 2's name of what cmocka 1 calls assert_in_range, which 2 deprecates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#ifndef assert_uint_in_range
#define assert_uint_in_range assert_in_range
#endif
