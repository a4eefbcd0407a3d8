/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Instructions as one writes them, and an image around them, for the tests of this folder. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "bytecode/builder.h"
#include "bytecode/image.h"
#include "bytecode/insn.h"

#define INSN(code_, dst_, src_, off_, imm_) ((struct insn){ .code = (code_), .dst = (dst_), .src = (src_), .off = (off_), .imm = (imm_) })
#define MOV_K(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define MOV_X(dst, src) INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define ALU_X(op, dst, src) INSN(BPF_ALU64 | (op) | BPF_X, dst, src, 0, 0)
#define ALU_K(op, dst, imm) INSN(BPF_ALU64 | (op) | BPF_K, dst, 0, 0, imm)
#define LDX(size, dst, src, off) INSN(BPF_LDX | BPF_MEM | (size), dst, src, off, 0)
#define STX(size, dst, off, src) INSN(BPF_STX | BPF_MEM | (size), dst, src, off, 0)
#define ST(size, dst, off, imm) INSN(BPF_ST | BPF_MEM | (size), dst, 0, off, imm)
#define ATOMIC(size, dst, off, src, op) INSN(BPF_STX | BPF_ATOMIC | (size), dst, src, off, op)
#define JA(off) INSN(BPF_JMP | BPF_JA, 0, 0, off, 0)
#define GOTOL(imm) INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, imm)
#define JMP_K(op, dst, imm, off) INSN(BPF_JMP | (op) | BPF_K, dst, 0, off, imm)
#define CALL(kind, index) INSN(BPF_JMP | BPF_CALL, 0, kind, 0, index)
#define CALLX(reg) INSN(BPF_JMP | BPF_CALL | BPF_X, reg, 0, 0, 0)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define LDDW(dst, ref, addend, index) INSN(BPF_LDDW, dst, ref, 0, addend), INSN(0, 0, 0, 0, index)

/* An image of two methods, "m" with @insns and "other", two imports, 64 bytes of .rodata, 32 of .data, 16 of .bss,
 * five variables, and what debug information could tell: a signature and two tags of "m", one tag of "other", two files,
 * three lines. The caller frees *ret_bytes. */
static inline struct image code_image(void **ret_bytes, const struct insn *insns, uint32_t n)
{
	struct insn other[] = { MOV_K(0, 7), EXIT };
	struct builder builder = BUILDER_NULL;
	struct refusal refusal = {};
	struct image image;
	uint32_t section;
	size_t size;

	section = builder_string(&builder, ".text");
	builder_method(&builder, "m", section, 0x40, IMAGE_METHOD_GLOBAL, insns, n);
	builder_method(&builder, "other", section, 0x40 + n * 8, 0, other, 2);
	builder_import(&builder, "host", 0);
	builder_import(&builder, "maybe", IMAGE_IMPORT_WEAK);
	builder_segment(&builder, IMAGE_RODATA, NULL, 64, 16);
	builder_segment(&builder, IMAGE_DATA, NULL, 32, 8);
	builder_segment(&builder, IMAGE_BSS, NULL, 16, 8);
	builder_reloc(&builder, &(struct image_reloc){ .segment = IMAGE_RODATA, .ref = INSN_REF_METHOD, .width = 8, .index = 1 });
	builder_reloc(&builder, &(struct image_reloc){ .segment = IMAGE_RODATA, .ref = INSN_REF_DATA, .width = 8, .offset = 8,
						       .addend = 32 });
	builder_reloc(&builder, &(struct image_reloc){ .segment = IMAGE_DATA, .ref = INSN_REF_IMPORT, .width = 8, .offset = 4 });
	builder_describe(&builder, 0, IMAGE_METHOD_NO_OPTIMIZATION, "u64 m(u64 n)", 1, 0x1234);
	builder_tag(&builder, 0, "tier:no_optimization");
	builder_tag(&builder, 0, "mine");
	builder_tag(&builder, 1, "mine, too");
	builder_file(&builder, "m.c");
	builder_file(&builder, "other.h");
	builder_line(&builder, &(struct image_line){ .insn = 0, .file = 0, .line = 3, .column = 5 });
	builder_line(&builder, &(struct image_line){ .insn = n, .file = 1, .line = 7 });
	builder_line(&builder, &(struct image_line){ .insn = n + 1, .file = 1, .line = 8 });
	builder_object(&builder, "table", &(struct image_object){ .segment = IMAGE_RODATA, .size = 16 });
	builder_object(&builder, "alias", &(struct image_object){ .segment = IMAGE_DATA, .offset = 8, .size = 16 });
	builder_object(&builder, "limit", &(struct image_object){ .segment = IMAGE_DATA, .offset = 8, .size = 8, .is_global = 1 });
	builder_object(&builder, "end", &(struct image_object){ .segment = IMAGE_DATA, .offset = 32 });
	builder_object(&builder, "count", &(struct image_object){ .segment = IMAGE_BSS, .size = 8, .is_global = 1 });
	assert_int_equal(builder_finish(&builder, ret_bytes, &size), 0);
	builder_deinit(&builder);
	if (!image_check(*ret_bytes, size, &image, &refusal))
		fail_msg("%s", refusal.text);
	return image;
}
