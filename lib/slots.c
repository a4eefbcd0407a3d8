/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/prctl.h>
#include "connection.h"
#include "error.h"
#include "module.h"
#include "slots.h"
#include "sync.h"
#include "sys.h"

/* What a slot holds: the value of the method's entry point cell E, or the method's address as long as E leads back to the
 * precode. The daemon tells on a lane of its own when E has changed; a thread reads the record, sets the slots, and answers:
 * whoever replaces the method's body waits for that answer. Registering reads the record too, after the daemon has
 * promised to tell, and under the same lock: so no value that it writes is older than one that the thread wrote.
 *
 * The thread takes no lock but ours, which a fork finds free, and allocates nothing: so it makes no fork unsafe that was
 * safe before. When its lane is lost, the slots lead to their methods, which is right at every stage and one jump slower: the
 * daemon may well live, and replaces bodies without asking whom it cannot reach any more. The thread looks for the daemon then,
 * or the next one, has every method with slots watched again, and only then sets them: so what holds for registering holds
 * for them all. What a daemon does not watch stays at its method.
 *
 * Slots are the process's, whichever connection they came by, in two tables: by method for the thread, by address to see
 * that nobody registers one twice. A fork that finds them empties them; each change is one store, so what it finds is
 * whole. */

#define SLOT_BUCKETS 1024u
#define SLOT_CHUNK 65536u		/* bytes of slots that are made at a time */
#define SLOT_THREAD_STACK (256u << 10)

struct slot {
	struct slot *next;		/* of the method's bucket, or of those that are free */
	struct slot *next_at;		/* of the address's */
	const struct tier_method *method;
	tier_fn *at;
	uint32_t round;			/* in which the daemon was last asked to watch the method, */
	bool is_watched;		/* and whether it does */
};

/* process_page()->slots guards them all */
static struct slot *by_method[SLOT_BUCKETS], *by_address[SLOT_BUCKETS], *spare;
static struct tier_conn *slot_conns;	/* whose lanes a fork may have copies of */
static uint32_t has_fork_handler;

/* -- The tables; under the slots lock --- */
static struct slot **method_bucket(uint64_t module, uint32_t index)
{
	return &by_method[((module ^ (uint64_t)index << 32) * 0x9e3779b97f4a7c15u) >> 54];
}

static struct slot **address_bucket(const tier_fn *at)
{
	return &by_address[((uintptr_t)at / sizeof(*at) * 0x9e3779b97f4a7c15u) >> 54];
}
_Static_assert(SLOT_BUCKETS == 1u << 10, "ten bits of the hash");

static bool slot_is_of(const struct slot *slot, uint64_t module, uint32_t index)
{
	return slot->method->module->mapping->module == module && slot->method->index == index;
}

static struct slot *slot_find(const tier_fn *at)
{
	struct slot *slot = *address_bucket(at);

	while (slot && slot->at != at)
		slot = slot->next_at;
	return slot;
}

static void slot_link(struct slot *slot)
{
	struct slot **const methods = method_bucket(slot->method->module->mapping->module, slot->method->index);
	struct slot **const addresses = address_bucket(slot->at);

	slot->next = *methods;
	slot->next_at = *addresses;
	__atomic_store_n(methods, slot, __ATOMIC_RELEASE);
	__atomic_store_n(addresses, slot, __ATOMIC_RELEASE);
}

static void slot_spare(struct slot *slot)
{
	slot->next = spare;
	__atomic_store_n(&spare, slot, __ATOMIC_RELEASE);
}

static void slot_unlink(struct slot *slot)
{
	struct slot **at;

	for (at = address_bucket(slot->at); *at != slot; at = &(*at)->next_at)
		;
	__atomic_store_n(at, slot->next_at, __ATOMIC_RELEASE);
	for (at = method_bucket(slot->method->module->mapping->module, slot->method->index); *at != slot; at = &(*at)->next)
		;
	__atomic_store_n(at, slot->next, __ATOMIC_RELEASE);
	slot_spare(slot);
}

/* NULL with a sentence: no memory. */
static struct slot *slot_new(const struct tier_method *method, tier_fn *at)
{
	struct slot *slot;

