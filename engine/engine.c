/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Joins index, pool, transport and the table of open files: opening and closing
 * them in order, and what spans them all (space, the view of slices).
 *
 * Opening goes up, closing down: store (folder, lock), pool, node, index, rebuild,
 * references, transport, files. engine_close() takes whatever a failed opening got to, so
 * there is one way down only.
 */
#include "engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/size.h"
#include "engine/disk.h"
#include "engine/evict.h"
#include "engine/file.h"
#include "engine/memory.h"
#include "engine/node_remote.h"
#include "engine/peer.h"
#include "engine/priv.h"
#include "engine/refs.h"
#include "engine/scrub.h"
#include "engine/server.h"
#include "engine/transport_auto.h"
#include "engine/transport_tcp.h"
#include "engine/store.h"
#include "engine/tier.h"

DEFINE_CLEANUP(struct engine *, engine_close)

enum {
	TEST_POOL_BYTES = 64 << 20,
	DISK_EVICT_HIGH = 95, /* percent: what has a disk evicts */
};

#define FRESH_HINT "Try: slicefs fsck, or slicefs mount --fresh, which keeps the old contents aside"

struct index *engine_index(struct engine *e) { return e->ix; }
bool engine_is_remote(const struct engine *e) { return e->peer; }
struct pool *engine_pool(struct engine *e) { return e->pool; }
bool engine_is_alone(const struct engine *e) { return e->alone; }

static const char *dir_of(const struct engine *e)
{
	return e->store ? store_dir(e->store) : e->peer ? "of the node" : "(memory)";
}

/* Pool ---------------------------------------------------------------------------- */

static int open_pool(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	struct pool_opts po = { .create = true };
	_cleanup_(freep) char *path = NULL;

	if (o->lent_pool) {
		e->pool = o->lent_pool;
		e->pool_is_lent = true;
		return 0;
	}
	if (e->store) {
		po.path = path = store_path(e->store, STORE_POOL);
		if (!path)
			return -ENOMEM;
		po.bytes = store_pool_bytes(e->store);
		po.create = store_is_new(e->store);
	} else {
		po.bytes = o->pool_bytes ? o->pool_bytes : TEST_POOL_BYTES;
	}

	int r = pool_open(&po, &e->pool);
	if (r == -EPROTONOSUPPORT)
		return why(ret_why, r, "store %s: its pool was made by a newer slicefs than this "
			   "one (%s). Try: that one, or slicefs mount --fresh, which keeps the old "
			   "contents aside", dir_of(e), SLICEFS_VERSION);
	if (r == -EUCLEAN)
		return why(ret_why, r, "store %s: %s is not a slicefs pool, or damaged. " FRESH_HINT,
			   dir_of(e), po.path);
	if (r == -ENOMEM || r == -ENOSPC)
		return why(ret_why, r, "store %s: a pool of %s does not fit: %s. Try: a smaller "
			   "--pool-size", dir_of(e), size_text(po.bytes).s, error_text(r));
	if (r < 0)
		return why(ret_why, r, "store %s: cannot open the pool: %s", dir_of(e),
			   error_text(r));
	if (e->store && (uint64_t)pool_npages(e->pool) * PAGE_BYTES != po.bytes)
		return why(ret_why, -EUCLEAN, "store %s: %s has %s, and sizes.txt says %s. "
			   FRESH_HINT, dir_of(e), po.path,
			   size_text((uint64_t)pool_npages(e->pool) * PAGE_BYTES).s,
			   size_text(po.bytes).s);
	return 0;
}

/* Index --------------------------------------------------------------------------- */

