/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whom a method of a hosted module can have called: struct server_ops.called. @host: struct host. */

#include <stdint.h>

uint32_t settling_called(void *host, uint32_t method, uint64_t *from, uint32_t *ret, uint32_t n_max);
