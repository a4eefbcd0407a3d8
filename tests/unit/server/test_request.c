/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* The format: what breaks it is named, thrown out, and costs nobody else anything */

static struct client client;

static int setup(void **state)
{
	world_setup(state);
	client_hello(&client, *state, 1000);
	return 0;
}

static int teardown(void **state)
{
	client_leave(&client);
	return world_teardown(state);
}
#define FORMAT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* A sound STATUS request, to be spoilt */
static struct datagram sound(void)
{
	struct datagram datagram = { .n = sizeof(struct wire_header) + sizeof(struct wire_method_ref) };
	struct wire_header header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = WIRE_STATUS, .size = datagram.n,
				      .serial = 77 };

	memcpy(datagram.bytes, &header, sizeof(header));
	return datagram;
}

static struct wire_header *header_of(struct datagram *datagram) { return (struct wire_header *)datagram->bytes; }

static void assert_broken(struct datagram *datagram, enum tier_error error, const char *text)
{
	const struct message *message;

	assert_int_equal(lane_feed(&client.lane, datagram), LANE_E_END);
	message = client_read(&client);
	assert_int_equal(message->header.type, WIRE_ERROR);
	assert_string_equal(tier_error_name(message->error.error), tier_error_name(error));
	if (!strstr(message->error.text, text))
		fail_msg("'%s' does not say '%s'", message->error.text, text);
	assert_false(client_has_reply(&client));
}

static void a_sound_request_is_answered(void **state)
{
	struct datagram datagram = sound();

	assert_int_equal(lane_feed(&client.lane, &datagram), 0);
	assert_int_equal(client_read(&client)->header.serial, 77);
	assert_int_equal(client.message.error.error, TIER_ERROR_NO_MODULE);
}

static void a_short_message_has_no_header(void **state)
{
	struct datagram datagram = sound();

	datagram.n = sizeof(struct wire_header) - 1;
	assert_broken(&datagram, TIER_ERROR_PROTOCOL, "23 bytes are no message");
	assert_int_equal(client.message.header.serial, 0);
}

static void another_magic_is_not_for_us(void **state)
{
	struct datagram datagram = sound();

	header_of(&datagram)->magic = 0x20544547;
	assert_broken(&datagram, TIER_ERROR_PROTOCOL, "magic 0x20544547");
}

static void another_version_is_named(void **state)
{
	struct world *world = *state;
	struct datagram datagram = sound();

	header_of(&datagram)->version = 9;
	assert_broken(&datagram, TIER_ERROR_VERSION, "the message 9");
	assert_int_equal(client.message.header.serial, 77);
	assert_int_equal(world->server->n_disconnected, 0);
}

static void unknown_types_and_replies_are_no_requests(void **state)
{
	static const uint16_t types[] = { 0, WIRE_INSTANTIATE + 1, WIRE_ERROR, WIRE_SETTINGS, UINT16_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct datagram datagram = sound();

		header_of(&datagram)->type = types[i];
		assert_broken(&datagram, TIER_ERROR_PROTOCOL, "is not a request");
	}
}

static void sizes_must_agree(void **state)
{
	struct datagram longer = sound(), shorter = sound(), lying = sound(), cut = sound();

	longer.n++;
	assert_broken(&longer, TIER_ERROR_PROTOCOL, "STATUS: size 40, 41 bytes came");
	shorter.n = header_of(&shorter)->size = 32;
	assert_broken(&shorter, TIER_ERROR_PROTOCOL, "the format says 40");
	header_of(&lying)->size = UINT32_MAX;
	assert_broken(&lying, TIER_ERROR_PROTOCOL, "size 4294967295");
	cut.is_truncated = true;
	assert_broken(&cut, TIER_ERROR_PROTOCOL, "40+ bytes came");
}

static void descriptors_must_agree_and_are_closed(void **state)
{
	struct datagram lying = sound(), unasked = sound(), hidden = sound(), missing = sound(), cut = sound();
	uint32_t n = count_fds();

	header_of(&lying)->n_fds = 3;
	assert_broken(&lying, TIER_ERROR_PROTOCOL, "says that 3 descriptors come along");
	header_of(&unasked)->n_fds = unasked.n_fds = 1;
	unasked.fds[0] = dup(0);
	assert_broken(&unasked, TIER_ERROR_PROTOCOL, "says that 1 descriptors");
	hidden.n_fds = 4;
	for (int i = 0; i < 4; i++)
		hidden.fds[i] = dup(0);
	assert_broken(&hidden, TIER_ERROR_PROTOCOL, "4 descriptors came");
	cut.is_control_truncated = true;
	cut.n_fds = 1;
	cut.fds[0] = dup(0);
	assert_broken(&cut, TIER_ERROR_PROTOCOL, "1+ descriptors came");
	header_of(&missing)->type = WIRE_LOAD;
	missing.n = header_of(&missing)->size = sizeof(struct wire_header) + sizeof(struct wire_load);
	header_of(&missing)->n_fds = 1;
	assert_broken(&missing, TIER_ERROR_PROTOCOL, "LOAD: 0 descriptors came");
	while (client.world->server->closings.n)	/* what is no memfd is closed by a thread */
		assert_int_equal(dispatch_turn(&client.world->dispatch, 1000), 0);
	assert_int_equal(count_fds(), n);
}

