/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include "jit/alu.h"
#include "jit/baseline.h"
#include "jit/instrument.h"
#include "jit/memory.h"
#include "jit/patchpoint.h"
#include "jit/registers.h"
#include "jit/x86.h"
#include "util/base.h"
#include "util/error.h"

/* Tier 0
 *
 * One pass, instruction by instruction, no state but where each instruction's code begins. What an activation looks like:
 *
 *   rbp+8   return address
 *   rbp     the caller's rbp                     r10 of the bytecode is rbp
 *           frame: what is used of the 512 bytes, down from rbp, if r10 is read at all
 *           8 bytes, the lower 4 of which are the frame's counter, if there are patchpoints (jit/patchpoint.h)
 *           8 more where calls, or the step into optimized code, need rsp aligned
 *   rsp     those of rbx, r13, r14, r15 that the method writes; r3 for the length of a division
 *
 * so every access to the frame is [rbp+constant], stacks unwind by rbp, and optimized code that takes over a running
 * activation finds the frame where it was and r0..r9 in their registers.
 *
 * Jumps: backward ones know their distance. Forward ones have rel32 fields, and until its target is reached, a field
 * holds the offset of the next field that waits for the same target: no list beside the code is needed.
 *
 * Patchpoints and counts have one place, method_extra(): in front of an instruction's template, where all of r0..r9 are in
 * their registers. Only a branch that was taken is counted elsewhere, on its way. */

#define PROLOGUE_BOUND 48u
#define CONTROL_BOUND 24u	/* exit: 9; call: 6 and five registers set to 0 */
#define SLOT_CALL_BOUND 40u	/* more than that for a callx; the load before it takes 8 more, which MEMORY_BOUND has room for */
#define LDDW_BOUND 10u		/* movabs */

static const uint8_t kept[] = { INSN_R6, INSN_R7, INSN_R8, INSN_R9 };

struct method {
	struct emit *e;
	const struct insn *insns;
	const struct flow *flow;
	const struct tier_layout *layout;
	const struct tier_record *records;
	uint64_t data, bss;	/* 0: in the span */
	uint32_t *at;		/* per slot, offset in e: of the newest field that waits for it; once it is reached, of its code */
	uint16_t saved;		/* registers pushed */
	uint32_t n_frame;	/* bytes subtracted from rsp */
	struct instrument instrument;
	struct patchpoints patchpoints;
	const struct profile_site *site;	/* where the instruction at hand is counted; NULL: nowhere */
};

size_t baseline_bound(const struct insn *insns, uint32_t n_insns, const struct baseline_extra *extra)
{
	static const uint8_t bounds[] = {
		[BPF_LD] = LDDW_BOUND,	    [BPF_LDX] = MEMORY_BOUND,	[BPF_ST] = MEMORY_BOUND,    [BPF_STX] = MEMORY_BOUND,
		[BPF_ALU] = ALU_BOUND,	    [BPF_ALU64] = ALU_BOUND,	[BPF_JMP] = CONTROL_BOUND,  [BPF_JMP32] = CONTROL_BOUND,
	};
	size_t bound = PROLOGUE_BOUND;

	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
		bound += bounds[BPF_CLASS(insns[pc].code)];
		if (insn_is_callx(&insns[pc]))
			bound += SLOT_CALL_BOUND;
	}
	if (extra && extra->profile)
		bound += instrument_bound(extra->profile);
	if (extra && extra->patchpoints)
		bound += patchpoint_bound(insns, n_insns);
	return bound;
}

/* -- The activation --- */
static void method_prologue(struct method *m)
{
	EMIT(m->e, 0x55);							/* push rbp */
	EMIT(m->e, 0x48, 0x89, 0xe5);						/* mov rbp, rsp */
	if (m->n_frame)
		x86_rri(m->e, X86_64, 0x83, 0x81, 5, X86_RSP, m->n_frame);	/* sub rsp, n_frame */
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (register_is_in(m->saved, kept[i]))
			x86_plus(m->e, X86_32, 0x50, register_of(kept[i]));	/* push reg */
	for (unsigned int reg = INSN_R0; reg <= INSN_R9; reg++)
		if (register_is_in(m->flow->undefined, reg))
			x86_mov_imm(m->e, register_of(reg), 0);
}

