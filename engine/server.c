/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection that came in is a `struct peer`, and goes through
 *
 *	  HELLO            PROOF                      the connection ends
 *	NEW ---> CHALLENGED ---> UP, with its session -------------------> gone,
 *	                  \--> WAITING --^
 *
 * when its session has ended as well. Before UP it may say only what is next,
 * in short messages, and soon. It is WAITING while a session ends of which it has
 * proved that it takes the place: what that one had is gone when it begins. A data
 * connection ends here with its PROOF: its socket goes on as a lane of its session,
 * on another loop (engine/lanes.h).
 */
#include "engine/server.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "common/log.h"
#include "engine/doors.h"
#include "engine/session.h"
#include "engine/stream_rdma.h"
#include "index/index.h"

enum {
	PEERS_MAX = 1024, /* connections, sessions or not; twice that while some are ending */
	HELLO_BYTES = 512,
	HELLO_S = 5,
	DRAIN_LOOK_NS = 20000000,
	WAIT_S = 60, /* for the end of the session before */
	THREADS_MAX = 64,
};

enum peer_state { PEER_NEW, PEER_CHALLENGED, PEER_WAITING, PEER_UP };

struct peer {
	struct server *server;
	struct conn *conn;
	struct session *session;
	uint64_t number; /* of the session; WAITING: of the one before */
	enum peer_state state;
	bool is_out;     /* to make room for another one */
	struct writer hello; /* as it was sent */
	uint64_t lane_of;    /* a session's number; 0: it is no data connection */
	uint32_t lane;       /* its own */
	struct wire_challenge challenge;
	struct peer *prev, *next;
};

struct server {
	struct server_opts o;
	struct auth_key key;
	uint64_t incarnation;
	struct loop *loop, *ends;
	struct loop *bytes[THREADS_MAX]; /* for lanes, in turn */
	sem_t ended; /* what closing waits for */
	int opened;
	struct doors *doors; /* NULL: no RDMA */
	int rdma;            /* negative: they are closed now */

	struct sockaddr_storage at; /* stays as it is once it is open */

	/* The loop's thread only. */
	struct listener *listener;
	struct peer *peers;
	uint32_t npeers, nsessions;
	uint32_t nstreams; /* by RDMA, that are not gone */
	uint64_t last_session;
	uint32_t last_lane;
	bool closing;
	bool deaf;      /* does not listen any more */
	uint32_t nbusy; /* sessions, when server_drain() last looked */
};

/* The end ----------------------------------------------------------------------- */

static void settle(struct server *s)
{
	if (s->closing && !s->peers && !s->nstreams && !s->listener)
		sem_post(&s->ended);
}

static void peer_free(struct peer *p)
{
	struct server *s = p->server;

	*(p->prev ? &p->prev->next : &s->peers) = p->next;
	if (p->next)
		p->next->prev = p->prev;
	s->npeers--;
	conn_free(p->conn);
	writer_fini(&p->hello);
	free(p);
	settle(s);
}

static int let_in(struct peer *p);

static void session_ended(void *arg)
{
	struct peer *p = arg;
	struct server *s = p->server;

	s->nsessions--;
	for (struct peer *w = s->peers; w && !s->closing; w = w->next) {
		int r = w->state == PEER_WAITING && w->number == p->number ? let_in(w) : 0;
		if (r < 0)
			conn_stop(w->conn, r); /* ended() comes later */
	}
	peer_free(p);
}

static const char *reason_text(int reason)
{
	switch (reason) {
	case -EKEYREJECTED:
		return "its token is another one";
	case -ESHUTDOWN:
		return "it said so";
	case -ECANCELED:
		return "the node stops";
	case -ESTALE:
		return "its mount has come back";
	case -ENOENT:
		return "its session is not there";
	case -EEXIST:
		return "its session has a data connection of that number";
	case -EUSERS:
		return "there are as many as may be";
	default:
		return conn_reason_text(reason);
	}
}

