/* SPDX-License-Identifier: Apache-2.0 */
#include "common/lock.h"

_Thread_local enum lock_rank lock_held;
