/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "trace/page.h"
#include "util/base.h"
#include "util/error.h"

/* The memfd is written once, sealed in every way there is, and reopened read-only through /proc/self/fd. */

#define PAGE_SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

static int page_create(void)
{
	int fd = memfd_create("tier:probes", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

	/* kernels before 6.3 do not know the word, vm.memfd_noexec=2 forbids it: it is about execve(), not mapping */
	if (fd < 0 && (errno == EINVAL || errno == EACCES))
		fd = memfd_create("tier:probes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

int page_new(int *ret_fd)
{
	_cleanup_(closep) int fd = page_create();
	uint8_t bytes[TIER_PROBE_PAGE_SIZE];
	char path[64];
	ssize_t n;
	int r;

	if (fd < 0)
		return error_origin(-errno);
	page_fill(bytes);
	n = pwrite(fd, bytes, sizeof(bytes), 0);
	if (n != (ssize_t)sizeof(bytes))
		return error_origin(n < 0 ? -errno : -EIO);
	if (fchmod(fd, 0600) < 0 || fcntl(fd, F_ADD_SEALS, PAGE_SEALS) < 0)
		return error_origin(-errno);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, O_RDONLY | O_CLOEXEC);
	if (r < 0)
		return error_origin(-errno);
	*ret_fd = r;
	return 0;
}

/* The sites must be ours to the byte, since they run in every client; what describes them may be of another version. */
const char *page_check(int fd)
{
	uint8_t bytes[TIER_PROBE_PAGE_SIZE], ours[TIER_PROBE_PAGE_SIZE];
	const size_t n = sizeof(ours) - TIER_PROBE_HEADER_OFFSET;
	struct stat status;
	int seals;

	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size != (off_t)sizeof(bytes))
		return "it is no file of one page";
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & PAGE_SEALS) != PAGE_SEALS)
		return "it is not sealed";
	if (pread(fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return "it cannot be read";
	page_fill(ours);
	return memcmp(bytes + TIER_PROBE_HEADER_OFFSET, ours + TIER_PROBE_HEADER_OFFSET, n) ? "it has another layout" : NULL;
}

int page_map(uint8_t **ret, int fd)
{
	const size_t n = TIER_PROBE_PAGE_SIZE;
	uint8_t *room = mmap(NULL, 3 * n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int r;

	if (room == MAP_FAILED)
		return error_origin(-errno);
	/* An optimized site calls into a trampoline that the kernel does not copy at fork: a child must not inherit it. */
	if (mmap(room + n, n, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED
	    || madvise(room + n, n, MADV_DONTFORK) < 0) {
		r = -errno;
		munmap(room, 3 * n);
		return error_origin(r);
	}
	*ret = room + n;
	return 0;
}

void page_unmap(uint8_t *page)
{
	if (page)
		munmap(page - TIER_PROBE_PAGE_SIZE, 3 * TIER_PROBE_PAGE_SIZE);
}
