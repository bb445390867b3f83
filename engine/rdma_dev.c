/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that is open: its descriptors on the loop, its memory, and its end. When
 * it goes away (unplugged, deleted, a fatal error) its connections end first, each
 * destroying what it has there; then lost() tells the owner.
 */
#include "engine/rdma_verbs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"

/* Memory ------------------------------------------------------------------------- */

uint32_t rdma_mem_key(const struct rdma_mem *m)
{
	return m->mr->rkey;
}

void rdma_mem_free(struct rdma_mem *m)
{
	if (!m)
		return;
	/* It fails only where the device is gone, and the registration with it. */
	ibv_dereg_mr(m->mr);
	atomic_fetch_sub(&m->dev->users, 1);
	free(m);
}

static int why_not_registered(int error, uint64_t bytes, char **ret_why)
{
	unsigned long long mib = (bytes + (1 << 20) - 1) >> 20;
	struct rlimit l;

	if ((error == ENOMEM || error == EPERM || error == EAGAIN) &&
	    !getrlimit(RLIMIT_MEMLOCK, &l) && l.rlim_cur != RLIM_INFINITY)
		return why(ret_why, -ENOMEM,
			   "cannot register %llu MiB for RDMA: this process may lock %llu MiB. "
			   "Try: ulimit -l unlimited; of a service: LimitMEMLOCK=infinity",
			   mib, (unsigned long long)l.rlim_cur >> 20);
	return why(ret_why, -error, "cannot register %llu MiB for RDMA: %s", mib,
		   error_text(error));
}

int rdma_mem_new(struct rdma_dev *d, void *at, uint64_t bytes, enum rdma_rights rights,
		 struct rdma_mem **ret, char **ret_why)
{
	/* Never with relaxed ordering: the read behind writes would mean nothing. */
	static const int access[] = {
		[RDMA_MINE] = IBV_ACCESS_LOCAL_WRITE,
		[RDMA_PEERS_READ] = IBV_ACCESS_REMOTE_READ,
		[RDMA_PEERS_WRITE] = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
				     IBV_ACCESS_REMOTE_WRITE,
	};

	if (atomic_load(&d->gone))
		return why(ret_why, -ENODEV, "%s is gone", d->choice.device);
	if (bytes > d->attr.max_mr_size)
		return why(ret_why, -E2BIG, "%s registers %llu MiB at most", d->choice.device,
			   (unsigned long long)d->attr.max_mr_size >> 20);
	_cleanup_(freep) struct rdma_mem *m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->dev = d;
	m->mr = ibv_reg_mr(d->pd, at, bytes, access[rights]);
	if (!m->mr)
		return why_not_registered(errno, bytes, ret_why);
	atomic_fetch_add(&d->users, 1);
	*ret = steal(&m);
	return 0;
}

/* What the device tells ------------------------------------------------------------ */

void dev_lose(struct rdma_dev *d, const char *reason)
{
	if (atomic_exchange(&d->gone, true))
		return;
	snprintf(d->why, sizeof(d->why), "%s: %s", d->choice.device, reason);
	log_error("rdma", "%s", d->why);
	for (struct rdma_listener *x = d->listeners; x; x = x->next)
		listener_lose(x);
	for (struct rdma_conn *c = d->conns; c; c = c->next) /* none goes in it */
		conn_close(c, -ENODEV, "%s", d->why);
	if (d->lost)
		d->lost(d->arg, d->why);
}

static void on_port(struct rdma_dev *d, int port, bool up)
{
	if ((unsigned)port != d->choice.port || atomic_exchange(&d->port_up, up) == up)
		return;
	if (up)
		log_info("rdma", "%s:%d is active", d->choice.device, port);
	else
		log_warn("rdma", "%s:%d is down: what is under way is tried again for 2 s",
			 d->choice.device, port);
}

/* Entries move when an interface changes: what counts is that it is somewhere. */
static void on_gids(struct rdma_dev *d)
{
	bool there = dev_has_address(d);

	if (atomic_exchange(&d->has_address, there) == there)
		return;
	if (there)
		log_info("rdma", "%s:%u has its address again", d->choice.device, d->choice.port);
	else
		log_warn("rdma", "%s:%u has lost the address that was chosen: connections over it "
			 "will end", d->choice.device, d->choice.port);
}

static void on_conn(struct rdma_conn *c, enum ibv_event_type type)
{
	assert(c->magic == CONN_MAGIC);
	conn_close(c, type == IBV_EVENT_QP_ACCESS_ERR ? -EACCES : -EIO,
		   "the device reports: %s", ibv_event_type_str(type));
}

static void on_event(struct rdma_dev *d, const struct ibv_async_event *e)
{
	switch (e->event_type) {
	case IBV_EVENT_PORT_ACTIVE:
	case IBV_EVENT_PORT_ERR:
		on_port(d, e->element.port_num, e->event_type == IBV_EVENT_PORT_ACTIVE);
		break;
	case IBV_EVENT_GID_CHANGE:
		on_gids(d);
		break;
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		on_conn(e->element.qp->qp_context, e->event_type);
		break;
	case IBV_EVENT_CQ_ERR:
		on_conn(e->element.cq->cq_context, e->event_type);
		break;
	case IBV_EVENT_DEVICE_FATAL:
		dev_lose(d, "the device is gone, or has failed");
		break;
	default: /* of other ports, or that all is well */
		break;
	}
}

