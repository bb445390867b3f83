/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What the files of the LMDB engine share: lmdb.c (who commits), lmdb_group.c
 * (what is committed) and lmdb_read.c (who only reads).
 */
#include <pthread.h>

#include "common/lock.h"
#include "index/lmdb_rows.h"

#define LMDB_NOT_BEHIND UINT64_MAX

struct lmdb {
	struct kv kv;
	struct lmdb_env env;
	uint64_t reserve_pages, total_pages;

	struct lock queue_lock; /* guards to `inside` */
	pthread_cond_t turn;    /* the lead is offered, or a leader has gone */
	struct kv_req *first, **last;
	bool is_led, is_tired;
	bool is_offered;        /* led, by the first heir that wakes up */
	unsigned heirs;         /* wait to be given the lead */
	unsigned inside;        /* threads that lead, will, or did and are not gone */

	struct lock state_lock; /* who changes `session` leads, and holds this */
	pthread_cond_t applied;
	struct ordered session;
	_Atomic uint64_t behind; /* set by who leads; see lmdb_read.c */

	uint64_t revision; /* the last one given; who leads */
};

/* Free above the reserve when kv_stat says full: for what was begun before. */
enum { LMDB_FULL_SLACK_PAGES = 32 };

/* Requests for one commit. Who leads fills in `reqs` and `n`. */
enum { LMDB_GROUP_MAX = 64 };

struct lmdb_group {
	struct kv_req *reqs[LMDB_GROUP_MAX];
	int outcomes[LMDB_GROUP_MAX];
	unsigned n;

	/* While it is evaluated: */
	MDB_txn *txn;               /* if it may write durable keys */
	struct lmdb_reader *reader; /* else, if it looks at some */
	struct lmdb_view durable;
	struct ordered pending;
	bool is_dirty;              /* durable keys were written */
	bool is_observed;           /* somebody is to know its end */
};

/* Does all of it, or what fails alone: the outcomes are set. The caller leads. */
void lmdb_group_run(struct lmdb *l, struct lmdb_group *g);

/* Tells the outcomes; after the lead was given up. */
void lmdb_group_done(struct lmdb *l, struct lmdb_group *g);

/* A request that writes nothing, in the caller's thread: its outcome. -EAGAIN:
 * there is no free reader slot. */
int lmdb_read(struct lmdb *l, struct kv_req *req);

/* kv_ops.scan() */
int lmdb_scan(struct kv *kv, struct bytes from, struct bytes to, view_visit *visit, void *arg);
