/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <ucontext.h>
#include "unit/tiering/ladder.h"

/* Calls beside transitions: every interleaving of what the daemon stores with what two calls load
 *
 * The daemon's part is not a model: each transition runs in the real core, one machine instruction at a time (the
 * processor's trap flag), and whatever changed in what clients see after an instruction is a store. The callers' part
 * is: precodes, stubs, forwarders, and libtier's prestub, one load at a time.
 *
 * The daemon does what the script says and answers what it is asked, in any order; between any two of its stores either
 * caller may make a step. A state that was seen is not gone into again. In each, a caller that is left alone while the
 * daemon stands still must come to code or to a question, in few steps; and a call that began after the script's rejit
 * or revert was acknowledged must run the body that is there since. */

#define PIECES_MAX 64u
#define STORES_MAX 64u
#define NODES_MAX  256u
#define SEEN_MAX    (1u << 19)
#define N_CALLERS  2u
#define SCRIPT_MAX 3u

/* What callers load: the method's record, its first call cell, and what would be the target if a piece of code is a
 * forwarder */
enum { WORD_CELL = sizeof(struct tier_record) / sizeof(uint64_t), WORD_JUMP, WORD_TARGETS, WORDS_MAX = WORD_TARGETS + PIECES_MAX };
#define WORD_OF(field) (offsetof(struct tier_record, field) / sizeof(uint64_t))

/* -- What the daemon may do --- */
enum act { ACT_END_JOB, ACT_REJIT, ACT_REVERT, ACT_COUNT, ACT_THRESHOLD, ACT_PREPARE, ACT_NOTE, _ACTS };

struct scenario {
	enum ladder_at from;
	bool was_replaced; /* rejitted once, and what follows is of that body */
	enum act script[SCRIPT_MAX];
	uint32_t n_script;
	uint32_t n_after; /* acts of the script until the body is the one that it stays */
};

static const struct scenario scenarios[] = {
	{AT_COMPILING, false, {ACT_END_JOB, ACT_REJIT}, 2, 2},
	{AT_COUNTING, false, {ACT_REJIT, ACT_COUNT}, 2, 1},
	{AT_FINAL, false, {ACT_REJIT, ACT_REVERT}, 2, 2},
	{AT_COUNTING, true, {ACT_REVERT}, 1, 1},
	{AT_COUNTING, false, {ACT_THRESHOLD, ACT_REJIT}, 2, 2},
	{AT_UNCOUNTED, false, {ACT_COUNT, ACT_REJIT}, 2, 2},
	{AT_FINAL, true, {ACT_REVERT, ACT_REJIT}, 2, 2},
	{AT_COLD, false, {ACT_REJIT, ACT_REJIT}, 2, 2},
	{AT_COUNTING, false, {ACT_REJIT, ACT_REVERT, ACT_THRESHOLD}, 3, 2},
};

/* The daemon after some acts: a node of a tree that grows as it is needed */
struct node {
	uint32_t parent, n_acts, n_stores;
	uint32_t children[_ACTS];
	enum act act;
	uint32_t body; /* that the method has after it */
	struct fake_code codes[PIECES_MAX];
	uint64_t before[WORDS_MAX]; /* what callers see when the act begins */
	struct {
		uint32_t word;
		uint64_t value;
	} stores[STORES_MAX];
};

static struct world {
	const struct scenario *scenario;
	struct ladder_kind kind;
	struct node *nodes;
	uint32_t n_nodes;
	struct fake *fake; /* in the state of the newest node */
	struct fake_module *fm;
	uint32_t n_most; /* steps of a caller that was left alone */
} world;

/* -- One instruction at a time --- */
static struct {
	volatile bool is_on;
	struct node *node;
	uint64_t shadow[WORDS_MAX];
} tracer;

