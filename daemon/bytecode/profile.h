/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What instrumented code counts, and where
 *
 * The counts of a version are words of 32 bits in the module's counters segment, so any client can write anything there:
 * a profile is a hint, checked in form and never trusted in content. Which word counts what follows from the bytecode
 * alone, so that both compilers and the reader agree without a table:
 *
 *   entry         1 word    calls of the version
 *   conditional   2 words   executed, taken
 *   direct call   1 word    executed (calls of methods and imports)
 *   callx         6 words   executed, votes, the target (8 bytes, at an even word), two that are not used when the
 *                           words before it were odd in number
 *
 * in ascending order of pc, the entry first. The target of a callx is the majority's, by Boyer and Moore's vote (1981): a
 * call to the target adds a vote, another takes one away, and with none left its own target comes in. So more than half of
 * the calls went to the target if any target has more than half.
 *
 * Increments are not atomic: a lost one matters to nobody. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/insn.h"

enum profile_kind { PROFILE_ENTRY, PROFILE_BRANCH, PROFILE_CALL, PROFILE_CALLX, _PROFILE_KIND_N };

struct profile_site {
	uint32_t pc;		/* instruction slot; 0 for ENTRY */
	uint32_t kind;		/* enum profile_kind */
	uint32_t word;		/* index of its first word; CALLX: of `executed`, `votes` follows, the target lies at profile_target() */
};

struct profile_map {
	uint32_t n_sites, n_words;	/* n_words is even */
	struct profile_site sites[];	/* sites[0] is the entry, the others in ascending order of pc */
};

/* Word of a CALLX's target: the next even one behind its first two */
static inline uint32_t profile_target(const struct profile_site *site) { return (site->word + 3) & ~1u; }

/* @insns: @n_insns slots of a verified body. 0 and a map that free() frees, or -ENOMEM. Linear. */
int profile_map_new(struct profile_map **ret, const struct insn *insns, uint32_t n_insns);
uint32_t profile_n_words(const struct insn *insns, uint32_t n_insns);	/* the map's, without making it */

/* What was counted at one site */
#define PROFILE_NO_METHOD UINT32_MAX
struct profile_count {
	uint32_t pc, kind;
	uint32_t n;		/* times that it was executed; ENTRY: calls */
	uint32_t m;		/* BRANCH: times taken, at most n; CALLX: votes, at most n; else 0 */
	uint32_t method;	/* CALLX: index of the target; PROFILE_NO_METHOD: no method of the module, or unknown */
	uint32_t reserved;
};

/* Reads the words of a map once each, as they are: @ret gets n_sites counts that keep the promises above. @method_of says
 * which method has that address, or PROFILE_NO_METHOD. Returns false when nothing was counted. */
bool profile_read(const struct profile_map *map, const uint32_t *words, uint32_t (*method_of)(void *context, uint64_t address),
		  void *context, struct profile_count *ret);
