/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "jit/x86.h"

/* An instruction is assembled in one 64-bit word and stored at once: everything here but movabs fits in 8 bytes.
 *
 *   [REX] [0x0f] opcode ModRM [disp8 | disp32] [imm8 | imm32]
 */
struct word {
	uint64_t bits;
	unsigned int n;
};

static inline void put8(struct word *word, uint8_t byte)
{
	word->bits |= (uint64_t)byte << word->n++ * 8;
}

static inline void put32(struct word *word, uint32_t value)
{
	word->bits |= (uint64_t)value << word->n * 8;
	word->n += 4;
}

static inline bool is_imm8(int64_t value) { return value == (int8_t)value; }
static inline uint8_t modrm(unsigned int mod, unsigned int reg, unsigned int rm)
{
	return mod << 6 | (reg & 7) << 3 | (rm & 7);
}

static inline struct word opcode(enum x86_width w, unsigned int op, unsigned int reg, unsigned int rm)
{
	const unsigned int rex = w | (reg & 8) >> 1 | (rm & 8) >> 3;
	struct word word = { 0 };

	if (rex)
		put8(&word, 0x40 | rex);
	if (op > 0xff)
		put8(&word, op >> 8);
	put8(&word, op);
	return word;
}

void x86_rr(struct emit *e, enum x86_width w, unsigned int op, unsigned int reg, enum x86_reg rm)
{
	struct word word = opcode(w, op, reg, rm);

	put8(&word, modrm(3, reg, rm));
	emit_word(e, word.bits, word.n);
}

void x86_mem(struct emit *e, enum x86_width w, unsigned int op, unsigned int reg, enum x86_reg base, int32_t disp)
{
	struct word word = opcode(w, op, reg, base);

	assert((base & 7) != X86_RSP);	/* that encoding announces a SIB byte */
	if (!disp && (base & 7) != X86_RBP) {
		put8(&word, modrm(0, reg, base));
	} else if (is_imm8(disp)) {
		put8(&word, modrm(1, reg, base));
		put8(&word, disp);
	} else {
		put8(&word, modrm(2, reg, base));
		put32(&word, disp);
	}
	emit_word(e, word.bits, word.n);
}

void x86_rip(struct emit *e, enum x86_width w, unsigned int op, unsigned int reg, uint64_t target)
{
	struct word word = opcode(w, op, reg, 0);

	assert(x86_reaches(e, target));
	put8(&word, modrm(0, reg, X86_RBP));
	put32(&word, target - (emit_here(e) + word.n + 4));
	emit_word(e, word.bits, word.n);
}

void x86_rri(struct emit *e, enum x86_width w, uint8_t op8, uint8_t op32, unsigned int reg, enum x86_reg rm, int32_t imm)
{
	struct word word = opcode(w, is_imm8(imm) ? op8 : op32, reg, rm);

	put8(&word, modrm(3, reg, rm));
	if (is_imm8(imm))
		put8(&word, imm);
	else
		put32(&word, imm);
	emit_word(e, word.bits, word.n);
}

void x86_ri8(struct emit *e, enum x86_width w, uint8_t op, unsigned int ext, enum x86_reg rm, uint8_t imm)
{
	struct word word = opcode(w, op, ext, rm);

	put8(&word, modrm(3, ext, rm));
	put8(&word, imm);
	emit_word(e, word.bits, word.n);
}

void x86_plus(struct emit *e, enum x86_width w, unsigned int op, enum x86_reg reg)
{
	const struct word word = opcode(w, op + (reg & 7), 0, reg);

	emit_word(e, word.bits, word.n);
}

void x86_mov_imm(struct emit *e, enum x86_reg reg, int64_t value)
{
	if (!value) {
		x86_rr(e, X86_32, 0x31, reg, reg);			/* xor reg32, reg32 */
	} else if (value == (uint32_t)value) {
		x86_plus(e, X86_32, 0xb8, reg);				/* mov reg32, imm32 */
		emit_word(e, value, 4);
	} else if (value == (int32_t)value) {
		x86_rr(e, X86_64, 0xc7, 0, reg);			/* mov reg, simm32 */
		emit_word(e, value, 4);
	} else {
		x86_plus(e, X86_64, 0xb8, reg);				/* movabs reg, imm64 */
		emit_word(e, value, 8);
	}
}

void x86_mov(struct emit *e, enum x86_reg to, enum x86_reg from)
{
	if (to != from)
		x86_rr(e, X86_64, 0x89, from, to);			/* mov to, from */
}

void x86_jmp(struct emit *e, uint64_t target)
{
	const int64_t distance = (int64_t)(target - (emit_here(e) + 2));

	assert(x86_reaches(e, target));
	if (is_imm8(distance))
		EMIT(e, 0xeb, (uint8_t)distance);			/* jmp rel8 */
	else
		EMIT(e, 0xe9, IMM32(distance - 3));			/* jmp rel32 */
}

void x86_jcc(struct emit *e, enum x86_cc cc, uint64_t target)
{
	const int64_t distance = (int64_t)(target - (emit_here(e) + 2));

	assert(x86_reaches(e, target));
	if (is_imm8(distance))
		EMIT(e, 0x70 | cc, (uint8_t)distance);			/* jcc rel8 */
	else
		EMIT(e, 0x0f, 0x80 | cc, IMM32(distance - 4));		/* jcc rel32 */
}

void x86_call(struct emit *e, uint64_t target)
{
	assert(x86_reaches(e, target));
	EMIT(e, 0xe8, IMM32(target - (emit_here(e) + 5)));		/* call rel32 */
}

size_t x86_short_jcc(struct emit *e, enum x86_cc cc)
{
	EMIT(e, 0x70 | cc, 0);						/* jcc rel8, see x86_land() */
	return e->n;
}

size_t x86_short_jmp(struct emit *e)
{
	EMIT(e, 0xeb, 0);						/* jmp rel8, see x86_land() */
	return e->n;
}

void x86_land(struct emit *e, size_t at)
{
	const uint8_t distance = e->n - at;

	assert(e->n - at < 128);
	emit_patch(e, at - 1, &distance, 1);
}