static uint64_t *word_at(uint32_t i)
{
	if (i < WORD_CELL)
		return (uint64_t *)&world.fm->records[LADDER_METHOD] + i;
	if (i == WORD_CELL)
		return world.fm->n_slots ? fake_memory_at(world.fm, fake_call_cell(world.fm, 0)) : word_at(0);
	if (i == WORD_JUMP)	/* the precode's first eight bytes: the displacement is their upper half */
		return fake_memory_at(world.fm, tier_layout_precode(&world.fm->layout, LADDER_METHOD));
	return (uint64_t *)(world.fm->code + (i - WORD_TARGETS) * FAKE_CODE_STEP + FORWARDER_TARGET);
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	if (!tracer.is_on) {
		u->uc_mcontext.gregs[REG_EFL] &= ~0x100ll;
		return;
	}
	u->uc_mcontext.gregs[REG_EFL] |= 0x100;
	for (uint32_t i = 0; i < WORDS_MAX; i++) {
		uint64_t value = *word_at(i);

		if (value == tracer.shadow[i] || tracer.node->n_stores == STORES_MAX)
			continue;
		tracer.shadow[i] = value;
		tracer.node->stores[tracer.node->n_stores].word = i;
		tracer.node->stores[tracer.node->n_stores++].value = value;
	}
}

static void take_words(uint64_t *words)
{
	for (uint32_t i = 0; i < WORDS_MAX; i++)
		words[i] = *word_at(i);
}

/* -- The daemon --- */
static void act(enum act act)
{
	struct fake_module *fm = world.fm;
	struct module *module = fm->module;

	switch (act) {
	case ACT_END_JOB:
		fake_end(world.fake, fm, LADDER_METHOD, TIER_REASON_NONE);
		break;
	case ACT_REJIT:
		core_rejit(module, LADDER_METHOD, 10 + core_method_body(module, LADDER_METHOD));
		break;
	case ACT_REVERT:
		core_revert(module, LADDER_METHOD);
		break;
	case ACT_COUNT:
		world.fake->now_ns += 200 * (uint64_t)FAKE_MS;
		core_tick(world.fake->core);
		break;
	case ACT_THRESHOLD:
		fm->cells[fm->records[LADDER_METHOD].cell % fm->layout.n_cells] = 0;
		core_look(module, LADDER_METHOD);
		break;
	case ACT_PREPARE:
		core_prepare(module, LADDER_METHOD);
		break;
	default:
		core_slot_used(module, LADDER_METHOD, fake_call_cell(fm, 0));
		break;
	}
}

static void world_begin(void)
{
	if (world.fake)
		fake_free(world.fake);
	world.fake = ladder_fake(world.kind.policy, world.kind.in_prestub);
	world.fm = ladder_load(world.fake, world.kind.is_backpatchable);
	if (world.scenario->was_replaced) {
		ladder_to(world.fm, LADDER_METHOD, AT_FINAL);
		core_rejit(world.fm->module, LADDER_METHOD, 1);
	}
	ladder_to(world.fm, LADDER_METHOD, world.scenario->from);
}

/* Goes the way to the node again, in a new world. */
static void world_go_to(uint32_t node)
{
	enum act way[32];
	uint32_t n = 0;

	for (; node; node = world.nodes[node].parent)
		way[n++] = world.nodes[node].act;
	world_begin();
	while (n)
		act(way[--n]);
}

/* Runs the act after the parent's, instruction by instruction. */
static void world_trace(struct node *node, enum act next)
{
	take_words(node->before);
	take_words(tracer.shadow);
	tracer.node = node;
	tracer.is_on = true;
	raise(SIGTRAP);
	act(next);
	tracer.is_on = false;
	raise(SIGTRAP);
	assert_true(node->n_stores < STORES_MAX);
}

static void world_note(struct node *node)
{
	node->body = core_method_body(world.fm->module, LADDER_METHOD);
	assert_true(world.fm->code_used <= PIECES_MAX * FAKE_CODE_STEP);
	memcpy(node->codes, world.fm->codes, MIN(world.fm->n_codes, PIECES_MAX) * sizeof(node->codes[0]));
}

static uint32_t world_grow(uint32_t parent, enum act next)
{
	struct node *node = &world.nodes[world.n_nodes];

	if (world.nodes[parent].children[next])
		return world.nodes[parent].children[next];
	assert_true(world.n_nodes < NODES_MAX);
	memset(node, 0, sizeof(*node));
	world_go_to(parent);
	node->parent = parent;
	node->act = next;
	node->n_acts = world.nodes[parent].n_acts + 1;
	world_trace(node, next);
	world_note(node);
	world.nodes[parent].children[next] = world.n_nodes;
	return world.n_nodes++;
}

static void world_root(const struct scenario *scenario, struct ladder_kind kind)
{
	world.scenario = scenario;
	world.kind = kind;
	world_begin();
	memset(&world.nodes[0], 0, sizeof(world.nodes[0]));
	take_words(world.nodes[0].before);
	world_note(&world.nodes[0]);
	world.n_nodes = 1;
}

