/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include "unit/jit/world.c"

/* Thunks, precodes, call-counting stubs and forwarders, with entries that note what they were handed. */

struct entry_notes {
	uint64_t record, data;		/* r11 and r10 at the last entry */
	uint64_t args[5];
	uint32_t n_prestub, n_threshold, n_osr;
};
struct entry_notes entry_notes;

/* The prestub returns 1000. The threshold entry goes on where the crossing call wants to go, as libtier's does. */
uint64_t entry_prestub(void);
uint64_t entry_threshold(void);
uint64_t entry_osr(void);
__asm__(".pushsection .text\n"
	".hidden entry_notes\n"
	"entry_prestub:\n"
	"	lock incl entry_notes+56(%rip)\n"
	"	mov %r11, entry_notes(%rip)\n	mov %r10, entry_notes+8(%rip)\n"
	"	mov %rdi, entry_notes+16(%rip)\n	mov %rsi, entry_notes+24(%rip)\n	mov %rdx, entry_notes+32(%rip)\n"
	"	mov %rcx, entry_notes+40(%rip)\n	mov %r8, entry_notes+48(%rip)\n"
	"	mov $1000, %eax\n"
	"	ret\n"
	"entry_threshold:\n"
	"	lock incl entry_notes+60(%rip)\n"
	"	mov %r11, entry_notes(%rip)\n	mov %r10, entry_notes+8(%rip)\n"
	"	jmp *8(%r10)\n"
	"entry_osr:\n"
	"	lock incl entry_notes+64(%rip)\n"
	"	ret\n"
	".popsection\n");
_Static_assert(offsetof(struct entry_notes, args) == 16 && offsetof(struct entry_notes, n_prestub) == 56 &&
	       offsetof(struct entry_notes, n_osr) == 64, "what the entries above write to");

static int stubs_setup(void **state)
{
	struct world *w = world_new();

	world_private(w)->prestub = (uintptr_t)entry_prestub;
	world_private(w)->threshold = (uintptr_t)entry_threshold;
	world_private(w)->osr = (uintptr_t)entry_osr;
	entry_notes = (struct entry_notes){ 0 };
	*state = w;
	return 0;
}

/* A stub over method 0's code, in use: address of its data. */
static uint64_t install_stub(struct world *w, uint32_t cell, uint32_t threshold)
{
	uint64_t stub;

	w->e.n = align_up(w->e.n, 16);
	stub = emit_here(&w->e);
	stubs_counting(&w->e, &w->layout, 0, cell, 4711, w->code[0]);
	assert_int_equal(emit_here(&w->e), stub + STUB_SIZE);
	*(uint32_t *)tier_layout_cell(&w->layout, cell) = threshold;
	world_lead(w, 0, stub);
	return stub;
}

static uint32_t remaining(const struct world *w, uint32_t cell, uint32_t threshold)
{
	return tier_count_remaining(*(uint32_t *)tier_layout_cell(&w->layout, cell), threshold);
}

static void a_cold_method_enters_the_prestub_with_its_record_and_arguments(void **state)
{
	const uint64_t args[5] = { 11, 12, 13, 14, 15 };
	struct world *w = *state;

	for (uint32_t method = 0; method < WORLD_METHODS; method++) {
		assert_int_equal(world_run(w, method, args), 1000);
		assert_int_equal(entry_notes.record, tier_layout_record(&w->layout, method));
		assert_memory_equal(entry_notes.args, args, sizeof(args));
	}
	assert_int_equal(entry_notes.n_prestub, WORLD_METHODS);
}

static void every_thunk_leads_to_its_own_entry(void **state)
{
	struct world *w = *state;
	const uint64_t args[5] = { 0 };

	world_call(tier_layout_thunk(&w->layout, TIER_THUNK_PRESTUB), args);
	assert_int_equal(entry_notes.n_prestub, 1);
	world_call(tier_layout_thunk(&w->layout, TIER_THUNK_OSR), args);
	assert_int_equal(entry_notes.n_osr, 1);
	assert_int_equal(entry_notes.n_threshold, 0);
}

static void a_precode_follows_its_target(void **state)
{
	struct world *w = *state;
	const uint64_t args[5] = { 5 };

	LOAD_PROGRAM(w, MOV(0, 1), EXIT());
	assert_int_equal(world_run(w, 0, args), 5);
	world_lead(w, 0, tier_layout_thunk(&w->layout, TIER_THUNK_PRESTUB));
	assert_int_equal(world_run(w, 0, args), 1000);
	world_lead(w, 0, w->code[0]);
	assert_int_equal(world_run(w, 0, args), 5);
}

