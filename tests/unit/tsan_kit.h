/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What ThreadSanitizer cannot see where both ends of a connection are in one process.
 * libuv closes descriptors by a system call of its own: who gets the same number next
 * seems to race with who had it. And bytes of a slice are in order because a mount
 * writes them after it got the answer to its read, over the network.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^epoll_create1$\nrace:^pipe2$\nrace:^eventfd$\nrace:^socket$\n"
	       "race:^accept4$\nrace:^accept$\nrace:^closep$\nrace:^conn_answer_lent$\n"
	       "called_from_lib:liblmdb.so\n"; /* as index/lmdb_tsan.h */
}