/* Acknowledged before anything is destroyed, which would wait for that. */
static void on_async(void *arg)
{
	struct rdma_dev *d = arg;
	struct ibv_async_event e;

	while (!ibv_get_async_event(d->ctx, &e)) {
		/* What it is about lives until the event was acknowledged, and then
		 * until this thread destroys it. */
		ibv_ack_async_event(&e);
		on_event(d, &e);
	}
	if (errno != EAGAIN && errno != EINTR)
		dev_lose(d, "the device is gone");
}

/* Opening and closing ---------------------------------------------------------------- */

void rdma_dev_close(struct rdma_dev *d)
{
	if (!d)
		return;
	loop_watch_free(d->watch_comp);
	loop_watch_free(d->watch_cm);
	loop_watch_free(d->watch_async);
	rdma_mem_free(d->scratch_mem);
	assert(!atomic_load(&d->users) && !d->conns && !d->listeners);
	if (d->cm)
		rdma_destroy_event_channel(d->cm);
	if (d->comp)
		ibv_destroy_comp_channel(d->comp);
	if (d->pd)
		ibv_dealloc_pd(d->pd);
	if (d->ctx)
		ibv_close_device(d->ctx);
	free(d->scratch);
	free(d);
}
DEFINE_CLEANUP(struct rdma_dev *, rdma_dev_close)

static struct ibv_context *open_named(const char *name)
{
	struct ibv_device **all = ibv_get_device_list(NULL);
	struct ibv_context *ctx = NULL;
	int error = ENODEV;

	for (struct ibv_device **v = all; v && *v; v++)
		if (!strcmp(ibv_get_device_name(*v), name)) {
			ctx = ibv_open_device(*v);
			error = errno;
		}
	if (all)
		ibv_free_device_list(all);
	errno = error;
	return ctx;
}

static int open_verbs(struct rdma_dev *d)
{
	struct ibv_port_attr port;

	d->ctx = open_named(d->choice.device);
	if (!d->ctx)
		return -errno;
	if (ibv_query_device(d->ctx, &d->attr) ||
	    ibv_query_port(d->ctx, (uint8_t)d->choice.port, &port))
		return -ENODEV;
	atomic_init(&d->port_up, port.state == IBV_PORT_ACTIVE);
	d->pd = ibv_alloc_pd(d->ctx);
	d->comp = d->pd ? ibv_create_comp_channel(d->ctx) : NULL;
	d->cm = d->comp ? rdma_create_event_channel() : NULL;
	return d->cm ? 0 : -errno;
}

static int watch(struct rdma_dev *d, int fd, void (*fn)(void *arg), struct loop_watch **ret)
{
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	return loop_watch_new(d->loop, fd, fn, d, ret);
}

static int watch_all(struct rdma_dev *d)
{
	int r = watch(d, d->comp->fd, dev_on_completions, &d->watch_comp);

	if (!r)
		r = watch(d, d->cm->fd, dev_on_cm, &d->watch_cm);
	if (!r)
		r = watch(d, d->ctx->async_fd, on_async, &d->watch_async);
	return r;
}

int rdma_dev_open(struct loop *l, const struct rdma_choice *which,
		  void (*lost)(void *arg, const char *why), void *arg, struct rdma_dev **ret,
		  char **ret_why)
{
	_cleanup_(rdma_dev_closep) struct rdma_dev *d = calloc(1, sizeof(*d));

	assert(!loop_is_current(l));
	if (!d)
		return -ENOMEM;
	*d = (struct rdma_dev){ .loop = l, .choice = *which, .lost = lost, .arg = arg };
	atomic_init(&d->has_address, true);
	ibv_fork_init(); /* a child that only executes something must not harm us */
	int r = open_verbs(d);
	if (r < 0)
		return why(ret_why, r, "cannot open the RDMA device %s: %s. Try: slicefs doctor",
			   which->device, error_text(r));
	d->scratch = calloc(1, SCRATCH_BYTES);
	if (!d->scratch)
		return -ENOMEM;
	r = rdma_mem_new(d, d->scratch, SCRATCH_BYTES, RDMA_MINE, &d->scratch_mem, ret_why);
	if (r < 0)
		return r;
	r = watch_all(d);
	if (r < 0)
		return why(ret_why, r, "cannot watch the RDMA device %s: %s", which->device,
			   error_text(r));
	*ret = steal(&d);
	return 0;
}

bool rdma_dev_is_up(const struct rdma_dev *d)
{
	return atomic_load(&d->port_up) && !atomic_load(&d->gone);
}

bool rdma_dev_has_address(const struct rdma_dev *d)
{
	return atomic_load(&d->has_address);
}

unsigned rdma_dev_nconns(const struct rdma_dev *d)
{
	return d->nconns;
}

const struct rdma_choice *rdma_dev_choice(const struct rdma_dev *d)
{
	return &d->choice;
}
