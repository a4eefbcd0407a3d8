/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <ucontext.h>
#include "unit/jit/world.c"
#include "unit/jit/osr.c"

/* The step from tier-0 code into optimized code, as tier 0 does it; random programs take it in test_random.c. */

static const uint64_t no_args[5];

static int patchpoint_setup(void **state)
{
	struct world *w = world_new();

	osr_begin(w, 1);
	*state = w;
	return 0;
}

/* r0 = sum of 1..r1; the head is reached r1 times. */
#define SUM MOVI(0, 0), ALU64_X(BPF_ADD, 0, 1), ALU64_K(BPF_SUB, 1, 1), JUMP_K(BPF_JNE, 1, 0, -3), EXIT()

static uint64_t sum_of(struct world *w, uint64_t n)
{
	return world_run(w, 0, (const uint64_t[5]){ n });
}

/* -- Counting --- */
static void a_frame_asks_when_its_counter_is_used_up_and_at_each_bump(void **state)
{
	static const struct { uint32_t begin, bump, n, n_hits; } rows[] = {
		{ 1000, 1000, 999, 0 }, { 1000, 1000, 1000, 1 }, { 1000, 1000, 1999, 1 }, { 1000, 1000, 2000, 2 },
		{ 1, 1, 50, 50 }, { 2, 1, 50, 49 }, { 7, 3, 7, 1 }, { 7, 3, 9, 1 }, { 7, 3, 10, 2 }, { 1, 1000, 1000, 1 },
		{ INT32_MAX, 1, 5000, 0 }, { 5, INT32_MAX, 5000, 1 },
	};
	struct world *w = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		osr_begin(w, rows[i].begin);
		LOAD_PROGRAM(w, SUM);
		assert_int_equal(w->n_patchpoints, 1);
		world_patchpoint(w, 0)->bump = rows[i].bump;
		assert_int_equal(sum_of(w, rows[i].n), (uint64_t)rows[i].n * (rows[i].n + 1) / 2);
		assert_int_equal(osr.n_hits, rows[i].n_hits);
		if (osr.n_hits)
			assert_int_equal(osr.value, 0);
	}
}

static void a_counter_that_nobody_sets_asks_each_time(void **state)
{
	struct world *w = *state;

	osr_begin(w, 10);
	osr.leaves_counter = true;
	LOAD_PROGRAM(w, SUM);
	assert_int_equal(sum_of(w, 100), 5050);
	assert_int_equal(osr.n_hits, 91);
	assert_int_equal(osr.value, -90);
}

/* Three activations, one within the other, each go round five times. */
static void a_counter_is_its_frames_own(void **state)
{
	struct world *w = *state;
	struct program program = { 0 };

	ADD(&program, MOVI(6, 5), MOV(7, 1), ALU64_K(BPF_ADD, 8, 1), ALU64_K(BPF_SUB, 6, 1), JUMP_K(BPF_JNE, 6, 0, -3),
	    JUMP_K(BPF_JEQ, 7, 0, 4), MOV(1, 7), ALU64_K(BPF_SUB, 1, 1), CALL(0), ALU64_X(BPF_ADD, 8, 0), MOV(0, 8), EXIT());
	osr_begin(w, 6);
	world_load_program(w, &program);
	assert_int_equal(sum_of(w, 2), 15);
	assert_int_equal(osr.n_hits, 0);
	osr_begin(w, 5);
	world_load_program(w, &program);
	assert_int_equal(sum_of(w, 2), 15);
	assert_int_equal(osr.n_hits, 3);
}