static void peer_ended(void *arg, int reason)
{
	struct peer *p = arg;

	if (p->session) {
		log_info("node", "session %s at %s ends: %s", session_name(p->session),
			 conn_peer(p->conn), reason_text(reason));
		session_end(p->session);
		return;
	}
	if (reason != -ECONNRESET && reason != -ECANCELED && reason != -EALREADY)
		log_warn("node", "%s was not let in: %s", conn_peer(p->conn),
			 reason_text(reason));
	peer_free(p);
}

/* The beginning ------------------------------------------------------------------- */

static struct peer *peer_of_session(struct server *s, uint64_t number)
{
	struct peer *p = s->peers;

	while (p && !(p->session && p->number == number))
		p = p->next;
	return p;
}

/* Under which it proves itself; NULL: its session is not there. */
static const struct auth_key *key_of(const struct peer *p)
{
	struct peer *of = p->lane_of ? peer_of_session(p->server, p->lane_of) : NULL;

	if (!p->lane_of)
		return &p->server->key;
	return of ? (const struct auth_key *)session_secret(of->session) : NULL;
}

static uint32_t features(const struct server *s)
{
	return (s->doors ? WIRE_FEATURE_RDMA : 0) | (s->o.verify ? WIRE_FEATURE_VERIFY : 0) |
	       (s->o.scrubs ? WIRE_FEATURE_SCRUB : 0) |
	       (s->o.print_stats ? WIRE_FEATURE_STATS : 0);
}

static int on_hello(struct peer *p, const struct wire_header *h, struct bytes body)
{
	struct wire_hello m;
	struct writer w = { 0 };

	if (h->type != WIRE_HELLO || wire_read_hello(body, &m) < 0)
		return -EPROTO;
	if (m.version_min > WIRE_VERSION || m.version_max < WIRE_VERSION)
		return -EPROTONOSUPPORT;
	p->lane_of = m.kind == WIRE_DATA ? m.session : 0;
	p->lane = m.number;
	const struct auth_key *key = key_of(p);
	if (!key)
		return -ENOENT;
	write_bytes(&p->hello, body.p, body.len);
	if (p->hello.bad)
		return -ENOMEM;
	p->challenge.version = WIRE_VERSION;
	p->challenge.features = m.features & features(p->server);
	auth_random(p->challenge.nonce);
	auth_prove(key, AUTH_NODE, body, &p->challenge, p->challenge.proof);
	p->state = PEER_CHALLENGED;
	wire_write_challenge(&w, &p->challenge);
	conn_send(p->conn, WIRE_CHALLENGE, w);
	return 0;
}

static uint32_t max_lanes(const struct server *s)
{
	return s->o.rdma.by == ENGINE_RDMA ? 0 : s->o.max_lanes;
}

