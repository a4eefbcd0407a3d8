/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "jit/stubs.h"
#include "jit/x86.h"

/* Stubs are padded with int3: whoever jumps into the padding stops there. */
static void stubs_pad(struct emit *e, size_t begin, size_t size)
{
	assert(e->n - begin <= size);
	while (e->n - begin < size)
		EMIT(e, 0xcc);							/* int3 */
}

void stubs_thunk(struct emit *e, const struct tier_layout *layout, enum tier_thunk thunk)
{
	static const uint8_t entries[] = {
		[TIER_THUNK_PRESTUB] = offsetof(struct tier_private, prestub),
		[TIER_THUNK_THRESHOLD] = offsetof(struct tier_private, threshold),
		[TIER_THUNK_OSR] = offsetof(struct tier_private, osr),
	};
	const size_t begin = e->n;

	_Static_assert(sizeof(entries) == _TIER_THUNK_N, "lead every thunk somewhere");
	/* jmp [rip -> entry] */
	x86_rip(e, X86_32, 0xff, 4, tier_layout_segment(layout, TIER_SEGMENT_PRIVATE) + entries[thunk]);
	stubs_pad(e, begin, TIER_THUNK_SIZE);
}

void stubs_precode(struct emit *e, const struct tier_layout *layout, uint32_t method)
{
	const uint64_t record = tier_layout_record(layout, method);
	const size_t begin = e->n;

	assert(emit_here(e) == tier_layout_precode(layout, method));
	EMIT(e, 0x0f, 0x1f, 0x00);								/* nop dword [rax] */
	EMIT(e, 0xe9);										/* jmp P */
	emit_word(e, (uint32_t)tier_layout_precode_jump(layout, method, tier_layout_thunk(layout, TIER_THUNK_PRESTUB)), 4);
	x86_rip(e, X86_32, 0xff, 4, record + offsetof(struct tier_record, funcptr));		/* jmp [rip -> F] */
	stubs_pad(e, begin, TIER_PRECODE_PRESTUB);
	x86_rip(e, X86_64, 0x8d, X86_R11, record);						/* lea r11, [rip -> record] */
	x86_jmp(e, tier_layout_thunk(layout, TIER_THUNK_PRESTUB));
	stubs_pad(e, begin, TIER_PRECODE_SIZE);
}

void stubs_forwarder(struct emit *e, uint64_t target)
{
	const size_t begin = e->n;

	assert(emit_here(e) % FORWARDER_SIZE == 0);
	x86_rip(e, X86_32, 0xff, 4, emit_here(e) + FORWARDER_TARGET);				/* jmp [rip -> target] */
	stubs_pad(e, begin, FORWARDER_TARGET);
	emit_bytes(e, &target, sizeof(target));
}

/* Only the call that brings the cell to zero leaves the straight path: later ones, which find it below zero on their way
 * through a stub that is being replaced, run the code without a second crossing. */
void stubs_counting(struct emit *e, const struct tier_layout *layout, uint32_t method, uint32_t cell, uint64_t version,
		    uint64_t code)
{
	const struct tier_stub_data data = { .version = version, .code = code };
	const size_t begin = e->n, data_at = STUB_SIZE - sizeof(data);
	size_t crossed;

	assert(emit_here(e) % 16 == 0);
	EMIT(e, 0xf0);
	x86_rip(e, X86_32, 0xff, 1, tier_layout_cell(layout, cell));		/* lock dec dword [rip -> cell] */
	crossed = x86_short_jcc(e, X86_E);
	x86_jmp(e, code);
	x86_land(e, crossed);
	x86_rip(e, X86_64, 0x8d, X86_R11, tier_layout_record(layout, method));	/* lea r11, [rip -> record] */
	x86_rip(e, X86_64, 0x8d, X86_R10, e->address + begin + data_at);	/* lea r10, [rip -> data] */
	x86_jmp(e, tier_layout_thunk(layout, TIER_THUNK_THRESHOLD));
	stubs_pad(e, begin, data_at);
	emit_bytes(e, &data, sizeof(data));
}
