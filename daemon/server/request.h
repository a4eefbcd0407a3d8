/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A request: a datagram that keeps the format
 *
 * What the format demands of each type stands in a table (request.c): handlers see only bodies of the right size, with
 * terminated strings, known flags, and the descriptors that belong there. */

#include <stdbool.h>
#include "server/lane.h"

struct request {
	unsigned int type;		/* a request type of enum wire_type */
	uint64_t serial;
	const void *body;		/* in the datagram */
	int fd;				/* borrowed from the datagram; -1 */
};

struct refused {
	enum tier_error error;		/* PROTOCOL or VERSION */
	uint64_t serial;		/* 0 when not even a header came */
	char text[WIRE_TEXT_MAX];
};

/* False: *refused says what is wrong. */
bool request_decode(const struct datagram *datagram, struct request *ret, struct refused *refused);
/* Calls the handler of the request's type: 0 or LANE_E_END. */
int request_handle(struct lane *lane, const struct request *request);
