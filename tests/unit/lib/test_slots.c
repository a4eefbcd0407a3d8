/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"
#include <dirent.h>

/* Slots in the program's own memory: what they hold when, who writes them, and what becomes of them in forks */

struct slots_world {
	struct fake *fake;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;	/* 4, which has a vtable slot; 0 has none */
};

static struct slots_world world_begin(void **state)
{
	struct slots_world w = { .fake = fake_of(state) };

	w.conn = client_connect(w.fake);
	w.module = client_open(w.conn, "demo");
	w.method = client_method(w.module, 4);
	return w;
}

static void world_end(const struct slots_world *w)
{
	tier_close(w->module);
	tier_disconnect(w->conn);
}

static tier_fn code_of(const struct slots_world *w, uint32_t method)
{
	return (tier_fn)(uintptr_t)fake_record(&w->fake->modules[0], method)->entry;
}

static tier_fn slot_load(tier_fn *slot) { return __atomic_load_n(slot, __ATOMIC_ACQUIRE); }

/* The daemon tells of a change; returns when this process has answered. (The lane of a fork that is gone by now may still be
 * open at the daemon's end.) */
static void tell(const struct slots_world *w, uint32_t method)
{
	static uint64_t ticket;

	assert_true(fake_tell_slots(w->fake, 100, method, ++ticket) > 0);
	for (int i = 0; i < 100000 && __atomic_load_n(&w->fake->ticket, __ATOMIC_ACQUIRE) != ticket; i++)
		usleep(100);
	assert_int_equal(w->fake->ticket, ticket);
}

static uint32_t n_threads(void)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	uint32_t n = 0;

	assert_non_null(folder);
	while ((entry = readdir(folder)))
		n += entry->d_name[0] != '.';
	closedir(folder);
	return n;
}

/* The thread's name and blocked signals, as /proc has them */
static bool slots_thread_find(uint64_t *ret_blocked)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	char path[300], line[128];
	bool is_found = false;

	assert_non_null(folder);
	while (!is_found && (entry = readdir(folder))) {
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		file = fopen(path, "re");
		while (file && fgets(line, sizeof(line), file)) {
			if (strcmp(line, "Name:\ttier-slots\n") == 0)
				is_found = true;
			else if (is_found && sscanf(line, "SigBlk: %lx", ret_blocked) == 1)
				break;
		}
		if (file)
			fclose(file);
	}
	closedir(folder);
	return is_found;
}

/* -- Values --- */
static void a_slot_follows_the_method(void **state)
{
	struct slots_world w = world_begin(state);
	struct { tier_fn before, slot, after; } s = { 0 };

	assert_int_equal(tier_slot_register(w.method, &s.slot), 0);
	assert_ptr_equal(s.slot, tier_entry(w.method));
	assert_int_equal(s.slot(1, 2, 3, 4, 5), fake_mix(1, 2, 3, 4, 5));
	tell(&w, 4);			/* tier 0: nothing to write */
	assert_ptr_equal(slot_load(&s.slot), tier_entry(w.method));
	assert_int_equal(fake_visits(&w.fake->modules[0])->n_slot_writes, 0);
	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	tell(&w, 4);
	assert_ptr_equal(slot_load(&s.slot), code_of(&w, 4));
	assert_int_equal(fake_visits(&w.fake->modules[0])->n_slot_writes, 1);
	fake_reset(&w.fake->modules[0], 4);
	tell(&w, 4);
	assert_ptr_equal(slot_load(&s.slot), tier_entry(w.method));
	assert_int_equal(fake_visits(&w.fake->modules[0])->n_slot_writes, 2);
	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	tell(&w, 4);
	assert_int_equal(tier_slot_unregister(w.method, &s.slot), 0);
	assert_ptr_equal(s.slot, tier_entry(w.method));
	tell(&w, 4);
	assert_ptr_equal(s.slot, tier_entry(w.method));
	assert_true(!s.before && !s.after);
	world_end(&w);
}