/* -- What the entry is given --- */
static void each_loop_has_its_patchpoint_and_all_the_same_counter(void **state)
{
	static const uint32_t heads[] = { 1, 5 };
	struct world *w = *state;
	int32_t *counter = NULL;

	osr_begin(w, 1);
	LOAD_PROGRAM(w, MOVI(6, 3), ALU64_K(BPF_ADD, 0, 1), ALU64_K(BPF_SUB, 6, 1), JUMP_K(BPF_JNE, 6, 0, -3), MOVI(6, 2),
		     ALU64_K(BPF_ADD, 0, 10), ALU64_K(BPF_SUB, 6, 1), JUMP_K(BPF_JNE, 6, 0, -3), EXIT());
	assert_int_equal(w->n_patchpoints, 2);
	assert_int_equal(world_run(w, 0, no_args), 23);
	assert_int_equal(world_hits(w)[0], 3);
	assert_int_equal(world_hits(w)[1], 2);
	for (uint32_t i = 0; i < 2; i++) {
		osr_begin(w, 1);
		osr.code = osr_interpret;
		osr.n_stays = 3 * i;
		assert_int_equal(world_run(w, 0, no_args), 23);
		assert_ptr_equal(osr.patchpoint, world_patchpoint(w, i));
		assert_int_equal(osr.patchpoint->pc, heads[i]);
		assert_true(!counter || counter == osr.counter);
		counter = osr.counter;
	}
}

/* Modules have many methods: numbers go on from method to method. */
static void numbers_go_on_from_method_to_method(void **state)
{
	const struct program sum = { .insns = { SUM }, .n = 5 }, none = { .insns = { MOVI(0, 1), EXIT() }, .n = 2 };
	struct builder builder = BUILDER_NULL;
	struct world *w = *state;

	osr_begin(w, 1);
	world_method(&builder, &sum);
	world_method(&builder, &none);
	world_method(&builder, &sum);
	world_load(w, &builder);
	assert_int_equal(w->n_patchpoints, 2);
	assert_int_equal(world_run(w, 2, (const uint64_t[5]){ 4 }), 10);
	assert_ptr_equal(osr.patchpoint, world_patchpoint(w, 1));
	assert_int_equal(osr.patchpoint->method, 2);
}

/* -- What optimized code is given --- */
static struct arrival {
	uint64_t registers[10], frame;
	uint8_t bytes[INSN_FRAME_SIZE];
	uint32_t n_bytes;		/* of the frame to look at */
} arrival;

static uint64_t arrive(const uint64_t registers[10], uint64_t frame)
{
	assert_int_equal((uintptr_t)__builtin_frame_address(0) % 16, 0);
	memcpy(arrival.registers, registers, sizeof(arrival.registers));
	memcpy(arrival.bytes, (const uint8_t *)frame - arrival.n_bytes, arrival.n_bytes);
	memset((uint64_t *)registers, 0xee, sizeof(arrival.registers));		/* it may write to both */
	memset((uint8_t *)frame - arrival.n_bytes, 0xee, arrival.n_bytes);
	arrival.frame = frame;
	return 0x7777;
}

static void all_registers_arrive(void **state)
{
	struct world *w = *state;
	struct program program = { 0 };

	for (uint32_t reg = 0; reg <= 9; reg++)
		ADD(&program, LDDW(reg, INSN_REF_NONE, (int32_t)(0x1010101 * reg), 0x55aa0000 + reg));
	ADD(&program, JA(0));
	for (uint32_t reg = 1; reg <= 9; reg++)		/* the loop: all of them live */
		ADD(&program, ALU64_X(BPF_ADD, 0, reg));
	ADD(&program, JA(-10), EXIT());
	osr_begin(w, 1);
	osr.code = arrive;
	arrival = (struct arrival){ .n_bytes = 0 };
	world_load_program(w, &program);
	assert_int_equal(world_run(w, 0, no_args), 0x7777);
	for (uint32_t reg = 0; reg <= 9; reg++)
		assert_int_equal(arrival.registers[reg], (0x55aa0000ull + reg) << 32 | 0x1010101 * reg);
	assert_int_equal(arrival.frame, osr.frame);
}

/* Registers that nobody has written hold 0, as they do for the code that reads them. */
static void registers_that_were_never_written_arrive_as_zero(void **state)
{
	struct world *w = *state;

	osr_begin(w, 1);
	osr.code = arrive;
	arrival = (struct arrival){ .n_bytes = 0 };
	LOAD_PROGRAM(w, ALU64_X(BPF_ADD, 0, 6), ALU64_X(BPF_ADD, 0, 7), ALU64_X(BPF_ADD, 0, 8), ALU64_X(BPF_ADD, 0, 9), JA(-5));
	assert_int_equal(world_run(w, 0, no_args), 0x7777);
	assert_int_equal(arrival.registers[0], 0);
	for (uint32_t reg = 6; reg <= 9; reg++)
		assert_int_equal(arrival.registers[reg], 0);
}

