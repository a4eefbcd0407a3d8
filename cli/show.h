/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* `tierctl show`: what is known of one method, gathered whole before anything is printed
 *
 *   cmd_show.c     gathers; prints the method and its versions
 *   show_code.c    prints its instructions, BPF's and the machine's */

#include <stdbool.h>
#include <tier/tier.h>
#include <tier/wire.h>
#include "ctl.h"

struct names {
	char **all;
	unsigned int n;
};

struct show_version {
	struct wire_version_row row;
	struct names inlined;
};

struct show {
	struct ctl *ctl;
	struct target target;
	struct wire_description description;
	struct tier_answer answer;
	struct names related[_WIRE_RELATION_N];	/* but INLINED */
	struct show_version *versions;		/* newest first */
	unsigned int n_versions;
	uint64_t *insns;			/* description.n_insns of them */
	struct tier_line *lines;
	unsigned int n_lines;
};

/* The version that calls reach, or NULL. */
const struct show_version *show_active(const struct show *show);

void show_bytecode(const struct show *show);	/* both: text, or the member of a JSON object without a comma */
/* False: the sentence was printed. Nothing else was, if there is no disassembler: ask native_is_there() first. */
bool show_native(const struct show *show);
