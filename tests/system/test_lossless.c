/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <tier/wire.h>
#include <time.h>
#include <unistd.h>
#include "system/follower.h"
#include "system/harness.h"
#include "system/witness.h"
#include "util/base.h"

/* The lossless storm: many processes drive many methods up all ladders, while all that can lose an event is against it
 *
 *   the ring buffer has one page, and the daemon is stopped while all clients cross their thresholds;
 *   one subscriber is killed again and again, another is slow, a third just follows.
 *
 * The clients go in waves. In each they first make the first calls of a few modules, together; then each calls its
 * methods (every method has a caller, most have some) until it has seen their thresholds crossed, by whomever. What
 * must be in the journal is computed from the program text and from what the crossing calls themselves wrote down
 * (witness.h), and the journal must hold exactly that: per method in order, nothing missing, nothing twice, no hole in
 * the numbers. All followers have seen that, too. */

#define CLIENTS_MAX       16u
#define STORM_DEADLINE_NS 300000000000u
#define OTHERS            4u          /* beside its own methods, a client calls one in so many of all others */
#define SHORT_LOOP        8u          /* iterations */
#define LONG_LOOP         200000u     /* 200 hits; 10 are enough */
#define ASK_AGAIN_NS      2000000000u /* the note got lost */
#define CLOCKS_NS         50000000u   /* how far two clocks may be apart, when the time of a crossing is compared */

struct scale {
	unsigned int n_clients, n_modules, n_methods, n_first; /* methods of a module; modules of the first wave */
	unsigned int n_more;                                   /* of all others */
	uint64_t stop_ns;
};
static const struct scale reduced = { 4, 10, 100, 4, 3, 500000000u };
static const struct scale full = { 16, 40, 500, 20, 4, 5000000000u };

/* Shared by all processes */
struct shared {
	uint32_t n_waves;         /* loaded */
	uint32_t n_crossing;      /* waves that may cross their thresholds */
	uint32_t n_begun, n_done; /* clients that have made the first calls, and all calls, of their waves; summed up */
	uint32_t progress;        /* crossings */
	uint64_t n_calls;
	struct sight sights[]; /* n_methods of each module */
};

struct storm {
	struct daemon daemon;
	struct tier_conn *conn;
	const struct scale *scale;
	struct shared *shared;
	struct tier_module *modules[WITNESS_MODULES_MAX];
	char objects[2][256]; /* bytecode; and precompiled, what the last module is made of */
	pid_t clients[CLIENTS_MAX];
	struct follower followers[3];
	uint64_t seed;
};

#define storm_await(what, condition)                                                                                   \
	do {                                                                                                           \
		uint64_t deadline_ = test_now_ns() + STORM_DEADLINE_NS;                                                \
		while (!(condition))                                                                                   \
			wait_until_pause(what, deadline_);                                                             \
	} while (0)
/* In the parent, which nobody else would tell that a client is gone */
#define storm_await_clients(storm, what, condition) storm_await(what, ((condition) || (clients_live(storm), false)))

