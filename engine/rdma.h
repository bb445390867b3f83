/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * RDMA as slicefs uses it: memory that others may read or write, reliable
 * connections, and over them one-sided reads and writes, or sends. The files engine/rdma*.c
 * are the only ones that know librdmacm and libibverbs; names that begin with
 * rdma_ and a noun of ours (port, dev, mem, conn, op) are ours.
 *
 *	node                                    mount
 *	rdma_dev_open()                         rdma_dev_open()
 *	rdma_mem_new(pool, PEERS_READ)          rdma_mem_new(buffers, MINE)
 *	rdma_mem_new(pool, PEERS_WRITE)
 *	rdma_listener_new()
 *	a ticket goes to the mount by TCP  -->  rdma_conn_new(ticket)
 *	request(ticket): rdma_conn_accept()
 *	up()                                    up()
 *	                                        rdma_post(), done(), rdma_post(), ...
 *
 * Ops. An op that rdma_post() took is the layer's until its done(), which comes
 * exactly once (I9). done(0): a read's bytes are here, a write's bytes are in the
 * peer's memory (placed, not only acknowledged: behind each run of writes goes a
 * read of their last bytes, and completes it). done() with an error comes only when
 * the queue pair can touch neither the op's memory nor the peer's any more: it is
 * in ERR and flushed, or destroyed. What of a failed write has reached the peer,
 * nobody knows. A send's done(0) says that the peer's adapter has put it into a buffer.
 *
 * Sends of the peer come into buffers that wait for them (rdma_receive()), one into
 * each, in order. A buffer is the layer's until received(), or closed(). One that finds none
 * is tried for some milliseconds and then ends the connection: peers agree on how
 * many wait.
 *
 * The end. A connection ends once, for one reason, whoever ends it; an op that fails
 * ends it too. Then its queue pair is flushed and destroyed, its ops are done, and
 * closed() comes last: after it the peer can no longer reach memory through this connection
 * (I6), and it can be freed. A dead peer shows within 2 to 3 s as long as ops are
 * under way (RDMA_ACK_TIMEOUT, RDMA_RETRIES), and not at all while none are: the
 * connection of the session's messages keeps an eye on it then. A killed one shows at once, as
 * closed or as memory that is not there (-EACCES): the reason tells people what was
 * seen, and is nothing to decide by.
 *
 * Threads: rdma_post(), rdma_conn_stop(), rdma_mem_*() any; rdma_dev_open() and
 * rdma_dev_close() block, and any but the loop's; all else, and all callbacks, the
 * loop's. Nothing blocks the loop but the commands to the adapter with which queue
 * pairs are made, moved and destroyed: some milliseconds a connection. No lock is
 * held over callbacks, each of which may call anything that its thread may. Posts
 * take LOCK_RDMA.
 *
 * Built without RDMA (no libibverbs-dev, librdmacm-dev) rdma_dev_open() and
 * rdma_ports() say so, and without a device nothing else can be called.
 */
#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/loop.h"
#include "engine/rdma_port.h"

struct rdma_dev;
struct rdma_mem;
struct rdma_listener;
struct rdma_conn;

enum {
	RDMA_ACK_TIMEOUT = 16, /* 4.096 us << 16 = 0.27 s, then it is sent again */
	RDMA_RETRIES = 6,      /* then the peer is dead: after 1.9 s, by some NICs up to four
				  times that. 7 is for ever with rxe */
	RDMA_TICKET_MAX = 56,  /* bytes that a connect request carries */
	RDMA_OP_MAX = 4 << 20, /* bytes of an op */
	RDMA_SGES_MAX = 4,     /* pieces of local memory of an op: all devices have these */
	RDMA_DEPTH = 128,
	RDMA_SPIN_US = 50,
};

/* Devices ------------------------------------------------------------------------ */

