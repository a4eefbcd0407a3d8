/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Short names for the way through a manager
 *
 * A manager passes all names in one variable, LISTEN_FDNAMES, and the kernel refuses to start a program with a variable
 * of more than 128 KiB: too many names, and no successor could ever be started. A module has five descriptors, so theirs
 * are sent short:
 *
 *	m4711.code  C1Dz		letters for the segments, module and body in digits of base 62
 *	m4711.b12   B1Dz.C
 *	ledger.3    ledger.3		anything else as it is */

#include <stdbool.h>
#include <stddef.h>
#include "store/store.h"

#define NAMES_BYTES_MAX (128u * 1024 - sizeof("LISTEN_FDNAMES=")) /* each name, and a colon or the zero behind it */

bool name_is_valid(const char *name); /* a lower-case letter, then letters, digits, '.', '-'; room for its zero in
                                         STORE_NAME_MAX */
/* A valid name never gets longer. */
void name_shorten(const char *name, char ret[static STORE_NAME_MAX]);
/* The other way; of a short name that nobody can have sent, itself, cut off at STORE_NAME_MAX. */
void name_expand(const char *sent, char ret[static STORE_NAME_MAX]);
