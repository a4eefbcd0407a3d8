/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Protobuf messages of bounded size, written from the inside out: a message that is complete becomes a field of another. */

#include <stdint.h>
#include <string.h>

#define PROTO_MAX 1024u		/* what does not fit is left out */

struct proto {
	unsigned char bytes[PROTO_MAX];
	size_t n;
};

static inline size_t proto_varint(unsigned char *to, uint64_t value)
{
	size_t n = 0;

	do
		to[n++] = (value & 0x7f) | (value > 0x7f ? 0x80 : 0);
	while (value >>= 7);
	return n;
}

static inline void proto_number(struct proto *proto, unsigned int field, uint64_t value)
{
	if (proto->n + 20 > PROTO_MAX)
		return;
	proto->n += proto_varint(proto->bytes + proto->n, field << 3);
	proto->n += proto_varint(proto->bytes + proto->n, value);
}

static inline void proto_bytes(struct proto *proto, unsigned int field, const void *p, size_t n)
{
	if (proto->n + 20 + n > PROTO_MAX)
		return;
	proto->n += proto_varint(proto->bytes + proto->n, field << 3 | 2);
	proto->n += proto_varint(proto->bytes + proto->n, n);
	memcpy(proto->bytes + proto->n, p, n);
	proto->n += n;
}

static inline void proto_text(struct proto *proto, unsigned int field, const char *text)
{
	proto_bytes(proto, field, text, strlen(text));
}

static inline void proto_message(struct proto *proto, unsigned int field, const struct proto *message)
{
	proto_bytes(proto, field, message->bytes, message->n);
}
