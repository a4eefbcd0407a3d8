/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A server over the real core and journal, without a worker, an arena or (mostly) a socket
 *
 * The core's world is tests/unit/tiering/fake.h. A client is a lane that collects what the server emits, so a case says
 * who it is (any uid) and reads replies one by one. test_conn.c adds the sockets. */

#include "unit/tiering/fake.h"
#include <dirent.h>
#include <fcntl.h>
#include "journal/journal.h"
#include "server/lane.h"
#include "server/server.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/log.h"

#define WORLD_JOURNAL 1000u

struct world {
	struct fake *fake;
	struct dispatch dispatch;
	struct server *server;
	struct journal *journal;
	bool events_later;		/* what the journal has is not at hand */
	int fds[_TIER_SEGMENT_N];	/* what segment_fd() gives */
	int probe_page_fd;
	uint32_t kernel_sites;
	uint32_t n_drained;
	/* told at the next drain, as the ring buffer would: a hello, a threshold of a method's active version */
	uint64_t seen_nonce;
	struct fake_module *bell;
	uint32_t bell_method;

	/* the last load that was begun */
	struct server_load *load;
	int load_result;
	int load_fd;
	uint64_t load_n;
	bool load_shared;
	struct { uint32_t method; bool force; char symbol[WIRE_METHOD_NAME_MAX]; } rejit;
	uint32_t n_canceled, n_released;

	/* which module was made of which; what INSTANTIATE asked for last */
	struct { uint64_t id, base; } instances[8];
	struct wire_instantiate values;

	/* whom methods call, for SETTLED: each so many behind it; the answer takes so many parts */
	uint32_t calls_next, n_call_parts;
};

struct message {
	struct list link;
	struct wire_header header;
	union {
		unsigned char bytes[16384];
		struct wire_error error;
		struct wire_welcome welcome;
		struct wire_path path;
		struct wire_module_ref ref;
		struct wire_module module;
		struct wire_modules modules;
		struct wire_names names;
		struct wire_method_ref method;
		struct wire_answer answer;
		struct wire_count count;
		struct wire_stats stats;
		struct wire_sessions sessions;
		struct wire_batch batch;
		struct wire_description description;
		struct wire_versions versions;
		struct wire_insns insns;
		struct wire_source source;
		struct wire_slot_change change;
		struct wire_counters counters;
		struct wire_mark mark;
		struct wire_settlement settlement;
		struct wire_knobs knobs;
	};
	int fds[LANE_FDS_MAX];
};

struct client {
	struct lane lane;
	struct world *world;
	struct list inbox;
	struct message message;		/* the one that was read last */
	struct wire_welcome welcome;
	int fd_to_send;			/* goes along with the next request; -1 */
	bool is_shut;			/* the server threw it out: client_leave() is what the socket would do */
	uint64_t serial;		/* of the last request */
};

/* -- What the server is given --- */
static inline int world_load(void *context, uid_t uid, const char *name, bool shared, int object_fd, uint64_t n,
			     struct server_load *load)
{
	struct world *world = context;

	world->load = world->load_result ? NULL : load;
	world->load_fd = object_fd;
	world->load_n = n;
	world->load_shared = shared;
	return world->load_result;
}

static inline int world_rejit(void *context, struct module *module, uint32_t method, const char *symbol, bool force,
			      int object_fd, uint64_t n, struct server_load *load)
{
	struct world *world = context;

	world->rejit.method = method;
	world->rejit.force = force;
	strcpy(world->rejit.symbol, symbol);
	return world_load(context, 0, "", false, object_fd, n, load);
}

static inline int world_precompile(void *context, uid_t uid, int object_fd, uint64_t n, struct server_load *load)
{
	return world_load(context, uid, "", false, object_fd, n, load);
}

/* A value of 99 fits no knob. */
static inline enum tier_error world_find_instance(void *context, struct module *base, uid_t uid, const struct wire_instantiate *values,
						  struct module **ret, char name[WIRE_NAME_MAX], char text[WIRE_TEXT_MAX])
{
	struct world *world = context;
	struct core_module_info info;

