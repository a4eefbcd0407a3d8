/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/ptrace.h>
#include "client.h"

/* Calls that come to the prestub although there is code: where they go on, what is counted, and who is told. Method 4 of
 * "demo" stands in the vtable slots 0 and 3, method 6 in slot 1; slot 2 is a number (arena.h). */

/* As machine code calls through a call cell: its address in r10. The red zone stays. */
static uint64_t call_through(uint64_t cell, uint64_t target)
{
	register uint64_t r10 __asm__("r10") = cell;
	register uint64_t r8 __asm__("r8") = 5;
	uint64_t a = 1, b = 2, c = 4, d = 3, result = target;

	__asm__ volatile("sub $128, %%rsp\n\tcall *%%rax\n\tadd $128, %%rsp"
			 : "+a"(result), "+D"(a), "+S"(b), "+d"(d), "+c"(c), "+r"(r8), "+r"(r10)
			 :
			 : "r9", "r11", "memory", "cc");
	return result;
}

/* What lies at the cell as programs see it */
static uint64_t cell_of(struct fake *fake, uint32_t slot)
{
	const struct tier_layout *layout = &fake->modules[0].info.layout;

	return layout->base + layout->call_cells + slot * sizeof(uint64_t);
}

static void call_slot(struct fake *fake, uint32_t slot)
{
	errno = 77;
	assert_int_equal(call_through(cell_of(fake, slot), *fake_call_cell(&fake->modules[0], slot)), fake_mix(1, 2, 3, 4, 5));
	assert_int_equal(errno, 77);
}

static uint64_t n_visits(struct fake *fake, enum tier_visit visit)
{
	return __atomic_load_n(&fake_visits(&fake->modules[0])->n[visit], __ATOMIC_RELAXED);
}

static uint64_t n_visits_of_all(struct fake *fake)
{
	uint64_t n = 0;

	for (int i = 0; i < _TIER_VISIT_N; i++)
		n += n_visits(fake, i);
	return n;
}

static uint64_t prestub_of(struct fake *fake)
{
	return fake_prestub(&fake->modules[0]);
}

/* One request and its answer: what was sent before is there. */
static void everything_has_arrived(struct tier_conn *conn)
{
	uint32_t n;

	assert_int_equal(tier_pending_all(conn, &n), 0);
}

static void a_first_call_is_a_cold_visit_and_takes_its_time(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	client_call(client_method(module, 0), 3);
	assert_int_equal(n_visits(fake, TIER_VISIT_COLD), 1);
	assert_int_equal(n_visits_of_all(fake), 1);
	assert_true(fake_visits(&fake->modules[0])->ns[TIER_VISIT_COLD] > 1000);	/* a round trip */
	tier_close(module);
	tier_disconnect(conn);
}

static void whoever_finds_the_precode_changed_follows_it_and_is_counted(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	const uint64_t here = tier_layout_record(&fake->modules[0].info.layout, 0);
	uint64_t result = 0, r8 = 5;

	fake_set_stage(fake, 0, TIER_STAGE_COUNTING);
	/* as a caller that had loaded the precode's old target: straight into the prestub's thunk */
	__asm__ volatile("sub $128, %%rsp\n\tmov %[r8], %%r8\n\tmov %[record], %%r11\n\txor %%r10d, %%r10d\n\tcall *%[thunk]\n\tadd $128, %%rsp"
			 : "=a"(result)
			 : [r8] "r"(r8), [record] "r"(here), [thunk] "r"(prestub_of(fake)), "D"(1), "S"(2), "d"(3), "c"(4)
			 : "r8", "r9", "r10", "r11", "memory", "cc");
	assert_int_equal(result, fake_mix(1, 2, 3, 4, 5));
	assert_int_equal(n_visits(fake, TIER_VISIT_RACE), 1);
	assert_int_equal(tier_remaining(client_method(module, 0)), FAKE_THRESHOLD - 1);
	assert_int_equal(fake->n_requests[WIRE_PREPARE], 0);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Slots --- */
static void a_call_through_a_slot_is_told_once(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	for (int i = 0; i < 3; i++)
		call_slot(fake, 3);
	everything_has_arrived(conn);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 1);
	assert_int_equal(fake->slot.module, tier_module_id(module));
	assert_int_equal(fake->slot.method, 4);
	assert_int_equal(fake->slot.cell, cell_of(fake, 3));
	call_slot(fake, 0);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 2);
	assert_int_equal(fake->slot.cell, cell_of(fake, 0));
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT), 2);
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT_AGAIN), 2);
	assert_int_equal(n_visits_of_all(fake), 4);
	assert_int_equal(fake->n_requests[WIRE_PREPARE], 0);
	tier_close(module);
	tier_disconnect(conn);
}

