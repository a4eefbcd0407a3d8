/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon: owns every subsystem and wires them together. The only place where siblings meet. */

#include "options.h"
#include "store/store.h"

struct tierd;

/* Builds everything up to the listening socket. 0, or -errno after the sentence went to the log. @options is borrowed;
 * @store is taken in any case. */
int tierd_new(struct tierd **ret, const struct options *options, struct store *store);
/* Ends all modules; with a store that is kept, leaves everything as it is to a successor: then only exit is left. */
struct tierd *tierd_free(struct tierd *tierd);

/* Serves until SIGTERM or SIGINT: 0; -errno when something fatal happened. */
int tierd_run(struct tierd *tierd);