	core_module_info(base, &info);
	if (values->values[0].value == 99) {
		snprintf(text, WIRE_TEXT_MAX, "99 does not fit");
		return TIER_ERROR_ARGUMENT;
	}
	snprintf(name, WIRE_NAME_MAX, "%.20s<%.20s=%u>", info.name, values->values[0].name, (unsigned int)values->values[0].value);
	*ret = core_module_by_name(world->fake->core, uid, name);
	return TIER_ERROR_NONE;
}

static inline int world_instantiate(void *context, struct module *base, uid_t uid, const struct wire_instantiate *values,
				    struct server_load *load)
{
	((struct world *)context)->values = *values;
	return world_load(context, uid, "", false, -1, 0, load);
}

static inline struct world *world_of(void *module_context);
static inline uint64_t world_base(void *module_context)
{
	const struct fake_module *fm = module_context;
	const struct world *world = world_of(module_context);

	for (size_t i = 0; i < sizeof(world->instances) / sizeof(world->instances[0]); i++)
		if (world->instances[i].id == fm->id)
			return world->instances[i].base;
	return 0;
}

static inline bool world_has_instances(void *module_context)
{
	const struct fake_module *fm = module_context;
	const struct world *world = world_of(module_context);

	for (size_t i = 0; i < sizeof(world->instances) / sizeof(world->instances[0]); i++)
		if (world->instances[i].base == fm->id)
			return true;
	return false;
}

static inline void world_cancel_load(void *context, struct server_load *load)
{
	((struct world *)context)->n_canceled++;
}

static inline void world_release(void *context, struct module *module)
{
	struct world *world = context;

	world->n_released++;
	for (size_t i = 0; i < sizeof(world->instances) / sizeof(world->instances[0]); i++)
		if (world->instances[i].id == ((const struct fake_module *)core_module_context(module))->id)
			world->instances[i].id = world->instances[i].base = 0;
	fake_remove(world->fake, core_module_context(module));
}

static inline int64_t world_find(void *module_context, const char *method)
{
	const struct fake_module *fm = module_context;
	unsigned int index;

	if (sscanf(method, "method_%u", &index) == 1 && index < fm->layout.n_methods)
		return index;
	return -1;
}

static inline int64_t world_slot_method(void *module_context, uint64_t cell)
{
	const struct fake_module *fm = module_context;
	uint32_t slot = fake_slot_of(fm, cell);

	return slot < fm->n_slots ? (int64_t)fake_slot_method(fm, slot) : -1;
}

static inline bool world_method_name(void *module_context, uint32_t index, const char **name, uint32_t *flags)
{
	const struct fake_module *fm = module_context;
	static char buffer[32];

	snprintf(buffer, sizeof(buffer), "method_%u", index);
	*name = buffer;
	*flags = index == 0;
	return index < fm->layout.n_methods;
}

static inline bool world_import_name(void *module_context, uint32_t index, const char **name, uint32_t *flags)
{
	*name = "host";
	*flags = 1;
	return index < 1;
}

/* Every method has 1500 instructions, three tags, and a line for each even instruction. */
#define WORLD_INSNS 1500u
static inline void world_describe(void *module_context, uint32_t method, struct wire_description *ret)
{
	ret->n_insns = WORLD_INSNS;
	ret->n_params = 2;
	ret->flags = WIRE_METHOD_PINNED;
	snprintf(ret->signature, sizeof(ret->signature), "u64 method_%u(u64 a, u64 b)", method);
}

static inline void world_related(void *module_context, uint32_t method, enum wire_relation relation, uint64_t from,
				 struct wire_names *ret)
{
	for (uint64_t i = from; i < 3 && relation == WIRE_RELATION_TAGS; i++) {
		ret->rows[ret->n].index = i;
		snprintf(ret->rows[ret->n++].name, sizeof(ret->rows[0].name), "tag %u", (unsigned int)i);
	}
}

static inline void world_insns(void *module_context, uint32_t method, uint64_t from, struct wire_insns *ret)
{
	for (uint64_t i = from; i < WORLD_INSNS && ret->n < WIRE_INSNS_MAX; i++)
		ret->insns[ret->n++] = i;
	ret->more = from + ret->n < WORLD_INSNS;
}