static int open_kv(struct engine *e, const struct engine_opts *o, struct kv **ret)
{
	struct kv *kv;
	int r;

	if (e->peer) {
		r = kv_remote_open(peer_remote(e->peer), &kv);
	} else if (e->store) {
		_cleanup_(freep) char *path = store_path(e->store, STORE_INDEX);
		struct kv_lmdb_opts ko = {
			.path = path,
			.size_bytes = store_index_bytes(e->store),
			.create = store_is_new(e->store),
			.read_only = o->read_only,
		};
		r = path ? kv_lmdb_open(&ko, &kv) : -ENOMEM;
	} else if (o->lent_kv) {
		r = kv_lend(o->lent_kv, &kv);
	} else {
		r = kv_mem_open(&kv);
	}
	if (r < 0)
		return r;
	if (o->wrap_kv) {
		struct kv *inner = kv;
		r = o->wrap_kv(inner, &kv);
		if (r < 0) {
			kv_close(inner);
			return r;
		}
	}
	*ret = kv;
	return 0;
}

static int why_index(struct engine *e, int r, char **ret_why)
{
	switch (r) {
	case -EPROTONOSUPPORT:
		return why(ret_why, r, "store %s: its index was made by a newer slicefs, or an "
			   "incompatible LMDB. Try: that one, or slicefs mount --fresh, which keeps "
			   "the old contents aside", dir_of(e));
	case -EUCLEAN:
	case -ENOENT:
		return why(ret_why, -EUCLEAN, "store %s: " STORE_INDEX " is not a slicefs index, or "
			   "damaged. " FRESH_HINT, dir_of(e));
	case -ENOSPC:
		return why(ret_why, r, "store %s: no space for an index of %s. Try: a smaller "
			   "--index-size", dir_of(e), size_text(store_index_bytes(e->store)).s);
	case -EBUSY:
		return why(ret_why, r, "store %s: its index is open in another process. Try: "
			   "slicefs status", dir_of(e));
	default:
		return why(ret_why, r, "store %s: cannot open the index: %s", dir_of(e),
			   error_text(r));
	}
}

/* Of the disk, where memory was lost: then the index is not new any more, but for its pool. */
static int fill_index(struct engine *e, struct kv *kv, char **ret_why)
{
	int r = e->tier && !tier_is_new(e->tier) ? tier_fill(e->tier, kv, ret_why) : 0;

	if (r < 0)
		kv_close(kv);
	return r;
}

static int open_index(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	bool is_new = e->store ? store_is_new(e->store) : !e->peer;
	struct kv *kv = NULL;
	uint64_t session = e->peer ? remote_session(peer_remote(e->peer)) :
			   o->session ? o->session : INDEX_SESSION_OWN;
	int r = session ? open_kv(e, o, &kv) : -ENOTCONN; /* it is lost already */

	if (!r && is_new) {
		r = fill_index(e, kv, ret_why);
		if (r < 0)
			return r;
	}
	if (!r)
		r = index_open(kv, session, is_new, &e->ix);
	if (!r && is_new && index_super(e->ix)->pool_id != e->node->pool_id)
		r = index_set_pool(e->ix, e->node->pool_id);
	if (!r && !e->peer)
		r = index_disk(e->ix, &e->disk_id);
	if (r < 0)
		return why_index(e, r, ret_why);
	kv = index_kv(e->ix);
	e->alone = kv->ops->caps(kv).alone;
	uint64_t named = index_super(e->ix)->pool_id;
	if (named != e->node->pool_id)
		return why(ret_why, -EUCLEAN, "store %s: index and pool do not belong together: the "
			   "index names pool %016" PRIx64 ", the pool is %016" PRIx64 ". "
			   FRESH_HINT, dir_of(e), named, e->node->pool_id);
	return 0;
}

/* The engine ------------------------------------------------------------------------ */

static int open_node(struct engine *e, const struct engine_opts *o)
{
	struct node *late;
	int r = e->peer ? node_remote_open(peer_remote(e->peer), &e->node) :
			  node_local_open(e->pool, &e->node);

	if (r < 0 || !o->fault_seed)
		return r;
	r = node_fault_open(e->node, &late);
	if (!r)
		e->node = late;
	return r;
}

