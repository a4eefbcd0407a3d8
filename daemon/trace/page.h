/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The probe page: a sealed memfd of probe sites (tier/events.h), one for all clients, like a vDSO
 *
 * Nobody can change it once it exists, the daemon included. It is executed from private mappings: the kernel puts its
 * probes into private copies only. */

#include <stdint.h>
#include "tier/events.h"

/* Makes the page. Returns 0 and a read-only descriptor that the caller owns, or -errno. */
int page_new(int *ret_fd);
/* Whether @fd is a page as page_new() makes them, of this version of tierd or another: NULL, or what is wrong with it. */
const char *page_check(int fd);

/* Maps it into this process, r-x, a page that nobody can touch on each side; the mapping does not survive fork. Returns 0
 * and the page's address, or -errno. page_unmap() takes NULL. */
int page_map(uint8_t **ret, int fd);
void page_unmap(uint8_t *page);

static inline uint8_t *page_site(uint8_t *page, enum tier_probe probe)
{
	return page + TIER_PROBE_OFFSET(probe);
}

/* The machine's part (page_x86_64.c): fills @page with the sites, and with traps between them. */
void page_fill(uint8_t page[TIER_PROBE_PAGE_SIZE]);
/* Adds what describes sites of @n_code bytes (page_elf.c). @machine: EM_*. */
void page_describe(uint8_t page[TIER_PROBE_PAGE_SIZE], uint16_t machine, uint32_t n_code);