static int begin_session(struct peer *p)
{
	struct server *s = p->server;
	struct wire_hello m;
	int r = wire_read_hello(writer_bytes(&p->hello), &m);

	assert(r == 0); /* it was read before */
	if (s->nsessions == s->o.max_sessions)
		return -EUSERS;
	/* A mount's numbers rise, also where the node began anew. */
	if (m.session > s->last_session && m.session < INT64_MAX)
		s->last_session = m.session;
	struct session_opts o = {
		.number = s->last_session + 1, .loop = s->loop, .ends = s->ends,
		.ix = s->o.ix, .kv = s->o.kv, .pool = s->o.pool, .evict = s->o.evict,
		.scrubs = s->o.scrubs, .tier = s->o.tier,
		.print_stats = s->o.print_stats, .stats_arg = s->o.stats_arg,
		.max_pins = s->o.max_pins, .max_lanes = max_lanes(s), .doors = s->doors,
		.max_ways = s->o.max_lanes, .max_requests = s->o.max_requests,
		.keep_alive_ms = s->o.keep_alive_ms,
		.read_only = m.read_only,
		.name = m.name, .conn = p->conn, .ended = session_ended, .arg = p,
	};
	r = session_new(&o, &p->session);
	if (r < 0)
		return r;
	p->number = o.number;
	s->last_session = o.number;
	s->nsessions++;
	log_info("node", "session %s begins, %s%s", session_name(p->session),
		 conn_peer(p->conn), m.read_only ? ", read-only" : "");
	return 0;
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static void welcome(struct peer *p)
{
	struct server *s = p->server;
	struct kv_caps caps = s->o.kv->ops->caps(s->o.kv);
	struct wire_welcome m = {
		.session = p->number, .incarnation = s->incarnation,
		.pool_id = pool_id(s->o.pool), .pool_pages = pool_npages(s->o.pool),
		.keep_alive_ms = s->o.keep_alive_ms, .max_requests = s->o.max_requests,
		.max_pins = s->o.max_pins, .max_lanes = max_lanes(s),
		.kv_compares = lesser(caps.max_compares, WIRE_KV_COMPARES),
		.kv_writes = lesser(caps.max_writes, WIRE_KV_WRITES),
		.kv_reads = lesser(caps.max_reads, WIRE_KV_READS),
		.kv_bytes = lesser(caps.max_bytes, WIRE_KV_BYTES),
	};
	struct writer w = { 0 };

	memcpy(m.secret, session_secret(p->session), sizeof(m.secret));
	wire_write_welcome(&w, &m);
	conn_send(p->conn, WIRE_WELCOME, w);
}

static int let_in(struct peer *p)
{
	struct server *s = p->server;
	int r = begin_session(p);

	if (r < 0)
		return r;
	p->state = PEER_UP;
	welcome(p);
	struct conn_limits limits = { .max_body = WIRE_BODY_MAX,
				      .max_owed = s->o.max_requests,
				      .idle_ms = s->o.keep_alive_ms };
	conn_set_limits(p->conn, &limits);
	return 0;
}

/* The session that it takes the place of, if that is there: its secret is proved, so
 * that nobody ends another one's, and what has the number since the node began anew
 * is not taken for it. */
static struct peer *session_before(struct peer *p, const struct wire_proof *m)
{
	struct wire_hello hello;
	struct auth_key key;
	int r = wire_read_hello(writer_bytes(&p->hello), &hello);

	assert(r == 0); /* it was read before */
	struct peer *before = hello.session ? peer_of_session(p->server, hello.session) : NULL;
	if (!before)
		return NULL;
	memcpy(key.b, session_secret(before->session), sizeof(key.b));
	if (auth_proves(&key, AUTH_MOUNT, writer_bytes(&p->hello), &p->challenge, m->before))
		return before;
	log_warn("node", "%s does not take the place of session %s: that is another one's",
		 conn_peer(p->conn), session_name(before->session));
	return NULL;
}

/* Its socket becomes a lane; what is left of it here ends without a word. */
static int begin_lane(struct peer *p)
{
	struct server *s = p->server;
	int fd = conn_socket(p->conn);

	if (fd < 0)
		return fd;
	struct loop *on = s->bytes[s->last_lane++ % s->o.threads];
	struct peer *of = peer_of_session(s, p->lane_of);
	int r = session_add_lane(of->session, on, fd, p->lane);
	return r < 0 ? r : -EALREADY;
}

static int on_proof(struct peer *p, const struct wire_header *h, struct bytes body)
{
	const struct auth_key *key = key_of(p);
	struct wire_proof m;

	if (h->type != WIRE_PROOF || wire_read_proof(body, &m) < 0)
		return -EPROTO;
	if (!key)
		return -ENOENT;
	if (!auth_proves(key, AUTH_MOUNT, writer_bytes(&p->hello), &p->challenge, m.proof))
		return -EKEYREJECTED;
	if (p->lane_of)
		return begin_lane(p);
	struct peer *before = session_before(p, &m);
	if (!before)
		return let_in(p);
	struct conn_limits limits = { .max_body = HELLO_BYTES,
				      .until_ns = clock_ns() + WAIT_S * NS_PER_S };
	p->state = PEER_WAITING;
	p->number = before->number;
	conn_set_limits(p->conn, &limits);
	conn_stop(before->conn, -ESTALE); /* it may be ending already */
	return 0;
}

static int peer_message(void *arg, const struct wire_header *h, struct bytes body)
{
	struct peer *p = arg;

	switch (p->state) {
	case PEER_NEW:
		return on_hello(p, h, body);
	case PEER_CHALLENGED:
		return on_proof(p, h, body);
	case PEER_WAITING:
		return -EPROTO;
	case PEER_UP:
		return session_message(p->session, h, body);
	}
	return -EPROTO;
}

static void peer_taken(void *arg)
{
	struct peer *p = arg;

	if (p->session)
		session_taken(p->session);
}

static const struct conn_ops peer_ops = { .message = peer_message, .taken = peer_taken,
					  .ended = peer_ended };

/* Who has proved nothing yet makes room for who comes, the first one first: so silence keeps
 * nobody out. */
static bool make_room(struct server *s)
{
	struct peer *oldest = NULL;

	for (struct peer *p = s->peers; p; p = p->next)
		if ((p->state == PEER_NEW || p->state == PEER_CHALLENGED) && !p->is_out)
			oldest = p;
	if (!oldest || s->npeers >= 2 * PEERS_MAX)
		return false;
	oldest->is_out = true;
	conn_stop(oldest->conn, -EUSERS);
	return true;
}

static bool has_room(struct server *s, const char *who)
{
	if (s->npeers < PEERS_MAX || make_room(s))
		return true;
	log_warn("node", "%s was not let in: %u connections are enough", who, s->npeers);
	return false;
}

static void on_accept(void *arg, struct stream *stream)
{
	struct server *s = arg;
	struct conn_limits limits = { .max_body = HELLO_BYTES,
				      .until_ns = clock_ns() + HELLO_S * NS_PER_S };
	struct peer *p = has_room(s, stream_peer(stream)) ? calloc(1, sizeof(*p)) : NULL;

	if (!p) {
		stream_stop(stream, -EUSERS);
		return;
	}
	p->server = s;
	if (conn_accept(s->loop, stream, &limits, &peer_ops, p, &p->conn) < 0) {
		free(p);
		return;
	}
	p->next = s->peers;
	if (p->next)
		p->next->prev = p;
	s->peers = p;
	s->npeers++;
}

/* Opening and closing -------------------------------------------------------------- */

static void stream_gone(void *arg)
{
	struct server *s = arg;

	s->nstreams--;
	settle(s);
}

/* One that carries messages: it is taken as a socket is, which nobody listens for when
 * the node stops. */
static void on_rdma_stream(struct server *s, struct rdma_conn *c)
{
	struct stream_rdma_opts o = { .loop = s->loop, .until_ns = clock_ns() + HELLO_S * NS_PER_S,
				      .gone = stream_gone, .arg = s };
	struct stream *stream;

	if (s->deaf || s->npeers >= 2 * PEERS_MAX) { /* on_accept() makes room */
		rdma_conn_reject(c, s->deaf ? -ECONNREFUSED : -EUSERS);
		return;
	}
	int r = stream_rdma_accept(c, &o, &stream);
	if (r < 0) {
		log_warn("node", "an RDMA connection was not let in: %s", error_text(r));
		return;
	}
	s->nstreams++;
	on_accept(s, stream);
}

/* A connection by RDMA: of messages, or for the session that gave this ticket. */
static void on_rdma_request(void *arg, struct rdma_conn *c, struct bytes ticket)
{
	struct server *s = arg;

	if (stream_rdma_is_wanted(ticket)) {
		on_rdma_stream(s, c);
		return;
	}
	for (struct peer *p = s->peers; p; p = p->next)
		if (p->session && session_accept(p->session, c, ticket))
			return;
	log_warn("node", "an RDMA connection was not let in: nobody has this ticket");
	rdma_conn_reject(c, -EACCES);
}

/* Nobody who comes by TCP finds the doors still closed. */
static void open_on_loop(void *arg)
{
	struct server *s = arg;

	s->opened = listener_new(s->loop, &s->at, on_accept, s, &s->listener);
	if (s->opened >= 0)
		listener_address(s->listener, &s->at);
	if (s->opened >= 0 && s->doors)
		s->rdma = doors_listen(s->doors, &s->at);
}

static void listener_closed(void *arg)
{
	struct server *s = arg;

	s->listener = NULL;
	settle(s);
}

/* Nobody is let in from here on: s->listener is NULL, or going. */
static void stop_listening(struct server *s)
{
	if (!s->deaf)
		listener_stop(s->listener, listener_closed, s);
	s->deaf = true;
}

static void drain_on_loop(void *arg)
{
	struct server *s = arg;

	stop_listening(s);
	s->nbusy = 0;
	for (struct peer *p = s->peers; p; p = p->next)
		s->nbusy += p->session && session_is_busy(p->session);
}

static void close_on_loop(void *arg)
{
	struct server *s = arg;

	s->closing = true;
	stop_listening(s);
	for (struct peer *p = s->peers; p; p = p->next)
		conn_stop(p->conn, -ECANCELED); /* ended() comes later */
	settle(s);
}

/* Returns when all have ended. */
static void end_all(struct server *s)
{
	loop_run(s->loop, close_on_loop, s);
	while (sem_wait(&s->ended) < 0)
		;
}

static void server_free(struct server *s)
{
	doors_close(s->doors);
	loop_free(s->ends); /* first: it posts to the other one */
	loop_free(s->loop);
	for (uint32_t i = 0; i < s->o.threads; i++)
		loop_free(s->bytes[i]);
	sem_destroy(&s->ended);
	free(s);
}
DEFINE_CLEANUP(struct server *, server_free)

static uint32_t usual_threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > 8 ? 8 : (uint32_t)n;
}