static void the_first_value_is_there_at_once(void **state)
{
	struct slots_world w = world_begin(state);
	tier_fn slots[2];

	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	fake_set_stage(w.fake, 0, TIER_STAGE_COUNTING);
	assert_int_equal(tier_slot_register(w.method, &slots[0]), 0);
	assert_ptr_equal(slots[0], code_of(&w, 4));
	assert_int_equal(tier_slot_register(client_method(w.module, 0), &slots[1]), 0);
	assert_ptr_equal(slots[1], tier_entry(client_method(w.module, 0)));
	assert_int_equal(fake_visits(&w.fake->modules[0])->n_slot_writes, 0);
	world_end(&w);
}

static void every_slot_of_a_method_is_set_and_no_other(void **state)
{
	struct slots_world w = world_begin(state);
	static tier_fn slots[8][600];
	tier_fn entries[8];
	uint32_t n_wrong = 0;

	for (uint32_t i = 0; i < 8; i++)
		for (uint32_t j = 0; j < 600; j++)
			assert_int_equal(tier_slot_register(client_method(w.module, i), &slots[i][j]), 0);
	for (uint32_t i = 0; i < 8; i += 2)
		fake_set_stage(w.fake, i, TIER_STAGE_FINAL);
	for (uint32_t i = 0; i < 8; i++)
		tell(&w, i);
	for (uint32_t i = 0; i < 8; i++)
		for (uint32_t j = 0; j < 600; j++)
			n_wrong += slot_load(&slots[i][j]) != (i % 2 ? tier_entry(client_method(w.module, i)) : code_of(&w, i));
	assert_int_equal(n_wrong, 0);
	assert_int_equal(fake_visits(&w.fake->modules[0])->n_slot_writes, 4 * 600);
	for (uint32_t i = 0; i < 8; i++)
		for (uint32_t j = 0; j < 600; j += 2)
			assert_int_equal(tier_slot_unregister(client_method(w.module, i), &slots[i][j]), 0);
	for (uint32_t i = 0; i < 8; i++)
		entries[i] = tier_entry(client_method(w.module, i));
	tier_close(w.module);		/* the others */
	for (uint32_t i = 0; i < 8; i++)
		for (uint32_t j = 0; j < 600; j++)
			n_wrong += slots[i][j] != entries[i];
	assert_int_equal(n_wrong, 0);
	tier_disconnect(w.conn);
}

static void what_cannot_be_registered_is_refused(void **state)
{
	struct slots_world w = world_begin(state);
	_Alignas(8) char bytes[16] = { 0 };
	tier_fn slot = NULL;

	assert_int_equal(tier_slot_register(w.method, (tier_fn *)(void *)(bytes + 4)), -EINVAL);
	assert_non_null(strstr(tier_error_text(), "not aligned"));
	assert_int_equal(tier_slot_register(w.method, NULL), -EINVAL);
	assert_int_equal(tier_slot_unregister(w.method, &slot), -ENOENT);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	assert_int_equal(tier_slot_register(w.method, &slot), -EINVAL);
	assert_int_equal(tier_slot_register(client_method(w.module, 0), &slot), -EINVAL);
	assert_non_null(strstr(tier_error_text(), "registered already"));
	assert_int_equal(tier_slot_unregister(client_method(w.module, 0), &slot), -ENOENT);
	assert_ptr_equal(slot, tier_entry(w.method));
	world_end(&w);
}

static void a_slot_that_the_daemon_refuses_stays_as_it_was(void **state)
{
	struct slots_world w = world_begin(state);
	tier_fn slot = NULL;

	fake_set_twist(w.fake, WIRE_SLOT_WATCH, TWIST_REFUSE);
	assert_int_equal(tier_slot_register(w.method, &slot), -ENOSPC);
	assert_string_equal(tier_error_text(), "no room for you");
	assert_null(slot);
	fake_set_twist(w.fake, WIRE_SLOT_WATCH, TWIST_NONE);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	world_end(&w);
}

