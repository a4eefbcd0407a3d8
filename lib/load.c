/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "error.h"
#include "module.h"
#include "sys.h"

/* Loading: the object travels as a memfd that nobody can change any more, so what the worker reads is what was checked. */

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define OBJECT_MAX (1ull << 30)	/* more than any daemon takes; stops a read from /dev/zero */

static int object_new(void)
{
	int fd;

	fd = memfd_create("tier:object", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("tier:object", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return error_set(-errno, "cannot make a memory file: %s", error_word(-errno));
	return fd;
}

static int object_write(int fd, const char *bytes, size_t n)
{
	while (n) {
		const long written = sys_write(fd, bytes, n);

		if (written < 0 && written != -EINTR)
			return error_set(written, "cannot copy the object: %s", error_word(written));
		if (written > 0) {
			bytes += written;
			n -= written;
		}
	}
	return 0;
}

static int object_copy(int fd, int from, const char *path)
{
	char bytes[16384];
	uint64_t n = 0;
	long got;
	int r;

	while ((got = sys_read(from, bytes, sizeof(bytes))) != 0) {
		if (got == -EINTR)
			continue;
		if (got < 0)
			return error_set(got, "cannot read '%s': %s", path, error_word(got));
		n += got;
		if (n > OBJECT_MAX)
			return error_set(-EFBIG, "'%s' is larger than 1 GiB", path);
		r = object_write(fd, bytes, got);
		if (r < 0)
			return r;
	}
	return n ? 0 : error_set(-ENOEXEC, "'%s' is empty", path);
}

/* Leaves no name behind when the module cannot be opened, so that the same load can be tried again. */
static int object_open(struct tier_conn *conn, const struct wire_module_ref *loaded, struct tier_module **ret)
{
	char text[WIRE_TEXT_MAX];
	int r;

	r = module_open(conn, loaded, ret);
	if (r < 0) {
		text_copy(text, sizeof(text), tier_error_text());
		conn_ask(conn, WIRE_UNLOAD, loaded, WIRE_DONE, NULL);
		error_set(r, "%s", text);
	}
	return r;
}

static int object_load(struct tier_conn *conn, int fd, const char *name, unsigned int flags, struct tier_module **ret)
{
	struct wire_load load = { .flags = flags & TIER_LOAD_SHARED ? WIRE_LOAD_SHARED : 0 };
	struct wire_module_ref ref = { 0 };
	int r;

	if (flags & ~(unsigned int)TIER_LOAD_SHARED)
		return error_set(-EINVAL, "unknown load flags 0x%x", flags);
	r = module_set_name(&ref, name);
	if (r < 0)
		return r;
	text_copy(load.name, sizeof(load.name), name);
	if (sys_fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return error_set(-EPERM, "cannot seal the copy of the object");
	r = conn_request(conn, &(struct request){ .type = WIRE_LOAD, .body = &load, .fd = fd, .reply_type = WIRE_LOADED,
						  .reply = &ref });
	if (r < 0 || !ret)
		return r;
	return object_open(conn, &ref, ret);
}

/* "dir/filter.bpf.o" is "filter". */
static const char *object_name(const char *path, char *to, size_t n)
{
	static const char *const endings[] = { ".bpf.o", ".o" };
	const char *slash = strrchr(path, '/');
	size_t length;

	text_copy(to, n, slash ? slash + 1 : path);
	length = strlen(to);
	for (int i = 0; i < 2; i++) {
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
	int fd, from, r;

	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return error_set(-errno, "cannot open '%s': %s", path, error_word(-errno));
	fd = object_new();
	r = fd < 0 ? fd : object_copy(fd, from, path);
	if (!r)
		r = object_load(conn, fd, name ? name : object_name(path, own, sizeof(own)), flags, ret);
	if (fd >= 0)
		sys_close(fd);
	sys_close(from);
	return r;
}

int tier_load_bytes(struct tier_conn *conn, const void *bytes, size_t n, const char *name, unsigned int flags,
		    struct tier_module **ret)
{
	int fd, r;

	if (!name)
		return error_set(-EINVAL, "an object without a file needs a name");
	fd = object_new();
	if (fd < 0)
		return fd;
	r = n ? object_write(fd, bytes, n) : error_set(-ENOEXEC, "the object '%s' is empty", name);
	if (!r)
		r = object_load(conn, fd, name, flags, ret);
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