static struct server *server_new(const struct server_opts *o)
{
	struct server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->o = *o;
	s->o.keep_alive_ms = o->keep_alive_ms ? o->keep_alive_ms : 10000;
	s->o.max_sessions = o->max_sessions ? o->max_sessions : 256;
	s->o.max_requests = o->max_requests ? o->max_requests : 256;
	s->o.max_pins = o->max_pins ? o->max_pins : 1 << 20;
	if (o->ix) {
		s->o.kv = index_kv(o->ix);
		s->last_session = index_session(o->ix);
	}
	s->o.max_lanes = o->max_lanes ? o->max_lanes : 16;
	s->o.threads = lesser(o->threads ? o->threads : usual_threads(), THREADS_MAX);
	if (o->key)
		s->key = *o->key;
	s->incarnation = auth_random_number();
	sem_init(&s->ended, 0, 0);
	return s;
}

static const char *where(const struct server_opts *o)
{
	return o->listen ? o->listen : "127.0.0.1";
}

static int resolve(const struct server_opts *o, struct sockaddr_storage *ret, char **ret_why)
{
	int r = stream_resolve(where(o), SERVER_PORT, ret);

	if (r < 0)
		return why(ret_why, r, "listen %s: no such address. Try: --listen with HOST:PORT",
			   where(o));
	if (!stream_is_loopback(ret) && !o->key && !o->anybody)
		return why(ret_why, -EPERM, "listen %s: other machines can reach it, and there is no "
			   "token. Try: --token-file, or --insecure", where(o));
	return 0;
}

