/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The catalog: which modules, methods and imports there are. Long lists go in batches, each with its own cursor. */

#include "server/request.h"

int catalog_list(struct lane *lane, const struct request *request);
int catalog_methods(struct lane *lane, const struct request *request);
int catalog_imports(struct lane *lane, const struct request *request);
int catalog_find(struct lane *lane, const struct request *request);