static inline void world_lines(void *module_context, uint32_t method, uint64_t from, struct wire_source *ret)
{
	for (uint64_t i = from + from % 2; i < WORLD_INSNS && ret->n < WIRE_LINES_MAX; i += 2)
		ret->rows[ret->n++] = (struct wire_line_row){ .insn = i, .line = i + 1 };
	ret->more = from + ret->n * 2 < WORLD_INSNS;
}

static inline struct world *world_of(void *module_context) { return ((struct fake_module *)module_context)->fake->test; }
static inline int world_segment_fd(void *module_context, enum tier_segment segment)
{
	return world_of(module_context)->fds[segment];
}
static inline int world_probe_page_fd(void *context) { return ((struct world *)context)->probe_page_fd; }

static inline void world_drain(void *context)
{
	struct world *world = context;

	world->n_drained++;
	if (world->seen_nonce)
		server_hello_seen(world->server, world->seen_nonce);
	world->seen_nonce = 0;
	if (world->bell)
		core_threshold(world->fake->core, world->bell->id, world->bell_method,
			       world->bell->records[world->bell_method].version, 7, 7, 0,
			       TIER_SOURCE_KERNEL);
	world->bell = NULL;
}

static inline uint32_t world_kernel_sites(void *context, const char **why)
{
	*why = "no privilege in this world";
	return ((struct world *)context)->kernel_sites;
}

static inline int world_events(void *context, uint64_t from, struct tier_event *events, uint32_t n_max, uint64_t *gap_last)
{
	struct world *world = context;
	uint32_t n = 0;

	if (world->events_later)
		return SERVER_EVENTS_LATER;
	return journal_read(world->journal, from, events, n_max, &n, gap_last) == JOURNAL_E_GAP ? SERVER_EVENTS_GAP : (int)n;
}

static inline bool world_events_since(void *context, uint64_t time_ns, uint64_t *ret)
{
	struct world *world = context;

	return !world->events_later && !journal_seek(world->journal, time_ns, ret);
}

static inline uint64_t world_newest_event(void *context) { return journal_newest(((struct world *)context)->journal); }
static inline void world_counters(void *context, struct wire_counters *ret)
{
	ret->policy = TIER_BACKPATCH_LAZY;
	ret->n_visits[TIER_VISIT_COLD] = 77;
}

/* Method i calls the calls_next ones behind it; the first parts of the answer are empty. */
static inline struct world *world_of(void *module_context);
static inline uint32_t world_called(void *module_context, uint32_t method, uint64_t *from, uint32_t *ret, uint32_t n_max)
{
	const struct fake_module *fm = module_context;
	const struct world *world = world_of(module_context);
	uint32_t n = 0;

	if (*from < world->n_call_parts) {
		++*from;
		return 0;
	}
	for (uint32_t i = 1; i <= world->calls_next && n < n_max; i++)
		ret[n++] = (method + i) % fm->layout.n_methods;
	*from = SERVER_CALLED_END;
	return n;
}

static inline void world_knobs(void *context, uint64_t from, struct wire_knobs *ret)
{
	for (; from < 30 && ret->n < WIRE_KNOBS_MAX; from++)
		snprintf(ret->rows[ret->n++].name, sizeof(ret->rows[0].name), "knob-%u", (unsigned int)from);
	ret->more = from < 30;
}

static inline void world_stats(void *context, struct wire_stats *stats)
{
	strcpy(stats->path, "no kernel here");
	stats->oldest = journal_oldest(((struct world *)context)->journal);
}

static const struct server_ops world_ops = {
	.load = world_load,
	.cancel_load = world_cancel_load,
	.rejit = world_rejit,
	.precompile = world_precompile,
	.find_instance = world_find_instance,
	.instantiate = world_instantiate,
	.base = world_base,
	.has_instances = world_has_instances,
	.counters = world_counters,
	.slot_method = world_slot_method,
	.release = world_release,
	.find = world_find,
	.method_name = world_method_name,
	.import_name = world_import_name,
	.segment_fd = world_segment_fd,
	.probe_page_fd = world_probe_page_fd,
	.drain = world_drain,
	.kernel_sites = world_kernel_sites,
	.events = world_events, .events_since = world_events_since,
	.newest_event = world_newest_event,
	.stats = world_stats,
	.knobs = world_knobs,
	.called = world_called,
	.describe = world_describe,
	.related = world_related,
	.insns = world_insns,
	.lines = world_lines,
};