/* What one daemon was told of may have died with it. */
static void each_daemon_is_told_of_a_slot(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	call_slot(fake, 3);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 1);
	pthread_mutex_lock(&fake->lock);
	fake_die(fake);
	pthread_mutex_unlock(&fake->lock);
	client_call(client_method(module, 0), 1);	/* on the lane of the notes, and as patient as those are not */
	call_slot(fake, 3);
	call_slot(fake, 3);
	everything_has_arrived(conn);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 2);
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT), 2);
	tier_close(module);
	tier_disconnect(conn);
}

static void a_slot_of_a_method_that_is_not_final_is_not_told(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	for (uint32_t i = 0; i < FAKE_THRESHOLD; i++)
		call_slot(fake, 1);
	everything_has_arrived(conn);
	assert_int_equal(n_visits_of_all(fake), 1);
	assert_int_equal(fake->n_requests[WIRE_SLOT_USED], 0);
	assert_int_equal(tier_remaining(client_method(module, 6)), 1);
	tier_close(module);
	tier_disconnect(conn);
}

static void only_call_cells_of_the_module_are_told_of(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	const uint64_t first = cell_of(fake, 0), precode = tier_layout_precode(&fake->modules[0].info.layout, 4);
	const uint64_t junk[] = { 0, UINT64_MAX, 8, first + 1, first - 8, first + FAKE_SLOTS * 8, first + FAKE_SLOTS * 8 - 1,
				  cell_of(fake, 1), cell_of(fake, 2), first - UINT64_C(0x8000000000000000) };

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
		assert_int_equal(call_through(junk[i], precode), fake_mix(1, 2, 3, 4, 5));
	*fake_call_cell(&fake->modules[0], 0) = fake_record(&fake->modules[0], 4)->entry;	/* patched by now */
	assert_int_equal(call_through(first, precode), fake_mix(1, 2, 3, 4, 5));
	everything_has_arrived(conn);
	assert_int_equal(fake->n_requests[WIRE_SLOT_USED], 0);
	assert_int_equal(n_visits(fake, TIER_VISIT_POINTER), 8);
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT_AGAIN), 3);
	tier_close(module);
	tier_disconnect(conn);
}

static int calls_a_slot(void *context)
{
	struct fake *fake = context;

	call_slot(fake, 3);
	call_slot(fake, 3);
	return n_visits(fake, TIER_VISIT_SLOT) == 2 && n_visits(fake, TIER_VISIT_SLOT_AGAIN) == 1 ? 0 : 1;
}

static void a_fork_tells_by_itself(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	call_slot(fake, 3);
	assert_int_equal(child_run(BY_FORK, calls_a_slot, fake), 0);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 2);
	tier_close(module);
	tier_disconnect(conn);
}

static void without_the_daemon_slots_lead_to_the_code(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	fake_stop(fake);
	for (int i = 0; i < 100; i++)
		call_slot(fake, 0);
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT_AGAIN), 100);
	client_call(client_method(module, 4), 1);
	assert_int_equal(n_visits_of_all(fake), 100);	/* the method's address leads straight to it */
	tier_close(module);
	tier_disconnect(conn);
}

struct cut_off {
	struct fake *fake;
	struct tier_method *method;
};

/* In the child, the first note finds a daemon that does not answer. */
static int is_cut_off_and_comes_back(void *context)
{
	const struct cut_off *cut_off = context;
	struct fake *fake = cut_off->fake;
	struct tier_answer answer;

	call_slot(fake, 3);
	if (n_visits(fake, TIER_VISIT_SLOT) || n_visits(fake, TIER_VISIT_SLOT_AGAIN) != 1)
		return 1;
	for (int i = 0; i < 100000 && __atomic_load_n(&fake->twist, __ATOMIC_ACQUIRE); i++)
		usleep(100);
	if (tier_status_ask(cut_off->method, &answer) != 0)
		return 2;
	call_slot(fake, 3);
	return n_visits(fake, TIER_VISIT_SLOT) == 1 ? 0 : 3;
}

static void a_fork_that_was_cut_off_tells_when_it_is_back(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct cut_off cut_off = { fake, client_method(module, 4) };
	pid_t child;

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	fake_set_twist(fake, WIRE_HELLO, TWIST_SILENT);
	child = child_start(BY_FORK, is_cut_off_and_comes_back, &cut_off);
	for (int i = 0; i < 100000 && !n_visits(fake, TIER_VISIT_SLOT_AGAIN); i++)
		usleep(100);
	fake_set_twist(fake, WIRE_HELLO, TWIST_NONE);
	assert_int_equal(child_end(child), 0);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 1);
	tier_close(module);
	tier_disconnect(conn);
}

