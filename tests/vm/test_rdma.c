/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine/rdma.h between two hosts: runs in the virtual machine (tests/vm/test-rdma).
 * With the argument "node" it is a node in a process of its own, to be killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>

#include "rdma_world.h"

extern char **environ;

static struct world world;
static const struct rdma_conn_opts usual = { .spin_us = RDMA_SPIN_US };

static int setup(void **state)
{
	(void)state;
	world_open(&world);
	return 0;
}

static int teardown(void **state)
{
	int64_t value;
	(void)state;

	world_close(&world);
	const char *busy = metrics_busy(&value);
	if (busy)
		fprintf(stderr, "%s is %lld\n", busy, (long long)value);
	return busy ? -1 : 0;
}

static void run(const char *command)
{
	int status = system(command);

	if (status)
		fail_msg("%s: status %#x", command, (unsigned)status);
}

/* Discovery ------------------------------------------------------------------------- */

/* Both hosts see both devices, and each can use the one whose addresses are its own. */
static void the_port_with_the_address_is_chosen(void **state)
{
	(void)state;

	for (int host = 1; host <= 2; host++) {
		struct rdma_choice choice[RDMA_CHOICES_MAX];
		char device[16], address[32], name[16];
		struct sockaddr_storage local;
		struct rdma_want want = { .numa_node = -1, .gid_index = -1, .local = &local };
		struct rdma_port *v;
		unsigned n, found;

		snprintf(name, sizeof(name), "h%d", host);
		snprintf(device, sizeof(device), "rxe%d", host);
		snprintf(address, sizeof(address), "10.77.0.%d", host);
		enter_netns(name);
		assert_int_equal(rdma_ports(&v, &n, NULL), 0);
		assert_true(n >= 2);
		for (unsigned i = 0; i < n; i++) {
			print_message("%s:%u %s %s mtu %u\n", v[i].device, v[i].port, v[i].state,
				      rdma_link_name(v[i].link), v[i].mtu_bytes);
			assert_true(v[i].active && v[i].ngids);
		}
		local = ipv4(address, 0);
		int r = rdma_choose_all(v, n, &want, choice, RDMA_CHOICES_MAX, &found, NULL);
		assert_int_equal(r, 0);
		assert_int_equal(found, 1);
		assert_string_equal(choice->device, device);
		assert_memory_equal(&choice->address, &local, sizeof(struct sockaddr_in));
		print_message("%s: GID %u: %s\n", choice->device, choice->gid_index,
			      choice->reason);
		rdma_ports_free(v, n);
	}
	assert_true(rdma_dev_is_up(world.node.dev));
}

/* Beginning and end ------------------------------------------------------------------- */

static void both_ends_learn_of_the_end(void **state)
{
	struct end e, *other;
	(void)state;

	connect_to_node(&world, &e, &usual);
	other = node_end(&world, 0);
	hang_up(&e);
	assert_int_equal(e.reason, -ECANCELED);
	wait_true(&other->closed, "the node's end");
	assert_int_equal(other->reason, -ECONNRESET);

	connect_to_node(&world, &e, &usual);
	other = node_end(&world, 1);
	rdma_conn_stop(other->conn, -ESHUTDOWN);
	wait_true(&e.closed, "the mount's end");
	assert_int_equal(e.reason, -ECONNRESET);
	wait_true(&other->closed, "the node's end");
	assert_int_equal(other->reason, -ESHUTDOWN);
}

static void expect_refused(struct dial *d, int reason, int other)
{
	loop_run(world.mount.loop, dial_run, d);
	wait_true(&d->e->closed, "refused");
	print_message("%d: %s\n", d->e->reason, d->e->why);
	assert_false(atomic_load(&d->e->up));
	assert_true(d->e->reason == reason || d->e->reason == other);
}

static void who_has_no_ticket_is_rejected(void **state)
{
	uint8_t wrong[32] = { 1 };
	struct end e;
	struct dial d = { &world, &e, BYTES_OF(wrong, sizeof(wrong)), world.at, usual };
	(void)state;

	expect_refused(&d, -EKEYREJECTED, 0);
	d.ticket = BYTES_NONE;
	expect_refused(&d, -EKEYREJECTED, 0);
	assert_int_equal(atomic_load(&world.nends), 0);
}

