/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ledger's memory: a memfd, `ledger.N` in the store. A program whose records are larger than its predecessor's makes of ledger.N
 * a ledger.N+1. That is put when it is whole, and ledger.N removed afterwards; so of several the highest counts. */

#include <stdbool.h>
#include <sys/mman.h>
#include "store/store.h"

struct ledger_file {
	void *memory;		/* MAP_FAILED: none */
	bool is_inherited;	/* it is a predecessor's */
};
#define LEDGER_FILE_NULL { .memory = MAP_FAILED }

/* 0; -EBADMSG after a sentence in the log: what a predecessor left is not for this program, and all of it stays as it was; -errno. */
int ledger_file_open(struct ledger_file *file, struct store *store);
void ledger_file_close(struct ledger_file *file);	/* also LEDGER_FILE_NULL */