/* Opens the device; callbacks come on l, which outlives it. lost(arg, why), or NULL:
 * once, when the device is gone: its connections and listeners end with -ENODEV, its
 * owner frees what is left and closes it. -ENODEV, -ENOMEM, -EOPNOTSUPP, -EACCES, each
 * with a sentence. Not before a fork that is to go on. */
int rdma_dev_open(struct loop *l, const struct rdma_choice *which,
		  void (*lost)(void *arg, const char *why), void *arg, struct rdma_dev **ret,
		  char **ret_why);

/* All of its connections, listeners and memory have been freed. NULL is fine. */
void rdma_dev_close(struct rdma_dev *d);

bool rdma_dev_is_up(const struct rdma_dev *d); /* the device is there, its port active */
bool rdma_dev_has_address(const struct rdma_dev *d); /* its port has the one that was chosen */
/* Connections that are there: a freed one is gone with the next turn of the loop. On that. */
unsigned rdma_dev_nconns(const struct rdma_dev *d);
const struct rdma_choice *rdma_dev_choice(const struct rdma_dev *d);

/* Memory ------------------------------------------------------------------------- */

enum rdma_rights {
	RDMA_MINE,        /* ops of this side use it; nobody else does */
	RDMA_PEERS_READ,  /* whoever knows the key, of a peer that may read */
	RDMA_PEERS_WRITE, /* or write and read */
};

/*
 * Registers memory: its pages are pinned until rdma_mem_free(). The same memory may
 * be registered several times, each time with a key and rights of its own. Takes
 * about 40 us a MiB: large runs at start, none on the way of an op. -ENOMEM (locked
 * memory is limited: the sentence says how to raise it), -E2BIG, -ENODEV.
 */
int rdma_mem_new(struct rdma_dev *d, void *at, uint64_t bytes, enum rdma_rights rights,
		 struct rdma_mem **ret, char **ret_why);
/* After the last op that used it, and the last connection that was given its key.
 * NULL is fine. */
void rdma_mem_free(struct rdma_mem *m);
/* What a peer names it by, together with the address here. */
uint32_t rdma_mem_key(const struct rdma_mem *m);

/* Connections -------------------------------------------------------------------- */

struct rdma_conn_opts {
	enum rdma_rights peer; /* what the peer may do at all, whatever keys it knows */
	/* Requests under way, see rdma_post(); 0: RDMA_DEPTH; 1 for who never posts. It
	 * is less where the device has less. */
	unsigned depth;
	uint32_t spin_us;     /* how long to poll for completions that come densely */
	uint64_t deadline_ns; /* to be up by then (clock_ns()); 0: in 10 s */
	/* Who connects: from this address of the port; AF_UNSPEC: the one that was chosen. */
	struct sockaddr_storage from;
	/* Without an acknowledgement the peer is dead after seven times 4.096 us << this;
	 * 0: RDMA_ACK_TIMEOUT. */
	uint8_t ack_timeout;
	/* Buffers for sends of the peer, at a time; 0: it sends none. The first ones wait
	 * before it can send: they are lent until up() or closed(), numbered from 0 on. */
	unsigned max_receives, nfirst;
	const struct rdma_sge *first;
};

struct rdma_conn_ops {
	/* rdma_post() may be called. */
	void (*up)(void *arg);
	/* Not before up(). A send of so many bytes is in buffer `number`, which is the
	 * owner's again. Only with max_receives. */
	void (*received)(void *arg, unsigned number, uint32_t bytes);
	/* Once, and last; also without up(). why: a sentence without an end, there for
	 * the time of the call. reason: that of rdma_conn_stop(), else
	 *	-ECONNRESET     the peer has closed
	 *	-ETIMEDOUT      it does not answer, or the deadline has passed
	 *	-ECONNREFUSED   nobody listens; or the errno of rdma_conn_reject()
	 *	-EHOSTUNREACH   no way to the address, or by another device
	 *	-EACCES         the peer has no such memory, or not for us
	 *	-EMSGSIZE       what the peer sends is longer than the buffer
	 *	-ENODEV, -ENOMEM, -EIO */
	void (*closed)(void *arg, int reason, const char *why);
};

