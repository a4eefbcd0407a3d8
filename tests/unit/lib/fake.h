/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A fake daemon for libtier's tests
 *
 * A thread that speaks the protocol (tier/wire.h) about the modules of arena.h. What it is told to do wrong it does wrong
 * ("twists"); it stops the test when libtier sends what the daemon would refuse. */

#include "arena.h"

/* -- Answers --- */
static inline void fake_send(struct fake_conn *conn, uint64_t serial, unsigned int type, const void *body, const int *fds,
			     unsigned int n_fds)
{
	struct wire_header header = { WIRE_MAGIC, WIRE_VERSION, type, sizeof(header) + wire_body_size(type), n_fds, serial };
	struct iovec parts[2] = { { &header, sizeof(header) }, { (void *)body, wire_body_size(type) } };
	union { char bytes[CMSG_SPACE(4 * sizeof(int))]; struct cmsghdr align; } control = { .bytes = { 0 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };

	if (n_fds) {
		control.align = (struct cmsghdr){ CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

static inline void fake_error(struct fake_conn *conn, uint64_t serial, enum tier_error error, const char *text)
{
	struct wire_error body = { .error = error };

	snprintf(body.text, sizeof(body.text), "%s", text);
	fake_send(conn, serial, WIRE_ERROR, &body, NULL, 0);
}

static inline void fake_done(struct fake_conn *conn, uint64_t serial)
{
	fake_send(conn, serial, WIRE_DONE, &(struct wire_empty){ 0 }, NULL, 0);
}

static inline int fake_module_of(struct fake *fake, const struct wire_module_ref *ref)
{
	for (unsigned int i = 0; i < FAKE_MODULES; i++)
		if (!fake->is_gone[i]
		    && (ref->module ? ref->module == fake->modules[i].info.module
				    : !fake->is_unnamed[i] && strcmp(ref->name, fake->modules[i].info.name) == 0))
			return i;
	return -1;
}

static inline void fake_hello(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_hello *hello)
{
	struct wire_welcome welcome = { .daemon = "fake" };
	uint32_t i = fake->n_sessions;

	if (hello->session[0])
		for (i = 0; i < fake->n_sessions
			    && !(fake->sessions[i].n_lanes && fake->sessions[i].token[0] == hello->session[0]); i++)
			;
	else
		fake->sessions[fake->n_sessions++] = (struct fake_session){ .token = { 1000 + i, 7 }, .nonce = 5000 + i };
	if (i == fake->n_sessions) {
		fake_error(conn, serial, TIER_ERROR_DENIED, "no such session");
		return;
	}
	if (fake->sessions[i].n_lanes++ == 0)
		__atomic_fetch_add(&fake->n_live, 1, __ATOMIC_RELEASE);
	conn->session = i + 1;
	conn->lane = hello->lane;
	memcpy(welcome.session, fake->sessions[i].token, sizeof(welcome.session));
	welcome.number = i + 1;
	welcome.nonce = fake->sessions[i].nonce;
	fake_send(conn, serial, WIRE_WELCOME, &welcome, &fake->probe_fd, !fake->has_no_page);
}

static inline void fake_probed(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_probed *probed)
{
	const bool is_seen = probed->mapped && fake->hits[TIER_PROBE_HELLO].a == fake->sessions[conn->session - 1].nonce;
	struct wire_path path = { .path = fake->is_kernel && is_seen };

	path.sites = path.path ? 1u << TIER_PROBE_THRESHOLD | 1u << TIER_PROBE_HELLO | fake->more_sites : 0;
	snprintf(path.why, sizeof(path.why), "%s", !probed->mapped ? "not mapped" : !is_seen ? "not seen" : "seen");
	fake_send(conn, serial, WIRE_PATH, &path, NULL, 0);
}

static inline void fake_attach(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_attach *attach,
			       enum twist twist)
{
	int i = fake_module_of(fake, &attach->ref), fds[4], other = -1, ends[2] = { -1, -1 };
	struct wire_module info;
	unsigned int n = attach->flags & WIRE_ATTACH_HOLD_ONLY ? 0 : 4;

	if (i < 0) {
		fake_error(conn, serial, TIER_ERROR_NO_MODULE, "no such module here");
		return;
	}
	fake->sessions[conn->session - 1].n_held[i]++;
	info = fake->modules[i].info;
	memcpy(fds, fake->modules[i].fds, sizeof(fds));
	if (twist == TWIST_FEW_FDS)
		n = 3;
	if (twist == TWIST_SMALL_FILE)
		fds[2] = other = memfd_create("small", MFD_CLOEXEC);
	if (twist == TWIST_PIPE && pipe2(ends, O_CLOEXEC) == 0)
		fds[1] = ends[0];
	if (twist == TWIST_LAYOUT)
		info.layout.segment[1].offset = 0;
	if (twist == TWIST_PATCHPOINTS)
		info.layout.patchpoints = info.layout.segment[TIER_SEGMENT_RECORDS].offset + TIER_RECORDS_OFFSET;
	if (twist == TWIST_HITS)
		info.layout.hits = info.layout.visits;
	if (twist == TWIST_OTHER_RECORDS)
		fds[1] = fake->modules[(i + 1) % FAKE_MODULES].fds[1];
	fake_send(conn, serial, WIRE_MODULE, &info, fds, n);
	close(other);
	close(ends[0]);
	close(ends[1]);
}

static inline void fake_names(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_cursor *cursor,
			      bool is_imports)
{
	struct fake_module *module = &fake->modules[cursor->module - 100];
	uint32_t n = is_imports ? module->info.layout.n_imports : module->info.layout.n_methods;
	struct wire_names names = { 0 };

	for (uint64_t i = cursor->cursor; i < n && names.n < WIRE_NAMES_MAX; i++) {
		struct wire_name_row *row = &names.rows[names.n++];

		row->index = i;
		row->flags = is_imports ? i == 1 : 1;	/* import 1 is weak */
		snprintf(row->name, sizeof(row->name), is_imports ? "host%u" : "method%u", (unsigned int)i);
		names.more = i + 1 < n;
	}
	fake_send(conn, serial, WIRE_NAMES, &names, NULL, 0);
}

static inline void fake_find(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_find *find)
{
	struct wire_method_ref ref = { .module = find->module };

	if (sscanf(find->method, "method%u", &ref.method) == 1
	    && ref.method < fake->modules[find->module - 100].info.layout.n_methods)
		fake_send(conn, serial, WIRE_FOUND, &ref, NULL, 0);
	else
		fake_error(conn, serial, TIER_ERROR_NO_METHOD, "no such method here");
}

/* Looks at the counter, as the daemon does before it answers. */
static inline void fake_status(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_method_ref *ref)
{
	struct fake_module *module = &fake->modules[ref->module - 100];
	struct tier_answer answer = tier_record_answer(fake_record(module, ref->method), fake_cell(module, 0), 1024);
	struct wire_answer body = { answer.generation, answer.status, answer.stage, answer.tier, answer.reason,
				    answer.remaining, answer.is_frozen };

	fake_send(conn, serial, WIRE_ANSWER, &body, NULL, 0);
	if (answer.stage == TIER_STAGE_REACHED && tier_state_stage(fake_record(module, ref->method)->state) == TIER_STAGE_COUNTING)
		fake_set_state(module, ref->method, TIER_STAGE_QUEUED, TIER_LEVEL_TIER0, 0);
}

static inline struct tier_records_header *fake_header(struct fake *fake)
{
	return (struct tier_records_header *)fake->modules[0].alias[TIER_SEGMENT_RECORDS];
}

static inline void fake_settled(struct fake *fake, struct fake_conn *conn, uint64_t serial, enum twist twist)
{
	struct fake_module *module = &fake->modules[0];
	struct wire_settlement body = { .progress = 1 };

	for (uint32_t i = 0; i < module->info.layout.n_methods; i++) {
		struct tier_answer answer = tier_record_answer(fake_record(module, i), fake_cell(module, 0), 1024);

		if (!(fake->closure >> i & 1) || answer.status == TIER_STATUS_COLD)
			continue;
		body.n_methods++;
		body.progress = body.progress * 1000003 + answer.generation * 64 + answer.remaining;
		if (answer.status == TIER_STATUS_FINAL)
			continue;
		body.unsettled[body.n++] = twist == TWIST_UNSETTLED ? module->info.layout.n_methods : i;
		body.n_unsettled++;
		body.n_pending += !answer.remaining;
		if (answer.stage == TIER_STAGE_COUNTING && answer.remaining > body.calls)
			body.calls = answer.remaining;
	}
	body.is_settled = !body.n_unsettled;
	fake_send(conn, serial, WIRE_SETTLEMENT, &body, NULL, 0);
}

static inline void fake_knobs(struct fake_conn *conn, uint64_t serial, uint64_t cursor)
{
	struct wire_knobs page = { .n = 1, .more = cursor < 2 };

	snprintf(page.rows[0].name, sizeof(page.rows[0].name), "knob-%u", (unsigned int)cursor);
	memset(page.rows[0].value, 'v', sizeof(page.rows[0].value));	/* not terminated */
	fake_send(conn, serial, WIRE_SETTINGS, &page, NULL, 0);
}

static inline void fake_list(struct fake *fake, struct fake_conn *conn, uint64_t serial, uint64_t cursor)
{
	struct wire_modules page = { 0 };

	for (unsigned int i = 0; i < FAKE_MODULES; i++)
		if (fake->modules[i].info.module > cursor) {
			struct wire_module_row *row = &page.rows[0];

			row->module = fake->modules[i].info.module;
			row->n_methods = fake->modules[i].info.layout.n_methods;
			row->flags = i == 1 ? WIRE_MODULE_SHARED : 0;
			memcpy(row->name, fake->modules[i].info.name, sizeof(row->name));
			page.n = 1;
			page.more = i + 1 < FAKE_MODULES;
			break;
		}
	fake_send(conn, serial, WIRE_MODULES, &page, NULL, 0);
}

/* Answers an events request if it can be answered now. */
static inline void fake_feed(struct fake *fake, struct fake_conn *conn, bool at_once)
{
	struct wire_batch batch = { .next = conn->events_from };

	if (conn->events_from <= fake->n_forgotten) {
		struct wire_error error = { .error = TIER_ERROR_GAP, .first = conn->events_from, .last = fake->n_forgotten };

		fake_send(conn, conn->events_serial, WIRE_ERROR, &error, NULL, 0);
		conn->events_serial = 0;
		return;
	}
	if (batch.next <= fake->n_hidden) {	/* others' events; it passes over two at a time, and then stops to think */
		if (!at_once)
			return;
		batch.next += batch.next < fake->n_hidden ? 2 : 1;
		fake_send(conn, conn->events_serial, WIRE_BATCH, &batch, NULL, 0);
		conn->events_serial = 0;
		return;
	}
	while (batch.next <= fake->n_events && batch.n < WIRE_BATCH_MAX)
		batch.events[batch.n++] = fake->events[batch.next++ - 1];
	if (!batch.n && !at_once)
		return;
	fake_send(conn, conn->events_serial, WIRE_BATCH, &batch, NULL, 0);
	conn->events_serial = 0;
}

static inline void fake_take_object(struct fake *fake, int fd)
{
	fake->n_object = pread(fd, fake->object, sizeof(fake->object), 0);
	fake->object_seals = fcntl(fd, F_GET_SEALS);
}

static inline void fake_load_object(struct fake *fake, struct fake_conn *conn, uint64_t serial, const struct wire_load *load,
				    int fd)
{
	struct wire_module_ref ref = { 0 };

	fake->load = *load;
	fake_take_object(fake, fd);
	memcpy(ref.name, load->name, sizeof(ref.name));
	int i = fake_module_of(fake, &ref);
	if (i < 0) {
		fake_error(conn, serial, TIER_ERROR_BAD_MODULE, "section '.text': not a module, offset 16");
		return;
	}
	ref.module = fake->modules[i].info.module;
	fake_send(conn, serial, WIRE_LOADED, &ref, NULL, 0);
}

/* What came, with a word more */
static inline void fake_precompile(struct fake *fake, struct fake_conn *conn, uint64_t serial, int fd)
{
	int object = memfd_create("fake", MFD_CLOEXEC);
	struct wire_object body;

	fake_take_object(fake, fd);
	body.size = fake->n_object + 5;
	(void)!pwrite(object, fake->object, fake->n_object, 0);
	(void)!pwrite(object, "+code", 5, fake->n_object);
	fake_send(conn, serial, WIRE_OBJECT, &body, &object, 1);
	close(object);
}

/* What tests put there; RELATED to FILES always has one, "file.c" of the index that was asked for. */
static inline void fake_look(struct fake *fake, struct fake_conn *conn, const struct wire_header *header,
			     const struct wire_look *look)
{
	const struct fake_looks *page = &fake->looks[!!look->cursor];
	struct wire_names files = { .n = 1, .rows = { { .index = look->cursor, .name = "file.c" } } };

	switch ((enum wire_type)header->type) {
	case WIRE_HISTORY: fake_send(conn, header->serial, WIRE_VERSIONS, &page->versions, NULL, 0); break;
	case WIRE_BYTECODE: fake_send(conn, header->serial, WIRE_INSNS, &page->insns, NULL, 0); break;
	case WIRE_LINES: fake_send(conn, header->serial, WIRE_SOURCE, &page->source, NULL, 0); break;
	default:
		fake_send(conn, header->serial, WIRE_NAMES, look->relation == WIRE_RELATION_FILES ? &files : &page->names, NULL, 0);
	}
}

static inline void fake_answer(struct fake *fake, struct fake_conn *conn, const struct wire_header *header, const void *body,
			       int fd, enum twist twist)
{
	const struct wire_method_ref *method = body;
	const struct wire_events_from *from = body;
	int i;

	switch ((enum wire_type)header->type) {
	case WIRE_HELLO: fake_hello(fake, conn, header->serial, body); break;
	case WIRE_PROBED: fake_probed(fake, conn, header->serial, body); break;
	case WIRE_LOAD: fake_load_object(fake, conn, header->serial, body, fd); break;
	case WIRE_UNLOAD: fake_done(conn, header->serial); break;
	case WIRE_PRECOMPILE: fake_precompile(fake, conn, header->serial, fd); break;
	case WIRE_ATTACH: fake_attach(fake, conn, header->serial, body, twist); break;
	case WIRE_DETACH:
		i = fake_module_of(fake, body);
		fake->sessions[conn->session - 1].n_held[i]--;
		fake_done(conn, header->serial);
		break;
	case WIRE_LIST: fake_list(fake, conn, header->serial, ((const struct wire_cursor *)body)->cursor); break;
	case WIRE_METHODS: fake_names(fake, conn, header->serial, body, false); break;
	case WIRE_IMPORTS: fake_names(fake, conn, header->serial, body, true); break;
	case WIRE_FIND: fake_find(fake, conn, header->serial, body); break;
	case WIRE_PREPARE:
		if (!fake_record(&fake->modules[method->module - 100], method->method)->code)
			fake_publish(&fake->modules[method->module - 100], method->method, TIER_STAGE_COUNTING);
		fake_done(conn, header->serial);
		break;
	case WIRE_STATUS: fake_status(fake, conn, header->serial, body); break;
	case WIRE_PENDING:
		fake_send(conn, header->serial, WIRE_COUNT, &(struct wire_count){ fake->pending }, NULL, 0);
		break;
	case WIRE_STATS:
		fake_send(conn, header->serial, WIRE_STATISTICS, &(struct wire_stats){ .daemon = "fake", .threshold = 5 }, NULL, 0);
		break;
	case WIRE_CLIENTS:
		fake_send(conn, header->serial, WIRE_SESSIONS,
			  &(struct wire_sessions){ .n = 1, .rows = { { .number = 1, .program = "someone" } } }, NULL, 0);
		break;
	case WIRE_EVENTS:
		conn->events_serial = header->serial;
		conn->events_from = from->from ? from->from : fake->n_events + 1;
		fake_feed(fake, conn, !from->timeout_ns);
		break;
	case WIRE_CANCEL:
		if (conn->events_serial && conn->events_serial == ((const struct wire_cancel *)body)->serial) {
			fake_error(conn, conn->events_serial, TIER_ERROR_CANCELED, "canceled");
			conn->events_serial = 0;
		}
		fake_done(conn, header->serial);
		break;
	case WIRE_DESCRIBE: {
		struct wire_description description = { .n_insns = 7 };

		memset(description.signature, 'x', sizeof(description.signature));	/* not terminated */
		fake_send(conn, header->serial, WIRE_DESCRIPTION, &description, NULL, 0);
		break;
	}
	case WIRE_HISTORY: case WIRE_RELATED: case WIRE_BYTECODE: case WIRE_LINES: fake_look(fake, conn, header, body); break;
	case WIRE_FREEZE: case WIRE_THAW:
		fake->n_freezes += header->type == WIRE_FREEZE ? 1 : -1;
		fake_header(fake)->is_frozen = fake->n_freezes > 0;
		fake_done(conn, header->serial);
		break;
	case WIRE_SETTLED: fake_settled(fake, conn, header->serial, twist); break;
	case WIRE_KNOBS: fake_knobs(conn, header->serial, ((const struct wire_cursor *)body)->cursor); break;
	case WIRE_THRESHOLD:
		fake->bell = *(const struct wire_bell *)body;
		if (fake->is_promoting)
			fake_publish(&fake->modules[fake->bell.module - 100], fake->bell.method, TIER_STAGE_FINAL);
		__atomic_fetch_add(&fake->n_bells, 1, __ATOMIC_RELEASE);
		break;
	case WIRE_REJIT:
		fake->rejit = *(const struct wire_rejit *)body;
		fake_take_object(fake, fd);
		fake_done(conn, header->serial);
		break;
	case WIRE_REVERT: fake_done(conn, header->serial); break;
	case WIRE_INSTANTIATE:
		fake->instantiate = *(const struct wire_instantiate *)body;
		fake_send(conn, header->serial, WIRE_LOADED, &(struct wire_module_ref){ .module = fake->modules[1].info.module },
			  NULL, 0);
		break;
	case WIRE_OSR:
		fake->osr = *(const struct wire_osr *)body;
		__atomic_fetch_add(&fake->n_osr, 1, __ATOMIC_RELEASE);
		break;
	case WIRE_SLOT_USED: fake->slot = *(const struct wire_slot *)body; break;
	case WIRE_SLOT_WATCH:
		assert(conn->lane == WIRE_LANE_SLOTS);
		fake_done(conn, header->serial);
		break;
	case WIRE_SLOT_DONE:
		__atomic_store_n(&fake->ticket, ((const struct wire_slot_change *)body)->ticket, __ATOMIC_RELEASE);
		__atomic_fetch_add(&fake->n_slots_done, 1, __ATOMIC_RELEASE);
		break;
	case WIRE_COUNTERS:
		fake_send(conn, header->serial, WIRE_COUNTED, &(struct wire_counters){ .n_rejits = 9 }, NULL, 0);
		break;
	default: abort();
	}
}

/* -- Twists --- */
static inline void fake_hang_up(struct fake *fake, struct fake_conn *conn)
{
	if (conn->session && --fake->sessions[conn->session - 1].n_lanes == 0)
		__atomic_fetch_sub(&fake->n_live, 1, __ATOMIC_RELEASE);
	close(conn->fd);
	*conn = (struct fake_conn){ .fd = -1 };
}

/* The daemon dies, and its successor listens at once: every connection ends, and nobody knows the sessions. The lock is held. */
static inline void fake_die(struct fake *fake)
{
	for (uint32_t i = 0; i < fake->n_conns; i++)
		if (fake->conns[i].fd >= 0) {
			shutdown(fake->conns[i].fd, SHUT_RDWR);	/* its thread may be in poll() and hold it open */
			close(fake->conns[i].fd);
			fake->conns[i] = (struct fake_conn){ .fd = -1 };
		}
	for (uint32_t i = 0; i < fake->n_sessions; i++)
		fake->sessions[i].n_lanes = 0;
	__atomic_store_n(&fake->n_live, 0, __ATOMIC_RELEASE);
}

static inline void fake_twist(struct fake *fake, struct fake_conn *conn, const struct wire_header *header, const void *body,
			      int fd)
{
	struct wire_header wrong = { WIRE_MAGIC, WIRE_VERSION, WIRE_DONE, 32, 0, header->serial };
	char bytes[64] = { 0 };

	switch (fake->twist) {
	case TWIST_HOLD:
		conn->is_holding = true;
		conn->held = *header;
		conn->held_fd = fd >= 0 ? dup(fd) : -1;
		memcpy(conn->held_body, body, wire_body_size(header->type));
		__atomic_fetch_add(&fake->n_held, 1, __ATOMIC_RELEASE);
		return;
	case TWIST_SILENT: __atomic_fetch_add(&fake->n_held, 1, __ATOMIC_RELEASE); return;
	case TWIST_REFUSE: fake_error(conn, header->serial, TIER_ERROR_CODE_FULL, "no room for you"); return;
	case TWIST_QUOTA:
		__atomic_fetch_add(&fake->n_held, 1, __ATOMIC_RELEASE);
		fake_error(conn, header->serial, TIER_ERROR_QUOTA, "too many wait");
		return;
	case TWIST_LIE: fake_done(conn, header->serial); return;
	case TWIST_GARBAGE: memset(bytes, 0xa5, sizeof(bytes)); break;
	case TWIST_SHORT: memcpy(bytes, &wrong, sizeof(wrong)); send(conn->fd, bytes, 28, MSG_NOSIGNAL); return;
	case TWIST_LONG: memcpy(bytes, &wrong, sizeof(wrong)); send(conn->fd, bytes, 40, MSG_NOSIGNAL); return;
	case TWIST_TYPE: fake_send(conn, header->serial, WIRE_COUNT, &(struct wire_count){ 0 }, NULL, 0); return;
	case TWIST_FUTURE: fake_done(conn, header->serial + 1); return;
	case TWIST_VERSION:
		wrong.version = 2;
		memcpy(bytes, &wrong, sizeof(wrong));
		send(conn->fd, bytes, 32, MSG_NOSIGNAL);
		return;
	case TWIST_LAST_WORD:
		fake_error(conn, 0, TIER_ERROR_PROTOCOL, "you are not polite");
		fake_hang_up(fake, conn);
		return;
	case TWIST_HANGUP: fake_hang_up(fake, conn); return;
	case TWIST_DIE:
		fake->twist = TWIST_NONE;
		fake_die(fake);
		return;
	default: fake_answer(fake, conn, header, body, fd, fake->twist); return;
	}
	send(conn->fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
}

/* -- The thread --- */
static inline void fake_read(struct fake *fake, struct fake_conn *conn)
{
	struct { struct wire_header header; char body[2048]; } in;
	struct iovec part = { &in, sizeof(in) };
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(conn->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd = -1;

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		fake_hang_up(fake, conn);
		return;
	}
	if (CMSG_FIRSTHDR(&message))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	/* libtier must never send what the daemon would refuse */
	assert(in.header.magic == WIRE_MAGIC && in.header.size == (size_t)n && in.header.n_fds == (fd >= 0)
	       && in.header.size == sizeof(in.header) + wire_body_size(in.header.type));
	assert(conn->session || in.header.type == WIRE_HELLO);
	__atomic_fetch_add(&fake->n_requests[in.header.type], 1, __ATOMIC_RELEASE);
	if (fake->twist && in.header.type == fake->twist_type && (!fake->twist_session || fake->twist_session == conn->session)
	    && (!fake->twist_method || fake->twist_method == ((const struct wire_method_ref *)in.body)->method + 1))
		fake_twist(fake, conn, &in.header, in.body, fd);
	else
		fake_answer(fake, conn, &in.header, in.body, fd, TWIST_NONE);
	if (fd >= 0)
		close(fd);
}

static inline void fake_release(struct fake *fake, struct fake_conn *conn)
{
	conn->is_holding = false;
	fake_answer(fake, conn, &conn->held, conn->held_body, conn->held_fd, TWIST_NONE);
	if (conn->held_fd >= 0)
		close(conn->held_fd);
}

static inline void fake_accept(struct fake *fake)
{
	int fd = accept4(fake->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	uint32_t i = 0;

	while (i < fake->n_conns && fake->conns[i].fd >= 0)
		i++;
	assert(fd >= 0 && i < FAKE_CONNS);
	fake->conns[i] = (struct fake_conn){ .fd = fd };
	if (i == fake->n_conns)
		fake->n_conns++;
}

static inline void fake_turn(struct fake *fake, struct pollfd *polls, uint32_t n)
{
	pthread_mutex_lock(&fake->lock);
	for (uint32_t i = 0; i < n; i++) {
		struct fake_conn *conn = &fake->conns[i];

		if (conn->fd >= 0 && polls[i].revents)
			fake_read(fake, conn);
		if (conn->fd >= 0 && conn->is_holding && fake->twist == TWIST_NONE)
			fake_release(fake, conn);
		if (conn->fd >= 0 && conn->events_serial)
			fake_feed(fake, conn, false);
	}
	if (polls[n].revents)
		fake_accept(fake);
	pthread_mutex_unlock(&fake->lock);
}

static inline void *fake_main(void *context)
{
	struct fake *fake = context;
	struct pollfd polls[FAKE_CONNS + 2];
	uint64_t count;

	while (!__atomic_load_n(&fake->is_stopping, __ATOMIC_ACQUIRE)) {
		uint32_t n = fake->n_conns;

		for (uint32_t i = 0; i < n; i++)
			polls[i] = (struct pollfd){ .fd = fake->conns[i].fd, .events = POLLIN };
		polls[n] = (struct pollfd){ .fd = fake->listen_fd, .events = POLLIN };
		polls[n + 1] = (struct pollfd){ .fd = fake->wake_fd, .events = POLLIN };
		if (poll(polls, n + 2, -1) < 0)
			continue;
		if (polls[n + 1].revents && read(fake->wake_fd, &count, sizeof(count)) < 0)
			continue;
		fake_turn(fake, polls, n);
	}
	return NULL;
}

static inline void fake_wake(struct fake *fake)
{
	uint64_t one = 1;

	assert_int_equal(write(fake->wake_fd, &one, sizeof(one)), sizeof(one));
}

/* -- What tests say --- */
static inline void fake_set_twist(struct fake *fake, enum wire_type type, enum twist twist)
{
	pthread_mutex_lock(&fake->lock);
	fake->twist_type = type;
	fake->twist = twist;
	fake->n_held = 0;
	pthread_mutex_unlock(&fake->lock);
	fake_wake(fake);
}

static inline void fake_set_stage(struct fake *fake, uint32_t method, unsigned int stage)
{
	struct fake_module *module = &fake->modules[0];

	pthread_mutex_lock(&fake->lock);
	if (stage == TIER_STAGE_COUNTING || stage == TIER_STAGE_FINAL)
		fake_publish(module, method, stage);
	else
		fake_set_state(module, method, stage, TIER_LEVEL_TIER0, 0);
	pthread_mutex_unlock(&fake->lock);
}

/* Every process that keeps slots is told; returns how many lanes that is. */
static inline uint32_t fake_tell_slots(struct fake *fake, uint64_t module, uint32_t method, uint64_t ticket)
{
	const struct wire_slot_change change = { .module = module, .ticket = ticket, .method = method };
	uint32_t n = 0;

	pthread_mutex_lock(&fake->lock);
	for (uint32_t i = 0; i < fake->n_conns; i++)
		if (fake->conns[i].fd >= 0 && fake->conns[i].lane == WIRE_LANE_SLOTS) {
			fake_send(&fake->conns[i], 0, WIRE_SLOT_CHANGED, &change, NULL, 0);
			n++;
		}
	pthread_mutex_unlock(&fake->lock);
	return n;
}

/* Every process that keeps slots loses its lane for that. */
static inline void fake_hang_up_slots(struct fake *fake)
{
	pthread_mutex_lock(&fake->lock);
	for (uint32_t i = 0; i < fake->n_conns; i++)
		if (fake->conns[i].fd >= 0 && fake->conns[i].lane == WIRE_LANE_SLOTS)
			shutdown(fake->conns[i].fd, SHUT_RDWR);	/* the server's thread sees its end, too */
	pthread_mutex_unlock(&fake->lock);
}

static inline void fake_add_event(struct fake *fake)
{
	pthread_mutex_lock(&fake->lock);
	fake->n_events++;
	fake->events[fake->n_events - 1] = (struct tier_event){ .sequence = fake->n_events, .kind = TIER_EVENT_PUBLISHED };
	pthread_mutex_unlock(&fake->lock);
	fake_wake(fake);
}

/* It listens from then on. */
static inline void fake_start(struct fake *fake)
{
	sigset_t all, old;

	unlink(fake->address.sun_path);
	fake->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fake->listen_fd, (struct sockaddr *)&fake->address, sizeof(fake->address)), 0);
	assert_int_equal(listen(fake->listen_fd, 128), 0);
	fake->is_stopping = false;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	assert_int_equal(pthread_create(&fake->thread, NULL, fake_main, fake), 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static inline int fake_setup(void **state)
{
	struct fake *fake = mmap(NULL, sizeof(*fake), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(fake != MAP_FAILED);
	pthread_mutex_init(&fake->lock, NULL);
	snprintf(fake->folder, sizeof(fake->folder), "%.32s/tier-lib-XXXXXX", fake_temporary());
	assert_non_null(mkdtemp(fake->folder));
	fake->address.sun_family = AF_UNIX;
	snprintf(fake->address.sun_path, sizeof(fake->address.sun_path), "%s/fake.sock", fake->folder);
	fake->wake_fd = eventfd(0, EFD_CLOEXEC);
	fake_make_probes(fake, TIER_PROBE_VERSION);
	fake_make_module(fake, 0, "demo", 0x300000000000, 8, 2);
	fake_make_module(fake, 1, "other", 0x300010000000, 40, 2);
	fake_make_module(fake, 2, "wide", 0x300020000000, 8, 300);
	fake_start(fake);
	*state = fake;
	return 0;
}

/* The daemon dies: every connection ends. */
static inline void fake_stop(struct fake *fake)
{
	if (fake->is_stopping)
		return;
	__atomic_store_n(&fake->is_stopping, true, __ATOMIC_RELEASE);
	fake_wake(fake);
	pthread_join(fake->thread, NULL);
	fake_die(fake);
	close(fake->listen_fd);
}

static inline int fake_teardown(void **state)
{
	struct fake *fake = fake_of(state);

	fake_stop(fake);
	close(fake->wake_fd);
	close(fake->probe_fd);
	for (unsigned int i = 0; i < FAKE_MODULES; i++)
		for (int j = 0; j < _TIER_SEGMENT_N; j++) {
			close(fake->modules[i].fds[j]);
			munmap(fake->modules[i].alias[j], fake->modules[i].info.layout.segment[j].size);
		}
	unlink(fake->address.sun_path);
	rmdir(fake->folder);
	munmap(fake, sizeof(*fake));
	return 0;
}
