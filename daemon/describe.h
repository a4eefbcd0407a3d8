/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a hosted module tells about its methods: the server's questions (struct server_ops), answered from the image, or, for
 * a method whose body was replaced, from the body; only source lines of those are not kept. Each
 * fills one page, in bounded time. @host: struct host; the method exists; *ret is zeroes. */

#include <stdint.h>
#include "tier/wire.h"

void describe_method(void *host, uint32_t method, struct wire_description *ret);
void describe_related(void *host, uint32_t method, enum wire_relation relation, uint64_t from, struct wire_names *ret);
void describe_insns(void *host, uint32_t method, uint64_t from, struct wire_insns *ret);
void describe_lines(void *host, uint32_t method, uint64_t from, struct wire_source *ret);