/* -- News of the core --- */
static inline void world_on_event(struct fake *fake, const struct tier_event *event)
{
	struct world *world = fake->test;

	journal_append(world->journal, event);
	server_event_added(world->server);
}

static inline void world_on_quiet(struct fake *fake, struct module *module)
{
	server_module_quiet(((struct world *)fake->test)->server, module);
}

static inline void world_on_changed(struct fake *fake, struct module *module, uint32_t method)
{
	server_method_changed(((struct world *)fake->test)->server, module, method);
}

/* -- Its life --- */
static inline struct world *world_new_for(const struct core_config *core, const struct server_config *config, int listen_fd)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_non_null(world);
	world->fake = fake_new(core);
	world->fake->test = world;
	world->fake->on_event = world_on_event;
	world->fake->on_changed = world_on_changed;
	world->fake->on_quiet = world_on_quiet;
	world->probe_page_fd = memfd_create("probe", MFD_CLOEXEC);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		world->fds[i] = memfd_create("segment", MFD_CLOEXEC);
	assert_int_equal(journal_new(&world->journal, WORLD_JOURNAL), 0);
	assert_int_equal(dispatch_init(&world->dispatch), 0);
	assert_int_equal(server_new(&world->server, &world->dispatch, world->fake->core, config, &world_ops, world, listen_fd), 0);
	return world;
}

static inline struct world *world_new(const struct server_config *config, int listen_fd)
{
	return world_new_for(&fake_config, config, listen_fd);
}

static inline void world_free(struct world *world)
{
	server_free(world->server);
	dispatch_deinit(&world->dispatch);
	journal_free(world->journal);
	fake_check(world->fake);
	fake_free(world->fake);
	for (int i = 0; i < _TIER_SEGMENT_N; i++)
		close(world->fds[i]);
	close(world->probe_page_fd);
	free(world);
}

static inline int world_setup(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;

	config.sessions_per_uid = 3;
	config.lanes_per_session = 3;
	config.modules_per_uid = 3;
	config.loads_per_uid = 2;
	config.object_max = 4096;
	config.watches_per_uid = 64;
	config.settle_ns = 30000000;
	*state = world_new(&config, -1);
	return 0;
}

static inline int world_teardown(void **state)
{
	world_free(*state);
	return 0;
}
#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

/* Lets everything happen that needs no time to pass. */
static inline void world_settle(struct world *world)
{
	for (int i = 0; i < 4; i++)
		assert_int_equal(dispatch_turn(&world->dispatch, 0), 0);
}

/* The first methods stand in two vtable slots each. */
static inline struct fake_module *world_module_virtual(struct world *world, uid_t uid, const char *name, bool shared,
						       uint32_t n_methods, uint32_t n_backpatchable)
{
	struct fake_module *fm = fake_module_by_id(world->fake, 0);

	assert_non_null(fm);
	fake_module_make_virtual(fm, core_take_module_id(world->fake->core), uid, n_methods, 2 * n_methods, n_backpatchable, 2);
	fm->fake = world->fake;
	assert_int_equal(core_module_add(&fm->module, world->fake->core, fm->id, uid, name, shared, &fm->layout, fm->code_used,
					 fm->header, fm->records, fm->cells, fm),
			 0);
	return fm;
}

static inline struct fake_module *world_module(struct world *world, uid_t uid, const char *name, bool shared, uint32_t n_methods)
{
	return world_module_virtual(world, uid, name, shared, n_methods, 0);
}

/* Brings a method to its final tier, as calls would. */
static inline void world_finish(struct world *world, struct fake_module *fm, uint32_t method)
{
	fake_call(fm, method);
	fake_pass(world->fake, 300);
	fake_calls(fm, method, FAKE_N);
	assert_true(fake_end(world->fake, fm, method, TIER_REASON_NONE));
}

