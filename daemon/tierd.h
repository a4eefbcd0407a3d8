/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon: owns every subsystem and wires them together. The only place where siblings meet. */

#include "options.h"

struct tierd;

/* Builds everything up to the listening socket. 0, or -errno after the sentence went to the log. @options is borrowed. */
int tierd_new(struct tierd **ret, const struct options *options);
struct tierd *tierd_free(struct tierd *tierd);

/* Serves until SIGTERM or SIGINT: 0; -errno when something fatal happened. */
int tierd_run(struct tierd *tierd);
