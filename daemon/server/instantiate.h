/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Instantiations: a loaded module with other constants, as a module of who asked
 *
 * Equal values give the same one. What is not there yet is made like a load, and counts as one; until it ends it holds
 * the module that it is made of. */

#include "server/request.h"

int instantiate_request(struct lane *lane, const struct request *request);
