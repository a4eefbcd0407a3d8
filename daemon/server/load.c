/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include "server/hold.h"
#include "server/load.h"
#include "server/rejit.h"
#include "server/session.h"
#include "server/state.h"
#include "util/base.h"
#include "util/error.h"

#define LOAD_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

bool load_name_is_sound(const char *name)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-";
	size_t n = strlen(name);

	return n >= 1 && n < WIRE_NAME_MAX && strspn(name, allowed) == n;
}

/* The object must not change under the worker's eyes. */
int load_check_object(struct lane *lane, uint64_t serial, int fd, uint64_t *ret_n)
{
	uint64_t n_max = lane->server->config.object_max;
	struct stat st;
	int seals;

	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & LOAD_SEALS) != LOAD_SEALS) {
		lane_error(lane, serial, TIER_ERROR_ARGUMENT, "the object is not a memfd sealed against writing, shrinking and growing");
		return 1;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0) {
		lane_error(lane, serial, TIER_ERROR_BAD_MODULE, "the object is empty");
		return 1;
	}
	if ((uint64_t)st.st_size > n_max) {
		lane_error(lane, serial, TIER_ERROR_QUOTA, "the object has %llu bytes, at most %llu are allowed",
			   (unsigned long long)st.st_size, (unsigned long long)n_max);
		return 1;
	}
	*ret_n = st.st_size;
	return 0;
}

static bool load_name_is_taken(const struct lane *lane, const char *name)
{
	struct list *pos;

	list_for_each(pos, &lane->server->loads) {
		const struct server_load *load = list_entry(pos, struct server_load, link);

		if (load->uid == lane->uid && !strcmp(load->name, name))
			return true;
	}
	return core_module_by_name(lane->server->core, lane->uid, name);
}

/* Modules that lost their name count as long as somebody holds them, and loads under way count already. */
bool load_has_room(const struct lane *lane)
{
	const struct server *server = lane->server;
	uint64_t n = charge_used(&server->charges, lane->uid, SERVER_SLOT_LOADS);
	struct module *module = NULL;

	while ((module = core_module_next(server->core, module))) {
		struct core_module_info info;

		core_module_info(module, &info);
		n += info.uid == lane->uid;
	}
	return n < server->config.modules_per_uid;
}

void load_free(struct server_load *load)
{
	list_remove(&load->link);
	list_remove(&load->lane_link);
	charge_deinit(&load->charge);
	charge_deinit(&load->object);
	close_fd(load->object_fd);
	if (load->base)
		resident_leave(load->server, load->base);
	free(load);
}

/* 0, CHARGE_E_QUOTA, or -errno. The object's descriptor, if there is one, is kept: it is there until the load ends. */
static int load_take(struct server_load *load, int fd, uint64_t n)
{
	struct charge_table *charges = &load->server->charges;
	int r;

	load->object_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fd >= 0 && load->object_fd < 0)
		return error_origin(-errno);
	r = charge_take(charges, &load->charge, load->uid, SERVER_SLOT_LOADS, 1);
	return r ? r : charge_take(charges, &load->object, load->uid, SERVER_SLOT_OBJECTS, n);
}

static void load_refuse(struct lane *lane, uint64_t serial, int r)
{
	const struct server *server = lane->server;

	if (r == CHARGE_E_QUOTA)
		lane_error(lane, serial, TIER_ERROR_QUOTA,
			   "this user has %llu loads under way already: at most %u, with %llu bytes in all, are allowed",
			   (unsigned long long)charge_used(&server->charges, lane->uid, SERVER_SLOT_LOADS),
			   server->config.loads_per_uid, (unsigned long long)server->config.objects_per_uid);
	else
		lane_error(lane, serial, TIER_ERROR_NO_MEMORY, NULL);
}

struct server_load *load_new(struct lane *lane, const struct request *request, const char *name, uint64_t n)
{
	struct server_load *load = calloc(1, sizeof(*load));
	int r;

