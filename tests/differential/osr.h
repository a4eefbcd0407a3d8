/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Runs that begin in the reference interpreter and go on, at the head of some loop, in optimized code
 *
 * Registers that are not live at the head hold rubbish on the way in. The activations around the one that left go on in the
 * interpreter, and may leave it as well. */

#include <stdbool.h>
#include <stdint.h>
#include "tiers/tiers.h"

struct osr_entry {
	uint32_t method, pc;
	uint16_t live;
	uint64_t code;
	uint64_t n_arrivals;		/* in this run */
};

struct osr {
	struct tiers *tiers;
	struct osr_entry *entries;	/* of all heads of all methods */
	uint32_t n_entries, n_entered;	/* n_entered: times that some code was entered in this run */
	uint32_t *numbers;		/* per instruction of the image: number of the entry there, from 1 */
	/* Whether to leave the interpreter at this arrival */
	bool (*enters)(struct osr *osr, const struct osr_entry *entry);
	void *userdata;			/* for enters() */
	const char *fault;		/* what the code did wrong */
};

/* Compiles an entry for every head of what @tiers has loaded. osr_deinit() in any case */
bool osr_init(struct osr *osr, struct tiers *tiers, bool inlines, struct refusal *refusal);
void osr_deinit(struct osr *osr);

/* Runs @method as tiers_interpret() does, and leaves where osr->enters says. */
const char *osr_run(struct osr *osr, uint32_t method, const uint64_t args[5], uint64_t *ret);
