/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/prctl.h>
#include "client.h"

/* On-stack replacement, libtier's side: what a loop in unoptimized code calls when its counter has run down */

/* All that the slow path of a loop may hold in registers. rbx, rbp and r12 to r15 are the C ABI's business. */
enum { RAX, RDI, RSI, RDX, RCX, R8, R9, R10, R11, N_REGISTERS };

/* Loads the registers, calls @thunk, stores them. */
void osr_probe(uint64_t thunk, uint64_t registers[N_REGISTERS]);
__asm__(".text\n.type osr_probe, @function\n"
	"osr_probe:\n"
	"push %rbx\npush %r12\n"
	"mov %rdi, %r12\nmov %rsi, %rbx\n"
	"mov 0(%rbx), %rax\nmov 8(%rbx), %rdi\nmov 16(%rbx), %rsi\nmov 24(%rbx), %rdx\nmov 32(%rbx), %rcx\n"
	"mov 40(%rbx), %r8\nmov 48(%rbx), %r9\nmov 56(%rbx), %r10\nmov 64(%rbx), %r11\n"
	"call *%r12\n"
	"mov %rax, 0(%rbx)\nmov %rdi, 8(%rbx)\nmov %rsi, 16(%rbx)\nmov %rdx, 24(%rbx)\nmov %rcx, 32(%rbx)\n"
	"mov %r8, 40(%rbx)\nmov %r9, 48(%rbx)\nmov %r10, 56(%rbx)\nmov %r11, 64(%rbx)\n"
	"pop %r12\npop %rbx\nret\n"
	".size osr_probe, . - osr_probe\n");

struct world {
	struct fake *fake;
	struct tier_conn *conn;
	struct tier_module *module;
};

static void world_begin(struct world *w, void **state)
{
	w->fake = fake_of(state);
	w->conn = client_connect(w->fake);
	w->module = client_open(w->conn, "demo");
}

static void world_end(struct world *w)
{
	tier_close(w->module);
	tier_disconnect(w->conn);
}

/* One hit, as the loop's code makes it: what r11 is then. */
static uint64_t hit(const struct tier_layout *layout, uint32_t number, int32_t *counter)
{
	uint64_t registers[N_REGISTERS] = { [R10] = (uintptr_t)counter, [R11] = tier_layout_patchpoint(layout, number) };

	osr_probe(tier_layout_thunk(layout, TIER_THUNK_OSR), registers);
	return registers[R11];
}

static uint64_t world_hit(struct world *w, uint32_t number)
{
	int32_t counter = 0;

	return hit(tier_module_layout(w->module), number, &counter);
}

static void a_hit_keeps_every_register_and_errno(void **state)
{
	struct world w;
	int32_t counters[3] = { 11, 0, 22 };
	uint64_t registers[N_REGISTERS], before[N_REGISTERS];

	world_begin(&w, state);
	for (uint64_t i = 0; i < N_REGISTERS; i++)
		registers[i] = 0x1122334455667788 * (i + 1);
	registers[R10] = (uintptr_t)&counters[1];
	registers[R11] = tier_layout_patchpoint(tier_module_layout(w.module), 1);
	memcpy(before, registers, sizeof(before));
	errno = 4711;
	for (uint32_t i = 0; i < FAKE_OSR_LIMIT; i++) {		/* the last one sends a note */
		counters[1] = 0;
		osr_probe(tier_layout_thunk(tier_module_layout(w.module), TIER_THUNK_OSR), registers);
		assert_memory_equal(registers, before, R10 * sizeof(registers[0]));
		assert_int_equal(registers[R11], 0);
		assert_int_equal(counters[1], FAKE_OSR_BUMP);
		registers[R10] = before[R10];
		registers[R11] = before[R11];
	}
	assert_int_equal(errno, 4711);
	assert_int_equal(counters[0] + counters[2], 33);
	world_end(&w);
}

static void code_that_is_there_is_entered_without_a_word(void **state)
{
	struct world w;
	int32_t counter = -5;

	world_begin(&w, state);
	fake_patchpoint(&w.fake->modules[0], 2)->code = 0x1234567890;
	assert_int_equal(hit(tier_module_layout(w.module), 2, &counter), 0x1234567890);
	assert_int_equal(counter, FAKE_OSR_BUMP);
	assert_int_equal(*fake_hits(&w.fake->modules[0], 2), 0);
	world_end(&w);
}

static void the_limit_asks_and_so_does_each_doubling(void **state)
{
	static const uint32_t asking[] = { FAKE_OSR_LIMIT, 4, 8, 16, 32 };
	struct world w;
	uint32_t n_asked = 0;

	world_begin(&w, state);
	for (uint32_t i = 1; i <= 40; i++) {
		assert_int_equal(world_hit(&w, 1), 0);
		assert_int_equal(*fake_hits(&w.fake->modules[0], 1), i);
		if (n_asked < 5 && asking[n_asked] == i)
			fake_expect(&w.fake->n_osr, ++n_asked);
	}
	world_end(&w);
	assert_int_equal(w.fake->n_osr, 5);
	assert_int_equal(w.fake->osr.module, 100);
	assert_int_equal(w.fake->osr.patchpoint, 1);
	assert_int_equal(*fake_hits(&w.fake->modules[0], 0), 0);
}

