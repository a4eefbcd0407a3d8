/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One behaviour as a file
 *
 *	# what it is about
 *	-- asm			the program: assemble.h          or  -- raw	the same as hex bytes
 *	-- mem			hex bytes; r1 = their address, r2 = how many; may be left out
 *	-- result		r0 in hex or decimal             or  -- refused	part of the sentence
 *						or  -- ends	"SIGSEGV": its process does; "never"
 *	-- mem after		what the memory holds then; may be left out
 *
 * Helper 5 may be called, as in the public suite: it returns its first argument. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bytecode/image.h"

struct datafile {
	struct insn *insns;
	uint32_t n_insns;
	uint8_t *mem, *mem_after;	/* NULL: no such section */
	size_t n_mem, n_mem_after;
	char *refused;			/* NULL: it must run */
	int signal;			/* that ends its process, SIGVTALRM for "never"; 0: it returns */
	uint64_t result;
};
#define DATAFILE_NULL { 0 }

/* False: @why is the sentence, about the file itself. datafile_deinit() in any case. */
bool datafile_read(struct datafile *file, const char *path, struct refusal *why);
void datafile_deinit(struct datafile *file);

/* Bytes in hex, blanks between them where one likes; false when it is anything else. The caller frees *ret. */
bool datafile_hex(const char *text, uint8_t **ret, size_t *ret_n);
