/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include "connection.h"
#include "sys.h"

/* Private, because the kernel probes no shared mappings. Not inherited by forks: a site that the kernel has optimized is a
 * call into a page that fork does not copy (DESIGN §3).
 *
 * A successor of the daemon may hand out the page of its predecessor, which is mapped already, or another one. Older pages stay
 * as long as the connection: a thread may be on its way into one. What lies there is code in any case, and a call that the
 * kernel does not see any more is a bell that got lost.
 *
 *	| struct probe_page | guard | sites | guard |		pages */

/* A page that another version made has its sites elsewhere: then there is the socket. */
static bool probe_is_known(const uint8_t *sites)
{
	const struct tier_probe_header *header = (const void *)(sites + TIER_PROBE_HEADER_OFFSET);

	return header->magic == TIER_PROBE_MAGIC && header->version == TIER_PROBE_VERSION && header->n_slots >= TIER_PROBE_SLOTS;
}

static struct probe_page *probe_find(struct probe_page *page, const struct stat *status)
{
	while (page && (page->device != status->st_dev || page->inode != status->st_ino))
		page = page->older;
	return page;
}

static struct probe_page *probe_map_new(int fd, const struct stat *status)
{
	const size_t n = 4 * TIER_PROBE_PAGE_SIZE;
	uint8_t *span;
	void *head, *sites;

	span = sys_mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_error(span))
		return NULL;
	head = sys_mmap(span, TIER_PROBE_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	sites = sys_mmap(span + 2 * TIER_PROBE_PAGE_SIZE, TIER_PROBE_PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
	if (sys_is_error(head) || sys_is_error(sites) || sys_madvise(span, n, MADV_DONTFORK) < 0 || !probe_is_known(sites)) {
		sys_munmap(span, n);
		return NULL;
	}
	*(struct probe_page *)head = (struct probe_page){ .device = status->st_dev, .inode = status->st_ino, .sites = sites };
	return head;
}

struct probe_page *probe_map(struct probe_page **pages, int fd)
{
	struct probe_page *page;
	struct stat status;

	if (sys_fstat(fd, &status) < 0 || status.st_size < (off_t)TIER_PROBE_PAGE_SIZE)
		return NULL;
	page = probe_find(*pages, &status);
	if (page)
		return page;
	page = probe_map_new(fd, &status);
	if (page) {
		page->older = *pages;
		*pages = page;
	}
	return page;
}

void probe_unmap_all(struct probe_page **pages)
{
	while (*pages) {
		struct probe_page *const page = *pages;

		*pages = page->older;
		sys_munmap(page, 4 * TIER_PROBE_PAGE_SIZE);
	}
}
