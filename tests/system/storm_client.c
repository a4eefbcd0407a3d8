/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <tier/records.h>
#include "system/storm.h"

#define OTHERS 4u		/* beside its own methods, a client calls one in so many of all others */
#define SHORT_LOOP 8u		/* iterations */
#define LONG_LOOP 200000u	/* 200 hits; 10 are enough */
#define ASK_AGAIN_NS 2000000000u	/* the note got lost */

struct mine {
	const struct tier_layout *layout;
	const struct tier_method *method;
	struct sight *sight;
	uint32_t index;
};

struct client {
	struct storm *storm;
	unsigned int number;
	uint64_t random, n_calls;
	struct tier_conn *conn;
	struct tier_module *modules[WITNESS_MODULES_MAX];
	struct mine *mine;
	uint32_t n_mine;
};

/* -- What it calls --- */
static bool is_own(const struct client *client, const struct sight *sight)
{
	return (sight - client->storm->shared->sights) % client->storm->scale->n_clients == client->number;
}

static void client_take(struct client *client, unsigned int module, uint32_t index)
{
	struct sight *sight = &client->storm->shared->sights[module * client->storm->scale->n_methods + index];
	struct tier_method *method;

	if (!is_own(client, sight) && storm_random(&client->random) % OTHERS)
		return;
	child_assert(!tier_method_at(client->modules[module], index, &method));
	client->mine[client->n_mine++] = (struct mine){ tier_module_layout(client->modules[module]), method, sight, index };
}

static void client_shuffle(struct client *client)
{
	for (uint32_t i = client->n_mine; i > 1; i--) {
		const uint32_t k = storm_random(&client->random) % i;
		const struct mine kept = client->mine[k];

		client->mine[k] = client->mine[i - 1];
		client->mine[i - 1] = kept;
	}
}

static void client_open(struct client *client, unsigned int wave)
{
	const struct storm_scale *scale = client->storm->scale;
	struct storm_shared *shared = client->storm->shared;
	char name[16];

	client->n_mine = 0;
	for (unsigned int i = storm_wave_begin(scale, wave); i < storm_wave_end(scale, wave); i++) {
		child_assert(!tier_open(client->conn, storm_module_name(name, i), &client->modules[i]));
		child_assert(tier_module_n_methods(client->modules[i]) == scale->n_methods);
		witness_stand(client->modules[i], &shared->sights[i * scale->n_methods], &shared->progress);
		for (uint32_t k = 0; k < scale->n_methods; k++)
			client_take(client, i, k);
	}
	client_shuffle(client);
}

/* -- Calls --- */
/* False: it has had its few calls. */
static bool client_call_with(struct client *client, const struct mine *mine, uint64_t x)
{
	const enum ladder ladder = ladder_of(mine->index);
	const bool is_limited = ladder == LADDER_FEW || ladder == LADDER_LOOP;

	if (ladder == LADDER_UNCALLED)
		return false;
	if (__atomic_fetch_add(&mine->sight->n_calls, 1, __ATOMIC_RELAXED) >= LADDER_THRESHOLD && is_limited) {
		__atomic_fetch_sub(&mine->sight->n_calls, 1, __ATOMIC_RELAXED);
		return false;
	}
	child_assert(tier_entry(mine->method)(x, 0, 0, 0, 0) == ladder_result(mine->index, x));
	client->n_calls++;
	return true;
}

static bool client_call(struct client *client, const struct mine *mine)
{
	const uint64_t x = storm_random(&client->random);

	return client_call_with(client, mine, ladder_of(mine->index) == LADDER_LOOP ? x % SHORT_LOOP : x);
}

static const struct tier_patchpoint *patchpoint_of(const struct mine *mine)
{
	const struct tier_patchpoint *patchpoint = (const void *)(uintptr_t)(mine->layout->base + mine->layout->patchpoints);

	for (uint32_t i = 0; i < mine->layout->n_patchpoints; i++)
		if (patchpoint[i].method == mine->index)
			return &patchpoint[i];
	child_fail(__FILE__, __LINE__, "a loop has a patchpoint");
}