static void the_daemons_own_shortage_of_descriptors_is_no_offence(void **state)
{
	struct datagram datagram = sound();

	header_of(&datagram)->type = WIRE_LOAD;
	datagram.n = header_of(&datagram)->size = sizeof(struct wire_header) + sizeof(struct wire_load);
	header_of(&datagram)->n_fds = 1;
	datagram.is_control_truncated = true;
	assert_int_equal(lane_feed(&client.lane, &datagram), 0);
	assert_int_equal(client_read(&client)->error.error, TIER_ERROR_NO_MEMORY);
}

static void fields_with_a_form_must_keep_it(void **state)
{
	struct wire_load load = { .name = "m", .flags = 2 };
	struct wire_method_ref ref = { .module = 1, .reserved = 1 };
	struct wire_pending pending = { .scope = 3 };
	struct wire_empty empty = { .reserved = 1ull << 63 };
	struct wire_find find = { .module = 1 };
	struct wire_slot slot = { .module = 1, .reserved = 1 };
	struct wire_rejit rejit = { .module = 1 };
	struct wire_osr osr = { .module = 1, .reserved = 1 };
	struct wire_cursor cursor = { .module = 1 };
	struct wire_module_ref dirty = { .name = "m\0x" };
	struct world *world = *state;
	struct { unsigned int type; const void *body; const char *text; } rows[] = {
		{ WIRE_STATUS, &ref, "STATUS: reserved has bits" },
		{ WIRE_PREPARE, &ref, "PREPARE: reserved has bits" },
		{ WIRE_PENDING, &pending, "PENDING: scope has a value" },
		{ WIRE_STATS, &empty, "STATS: reserved has bits" },
		{ WIRE_FIND, &find, "FIND: method is not a text" },
		{ WIRE_DETACH, &dirty, "DETACH: name is not a text" },
		{ WIRE_LOAD, &load, "LOAD: flags has bits" },
		{ WIRE_REVERT, &ref, "REVERT: reserved has bits" },
		{ WIRE_SLOT_WATCH, &ref, "SLOT_WATCH: reserved has bits" },
		{ WIRE_SLOT_USED, &slot, "SLOT_USED: reserved has bits" },
		{ WIRE_OSR, &osr, "OSR: reserved has bits" },
		{ WIRE_FREEZE, &dirty, "FREEZE: name is not a text" },
		{ WIRE_THAW, &dirty, "THAW: name is not a text" },
		{ WIRE_MARK, &dirty, "MARK: name is not a text" },
		{ WIRE_SETTLED, &ref, "SETTLED: reserved has bits" },
		{ WIRE_KNOBS, &cursor, "KNOBS: module has bits" },
		{ WIRE_REJIT, &rejit, "REJIT: symbol is not a text" },
	};

	memset(find.method, 'x', sizeof(find.method));
	memset(rejit.symbol, 'x', sizeof(rejit.symbol));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].type == WIRE_LOAD || rows[i].type == WIRE_REJIT)
			client.fd_to_send = dup(0);
		assert_int_equal(client_send(&client, rows[i].type, rows[i].body), LANE_E_END);
		client_read(&client);
		assert_int_equal(client.message.error.error, TIER_ERROR_PROTOCOL);
		assert_int_equal(client.message.header.serial, client.serial);
		assert_non_null(strstr(client.message.error.text, rows[i].text));
	}
	assert_int_equal(world->server->n_disconnected, ARRAY_SIZE(rows));
}

static void nothing_comes_before_hello(void **state)
{
	struct wire_empty empty = {};
	struct client stranger;

	client_init(&stranger, *state, 1000);
	assert_int_equal(client_send(&stranger, WIRE_STATS, &empty), LANE_E_END);
	assert_int_equal(client_read(&stranger)->error.error, TIER_ERROR_PROTOCOL);
	assert_non_null(strstr(stranger.message.error.text, "HELLO"));
	client_leave(&stranger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FORMAT_TEST(a_sound_request_is_answered),
		FORMAT_TEST(a_short_message_has_no_header),
		FORMAT_TEST(another_magic_is_not_for_us),
		FORMAT_TEST(another_version_is_named),
		FORMAT_TEST(unknown_types_and_replies_are_no_requests),
		FORMAT_TEST(sizes_must_agree),
		FORMAT_TEST(descriptors_must_agree_and_are_closed),
		FORMAT_TEST(the_daemons_own_shortage_of_descriptors_is_no_offence),
		FORMAT_TEST(fields_with_a_form_must_keep_it),
		FORMAT_TEST(nothing_comes_before_hello),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