static void who_calls_nobody_is_told(void **state)
{
	struct end e;
	struct dial d = { &world, &e, BYTES_NONE, ipv4("10.77.0.1", 9), usual };
	(void)state;

	expect_refused(&d, -ECONNREFUSED, 0);
	d.to = ipv4("10.77.0.99", WORLD_PORT); /* there is no such host */
	d.o.deadline_ns = clock_ns() + NS_PER_S;
	expect_refused(&d, -EHOSTUNREACH, -ETIMEDOUT);
	assert_true(e.closed_ns < d.o.deadline_ns + 2 * NS_PER_S);
	d.to = ipv4("127.0.0.1", WORLD_PORT); /* not by that device */
	d.o.deadline_ns = clock_ns() + NS_PER_S;
	expect_refused(&d, -EHOSTUNREACH, -ETIMEDOUT);
}

static void it_may_be_ended_at_any_moment(void **state)
{
	struct end e[8];
	(void)state;

	for (unsigned i = 0; i < 8; i++) {
		dial(&world, &e[i], &usual);
		usleep(i * 4000);
		rdma_conn_stop(e[i].conn, -ECANCELED);
	}
	for (unsigned i = 0; i < 8; i++) {
		wait_true(&e[i].closed, "closed");
		assert_int_equal(e[i].reason, -ECANCELED);
	}
}

static struct rdma_listener *second;

static void listen_by_ipv6(void *arg)
{
	struct sockaddr_storage *at = arg;
	char *text = NULL;
	int r = rdma_listener_new(world.node.dev, at, world_on_request, &world, &second, &text);

	if (r < 0)
		fprintf(stderr, "%s\n", text);
	assert(r == 0);
	((struct sockaddr_in6 *)at)->sin6_port = htons(rdma_listener_port(second));
}

static void deafen_second(void *arg)
{
	(void)arg;
	rdma_listener_free(second);
}

static void ipv6_does_as_well(void **state)
{
	struct sockaddr_storage at = { .ss_family = AF_INET6 };
	struct end e;
	struct dial d = { &world, &e, BYTES_OF(world.ticket, sizeof(world.ticket)), at, usual };
	(void)state;

	inet_pton(AF_INET6, "fd77::1", &((struct sockaddr_in6 *)&d.to)->sin6_addr);
	loop_run(world.node.loop, listen_by_ipv6, &d.to);
	loop_run(world.mount.loop, dial_run, &d);
	wait_true(&e.up, "connected by IPv6");
	hang_up(&e);
	loop_run(world.node.loop, deafen_second, NULL);
}

/* Bytes ---------------------------------------------------------------------------- */

static void one(struct end *e, struct task *t, int result)
{
	assert_int_equal(post_all(e->conn, &t->op), 0);
	task_wait(t);
	assert_int_equal(t->result, result);
}

static void what_is_written_is_read(void **state)
{
	static const uint32_t sizes[] = { 1, 7, 8, 100, 256, 257, 4095, 4096, 65536, 1 << 20, 2 << 20 };
	struct end e;
	struct task t;
	(void)state;

	connect_to_node(&world, &e, &usual);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		uint32_t len = sizes[i], off = i * 37;

		fill(world.mount.memory, len, i + 1);
		memset(world.node.memory + off, 0, len);
		task_init(&t, &world, RDMA_WRITE, 0, off, len);
		one(&e, &t, 0);
		assert_memory_equal(world.node.memory + off, world.mount.memory, len);
		memset(world.mount.memory, 0, len);
		task_init(&t, &world, RDMA_READ, 0, off, len);
		t.op.key = rdma_mem_key(world.readable);
		one(&e, &t, 0);
		assert_memory_equal(world.node.memory + off, world.mount.memory, len);
	}
	hang_up(&e);
}

