/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/jobs.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

enum { READY_MAX = 256 };

struct job {
	int (*fn)(void *arg);
	void *arg;
};

struct jobs {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct job ready[READY_MAX]; /* a ring */
	unsigned first, n;
	bool ending;
	int status;
	unsigned nthreads;
	pthread_t threads[];
};

/* False: there is none, and none comes. */
static bool take(struct jobs *j, struct job *ret)
{
	pthread_mutex_lock(&j->mutex);
	while (!j->n && !j->ending)
		pthread_cond_wait(&j->changed, &j->mutex);
	bool any = j->n;
	if (any) {
		*ret = j->ready[j->first];
		j->first = (j->first + 1) % READY_MAX;
		j->n--;
		pthread_cond_broadcast(&j->changed);
	}
	pthread_mutex_unlock(&j->mutex);
	return any;
}

static void *work(void *arg)
{
	struct jobs *j = arg;
	struct job job;

	while (take(j, &job)) {
		int status = job.fn(job.arg);
		pthread_mutex_lock(&j->mutex);
		j->status = status ? status : j->status;
		pthread_mutex_unlock(&j->mutex);
	}
	return NULL;
}

struct jobs *jobs_new(unsigned n)
{
	struct jobs *j = calloc(1, sizeof(*j) + n * sizeof(j->threads[0]));

	if (!j)
		return NULL;
	pthread_mutex_init(&j->mutex, NULL);
	pthread_cond_init(&j->changed, NULL);
	while (j->nthreads < n && !pthread_create(&j->threads[j->nthreads], NULL, work, j))
		pthread_setname_np(j->threads[j->nthreads++], "job");
	if (j->nthreads)
		return j;
	jobs_end(j);
	return NULL;
}

void jobs_add(struct jobs *j, int (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&j->mutex);
	while (j->n == READY_MAX)
		pthread_cond_wait(&j->changed, &j->mutex);
	j->ready[(j->first + j->n++) % READY_MAX] = (struct job){ fn, arg };
	pthread_cond_broadcast(&j->changed);
	pthread_mutex_unlock(&j->mutex);
}

int jobs_end(struct jobs *j)
{
	if (!j)
		return 0;
	pthread_mutex_lock(&j->mutex);
	j->ending = true;
	pthread_cond_broadcast(&j->changed);
	pthread_mutex_unlock(&j->mutex);
	for (unsigned i = 0; i < j->nthreads; i++)
		pthread_join(j->threads[i], NULL);
	int status = j->status;
	pthread_cond_destroy(&j->changed);
	pthread_mutex_destroy(&j->mutex);
	free(j);
	return status;
}