static int open_far(struct engine *e, const struct engine_opts *o, struct transport **ret,
		    char **ret_why)
{
	const struct transport_tcp_opts to = { .timeout_ms = o->timeout_ms };
	const struct transport_auto_opts ao = { .rdma = o->rdma, .node = e->node,
						.timeout_ms = o->timeout_ms };
	struct remote *x = peer_remote(e->peer);

	if (o->rdma.by == ENGINE_NONE) {
		*ret = NULL;
		return 0;
	}
	if (o->rdma.by != ENGINE_TCP)
		return transport_auto_open(x, &ao, ret, ret_why);
	int r = transport_tcp_open(x, &to, ret);
	if (r == -EOPNOTSUPP)
		return why(ret_why, r, "node %s: --transport tcp, and bytes go by RDMA only there. "
			   "Try: --transport rdma", o->node);
	return r;
}

static int open_transport(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	struct transport *inner;
	int r = e->peer ? open_far(e, o, &inner, ret_why) : transport_local_open(e->pool, &inner);

	if (r < 0 || !o->fault_seed) {
		if (!r)
			e->transport = inner;
		return r;
	}
	/* Everything late, and nothing in place: what a network would do. */
	struct fault_opts fo = { .seed = o->fault_seed, .delay_us = 200, .hide_map = true };
	r = transport_fault_open(inner, &fo, &e->transport);
	if (r < 0)
		inner->ops->close(inner);
	return r;
}

static int rebuild(struct engine *e, char **ret_why)
{
	_cleanup_(freep) char *what = NULL;
	int r = engine_rebuild(e, &what);

	if (r == -EUCLEAN)
		return why(ret_why, r, "store %s: %s. Try: slicefs fsck --repair, or slicefs mount "
			   "--fresh, which keeps the old contents aside", dir_of(e),
			   what ? what : "its index is damaged");
	if (r < 0)
		return why(ret_why, r, "store %s: cannot rebuild the table of slices: %s", dir_of(e),
			   error_text(r));
	return 0;
}

/* The disk -------------------------------------------------------------------------- */

static int open_tier(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	struct tier_opts to = {
		.dir = o->ssd, .bytes = o->ssd_bytes, .store = e->store ? store_dir(e->store) : "",
		.fresh = o->fresh,
		.wait_ms = o->ssd_wait_ms, .end_ms = o->ssd_end_ms, .faults = o->ssd_faults,
	};
	int r = o->ssd && !to.faults ? disk_faults_env(&to.faults, ret_why) : 0;

	if (!r && o->ssd && e->store)
		r = store_disk(e->store, &to.id);
	return o->ssd && !r ? tier_open(&to, &e->tier, ret_why) : r;
}

/* Index and disk belong together, or the one knows nothing of the other. */
static int check_tier(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	uint64_t fs = tier_fs(e->tier);

	if (!tier_is_new(e->tier) && (fs != index_super(e->ix)->fs_id ||
				      (e->disk_id && e->disk_id != tier_id(e->tier))))
		return why(ret_why, -EUCLEAN, "disk %s: what is on it is another store's than %s. Try: "
			   "another folder, or --fresh, which keeps both aside", o->ssd, dir_of(e));
	return 0;
}

/* It had a disk, and is to go on without: nothing on that is to bring back what it was. */
static int forget_disk(struct engine *e, const char *now, char **ret_why)
{
	return e->store ? store_forget_disk(e->store, e->disk_id, now, ret_why) : 0;
}

/* After the rebuild: no extent names another disk. */
static int begin_tier(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	bool other = e->disk_id != tier_id(e->tier);

	/* What was copied there could be written from now on. */
	int r = other && e->disk_id ? forget_disk(e, o->ssd, ret_why) : 0;
	if (!r && other)
		r = index_set_disk(e->ix, tier_id(e->tier));
	if (!r && e->store)
		r = store_note_disk(e->store, o->ssd, tier_id(e->tier));
	if (r < 0)
		return r;
	e->disk_id = tier_id(e->tier);
	node_set_tier(e->node, e->tier);
	return tier_begin(e->tier, e, ret_why);
}