static void another_connection_tells_what_a_closed_one_could_not(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conns[2] = { client_connect(fake), client_connect(fake) };
	struct tier_module *modules[2] = { client_open(conns[0], "demo") };

	fake_set_stage(fake, 4, TIER_STAGE_FINAL);
	tier_disconnect(conns[0]);
	call_slot(fake, 0);
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT_AGAIN), 1);
	modules[1] = client_open(conns[1], "demo");
	call_slot(fake, 0);
	assert_int_equal(n_visits(fake, TIER_VISIT_SLOT), 1);
	everything_has_arrived(conns[1]);
	fake_expect(&fake->n_requests[WIRE_SLOT_USED], 1);
	tier_close(modules[0]);
	tier_close(modules[1]);
	tier_disconnect(conns[1]);
}

/* -- Counting in the prestub --- */
static void without_stubs_the_prestub_counts_exactly(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_method *method = client_method(module, 2);

	fake_set_stage(fake, 2, TIER_STAGE_COUNTING);
	fake_set_precode(&fake->modules[0], 2, prestub_of(fake));
	for (uint32_t left = FAKE_THRESHOLD; left > 0; left--) {
		assert_int_equal(tier_remaining(method), left);
		assert_int_equal(fake_load(&fake->n_bells), 0);
		client_call(method, 1);
	}
	fake_expect(&fake->n_bells, 1);
	assert_int_equal(fake->bell.version, 1);
	assert_int_equal(fake->bell.method, 2);
	client_call(method, 3);
	assert_int_equal(n_visits(fake, TIER_VISIT_COUNTED), FAKE_THRESHOLD + 3);
	everything_has_arrived(conn);
	assert_int_equal(fake->n_bells, 1);
	assert_int_equal(fake->n_requests[WIRE_PREPARE], 0);
	fake_set_stage(fake, 2, TIER_STAGE_QUEUED);	/* counting is over, and still no stub */
	client_call(method, 2);
	assert_int_equal(n_visits(fake, TIER_VISIT_RACE), 2);
	tier_close(module);
	tier_disconnect(conn);
}