static void pieces_are_gathered_and_scattered(void **state)
{
	struct end e;
	struct task t;
	(void)state;

	connect_to_node(&world, &e, &usual);
	fill(world.mount.memory, 1 << 20, 7);
	task_init(&t, &world, RDMA_WRITE, 0, 5, 1);
	for (unsigned i = 0; i < RDMA_SGES_MAX; i++)
		t.sge[i] = (struct rdma_sge){ world.mount.memory + i * 100003, 1000 + i, world.mine };
	t.op.nsge = RDMA_SGES_MAX;
	one(&e, &t, 0);
	uint8_t *p = world.node.memory + 5;
	for (unsigned i = 0; i < RDMA_SGES_MAX; p += 1000 + i, i++)
		assert_memory_equal(p, world.mount.memory + i * 100003, 1000 + i);
	atomic_store(&t.done, 0);
	t.op.kind = RDMA_READ;
	for (unsigned i = 0; i < RDMA_SGES_MAX; i++)
		memset(world.mount.memory + i * 100003, 0, 1000 + i);
	one(&e, &t, 0);
	p = world.node.memory + 5;
	for (unsigned i = 0; i < RDMA_SGES_MAX; p += 1000 + i, i++)
		assert_memory_equal(p, world.mount.memory + i * 100003, 1000 + i);
	hang_up(&e);
}

static void what_cannot_be_is_refused(void **state)
{
	static struct task t[130];
	struct end e;
	(void)state;

	connect_to_node(&world, &e, &(struct rdma_conn_opts){ .depth = 8 });
	task_init(&t[0], &world, RDMA_WRITE, 0, 0, 0);
	assert_int_equal(rdma_post(e.conn, &t[0].op), -EINVAL); /* no bytes */
	task_init(&t[0], &world, RDMA_WRITE, 0, 0, 1);
	t[0].op.nsge = RDMA_SGES_MAX + 1;
	assert_int_equal(rdma_post(e.conn, &t[0].op), -EINVAL);
	t[0].op.nsge = 1;
	t[0].sge[0].len = RDMA_OP_MAX + 1;
	assert_int_equal(rdma_post(e.conn, &t[0].op), -EINVAL);
	for (unsigned i = 0; i < 8; i++) {
		task_init(&t[i], &world, RDMA_WRITE, i * 4096, i * 4096, 4096);
		t[i].op.next = i < 7 ? &t[i + 1].op : NULL;
	}
	assert_int_equal(rdma_post(e.conn, &t[0].op), -EINVAL); /* 8 and a read behind */
	assert_int_equal(rdma_post(e.conn, &t[1].op), 0);
	t[0].op.next = NULL;
	int r = rdma_post(e.conn, &t[0].op); /* there is no room, or there is again */
	assert_true(r == 0 || r == -EAGAIN);
	for (unsigned i = r ? 1 : 0; i < 8; i++)
		task_wait(&t[i]);
	hang_up(&e);
	assert_int_equal(atomic_load(&t[0].done), r ? 0 : 1);
}

static void small_and_large_chains(void **state)
{
	enum { N = 100, BYTES = 4096 };
	static struct task t[N];
	struct end e;
	(void)state;

	connect_to_node(&world, &e, &usual);
	for (unsigned n = 1; n <= N; n = n < 15 ? n * 2 : n + 17) {
		fill(world.mount.memory, N * BYTES, n);
		memset(world.node.memory, 0, N * BYTES);
		for (unsigned i = 0; i < n; i++) {
			task_init(&t[i], &world, RDMA_WRITE, i * BYTES, i * BYTES, BYTES);
			t[i].op.next = i + 1 < n ? &t[i + 1].op : NULL;
		}
		assert_int_equal(post_all(e.conn, &t[0].op), 0);
		for (unsigned i = 0; i < n; i++) {
			task_wait(&t[i]);
			assert_int_equal(t[i].result, 0);
			assert_memory_equal(world.node.memory + i * BYTES,
					    world.mount.memory + i * BYTES, BYTES);
		}
	}
	hang_up(&e);
}

/* Posters on several threads, with far more than there is room for. */
struct poster {
	struct end *e;
	unsigned number;
	pthread_t thread;
	atomic_uint done;
	unsigned refused;
};