	if (!spare) {
		struct slot *const chunk = sys_mmap(NULL, SLOT_CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (sys_is_error(chunk)) {
			error_set(-ENOMEM, "out of memory");
			return NULL;
		}
		for (size_t i = 0; i < SLOT_CHUNK / sizeof(*chunk); i++)
			slot_spare(&chunk[i]);
	}
	slot = spare;
	__atomic_store_n(&spare, slot->next, __ATOMIC_RELEASE);
	slot->method = method;
	slot->at = at;
	slot->is_watched = false;
	slot->round = method->module->conn->slots.round;
	slot_link(slot);
	return slot;
}

/* -- Values --- */
/* When nobody tells of changes, what it holds must be right whatever the method becomes. */
static tier_fn slot_value(const struct slot *slot)
{
	const struct tier_method *const method = slot->method;
	const struct tier_layout *layout = &method->module->mapping->layout;
	/* Synchronizes with the release store in entry.c: the code's bytes before the cell that leads to them. */
	const uint64_t entry = __atomic_load_n(&method_record(method)->entry, __ATOMIC_ACQUIRE);

	if (entry != tier_layout_precode(layout, method->index) && slot->is_watched
	    && !__atomic_load_n(&method->module->conn->slots.is_lost, __ATOMIC_ACQUIRE))
		return (tier_fn)(uintptr_t)entry;
	return (tier_fn)(uintptr_t)method_address(method);
}

/* Whether that changed it. */
static bool slot_set(const struct slot *slot, tier_fn value)
{
	if (__atomic_load_n(slot->at, __ATOMIC_RELAXED) == value)
		return false;
	__atomic_store_n(slot->at, value, __ATOMIC_RELEASE);
	return true;
}

static void slot_drop(struct slot *slot)
{
	slot_set(slot, (tier_fn)(uintptr_t)method_address(slot->method));
	slot_unlink(slot);
}

static void slots_change(uint64_t module, uint32_t index)
{
	lock_take(&process_page()->slots, UINT64_MAX);
	for (struct slot *slot = *method_bucket(module, index); slot; slot = slot->next)
		if (slot_is_of(slot, module, index) && slot_set(slot, slot_value(slot)))
			__atomic_fetch_add(&slot->method->module->mapping->visits->n_slot_writes, 1, __ATOMIC_RELAXED);
	lock_give(&process_page()->slots);
}

/* -- Forks --- */
/* In a fork: the slots are its own copies, which nobody keeps; the parent's lanes must not live longer than the parent. */
static void slots_tidy(void)
{
	if (process_page()->has_slots)
		return;
	for (uint32_t i = 0; i < SLOT_BUCKETS; i++) {
		struct slot *slot = by_method[i], *next;

		for (; slot; slot = next) {
			next = slot->next;
			slot_set(slot, (tier_fn)(uintptr_t)method_address(slot->method));
			slot_spare(slot);
		}
		by_method[i] = by_address[i] = NULL;
	}
	for (struct tier_conn *conn = slot_conns; conn; conn = conn->slots.next)
		if (!conn->page->has_thread)
			fork_forget_lane(&conn->slots.lane);
	process_page()->has_slots = 1;
}

static uint64_t slots_enter(void)
{
	const uint64_t mask = signals_block();

	lock_take(&process_page()->slots, UINT64_MAX);
	slots_tidy();
	return mask;
}

static void slots_leave(uint64_t mask)
{
	lock_give(&process_page()->slots);
	signals_restore(mask);
}

static void slots_forked(void)
{
	slots_leave(slots_enter());
}

/* In that order: what others write from now on is right already, what they wrote before is found here. */
static void slots_set_all(struct tier_conn *conn, bool is_lost)
{
	__atomic_store_n(&conn->slots.is_lost, is_lost, __ATOMIC_RELEASE);
	lock_take(&process_page()->slots, UINT64_MAX);
	for (uint32_t i = 0; i < SLOT_BUCKETS; i++)
		for (struct slot *slot = by_method[i]; slot; slot = slot->next)
			if (slot->method->module->conn == conn)
				slot_set(slot, slot_value(slot));
	lock_give(&process_page()->slots);
}

/* -- The thread --- */
/* The C library's own signals stay open: setuid() waits until every thread has handled one of them. */
static void thread_begin(void)
{
	const uint64_t mask = ~(UINT64_C(1) << 31 | UINT64_C(1) << 32);

	sys_sigmask(SIG_SETMASK, &mask, NULL);
	sys_call(SYS_prctl, PR_SET_NAME, (long)"tier-slots", 0, 0, 0, 0);
}

static int slots_send(struct slots *slots, enum wire_type type, const void *body, uint64_t serial, uint64_t deadline_ns)
{
	struct pollfd poll = { .fd = slots->lane.fd, .events = POLLOUT };
	struct timespec left;
	int r;

	while ((r = lane_ring(&slots->lane, type, body, serial)) == -EAGAIN) {
		if (time_now() >= deadline_ns)
			return -ETIMEDOUT;
		sys_ppoll(&poll, 1, deadline_left(deadline_ns, &left), NULL);
	}
	return r;
}

static void slots_answered(struct slots *slots)
{
	__atomic_fetch_add(&slots->n_answers, 1, __ATOMIC_RELEASE);
	futex_wake(&slots->n_answers, 1);
}

static void slots_take_answer(struct slots *slots)
{
	struct wire_error *const error = &slots->lane.body.as_ERROR;

	slots->result = 0;
	if (slots->lane.header.type == WIRE_ERROR) {
		error->text[sizeof(error->text) - 1] = 0;
		slots->result = -tier_error_errno(error->error);
		text_copy(slots->text, sizeof(slots->text), error->text);
	}
	__atomic_store_n(&slots->answered, slots->lane.header.serial, __ATOMIC_RELEASE);
	slots_answered(slots);
}

/* False: the daemon does not keep the protocol, or is gone, or says nothing. */
static bool slots_take(struct slots *slots, uint64_t deadline_ns)
{
	const struct wire_header *header = &slots->lane.header;
	const struct wire_slot_change *change = &slots->lane.body.as_SLOT_CHANGED;

	if (lane_listen(&slots->lane, deadline_ns) < 0)
		return false;
	if (!header->serial && header->type == WIRE_SLOT_CHANGED) {
		slots_change(change->module, change->method);
		return slots_send(slots, WIRE_SLOT_DONE, change, 0, UINT64_MAX) == 0;
	}
	if (!header->serial || (header->type != WIRE_DONE && header->type != WIRE_ERROR))
		return false;
	slots_take_answer(slots);
	return true;
}

/* -- Getting another lane --- */
#define SLOTS_ANSWER_NS 5000000000ull	/* a daemon that takes longer to answer about a method is none */
#define SLOTS_ATTEMPT_NS 250000000ull	/* tier_disconnect() may have to wait so long */

static bool slots_is_ending(const struct slots *slots)
{
	return __atomic_load_n(&slots->is_ending, __ATOMIC_ACQUIRE);
}

/* A method that was not asked about in this round, from bucket *at on: what lies before are all asked about. Its numbers are
 * enough, and stay true when its module is closed meanwhile. */
static bool slots_next_unasked(const struct tier_conn *conn, uint32_t *at, struct wire_method_ref *ret)
{
	bool is_found = false;

	lock_take(&process_page()->slots, UINT64_MAX);
	for (; *at < SLOT_BUCKETS && !is_found; *at += !is_found)
		for (struct slot *slot = by_method[*at]; slot && !is_found; slot = slot->next)
			if (slot->method->module->conn == conn && slot->round != conn->slots.round) {
				*ret = (struct wire_method_ref){ slot->method->module->mapping->module, slot->method->index, 0 };
				is_found = true;
			}
	lock_give(&process_page()->slots);
	return is_found;
}

/* A number can be that of two modules, of which the daemon knows one (tier_module.is_orphan). */
static void slots_asked(const struct tier_conn *conn, const struct wire_method_ref *ref, bool is_watched)
{
	lock_take(&process_page()->slots, UINT64_MAX);
	for (struct slot *slot = *method_bucket(ref->module, ref->method); slot; slot = slot->next)
		if (slot_is_of(slot, ref->module, ref->method) && slot->method->module->conn == conn) {
			slot->round = conn->slots.round;
			slot->is_watched = is_watched && !slot->method->module->is_orphan;
		}
	lock_give(&process_page()->slots);
}

static bool slots_watch_again(struct tier_conn *conn, const struct wire_method_ref *ref)
{
	const uint64_t deadline_ns = deadline_after(SLOTS_ANSWER_NS);
	struct slots *const slots = &conn->slots;
	const uint64_t serial = __atomic_add_fetch(&slots->serial, 1, __ATOMIC_RELAXED);

	if (slots_send(slots, WIRE_SLOT_WATCH, ref, serial, deadline_ns))
		return false;
	while (slots->answered != serial)
		if (!slots_take(slots, deadline_ns))
			return false;
	slots_asked(conn, ref, slots->result == 0);
	return true;
}

/* Who registers a slot meanwhile, because the lane was not lost yet when it began, finds that the round is another one. */
static void slots_begin_round(struct tier_conn *conn)
{
	lock_take(&process_page()->slots, UINT64_MAX);
	__atomic_store_n(&conn->slots.round, conn->slots.round + 1, __ATOMIC_RELEASE);
	lock_give(&process_page()->slots);
}

static bool slots_resume(struct tier_conn *conn)
{
	struct wire_method_ref ref;
	uint32_t at = 0;

	if (session_renew(conn, &conn->slots.lane, WIRE_LANE_SLOTS, 0, deadline_after(SLOTS_ATTEMPT_NS)) < 0)
		return false;
	slots_begin_round(conn);
	while (slots_next_unasked(conn, &at, &ref))
		if (slots_is_ending(&conn->slots) || !slots_watch_again(conn, &ref))
			return false;
	return true;
}

/* Until there is a lane again. False: the thread is to end. */
static bool slots_recover(struct tier_conn *conn)
{
	struct retry retry = retry_until(UINT64_MAX);

	for (;;) {
		if (slots_is_ending(&conn->slots))
			return false;
		if (slots_resume(conn))
			return true;
		lane_shut(&conn->slots.lane);
		futex_wait(&conn->slots.is_ending, 0, retry_pause(&retry), false);
	}
}

static void *slots_main(void *context)
{
	struct tier_conn *const conn = context;
	struct slots *const slots = &conn->slots;

	thread_begin();
	do {
		while (slots_take(slots, UINT64_MAX))
			;
		slots_set_all(conn, true);
		lane_shut(&slots->lane);	/* now the daemon need not wait for an answer of ours */
		slots_answered(slots);
		if (!slots_recover(conn))
			return NULL;
		slots_set_all(conn, false);
	} while (true);
}

static int thread_start(struct tier_conn *conn)
{
	pthread_attr_t attributes;
	int r;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, SLOT_THREAD_STACK);
	r = pthread_create(&conn->slots.thread, &attributes, slots_main, conn);
	pthread_attr_destroy(&attributes);
	return r ? error_set(-r, "cannot start the thread that keeps slots: %s", error_word(-r)) : 0;
}

