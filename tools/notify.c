/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/notify.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/cleanup.h"

/* A path, or '@' and an abstract name, which has a 0 there. Its length; 0: no such. */
static socklen_t address_of(const char *where, struct sockaddr_un *ret)
{
	size_t n = strlen(where);

	if ((*where != '/' && *where != '@') || n < 2 || n >= sizeof(ret->sun_path))
		return 0;
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(ret->sun_path, where, n);
	if (*where == '@')
		ret->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

void notify(const char *fmt, ...)
{
	const char *where = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to;
	socklen_t len = where ? address_of(where, &to) : 0;
	char text[512];
	va_list ap;

	if (!len)
		return;
	va_start(ap, fmt);
	int n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	_cleanup_(closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && n > 0 && n < (int)sizeof(text))
		(void)!sendto(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT,
			      (struct sockaddr *)&to, len);
}