enum { POSTERS = 4, POSTS = 300, POST_BYTES = 512 };

static void *post_much(void *arg)
{
	struct poster *p = arg;
	struct task *t = calloc(POSTS, sizeof(*t));

	for (unsigned i = 0; i < POSTS; i++) {
		uint64_t off = ((uint64_t)p->number * POSTS + i) * POST_BYTES;
		int r;

		task_init(&t[i], &world, RDMA_WRITE, off, off, POST_BYTES);
		t[i].count = &p->done;
		while ((r = rdma_post(p->e->conn, &t[i].op)) == -EAGAIN) {
			p->refused++;
			sched_yield();
		}
		assert(r == 0);
	}
	for (unsigned i = 0; i < POSTS; i++) {
		task_wait(&t[i]);
		assert(t[i].result == 0);
	}
	assert(atomic_load(&p->done) == POSTS);
	free(t);
	return NULL;
}

static void bursts_beyond_the_queue(void **state)
{
	struct poster p[POSTERS] = { 0 };
	struct end e;
	unsigned refused = 0;
	(void)state;

	connect_to_node(&world, &e, &(struct rdma_conn_opts){ .depth = 16, .spin_us = 5000 });
	fill(world.mount.memory, POSTERS * POSTS * POST_BYTES, 3);
	for (unsigned i = 0; i < POSTERS; i++) {
		p[i].e = &e;
		p[i].number = i;
		pthread_create(&p[i].thread, NULL, post_much, &p[i]);
	}
	for (unsigned i = 0; i < POSTERS; i++) {
		pthread_join(p[i].thread, NULL);
		refused += p[i].refused;
	}
	assert_memory_equal(world.node.memory, world.mount.memory, POSTERS * POSTS * POST_BYTES);
	print_message("refused for want of room: %u; polls that found something: %lld, in vain: %lld\n",
		      refused, (long long)metric_get(M_RDMA_POLLS_FOUND),
		      (long long)metric_get(M_RDMA_POLLS_VAIN));
	assert_true(refused > 0);
	assert_true(metric_get(M_RDMA_POLLS_FOUND) > 0); /* it polls as long as that */
	hang_up(&e);
}

/* Rights --------------------------------------------------------------------------- */

/* The node's end closes for the same reason, and may be heard of first. */
static bool is_denied(int r)
{
	return r == -EACCES || r == -ECONNRESET;
}

static void expect_denied(enum rdma_kind kind, uint32_t key)
{
	struct end e;
	struct task t;

	connect_to_node(&world, &e, &usual);
	memset(world.node.memory, 1, 4096);
	memset(world.mount.memory, 2, 4096);
	task_init(&t, &world, kind, 0, 0, 4096);
	t.op.key = key;
	assert_int_equal(post_all(e.conn, &t.op), 0);
	task_wait(&t);
	wait_true(&e.closed, "closed");
	assert_true(is_denied(t.result) && is_denied(e.reason));
	assert_int_equal(world.node.memory[0], 1);
	assert_int_equal(world.mount.memory[0], 2);
}

static void a_key_gives_its_rights_only(void **state)
{
	(void)state;
	expect_denied(RDMA_WRITE, rdma_mem_key(world.readable));
	expect_denied(RDMA_READ, rdma_mem_key(world.writable) ^ 0x5500);
	world.peer = RDMA_PEERS_READ;
	expect_denied(RDMA_WRITE, rdma_mem_key(world.writable));
}

/* Ends with ops under way ------------------------------------------------------------ */

enum { BURST = 48, BURST_BYTES = 64 << 10 };

static struct task burst[BURST];

static void start_burst(struct end *e, enum rdma_kind kind)
{
	for (unsigned i = 0; i < BURST; i++) {
		task_init(&burst[i], &world, kind, i * BURST_BYTES, i * BURST_BYTES, BURST_BYTES);
		assert_int_equal(post_all(e->conn, &burst[i].op), 0);
	}
}

/* All are done, once, those that succeeded before those that failed; closed last; and
 * what was lent does not change afterwards. */
