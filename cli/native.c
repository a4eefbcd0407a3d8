/* SPDX-License-Identifier: Apache-2.0 */
#include "native.h"

#ifdef HAVE_CAPSTONE
#include <capstone.h>
#include <stdio.h>

bool native_is_there(void)
{
	return true;
}

static void targets_of(const cs_insn *insn, uint64_t targets[2])
{
	const cs_x86 *x86 = &insn->detail->x86;
	unsigned int n = 0;

	targets[0] = targets[1] = 0;
	for (uint8_t i = 0; i < x86->op_count && n < 2; i++) {
		const cs_x86_op *op = &x86->operands[i];

		if (op->type == X86_OP_IMM)
			targets[n++] = op->imm;
		else if (op->type == X86_OP_MEM && op->mem.base == X86_REG_RIP)
			targets[n++] = insn->address + insn->size + op->mem.disp;
	}
}

static void native_decoded(const cs_insn *insn, const uint8_t *bytes, void (*fn)(const struct native_insn *insn, void *context),
			   void *context)
{
	char text[sizeof(insn->mnemonic) + sizeof(insn->op_str) + 1];
	struct native_insn native = { .address = insn->address, .bytes = bytes, .n = insn->size, .text = text };

	snprintf(text, sizeof(text), "%s%s%s", insn->mnemonic, *insn->op_str ? " " : "", insn->op_str);
	targets_of(insn, native.targets);
	fn(&native, context);
}

static void native_byte(uint64_t address, const uint8_t *byte, void (*fn)(const struct native_insn *insn, void *context),
			void *context)
{
	char text[16];
	struct native_insn native = { .address = address, .bytes = byte, .n = 1, .text = text };

	snprintf(text, sizeof(text), ".byte 0x%02x", *byte);
	fn(&native, context);
}

bool native_each(const void *code, uint64_t n, uint64_t address, void (*fn)(const struct native_insn *insn, void *context),
		 void *context)
{
	const uint8_t *p = code;
	size_t left = n;
	cs_insn *insn;
	csh handle;

	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		return false;
	cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
	insn = cs_malloc(handle);
	while (insn && left) {
		const uint8_t *begin = p;

		if (cs_disasm_iter(handle, &p, &left, &address, insn)) {
			native_decoded(insn, begin, fn, context);
			continue;
		}
		native_byte(address++, p++, fn, context);
		left--;
	}
	if (insn)
		cs_free(insn, 1);
	cs_close(&handle);
	return insn;
}

#else

bool native_is_there(void)
{
	return false;
}

bool native_each(const void *code, uint64_t n, uint64_t address, void (*fn)(const struct native_insn *insn, void *context),
		 void *context)
{
	return false;
}
#endif