/* Frames of precompiled code stay where they are. */
static bool has_frames(const struct client *client, const struct mine *mine)
{
	const struct storm *storm = client->storm;

	return storm->scale->has_loops && ladder_of(mine->index) == LADDER_LOOP && is_own(client, mine->sight)
	    && !storm_is_precompiled(storm->scale, (mine->sight - storm->shared->sights) / storm->scale->n_methods);
}

/* Long loops, until frames of them go on in optimized code */
static void client_loop(struct client *client, const struct mine *mine)
{
	const struct tier_patchpoint *patchpoint = patchpoint_of(mine);

	while (!__atomic_load_n(&patchpoint->code, __ATOMIC_ACQUIRE)) {
		const uint64_t again = test_now_ns() + ASK_AGAIN_NS;

		child_assert(client_call_with(client, mine, LONG_LOOP));
		storm_await("a loop's code", __atomic_load_n(&patchpoint->code, __ATOMIC_ACQUIRE) || test_now_ns() > again);
	}
	mine->sight->is_osr = 1;
}

static void client_begin(struct client *client)
{
	for (uint32_t i = 0; i < client->n_mine; i++) {
		client_call(client, &client->mine[i]);
		if (is_own(client, client->mine[i].sight))
			__atomic_fetch_add(&client->storm->shared->progress, 1, __ATOMIC_RELAXED);
	}
	for (uint32_t i = 0; i < client->n_mine; i++)
		if (has_frames(client, &client->mine[i]))
			client_loop(client, &client->mine[i]);
}

/* Calls until somebody has crossed the method's threshold for the @nth time. Whoever has made as many calls as that takes, and
 * nobody crossed, waits until calls count again. */
static void client_drive(struct client *client, const struct mine *mine, unsigned int nth)
{
	while (storm_read(&mine->sight->n_crossed) < nth) {
		for (uint32_t i = 0; i <= LADDER_THRESHOLD && storm_read(&mine->sight->n_crossed) < nth; i++)
			if (!client_call(client, mine))
				return;
		if (storm_read(&mine->sight->n_crossed) < nth)
			child_assert(!tier_wait(mine->method, STORM_DEADLINE_NS, NULL, NULL));
	}
}

static void client_cross(struct client *client)
{
	for (unsigned int nth = 1; nth < CROSSINGS_MAX; nth++)
		for (uint32_t i = 0; i < client->n_mine; i++) {
			const enum ladder ladder = ladder_of(client->mine[i].index);

			if (nth <= ladder_n_thresholds(ladder) || (nth == 1 && ladder == LADDER_FEW))
				client_drive(client, &client->mine[i], nth);
			else
				client_call(client, &client->mine[i]);
		}
}

/* -- Waves --- */
static void client_wave(struct client *client, unsigned int wave)
{
	const struct storm_scale *scale = client->storm->scale;
	struct storm_shared *shared = client->storm->shared;

	storm_await("the next wave", storm_read(&shared->n_waves) > wave);
	client_open(client, wave);
	client_begin(client);
	__atomic_fetch_add(&shared->n_begun, 1, __ATOMIC_RELEASE);
	storm_await("the wave's second half", storm_read(&shared->n_crossing) > wave);
	client_cross(client);
	for (unsigned int i = storm_wave_begin(scale, wave); i < storm_wave_end(scale, wave); i++)
		child_assert(witness_stands(client->modules[i]));
	__atomic_fetch_add(&shared->n_done, 1, __ATOMIC_RELEASE);
}

/* Half of them say good-bye; the others just end. */
static void client_leave(struct client *client)
{
	for (unsigned int i = 0; i < client->storm->scale->n_modules; i++)
		tier_close(client->modules[i]);
	tier_disconnect(client->conn);
}

void storm_client_run(void *context)
{
	const struct storm_start *start = context;
	struct storm *storm = start->storm;
	static struct client client;

	client = (struct client){ .storm = storm, .number = start->number, .random = storm->seed + start->number * 0x9e3779b97f4a7c15u };
	client.mine = calloc(storm->scale->n_modules * storm->scale->n_methods, sizeof(*client.mine));
	child_assert(client.mine);
	client.conn = storm_connect(storm);
	for (unsigned int wave = 0; wave < storm_n_waves(storm->scale); wave++)
		client_wave(&client, wave);
	__atomic_fetch_add(&storm->shared->n_calls, client.n_calls, __ATOMIC_RELAXED);
	if (start->number % 2)
		client_leave(&client);
}