static void expect_ended(struct end *e, enum rdma_kind kind)
{
	unsigned failed = 0;

	wait_true(&e->closed, "closed");
	for (unsigned i = 0; i < BURST; i++) {
		assert_int_equal(atomic_load(&burst[i].done), 1);
		assert_true(burst[i].done_ns <= e->closed_ns);
		failed += burst[i].result != 0;
		assert_true(!burst[i].result == !failed);
	}
	print_message("%s: %u of %u had ended, then: %s\n", kind == RDMA_READ ? "reads" : "writes",
		      BURST - failed, BURST, e->why);
	memset(world.mount.memory, 0x77, BURST * BURST_BYTES);
	usleep(200000);
	for (unsigned i = 0; i < BURST * BURST_BYTES; i++)
		assert_int_equal(world.mount.memory[i], 0x77);
}

static void stopped_with_ops_under_way(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		enum rdma_kind kind = i % 2 ? RDMA_WRITE : RDMA_READ;
		struct end e;

		connect_to_node(&world, &e, &usual);
		start_burst(&e, kind);
		usleep(i * 10000);
		rdma_conn_stop(e.conn, -ECANCELED);
		expect_ended(&e, kind);
		assert_int_equal(e.reason, -ECANCELED);
	}
}

static void the_node_stops_with_ops_under_way(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		enum rdma_kind kind = i % 2 ? RDMA_WRITE : RDMA_READ;
		struct end e, *other;

		connect_to_node(&world, &e, &usual);
		other = node_end(&world, i);
		start_burst(&e, kind);
		usleep(5000);
		rdma_conn_stop(other->conn, -ESHUTDOWN);
		wait_true(&other->closed, "the node's end closed");
		/* I6: nothing is written any more from here on. */
		static uint8_t before[BURST * BURST_BYTES];
		memcpy(before, world.node.memory, sizeof(before));
		expect_ended(&e, kind);
		assert_memory_equal(before, world.node.memory, sizeof(before));
	}
}

static void a_wrong_key_with_ops_under_way(void **state)
{
	struct task bad;
	struct end e;
	(void)state;

	connect_to_node(&world, &e, &usual);
	start_burst(&e, RDMA_WRITE);
	task_init(&bad, &world, RDMA_WRITE, 0, 0, 64);
	bad.op.key ^= 0x5500;
	assert_int_equal(post_all(e.conn, &bad.op), 0);
	expect_ended(&e, RDMA_WRITE);
	assert_int_equal(atomic_load(&bad.done), 1);
	assert_true(is_denied(bad.result));
	wait_true(&node_end(&world, 0)->closed, "the node's end closed");
}

/* Each op that was taken is done, however the end meets those who post. */
static atomic_uint taken, ended;

static void count_end(struct rdma_op *op, int r)
{
	task_done(op, r);
	atomic_fetch_add(&ended, 1);
}

static void *post_until_the_end(void *arg)
{
	struct poster *p = arg;
	struct task *t = calloc(POSTS, sizeof(*t));
	int r = 0;

	for (unsigned i = 0; r != -ENOTCONN; i++) {
		struct task *mine = &t[i % POSTS];

		if (i >= POSTS)
			task_wait(mine);
		task_init(mine, &world, i % 2 ? RDMA_READ : RDMA_WRITE, p->number << 18,
			  p->number << 18, 1000);
		mine->op.done = count_end;
		while ((r = rdma_post(p->e->conn, &mine->op)) == -EAGAIN)
			sched_yield();
		if (!r)
			atomic_fetch_add(&taken, 1);
		else
			atomic_store(&mine->done, 1);
	}
	while (atomic_load(&ended) < atomic_load(&taken))
		usleep(100);
	usleep(10000); /* for one too many */
	free(t);
	return NULL;
}

static void free_conn(void *arg)
{
	rdma_conn_free(arg);
}