static inline uint32_t count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	uint32_t n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* -- Clients --- */
static inline void client_emit(struct lane *lane, const void *bytes, size_t n, const int *fds, unsigned int n_fds)
{
	struct client *client = container_of(lane, struct client, lane);
	struct message *message = malloc(sizeof(*message));

	assert_non_null(message);
	assert_true(n >= sizeof(message->header) && n <= sizeof(message->header) + sizeof(message->bytes));
	memcpy(&message->header, bytes, sizeof(message->header));
	memcpy(message->bytes, (const unsigned char *)bytes + sizeof(message->header), n - sizeof(message->header));
	assert_int_equal(message->header.magic, WIRE_MAGIC);
	assert_int_equal(message->header.version, WIRE_VERSION);
	assert_int_equal(message->header.size, n);
	assert_int_equal(n, sizeof(message->header) + wire_body_size(message->header.type));
	assert_int_equal(message->header.n_fds, n_fds);
	for (unsigned int i = 0; i < n_fds; i++)
		message->fds[i] = fds[i];
	list_append(&client->inbox, &message->link);
}

static inline void client_shut(struct lane *lane)
{
	container_of(lane, struct client, lane)->is_shut = true;
}

static inline void client_init(struct client *client, struct world *world, uid_t uid)
{
	static const struct lane_ops ops = { .emit = client_emit, .shut = client_shut };

	*client = (struct client){ .world = world, .fd_to_send = -1 };
	list_init(&client->inbox);
	lane_init(&client->lane, world->server, uid, 4242, &ops);
}

static inline bool client_has_reply(struct client *client) { return !list_is_empty(&client->inbox); }

/* The oldest message that was not read yet */
static inline struct message *client_read(struct client *client)
{
	struct list *first = list_first(&client->inbox);
	struct message *message;

	assert_non_null(first);
	list_remove(first);
	message = list_entry(first, struct message, link);
	client->message = *message;
	free(message);
	return &client->message;
}

static inline void client_leave(struct client *client)
{
	lane_deinit(&client->lane);
	while (client_has_reply(client))
		client_read(client);
}

/* A well-formed request; 0 or LANE_E_END. */
static inline int client_send(struct client *client, unsigned int type, const void *body)
{
	struct datagram datagram = {};
	struct wire_header header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .serial = ++client->serial };

	header.size = sizeof(header) + wire_body_size(type);
	if (client->fd_to_send >= 0) {
		header.n_fds = datagram.n_fds = 1;
		datagram.fds[0] = TAKE_FD(client->fd_to_send);
	}
	memcpy(datagram.bytes, &header, sizeof(header));
	memcpy(datagram.bytes + sizeof(header), body, wire_body_size(type));
	datagram.n = header.size;
	return lane_feed(&client->lane, &datagram);
}

/* A request whose reply comes at once and is of this type */
static inline struct message *client_ask(struct client *client, unsigned int type, const void *body, unsigned int reply)
{
	assert_int_equal(client_send(client, type, body), 0);
	client_read(client);
	assert_int_equal(client->message.header.serial, client->serial);
	if (client->message.header.type == WIRE_ERROR && reply != WIRE_ERROR)
		fail_msg("unexpected error: %s", client->message.error.text);
	assert_int_equal(client->message.header.type, reply);
	assert_false(client_has_reply(client));
	return &client->message;
}

static inline void client_ask_error(struct client *client, unsigned int type, const void *body, enum tier_error error)
{
	client_ask(client, type, body, WIRE_ERROR);
	assert_string_equal(tier_error_name(client->message.error.error), tier_error_name(error));
	assert_true(client->message.error.text[0]);
}

static inline void client_hello(struct client *client, struct world *world, uid_t uid)
{
	struct wire_hello hello = { .lane = WIRE_LANE_API, .program = "tester" };

	client_init(client, world, uid);
	client->welcome = client_ask(client, WIRE_HELLO, &hello, WIRE_WELCOME)->welcome;
}

static inline void client_join_as(struct client *client, const struct client *first, enum wire_lane lane)
{
	struct wire_hello hello = { .session = { first->welcome.session[0], first->welcome.session[1] }, .lane = lane };

	client_init(client, first->world, first->lane.uid);
	client->welcome = client_ask(client, WIRE_HELLO, &hello, WIRE_WELCOME)->welcome;
}

static inline void client_join(struct client *client, const struct client *first)
{
	client_join_as(client, first, WIRE_LANE_PRESTUB);
}

static inline struct message *client_attach(struct client *client, uint64_t module)
{
	struct wire_attach attach = { .ref.module = module };

	return client_ask(client, WIRE_ATTACH, &attach, WIRE_MODULE);
}
