/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* Arbitrary datagrams from three clients (an owner, another user, root) into the protocol machine, without sockets: every
 * reply keeps the format, every descriptor is closed, and the server ends without a leak.
 *
 *   input   per step: one byte (client, operation, how wrong the header is), one byte (request type or length), then
 *           as many bytes as the body has; missing ones are zero */

#define CLIENTS 3
#define STEPS_MAX 200

enum { OPERATION_SOUND, OPERATION_RAW, OPERATION_LEAVE, OPERATION_TURN };

struct input {
	const uint8_t *p;
	size_t n;
};

static uint8_t input_byte(struct input *input)
{
	if (!input->n)
		return 0;
	input->n--;
	return *input->p++;
}

static void input_bytes(struct input *input, void *to, size_t n)
{
	size_t have = MIN(n, input->n);

	memset(to, 0, n);
	memcpy(to, input->p, have);
	input->p += have;
	input->n -= have;
}

static const uid_t uids[CLIENTS] = { 1000, 1001, 0 };

/* Every other change that is told is answered. */
static void client_empty(struct client *client)
{
	while (client_has_reply(client))
		if (client_read(client)->header.type == WIRE_SLOT_CHANGED && client->message.change.ticket % 2)
			client_send(client, WIRE_SLOT_DONE, &client->message.change);
}

/* A new connection that is past HELLO and may watch slots, so that the interesting requests are one step away. A uid's quota may
 * be used up. */
static void client_enter(struct client *client, struct world *world, uid_t uid)
{
	struct wire_hello hello = { .lane = WIRE_LANE_SLOTS, .program = "fuzz" };

	client_init(client, world, uid);
	client_send(client, WIRE_HELLO, &hello);
	client_empty(client);
}

static int step_sound(struct client *client, struct input *input)
{
	unsigned int type = input_byte(input) % (WIRE_INSTANTIATE + 1);
	unsigned char body[LANE_DATAGRAM_MAX] = {};

	if (!wire_body_size(type))
		return 0;
	input_bytes(input, body, wire_body_size(type));
	if (type == WIRE_LOAD || type == WIRE_REJIT || type == WIRE_PRECOMPILE) {
		client->fd_to_send = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		(void)!ftruncate(client->fd_to_send, 1);
		fcntl(client->fd_to_send, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
	}
	return client_send(client, type, body);
}

static int step_raw(struct client *client, struct input *input, uint8_t how)
{
	struct datagram datagram = {};
	struct wire_header header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION };

	datagram.n = MIN(2u * input_byte(input), sizeof(datagram.bytes));
	input_bytes(input, datagram.bytes, datagram.n);
	if (how & 1)			/* else nothing gets past the magic */
		memcpy(datagram.bytes, &header, offsetof(struct wire_header, type));
	datagram.is_truncated = how & 2;
	datagram.is_control_truncated = how & 4;
	if (how & 8)
		datagram.fds[datagram.n_fds++] = dup(STDERR_FILENO);
	return lane_feed(&client->lane, &datagram);
}

static void step_body(struct module *module, uint32_t method)
{
	static uint32_t body;

	if (core_method_body(module, method))
		core_revert(module, method);
	else
		core_rejit(module, method, ++body);
}

static void step(struct world *world, uint64_t id, struct client *clients, struct input *input)
{
	uint8_t choice = input_byte(input);
	struct client *client = &clients[(choice & 3) % CLIENTS];
	struct module *module = core_module_by_id(world->fake->core, id);
	int r = 0;

	switch (choice >> 2 & 3) {
	case OPERATION_SOUND:
		r = step_sound(client, input);
		break;
	case OPERATION_RAW:
		r = step_raw(client, input, choice >> 4);
		break;
	case OPERATION_LEAVE:
		r = LANE_E_END;
		break;
	case OPERATION_TURN:
		if (choice & 16 && world->load) {
			server_loaded(TAKE_PTR(world->load), choice & 32 ? module : NULL, TIER_ERROR_BAD_MODULE, "a fuzzed load");
		} else if (choice & 128 && module) {
			step_body(module, choice >> 5 & 3);
		} else {
			fake_pass(world->fake, choice);
			dispatch_turn(&world->dispatch, 0);
		}
		break;
	}
	client_empty(client);
	if (r == LANE_E_END || client->is_shut) {
		client_leave(client);
		client_enter(client, world, client->lane.uid);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	struct input input = { data, size };
	struct client clients[CLIENTS];
	struct fake_module *fm;
	struct world *world;
	uint64_t id;

	log_set_level(LOG_ERROR);
	config.waits_per_session = 8;
	config.loads_per_uid = 1;
	config.watches_per_uid = 3;
	config.settle_ns = 1000;
	world = world_new(&config, -1);
	fm = world_module_virtual(world, 1000, "m", false, 4, 2);
	id = fm->id;
	fake_call(fm, 0);
	world_finish(world, fm, 1);
	world_module(world, 1000, "shared", true, 2);
	for (int i = 0; i < CLIENTS; i++)
		client_enter(&clients[i], world, uids[i]);
	for (int i = 0; input.n && i < STEPS_MAX; i++)
		step(world, id, clients, &input);
	for (int i = 0; i < CLIENTS; i++)
		client_leave(&clients[i]);
	while (world->server->closings.n)	/* a server that ends before them leaves its thread to the process's end */
		dispatch_turn(&world->dispatch, -1);
	world_free(world);
	return 0;
}
