/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "server/lane.h"
#include "server/load.h"
#include "server/request.h"
#include "server/session.h"
#include "server/slots.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"
#include "util/log.h"

#define LANE_COMPLAINT_NS 1000000000u

void lane_init(struct lane *lane, struct server *server, uid_t uid, pid_t pid,
	       const struct lane_ops *ops)
{
	*lane = (struct lane){ .server = server, .uid = uid, .pid = pid, .ops = ops };
	list_init(&lane->link);
	list_init(&lane->waits);
	list_init(&lane->loads);
	list_init(&lane->watches);
	list_init(&lane->marked);
	list_init(&lane->told);
	list_init(&lane->slot_link);
}

void lane_deinit(struct lane *lane)
{
	wait_end_lane(lane);
	load_forget_lane(lane);
	slots_end_lane(lane);
	session_leave(lane);
}

/* -- In --- */
void lane_drop_fds(struct lane *lane, struct datagram *datagram)
{
	while (datagram->n_fds)
		closing_take(lane->server, lane->uid, datagram->fds[--datagram->n_fds]);
}

/* Descriptors that the daemon had no room for are not the client's fault. */
static bool datagram_lost_fds(const struct datagram *datagram)
{
	return datagram->is_control_truncated && !datagram->n_fds;
}

static int lane_answer(struct lane *lane, struct datagram *datagram)
{
	struct request request;
	struct refused refused;

	if (!request_decode(datagram, &request, &refused)) {
		if (refused.error == TIER_ERROR_PROTOCOL)
			return lane_break(lane, refused.serial, refused.text);
		lane_error(lane, refused.serial, refused.error, "%s", refused.text);
		return LANE_E_END;
	}
	if (datagram_lost_fds(datagram))
		return lane_error(lane, request.serial, TIER_ERROR_NO_MEMORY, "the daemon is out of descriptors");
	if (!lane->session && request.type != WIRE_HELLO)
		return lane_break(lane, request.serial, "the first request on a connection must be HELLO");
	return request_handle(lane, &request);
}

/* Only who brings descriptors is told that there are too many: the user's other connections did nothing. */
int lane_feed(struct lane *lane, struct datagram *datagram)
{
	const bool brought_fds = datagram->n_fds;
	int r;

	lane->server->n_requests++;
	r = lane_answer(lane, datagram);
	lane_drop_fds(lane, datagram);
	if (r != LANE_E_END && brought_fds && !closing_admits(lane->server, lane->uid))
		return lane_break(lane, 0, "this user sent too many descriptors that are not closed yet");
	return r;
}

/* -- Out --- */
#define LANE_BODY_MEMBER(name, number, type) type name;
union lane_body {
	WIRE_REPLY_LIST(LANE_BODY_MEMBER)
};

void lane_reply_fds(struct lane *lane, uint64_t serial, unsigned int type, const void *body, const int *fds, unsigned int n_fds)
{
	struct {
		struct wire_header header;
		unsigned char body[sizeof(union lane_body)];
	} message;
	uint32_t n = wire_body_size(type);

	message.header = (struct wire_header){ .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type,
					       .size = sizeof(message.header) + n, .n_fds = n_fds, .serial = serial };
	memcpy(message.body, body, n);
	lane->ops->emit(lane, &message, sizeof(message.header) + n, fds, n_fds);
}

void lane_reply(struct lane *lane, uint64_t serial, unsigned int type, const void *body)
{
	lane_reply_fds(lane, serial, type, body, NULL, 0);
}

void lane_done(struct lane *lane, uint64_t serial)
{
	lane_reply(lane, serial, WIRE_DONE, &(struct wire_empty){});
}

int lane_error(struct lane *lane, uint64_t serial, enum tier_error error, const char *format, ...)
{
	struct wire_error body = { .error = error };
	va_list args;

	va_start(args, format);
	if (format)
		vsnprintf(body.text, sizeof(body.text), format, args);
	else
		strncpy(body.text, tier_error_name(error), sizeof(body.text) - 1);
	va_end(args);
	lane_reply(lane, serial, WIRE_ERROR, &body);
	return 0;
}

int lane_error_numbers(struct lane *lane, uint64_t serial, enum tier_error error, uint64_t first, uint64_t last)
{
	struct wire_error body = { .error = error, .first = first, .last = last };

	strncpy(body.text, tier_error_name(error), sizeof(body.text) - 1);
	lane_reply(lane, serial, WIRE_ERROR, &body);
	return 0;
}

void lane_complain(struct lane *lane, const char *text)
{
	struct server *server = lane->server;
	uint64_t now = clock_now_ns();

	server->n_disconnected++;
	if (server->complained_ns && now - server->complained_ns < LANE_COMPLAINT_NS)
		return;
	server->complained_ns = now;
	log_line(LOG_WARNING, "disconnected a client (pid %d, uid %u, %llu so far): %s", lane->pid, lane->uid,
		 (unsigned long long)server->n_disconnected, text);
}

void lane_shut(struct lane *lane, const char *text)
{
	if (lane->is_shut)
		return;
	lane->is_shut = true;
	lane_complain(lane, text);
	lane->ops->shut(lane);
}

int lane_break(struct lane *lane, uint64_t serial, const char *text)
{
	lane_complain(lane, text);
	lane_error(lane, serial, TIER_ERROR_PROTOCOL, "%s", text);
	return LANE_E_END;
}