static void the_nth_call_crosses_and_no_other(void **state)
{
	enum { N = 30, CELL = 7 };
	const uint64_t args[5] = { 1, 2, 3, 4, 5 };
	struct world *w = *state;
	uint64_t stub;

	LOAD_PROGRAM(w, MOV(0, 5), ALU64_X(BPF_ADD, 0, 4), ALU64_X(BPF_MUL, 0, 3), ALU64_X(BPF_ADD, 0, 2),
		     ALU64_X(BPF_MUL, 0, 1), EXIT());
	stub = install_stub(w, CELL, N);
	for (uint32_t call = 1; call <= 2 * N; call++) {
		assert_int_equal(remaining(w, CELL, N), call <= N ? N - call + 1 : 0);
		assert_int_equal(world_run(w, 0, args), 29);
		assert_int_equal(entry_notes.n_threshold, call >= N);
	}
	assert_int_equal(entry_notes.record, tier_layout_record(&w->layout, 0));
	assert_in_range(entry_notes.data, stub, stub + STUB_SIZE - sizeof(struct tier_stub_data));
	assert_int_equal(((const struct tier_stub_data *)entry_notes.data)->version, 4711);
	assert_int_equal(((const struct tier_stub_data *)entry_notes.data)->code, w->code[0]);
}

/* -- Funcptr precodes and forwarders --- */
static void a_funcptr_precode_follows_f_and_not_p(void **state)
{
	struct world *w = *state;
	const uint64_t args[5] = { 5 }, funcptr = tier_layout_funcptr(&w->layout, 0);

	LOAD_PROGRAM(w, MOV(0, 1), EXIT());
	assert_int_equal(funcptr, tier_layout_precode(&w->layout, 0) + TIER_FUNCPTR_OFFSET);
	assert_int_equal(world_call(funcptr, args), 5);			/* F is T, P the code */
	world_lead(w, 0, tier_layout_thunk(&w->layout, TIER_THUNK_PRESTUB));
	assert_int_equal(world_call(funcptr, args), 1000);		/* so the prestub knows the record */
	assert_int_equal(entry_notes.record, tier_layout_record(&w->layout, 0));
	world_record(w, 0)->funcptr = w->code[0];			/* as at the final tier */
	assert_int_equal(world_call(funcptr, args), 5);
	assert_int_equal(world_run(w, 0, args), 1000);
}

static void every_method_has_a_funcptr_precode_of_its_own(void **state)
{
	const uint64_t args[5] = { 11, 12, 13, 14, 15 };
	struct world *w = *state;

	for (uint32_t method = 0; method < WORLD_METHODS; method++) {
		assert_int_equal(world_call(tier_layout_funcptr(&w->layout, method), args), 1000);
		assert_int_equal(entry_notes.record, tier_layout_record(&w->layout, method));
		assert_memory_equal(entry_notes.args, args, sizeof(args));
	}
}

/* What a call cell leads to finds the cell's address in r10: nothing on the way to the prestub touches it. */
static void the_way_from_t_to_the_prestub_keeps_the_cell(void **state)
{
	struct world *w = *state;
	const uint64_t args[5] = { 0 };
	uint64_t *slot = (uint64_t *)(w->layout.base + w->layout.rodata);

	w->layout.slots = w->layout.rodata;
	w->layout.n_slots = 8;
	w->layout.call_cells = w->layout.rodata + 1024;
	LOAD_PROGRAM(w, LDDW(3, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 3, 3, 0), CALLX(3), EXIT());
	slot[0] = tier_layout_funcptr(&w->layout, 1);
	slot[128] = tier_layout_precode(&w->layout, 1);
	assert_int_equal(world_run(w, 0, args), 1000);
	assert_int_equal(entry_notes.record, tier_layout_record(&w->layout, 1));
	assert_int_equal(entry_notes.data, (uintptr_t)&slot[128]);
}

static uint64_t install_forwarder(struct world *w, uint64_t target)
{
	uint64_t forwarder;

	w->e.n = align_up(w->e.n, FORWARDER_SIZE);
	forwarder = emit_here(&w->e);
	stubs_forwarder(&w->e, target);
	assert_int_equal(emit_here(&w->e), forwarder + FORWARDER_SIZE);
	return forwarder;
}

static uint64_t *forwarder_target(struct world *w, uint64_t forwarder)
{
	return (uint64_t *)(w->code_rw + (forwarder - w->layout.base) + FORWARDER_TARGET);
}

static void a_forwarder_leads_where_its_target_says(void **state)
{
	struct world *w = *state;
	const uint64_t args[5] = { 5 };
	uint64_t forwarder;

	LOAD_PROGRAM(w, MOV(0, 1), EXIT());
	forwarder = install_forwarder(w, tier_layout_precode(&w->layout, 3));
	assert_int_equal((uintptr_t)forwarder_target(w, forwarder) % 8, 0);
	assert_int_equal(*forwarder_target(w, forwarder), tier_layout_precode(&w->layout, 3));
	assert_int_equal(world_call(forwarder, args), 1000);
	assert_int_equal(entry_notes.record, tier_layout_record(&w->layout, 3));
	*forwarder_target(w, forwarder) = w->code[0];
	assert_int_equal(world_call(forwarder, args), 5);
}

