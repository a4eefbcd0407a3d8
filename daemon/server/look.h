/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Looking into a method: DESCRIBE, HISTORY, RELATED, BYTECODE, LINES */

#include "server/request.h"

int look_describe(struct lane *lane, const struct request *request);
int look_history(struct lane *lane, const struct request *request);
int look_related(struct lane *lane, const struct request *request);
int look_bytecode(struct lane *lane, const struct request *request);
int look_lines(struct lane *lane, const struct request *request);
