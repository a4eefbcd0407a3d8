/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Machine code as text, through libcapstone where tierctl was built with it */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct native_insn {
	uint64_t address;
	const uint8_t *bytes;
	uint32_t n;		/* of bytes */
	const char *text;
	uint64_t targets[2];	/* addresses that it refers to; 0: none */
};

/* Whether there is a disassembler. */
bool native_is_there(void);
/* Calls @fn for each instruction of @n bytes at @code, which will run at @address. What is none comes as single bytes.
 * False: the disassembler failed. */
bool native_each(const void *code, uint64_t n, uint64_t address, void (*fn)(const struct native_insn *insn, void *context),
		 void *context);
