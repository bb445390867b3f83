/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session may ask of the key space that it shares with others. A node looks
 * at each request of a mount before the engine gets it, so that no mount's mistake
 * ends or changes another one's drafts.
 *
 * Session keys that are written carry the session's own number, but for the two
 * that others' plans have to write: whoever moves or removes an object that another
 * session writes says so in that session's `w`, which is there already (writers.c);
 * whoever sets the times of a directory by hand removes the `t` of all (object.c).
 *
 * Reads and compares are free: a plan has to mind the drafts of others.
 */
#include <errno.h>

#include "index/keys.h"

static bool is_there(const struct kv_req *req, struct bytes key)
{
	for (uint32_t i = 0; i < req->ncompares; i++) {
		const struct kv_compare *c = &req->compares[i];
		if (c->kind == KV_REVISION && c->revision && bytes_eq(c->key, key))
			return true;
	}
	return false;
}

static bool tells_where(const struct kv_req *req, const struct kv_write *w)
{
	struct writer_state state;
	uint64_t fileid;

	if (!w->value.p || key_parse_id(w->key, 'w', &fileid) || !is_there(req, w->key) ||
	    writer_state_decode(w->value, &state))
		return false;
	bool draft = state.draft;
	writer_state_fini(&state);
	return !draft;
}

static bool removes_times(const struct kv_write *w)
{
	uint64_t dir;

	return !w->value.p && !key_parse_id(w->key, 't', &dir);
}

int index_request_check(const struct kv_req *req, uint64_t session)
{
	for (uint32_t i = 0; i < req->nwrites; i++) {
		const struct kv_write *w = &req->writes[i];
		if (kv_key_is_session(w->key) && kv_key_session(w->key) != session &&
		    !tells_where(req, w) && !removes_times(w))
			return -ESTALE;
	}
	return 0;
}

/* All slots of one name's hash: what name_find() reads. */
static bool is_lookup(const struct kv_read *read, char kind)
{
	struct reader r = reader_of(read->from);
	char k = (char)read_u8(&r);
	uint64_t parent = read_be64(&r), h = read_be64(&r);

	if (r.bad || r.left || k != kind || h_hash(h) != h || h > INT64_MAX - NAME_STEP)
		return false;
	struct key end = key_prefix_end(key_prefix_h(kind, parent, h + NAME_STEP - 1));
	return bytes_eq(read->to, key_bytes(&end));
}

bool index_request_missed(const struct kv_req *req)
{
	bool asked = false;

	if (req->nwrites || req->ncompares || !req->rows)
		return false;
	for (uint32_t i = 0; i < req->nreads; i++) {
		bool name = is_lookup(&req->reads[i], 'D');
		if ((name || is_lookup(&req->reads[i], 'n')) && req->rows[i].nrows)
			return false;
		asked |= name;
	}
	return asked;
}
