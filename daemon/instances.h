/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Instantiations of modules: found again, or built beside what they are made of
 *
 *   server's request ──► values checked, named ──► task thread (lay out, fill, place) ──► core
 *
 * An instantiation is a module of its own, of the uid that asked: its span, records, counts, tiers and code, charged to
 * that uid. Of the module that it was made of (its base) it uses the image, whose .rodata alone it has a copy of, and
 * in clients the memory of .data and .bss. So the base stays as long as it has any.
 *
 * It is found by its name, but whether it is the one is decided by base and values: where another one has that name, or
 * the name were too long, it is called after a hash. */

#include <stdint.h>
#include <sys/types.h>
#include "loading.h"
#include "server/server.h"
#include "util/list.h"

struct instances {
	struct loading *loading;
	struct list under_way;
};

void instances_init(struct instances *instances, struct loading *loading);
/* Ends what is under way with CANCELED; the checker is gone already. */
void instances_stop(struct instances *instances);

/* As struct server_ops.find_instance, .instantiate and .cancel_load: what is no instantiation is not known here. */
enum tier_error instances_find(struct instances *instances, struct module *base, uid_t uid,
			       const struct wire_instantiate *values, struct module **ret, char name[WIRE_NAME_MAX],
			       char text[WIRE_TEXT_MAX]);
int instances_start(struct instances *instances, struct module *base, uid_t uid, const struct wire_instantiate *values,
		    struct server_load *load);
void instances_cancel(struct instances *instances, const struct server_load *load);
