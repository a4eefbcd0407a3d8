/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Loads: from a sealed memfd to a module with a name
 *
 * The name is taken from the request on, so that of two loads under way only one can have it. A load ends with the connection
 * that asked for it: a worker's time is for those who wait. */

#include <stdbool.h>
#include "server/request.h"

int load_request(struct lane *lane, const struct request *request);
void load_forget_lane(struct lane *lane);	/* its loads are canceled */
void load_free_all(struct server *server);
bool load_name_is_sound(const char *name);
