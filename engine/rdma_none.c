/* SPDX-License-Identifier: Apache-2.0 */
/* In the place of rdma_*.c where libibverbs and librdmacm were not there. Only
 * opening and listing are ever called: there is no device to call the rest with. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/error.h"
#include "engine/rdma.h"

static int not_built_in(char **ret_why)
{
	return why(ret_why, -EOPNOTSUPP,
		   "RDMA is not built in. Try: install libibverbs-dev and librdmacm-dev, and "
		   "build again");
}

int rdma_ports(struct rdma_port **ret, unsigned *ret_n, char **ret_why)
{
	(void)ret;
	(void)ret_n;
	return not_built_in(ret_why);
}

int rdma_dev_open(struct loop *l, const struct rdma_choice *which,
		  void (*lost)(void *arg, const char *why), void *arg, struct rdma_dev **ret,
		  char **ret_why)
{
	(void)l;
	(void)which;
	(void)lost;
	(void)arg;
	(void)ret;
	return not_built_in(ret_why);
}

void rdma_dev_close(struct rdma_dev *d)
{
	assert(!d);
}

bool rdma_dev_is_up(const struct rdma_dev *d)
{
	(void)d;
	return false;
}

bool rdma_dev_has_address(const struct rdma_dev *d)
{
	(void)d;
	return false;
}

unsigned rdma_dev_nconns(const struct rdma_dev *d)
{
	(void)d;
	return 0;
}

const struct rdma_choice *rdma_dev_choice(const struct rdma_dev *d)
{
	(void)d;
	return NULL;
}

int rdma_mem_new(struct rdma_dev *d, void *at, uint64_t bytes, enum rdma_rights rights,
		 struct rdma_mem **ret, char **ret_why)
{
	(void)d;
	(void)at;
	(void)bytes;
	(void)rights;
	(void)ret;
	return not_built_in(ret_why);
}

void rdma_mem_free(struct rdma_mem *m)
{
	assert(!m);
}

uint32_t rdma_mem_key(const struct rdma_mem *m)
{
	(void)m;
	return 0;
}

int rdma_conn_new(struct rdma_dev *d, const struct sockaddr_storage *to, struct bytes ticket,
		  const struct rdma_conn_opts *o, const struct rdma_conn_ops *ops, void *arg,
		  struct rdma_conn **ret)
{
	(void)d;
	(void)to;
	(void)ticket;
	(void)o;
	(void)ops;
	(void)arg;
	(void)ret;
	return -EOPNOTSUPP;
}

void rdma_conn_stop(struct rdma_conn *c, int reason)
{
	(void)reason;
	assert(!c);
}

void rdma_conn_free(struct rdma_conn *c)
{
	assert(!c);
}

int rdma_listener_new(struct rdma_dev *d, const struct sockaddr_storage *at,
		      void (*request)(void *arg, struct rdma_conn *c, struct bytes ticket),
		      void *arg, struct rdma_listener **ret, char **ret_why)
{
	(void)d;
	(void)at;
	(void)request;
	(void)arg;
	(void)ret;
	return not_built_in(ret_why);
}

uint16_t rdma_listener_port(const struct rdma_listener *x)
{
	(void)x;
	return 0;
}

void rdma_listener_free(struct rdma_listener *x)
{
	assert(!x);
}

void rdma_conn_accept(struct rdma_conn *c, const struct rdma_conn_opts *o,
		      const struct rdma_conn_ops *ops, void *arg)
{
	(void)o;
	(void)ops;
	(void)arg;
	assert(!c);
}

void rdma_conn_reject(struct rdma_conn *c, int error)
{
	(void)error;
	assert(!c);
}

void rdma_conn_peer(const struct rdma_conn *c, struct sockaddr_storage *ret)
{
	(void)ret;
	assert(!c);
}

struct rdma_dev *rdma_conn_dev(const struct rdma_conn *c)
{
	(void)c;
	return NULL;
}

int rdma_receive(struct rdma_conn *c, unsigned number, const struct rdma_sge *at)
{
	(void)c;
	(void)number;
	(void)at;
	return -EOPNOTSUPP;
}

int rdma_post(struct rdma_conn *c, struct rdma_op *chain)
{
	(void)c;
	(void)chain;
	return -EOPNOTSUPP;
}
