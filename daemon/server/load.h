/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Loads: from a sealed memfd to a module with a name
 *
 * The name is taken from the request on, so that of two loads under way only one can have it. A load outlives the client
 * that asked for it: the module stays if its name was asked for. */

#include <stdbool.h>
#include "server/request.h"

int load_request(struct lane *lane, const struct request *request);
void load_forget_lane(struct lane *lane);	/* nobody is there to be told */
void load_free_all(struct server *server);
bool load_name_is_sound(const char *name);
