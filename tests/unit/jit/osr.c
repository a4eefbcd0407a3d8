/* SPDX-License-Identifier: Apache-2.0 */
/* An OSR entry and OSR code for tests: included behind world.c
 *
 * The entry is what libtier's is to the code that calls it: it leaves every register as it was but r10 and r11, and ruins those.
 * The optimized code is the interpreter, which goes on with the registers and the frame that it is given. */

struct osr {
	struct world *world;
	uint64_t (*code)(const uint64_t registers[10], uint64_t frame);	/* where to; NULL: nowhere */
	uint32_t n_stays;		/* hits before it is there */
	bool leaves_counter;		/* does not set it anew */
	uint32_t n_hits, n_entered;
	const struct tier_patchpoint *patchpoint;	/* of the last hit */
	uint64_t frame;			/* rbp at the last hit */
	int32_t *counter, value;	/* at the last hit */
};
static struct osr osr;

uint64_t osr_hit(const struct tier_patchpoint *patchpoint, int32_t *counter, uint64_t frame);
uint64_t osr_hit(const struct tier_patchpoint *patchpoint, int32_t *counter, uint64_t frame)
{
	osr.n_hits++;
	osr.patchpoint = patchpoint;
	osr.frame = frame;
	osr.counter = counter;
	osr.value = *counter;
	world_hits(osr.world)[patchpoint->number]++;
	if (!osr.leaves_counter)
		*counter = patchpoint->bump;
	if (!osr.code || osr.n_hits <= osr.n_stays)
		return 0;
	osr.n_entered++;
	return (uintptr_t)osr.code;
}

uint64_t osr_entry(void);
__asm__(".pushsection .text\n"
	".type osr_entry, @function\n"
	"osr_entry:\n"
	"	push %rbp\n	mov %rsp, %rbp\n"
	"	push %rax\n	push %rdi\n	push %rsi\n	push %rdx\n	push %rcx\n	push %r8\n	push %r9\n"
	"	and $-16, %rsp\n"
	"	mov %r11, %rdi\n	mov %r10, %rsi\n	mov (%rbp), %rdx\n"
	"	call osr_hit\n"
	"	mov %rax, %r11\n	mov $-7, %r10\n"
	"	lea -56(%rbp), %rsp\n"
	"	pop %r9\n	pop %r8\n	pop %rcx\n	pop %rdx\n	pop %rsi\n	pop %rdi\n	pop %rax\n"
	"	pop %rbp\n"
	"	cmp $-7, %r10\n	stc\n"		/* other flags than it was called with */
	"	ret\n"
	".size osr_entry, . - osr_entry\n"
	".popsection\n");

/* rsp was a multiple of 16 before the call, so the frame pointer that this function pushes is one, too. */
static _unused_ uint64_t osr_interpret(const uint64_t registers[10], uint64_t frame)
{
	struct reference reference = world_reference(osr.world);
	uint64_t result = 0;

	assert_int_equal((uintptr_t)__builtin_frame_address(0) % 16, 0);
	assert_int_equal((uintptr_t)registers % 16, 0);
	assert_int_equal(frame, osr.frame);
	if (!reference_resume(&reference, osr.patchpoint->method, osr.patchpoint->pc, registers, frame, &result))
		fail_msg("the reference gave up: %s", reference.fault);
	return result;
}

/* Modules loaded from now on have patchpoints; counters begin with @counter, and get that again at a hit. */
static void osr_begin(struct world *w, uint32_t counter)
{
	w->patchpoints = true;
	w->osr_counter = counter;
	world_private(w)->osr = (uintptr_t)osr_entry;
	osr = (struct osr){ .world = w };
}