static void posts_meet_the_end(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 4; n++) {
		struct poster p[POSTERS] = { 0 };
		struct end e;

		atomic_store(&taken, 0);
		atomic_store(&ended, 0);
		connect_to_node(&world, &e, &(struct rdma_conn_opts){ .depth = 32, .spin_us = 100 });
		e.keep = true;
		for (unsigned i = 0; i < POSTERS; i++) {
			p[i].e = &e;
			p[i].number = i;
			pthread_create(&p[i].thread, NULL, post_until_the_end, &p[i]);
		}
		usleep(30000 + n * 20000);
		if (n % 2)
			rdma_conn_stop(node_end(&world, n)->conn, -ESHUTDOWN);
		else
			rdma_conn_stop(e.conn, -ECANCELED);
		wait_true(&e.closed, "closed");
		for (unsigned i = 0; i < POSTERS; i++)
			pthread_join(p[i].thread, NULL);
		assert_int_equal(atomic_load(&taken), atomic_load(&ended));
		loop_run(world.mount.loop, free_conn, e.conn);
	}
}

/* A node in a process of its own: says where its memory is, and goes on until it is
 * killed. */
static void __attribute__((noreturn)) be_node(void)
{
	world_open(&world);
	printf("%llx %x\n", (unsigned long long)(uintptr_t)world.node.memory,
	       rdma_mem_key(world.writable));
	fflush(stdout);
	for (;;)
		pause();
}