/* r10 escapes, so all 512 bytes are the body's; the counter lies below them. */
static void the_whole_frame_arrives_where_it_was(void **state)
{
	struct world *w = *state;

	osr_begin(w, 66);
	osr.code = arrive;
	arrival = (struct arrival){ .n_bytes = INSN_FRAME_SIZE };
	LOAD_PROGRAM(w, MOV(2, 10), MOVI(3, 64), ALU64_K(BPF_SUB, 2, 8), STORE(BPF_DW, 2, 0, 3), ALU64_K(BPF_SUB, 3, 1),
		     JUMP_K(BPF_JNE, 3, 0, -4), ALU64_K(BPF_ADD, 2, 1), JA(-2));
	assert_int_equal(world_run(w, 0, no_args), 0x7777);
	assert_int_equal(osr.n_hits, 1);
	assert_true((uintptr_t)osr.counter + sizeof(*osr.counter) <= osr.frame - INSN_FRAME_SIZE);
	assert_int_equal(arrival.frame, osr.frame);
	assert_int_equal(arrival.registers[2], osr.frame - INSN_FRAME_SIZE + 1);
	for (uint64_t i = 0; i < 64; i++)
		assert_memory_equal(arrival.bytes + 8 * i, &(uint64_t){ i + 1 }, 8);
}

static uint64_t first_argument(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) { return a; }

/* A frame of @n_frame bytes, @n_kept kept registers, and a loop without end */
static void load_shape(struct world *w, uint32_t n_frame, uint32_t n_kept, bool calls)
{
	struct builder builder = BUILDER_NULL;
	struct program program = { 0 };

	if (n_frame)
		ADD(&program, STORE_K(BPF_DW, 10, -(int)n_frame, 0x1234567));
	for (uint32_t reg = 6; reg < 6 + n_kept; reg++)
		ADD(&program, MOVI(reg, reg));
	if (calls)
		ADD(&program, CALL_IMPORT(0));
	ADD(&program, MOVI(0, 3), JA(-1));
	builder_import(&builder, "host", 0);
	world_method(&builder, &program);
	world_load(w, &builder);
	world_bind(w, 0, first_argument);
}

/* arrive() looks at the alignment. */
static void every_shape_of_frame_keeps_the_stack_aligned(void **state)
{
	struct world *w = *state;

	for (uint32_t i = 0; i < 2 * 5 * 65; i++) {
		const uint32_t n_frame = i / 10 * 8, n_kept = i / 2 % 5;

		osr_begin(w, 1);
		osr.code = arrive;
		arrival = (struct arrival){ .n_bytes = n_frame };
		load_shape(w, n_frame, n_kept, i & 1);
		assert_int_equal(world_run(w, 0, no_args), 0x7777);
		assert_true((uintptr_t)osr.counter + sizeof(*osr.counter) <= osr.frame - n_frame);
		assert_int_equal((uintptr_t)osr.counter % 4, 0);
		for (uint32_t reg = 6; reg < 6 + n_kept; reg++)
			assert_int_equal(arrival.registers[reg], reg);
		if (n_frame)
			assert_memory_equal(arrival.bytes, &(uint64_t){ 0x1234567 }, 8);
	}
}

static void code_that_comes_later_is_entered_then(void **state)
{
	struct world *w = *state;

	for (uint32_t n_stays = 0; n_stays < 10; n_stays++) {
		osr_begin(w, 3);
		osr.code = osr_interpret;
		osr.n_stays = n_stays;
		LOAD_PROGRAM(w, SUM);
		assert_int_equal(sum_of(w, 30), 465);
		assert_int_equal(osr.n_hits, n_stays + 1);
		assert_int_equal(osr.n_entered, 1);
	}
}