static void method_exit(struct method *m)
{
	for (size_t i = ARRAY_SIZE(kept); i--;)
		if (register_is_in(m->saved, kept[i]))
			x86_plus(m->e, X86_32, 0x58, register_of(kept[i]));	/* pop reg */
	if (m->n_frame)
		EMIT(m->e, 0xc9);						/* leave */
	else
		EMIT(m->e, 0x5d);						/* pop rbp */
	EMIT(m->e, 0xc3);							/* ret */
}

/* A register that is only read holds 0, which the caller's value must survive like a written one. */
static void method_shape(struct method *m, bool has_patchpoints)
{
	const struct flow *flow = m->flow;
	uint32_t n_saved = 0;

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		if (register_is_in(flow->written | flow->undefined, kept[i])) {
			m->saved |= 1u << kept[i];
			n_saved++;
		}
	}
	if (flow->frame)
		m->n_frame = align_up(-(int64_t)flow->frame_low, 8);
	if (has_patchpoints) {
		m->n_frame += PATCHPOINT_COUNTER_SIZE;
		m->patchpoints.counter = -(int32_t)m->n_frame;
	}
	if ((flow->calls || has_patchpoints) && (m->n_frame + 8 * n_saved) % 16)
		m->n_frame += 8;
}

/* -- References to the module --- */
/* Offsets lie in their segment or at its end, so all of them are in reach. */
static uint64_t lddw_address(const struct method *m, const struct insn *insn)
{
	const struct tier_layout *layout = m->layout;
	const uint32_t index = insn[1].imm;

	switch (insn->src) {
	case INSN_REF_METHOD:
		return tier_layout_method(layout, index, m->records[index].flags);
	case INSN_REF_RODATA:
		return layout->base + layout->rodata + insn->imm;
	case INSN_REF_DATA:
		return (m->data ? m->data : layout->base + layout->data) + insn->imm;
	default:
		return (m->bss ? m->bss : layout->base + layout->bss) + insn->imm;
	}
}

/* What lies in another module's span need not be in reach of rip. */
static bool lddw_is_far(const struct method *m, const struct insn *insn)
{
	return (insn->src == INSN_REF_DATA && m->data) || (insn->src == INSN_REF_BSS && m->bss);
}

static void method_lddw(struct method *m, const struct insn *insn)
{
	const enum x86_reg dst = register_of(insn->dst);

	if (insn->src == INSN_REF_NONE)
		x86_mov_imm(m->e, dst, insn_imm64(insn));
	else if (insn->src == INSN_REF_IMPORT)
		x86_rip(m->e, X86_64, 0x8b, dst, tier_layout_import(m->layout, insn[1].imm));	/* mov dst, [rip -> cell] */
	else if (lddw_is_far(m, insn))
		x86_mov_imm(m->e, dst, lddw_address(m, insn));
	else
		x86_rip(m->e, X86_64, 0x8d, dst, lddw_address(m, insn));		/* lea dst, [rip -> address] */
}

/* -- Calls --- */
/* Whether @mark says that a vtable slot's address is to be kept; there is nothing to look for in modules without slots. */
static bool method_has_slot(const struct method *m, uint32_t pc, enum flow_mark mark)
{
	return m->flow->marks[pc] & mark && m->layout->n_slots;
}

/* Before the load, which may overwrite its own base: the address that it loads from stays in r9, up to the callx. */
static void method_slot_load(struct method *m, const struct insn *insn)
{
	x86_mem(m->e, X86_64, 0x8d, X86_R9, register_of(insn->src), insn->off);			/* lea r9, [src+off] */
}

/* One call for both, so that it is predicted in one place. Unless it is a slot's address, r9 - slots is a large number. */
static void method_slot_call(struct method *m, enum x86_reg callee)
{
	const struct tier_layout *layout = m->layout;
	size_t value;

	x86_mov(m->e, X86_R11, callee);
	x86_rip(m->e, X86_64, 0x8d, X86_R10, layout->base + layout->slots);			/* lea r10, [rip -> slots] */
	x86_rr(m->e, X86_64, 0x29, X86_R10, X86_R9);						/* sub r9, r10 */
	x86_rri(m->e, X86_64, 0x83, 0x81, 7, X86_R9, layout->n_slots - sizeof(uint64_t));	/* cmp r9, of the last */
	value = x86_short_jcc(m->e, X86_A);
	x86_rip(m->e, X86_64, 0x8d, X86_R10, layout->base + layout->call_cells);		/* lea r10, [rip -> cells] */
	x86_rr(m->e, X86_64, 0x01, X86_R9, X86_R10);						/* add r10, r9 */
	x86_mem(m->e, X86_64, 0x8b, X86_R11, X86_R10, 0);					/* mov r11, [r10] */
	x86_land(m->e, value);
	x86_rr(m->e, X86_32, 0xff, 2, X86_R11);							/* call r11 */
}

