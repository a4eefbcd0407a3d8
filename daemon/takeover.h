/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Taking over what a predecessor left: in the order of ids, each module that the ledger names gets its host again, is charged to its
 * uid, and attached. One whose descriptors are missing or wrong is told of, and removed. */

#include <stdint.h>

struct tierd;

struct takeover {
	uint64_t ns;		/* from this daemon's start until it served; 0: there was none */
	uint32_t n_modules, n_lost;
	uint64_t n_methods;
};

/* Once the core has recovered the ledger, before anybody is served. -errno: there is no memory, or no descriptor, for all of them; the
 * daemon cannot start then, and all is left for the next one. */
int takeover_modules(struct tierd *tierd);