/* -- A connection's lane; page->watch is taken, all signals are blocked --- */
static int slots_lost(const struct tier_conn *conn)
{
	return error_set(-ECONNRESET, "the connection to the daemon at %s is lost: slots are not kept until there is another one",
			 conn->address.sun_path);
}

static void slots_link_conn(struct tier_conn *conn)
{
	const uint64_t mask = slots_enter();

	if (!conn->slots.is_linked) {
		conn->slots.is_linked = true;
		conn->slots.next = slot_conns;
		__atomic_store_n(&slot_conns, conn, __ATOMIC_RELEASE);
	}
	if (!has_fork_handler && !pthread_atfork(NULL, NULL, slots_forked))
		has_fork_handler = 1;
	slots_leave(mask);
}

static int slots_start(struct tier_conn *conn, uint64_t deadline_ns)
{
	struct slots *const slots = &conn->slots;
	int r;

	if (conn->page->has_thread)
		return __atomic_load_n(&slots->is_lost, __ATOMIC_ACQUIRE) ? slots_lost(conn) : 0;
	slots_link_conn(conn);
	if (!has_fork_handler)
		return error_set(-ENOMEM, "out of memory");
	slots->lane = conn_lane(conn);
	slots->is_lost = slots->is_ending = 0;
	slots->serial = slots->answered = 0;
	r = session_renew(conn, &slots->lane, WIRE_LANE_SLOTS, 0, deadline_ns);
	if (!r)
		r = thread_start(conn);
	if (r < 0)
		lane_close(&slots->lane);
	else
		conn->page->has_thread = 1;
	return r;
}