static void a_silent_daemon_does_not_hold_up_for_ever(void **state)
{
	struct fake *fake = fake_of(state);
	struct slots_world w = { .fake = fake, .conn = client_connect_for(fake, FAKE_SECOND / 5) };
	tier_fn slot = NULL;

	w.module = client_open(w.conn, "demo");
	w.method = client_method(w.module, 4);
	fake_set_twist(fake, WIRE_SLOT_WATCH, TWIST_SILENT);
	assert_int_equal(tier_slot_register(w.method, &slot), -ETIMEDOUT);
	assert_null(slot);
	fake_set_twist(fake, WIRE_SLOT_WATCH, TWIST_NONE);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	world_end(&w);
}

/* -- The thread --- */
static void the_thread_comes_with_the_first_slot_and_goes_with_the_connection(void **state)
{
	struct slots_world w = world_begin(state);
	const uint64_t c_library = 1ull << 31 | 1ull << 32, never = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1);
	uint64_t blocked = 0;
	tier_fn slots[2];
	uint32_t n = n_threads();

	assert_false(slots_thread_find(&blocked));
	assert_int_equal(tier_slot_register(w.method, &slots[0]), 0);
	assert_int_equal(tier_slot_register(w.method, &slots[1]), 0);
	assert_int_equal(n_threads(), n + 1);
	assert_true(slots_thread_find(&blocked));
	assert_int_equal(blocked | never | c_library, UINT64_MAX);
	assert_int_equal(blocked & c_library, 0);
	assert_int_equal(setresuid((uid_t)-1, (uid_t)-1, (uid_t)-1), 0);	/* asks every thread */
	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	tell(&w, 4);
	tier_disconnect(w.conn);
	assert_ptr_equal(slots[0], tier_entry(w.method));
	assert_ptr_equal(slots[1], tier_entry(w.method));
	for (int i = 0; i < 10000 && n_threads() != n; i++)
		sched_yield();		/* joined, but the kernel's list is its own */
	assert_int_equal(n_threads(), n);
	assert_int_equal(tier_slot_register(w.method, &slots[0]), -ENOTCONN);
	tier_close(w.module);
}

static void expect_fallen_back(const struct slots_world *w, tier_fn *slot)
{
	for (int i = 0; i < 100000 && slot_load(slot) != tier_entry(w->method); i++)
		usleep(100);
	assert_ptr_equal(slot_load(slot), tier_entry(w->method));
}

/* A successor may take the method over and replace its body. */
static void slots_lead_to_their_methods_when_the_daemon_is_gone(void **state)
{
	struct slots_world w = { .fake = fake_of(state), .conn = client_connect_for(fake_of(state), FAKE_SECOND / 10) };
	tier_fn slot, other = NULL;

	w.module = client_open(w.conn, "demo");
	w.method = client_method(w.module, 4);

	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	assert_ptr_equal(slot, code_of(&w, 4));
	fake_stop(w.fake);
	expect_fallen_back(&w, &slot);
	assert_int_equal(slot(1, 2, 3, 4, 5), fake_mix(1, 2, 3, 4, 5));
	assert_int_equal(tier_slot_register(w.method, &other), -ECONNRESET);
	assert_null(other);
	assert_int_equal(tier_slot_unregister(w.method, &slot), 0);
	assert_ptr_equal(slot, tier_entry(w.method));
	world_end(&w);
}

static void expect_kept(const struct slots_world *w, tier_fn *slot)
{
	for (int i = 0; i < 100000 && slot_load(slot) != code_of(w, 4); i++)
		usleep(100);
	assert_ptr_equal(slot_load(slot), code_of(w, 4));
}

