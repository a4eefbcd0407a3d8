/* SPDX-License-Identifier: Apache-2.0 */
/* Code that the object brought along (worker/precompiled.h)
 *
 * It is looked at while the module is built, and placed method by method at their first calls. Its place in the code
 * segment is what first calls leave, like that of any optimized code: whoever finds none starts at tier 0. */
#include <errno.h>
#include <string.h>
#include "host.h"
#include "util/base.h"
#include "util/error.h"

void host_find_precompiled(struct host *host, const struct compiler *compiler)
{
	const struct tier_layout *layout = arena_layout(host->arena);
	const struct precompiled_place place = {
		.slots = layout->n_slots ? layout->slots - layout->rodata : 0,
		.n_slots = layout->n_slots,
		.call_cells = layout->n_slots ? layout->call_cells - layout->rodata : 0,
	};
	struct refusal why;

	if (!host->image.n_precompiled)
		return;
	if (!precompiled_check(&host->precompiled, &host->image, compiler, &place, &why))
		refuse(&host->unfit, "its precompiled code is not used: %.300s", why.text);
}

/* It knows the methods' own bodies only. */
bool host_has_precompiled(const struct host *host, uint32_t method)
{
	struct code_result code;

	if (!precompiled_has(&host->precompiled, method) || host_body_current(host, method))
		return false;
	if (!host->bodies)
		return true;
	precompiled_get(&host->precompiled, method, &code);
	for (uint32_t i = 0; i < code.n_inlined; i++)
		if (host_body_current(host, code.inlined[i]))
			return false;
	return true;
}

int host_ready_to_run(struct host *host, uint32_t method, struct core_result *ret)
{
	struct code_result code;
	struct refusal refusal;

	precompiled_get(&host->precompiled, method, &code);
	free((void *)TAKE_PTR(host->first_sites));
	switch (host_place_code(host, &code, ret, &refusal)) {
	case TIER_REASON_NONE:
		host->first_sites = ret->sites;
		return 0;
	case TIER_REASON_ARENA_FULL:
		return CORE_E_FULL;
	default:
		return error_origin(-EBADMSG);
	}
}