static int slots_answer(const struct slots *slots)
{
	const int r = __atomic_load_n(&slots->result, __ATOMIC_ACQUIRE);

	return r ? error_set(r, "%s", slots->text) : 0;
}

/* Asks the daemon to tell of changes of the method: in this round, in which @conn's lane is not lost. */
static int slots_watch(struct tier_conn *conn, const struct tier_method *method, uint32_t round, uint64_t deadline_ns)
{
	const struct wire_method_ref ref = { .module = method->module->mapping->module, .method = method->index };
	struct slots *const slots = &conn->slots;
	const uint64_t serial = __atomic_add_fetch(&slots->serial, 1, __ATOMIC_RELAXED);
	bool is_answered;
	uint32_t seen;
	int r = 0;

	if (slots_send(slots, WIRE_SLOT_WATCH, &ref, serial, deadline_ns))
		return slots_lost(conn);
	for (;;) {
		seen = __atomic_load_n(&slots->n_answers, __ATOMIC_ACQUIRE);
		is_answered = __atomic_load_n(&slots->answered, __ATOMIC_ACQUIRE) == serial;
		if (is_answered)
			r = slots_answer(slots);
		/* in another round it may be what the thread asked, which asks about this slot only if it was there before */
		if (__atomic_load_n(&slots->round, __ATOMIC_ACQUIRE) != round)
			return slots_lost(conn);
		if (is_answered)
			return r;
		if (__atomic_load_n(&slots->is_lost, __ATOMIC_ACQUIRE))
			return slots_lost(conn);
		if (futex_wait(&slots->n_answers, seen, deadline_ns, false) == -ETIMEDOUT)
			return error_set(-ETIMEDOUT, "the daemon at %s did not answer in time", conn->address.sun_path);
	}
}