/* Nothing is there any more (the rebuild has looked), so what was copied can be written, if nothing on
 * that disk can bring back what it was. */
static int leave_disk(struct engine *e)
{
	_cleanup_(freep) char *what = NULL;

	if (forget_disk(e, NULL, &what) < 0) {
		log_warn("disk", "%s. Until then that is not opened for writing (EROFS)",
			 what ? what : error_text(ENOMEM));
		return 0;
	}
	int r = index_end_copies(e->ix);
	return r < 0 ? r : index_set_disk(e->ix, e->disk_id = 0);
}

static bool is_lost(const struct engine *e)
{
	return e->store ? store_is_new(e->store) : !e->pool_is_lent;
}

/* When its parts were there. */
struct opening {
	uint64_t memory_ns, index_ns, slices_ns;
};

static uint64_t ms(uint64_t from_ns, uint64_t to_ns)
{
	return (to_ns - from_ns) / NS_PER_MS;
}

static int open_all(struct engine *e, const struct engine_opts *o, struct opening *ret_took,
		    char **ret_why)
{
	int r = 0;

	if (!o->in_memory)
		r = store_open(o, &e->store, ret_why);
	if (!r)
		r = open_tier(e, o, ret_why);
	if (!r)
		r = open_pool(e, o, ret_why);
	ret_took->memory_ns = clock_ns();
	if (!r)
		r = open_node(e, o);
	if (!r)
		r = open_index(e, o, ret_why);
	ret_took->index_ns = clock_ns();
	if (!r && e->tier)
		r = check_tier(e, o, ret_why);
	/* What memory was lost of is settled as if it had been damaged. */
	if (!r && (o->repair || (e->tier && !tier_is_new(e->tier) && is_lost(e))))
		r = engine_check_index(e);
	if (!r && !e->pool_is_lent)
		r = rebuild(e, ret_why);
	ret_took->slices_ns = clock_ns();
	/* fsck takes nothing, and what it drops names slices that are not there. */
	if (!r && !e->offline && !e->pool_is_lent)
		r = refs_open(e->pool, e->tier, index_kv(e->ix), &e->refs);
	if (!r && e->tier && e->refs)
		r = begin_tier(e, o, ret_why);
	if (!r && !e->tier && e->refs && e->disk_id)
		r = leave_disk(e);
	if (!r)
		r = open_transport(e, o, ret_why);
	if (!r)
		r = files_new(e, &e->files);
	if (!r && e->store && store_is_new(e->store))
		r = store_commit(e->store, ret_why);
	if (!r && e->tier && e->refs)
		tier_keep(e->tier);
	unsigned high = o->evict_high || !e->tier ? o->evict_high : DISK_EVICT_HIGH;
	if (!r && e->refs)
		r = evict_open(e, &(struct evict_opts){ high, o->evict_low, o->temp_s,
						       o->evict_dirs_ms },
			       &e->evict);
	if (!r && e->refs)
		r = scrubs_new(e, &e->scrubs);
	return r;
}

/* Slices first, then their bytes, then names: in this order they are told of a new
 * session. */
static int open_peer(struct engine *e, const struct engine_opts *o, char **ret_why)
{
	int r = peer_open(e, o, &e->peer, ret_why);

	if (!r)
		r = open_node(e, o);
	if (!r)
		r = open_transport(e, o, ret_why);
	if (!r)
		r = open_index(e, o, ret_why);
	if (!r)
		r = files_new(e, &e->files);
	if (!r)
		peer_begin(e->peer);
	return r;
}