static void a_cell_outside_the_segment_is_left_alone(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_record *record = fake_record(&fake->modules[0], 2);

	fake_set_stage(fake, 2, TIER_STAGE_COUNTING);
	fake_set_precode(&fake->modules[0], 2, prestub_of(fake));
	record->cell = fake->modules[0].info.layout.n_cells;
	client_call(client_method(module, 2), 1);
	record->cell = UINT32_MAX;
	client_call(client_method(module, 2), 1);
	assert_int_equal(n_visits(fake, TIER_VISIT_COUNTED), 2);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Addresses and bodies --- */
static void a_method_has_one_address_at_every_stage(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	const struct tier_layout *layout = tier_module_layout(module);
	struct tier_method *in_vtable = client_method(module, 6), *plain = client_method(module, 0);
	const tier_fn first = tier_entry(in_vtable);

	assert_int_equal((uintptr_t)first, tier_layout_funcptr(layout, 6));
	assert_int_equal((uintptr_t)tier_entry(plain), tier_layout_precode(layout, 0));
	client_call(in_vtable, 2);
	fake_set_stage(fake, 6, TIER_STAGE_FINAL);
	client_call(in_vtable, 2);
	assert_ptr_equal(tier_entry(in_vtable), first);
	assert_int_equal(n_visits_of_all(fake), 1);
	fake_reset(&fake->modules[0], 6);
	assert_int_equal(tier_status(in_vtable).status, TIER_STATUS_COLD);
	client_call(in_vtable, 1);
	call_slot(fake, 1);
	assert_ptr_equal(tier_entry(in_vtable), first);
	tier_close(module);
	tier_disconnect(conn);
}

static void a_method_whose_body_was_replaced_is_asked_for_again(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct tier_method *method = client_method(module, 4);

	for (uint32_t i = 1; i <= 3; i++) {
		fake_set_stage(fake, 4, TIER_STAGE_FINAL);
		client_call(method, 2);
		fake_reset(&fake->modules[0], 4);
		client_call(method, 2);
		assert_int_equal(fake->n_requests[WIRE_PREPARE], i);
	}
	/* the code of another body is still in the record, as a daemon may leave it: the state word decides */
	fake_reset(&fake->modules[0], 4);
	fake_record(&fake->modules[0], 4)->code = 1;
	fake_set_twist(fake, WIRE_PREPARE, TWIST_REFUSE);
	assert_true(call_fails(tier_entry(method)));
	assert_string_equal(failure_text, "no room for you");
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Changes between any two instructions of a call --- */
#define STEPS_MAX 4000u		/* a first call with its round trip is some hundreds, with sanitizers one or two thousand */
#define PERIODS 12u		/* two loads that are so many instructions apart see what lies on two sides of a change */

struct steps {
	struct fake *fake;
	struct tier_method *method, *other;
	uint32_t n_max, period, first, n_used;
};

static int child_is_stepped(void *context)
{
	struct steps *steps = context;

	client_call(steps->other, 1);	/* the session is a fork's own from here on */
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		return 1;
	raise(SIGSTOP);
	client_call(steps->method, 1);
	return 0;
}

/* True: the call, and the child with it, ended while it was stepped through. */
static bool step_through(struct steps *steps, void (*change)(struct steps *, uint32_t step))
{
	const pid_t child = child_start(BY_FORK, child_is_stepped, steps);
	int status, stop = SIGSTOP;

	assert_int_equal(waitpid(child, &status, 0), child);
	for (uint32_t i = 0; i < steps->n_max && WIFSTOPPED(status); i++) {
		change(steps, i);
		stop = WSTOPSIG(status);
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, child, 0, stop == SIGTRAP || stop == SIGSTOP ? 0 : stop), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
	}
	if (!WIFSTOPPED(status)) {
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		return true;
	}
	assert_int_equal(ptrace(PTRACE_DETACH, child, NULL, NULL), 0);
	assert_int_equal(child_end(child), 0);
	return false;
}

/* Somebody replaces the body; then another process calls it first. */
static void replace_or_prepare(struct steps *steps, uint32_t step)
{
	struct fake_module *module = &steps->fake->modules[0];
	const bool is_there = (step / steps->period + steps->first) % 2;

	if (step % steps->period)
		return;
	pthread_mutex_lock(&steps->fake->lock);
	module->n_used = steps->n_used;		/* the same bytes in the same place */
	if (!is_there)
		fake_reset(module, 0);
	else if (!fake_record(module, 0)->code)
		fake_publish(module, 0, TIER_STAGE_COUNTING);
	pthread_mutex_unlock(&steps->fake->lock);
}

static void a_body_is_replaced_and_prepared_between_any_two_instructions(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct steps steps = { fake, client_method(module, 0), client_method(module, 2), .n_max = STEPS_MAX };

	client_call(steps.other, 1);
	steps.n_used = fake->modules[0].n_used;
	for (steps.period = 1; steps.period <= PERIODS; steps.period++)
		for (steps.first = 0; steps.first < 2; steps.first++)
			step_through(&steps, replace_or_prepare);
	tier_close(module);
	tier_disconnect(conn);
}

static void announce_again(struct steps *steps, uint32_t step)
{
	fake_set_state(&steps->fake->modules[0], 0, TIER_STAGE_UNCOUNTED, TIER_LEVEL_TIER0, 0);
}

/* P is the prestub already and the state word does not say COUNTING yet: there is code, and nothing to wait for. */
static void the_state_changes_with_every_instruction_before_counting(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect(fake);
	struct tier_module *module = client_open(conn, "demo");
	struct steps steps = { fake, client_method(module, 0), client_method(module, 2), .n_max = 10 * STEPS_MAX };

	fake_set_stage(fake, 0, TIER_STAGE_COUNTING);
	fake_set_precode(&fake->modules[0], 0, prestub_of(fake));
	fake_set_stage(fake, 0, TIER_STAGE_UNCOUNTED);
	client_call(steps.method, 2);
	assert_true(step_through(&steps, announce_again));
	assert_int_equal(n_visits(fake, TIER_VISIT_RACE), 3);
	assert_int_equal(fake->n_requests[WIRE_PREPARE], 1);	/* the other's */
	assert_int_equal(tier_remaining(steps.method), FAKE_THRESHOLD);
	tier_close(module);
	tier_disconnect(conn);
}

#define VISIT_TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		VISIT_TEST(a_first_call_is_a_cold_visit_and_takes_its_time),
		VISIT_TEST(whoever_finds_the_precode_changed_follows_it_and_is_counted),
		VISIT_TEST(a_call_through_a_slot_is_told_once),
		VISIT_TEST(each_daemon_is_told_of_a_slot),
		VISIT_TEST(a_slot_of_a_method_that_is_not_final_is_not_told),
		VISIT_TEST(only_call_cells_of_the_module_are_told_of),
		VISIT_TEST(a_fork_tells_by_itself),
		VISIT_TEST(a_fork_that_was_cut_off_tells_when_it_is_back),
		VISIT_TEST(another_connection_tells_what_a_closed_one_could_not),
		VISIT_TEST(without_the_daemon_slots_lead_to_the_code),
		VISIT_TEST(without_stubs_the_prestub_counts_exactly),
		VISIT_TEST(a_cell_outside_the_segment_is_left_alone),
		VISIT_TEST(a_method_has_one_address_at_every_stage),
		VISIT_TEST(a_method_whose_body_was_replaced_is_asked_for_again),
		VISIT_TEST(a_body_is_replaced_and_prepared_between_any_two_instructions),
		VISIT_TEST(the_state_changes_with_every_instruction_before_counting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
