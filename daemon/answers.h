/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon as the server sees it */

#include "server/server.h"

struct tierd;

extern const struct server_ops answers;	/* their context: struct tierd */

/* A module goes, with all that is under way for it. */
void answers_release(struct tierd *tierd, struct module *module);