int engine_open(const struct engine_opts *o, struct engine **ret, char **ret_why)
{
	_cleanup_(engine_closep) struct engine *e = calloc(1, sizeof(*e));
	_cleanup_(freep) char *reason = NULL;
	struct opening took = { 0 };
	struct engine_space space;
	uint64_t begun = clock_ns();

	if (!e)
		return -ENOMEM;
	drops_init(&e->drops);
	e->verify = o->verify;
	e->read_only = o->read_only;
	e->offline = o->read_only || o->repair;
	int r = o->node ? open_peer(e, o, &reason) : open_all(e, o, &took, &reason);
	if (r < 0) {
		/* what has no sentence yet: memory, mostly */
		if (!reason)
			why(&reason, r, "%s %s: cannot open it: %s", o->node ? "node" : "store",
			    o->node ? o->node : o->in_memory ? "(memory)" : o->dir,
			    error_text(r));
		if (ret_why) {
			free(*ret_why);
			*ret_why = steal(&reason);
		}
		return r;
	}
	engine_space(e, &space); /* sets the gauges */
	if (e->store)
		log_info("store", "%s: pool of %s (%s free), index of %s; %" PRIu64 " ms: memory %"
			 PRIu64 ", index %" PRIu64 ", slices %" PRIu64, dir_of(e),
			 size_text(space.total_bytes).s, size_text(space.free_bytes).s,
			 size_text(space.index_size_bytes).s, ms(begun, clock_ns()),
			 ms(begun, took.memory_ns), ms(took.memory_ns, took.index_ns),
			 ms(took.index_ns, took.slices_ns));
	*ret = steal(&e);
	return 0;
}

void engine_last_session(struct engine *e)
{
	if (e->peer)
		peer_last(e->peer);
}

void engine_close(struct engine *e)
{
	if (!e)
		return;
	if (e->peer)
		peer_end(e->peer); /* files hear of sessions no more */
	tier_ending(e->tier);
	server_close(e->server);
	scrubs_free(e->scrubs);
	evict_stop(e->evict); /* it looks for open files */
	tier_stop(e->tier);
	files_free(e->files);
	drops_wait(&e->drops);
	if (e->transport) {
		e->transport->ops->quiesce(e->transport);
		e->transport->ops->close(e->transport);
	}
	evict_free(e->evict);
	tier_end(e->tier);
	index_close(e->ix);
	refs_close(e->refs);
	tier_free(e->tier);
	node_close(e->node);
	peer_close(e->peer);
	if (!e->pool_is_lent)
		pool_close(e->pool);
	store_free(e->store);
	drops_fini(&e->drops);
	writer_fini(&e->index_report);
	free(e);
}

static void space_of_peer(struct engine *e, struct engine_space *ret)
{
	struct wire_stat st;

	peer_stat(e->peer, &st);
	metric_set(M_SLICES_FREE, (int64_t)st.free);
	metric_set(M_SLICES_LIVE, (int64_t)(st.total - st.free)); /* of all mounts, in any state */
	*ret = (struct engine_space){
		.total_bytes = st.total,
		.free_bytes = st.free,
		.evictable_bytes = st.evictable,
		.evictable_objects = st.evictable_objects,
		.index_size_bytes = st.index_size,
		.index_used_bytes = st.index_used,
		.pool_id = e->node->pool_id,
		.evict_dirs_ms = st.evict_dirs_ms,
	};
}

static void space_of_store(struct engine *e, struct engine_space *ret)
{
	struct kv *kv = index_kv(e->ix);
	struct kv_stat st = { 0 };
	struct tier_space disk = { 0 };

	if (e->tier)
		tier_space(e->tier, &disk);

	if (kv->ops->stat(kv, &st) < 0)
		st = (struct kv_stat){ 0 };
	*ret = (struct engine_space){
		.total_bytes = (uint64_t)pool_npages(e->pool) * PAGE_BYTES,
		.free_bytes = (uint64_t)pool_nfree(e->pool) * PAGE_BYTES,
		.evictable_bytes = e->evict ? evict_bytes(e->evict) : 0,
		.evictable_objects = e->evict ? evict_objects(e->evict) : 0,
		.index_size_bytes = st.size_bytes,
		.index_used_bytes = st.used_bytes,
		.pool_id = pool_id(e->pool),
		.evict_dirs_ms = e->evict ? evict_dirs_ms(e->evict) : 0,
		.disk_bytes = disk.total_bytes,
		.disk_used_bytes = disk.live_bytes,
	};
}

