/* SPDX-License-Identifier: Apache-2.0 */
/* fs/presence.h: who is where in a file system; here in any, and this process is there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "fs/presence.h"

enum { DIRS = 5000 };

static char top[64];
static int fds[DIRS];

static int setup(void **state)
{
	(void)state;
	snprintf(top, sizeof(top), "/dev/shm/slicefs-test-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return rmdir(top);
}

static const char *path_of(unsigned i)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s/%u", top, i);
	return path;
}

static uint64_t number_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st.st_ino;
}

static bool is_found(const struct presence *p, uint64_t dir)
{
	unsigned n = 0;

	for (size_t i = 0; i < p->n; i++)
		n += p->dirs[i] == dir;
	assert_true(n <= 1);
	return n;
}

static bool finds(uint64_t dir)
{
	struct presence p = { 0 };

	assert_true(presence_begin(&p, top));
	assert_true(presence_find(&p, UINT64_MAX));
	bool found = is_found(&p, dir);
	presence_fini(&p);
	return found;
}

/* However many there are, and in as many steps as there are processes. */
static void all_that_are_open_are_found(void **state)
{
	struct rlimit l;
	struct presence p = { 0 };
	unsigned steps = 1;

	(void)state;
	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
	if (l.rlim_max < DIRS + 100)
		skip();
	for (unsigned i = 0; i < DIRS; i++) {
		assert_int_equal(mkdir(path_of(i), 0700), 0);
		fds[i] = open(path_of(i), O_PATH | O_DIRECTORY | O_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	int again = dup(fds[0]);
	assert_true(presence_begin(&p, top));
	for (; !presence_find(&p, 0); steps++)
		assert_int_equal(p.n > 1 && p.dirs[0] == p.dirs[1], 0);
	assert_true(steps > 1);
	for (unsigned i = 0; i < DIRS; i++)
		assert_true(is_found(&p, number_of(path_of(i))));
	presence_fini(&p);
	close(again);
	for (unsigned i = 0; i < DIRS; i++) {
		close(fds[i]);
		assert_int_equal(rmdir(path_of(i)), 0);
	}
}

static void a_working_directory_is_found(void **state)
{
	(void)state;
	assert_int_equal(mkdir(path_of(0), 0700), 0);
	uint64_t dir = number_of(path_of(0));
	assert_false(finds(dir));
	assert_int_equal(chdir(path_of(0)), 0);
	assert_true(finds(dir));
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(rmdir(path_of(0)), 0);
}

static sem_t is_there, may_go;

static void *stands_alone(void *arg)
{
	assert_int_equal(unshare(CLONE_FS), 0);
	assert_int_equal(chdir(arg), 0);
	sem_post(&is_there);
	sem_wait(&may_go);
	return NULL;
}

static void that_of_a_thread_is_found(void **state)
{
	pthread_t t;

	(void)state;
	sem_init(&is_there, 0, 0);
	sem_init(&may_go, 0, 0);
	assert_int_equal(mkdir(path_of(0), 0700), 0);
	uint64_t dir = number_of(path_of(0));
	assert_int_equal(pthread_create(&t, NULL, stands_alone, (void *)path_of(0)), 0);
	sem_wait(&is_there);
	assert_true(finds(dir));
	sem_post(&may_go);
	pthread_join(t, NULL);
	assert_int_equal(rmdir(path_of(0)), 0);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_that_are_open_are_found),
		TEST(a_working_directory_is_found),
		TEST(that_of_a_thread_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