/* -- API --- */
/* The slot is in the tables before the daemon is asked: a change that it tells of at once is not missed. */
static int slot_add(const struct tier_method *method, tier_fn *at)
{
	const uint64_t mask = slots_enter();
	int r = 0;

	if (slot_find(at))
		r = error_set(-EINVAL, "the slot at 0x%lx is registered already", (unsigned long)(uintptr_t)at);
	else if (!slot_new(method, at))
		r = -ENOMEM;
	slots_leave(mask);
	return r;
}

/* The first value; @result: it is not registered after all, and holds what it held. If another round has begun, the thread has
 * asked about it, or will. */
static void slot_settle(tier_fn *at, uint32_t round, int result, tier_fn before)
{
	const uint64_t mask = slots_enter();
	struct slot *const slot = slot_find(at);

	if (slot && slot->method->module->conn->slots.round == round)
		slot->is_watched = !result;
	if (slot)
		slot_set(slot, result ? before : slot_value(slot));
	if (slot && result)
		slot_unlink(slot);
	slots_leave(mask);
}

static int slot_register_locked(struct tier_conn *conn, const struct tier_method *method, tier_fn *at, struct retry *retry)
{
	const tier_fn before = *at;
	uint32_t round;
	int r;

	r = slots_start(conn, retry_attempt(retry));
	if (!r)
		r = module_check(method->module);
	round = __atomic_load_n(&conn->slots.round, __ATOMIC_ACQUIRE);
	if (!r && __atomic_load_n(&conn->slots.is_lost, __ATOMIC_ACQUIRE))
		r = slots_lost(conn);
	if (!r)
		r = slot_add(method, at);
	if (!r) {
		r = slots_watch(conn, method, round, retry->deadline_ns);
		slot_settle(at, round, r, before);
	}
	return r;
}