static void slots_are_kept_again_with_the_next_daemon(void **state)
{
	struct slots_world w = world_begin(state);
	static tier_fn slots[600];
	tier_fn other = NULL;

	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	for (int i = 0; i < 600; i++)
		assert_int_equal(tier_slot_register(i % 2 ? w.method : client_method(w.module, 2), &slots[i]), 0);
	for (uint32_t round = 1; round <= 3; round++) {
		fake_stop(w.fake);
		for (int i = 1; i < 600; i += 2)
			expect_fallen_back(&w, &slots[i]);
		fake_start(w.fake);
		for (int i = 1; i < 600; i += 2)
			expect_kept(&w, &slots[i]);
		assert_int_equal(w.fake->n_requests[WIRE_SLOT_WATCH], 600 + 2 * round);	/* once for a method */
	}
	fake_reset(&w.fake->modules[0], 4);
	tell(&w, 4);
	assert_ptr_equal(slot_load(&slots[1]), tier_entry(w.method));
	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	tell(&w, 4);
	assert_ptr_equal(slot_load(&slots[1]), code_of(&w, 4));
	assert_int_equal(tier_slot_register(w.method, &other), 0);
	assert_ptr_equal(other, code_of(&w, 4));
	world_end(&w);
}

/* Only the lane is lost; the daemon may replace bodies until it is back. */
static void a_lane_that_is_lost_alone_comes_back_alone(void **state)
{
	struct slots_world w = world_begin(state);
	struct slots_world other = { .fake = w.fake, .conn = client_connect(w.fake) };
	tier_fn lost = NULL, kept = NULL;

	other.module = client_open(other.conn, "demo");
	other.method = client_method(other.module, 4);
	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	assert_int_equal(tier_slot_register(w.method, &lost), 0);
	assert_int_equal(tier_slot_register(other.method, &kept), 0);
	fake_set_twist(w.fake, WIRE_SLOT_WATCH, TWIST_REFUSE);
	fake_hang_up_slots(w.fake);
	expect_fallen_back(&w, &lost);
	expect_fallen_back(&w, &kept);
	fake_expect(&w.fake->n_requests[WIRE_SLOT_WATCH], 4);
	tell(&w, 4);		/* a daemon that would not watch it */
	assert_ptr_equal(slot_load(&lost), tier_entry(w.method));
	assert_int_equal(lost(1, 2, 3, 4, 5), fake_mix(1, 2, 3, 4, 5));
	fake_set_twist(w.fake, WIRE_SLOT_WATCH, TWIST_NONE);
	fake_hang_up_slots(w.fake);
	expect_kept(&w, &lost);
	expect_kept(&w, &kept);
	assert_int_equal(w.fake->n_sessions, 2);
	world_end(&other);
	world_end(&w);
}

static void slots_of_what_the_next_daemon_does_not_know_stay_at_the_method(void **state)
{
	struct slots_world w = world_begin(state);
	struct tier_module *module = client_open(w.conn, "other");
	struct tier_method *method = client_method(module, 4);
	tier_fn gone, known, more = NULL;

	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	assert_int_equal(tier_slot_register(w.method, &gone), 0);
	assert_int_equal(tier_slot_register(method, &known), 0);
	fake_stop(w.fake);
	w.fake->is_gone[0] = true;
	fake_start(w.fake);
	fake_expect(&w.fake->n_requests[WIRE_SLOT_WATCH], 4);
	assert_int_equal(tier_slot_register(method, &more), 0);		/* the thread is through */
	assert_ptr_equal(slot_load(&gone), tier_entry(w.method));
	assert_int_equal(gone(1, 2, 3, 4, 5), fake_mix(1, 2, 3, 4, 5));
	assert_int_equal(tier_slot_unregister(w.method, &gone), 0);
	assert_int_equal(tier_slot_register(w.method, &gone), -ESTALE);
	tier_close(module);
	world_end(&w);
}

static void disconnecting_does_not_wait_for_a_daemon(void **state)
{
	struct slots_world w = world_begin(state);
	tier_fn slot;

	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	fake_stop(w.fake);
	expect_fallen_back(&w, &slot);
	alarm(8);
	tier_close(w.module);
	tier_disconnect(w.conn);
	alarm(0);
	fake_start(w.fake);
	w = world_begin(state);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	fake_set_twist(w.fake, WIRE_HELLO, TWIST_SILENT);
	fake_hang_up_slots(w.fake);
	fake_expect(&w.fake->n_held, 1);
	alarm(8);
	world_end(&w);
	alarm(0);
}

