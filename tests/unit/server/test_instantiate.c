/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"
#include "server/hold.h"

/* INSTANTIATE: which module it is, who learns how it ended, and what keeps the module that it was made of */

static struct wire_instantiate values_of(const struct fake_module *base, uint64_t value)
{
	struct wire_instantiate values = {.module = base->id, .n = 1};

	strcpy(values.values[0].name, "knob");
	values.values[0].value = value;
	return values;
}

/* What the daemon's other parts would do at the end of one */
static struct fake_module *instance_add(struct world *world, const struct fake_module *base, uid_t uid,
					const char *name)
{
	struct fake_module *fm = world_module(world, uid, name, false, 1);
	uint32_t i = 0;

	while (world->instances[i].id)
		i++;
	world->instances[i].id = fm->id;
	world->instances[i].base = base->id;
	return fm;
}

static struct fake_module *instantiate(struct client *client, const struct fake_module *base, uint64_t value)
{
	struct world *world = client->world;
	struct wire_instantiate values = values_of(base, value);
	struct fake_module *fm;
	char name[32];

	world->load = NULL;
	assert_int_equal(client_send(client, WIRE_INSTANTIATE, &values), 0);
	assert_false(client_has_reply(client));
	assert_non_null(world->load);
	assert_memory_equal(&world->values, &values, sizeof(values));
	snprintf(name, sizeof(name), "m<knob=%u>", (unsigned int)value);
	fm = instance_add(world, base, client->lane.uid, name);
	server_loaded(world->load, fm->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(client)->header.type, WIRE_LOADED);
	assert_int_equal(client->message.ref.module, fm->id);
	assert_string_equal(client->message.ref.name, name);
	return fm;
}

static void fails(struct client *client, const struct wire_instantiate *values, enum tier_error error,
		  const char *words)
{
	client_ask_error(client, WIRE_INSTANTIATE, values, error);
	if (!strstr(client->message.error.text, words))
		fail_msg("%s", client->message.error.text);
}

static void hold(struct client *client, const struct fake_module *fm)
{
	struct wire_attach attach = {.ref = {.module = fm->id}};

	client_ask(client, WIRE_ATTACH, &attach, WIRE_MODULE);
}

static void let_go(struct client *client, uint64_t id)
{
	client_ask(client, WIRE_DETACH, &(struct wire_module_ref){.module = id}, WIRE_DONE);
}

static void unload(struct client *client, uint64_t id)
{
	client_ask(client, WIRE_UNLOAD, &(struct wire_module_ref){.module = id}, WIRE_DONE);
}

static void equal_values_are_made_once(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", false, 1), *fm;
	struct wire_instantiate values = values_of(base, 7);
	struct client a;

	client_hello(&a, world, 1000);
	fm = instantiate(&a, base, 7);
	world->load = NULL;
	client_ask(&a, WIRE_INSTANTIATE, &values, WIRE_LOADED);
	assert_null(world->load);
	assert_int_equal(a.message.ref.module, fm->id);
	values.flags = WIRE_INSTANTIATE_FIND;
	client_ask(&a, WIRE_INSTANTIATE, &values, WIRE_LOADED);
	hold(&a, fm);
	assert_int_equal(a.message.module.base, base->id);
	hold(&a, base);
	assert_int_equal(a.message.module.base, 0);
	client_leave(&a);
}

static void what_cannot_be_is_told(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", false, 1), *fm;
	struct wire_instantiate values = values_of(base, 99);
	struct client a, other;

	client_hello(&a, world, 1000);
	client_hello(&other, world, 1001);
	fails(&a, &values, TIER_ERROR_ARGUMENT, "module 'm': 99 does not fit");
	values = values_of(base, 8);
	fails(&other, &values, TIER_ERROR_NO_MODULE, "no module 1");
	values.flags = WIRE_INSTANTIATE_FIND;
	fails(&a, &values, TIER_ERROR_NO_MODULE, "there is no module 'm<knob=8>'");
	fm = instantiate(&a, base, 7);
	values = values_of(fm, 8);
	fails(&a, &values, TIER_ERROR_ARGUMENT, "'m<knob=7>' is an instantiation");
	instantiate(&a, base, 8);
	values = values_of(base, 9);
	fails(&a, &values, TIER_ERROR_QUOTA, "3 modules already");
	world->load_result = TIER_ERROR_NO_MEMORY;
	unload(&a, fm->id);
	values = values_of(base, 9);
	fails(&a, &values, TIER_ERROR_NO_MEMORY, "");
	hold(&a, base);
	unload(&a, base->id);
	fails(&a, &values, TIER_ERROR_NO_MODULE, "module 'm' was unloaded");
	client_leave(&a);
	client_leave(&other);
}

