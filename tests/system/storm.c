/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "system/storm.h"

unsigned int storm_n_waves(const struct storm_scale *scale)
{
	return 1 + (scale->n_modules - scale->n_first + scale->n_more - 1) / scale->n_more;
}

uint32_t storm_progress_max(const struct storm_scale *scale)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < scale->n_methods; i++)
		n += 1 + ladder_n_thresholds(ladder_of(i));
	return n * scale->n_modules;
}

struct tier_conn *storm_connect(const struct storm *storm)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = storm->daemon.socket, .timeout_ns = STORM_DEADLINE_NS };
	struct tier_conn *conn;

	if (tier_connect(&conn, &opts))
		fail_msg("connect: %s", tier_error_text());
	return conn;
}

/* -- Beginning --- */
static void storm_objects(struct storm *storm)
{
	int fd;

	snprintf(storm->objects[0], sizeof(storm->objects[0]), "%s", ladder_object(&storm->daemon, "part", storm->scale->n_methods));
	fd = tier_precompile(storm->conn, storm->objects[0], STORM_DEADLINE_NS);
	if (fd < 0)
		fail_msg("precompile: %s", tier_error_text());
	snprintf(storm->objects[1], sizeof(storm->objects[1]), "/proc/self/fd/%d", fd);
}

void storm_begin(struct storm *storm, const struct storm_scale *scale)
{
	const size_t n = sizeof(*storm->shared) + scale->n_modules * scale->n_methods * sizeof(struct sight);
	static struct storm_start starts[STORM_CLIENTS_MAX];

	storm->scale = scale;
	storm->conn = storm_connect(storm);
	storm->shared = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(storm->shared != MAP_FAILED);
	storm_objects(storm);
	for (unsigned int i = 0; i < ARRAY_SIZE(storm->followers); i++)
		follower_start(&storm->followers[i], &storm->daemon, storm_events_max(scale), i == 1 ? 32 : 0);
	for (unsigned int i = 0; i < scale->n_clients; i++) {
		starts[i] = (struct storm_start){ storm, i };
		storm->clients[i] = child_start(storm_client_run, &starts[i]);
	}
}

/* -- Waves --- */
/* A load that the daemon did not live to answer may have been done. */
static int load(struct storm *storm, const char *object, const char *name, struct tier_module **ret)
{
	int r;

	r = tier_load(storm->conn, object, name, 0, ret);
	while (r == -ECONNRESET || r == -ENOENT) {
		r = tier_open(storm->conn, name, ret);
		if (r == -ENOENT)
			r = tier_load(storm->conn, object, name, 0, ret);
	}
	return r;
}

void storm_load(struct storm *storm, unsigned int wave)
{
	const struct storm_scale *scale = storm->scale;
	char name[16];

	for (unsigned int i = storm_wave_begin(scale, wave); i < storm_wave_end(scale, wave); i++)
		assert_done(load(storm, storm->objects[storm_is_precompiled(scale, i)], storm_module_name(name, i), &storm->modules[i]));
	__atomic_store_n(&storm->shared->n_waves, wave + 1, __ATOMIC_RELEASE);
}

/* Nobody else would tell that a client is gone. */
static bool clients_live(const struct storm *storm)
{
	for (unsigned int i = 0; i < storm->scale->n_clients; i++) {
		siginfo_t info = { .si_pid = 0 };

		if (!waitid(P_PID, storm->clients[i], &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid && info.si_status)
			fail_msg("client %u ended with %d", i, info.si_status);
	}
	return true;
}

void storm_await_begun(const struct storm *storm, unsigned int wave)
{
	const uint32_t n = storm->scale->n_clients * (wave + 1);

	storm_await("all first calls", clients_live(storm) && storm_read(&storm->shared->n_begun) == n);
}

void storm_cross(struct storm *storm, unsigned int wave)
{
	__atomic_store_n(&storm->shared->n_crossing, wave + 1, __ATOMIC_RELEASE);
}

void storm_await_done(const struct storm *storm, unsigned int wave)
{
	const uint32_t n = storm->scale->n_clients * (wave + 1);

	storm_await("all calls", clients_live(storm) && storm_read(&storm->shared->n_done) == n);
}

/* -- End --- */
void storm_end(struct storm *storm)
{
	for (unsigned int i = 0; i < storm->scale->n_clients; i++)
		child_end(storm->clients[i]);
	storm_check(storm);
	munmap(storm->shared, sizeof(*storm->shared)
				      + storm->scale->n_modules * storm->scale->n_methods * sizeof(struct sight));
	tier_disconnect(storm->conn);
}