static pid_t start_node(uint64_t *ret_at, uint32_t *ret_key)
{
	char self[] = "/proc/self/exe", role[] = "node", *argv[] = { self, role, NULL };
	posix_spawn_file_actions_t actions;
	unsigned long long at;
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
	assert_int_equal(posix_spawn(&pid, self, &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(fds[1]);
	FILE *f = fdopen(fds[0], "r");
	assert_int_equal(fscanf(f, "%llx %x", &at, ret_key), 2);
	fclose(f);
	*ret_at = at;
	return pid;
}

static void killed(enum rdma_kind kind)
{
	uint64_t at, begin;
	uint32_t key;
	struct end e;
	pid_t pid = start_node(&at, &key);

	connect_to_node(&world, &e, &usual);
	for (unsigned i = 0; i < BURST; i++) {
		task_init(&burst[i], &world, kind, i * BURST_BYTES, 0, BURST_BYTES);
		burst[i].op.remote = at + i * BURST_BYTES;
		burst[i].op.key = key;
		assert_int_equal(post_all(e.conn, &burst[i].op), 0);
	}
	begin = clock_ns();
	kill(pid, SIGKILL);
	expect_ended(&e, kind);
	print_message("closed %.0f ms after kill -9\n", (double)(e.closed_ns - begin) / 1e6);
	assert_true(e.closed_ns - begin < 20 * NS_PER_S);
	waitpid(pid, NULL, 0);
}

static void the_peer_is_killed(void **state)
{
	(void)state;
	loop_run(world.node.loop, world_deafen, &world); /* the other one listens */
	killed(RDMA_READ);
	killed(RDMA_WRITE);
}

/* It does not get what is sent to the address that it had. */
static void the_peer_is_silent(void **state)
{
	struct pulse pulse;
	struct end e;
	(void)state;

	connect_to_node(&world, &e, &usual);
	run("ip -n h1 -o link show eth0 | sed 's/.*ether \\([^ ]*\\).*/\\1/' >/run/mac");
	run("ip -n h1 link set eth0 address 02:00:00:00:00:99");
	start_burst(&e, RDMA_WRITE);
	pulse_start(&pulse, world.mount.loop);
	uint64_t begin = clock_ns();
	expect_ended(&e, RDMA_WRITE);
	double longest_ms = pulse_stop(&pulse);
	run("ip -n h1 link set eth0 address $(cat /run/mac)");
	assert_int_equal(e.reason, -ETIMEDOUT);
	print_message("closed %.0f ms after the peer fell silent\n",
		      (double)(e.closed_ns - begin) / 1e6);
	assert_true(e.closed_ns - begin > NS_PER_S && e.closed_ns - begin < 10 * NS_PER_S);
	print_message("the loop was blocked for %.0f ms at most\n", longest_ms);
	assert_true(longest_ms < 1000);
	/* The node's end hears nothing: its session would end it. */
	rdma_conn_stop(node_end(&world, 0)->conn, -ETIMEDOUT);
}

static void wait_up(const struct rdma_dev *d, bool up)
{
	uint64_t end = clock_ns() + 20 * NS_PER_S;

	while (rdma_dev_is_up(d) != up && clock_ns() < end)
		usleep(1000);
	assert_int_equal(rdma_dev_is_up(d), up);
}

/* Without a connection: rxe cannot make a new one after something was sent while its
 * port was down. */
static void the_port_goes_down_and_up(void **state)
{
	struct end e;
	(void)state;

	run("ip -n h2 link set eth0 down");
	wait_up(world.mount.dev, false);
	run("ip -n h2 link set eth0 up");
	wait_up(world.mount.dev, true);
	connect_to_node(&world, &e, &usual);
	hang_up(&e);
}

/* The last test: librdmacm keeps a handle of its own until the process ends, which
 * the removal waits for with drivers that cannot take a device from its users. */
static void the_device_is_removed(void **state)
{
	struct end e;
	(void)state;

	connect_to_node(&world, &e, &usual);
	start_burst(&e, RDMA_WRITE);
	pid_t pid;
	char sh[] = "/bin/sh", c[] = "-c", command[] = "rdma link delete rxe2";
	char *argv[] = { sh, c, command, NULL };
	assert_int_equal(posix_spawn(&pid, sh, NULL, NULL, argv, environ), 0);
	expect_ended(&e, RDMA_WRITE);
	print_message("%d: %s\n", e.reason, e.why);
	assert_int_equal(e.reason, -ENODEV);
	assert_int_equal(atomic_load(&world.mount.lost), 1);
	assert_false(rdma_dev_is_up(world.mount.dev));
	struct rdma_mem *m;
	rdma_mem_free(world.mine);
	world.mine = NULL;
	assert_true(rdma_mem_new(world.mount.dev, world.mount.memory, 4096, RDMA_MINE, &m, NULL) < 0);
	rdma_dev_close(world.mount.dev);
	world.mount.dev = NULL;
}

/* Random walk ------------------------------------------------------------------------ */

/*
 * Connections come and go, with ops of all kinds under way, each on a slot of its own
 * of the node's memory and the mount's. What a slot holds is known, except after a
 * write that failed, until both ends have closed.
 */
enum { WALK_CONNS = 3, SLOTS = 32, SLOT_BYTES = 64 << 10, WALK_STEPS = 400 };

struct slot {
	struct task t;
	bool busy, first; /* first: of a chain, which is waited for at once */
	uint32_t off, len;
	struct walk_conn *of;
};

struct walk_conn {
	struct end e;
	bool alive;
};

static struct slot slots[SLOTS];
static struct walk_conn walkers[WALK_CONNS];
static uint8_t model[SLOTS * SLOT_BYTES]; /* what the node's memory holds */
static unsigned walk_done, walk_failed;

static void settle_slot(unsigned i)
{
	struct slot *s = &slots[i];
	uint64_t at = (uint64_t)i * SLOT_BYTES + s->off;

	task_wait(&s->t);
	s->busy = false;
	walk_done += !s->t.result;
	walk_failed += !!s->t.result;
	if (s->t.result)
		return;
	if (s->t.op.kind == RDMA_WRITE)
		memcpy(model + at, world.mount.memory + at, s->len);
	else
		assert_memory_equal(model + at, world.mount.memory + at, s->len);
	assert_memory_equal(model + at, world.node.memory + at, s->len);
}

static void walk_post(struct walk_conn *c, uint64_t *seed)
{
	struct rdma_op *chain = NULL;
	unsigned n = 1 + random_next(seed) % 5;

	for (unsigned i = 0; i < SLOTS && n; i++) {
		struct slot *s = &slots[i];
		if (s->busy || random_next(seed) % 4)
			continue;
		enum rdma_kind kind = random_next(seed) % 2 ? RDMA_READ : RDMA_WRITE;
		s->len = 1 + (uint32_t)(random_next(seed) % (random_next(seed) % 3 ? 600 : SLOT_BYTES));
		s->off = (uint32_t)(random_next(seed) % (SLOT_BYTES - s->len + 1));
		uint64_t at = (uint64_t)i * SLOT_BYTES + s->off;
		fill(world.mount.memory + at, s->len, *seed);
		task_init(&s->t, &world, kind, at, at, s->len);
		s->t.op.next = chain;
		chain = &s->t.op;
		s->busy = true;
		s->of = c;
		n--;
	}
	if (!chain)
		return;
	int r = post_all(c->e.conn, chain);
	for (unsigned i = 0; r < 0 && i < SLOTS; i++)
		if (slots[i].busy && slots[i].of == c && !atomic_load(&slots[i].t.done))
			for (struct rdma_op *op = chain; op; op = op->next)
				if (op == &slots[i].t.op)
					slots[i].busy = false;
}

static void walk_end(struct walk_conn *c, uint64_t *seed)
{
	if (random_next(seed) % 3 == 0) { /* by a mistake */
		struct task bad;
		task_init(&bad, &world, RDMA_READ, SLOTS * SLOT_BYTES, 0, 8);
		bad.op.key ^= 0x5500;
		if (!post_all(c->e.conn, &bad.op))
			task_wait(&bad);
		wait_true(&c->e.closed, "closed by a mistake");
	} else {
		hang_up(&c->e);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].busy && slots[i].of == c)
			settle_slot(i);
	c->alive = false;
	/* Both ends: nothing is written any more. */
	for (unsigned i = 0; i < 64 && i < atomic_load(&world.nends); i++) {
		uint64_t end = clock_ns() + NS_PER_S / 2;
		while (!atomic_load(&world.ends[i].closed) && clock_ns() < end)
			usleep(500);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		if (!slots[i].busy)
			memcpy(model + (uint64_t)i * SLOT_BYTES,
			       world.node.memory + (uint64_t)i * SLOT_BYTES, SLOT_BYTES);
}

static void walk_step(uint64_t *seed)
{
	struct walk_conn *c = &walkers[random_next(seed) % WALK_CONNS];
	unsigned i = random_next(seed) % SLOTS;

	if (!c->alive) {
		struct rdma_conn_opts o = { .depth = 8 + (unsigned)(random_next(seed) % 40),
					    .spin_us = random_next(seed) % 2 ? 50 : 0 };
		connect_to_node(&world, &c->e, &o);
		c->alive = true;
	} else if (random_next(seed) % 40 == 0) {
		walk_end(c, seed);
	} else if (random_next(seed) % 3) {
		walk_post(c, seed);
	} else if (slots[i].busy) {
		settle_slot(i);
	}
}

static void random_walk(void **state)
{
	const char *env = getenv("SEED");
	uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
	(void)state;

	print_message("SEED=%llu\n", (unsigned long long)seed);
	memcpy(model, world.node.memory, sizeof(model));
	for (unsigned i = 0; i < WALK_STEPS; i++)
		walk_step(&seed);
	for (unsigned i = 0; i < WALK_CONNS; i++)
		if (walkers[i].alive)
			walk_end(&walkers[i], &seed);
	print_message("%u ops done, %u failed, %u connections\n", walk_done, walk_failed,
		      atomic_load(&world.nends));
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "node"))
		be_node();
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_port_with_the_address_is_chosen),
		TEST(both_ends_learn_of_the_end),
		TEST(who_has_no_ticket_is_rejected),
		TEST(who_calls_nobody_is_told),
		TEST(it_may_be_ended_at_any_moment),
		TEST(ipv6_does_as_well),
		TEST(what_is_written_is_read),
		TEST(pieces_are_gathered_and_scattered),
		TEST(what_cannot_be_is_refused),
		TEST(small_and_large_chains),
		TEST(bursts_beyond_the_queue),
		TEST(a_key_gives_its_rights_only),
		TEST(stopped_with_ops_under_way),
		TEST(the_node_stops_with_ops_under_way),
		TEST(a_wrong_key_with_ops_under_way),
		TEST(posts_meet_the_end),
		TEST(the_peer_is_killed),
		TEST(the_peer_is_silent),
		TEST(random_walk),
		TEST(the_port_goes_down_and_up),
		TEST(the_device_is_removed),
	};

	if (argc == 2)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
