/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Loads: from a sealed memfd to a module with a name
 *
 * The name is taken from the request on, so that of two loads under way only one can have it. A load ends with the connection
 * that asked for it: a worker's time is for those who wait. */

#include <stdbool.h>
#include "server/request.h"

struct server_load;

int load_request(struct lane *lane, const struct request *request);
int load_precompile(struct lane *lane, const struct request *request);
/* For rejit.c: the parts of it. An object of *ret_n bytes that nobody can change: 0, or 1: an error was sent. */
int load_check_object(struct lane *lane, uint64_t serial, int fd, uint64_t *ret_n);
struct server_load *load_new(struct lane *lane, const struct request *request, const char *name, uint64_t n);	/* NULL: the same */
/* For instantiate.c: may the uid have one more module? */
bool load_has_room(const struct lane *lane);
/* What the operation that was to begin it returned: it is under way, or refused and freed. Always 0. */
int load_begun(struct server_load *load, int r);
void load_free(struct server_load *load);
void load_forget_lane(struct lane *lane);	/* its loads are canceled */
void load_free_all(struct server *server);
bool load_name_is_sound(const char *name);