/* r1..r5 are the callee's to clobber; code that reads them all the same reads 0, at both tiers. */
static void method_call(struct method *m, uint32_t pc, uint16_t live)
{
	const struct insn *insn = &m->insns[pc];

	if (method_has_slot(m, pc, FLOW_SLOT_CALL))
		method_slot_call(m, register_of(insn->dst));
	else if (insn_is_callx(insn))
		x86_rr(m->e, X86_32, 0xff, 2, register_of(insn->dst));				/* call dst */
	else if (insn->src == INSN_CALL_METHOD)
		x86_rip(m->e, X86_32, 0xff, 2, tier_layout_entry(m->layout, insn->imm));	/* call [rip -> E] */
	else
		x86_rip(m->e, X86_32, 0xff, 2, tier_layout_import(m->layout, insn->imm));	/* call [rip -> cell] */
	for (unsigned int reg = INSN_R1; reg <= INSN_R5; reg++)
		if (register_is_in(live, reg))
			x86_mov_imm(m->e, register_of(reg), 0);
}

/* -- Jumps --- */
/* Where the code of @target begins, if it is emitted already; else 0. */
static uint64_t method_backward(const struct method *m, uint32_t pc, uint32_t target)
{
	return target <= pc ? m->e->address + m->at[target] : 0;
}

/* Behind an opcode: the rel32 field that waits for @target. */
static void method_await(struct method *m, uint32_t target)
{
	const uint32_t field = m->e->n;

	EMIT(m->e, IMM32(m->at[target]));
	m->at[target] = field;
}

/* The code of @pc begins here. */
static void method_bind(struct method *m, uint32_t pc)
{
	uint32_t field = m->at[pc];

	while (field) {
		const uint32_t next = emit_field(m->e, field), distance = m->e->n - (field + 4);

		emit_patch(m->e, field, &distance, sizeof(distance));
		field = next;
	}
	m->at[pc] = m->e->n;
}

static void method_jump(struct method *m, uint32_t pc)
{
	const uint32_t target = flow_jump_target(m->insns, pc);
	const uint64_t address = method_backward(m, pc, target);

	if (target == pc + 1)
		return;
	if (address) {
		x86_jmp(m->e, address);
		return;
	}
	EMIT(m->e, 0xe9);							/* jmp target */
	method_await(m, target);
}

static enum x86_cc method_compare(struct method *m, const struct insn *insn)
{
	static const uint8_t conditions[16] = {
		[BPF_JEQ >> 4] = X86_E,	  [BPF_JGT >> 4] = X86_A,   [BPF_JGE >> 4] = X86_AE,  [BPF_JSET >> 4] = X86_NE,
		[BPF_JNE >> 4] = X86_NE,  [BPF_JSGT >> 4] = X86_G,  [BPF_JSGE >> 4] = X86_GE, [BPF_JLT >> 4] = X86_B,
		[BPF_JLE >> 4] = X86_BE,  [BPF_JSLT >> 4] = X86_L,  [BPF_JSLE >> 4] = X86_LE,
	};
	const enum x86_width w = BPF_CLASS(insn->code) == BPF_JMP ? X86_64 : X86_32;
	const bool by_register = BPF_SRC(insn->code) == BPF_X, set = BPF_OP(insn->code) == BPF_JSET;
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);

	if (by_register) {
		x86_rr(m->e, w, set ? 0x85 : 0x39, src, dst);			/* test or cmp dst, src */
	} else if (set) {
		x86_rr(m->e, w, 0xf7, 0, dst);					/* test dst, */
		emit_word(m->e, (uint32_t)insn->imm, 4);			/*   imm */
	} else if (!insn->imm) {
		x86_rr(m->e, w, 0x85, dst, dst);				/* test dst, dst: as cmp dst, 0 */
	} else {
		x86_rri(m->e, w, 0x83, 0x81, 7, dst, insn->imm);		/* cmp dst, imm */
	}
	return (enum x86_cc)conditions[BPF_OP(insn->code) >> 4];
}

static void method_conditional_counted(struct method *m, uint32_t pc, enum x86_cc cc)
{
	const size_t not_taken = x86_short_jcc(m->e, x86_not(cc));

	instrument_count(m->e, &m->instrument, m->site->word + 1);
	method_jump(m, pc);
	x86_land(m->e, not_taken);
}