void engine_space(struct engine *e, struct engine_space *ret)
{
	if (e->peer)
		space_of_peer(e, ret);
	else
		space_of_store(e, ret);
	metric_set(M_EVICTABLE, (int64_t)ret->evictable_bytes);
	metric_set(M_INDEX_BYTES, (int64_t)ret->index_used_bytes);
	metric_set(M_INDEX_SIZE, (int64_t)ret->index_size_bytes);
}

unsigned engine_dirs_tell_ms(uint64_t evict_dirs_ms)
{
	enum { PART = 8, LEAST_MS = 500, MOST_MS = 300 * 1000 };
	uint64_t ms = evict_dirs_ms ? evict_dirs_ms / PART : MOST_MS;

	return ms < LEAST_MS ? LEAST_MS : ms > MOST_MS ? MOST_MS : (unsigned)ms;
}

void engine_print_stats(struct engine *e, struct writer *w)
{
	struct engine_space s;

	engine_space(e, &s);
	if (e->evict)
		evict_count_quotas(e->evict);
	metrics_print(w);
}

void engine_watch_eviction(struct engine *e, const struct eviction *v)
{
	if (e->evict)
		evict_watch(e->evict, v);
	if (e->scrubs)
		scrubs_watch(e->scrubs, v);
}

/* Scrubbing ---------------------------------------------------------------------------- */

int engine_scrub(struct engine *e, const struct scrub_opts *o, struct scrub **ret)
{
	if (!e->scrubs)
		return -EOPNOTSUPP;
	if (o->evict_bad && e->read_only)
		return -EROFS;
	return scrub_begin(e->scrubs, o, ret);
}

int engine_scrub_there(struct engine *e, enum scrub_call call, const struct scrub_opts *o,
		       uint64_t deadline_ns, struct writer *ret_report)
{
	const struct wire_scrub m = { call == SCRUB_BEGIN, o->evict_bad, o->rate };
	struct writer w = { 0 };

	if (!e->peer || !remote_has(peer_remote(e->peer), WIRE_FEATURE_SCRUB))
		return -EOPNOTSUPP;
	wire_write_scrub(&w, &m);
	int r = remote_ask(peer_remote(e->peer), WIRE_SCRUB, w, deadline_ns, ret_report);
	return r == WIRE_SCRUB_BUSY ? -EBUSY : r;
}

/* Serving --------------------------------------------------------------------------- */

static void print_stats(void *arg, struct writer *w)
{
	engine_print_stats(arg, w);
}

/* `key` is there as long as *ret is in use. */
static int server_opts_of(const struct serve_opts *o, struct auth_key *key,
			  struct server_opts *ret, char **ret_why)
{
	int r = auth_key_load(o->token_file, key, ret_why);

	if (r < 0)
		return r;
	*ret = (struct server_opts){
		.listen = o->listen, .key = o->token_file ? key : NULL, .anybody = o->insecure,
		.keep_alive_ms = o->keep_alive_ms, .max_sessions = o->max_sessions,
		.threads = o->threads, .rdma = o->rdma,
	};
	return 0;
}

int engine_serve_check(const struct serve_opts *o, char **ret_why)
{
	struct server_opts so;
	struct auth_key key;
	int r = server_opts_of(o, &key, &so, ret_why);

	return r < 0 ? r : server_check(&so, ret_why);
}

int engine_serve(struct engine *e, const struct serve_opts *o, char **ret_why)
{
	char at[STREAM_NAME];
	struct server_opts so;
	struct auth_key key;
	int r = server_opts_of(o, &key, &so, ret_why);

	assert(!e->server && e->pool);
	if (r < 0)
		return r;
	so.ix = e->ix;
	so.pool = e->pool;
	so.evict = e->evict;
	so.scrubs = e->scrubs;
	so.verify = e->verify;
	so.tier = e->tier;
	so.print_stats = print_stats;
	so.stats_arg = e;
	e->alone = false; /* mounts change the index, too, from here on */
	r = server_open(&so, &e->server, ret_why);
	if (r < 0 || !e->store)
		return r;
	server_address(e->server, at);
	r = store_note_served(e->store, at);
	return r < 0 ? why(ret_why, r, "store %s: cannot write to store.lock: %s", dir_of(e),
			   error_text(r)) : 0;
}