/* -- Callers --- */
enum pc {
	PC_IDLE,
	PC_AT,      /* at @address */
	PC_PRESTUB, /* way_read(): the state word, P, E, the cell, the code, the state word again */
	PC_PRECODE,
	PC_ENTRY,
	PC_CELL,
	PC_CODE,
	PC_CHECK,
	PC_ASK, /* prestub_prepare(): the state word, the question, the code, the state word again */
	PC_WAIT,
	PC_ANSWERED,
	PC_AGAIN,
	PC_DONE,
};

struct caller {
	uint8_t pc;
	bool is_after; /* it began when the last body was there for good */
	bool has_asked;
	uint64_t address, state, precode, code;
};

struct state {
	uint16_t node, n_stored;
	uint8_t n_script, serving; /* caller + 1 whose question the node's act answers */
	bool is_noted, is_posted;  /* a note is on its way; was sent */
	struct caller callers[N_CALLERS];
};

static enum fake_way ways[N_CALLERS];

static uint64_t load(const struct state *state, uint32_t word)
{
	const struct node *node = &world.nodes[state->node];
	uint64_t value = node->before[word];

	for (uint32_t i = 0; i < state->n_stored; i++)
		if (node->stores[i].word == word)
			value = node->stores[i].value;
	return value;
}

static bool is_cold(uint64_t state) { return tier_state_stage(state) == TIER_STAGE_COLD; }

static void go(struct caller *caller, uint64_t address)
{
	caller->pc = PC_AT;
	caller->address = address;
}

static void step_begin(const struct state *state, struct caller *caller, enum fake_way way)
{
	const struct tier_layout *layout = &world.fm->layout;
	const struct node *node = &world.nodes[state->node];

	caller->is_after = state->n_script > world.scenario->n_after ||
			   (state->n_script == world.scenario->n_after && state->n_stored == node->n_stores);
	if (way == FAKE_WAY_SLOT)
		go(caller, load(state, WORD_CELL));
	else if (way == FAKE_WAY_DIRECT)
		go(caller, load(state, WORD_OF(entry)));
	else if (way == FAKE_WAY_POINTER)
		go(caller, tier_layout_method(layout, LADDER_METHOD, world.fm->records[LADDER_METHOD].flags));
	else
		go(caller, tier_layout_precode(layout, LADDER_METHOD));
}

/* At code, or at a stub of the module */
static void step_code(const struct state *state, struct caller *caller)
{
	const struct node *node = &world.nodes[state->node];
	uint64_t piece = (caller->address - tier_layout_segment(&world.fm->layout, TIER_SEGMENT_CODE)) / FAKE_CODE_STEP;
	const struct fake_code *code = &node->codes[piece];

	assert_true(piece < PIECES_MAX && code->kind != FAKE_NOTHING && code->method == LADDER_METHOD);
	if (code->kind == FAKE_FORWARDER) {
		go(caller, load(state, WORD_TARGETS + piece));
	} else if (code->kind == FAKE_STUB) {
		go(caller, code->leads_to);
	} else {
		if (caller->is_after && code->body != node->body)
			fail_msg("a call that began after the last body was there ran body %u, not %u", code->body,
				 node->body);
		*caller = (struct caller){.pc = PC_DONE};
	}
}

static void step_at(const struct state *state, struct caller *caller)
{
	const struct tier_layout *layout = &world.fm->layout;

	if (caller->address == tier_layout_precode(layout, LADDER_METHOD))
		go(caller, fake_jump_target(world.fm, LADDER_METHOD, load(state, WORD_JUMP) >> 32));
	else if (caller->address == tier_layout_funcptr(layout, LADDER_METHOD))
		go(caller, load(state, WORD_OF(funcptr)));
	else if (caller->address == tier_layout_thunk(layout, TIER_THUNK_PRESTUB))
		caller->pc = PC_PRESTUB;
	else
		step_code(state, caller);
}

static void step_entry(const struct state *state, struct caller *caller, enum fake_way way)
{
	const struct tier_layout *layout = &world.fm->layout;
	uint64_t entry = load(state, WORD_OF(entry));

	caller->address = entry;
	if (entry != tier_layout_precode(layout, LADDER_METHOD))
		caller->pc = way == FAKE_WAY_SLOT ? PC_CELL : PC_AT;
	else if (caller->precode != tier_layout_thunk(layout, TIER_THUNK_PRESTUB))
		go(caller, caller->precode);
	else
		caller->pc = PC_CODE;
}