static void clients_live(const struct storm *storm)
{
	for (unsigned int i = 0; i < storm->scale->n_clients; i++) {
		siginfo_t info = { .si_pid = 0 };

		if (!waitid(P_PID, storm->clients[i], &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid &&
		    info.si_status)
			fail_msg("client %u ended with %d", i, info.si_status);
	}
}

static uint32_t shared_read(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static unsigned int wave_end(const struct scale *scale, unsigned int wave)
{
	return MIN(scale->n_first + wave * scale->n_more, scale->n_modules);
}

static unsigned int wave_begin(const struct scale *scale, unsigned int wave)
{
	return wave ? wave_end(scale, wave - 1) : 0;
}

static unsigned int n_waves(const struct scale *scale)
{
	return 1 + (scale->n_modules - scale->n_first + scale->n_more - 1) / scale->n_more;
}

static bool is_precompiled(const struct scale *scale, unsigned int module) { return module + 1 == scale->n_modules; }

static void module_name(char name[16], unsigned int module) { snprintf(name, 16, "part%u", module); }

/* -- A client --- */
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

static bool is_own(const struct client *client, const struct sight *sight)
{
	return (sight - client->storm->shared->sights) % client->storm->scale->n_clients == client->number;
}

static void client_take(struct client *client, unsigned int number, uint32_t index)
{
	struct sight *sight = &client->storm->shared->sights[number * client->storm->scale->n_methods + index];
	struct tier_method *method;

	if (!is_own(client, sight) && random_next(&client->random) % OTHERS)
		return;
	child_assert(!tier_method_at(client->modules[number], index, &method));
	client->mine[client->n_mine++] =
	        (struct mine){ tier_module_layout(client->modules[number]), method, sight, index };
}

static void client_shuffle(struct client *client)
{
	for (uint32_t i = client->n_mine; i > 1; i--) {
		const uint32_t k = random_next(&client->random) % i;
		const struct mine kept = client->mine[k];

		client->mine[k] = client->mine[i - 1];
		client->mine[i - 1] = kept;
	}
}

static void client_open(struct client *client, unsigned int wave)
{
	const struct scale *scale = client->storm->scale;
	char name[16];

	client->n_mine = 0;
	for (unsigned int i = wave_begin(scale, wave); i < wave_end(scale, wave); i++) {
		module_name(name, i);
		child_assert(!tier_open(client->conn, name, &client->modules[i]));
		child_assert(tier_module_n_methods(client->modules[i]) == scale->n_methods);
		witness_stand(client->modules[i], &client->storm->shared->sights[i * scale->n_methods],
		              &client->storm->shared->progress);
		for (uint32_t k = 0; k < scale->n_methods; k++)
			client_take(client, i, k);
	}
	client_shuffle(client);
}

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
	const uint64_t x = random_next(&client->random);

	return client_call_with(client, mine, ladder_of(mine->index) == LADDER_LOOP ? x % SHORT_LOOP : x);
}

static const struct tier_patchpoint *patchpoint_of(const struct mine *mine)
{
	const struct tier_patchpoint *patchpoint =
	        (const void *)(uintptr_t)(mine->layout->base + mine->layout->patchpoints);

	for (uint32_t i = 0; i < mine->layout->n_patchpoints; i++)
		if (patchpoint[i].method == mine->index)
			return &patchpoint[i];
	child_fail(__FILE__, __LINE__, "a loop has a patchpoint");
}

/* Frames of precompiled code stay where they are. */
static bool has_frames(const struct client *client, const struct mine *mine)
{
	const struct storm *storm = client->storm;

	return ladder_of(mine->index) == LADDER_LOOP && is_own(client, mine->sight) &&
	       !is_precompiled(storm->scale, (mine->sight - storm->shared->sights) / storm->scale->n_methods);
}

/* Long loops, until frames of them go on in optimized code. */
static void client_loop(struct client *client, const struct mine *mine)
{
	const struct tier_patchpoint *patchpoint = patchpoint_of(mine);

	while (!__atomic_load_n(&patchpoint->code, __ATOMIC_ACQUIRE)) {
		const uint64_t again = test_now_ns() + ASK_AGAIN_NS;

		child_assert(client_call_with(client, mine, LONG_LOOP));
		storm_await("a loop's code",
		            __atomic_load_n(&patchpoint->code, __ATOMIC_ACQUIRE) || test_now_ns() > again);
	}
	mine->sight->is_osr = 1;
}

/* Calls until somebody has crossed the method's threshold for the @nth time. Whoever has made as many calls as that
 * takes, and nobody crossed, waits until calls count again. */
static void client_drive(struct client *client, const struct mine *mine, unsigned int nth)
{
	while (shared_read(&mine->sight->n_crossed) < nth) {
		for (uint32_t i = 0; i <= LADDER_THRESHOLD && shared_read(&mine->sight->n_crossed) < nth; i++)
			if (!client_call(client, mine))
				return;
		if (shared_read(&mine->sight->n_crossed) < nth)
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

static void client_wave(struct client *client, unsigned int wave)
{
	const struct scale *scale = client->storm->scale;
	struct shared *shared = client->storm->shared;

	storm_await("the next wave", shared_read(&shared->n_waves) > wave);
	client_open(client, wave);
	for (uint32_t i = 0; i < client->n_mine; i++)
		client_call(client, &client->mine[i]);
	for (uint32_t i = 0; i < client->n_mine; i++)
		if (has_frames(client, &client->mine[i]))
			client_loop(client, &client->mine[i]);
	__atomic_fetch_add(&shared->n_begun, 1, __ATOMIC_RELEASE);
	storm_await("the wave's second half", shared_read(&shared->n_crossing) > wave);
	client_cross(client);
	for (unsigned int i = wave_begin(scale, wave); i < wave_end(scale, wave); i++)
		child_assert(witness_stands(client->modules[i]));
	__atomic_fetch_add(&shared->n_done, 1, __ATOMIC_RELEASE);
}

struct start {
	struct storm *storm;
	unsigned int number;
};

/* Half of them say good-bye; the others just end. */
static void client_run(void *context)
{
	const struct start *start = context;
	struct storm *storm = start->storm;
	static struct client client;

	client = (struct client){
	        .storm = storm, .number = start->number, .random = storm->seed + start->number * 0x9e3779b97f4a7c15u};
	client.mine = calloc(storm->scale->n_modules * storm->scale->n_methods, sizeof(*client.mine));
	client.conn = daemon_connect(&storm->daemon);
	for (unsigned int wave = 0; wave < n_waves(storm->scale); wave++)
		client_wave(&client, wave);
	__atomic_fetch_add(&storm->shared->n_calls, client.n_calls, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < storm->scale->n_modules && start->number % 2; i++)
		tier_close(client.modules[i]);
	if (start->number % 2)
		tier_disconnect(client.conn);
}

/* -- The storm --- */
static size_t events_max(const struct scale *scale) { return (size_t)scale->n_modules * scale->n_methods * STEPS_MAX; }

static void storm_objects(struct storm *storm)
{
	int fd;

	snprintf(storm->objects[0], sizeof(storm->objects[0]), "%s",
	         ladder_object(&storm->daemon, "part", storm->scale->n_methods));
	fd = tier_precompile(storm->conn, storm->objects[0], STORM_DEADLINE_NS);
	if (fd < 0)
		fail_msg("precompile: %s", tier_error_text());
	snprintf(storm->objects[1], sizeof(storm->objects[1]), "/proc/self/fd/%d", fd);
}

static void storm_begin(struct storm *storm, const struct scale *scale)
{
	const size_t n = sizeof(*storm->shared) + scale->n_modules * scale->n_methods * sizeof(struct sight);
	static struct start starts[CLIENTS_MAX];

	storm->scale = scale;
	storm->shared = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(storm->shared != MAP_FAILED);
	storm_objects(storm);
	for (unsigned int i = 0; i < ARRAY_SIZE(storm->followers); i++)
		follower_start(&storm->followers[i], &storm->daemon, events_max(scale), i == 1 ? 32 : 0);
	for (unsigned int i = 0; i < scale->n_clients; i++) {
		starts[i] = (struct start){ storm, i };
		storm->clients[i] = child_start(client_run, &starts[i]);
	}
}

static void storm_load(struct storm *storm, unsigned int wave)
{
	const struct scale *scale = storm->scale;
	char name[16];

	for (unsigned int i = wave_begin(scale, wave); i < wave_end(scale, wave); i++) {
		module_name(name, i);
		assert_done(
		        tier_load(storm->conn, storm->objects[is_precompiled(scale, i)], name, 0, &storm->modules[i]));
	}
	__atomic_store_n(&storm->shared->n_waves, wave + 1, __ATOMIC_RELEASE);
}

/* The daemon stands still while the thresholds are crossed; and one subscriber dies, before, meanwhile and after. */
static void storm_stop(struct storm *storm, unsigned int wave)
{
	const uint64_t end = test_now_ns() + storm->scale->stop_ns;

	assert_int_equal(kill(storm->daemon.pid, SIGSTOP), 0);
	__atomic_store_n(&storm->shared->n_crossing, wave + 1, __ATOMIC_RELEASE);
	follower_kill(&storm->followers[2]);
	storm_await("the end of the pause", test_now_ns() >= end);
	assert_int_equal(kill(storm->daemon.pid, SIGCONT), 0);
}

static void storm_wave(struct storm *storm, unsigned int wave)
{
	const uint32_t n = storm->scale->n_clients * (wave + 1);

	storm_load(storm, wave);
	follower_kill(&storm->followers[2]);
	storm_await_clients(storm, "all first calls", shared_read(&storm->shared->n_begun) == n);
	storm_stop(storm, wave);
	storm_await_clients(storm, "all calls", shared_read(&storm->shared->n_done) == n);
	follower_kill(&storm->followers[2]);
}

/* -- What must be, and what is --- */
static struct climber climber_of(const struct storm *storm, unsigned int module, uint32_t index)
{
	return (struct climber){
	        .module = tier_module_id(storm->modules[module]),
	        .index = index,
	        .ladder = ladder_of(index),
	        .is_precompiled = is_precompiled(storm->scale, module),
	};
}

/* What was found of one method so far */
struct tally {
	uint32_t n;                           /* steps */
	uint64_t versions[CROSSINGS_MAX + 1]; /* as the journal has them */
};

static size_t storm_expected(const struct storm *storm)
{
	size_t n = storm->scale->n_modules; /* they were loaded */
	struct step steps[STEPS_MAX];

	for (unsigned int i = 0; i < storm->scale->n_modules; i++)
		for (uint32_t k = 0; k < storm->scale->n_methods; k++) {
			const struct sight *sight = &storm->shared->sights[i * storm->scale->n_methods + k];
			const struct climber climber = climber_of(storm, i, k);

			assert_in_range(sight->n_crossed, 0, CROSSINGS_MAX - 1);
			n += steps_expected(&climber, sight, steps);
		}
	return n;
}

static bool threshold_is(const struct tier_event *event, const struct crossing *crossing)
{
	const bool is_told = event->source != TIER_SOURCE_SWEEP;

	return crossing && event->version == crossing->version && event->pid == (is_told ? crossing->pid : 0) &&
	       event->tid == (is_told ? crossing->tid : 0) && event->time_ns + CLOCKS_NS >= crossing->time_ns;
}

/* Versions are numbered as they are made. */
static bool version_is(struct tally *tally, const struct step *step, uint64_t version)
{
	uint64_t *known = &tally->versions[step->version];

	if (!*known && version && (!step->version || version > known[-1]))
		*known = version;
	return *known == version;
}

static bool event_is(const struct tier_event *event, struct tally *tally, const struct step *step,
                     const struct sight *sight)
{
	return event->kind == step->kind && event->from == step->from && event->to == step->to &&
	       event->reason == step->reason && version_is(tally, step, event->version) &&
	       (event->kind != TIER_EVENT_THRESHOLD || threshold_is(event, sight_crossing(sight, step->version)));
}

static void print_wrong(const struct tier_event *event, const struct climber *climber, size_t at,
                        const struct step *step)
{
	print_error("event %lu of module %lu method %u (%s), its %zuth: %s %s to %s for %s, version %lu, %s; expected: "
	            "%s\n",
	            (unsigned long)event->sequence, (unsigned long)climber->module, climber->index,
	            climber->is_precompiled ? "precompiled" : "bytecode", at + 1, tier_event_name(event->kind),
	            tier_level_name(event->from), tier_level_name(event->to), tier_reason_name(event->reason),
	            (unsigned long)event->version, tier_source_name(event->source),
	            step ? tier_event_name(step->kind) : "nothing more");
}

static size_t check_event(const struct storm *storm, unsigned int module, const struct tier_event *event,
                          struct tally *tallies)
{
	const struct climber climber = climber_of(storm, module, event->method);
	const size_t which = module * storm->scale->n_methods + event->method;
	const struct sight *sight = &storm->shared->sights[which];
	struct tally *tally = &tallies[which];
	struct step steps[STEPS_MAX];
	const size_t n = steps_expected(&climber, sight, steps);

	if (tally->n < n && event_is(event, tally, &steps[tally->n], sight)) {
		tally->n++;
		return 0;
	}
	print_wrong(event, &climber, tally->n, tally->n < n ? &steps[tally->n] : NULL);
	return 1;
}

static unsigned int module_of(const struct storm *storm, uint64_t id)
{
	unsigned int i = 0;

	while (i < storm->scale->n_modules && tier_module_id(storm->modules[i]) != id)
		i++;
	return i;
}

/* Returns how many events are wrong or missing. */
static size_t check_journal(const struct storm *storm, const struct tier_event *events, size_t n)
{
	const struct scale *scale = storm->scale;
	struct tally *tallies = calloc(scale->n_modules * scale->n_methods, sizeof(*tallies));
	uint8_t n_loaded[WITNESS_MODULES_MAX] = { 0 };
	size_t n_right = 0, n_wrong = 0;

	for (size_t i = 0; i < n && n_wrong < 20; i++) {
		const unsigned int module = module_of(storm, events[i].module);

		assert_true(module < scale->n_modules);
		if (events[i].kind == TIER_EVENT_MODULE_LOADED)
			n_wrong += n_loaded[module]++ != 0;
		else if (events[i].method < scale->n_methods && n_loaded[module])
			n_wrong += check_event(storm, module, &events[i], tallies);
		else
			n_wrong++;
		n_right = i + 1 - n_wrong;
	}
	for (size_t i = 0; i < scale->n_modules * scale->n_methods; i++) {
		const struct climber climber = climber_of(storm, i / scale->n_methods, i % scale->n_methods);
		struct step steps[STEPS_MAX];
		const size_t n_steps = steps_expected(&climber, &storm->shared->sights[i], steps);

		if (tallies[i].n < n_steps && n_wrong++ < 20)
			print_error("of module %lu method %u only %u of %zu events are there\n",
			            (unsigned long)climber.module, climber.index, tallies[i].n, n_steps);
	}
	free(tallies);
	assert_true(n_wrong || n_right == n);
	return n_wrong;
}

static void print_counts(const struct storm *storm, const struct tier_event *events, size_t n)
{
	uint64_t n_kinds[_TIER_EVENT_N] = { 0 }, n_sources[_TIER_SOURCE_N] = { 0 };
	struct wire_stats stats;

	for (size_t i = 0; i < n; i++) {
		n_kinds[events[i].kind]++;
		if (events[i].kind == TIER_EVENT_THRESHOLD)
			n_sources[events[i].source]++;
	}
	assert_done(tier_stats(storm->conn, &stats));
	print_message("%u clients, %u methods, %lu calls; %zu events:", storm->scale->n_clients,
	              storm->scale->n_modules * storm->scale->n_methods, (unsigned long)storm->shared->n_calls, n);
	for (unsigned int i = 0; i < _TIER_EVENT_N; i++)
		if (n_kinds[i])
			print_message(" %lu %s,", (unsigned long)n_kinds[i], tier_event_name(i));
	print_message("\nthresholds learnt from the kernel: %lu, over sockets: %lu, recovered: %lu; the ring had no "
	              "room %lu times\n",
	              (unsigned long)n_sources[TIER_SOURCE_KERNEL], (unsigned long)n_sources[TIER_SOURCE_SOCKET],
	              (unsigned long)n_sources[TIER_SOURCE_SWEEP], (unsigned long)stats.n_kernel_dropped);
	print_message("a subscriber was killed %u times\n", storm->followers[2].n_kills);
}

static uint64_t newest(const struct storm *storm)
{
	struct wire_stats stats;

	assert_done(tier_stats(storm->conn, &stats));
	return stats.sequence;
}

static void storm_check(struct storm *storm)
{
	const size_t n_expected = storm_expected(storm), n_max = events_max(storm->scale);
	const uint64_t deadline = test_now_ns() + TEST_DEADLINE_NS;
	struct tier_event *events = malloc(n_max * sizeof(*events));
	uint32_t n_pending = 1;
	size_t n, n_wrong;

	/* if they do not come, the check says which */
	while ((newest(storm) < n_expected || n_pending) && test_now_ns() < deadline)
		assert_done(tier_pending_all(storm->conn, &n_pending));
	n = events_read(storm->conn, 0, UINT32_MAX, events, n_max);
	assert_true(n <= n_max);
	print_counts(storm, events, n);
	n_wrong = check_journal(storm, events, n);
	if (n_wrong)
		fail_msg("%zu events (or more) are wrong or missing, of %zu", n_wrong, n_expected);
	assert_int_equal(n, n_expected);
	for (unsigned int i = 0; i < ARRAY_SIZE(storm->followers); i++)
		follower_end(&storm->followers[i], events, n);
	free(events);
}

static void storm_end(struct storm *storm)
{
	for (unsigned int i = 0; i < storm->scale->n_clients; i++)
		child_end(storm->clients[i]);
	storm_check(storm);
	tier_disconnect(storm->conn);
	daemon_stop(&storm->daemon);
}

static void nothing_is_lost_while_the_daemon_stands_still(void **state)
{
	const struct scale *scale = test_is_long() ? &full : &reduced;
	static struct storm storm;

	storm.seed = test_now_ns() | 1;
	print_message("seed %lu\n", (unsigned long)storm.seed);
	daemon_start(&storm.daemon, ARGS("--tiered-pgo=on", "--call-counting-delay=0", "--ring-bytes=4096",
	                                 "--journal-events=1000000"));
	storm.conn = daemon_connect(&storm.daemon);
	storm_begin(&storm, scale);
	for (unsigned int wave = 0; wave < n_waves(scale); wave++)
		storm_wave(&storm, wave);
	storm_end(&storm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(nothing_is_lost_while_the_daemon_stands_still),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