uint16_t engine_serve_port(const struct engine *e)
{
	return server_port(e->server);
}

void engine_serve_address(const struct engine *e, char *ret)
{
	server_address(e->server, ret);
}

void engine_serve_end(struct engine *e, uint32_t ms)
{
	server_drain(e->server, ms);
	server_close(e->server);
	e->server = NULL;
}

/* The view of slices ------------------------------------------------------------------ */

struct holder {
	struct slice_id slice;
	uint64_t fileid, since_ns;
	bool draft;
};

struct holders {
	struct holder *v;
	size_t n, cap;
	bool short_of_memory;
};

static void add_holder(void *arg, struct slice_id s, uint64_t fileid, uint64_t since_ns, bool draft)
{
	struct holders *h = arg;

	if (array_room(h->v, h->cap, h->n + 1, 256) < 0)
		h->short_of_memory = true;
	else
		h->v[h->n++] = (struct holder){ s, fileid, since_ns, draft };
}

static int holder_cmp(const void *a, const void *b)
{
	const struct holder *x = a, *y = b;

	if (x->slice.page != y->slice.page)
		return x->slice.page < y->slice.page ? -1 : 1;
	if (x->slice.gen != y->slice.gen)
		return x->slice.gen < y->slice.gen ? -1 : 1;
	return x->fileid < y->fileid ? -1 : x->fileid > y->fileid;
}

/* Those of one slice, from *at on; a file that holds it several times, once. */
static void print_holders(const struct holders *h, size_t *at, struct slice_id s,
			  struct writer *w)
{
	uint64_t now = clock_ns(), last = 0;

	while (*at < h->n && h->v[*at].slice.page < s.page)
		++*at;
	for (; *at < h->n && h->v[*at].slice.page == s.page; ++*at) {
		const struct holder *x = &h->v[*at];
		if (x->slice.gen != s.gen || x->fileid == last)
			continue;
		last = x->fileid;
		double since_s = now > x->since_ns ? (double)(now - x->since_ns) / NS_PER_S : 0;
		write_format(w, " %" PRIu64 "%s(%.1fs)", x->fileid, x->draft ? "*" : "", since_s);
	}
}

/* Another host's pool: what is held here is all that is known. */
static void print_held(const struct holders *h, struct writer *w)
{
	for (size_t i = 0, at = 0; i < h->n; i = at) {
		write_format(w, "%10u %10u %-7s %5s %6s %6s ", h->v[i].slice.page,
			     h->v[i].slice.gen, "-", "-", "-", "-");
		print_holders(h, &at, h->v[i].slice, w);
		write_format(w, "\n");
	}
}

/* Files and slices are not looked at in one moment: a holder whose slice went
 * meanwhile is left out, a slice whose holder came meanwhile has none. */
void engine_print_slices(struct engine *e, struct writer *w)
{
	struct holders h = { 0 };
	struct slice_view v;
	size_t at = 0;

	write_format(w, "# slice generation state pages refs pins  "
			"held by object (* draft) (since)\n");
	if (files_holders(e->files, add_holder, &h) < 0 || h.short_of_memory)
		write_format(w, "# not all holders: out of memory\n");
	if (h.n)
		qsort(h.v, h.n, sizeof(*h.v), holder_cmp);
	if (e->peer)
		print_held(&h, w);
	for (uint32_t page = 0; e->pool && pool_next(e->pool, page, &v); page = v.id.page + v.npages) {
		write_format(w, "%10u %10u %-7s %5u %6u %6u ", v.id.page, v.id.gen,
			     slice_state_name(v.state), v.npages, v.refs, v.pins);
		print_holders(&h, &at, v.id, w);
		write_format(w, "\n");
	}
	free(h.v);
}