static void step_cell(struct state *state, struct caller *caller)
{
	caller->pc = PC_AT;
	if (load(state, WORD_CELL) != tier_layout_precode(&world.fm->layout, LADDER_METHOD) || state->is_posted)
		return;
	state->is_posted = state->is_noted = true;
}

static void step_check(const struct state *state, struct caller *caller)
{
	bool is_same = load(state, WORD_OF(state)) == caller->state;

	if (caller->code && is_same)
		go(caller, caller->code);
	else
		caller->pc = is_same ? PC_ASK : PC_PRESTUB;
}

static void step_again(const struct state *state, struct caller *caller)
{
	uint64_t seen = caller->state;

	caller->state = load(state, WORD_OF(state));
	if (caller->state != seen && (is_cold(caller->state) || !caller->code)) {
		caller->pc = PC_ASK;
		return;
	}
	if (is_cold(caller->state) || !caller->code)
		fail_msg("the daemon says that there is code, but there is none");
	go(caller, caller->code);
}

/* One load of a caller, and what follows from it */
static void step(struct state *state, struct caller *caller, enum fake_way way)
{
	switch ((enum pc)caller->pc) {
	case PC_IDLE:
		step_begin(state, caller, way);
		break;
	case PC_AT:
		step_at(state, caller);
		break;
	case PC_PRESTUB:
		caller->state = load(state, WORD_OF(state));
		caller->pc = is_cold(caller->state) ? PC_ASK : PC_PRECODE;
		break;
	case PC_PRECODE:
		caller->precode = load(state, WORD_OF(precode));
		caller->pc = PC_ENTRY;
		break;
	case PC_ENTRY:
		step_entry(state, caller, way);
		break;
	case PC_CELL:
		step_cell(state, caller);
		break;
	case PC_CODE:
		caller->code = load(state, WORD_OF(code));
		caller->pc = PC_CHECK;
		break;
	case PC_CHECK:
		step_check(state, caller);
		break;
	case PC_ASK:
		caller->state = load(state, WORD_OF(state));
		caller->pc = is_cold(caller->state) ? PC_WAIT : PC_ANSWERED;
		caller->has_asked = caller->pc == PC_WAIT;
		break;
	case PC_ANSWERED:
		caller->code = load(state, WORD_OF(code));
		caller->pc = PC_AGAIN;
		break;
	case PC_AGAIN:
		step_again(state, caller);
		break;
	case PC_WAIT:
	case PC_DONE:
		break;
	}
}

static bool can_step(const struct caller *caller) { return caller->pc != PC_WAIT && caller->pc != PC_DONE; }

/* -- Interleavings --- */
static struct state *seen, *stack;
static uint32_t n_seen, n_stack;

static void visit(const struct state *state)
{
	const uint64_t *words = (const uint64_t *)state;
	uint64_t hash = 0;

	for (uint32_t i = 0; i < sizeof(*state) / sizeof(*words); i++)
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ull, hash ^= hash >> 29;
	for (hash %= SEEN_MAX; seen[hash].n_script != UINT8_MAX; hash = (hash + 1) % SEEN_MAX)
		if (!memcmp(&seen[hash], state, sizeof(*state)))
			return;
	assert_true(++n_seen < SEEN_MAX / 2);
	seen[hash] = *state;
	stack[n_stack++] = *state;
}

/* The daemon may have died here: nobody waits for its next store. */
static void leave_alone(const struct state *from, uint32_t i)
{
	struct state state = *from;
	uint32_t n = 0;

	while (can_step(&state.callers[i])) {
		step(&state, &state.callers[i], ways[i]);
		if (n++ > 24)
			fail_msg("a call goes round while the daemon stands still: scenario %u, store %u of act %u",
				 (unsigned int)(world.scenario - scenarios), from->n_stored,
				 world.nodes[from->node].act);
	}
	world.n_most = MAX(world.n_most, n);
}

static void begin_act(const struct state *from, enum act next, uint32_t serving)
{
	struct state state = *from;

	state.node = world_grow(from->node, next);
	state.n_stored = 0;
	state.serving = serving;
	if (next == ACT_NOTE)
		state.is_noted = false;
	else if (serving)
		state.callers[serving - 1].has_asked = false;
	else
		state.n_script++;
	visit(&state);
}