	if (!load) {
		load_refuse(lane, request->serial, -ENOMEM);
		return NULL;
	}
	*load = (struct server_load){ .server = lane->server, .lane = lane, .serial = request->serial, .uid = lane->uid };
	strncpy(load->name, name, sizeof(load->name) - 1);
	list_init(&load->link);
	list_init(&load->lane_link);
	r = load_take(load, request->fd, n);
	if (r) {
		load_free(load);
		load_refuse(lane, request->serial, r);
		return NULL;
	}
	list_append(&lane->server->loads, &load->link);
	list_append(&lane->loads, &load->lane_link);
	return load;
}

int load_begun(struct server_load *load, int r)
{
	struct lane *lane = load->lane;
	uint64_t serial = load->serial;

	if (!r)
		return 0;
	load_free(load);
	return lane_error(lane, serial, r > 0 ? (enum tier_error)r : TIER_ERROR_INTERNAL, NULL);
}

static int load_begin(struct lane *lane, const struct request *request, uint64_t n)
{
	struct server *server = lane->server;
	const struct wire_load *body = request->body;
	struct server_load *load = load_new(lane, request, body->name, n);
	int r;

	if (!load)
		return 0;
	r = server->ops->load(server->context, lane->uid, load->name, body->flags & WIRE_LOAD_SHARED, load->object_fd, n, load);
	return load_begun(load, r);
}

int load_request(struct lane *lane, const struct request *request)
{
	const struct wire_load *body = request->body;
	uint64_t n;

	if (!load_name_is_sound(body->name))
		return lane_error(lane, request->serial, TIER_ERROR_ARGUMENT,
				  "'%s' is not a module's name: 1 to 63 of A-Z a-z 0-9 _ . + -", body->name);
	if (load_check_object(lane, request->serial, request->fd, &n))
		return 0;
	if (load_name_is_taken(lane, body->name))
		return lane_error(lane, request->serial, TIER_ERROR_EXISTS, "a module named '%s' is already loaded", body->name);
	if (!load_has_room(lane))
		return lane_error(lane, request->serial, TIER_ERROR_QUOTA, "this user has %u modules already",
				  lane->server->config.modules_per_uid);
	return load_begin(lane, request, n);
}

/* No module, so no name; but a worker's time, and an object that is there until it ends. */
int load_precompile(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	struct server_load *load;
	uint64_t n;

	if (load_check_object(lane, request->serial, request->fd, &n))
		return 0;
	load = load_new(lane, request, "", n);
	if (!load)
		return 0;
	return load_begun(load, server->ops->precompile(server->context, lane->uid, load->object_fd, n, load));
}

void load_forget_lane(struct lane *lane)
{
	struct list *first;

	while ((first = list_first(&lane->loads))) {
		struct server_load *load = list_entry(first, struct server_load, lane_link);

		list_remove(first);
		load->lane = NULL;
		lane->server->ops->cancel_load(lane->server->context, load);
	}
}

void load_free_all(struct server *server)
{
	struct list *first;

	while ((first = list_first(&server->loads)))
		load_free(list_entry(first, struct server_load, link));
}

void server_loaded(struct server_load *load, struct module *module, enum tier_error error, const char *text)
{
	struct wire_module_ref body = {};
	struct core_module_info info;

	if (load->lane && load->settling) {
		rejit_loaded(load, module, error, text);
	} else if (load->lane && module) {
		core_module_info(module, &info);
		body.module = info.id;
		strncpy(body.name, info.name, sizeof(body.name) - 1);
		lane_reply(load->lane, load->serial, WIRE_LOADED, &body);
	} else if (load->lane) {
		lane_error(load->lane, load->serial, error, "%s", text ? text : tier_error_name(error));
	}
	load_free(load);
}

void server_precompiled(struct server_load *load, int object_fd, uint64_t n, enum tier_error error, const char *text)
{
	const struct wire_object body = { .size = n };

	if (load->lane && object_fd >= 0)
		lane_reply_fds(load->lane, load->serial, WIRE_OBJECT, &body, &object_fd, 1);
	else if (load->lane)
		lane_error(load->lane, load->serial, error, "%s", text ? text : tier_error_name(error));
	load_free(load);
}
