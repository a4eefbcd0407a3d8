/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <string.h>
#include "trace/page.h"

/* A site is a function of its own: a nop as long as a call, and a return. The kernel's probes trap on the nop; since 6.18 they
 * turn one of five bytes into a call of their own, a twentieth of the price. What lies between sites must never run. */

#define X86_RET 0xc3
#define X86_INT3 0xcc

void page_fill(uint8_t page[TIER_PROBE_PAGE_SIZE])
{
	static const uint8_t nop5[TIER_PROBE_NOP_SIZE] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };	/* nopl 0(%rax,%rax,1) */

	memset(page, X86_INT3, TIER_PROBE_PAGE_SIZE);
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++) {
		uint8_t *site = page + TIER_PROBE_OFFSET(i);

		memcpy(site, nop5, sizeof(nop5));
		site[sizeof(nop5)] = X86_RET;
	}
	page_describe(page, EM_X86_64, sizeof(nop5) + 1);
}
