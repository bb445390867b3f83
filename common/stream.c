/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, and what is the same for all kinds of streams. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/stream_kind.h"

/* Addresses -------------------------------------------------------------------- */

/* "host", "host:port", "[v6]:port" into its two halves. */
static int split(const char *where, char host[256], char port[8])
{
	const char *colon = strrchr(where, ':'), *end = colon ? colon : where + strlen(where);

	if (*where == '[') {
		end = strchr(++where, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		colon = end[1] ? end + 1 : NULL;
	} else if (colon && memchr(where, ':', (size_t)(colon - where))) {
		colon = NULL; /* an address of IPv6, bare */
		end = where + strlen(where);
	}
	if (end - where >= 256 || (colon && (strlen(colon + 1) > 5 || !colon[1])))
		return -EINVAL;
	memcpy(host, where, (size_t)(end - where));
	host[end - where] = '\0';
	if (colon)
		strcpy(port, colon + 1);
	return 0;
}

int stream_resolve(const char *where, uint16_t default_port, struct sockaddr_storage *ret)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *found;
	char host[256], port[8];

	snprintf(port, sizeof(port), "%u", default_port);
	int r = split(where, host, port);
	if (r < 0)
		return r;
	char *end;
	unsigned long number = strtoul(port, &end, 10);
	if (*end || number > UINT16_MAX || *port == '-' || *port == '+')
		return -EINVAL;
	r = getaddrinfo(*host ? host : "127.0.0.1", port, &hints, &found);
	if (r)
		return r == EAI_MEMORY ? -ENOMEM : -ENOENT;
	*ret = (struct sockaddr_storage){ 0 };
	memcpy(ret, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	return 0;
}

bool stream_source(const struct sockaddr_storage *to, struct sockaddr_storage *ret)
{
	socklen_t len = sizeof(*ret);
	_cleanup_(closep) int fd = socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && !connect(fd, (const struct sockaddr *)to, sizeof(*to)) &&
	       !getsockname(fd, (struct sockaddr *)ret, &len);
}

bool stream_is_loopback(const struct sockaddr_storage *a)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	if (a->ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	return a->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

void stream_name(const struct sockaddr_storage *a, char ret[STREAM_NAME])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
	char host[INET6_ADDRSTRLEN] = "?";

	if (a->ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(ret, STREAM_NAME, "%s:%u", host, ntohs(v4->sin_port));
	} else {
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(ret, STREAM_NAME, "[%s]:%u", host, ntohs(v6->sin6_port));
	}
}

/* Any kind ------------------------------------------------------------------------ */

void stream_start(struct stream *s, const struct stream_ops *ops, void *arg)
{
	s->ops = ops;
	s->arg = arg;
	if (!s->reason && s->kind->start)
		s->kind->start(s);
}

void stream_pause(struct stream *s, bool pause)
{
	if (!s->reason)
		s->kind->pause(s, pause);
}

int stream_write(struct stream *s, const struct iovec *iov, unsigned n,
		 void (*done)(void *arg, int r), void *arg)
{
	assert(n <= STREAM_IOV_MAX);
	return s->reason ? -ENOTCONN : s->kind->write(s, iov, n, done, arg);
}

void stream_wake(struct stream *s, uint64_t at_ns)
{
	if (!s->reason)
		s->kind->wake(s, at_ns);
}

void stream_widen(struct stream *s)
{
	if (!s->reason && s->kind->widen)
		s->kind->widen(s);
}

int stream_socket(struct stream *s)
{
	return s->kind->socket ? s->kind->socket(s) : -EOPNOTSUPP;
}

void stream_stop(struct stream *s, int reason)
{
	assert(reason < 0);
	if (s->reason)
		return;
	s->reason = reason;
	s->kind->stop(s);
}

void stream_over(struct stream *s)
{
	if (s->ops)
		s->ops->ended(s->arg, s->reason);
}

const char *stream_peer(const struct stream *s)
{
	return s->peer;
}