static int refuse_address(const struct server_opts *o, int r, char **ret_why)
{
	switch (r) {
	case -EADDRINUSE:
		return why(ret_why, r, "listen %s: another process listens there. Try: ss -ltnp, or "
			   "--listen with another port", where(o));
	case -EADDRNOTAVAIL:
		return why(ret_why, r, "listen %s: no address of this machine. Try: ip address",
			   where(o));
	case -EACCES:
		return why(ret_why, r, "listen %s: %s. Try: a port above 1023, or as root", where(o),
			   error_text(r));
	default:
		return why(ret_why, r, "listen %s: %s", where(o), error_text(r));
	}
}

int server_check(const struct server_opts *o, char **ret_why)
{
	struct sockaddr_storage at;
	int r = resolve(o, &at, ret_why), on = 1;

	if (r < 0)
		return r;
	_cleanup_(closep) int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		return refuse_address(o, -errno, ret_why);
	return 0;
}

static int new_loops(struct server *s)
{
	int r = loop_new("node", &s->loop);

	if (r >= 0)
		r = loop_new("node-ends", &s->ends);
	for (uint32_t i = 0; r >= 0 && i < s->o.threads; i++)
		r = loop_new("node-bytes", &s->bytes[i]);
	return r;
}

/* Registers the pool, before anybody comes. */
static int open_doors(struct server *s, char **ret_why)
{
	struct doors_opts o = { .loop = s->loop, .pool = s->o.pool, .at = &s->at,
				.rdma = s->o.rdma, .request = on_rdma_request, .arg = s };
	_cleanup_(freep) char *text = NULL;

	if (s->o.rdma.by == ENGINE_TCP)
		return 0;
	int r = doors_open(&o, &s->doors, &text);
	if (s->o.rdma.by == ENGINE_RDMA && (r < 0 || text))
		return why(ret_why, r < 0 ? r : -ENODEV, "listen %s: no RDMA: %s", where(&s->o),
			   text ? text : error_text(r));
	if (text)
		log_info("node", "no RDMA: %s", text);
	return r == -EOPNOTSUPP ? 0 : r;
}