static void daemon_steps(const struct state *from)
{
	struct state state = *from;

	if (state.n_stored < world.nodes[state.node].n_stores) {
		state.n_stored++;
		visit(&state);
		return;
	}
	if (state.serving) {
		state.callers[state.serving - 1].pc = PC_ANSWERED;
		state.serving = 0;
		visit(&state);
		return;
	}
	if (state.n_script < world.scenario->n_script)
		begin_act(from, world.scenario->script[state.n_script], 0);
	if (state.is_noted)
		begin_act(from, ACT_NOTE, 0);
	for (uint32_t i = 0; i < N_CALLERS; i++)
		if (state.callers[i].has_asked)
			begin_act(from, ACT_PREPARE, i + 1);
}

static uint32_t explore(void)
{
	struct state state;

	memset(&state, 0, sizeof(state));
	memset(seen, 0xff, SEEN_MAX * sizeof(*seen));
	n_seen = n_stack = 0;
	visit(&state);
	while (n_stack) {
		state = stack[--n_stack];
		for (uint32_t i = 0; i < N_CALLERS; i++) {
			struct state next = state;

			if (!can_step(&state.callers[i]))
				continue;
			leave_alone(&state, i);
			step(&next, &next.callers[i], ways[i]);
			visit(&next);
		}
		daemon_steps(&state);
	}
	return n_seen;
}

/* -- Cases --- */
static void explore_kind(enum tier_backpatch policy, bool in_prestub, bool is_backpatchable)
{
	static const enum fake_way pairs[][N_CALLERS] = {
		{FAKE_WAY_SLOT, FAKE_WAY_POINTER},
		{FAKE_WAY_DIRECT, FAKE_WAY_SLOT},
		{FAKE_WAY_PRECODE, FAKE_WAY_DIRECT},
	};
	uint32_t n_scenarios = getenv("TIER_TEST_LONG") ? ARRAY_SIZE(scenarios) : 5, n = 0;

	for (uint32_t i = 0; i < n_scenarios; i++) {
		world_root(&scenarios[i], (struct ladder_kind){policy, in_prestub, is_backpatchable});
		for (uint32_t k = is_backpatchable ? 0 : 2; k < ARRAY_SIZE(pairs); k++) {
			memcpy(ways, pairs[k], sizeof(ways));
			n += explore();
		}
	}
	print_message("%u states; a caller left alone made at most %u steps\n", n, world.n_most);
}

static void no_call_runs_an_old_body_or_goes_round_under_lazy(void **state)
{
	explore_kind(TIER_BACKPATCH_LAZY, false, true);
}
static void nor_does_one_under_eager(void **state) { explore_kind(TIER_BACKPATCH_EAGER, false, true); }
static void nor_does_one_under_forwarder(void **state) { explore_kind(TIER_BACKPATCH_FORWARDER, false, true); }
static void nor_does_one_of_a_method_in_no_slot(void **state) { explore_kind(TIER_BACKPATCH_LAZY, false, false); }
static void nor_while_the_prestub_counts_calls(void **state) { explore_kind(TIER_BACKPATCH_LAZY, true, true); }
static void nor_while_it_counts_calls_of_a_method_in_no_slot(void **state)
{
	explore_kind(TIER_BACKPATCH_LAZY, true, false);
}

static int begin(void **state)
{
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	_Static_assert(sizeof(struct state) % sizeof(uint64_t) == 0, "states are hashed by words");
	world.nodes = calloc(NODES_MAX, sizeof(*world.nodes));
	seen = calloc(SEEN_MAX, sizeof(*seen));
	stack = calloc(SEEN_MAX, sizeof(*stack));
	assert_true(world.nodes && seen && stack);
	return sigaction(SIGTRAP, &action, NULL);
}

static int end(void **state)
{
	if (world.fake)
		fake_free(world.fake);
	free(world.nodes);
	free(seen);
	free(stack);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_call_runs_an_old_body_or_goes_round_under_lazy),
		cmocka_unit_test(nor_does_one_under_eager),
		cmocka_unit_test(nor_does_one_under_forwarder),
		cmocka_unit_test(nor_does_one_of_a_method_in_no_slot),
		cmocka_unit_test(nor_while_the_prestub_counts_calls),
		cmocka_unit_test(nor_while_it_counts_calls_of_a_method_in_no_slot),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
