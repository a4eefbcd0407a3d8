/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A client that has a method with code and one without, and a daemon that dies */

#include "client.h"

struct world {
	struct fake *fake;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *cold, *warm;	/* 0 and 2 */
};

static inline struct world world_new_for(void **state, uint64_t timeout_ns)
{
	struct world w = { .fake = fake_of(state), .conn = client_connect_for(fake_of(state), timeout_ns) };

	w.module = client_open(w.conn, "demo");
	w.cold = client_method(w.module, 0);
	w.warm = client_method(w.module, 2);
	client_call(w.warm, 1);
	return w;
}

static inline struct world world_new(void **state)
{
	return world_new_for(state, 10 * FAKE_SECOND);
}

static inline void world_end(struct world *w)
{
	tier_close(w->module);
	tier_disconnect(w->conn);
}

/* The daemon dies, and the next one listens. */
static inline void daemon_dies(struct fake *fake)
{
	pthread_mutex_lock(&fake->lock);
	fake_die(fake);
	pthread_mutex_unlock(&fake->lock);
}

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * FAKE_SECOND + now.tv_nsec;
}