static void where_the_daemon_listens_a_loop_asks_by_the_probe(void **state)
{
	struct world w;

	fake_of(state)->is_kernel = true;
	fake_of(state)->more_sites = 1u << TIER_PROBE_OSR_REQUESTED;
	world_begin(&w, state);
	for (uint32_t i = 1; i < FAKE_OSR_LIMIT; i++)
		assert_int_equal(world_hit(&w, 1), 0);
	assert_int_equal(w.fake->hits[TIER_PROBE_OSR_REQUESTED].n, 0);
	assert_int_equal(world_hit(&w, 1), 0);
	assert_int_equal(w.fake->hits[TIER_PROBE_OSR_REQUESTED].n, 1);
	assert_int_equal(w.fake->hits[TIER_PROBE_OSR_REQUESTED].a, 100);
	assert_int_equal(w.fake->hits[TIER_PROBE_OSR_REQUESTED].b, fake_patchpoint(&w.fake->modules[0], 1)->method);
	assert_int_equal(w.fake->hits[TIER_PROBE_OSR_REQUESTED].c, 1);
	world_end(&w);
	assert_int_equal(w.fake->n_osr, 0);
}

/* A daemon whose kernel programs know nothing of that site: an older one, say. */
static void where_it_does_not_a_loop_asks_over_the_socket(void **state)
{
	struct world w;

	fake_of(state)->is_kernel = true;
	world_begin(&w, state);
	for (uint32_t i = 1; i <= FAKE_OSR_LIMIT; i++)
		assert_int_equal(world_hit(&w, 1), 0);
	fake_expect(&w.fake->n_osr, 1);
	world_end(&w);
	assert_int_equal(w.fake->hits[TIER_PROBE_OSR_REQUESTED].n, 0);
}

/* Anybody may write the hits: that costs notes, and nothing else. */
static void hits_that_somebody_wrote_do_no_harm(void **state)
{
	static const uint32_t values[] = { UINT32_MAX, UINT32_MAX - 1, 0x7fffffff, 0x80000000, 0, 1000 };
	struct world w;

	world_begin(&w, state);
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		*fake_hits(&w.fake->modules[0], 0) = values[i];
		assert_int_equal(world_hit(&w, 0), 0);
		assert_int_equal(*fake_hits(&w.fake->modules[0], 0), values[i] + 1);
	}
	world_end(&w);
}

static void a_number_beyond_the_module_counts_nowhere(void **state)
{
	struct world w;

	world_begin(&w, state);
	fake_patchpoint(&w.fake->modules[0], 0)->number = FAKE_PATCHPOINTS;
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(world_hit(&w, 0), 0);
	assert_int_equal(*fake_hits(&w.fake->modules[0], FAKE_PATCHPOINTS), 0);
	world_end(&w);
	assert_int_equal(w.fake->n_osr, 0);
}

/* The daemon is gone: the loop goes on, as fast as before. */
static void without_a_daemon_a_loop_goes_on(void **state)
{
	struct world w;

	world_begin(&w, state);
	fake_stop(w.fake);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(world_hit(&w, 0), 0);
	tier_disconnect(w.conn);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(world_hit(&w, 0), 0);
	tier_close(w.module);
}

static int child_hits(void *context)
{
	struct world *w = context;

	for (uint32_t i = 0; i < FAKE_OSR_LIMIT; i++)
		if (world_hit(w, 0) != 0)
			return 1;
	return 0;
}

static void a_fork_asks_by_a_session_of_its_own(void **state, long flags)
{
	struct world w;

	world_begin(&w, state);
	assert_int_equal(child_run(flags, child_hits, &w), 0);
	fake_expect(&w.fake->n_osr, 1);
	assert_int_equal(w.fake->n_sessions, 2);
	assert_int_equal(*fake_hits(&w.fake->modules[0], 0), FAKE_OSR_LIMIT);	/* they share the hits */
	assert_int_equal(world_hit(&w, 0), 0);
	fake_expect(&w.fake->n_osr, 2);
	world_end(&w);
}

static void a_fork_asks_for_itself(void **state) { a_fork_asks_by_a_session_of_its_own(state, BY_FORK); }
static void the_child_of_a_clone_asks_for_itself(void **state) { a_fork_asks_by_a_session_of_its_own(state, 0); }

/* -- Signals --- */
static struct world *handler_world;
static void handler_hits(int number)
{
	for (uint32_t i = 0; i < FAKE_OSR_LIMIT; i++)
		world_hit(handler_world, 2);
}

static void a_signal_handlers_loop_asks_too(void **state)
{
	struct world w;
	uint64_t before = 0, after = 0;

	world_begin(&w, state);
	handler_world = &w;
	signal(SIGUSR1, handler_hits);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &before, sizeof(before));
	raise(SIGUSR1);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &after, sizeof(after));
	assert_int_equal(before, after);
	fake_expect(&w.fake->n_osr, 1);
	signal(SIGUSR1, SIG_DFL);
	world_end(&w);
}

/* -- Threads --- */
static void *crowd_main(void *context)
{
	for (int i = 0; i < 1000; i++)
		world_hit(context, 1);
	return NULL;
}

static void threads_lose_no_hit(void **state)
{
	pthread_t threads[8];
	struct world w;

	world_begin(&w, state);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &w), 0);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(*fake_hits(&w.fake->modules[0], 1), 8000);
	fake_expect(&w.fake->n_osr, 12);	/* at 3, and at 4 to 4096 */
	world_end(&w);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_hit_keeps_every_register_and_errno),
		CASE(code_that_is_there_is_entered_without_a_word),
		CASE(the_limit_asks_and_so_does_each_doubling),
		CASE(where_the_daemon_listens_a_loop_asks_by_the_probe),
		CASE(where_it_does_not_a_loop_asks_over_the_socket),
		CASE(hits_that_somebody_wrote_do_no_harm),
		CASE(a_number_beyond_the_module_counts_nowhere),
		CASE(without_a_daemon_a_loop_goes_on),
		CASE(a_fork_asks_for_itself),
		CASE(the_child_of_a_clone_asks_for_itself),
		CASE(a_signal_handlers_loop_asks_too),
		CASE(threads_lose_no_hit),
	};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