static void method_conditional(struct method *m, uint32_t pc)
{
	const enum x86_cc cc = method_compare(m, &m->insns[pc]);
	const uint32_t target = flow_jump_target(m->insns, pc);
	const uint64_t address = method_backward(m, pc, target);

	if (m->site) {
		method_conditional_counted(m, pc, cc);
		return;
	}
	if (address) {
		x86_jcc(m->e, cc, address);
		return;
	}
	EMIT(m->e, 0x0f, 0x80 | cc);						/* jcc target */
	method_await(m, target);
}

/* -- The pass --- */
static void method_control(struct method *m, uint32_t pc, uint16_t live)
{
	const struct insn *insn = &m->insns[pc];

	switch (BPF_OP(insn->code)) {
	case BPF_JA:
		method_jump(m, pc);
		break;
	case BPF_CALL:
		method_call(m, pc, live);
		break;
	case BPF_EXIT:
		method_exit(m);
		break;
	default:
		method_conditional(m, pc);
	}
}

static void method_instruction(struct method *m, uint32_t pc)
{
	const struct insn *insn = &m->insns[pc];
	/* read by nothing but templates that fall through to it */
	const uint16_t live = pc + 1 < m->flow->n_insns ? m->flow->live[pc + 1] : 0;

	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		alu_emit(m->e, insn, live);
		break;
	case BPF_LDX:
	case BPF_ST:
	case BPF_STX:
		if (method_has_slot(m, pc, FLOW_SLOT_LOAD))
			method_slot_load(m, insn);
		memory_emit(m->e, insn, live);
		break;
	case BPF_JMP:
	case BPF_JMP32:
		method_control(m, pc, live);
		break;
	case BPF_LD:
		method_lddw(m, insn);
		break;
	}
}

/* -- What tier 0 does beside the body's own work --- */
static void method_extra(struct method *m, uint32_t pc)
{
	if (m->patchpoints.counter && m->flow->marks[pc] & FLOW_BACK_TARGET)
		patchpoint_test(m->e, &m->patchpoints);
	m->site = instrument_site(&m->instrument, pc);
	if (m->site)
		instrument_count(m->e, &m->instrument, m->site->word);
	if (m->site && m->site->kind == PROFILE_CALLX)
		instrument_vote(m->e, &m->instrument, m->site, register_of(m->insns[pc].dst));
}

static void method_begin_extra(struct method *m, const struct baseline_extra *extra)
{
	const struct profile_site *entry = instrument_site(&m->instrument, 0);

	if (m->patchpoints.counter)
		patchpoint_begin(m->e, &m->patchpoints, extra->osr_counter);
	if (entry)
		instrument_count(m->e, &m->instrument, entry->word);
}

static void method_patchpoints(struct method *m)
{
	const uint64_t common = emit_here(m->e);

	patchpoint_common(m->e, &m->patchpoints, m->layout);
	method_exit(m);
	patchpoint_slow(m->e, &m->patchpoints, m->layout, m->flow, m->at, common);
}

int baseline_compile(struct emit *e, const struct insn *insns, const struct flow *flow, const struct baseline_module *module,
		     const struct baseline_extra *extra)
{
	const bool has_patchpoints = extra && extra->patchpoints && patchpoint_has_any(flow);
	const bool has_extra = has_patchpoints || (extra && extra->profile);
	_cleanup_(freep) uint32_t *at = NULL;
	struct method m = { .e = e, .insns = insns, .flow = flow, .layout = module->layout, .records = module->records,
			    .data = module->data, .bss = module->bss };

	at = calloc(flow->n_insns, sizeof(*at));
	if (!at)
		return error_origin(-ENOMEM);
	m.at = at;
	if (has_extra) {
		m.instrument = (struct instrument){ .map = extra->profile, .layout = m.layout, .cell = extra->profile_cell };
		m.patchpoints.first = extra->patchpoint;
	}
	method_shape(&m, has_patchpoints);
	method_prologue(&m);
	if (has_extra)
		method_begin_extra(&m, extra);
	for (uint32_t pc = 0; pc < flow->n_insns; pc += insn_slots(&m.insns[pc])) {
		method_bind(&m, pc);
		if (has_extra)
			method_extra(&m, pc);
		method_instruction(&m, pc);
	}
	if (has_patchpoints)
		method_patchpoints(&m);
	return 0;
}
