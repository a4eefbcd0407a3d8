/* SPDX-License-Identifier: Apache-2.0 */
/* A module with vtable slots: included behind world.c
 *
 * Methods 1 and 2 are backpatchable: words 0, 1 and 3 of .rodata are slots of 1, 2 and 1; word 2 is a number, which only the
 * value of a callx may use; word 4 lies behind the slots and holds the address of 2 as well. Cells hold T. */
enum { SLOT_A, SLOT_B, SLOT_NONE, SLOT_C, SLOT_BEHIND, N_SLOT_WORDS };

static uint64_t *slot_word(struct world *w, uint32_t word)
{
	return (uint64_t *)(w->layout.base + w->layout.rodata) + word;
}

static uint64_t *slot_cell(struct world *w, uint32_t word)
{
	return (uint64_t *)tier_layout_call_cell(&w->layout, (uintptr_t)slot_word(w, word));
}

static void load_slots(struct world *w, const struct program *program)
{
	static const uint8_t methods[N_SLOT_WORDS] = { [SLOT_A] = 1, [SLOT_B] = 2, [SLOT_C] = 1, [SLOT_BEHIND] = 2 };
	struct builder builder = BUILDER_NULL;
	struct program one = { 0 }, two = { 0 };

	ADD(&one, MOVI(0, 100), ALU64_X(BPF_ADD, 0, 1), EXIT());
	ADD(&two, MOVI(0, 200), ALU64_X(BPF_ADD, 0, 1), EXIT());
	w->layout.slots = w->layout.rodata;
	w->layout.n_slots = SLOT_BEHIND * sizeof(uint64_t);
	w->layout.call_cells = w->layout.rodata + w->layout.n_rodata;
	world_record(w, 1)->flags = world_record(w, 2)->flags = TIER_RECORD_BACKPATCHABLE;
	builder_segment(&builder, IMAGE_RODATA, NULL, N_SLOT_WORDS * sizeof(uint64_t), 8);
	world_method(&builder, program);
	world_method(&builder, &one);
	world_method(&builder, &two);
	world_load(w, &builder);
	for (uint32_t word = 0; word < N_SLOT_WORDS; word++)
		if (methods[word])
			*slot_word(w, word) = tier_layout_funcptr(&w->layout, methods[word]);
	for (uint32_t word = 0; word < SLOT_BEHIND; word++)
		*slot_cell(w, word) = methods[word] ? tier_layout_precode(&w->layout, methods[word]) : *slot_word(w, word);
}
#define LOAD_SLOTS(w, ...)                                                                                             \
	do {                                                                                                           \
		struct program _program = { 0 };                                                                       \
		ADD(&_program, __VA_ARGS__);                                                                           \
		load_slots(w, &_program);                                                                              \
	} while (0)

static uint64_t run_on(struct world *w, const void *slot)
{
	const uint64_t args[5] = { (uintptr_t)slot, 7 };

	return world_run(w, 0, args);
}

/* Calls what it finds at its first argument: with its second, for what it loads may be anything but r1. */
#define CALL_AT(reg) MOV(6, 1), MOV(1, 2), LOAD(BPF_DW, reg, 6, 0), CALLX(reg), EXIT()