/* Begins to connect to a listener at `to`. up() or closed() follows, never before it
 * returns. The ticket is for the other side's request(). -ENOMEM and its like: none. */
int rdma_conn_new(struct rdma_dev *d, const struct sockaddr_storage *to, struct bytes ticket,
		  const struct rdma_conn_opts *o, const struct rdma_conn_ops *ops, void *arg,
		  struct rdma_conn **ret);

/* Ends it, from any thread until rdma_conn_free(). The first reason (negative) stays. */
void rdma_conn_stop(struct rdma_conn *c, int reason);
void rdma_conn_free(struct rdma_conn *c); /* in or after closed(); NULL is fine */

/*
 * Listens at an address of the device; port 0: any free one. request(arg, c, ticket)
 * for each connection that is asked for: it calls rdma_conn_accept(c) or
 * rdma_conn_reject(c) before it returns. The ticket is anybody's bytes, and comes with
 * zeros behind it: look at as many of them as a good one has.
 * -EADDRINUSE, -EADDRNOTAVAIL, -ENODEV, -ENOMEM.
 */
int rdma_listener_new(struct rdma_dev *d, const struct sockaddr_storage *at,
		      void (*request)(void *arg, struct rdma_conn *c, struct bytes ticket),
		      void *arg, struct rdma_listener **ret, char **ret_why);
uint16_t rdma_listener_port(const struct rdma_listener *x);
void rdma_listener_free(struct rdma_listener *x); /* NULL is fine */

/* up() or closed() follows, never before it returns. */
void rdma_conn_accept(struct rdma_conn *c, const struct rdma_conn_opts *o,
		      const struct rdma_conn_ops *ops, void *arg);
/* The other side's closed() gets the (negative) errno; c is gone. */
void rdma_conn_reject(struct rdma_conn *c, int error);

/* Of one that is asked for, or up: who it is, and by which device. */
void rdma_conn_peer(const struct rdma_conn *c, struct sockaddr_storage *ret);
struct rdma_dev *rdma_conn_dev(const struct rdma_conn *c);

/* Reads, writes and sends ------------------------------------------------------------ */

enum rdma_kind { RDMA_READ, RDMA_WRITE, RDMA_SEND };

struct rdma_sge {
	void *at;
	uint32_t len;
	const struct rdma_mem *mem; /* that `at` lies in */
};

struct rdma_op {
	enum rdma_kind kind;
	uint64_t remote; /* address at the peer; not of a send */
	uint32_t key;    /* rdma_mem_key() of the memory there */
	unsigned nsge;   /* 1..RDMA_SGES_MAX pieces, one behind the other at the peer */
	const struct rdma_sge *sge; /* lent until rdma_post() returns; what it points to
				       until done() */
	void (*done)(struct rdma_op *op, int r);
	struct rdma_op *next; /* of a chain; the layer's until done() */
};

/*
 * Posts a chain of ops, all or none: 0, or
 *	-EAGAIN     no room now: again when something of this connection is done
 *	-ENOTCONN   not up, or it has ended
 *	-EINVAL     an op is too long or has too many pieces, or the chain does not fit
 *	            at all: it takes its ops plus one for every 16 of them, `depth` at most
 * Ops begin in the order of posting and are done in it, those of a chain (up to 16)
 * together: a chain costs one completion. A read does not wait for writes before it,
 * except for what they do at the peer. done() may come before it returns.
 */
int rdma_post(struct rdma_conn *c, struct rdma_op *chain);

/* One more buffer waits for a send. Its number, below max_receives, belongs to no other that
 * waits. -ENOTCONN: it is not up, or has ended; -EIO: so is the device. */
int rdma_receive(struct rdma_conn *c, unsigned number, const struct rdma_sge *at);