enum { N_THREADS = 8 };
static struct { uint64_t code; uint32_t n_calls; pthread_barrier_t barrier; } race;

static void *call_many_times(void *arg)
{
	uint64_t (*function)(uint64_t) = (void *)race.code;
	uint64_t n_wrong = 0;

	pthread_barrier_wait(&race.barrier);
	for (uint32_t i = 0; i < race.n_calls; i++)
		n_wrong += function(i) != i + 1;
	return (void *)n_wrong;
}

static uint64_t call_from_threads(uint64_t code, uint32_t n_calls)
{
	pthread_t threads[N_THREADS];
	uint64_t n_wrong = 0;

	race.code = code;
	race.n_calls = n_calls;
	pthread_barrier_init(&race.barrier, NULL, N_THREADS);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_many_times, NULL), 0);
	for (int i = 0; i < N_THREADS; i++) {
		void *ret;

		pthread_join(threads[i], &ret);
		n_wrong += (uintptr_t)ret;
	}
	pthread_barrier_destroy(&race.barrier);
	return n_wrong;
}

/* One call fewer than N by all threads together leaves 1; the next crosses; then nobody does. */
static void eight_threads_cross_exactly_once(void **state)
{
	const uint32_t n_calls = test_is_long() ? 1000000 : 20000;
	const uint32_t n_rounds = test_is_long() ? 20 : 5;
	struct world *w = *state;
	const uint64_t args[5] = { 0 };

	LOAD_PROGRAM(w, MOV(0, 1), ALU64_K(BPF_ADD, 0, 1), EXIT());
	for (uint32_t round = 0; round < n_rounds; round++) {
		entry_notes.n_threshold = 0;
		install_stub(w, round, N_THREADS * n_calls + 1);
		assert_int_equal(call_from_threads(tier_layout_precode(&w->layout, 0), n_calls), 0);
		assert_int_equal(entry_notes.n_threshold, 0);
		assert_int_equal(remaining(w, round, N_THREADS * n_calls + 1), 1);
		world_run(w, 0, args);
		assert_int_equal(entry_notes.n_threshold, 1);
		install_stub(w, round, N_THREADS * n_calls / 2);
		assert_int_equal(call_from_threads(tier_layout_precode(&w->layout, 0), n_calls), 0);
		assert_int_equal(entry_notes.n_threshold, 2);
	}
}

/* While eight threads call, F and a forwarder's target change; each call runs one of the two bodies, and after the last change
 * only that one. */
static void threads_never_see_half_a_change(void **state)
{
	const uint32_t n_changes = test_is_long() ? 2000000 : 100000;
	struct world *w = *state;
	struct builder builder = BUILDER_NULL;
	struct program one = { 0 }, two = { 0 };
	uint64_t places[2];
	pthread_t threads[N_THREADS];

	ADD(&one, MOV(0, 1), ALU64_K(BPF_ADD, 0, 1), EXIT());
	ADD(&two, MOVI(0, 1), ALU64_X(BPF_ADD, 0, 1), EXIT());
	world_method(&builder, &one);
	world_method(&builder, &two);
	world_load(w, &builder);
	places[0] = tier_layout_funcptr(&w->layout, 0);
	places[1] = install_forwarder(w, w->code[0]);
	for (uint32_t place = 0; place < 2; place++) {
		uint64_t *target = place ? forwarder_target(w, places[1]) : &world_record(w, 0)->funcptr;
		uint64_t n_wrong = 0;

		race.code = places[place];
		race.n_calls = n_changes;
		pthread_barrier_init(&race.barrier, NULL, N_THREADS + 1);
		for (int i = 0; i < N_THREADS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, call_many_times, NULL), 0);
		pthread_barrier_wait(&race.barrier);
		for (uint32_t i = 0; i < n_changes; i++)
			__atomic_store_n(target, w->code[i & 1], __ATOMIC_RELEASE);
		for (int i = 0; i < N_THREADS; i++) {
			void *ret;

			pthread_join(threads[i], &ret);
			n_wrong += (uintptr_t)ret;
		}
		pthread_barrier_destroy(&race.barrier);
		assert_int_equal(n_wrong, 0);
	}
}

#define IN_A_WORLD(test) cmocka_unit_test_setup_teardown(test, stubs_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_A_WORLD(a_cold_method_enters_the_prestub_with_its_record_and_arguments),
		IN_A_WORLD(every_thunk_leads_to_its_own_entry),
		IN_A_WORLD(a_precode_follows_its_target),
		IN_A_WORLD(the_nth_call_crosses_and_no_other),
		IN_A_WORLD(eight_threads_cross_exactly_once),
		IN_A_WORLD(a_funcptr_precode_follows_f_and_not_p),
		IN_A_WORLD(every_method_has_a_funcptr_precode_of_its_own),
		IN_A_WORLD(the_way_from_t_to_the_prestub_keeps_the_cell),
		IN_A_WORLD(a_forwarder_leads_where_its_target_says),
		IN_A_WORLD(threads_never_see_half_a_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