/* -- The shape of the code --- */
static void a_loop_is_one_instruction_and_a_jump_longer(void **state)
{
	struct world *w = *state;
	static const uint8_t begin[] = {
		0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10,		/* push rbp; mov rbp, rsp; sub rsp, 16 */
		0xc7, 0x45, 0xf8, 0xe8, 0x03, 0, 0,			/* mov dword [rbp-8], 1000 */
		0x31, 0xc0, 0xff, 0x4d, 0xf8, 0x0f, 0x8e, 0x29, 0, 0, 0,	/* xor eax, eax; dec dword [rbp-8]; jle slow */
		0x48, 0x01, 0xf8, 0x48, 0x83, 0xef, 0x01,			/* add rax, rdi; sub rdi, 1 */
		0x48, 0x85, 0xff, 0x75, 0xeb, 0xc9, 0xc3,			/* test rdi, rdi; jne head; leave; ret */
	};

	osr_begin(w, 1000);
	LOAD_PROGRAM(w, SUM);
	assert_true(w->n_code[0] > sizeof(begin));
	assert_memory_equal((const void *)w->code[0], begin, 22);
	assert_memory_equal((const uint8_t *)w->code[0] + 26, begin + 26, sizeof(begin) - 26);
}

static void code_without_loops_has_no_patchpoints(void **state)
{
	struct world *w = *state;
	uint8_t plain[256];
	size_t n;

	w->patchpoints = false;
	LOAD_PROGRAM(w, MOV(0, 1), JUMP_K(BPF_JEQ, 1, 0, 1), STORE(BPF_DW, 10, -8, 1), CALL(0), EXIT());
	n = w->n_code[0];
	assert_true(n < sizeof(plain));
	memcpy(plain, (const void *)w->code[0], n);
	world_rewind(w);
	osr_begin(w, 1000);
	LOAD_PROGRAM(w, MOV(0, 1), JUMP_K(BPF_JEQ, 1, 0, 1), STORE(BPF_DW, 10, -8, 1), CALL(0), EXIT());
	assert_int_equal(w->n_patchpoints, 0);
	assert_int_equal(w->n_code[0], n);
	assert_memory_equal((const void *)w->code[0], plain, n);
}

/* A head at each slot, a jump from each slot, all far away: the bound holds (world_compile() looks), and each is hit once. */
static void many_heads_fit_their_bound(void **state)
{
	enum { N = 400 };
	struct world *w = *state;
	struct program program = { 0 };

	for (int i = 0; i < N; i++)
		ADD(&program, ALU64_K(BPF_ADD, 0, 0x12345678));
	for (int i = 0; i < N; i++)
		ADD(&program, JUMP_K(BPF_JEQ, 0, 0, -N - 1));
	ADD(&program, STORE_K(BPF_DW, 10, -512, 0), EXIT());
	osr_begin(w, 1);
	world_load_program(w, &program);
	assert_int_equal(w->n_patchpoints, N);
	assert_int_equal(world_run(w, 0, no_args), 0x12345678ull * N);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(world_hits(w)[i], 1);
}

/* -- Unwinding: the processor stops after every instruction, and a handler looks --- */
void patchpoint_step(void);
void patchpoint_walk(void);
__asm__(".pushsection .text\n"
	"patchpoint_step:\n	pushf\n	orq $0x100, (%rsp)\n	popf\n	ret\n"
	"patchpoint_walk:\n	pushf\n	andq $~0x100, (%rsp)\n	popf\n	ret\n"
	".popsection\n");

static struct {
	uint64_t begin, end;			/* of the method's code */
	uint64_t returns_to, callers_rbp;
	uint32_t n_steps, n_wrong, n_asked, n_entered;
} walk;

