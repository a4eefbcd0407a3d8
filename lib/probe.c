/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include "connection.h"
#include "sys.h"

/* A page that another version made has its sites elsewhere: then there is the socket. */
static bool probe_is_known(const uint8_t *page)
{
	const struct tier_probe_header *header = (const void *)(page + TIER_PROBE_HEADER_OFFSET);

	return header->magic == TIER_PROBE_MAGIC && header->version == TIER_PROBE_VERSION && header->n_slots >= TIER_PROBE_SLOTS;
}

/* Private, because the kernel probes no shared mappings. Not inherited by forks: a site that the kernel has optimized is a
 * call into a page that fork does not copy (DESIGN §3). */
uint8_t *probe_map(int fd)
{
	const size_t n = 3 * TIER_PROBE_PAGE_SIZE;
	struct stat status;
	uint8_t *guard;
	void *page;

	if (sys_fstat(fd, &status) < 0 || status.st_size < (off_t)TIER_PROBE_PAGE_SIZE)
		return NULL;
	guard = sys_mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_error(guard))
		return NULL;
	page = sys_mmap(guard + TIER_PROBE_PAGE_SIZE, TIER_PROBE_PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
	if (sys_is_error(page) || sys_madvise(guard, n, MADV_DONTFORK) < 0 || !probe_is_known(page)) {
		sys_munmap(guard, n);
		return NULL;
	}
	return page;
}

void probe_unmap(uint8_t *probes)
{
	if (probes)
		sys_munmap(probes - TIER_PROBE_PAGE_SIZE, 3 * TIER_PROBE_PAGE_SIZE);
}