static void a_message_that_breaks_the_format_ends_the_connection(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", false, 1);
	struct wire_instantiate wrong[3] = {values_of(base, 1), values_of(base, 1), values_of(base, 1)};
	struct client a;

	wrong[0].flags = 2;
	wrong[1].n = WIRE_VALUES_MAX + 1;
	memset(wrong[2].values[15].name, 'x', sizeof(wrong[2].values[15].name));
	for (int i = 0; i < 3; i++) {
		client_hello(&a, world, 1000);
		client_send(&a, WIRE_INSTANTIATE, &wrong[i]);
		assert_int_equal(client_read(&a)->header.type, WIRE_ERROR);
		assert_int_equal(a.message.error.error, TIER_ERROR_PROTOCOL);
		client_leave(&a);
	}
}

static void the_module_stays_for_its_instantiations(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", false, 1), *held, *idle;
	const uint64_t base_id = base->id;
	struct client a;
	uint64_t held_id, idle_id;

	client_hello(&a, world, 1000);
	held = instantiate(&a, base, 7);
	idle = instantiate(&a, base, 8);
	held_id = held->id;
	idle_id = idle->id;
	hold(&a, held);
	unload(&a, base_id);
	world_settle(world);
	assert_null(core_module_by_id(world->fake->core, idle_id));
	assert_int_equal(world->n_released, 1);
	assert_non_null(core_module_by_id(world->fake->core, base_id));
	assert_null(core_module_by_name(world->fake->core, 1000, "m<knob=7>"));
	let_go(&a, held_id);
	assert_int_equal(world->n_released, 3);
	assert_null(core_module_by_id(world->fake->core, base_id));
	client_leave(&a);
}

static void another_users_instantiation_keeps_a_shared_module(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", true, 1), *fm;
	const uint64_t base_id = base->id;
	struct client a, other;

	client_hello(&a, world, 1000);
	client_hello(&other, world, 1001);
	fm = instantiate(&other, base, 7);
	client_ask_error(&a, WIRE_ATTACH, &(struct wire_attach){.ref = {.module = fm->id}}, TIER_ERROR_NO_MODULE);
	hold(&other, fm);
	unload(&a, base_id);
	world_settle(world);
	assert_int_equal(world->n_released, 0);
	hold(&other, base); /* it needs its .data */
	client_leave(&other);
	world_settle(world);
	assert_int_equal(world->n_released, 2);
	client_leave(&a);
}

static void one_that_is_being_made_holds_its_module(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", false, 1);
	struct wire_instantiate values = values_of(base, 7);
	const uint64_t base_id = base->id;
	struct client a, b;

	client_hello(&a, world, 1000);
	client_hello(&b, world, 1000);
	assert_int_equal(client_send(&a, WIRE_INSTANTIATE, &values), 0);
	unload(&b, base_id);
	assert_int_equal(world->n_released, 0);
	client_leave(&a); /* nobody waits for it: it ends all the same, and only then */
	assert_int_equal(world->n_canceled, 1);
	assert_non_null(core_module_by_id(world->fake->core, base_id));
	server_loaded(world->load, NULL, TIER_ERROR_CANCELED, "nobody waits for it");
	assert_int_equal(world->n_released, 1);
	assert_null(core_module_by_id(world->fake->core, base_id));
	client_leave(&b);
}

static void a_server_that_ends_lets_go_of_it(void **state)
{
	struct world *world = *state;
	struct fake_module *base = world_module(world, 1000, "m", false, 1);
	struct wire_instantiate values = values_of(base, 7);
	struct client a;

	client_hello(&a, world, 1000);
	assert_int_equal(client_send(&a, WIRE_INSTANTIATE, &values), 0);
	client_leave(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(equal_values_are_made_once),
		WORLD_TEST(what_cannot_be_is_told),
		WORLD_TEST(a_message_that_breaks_the_format_ends_the_connection),
		WORLD_TEST(the_module_stays_for_its_instantiations),
		WORLD_TEST(another_users_instantiation_keeps_a_shared_module),
		WORLD_TEST(one_that_is_being_made_holds_its_module),
		WORLD_TEST(a_server_that_ends_lets_go_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