/* The doors, once there is a listener. */
static int check_doors(struct server *s, char **ret_why)
{
	if (!s->doors || s->rdma >= 0)
		return 0;
	if (s->o.rdma.by == ENGINE_RDMA) {
		end_all(s);
		return why(ret_why, s->rdma, "listen %s: no RDMA: %s", where(&s->o),
			   doors_why(s->doors));
	}
	return 0;
}

int server_open(const struct server_opts *o, struct server **ret, char **ret_why)
{
	_cleanup_(server_freep) struct server *s = server_new(o);

	if (!s)
		return -ENOMEM;
	int r = resolve(o, &s->at, ret_why);
	if (!r)
		r = new_loops(s);
	if (!r)
		r = open_doors(s, ret_why);
	if (r < 0)
		return r;
	loop_run(s->loop, open_on_loop, s);
	if (s->opened < 0)
		return refuse_address(o, s->opened, ret_why);
	r = check_doors(s, ret_why);
	if (r < 0)
		return r;
	*ret = steal(&s);
	return 0;
}

void server_drain(struct server *s, uint32_t ms)
{
	uint64_t end = clock_ns() + ms * NS_PER_MS;

	loop_run(s->loop, drain_on_loop, s);
	if (s->nbusy)
		log_info("node", "waiting for %u sessions to finish", s->nbusy);
	while (s->nbusy && clock_ns() < end) {
		nanosleep(&(struct timespec){ .tv_nsec = DRAIN_LOOK_NS }, NULL);
		loop_run(s->loop, drain_on_loop, s);
	}
	if (s->nbusy)
		log_warn("node", "%u sessions end with something under way", s->nbusy);
}

void server_close(struct server *s)
{
	if (!s)
		return;
	end_all(s);
	assert(!s->nsessions);
	server_free(s);
}

uint16_t server_port(const struct server *s)
{
	return ntohs(s->at.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&s->at)->sin6_port
						 : ((const struct sockaddr_in *)&s->at)->sin_port);
}

void server_address(const struct server *s, char ret[STREAM_NAME])
{
	stream_name(&s->at, ret);
}