static void nonsense_on_the_lane_costs_the_lane_only(void **state)
{
	static const enum twist twists[] = { TWIST_GARBAGE, TWIST_SHORT, TWIST_TYPE, TWIST_LAST_WORD, TWIST_HANGUP };

	for (size_t i = 0; i < sizeof(twists) / sizeof(twists[0]); i++) {
		struct slots_world w = world_begin(state);
		tier_fn slot = NULL;

		fake_set_twist(w.fake, WIRE_SLOT_WATCH, twists[i]);
		assert_int_equal(tier_slot_register(w.method, &slot), -ECONNRESET);
		assert_null(slot);
		fake_set_twist(w.fake, WIRE_SLOT_WATCH, TWIST_NONE);
		assert_int_equal(tier_slot_register(w.method, &slot), 0);
		client_call(w.method, 1);
		world_end(&w);
	}
}

/* What is told of modules that are not open is answered like everything else. */
static void changes_of_what_is_not_there_are_answered(void **state)
{
	struct slots_world w = world_begin(state);
	tier_fn slot;

	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	fake_expect(&w.fake->n_slots_done, fake_tell_slots(w.fake, 99, 4, 1));
	fake_expect(&w.fake->n_slots_done, 1 + fake_tell_slots(w.fake, 100, UINT32_MAX, 2));
	assert_int_equal(w.fake->ticket, 2);
	world_end(&w);
}

/* -- Forks --- */
struct family {
	const struct slots_world *w;
	tier_fn *slot;
};

static int child_has_slots_of_its_own(void *context)
{
	const struct family *family = context;
	const struct slots_world *w = family->w;
	const tier_fn entry = tier_entry(w->method);
	tier_fn own = NULL;

	if (*family->slot != entry || n_threads() != 1)
		return 1;
	if (tier_slot_unregister(w->method, family->slot) != -ENOENT)
		return 2;
	if (tier_slot_register(w->method, family->slot) || tier_slot_register(w->method, &own))
		return 3;
	if (own != code_of(w, 4) || *family->slot != own || n_threads() != 2)
		return 4;
	tier_close(w->module);
	return own == entry ? 0 : 5;
}

static void a_fork_begins_without_slots(void **state)
{
	struct slots_world w = world_begin(state);
	tier_fn slot;
	struct family family = { &w, &slot };

	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	assert_int_equal(child_run(BY_FORK, child_has_slots_of_its_own, &family), 0);
	assert_ptr_equal(slot, code_of(&w, 4));
	fake_reset(&w.fake->modules[0], 4);
	tell(&w, 4);
	assert_ptr_equal(slot_load(&slot), tier_entry(w.method));
	world_end(&w);
}

static int child_of_a_clone(void *context)
{
	const struct family *family = context;
	tier_fn own = NULL;

	if (tier_slot_register(family->w->method, &own) || own != code_of(family->w, 4))
		return 1;
	return *family->slot == tier_entry(family->w->method) ? 0 : 2;
}

/* No handler runs there: the slots are let go when libtier first notices. */
static void a_clone_lets_go_at_its_first_slot(void **state)
{
	struct slots_world w = world_begin(state);
	tier_fn slot;
	struct family family = { &w, &slot };

	fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	assert_int_equal(child_run(0, child_of_a_clone, &family), 0);
	world_end(&w);
}

/* Otherwise a watcher that died would be waited for as long as its fork lives. */
static int child_sleeps(void *context)
{
	char byte;

	return read(*(int *)context, &byte, 1) == 1 ? 0 : 1;
}

static void a_fork_does_not_keep_its_parents_lane(void **state)
{
	struct slots_world w = world_begin(state);
	pid_t child;
	int ends[2];
	tier_fn slot;
	uint32_t n = 1;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	child = child_start(BY_FORK, child_sleeps, &ends[0]);
	tier_disconnect(w.conn);
	for (int i = 0; i < 100000 && n; i++) {		/* until the daemon has seen the end of it */
		n = 0;
		pthread_mutex_lock(&w.fake->lock);
		for (uint32_t j = 0; j < w.fake->n_conns; j++)
			n += w.fake->conns[j].fd >= 0 && w.fake->conns[j].lane == WIRE_LANE_SLOTS;
		pthread_mutex_unlock(&w.fake->lock);
		usleep(100);
	}
	assert_int_equal(n, 0);
	assert_int_equal(write(ends[1], "x", 1), 1);
	assert_int_equal(child_end(child), 0);
	tier_close(w.module);
	close(ends[0]);
	close(ends[1]);
}

