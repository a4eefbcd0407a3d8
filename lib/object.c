/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "error.h"
#include "object.h"
#include "sys.h"

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

/* Takes @fd; @r is how filling it went. */
static int object_seal(int fd, int r)
{
	if (!r && sys_fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		r = error_set(-EPERM, "cannot seal the copy of the object");
	if (!r)
		return fd;
	sys_close(fd);
	return r;
}

int object_of_file(const char *path)
{
	int fd, from, r;

	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return error_set(-errno, "cannot open '%s': %s", path, error_word(-errno));
	fd = r = object_new();
	if (fd >= 0)
		r = object_seal(fd, object_copy(fd, from, path));
	sys_close(from);
	return r;
}

int object_of_bytes(const void *bytes, size_t n, const char *name)
{
	int fd;

	fd = object_new();
	if (fd < 0)
		return fd;
	return object_seal(fd, n ? object_write(fd, bytes, n) : error_set(-ENOEXEC, "the object '%s' is empty", name));
}
