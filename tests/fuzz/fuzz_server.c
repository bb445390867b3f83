/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node that is told a sequence of messages over loopback: the first byte says whether by
 * one that was let in (bit 0), that has a data connection (bit 1), and that knows RDMA
 * (bit 2); then each message is a type, a byte that may spoil its header, a length of two
 * bytes, and its body. READ and WRITE go over the data connection, if there is one. Whatever
 * comes, the session ends, and nothing of it is left.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "engine/server.h"
#include "index/index.h"
#include "tests/fuzz/roundtrip.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct server *server;
static struct pool *pool;

static void print_stats(void *arg, struct writer *w)
{
	(void)arg;
	write_format(w, "slicefs_x 1\n");
}

static void start(void)
{
	struct pool_opts po = { .bytes = 4 << 20, .create = true };
	struct index *ix;
	struct kv *kv;

	log_set_level(LOG_LEVEL_ERROR);
	must(!kv_mem_open(&kv) && !pool_open(&po, &pool), "an index and a pool");
	must(!index_open(kv, INDEX_SESSION_OWN, true, &ix), "an index");
	struct server_opts o = { .listen = "127.0.0.1:0", .ix = ix, .pool = pool, .max_pins = 50,
				 .print_stats = print_stats };
	must(!server_open(&o, &server, NULL), "a node");
}

static int dial(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(server_port(server)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval most = { 20, 0 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	must(fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)), "a connection");
	setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
	return fd;
}

/* It may have closed already. */
static void tell(int fd, struct wire_header h, struct bytes body)
{
	uint8_t b[WIRE_HEADER];

	wire_put_header(b, &h);
	if (send(fd, b, sizeof(b), MSG_NOSIGNAL) == sizeof(b) && body.len)
		(void)!send(fd, body.p, body.len, MSG_NOSIGNAL);
}

static void hear(int fd, void *to, size_t n)
{
	must(recv(fd, to, n, MSG_WAITALL) == (ssize_t)n, "an answer of the beginning");
}

/* HELLO, CHALLENGE and PROOF. */
static void begin(int fd, struct wire_hello m, const struct auth_key *key)
{
	struct writer hello = { 0 };
	struct wire_challenge c;
	uint8_t b[WIRE_HEADER + 200], proof[2 * WIRE_NONCE] = { 0 };

	m.version_min = m.version_max = WIRE_VERSION;
	wire_write_hello(&hello, &m);
	tell(fd, (struct wire_header){ .type = WIRE_HELLO, .len = (uint32_t)hello.len },
	     writer_bytes(&hello));
	hear(fd, b, WIRE_HEADER + 72);
	must(!wire_read_challenge(BYTES_OF(b + WIRE_HEADER, 72), &c), "CHALLENGE");
	auth_prove(key, AUTH_MOUNT, writer_bytes(&hello), &c, proof);
	tell(fd, (struct wire_header){ .type = WIRE_PROOF, .len = sizeof(proof) },
	     BYTES_OF(proof, sizeof(proof)));
	writer_fini(&hello);
}

static void join_node(int fd, uint32_t features, struct wire_welcome *ret)
{
	const struct auth_key none = { 0 };
	uint8_t b[WIRE_HEADER + 92];

	begin(fd, (struct wire_hello){ .features = features }, &none);
	hear(fd, b, sizeof(b));
	must(!wire_read_welcome(BYTES_OF(b + WIRE_HEADER, 92), ret), "WELCOME");
}

static int dial_lane(const struct wire_welcome *w)
{
	struct auth_key key;
	uint8_t b[WIRE_HEADER];
	int fd = dial();

	memcpy(key.b, w->secret, sizeof(key.b));
	begin(fd, (struct wire_hello){ .kind = WIRE_DATA, .session = w->session, .number = 1 },
	      &key);
	hear(fd, b, sizeof(b));
	return fd;
}

static bool has_id(uint8_t type)
{
	return type > WIRE_READY && type != WIRE_BYE && type != WIRE_RING && type != WIRE_UNPIN;
}

static void tell_all(int fd, int lane, struct reader *r)
{
	for (uint64_t id = 1; r->left >= 4; id++) {
		uint8_t type = read_u8(r), spoil = read_u8(r);
		size_t len = read_u16(r);

		len = len < r->left ? len : r->left;
		struct wire_header h = { .len = (uint32_t)len, .type = type,
					 .id = has_id(type) ? id : 0 };
		if (spoil >= 250) {
			h.len += spoil == 250 ? 1000000u : 0;
			h.flags = spoil == 251 ? WIRE_ANSWER : spoil == 252 ? 0x8000 : 0;
			h.id = spoil == 253 ? 1 : spoil == 254 ? UINT64_MAX : h.id;
		}
		tell(lane >= 0 && type >= WIRE_READ ? lane : fd, h,
		     BYTES_OF(read_bytes(r, len), len));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct reader r = reader_of(BYTES_OF(p, n));
	char b[4096];

	if (!server)
		start();
	if (!n)
		return 0;
	unsigned how = read_u8(&r);
	int fd = dial(), lane = -1;
	struct wire_welcome w;
	if (how & 1)
		join_node(fd, how & 4 ? WIRE_FEATURE_RDMA : 0, &w);
	if ((how & 3) == 3)
		lane = dial_lane(&w);
	tell_all(fd, lane, &r);
	shutdown(fd, SHUT_WR);
	while (recv(fd, b, sizeof(b), 0) > 0)
		;
	close(fd);
	if (lane >= 0)
		close(lane);
	for (uint64_t end = clock_ns() + 20 * NS_PER_S; metrics_busy(NULL);) {
		int64_t busy = 0;
		const char *name = metrics_busy(&busy);
		must(clock_ns() < end, name ? name : "idle");
		usleep(20);
	}
	must(pool_nfree(pool) == pool_npages(pool), "all is given back");
	return 0;
}
