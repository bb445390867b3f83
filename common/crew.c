/* SPDX-License-Identifier: Apache-2.0 */
#include "common/crew.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

struct hand {
	int (*work)(void *arg, unsigned i);
	void *arg;
	unsigned i;
	int result;
	pthread_t thread;
	bool has_thread;
};

unsigned crew_size(void)
{
	cpu_set_t cpus;
	int n = sched_getaffinity(0, sizeof(cpus), &cpus) < 0 ? 1 : CPU_COUNT(&cpus);

	return n > CREW_MAX ? CREW_MAX : (unsigned)n;
}

static void *hand_main(void *arg)
{
	struct hand *h = arg;

	h->result = h->work(h->arg, h->i);
	return NULL;
}

int crew_run(unsigned n, int (*work)(void *arg, unsigned i), void *arg)
{
	struct hand hands[CREW_MAX];
	int result = 0;

	assert(n >= 1 && n <= CREW_MAX);
	for (unsigned i = 0; i < n; i++) {
		struct hand *h = &hands[i];
		*h = (struct hand){ .work = work, .arg = arg, .i = i };
		h->has_thread = i + 1 < n && !pthread_create(&h->thread, NULL, hand_main, h);
		if (h->has_thread)
			pthread_setname_np(h->thread, "crew");
		else
			hand_main(h);
	}
	for (unsigned i = 0; i < n; i++) {
		if (hands[i].has_thread)
			pthread_join(hands[i].thread, NULL);
		result = result ? result : hands[i].result;
	}
	return result;
}