static int slot_register(struct tier_conn *conn, const struct tier_method *method, tier_fn *at, struct retry *retry)
{
	int r;

	r = conn_ready(conn, retry->deadline_ns);
	if (!r && lock_take(&conn->page->watch, retry->deadline_ns) < 0)
		r = error_set(-ETIMEDOUT, "another thread that registers a slot takes too long");
	if (r < 0)
		return r;
	r = slot_register_locked(conn, method, at, retry);
	lock_give(&conn->page->watch);
	return r;
}

#define SLOT_ROUNDS 8	/* what ends the lane so often is the slot */

/* With all signals blocked, so that no handler forks in the middle. */
int tier_slot_register(const struct tier_method *method, tier_fn *slot)
{
	struct tier_conn *const conn = method->module->conn;
	struct retry retry = retry_until(deadline_after(conn->timeout_ns));
	const uint32_t first = __atomic_load_n(&conn->slots.round, __ATOMIC_ACQUIRE);
	uint64_t mask;
	int r;

	if ((uintptr_t)slot % sizeof(*slot) || !slot)
		return error_set(-EINVAL, "the slot at 0x%lx is not aligned to 8 bytes", (unsigned long)(uintptr_t)slot);
	do {
		mask = signals_block();
		r = slot_register(conn, method, slot, &retry);
		signals_restore(mask);
	} while (r == -ECONNRESET && __atomic_load_n(&conn->slots.round, __ATOMIC_ACQUIRE) - first < SLOT_ROUNDS
		 && retry_sleep(&retry));
	return r;
}

int tier_slot_unregister(const struct tier_method *method, tier_fn *at)
{
	const uint64_t mask = slots_enter();
	struct slot *const slot = slot_find(at);
	int r = 0;

	if (slot && slot->method == method)
		slot_drop(slot);
	else
		r = error_set(-ENOENT, "no slot at 0x%lx is registered for this method", (unsigned long)(uintptr_t)at);
	slots_leave(mask);
	return r;
}

/* @module NULL: all of the connection's */
static void slots_forget(const struct tier_conn *conn, const struct tier_module *module)
{
	for (uint32_t i = 0; i < SLOT_BUCKETS; i++) {
		struct slot *slot = by_method[i], *next;

		for (; slot; slot = next) {
			next = slot->next;
			if (module ? slot->method->module == module : slot->method->module->conn == conn)
				slot_drop(slot);
		}
	}
}

void slots_forget_module(const struct tier_module *module)
{
	const uint64_t mask = slots_enter();

	slots_forget(NULL, module);
	slots_leave(mask);
}

static void slots_unlink_conn(struct tier_conn *conn)
{
	const uint64_t mask = slots_enter();
	struct tier_conn **at;

	slots_forget(conn, NULL);
	for (at = &slot_conns; *at && *at != conn; at = &(*at)->slots.next)
		;
	if (*at)
		__atomic_store_n(at, conn->slots.next, __ATOMIC_RELEASE);
	conn->slots.is_linked = false;
	slots_leave(mask);
}

void slots_end(struct tier_conn *conn)
{
	struct slots *const slots = &conn->slots;

	__atomic_store_n(&slots->is_ending, 1, __ATOMIC_RELEASE);
	futex_wake(&slots->is_ending, 1);
	if (conn->page->has_thread)
		lane_shut(&slots->lane);	/* whoever registers a slot right now does not wait for an answer */
	lock_take(&conn->page->watch, UINT64_MAX);
	slots_unlink_conn(conn);
	if (conn->page->has_thread && (lane_is_intact(&slots->lane) || __atomic_load_n(&slots->is_lost, __ATOMIC_ACQUIRE))) {
		pthread_join(slots->thread, NULL);
		lane_close(&slots->lane);
	} else if (conn->page->has_thread) {
		conn_ref(conn);		/* it may sleep for ever on what the program did to its socket */
		pthread_detach(slots->thread);
	}
	conn->page->has_thread = 0;
	lock_give(&conn->page->watch);
}
