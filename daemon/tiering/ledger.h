/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ledger: all durable state of the core (DESIGN §6.3)
 *
 * Fixed-size records in one block of memory that outlives the daemon (a memfd; here just memory). Changes go through
 * transactions: new images of records are collected in a redo area, one store commits them, then they are applied. A
 * daemon that dies at any instruction leaves either the old state or a committed redo area, which the successor
 * applies again; every record is copied whole, so applying twice is harmless.
 *
 *   header | redo area | modules[] | methods[] | versions[] | edges[]
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tier/events.h"
#include "tier/records.h"

size_t ledger_size(void);	/* bytes; sparse, mostly never touched */

/* The rest of this header belongs to tiering/: records, transactions, recovery. */