/* -- Everything at once --- */
struct storm {
	const struct slots_world *w;
	bool is_over;
	uint32_t n_wrong;
};

static void *storm_main(void *context)
{
	struct storm *storm = context;
	tier_fn slots[16] = { 0 };

	while (!__atomic_load_n(&storm->is_over, __ATOMIC_ACQUIRE)) {
		for (int i = 0; i < 16; i++)
			if (tier_slot_register(storm->w->method, &slots[i]))
				__atomic_fetch_add(&storm->n_wrong, 1, __ATOMIC_RELAXED);
		for (int i = 0; i < 16; i++)
			if (slot_load(&slots[i])(1, 2, 3, 4, 5) != fake_mix(1, 2, 3, 4, 5))
				__atomic_fetch_add(&storm->n_wrong, 1, __ATOMIC_RELAXED);
		for (int i = 0; i < 16; i++)
			if (tier_slot_unregister(storm->w->method, &slots[i]) || slots[i] != tier_entry(storm->w->method))
				__atomic_fetch_add(&storm->n_wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static int child_registers(void *context)
{
	tier_fn slot = NULL;

	return tier_slot_register(((const struct slots_world *)context)->method, &slot);
}

static void registering_changing_and_forking_do_not_mind_each_other(void **state)
{
	struct slots_world w = world_begin(state);
	struct storm storm = { .w = &w };
	pthread_t threads[3];
	tier_fn slot;
	int status = 0;

	assert_int_equal(tier_slot_register(w.method, &slot), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, storm_main, &storm), 0);
	for (int i = 0; i < 30; i++) {
		fake_set_stage(w.fake, 4, TIER_STAGE_FINAL);
		tell(&w, 4);
		assert_ptr_equal(slot_load(&slot), code_of(&w, 4));
		pthread_mutex_lock(&w.fake->lock);
		fake_reset(&w.fake->modules[0], 4);
		pthread_mutex_unlock(&w.fake->lock);
		tell(&w, 4);
		if (i % 10 == 0 && !status)
			status = child_run(BY_FORK, child_registers, &w);
	}
	__atomic_store_n(&storm.is_over, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(status, 0);		/* not before: the threads use what lies on this stack */
	assert_int_equal(storm.n_wrong, 0);
	world_end(&w);
}

#define SLOT_TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		SLOT_TEST(a_slot_follows_the_method),
		SLOT_TEST(the_first_value_is_there_at_once),
		SLOT_TEST(every_slot_of_a_method_is_set_and_no_other),
		SLOT_TEST(what_cannot_be_registered_is_refused),
		SLOT_TEST(a_slot_that_the_daemon_refuses_stays_as_it_was),
		SLOT_TEST(a_silent_daemon_does_not_hold_up_for_ever),
		SLOT_TEST(the_thread_comes_with_the_first_slot_and_goes_with_the_connection),
		SLOT_TEST(slots_lead_to_their_methods_when_the_daemon_is_gone),
		SLOT_TEST(slots_are_kept_again_with_the_next_daemon),
		SLOT_TEST(a_lane_that_is_lost_alone_comes_back_alone),
		SLOT_TEST(slots_of_what_the_next_daemon_does_not_know_stay_at_the_method),
		SLOT_TEST(disconnecting_does_not_wait_for_a_daemon),
		SLOT_TEST(nonsense_on_the_lane_costs_the_lane_only),
		SLOT_TEST(changes_of_what_is_not_there_are_answered),
		SLOT_TEST(a_fork_begins_without_slots),
		SLOT_TEST(a_clone_lets_go_at_its_first_slot),
		SLOT_TEST(a_fork_does_not_keep_its_parents_lane),
		SLOT_TEST(registering_changing_and_forking_do_not_mind_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
