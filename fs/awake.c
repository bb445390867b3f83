/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See awake.h. How long is too long depends on where we are. A guest's "halt"
 * claims to take 1 us and takes 20, so in a guest (whose idle driver is haltpoll)
 * no sleep at all is allowed. Real processors have a light sleep of a few
 * microseconds (C1), which costs less power than polling and is good enough.
 *
 * Documentation: the kernel's Documentation/power/pm_qos_interface.rst.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/log.h"
#include "common/metrics.h"
#include "fs/awake.h"

enum {
	LATENCY_GUEST_US = 0,
	LATENCY_LIGHT_US = 10,
	LATENCY_ANY_US = 2000 * 1000 * 1000, /* the kernel's default: no limit */
};

static bool is_guest(void)
{
	_cleanup_(closep) int fd = open("/sys/devices/system/cpu/cpuidle/current_driver",
					O_RDONLY | O_CLOEXEC);
	char driver[32] = "";

	return fd >= 0 && read(fd, driver, sizeof(driver) - 1) > 0 &&
	       strncmp(driver, "haltpoll", strlen("haltpoll")) == 0;
}

void awake_init(struct awake *a, bool wanted)
{
	a->fd = -1;
	a->latency_us = is_guest() ? LATENCY_GUEST_US : LATENCY_LIGHT_US;
	atomic_init(&a->held, false);
	if (!wanted)
		return;
	a->fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
	if (a->fd < 0)
		log_debug("fs", "/dev/cpu_dma_latency: %s; idle processors may halt",
			  error_text(errno));
}

static void ask(struct awake *a, int32_t latency_us)
{
	if (write(a->fd, &latency_us, sizeof(latency_us)) < 0)
		log_warn("fs", "/dev/cpu_dma_latency: %s", error_text(errno));
}

void awake_hold(struct awake *a)
{
	if (a->fd < 0 || atomic_load(&a->held))
		return;
	atomic_store(&a->held, true);
	ask(a, a->latency_us);
	metric_set(M_AWAKE, 1);
}

void awake_release(struct awake *a)
{
	if (a->fd < 0 || !atomic_load(&a->held))
		return;
	atomic_store(&a->held, false);
	ask(a, LATENCY_ANY_US);
	metric_set(M_AWAKE, 0);
}

void awake_fini(struct awake *a)
{
	closep(&a->fd);
}
