/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"
#include "object.h"
#include "sys.h"

/* Leaves no name behind when the module cannot be opened, so that the same load can be tried again; but a daemon that came
 * after the one that loaded it may have given the number to another. */
static int load_open(struct tier_conn *conn, const struct wire_module_ref *loaded, uint32_t session, struct tier_module **ret)
{
	char text[WIRE_TEXT_MAX];
	int r;

	r = module_open(conn, loaded, ret);
	if (r < 0) {
		text_copy(text, sizeof(text), tier_error_text());
		conn_request(conn, &(struct request){ .type = WIRE_UNLOAD, .body = loaded, .fd = -1, .reply_type = WIRE_DONE,
						      .only_in = session });
		error_set(r, "%s", text);
	}
	return r;
}

static int load_send(struct tier_conn *conn, int fd, const char *name, unsigned int flags, struct tier_module **ret)
{
	struct wire_load load = { .flags = flags & TIER_LOAD_SHARED ? WIRE_LOAD_SHARED : 0 };
	struct wire_module_ref ref = { 0 };
	struct request request = { .type = WIRE_LOAD, .body = &load, .fd = fd, .reply_type = WIRE_LOADED, .reply = &ref };
	int r;

	if (flags & ~(unsigned int)TIER_LOAD_SHARED)
		return error_set(-EINVAL, "unknown load flags 0x%x", flags);
	r = module_set_name(&ref, name);
	if (r < 0)
		return r;
	text_copy(load.name, sizeof(load.name), name);
	r = conn_request(conn, &request);
	if (r < 0 || !ret)
		return r;
	ref.name[sizeof(ref.name) - 1] = 0;
	return load_open(conn, &ref, request.session, ret);
}

/* "dir/filter.bpf.o" is "filter". */
static const char *load_name(const char *path, char *to, size_t n)
{
	static const char *const endings[] = { ".bpf.o", ".tier.o", ".o" };
	const char *slash = strrchr(path, '/');
	size_t length;

	text_copy(to, n, slash ? slash + 1 : path);
	length = strlen(to);
	for (int i = 0; i < 3; i++) {
		const size_t ending = strlen(endings[i]);

		if (length > ending && strcmp(to + length - ending, endings[i]) == 0) {
			to[length - ending] = 0;
			break;
		}
	}
	return to;
}

int tier_load(struct tier_conn *conn, const char *path, const char *name, unsigned int flags, struct tier_module **ret)
{
	char own[256];
	int fd, r;

	fd = object_of_file(path);
	if (fd < 0)
		return fd;
	r = load_send(conn, fd, name ? name : load_name(path, own, sizeof(own)), flags, ret);
	sys_close(fd);
	return r;
}

int tier_load_bytes(struct tier_conn *conn, const void *bytes, size_t n, const char *name, unsigned int flags,
		    struct tier_module **ret)
{
	int fd, r;

	if (!name)
		return error_set(-EINVAL, "an object without a file needs a name");
	fd = object_of_bytes(bytes, n, name);
	if (fd < 0)
		return fd;
	r = load_send(conn, fd, name, flags, ret);
	sys_close(fd);
	return r;
}

int tier_unload(struct tier_conn *conn, const char *name)
{
	struct wire_module_ref ref = { 0 };
	int r;

	r = module_set_name(&ref, name);
	return r < 0 ? r : conn_ask(conn, WIRE_UNLOAD, &ref, WIRE_DONE, NULL);
}
