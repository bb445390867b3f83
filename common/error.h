/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
#include <stddef.h>

/*
 * Errors are negative errno; this is how they become text. A function whose
 * failure the user reads has an output `char **ret_why`: one sentence that says
 * what, on what, why, and what to try.
 *
 *     return why(ret_why, -EBUSY, "%s: mounted already, by process %d. "
 *                "Try: slicefs umount %s", dir, pid, dir);
 */

/*
 * Puts the sentence into *ret_why, to be freed by the one who reads it, and
 * returns err. ret_why may be NULL; *ret_why is NULL or an earlier sentence,
 * which is freed (it may be an argument). Out of memory leaves it as it was.
 */
int why(char **ret_why, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* "ENOSPC" for ENOSPC and -ENOSPC, "E4711" for what has no name. The second
 * form is in a static buffer of the thread. Never NULL. */
const char *error_name(int err);

/* "No space left on device", likewise. */
const char *error_text(int err);

/* Text from outside, made fit for one line of a message: \xNN for bytes that do
 * not print, "..." for what does not fit. to holds cap bytes, at least 8, and
 * ends in NUL. */
void error_quote(char *to, size_t cap, const char *from);

/* Levenshtein's distance of two words shorter than 64 bytes, else 64: to find
 * the name that somebody may have meant. */
unsigned error_distance(const char *a, const char *b);