static void on_step(int number, siginfo_t *info, void *context)
{
	const greg_t *reg = ((ucontext_t *)context)->uc_mcontext.gregs;
	const uint64_t rip = reg[REG_RIP], *rsp = (const uint64_t *)reg[REG_RSP], *rbp = (const uint64_t *)reg[REG_RBP];
	const uint8_t *insn = (const uint8_t *)rip;

	if (rip == walk.begin) {
		walk.returns_to = rsp[0];
		walk.callers_rbp = (uintptr_t)rbp;
	}
	if (rip < walk.begin + 4 || rip >= walk.end)
		return;
	walk.n_steps++;
	walk.n_asked += insn[0] == 0xe8;			/* call thunk_osr, and call common */
	walk.n_entered += insn[0] == 0x41 && insn[1] == 0xff;	/* call r11 */
	if (insn[0] == 0xc3 && rsp[0] == walk.returns_to && (uintptr_t)rbp == walk.callers_rbp)
		return;
	walk.n_wrong += rbp[1] != walk.returns_to || rbp[0] != walk.callers_rbp;
}

static void walk_through(struct world *w, uint32_t n_stays)
{
	uint64_t after[6], result;

	osr_begin(w, 1);
	osr.code = arrive;
	osr.n_stays = n_stays;
	arrival = (struct arrival){ .n_bytes = 0 };
	LOAD_PROGRAM(w, MOVI(7, 3), STORE(BPF_DW, 10, -8, 7), ALU64_K(BPF_ADD, 0, 5), ALU64_K(BPF_SUB, 7, 1),
		     JUMP_K(BPF_JNE, 7, 0, -3), EXIT());
	memset(&walk, 0, sizeof(walk));
	walk.begin = w->code[0];
	walk.end = w->code[0] + w->n_code[0];
	patchpoint_step();
	result = world_enter(w->code[0], no_args, world_patterns, after);
	patchpoint_walk();
	assert_memory_equal(after, world_patterns, sizeof(after));
	assert_int_equal(result, n_stays < 3 ? 0x7777 : 15);
	assert_int_equal(osr.n_hits, MIN(n_stays + 1, 3u));
	assert_int_equal(walk.n_asked, 2 * osr.n_hits);
	assert_int_equal(walk.n_entered, osr.n_entered);
	assert_int_equal(walk.callers_rbp, world_patterns[1]);
	assert_true(walk.n_steps > 30);
	assert_int_equal(walk.n_wrong, 0);
}

static void stacks_unwind_at_every_instruction(void **state)
{
	const struct sigaction stepping = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
	struct sigaction before;

	assert_int_equal(sigaction(SIGTRAP, &stepping, &before), 0);
	for (uint32_t n_stays = 0; n_stays <= 3; n_stays++)
		walk_through(*state, n_stays);
	sigaction(SIGTRAP, &before, NULL);
}

/* -- Figures --- */
static double time_loop(struct world *w)
{
	const uint64_t n = 10000000;
	uint64_t best = UINT64_MAX;

	for (int run = 0; run < 3; run++) {
		const uint64_t begin = world_clock();

		sum_of(w, n);
		best = MIN(best, world_clock() - begin);
	}
	return (double)best / n;
}

static void the_price_of_patchpoints_is_printed(void **state)
{
	struct world *w = *state;
	double plain, patched;

	w->patchpoints = false;
	LOAD_PROGRAM(w, SUM);
	plain = time_loop(w);
	osr_begin(w, 1000);
	LOAD_PROGRAM(w, SUM);
	patched = time_loop(w);
	print_message("an iteration of three instructions takes %.2f ns, with a patchpoint that asks every thousand %.2f ns\n",
		      plain, patched);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, patchpoint_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_frame_asks_when_its_counter_is_used_up_and_at_each_bump),
		CASE(a_counter_that_nobody_sets_asks_each_time),
		CASE(a_counter_is_its_frames_own),
		CASE(each_loop_has_its_patchpoint_and_all_the_same_counter),
		CASE(numbers_go_on_from_method_to_method),
		CASE(all_registers_arrive),
		CASE(registers_that_were_never_written_arrive_as_zero),
		CASE(the_whole_frame_arrives_where_it_was),
		CASE(every_shape_of_frame_keeps_the_stack_aligned),
		CASE(code_that_comes_later_is_entered_then),
		CASE(a_loop_is_one_instruction_and_a_jump_longer),
		CASE(code_without_loops_has_no_patchpoints),
		CASE(many_heads_fit_their_bound),
		CASE(stacks_unwind_at_every_instruction),
		CASE(the_price_of_patchpoints_is_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
