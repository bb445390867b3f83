/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Telling who supervises the process how it is doing, in the words of sd_notify(3):
 * notify("READY=1\nSTATUS=..."). Nothing where $NOTIFY_SOCKET is not set, or nobody
 * listens there: no command fails for that.
 */
void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
