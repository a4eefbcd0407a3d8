/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/agree.h"
#include "util/base.h"

bool agree_sites(const struct profile_count *a, const struct profile_count *b, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (a[i].pc != b[i].pc || a[i].kind != b[i].kind || b[i].m > b[i].n || b[i].reserved
		    || (b[i].kind != PROFILE_CALLX && b[i].method != a[i].method))
			return false;
	return true;
}

/* a / b and c / d, as one is to the other; nothing is divided by what may be 0 */
static bool are_near(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	const unsigned __int128 x = (unsigned __int128)a * d, y = (unsigned __int128)c * b;

	return x > y ? 4 * (x - y) <= x : 4 * (y - x) <= y;
}

/* Of what was executed: a part, so the difference of the parts counts. */
static bool branches_agree(const struct profile_count *own, const struct profile_count *old)
{
	const unsigned __int128 x = (unsigned __int128)own->m * old->n, y = (unsigned __int128)old->m * own->n;

	return 4 * (x > y ? x - y : y - x) <= (unsigned __int128)own->n * old->n;
}

static bool is_devirtualized(const struct profile_count *count)
{
	return count->n && count->m >= count->n / 4 && count->method != PROFILE_NO_METHOD;
}

static bool targets_agree(const struct profile_count *own, const struct profile_count *old)
{
	if (!is_devirtualized(own))
		return !is_devirtualized(old);
	return is_devirtualized(old) && own->method == old->method;
}

static bool site_agrees(const struct profile_count *own, const struct profile_count *old, uint32_t entries, uint32_t old_entries)
{
	if (own->n < AGREE_SEEN)
		return true;
	if (!old->n)
		return false;
	switch (own->kind) {
	case PROFILE_BRANCH:
		return branches_agree(own, old);
	case PROFILE_CALLX:
		return targets_agree(own, old) && are_near(own->n, entries, old->n, old_entries);
	case PROFILE_CALL:
		return are_near(own->n, entries, old->n, old_entries);
	default:
		return true;
	}
}

bool agree(const struct profile_count *own, const struct profile_count *old, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (!site_agrees(&own[i], &old[i], own[0].n, old[0].n))
			return false;
	return true;
}

static uint32_t add(uint32_t a, uint32_t b)
{
	return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

static void add_votes(struct profile_count *own, const struct profile_count *old)
{
	if (own->kind != PROFILE_CALLX || own->method == old->method) {
		own->m = add(own->m, old->m);
	} else if (old->m > own->m) {
		own->method = old->method;
		own->m = old->m - own->m;
	} else {
		own->m -= old->m;
	}
}

void agree_add(struct profile_count *own, const struct profile_count *old, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		own[i].n = add(own[i].n, old[i].n);
		add_votes(&own[i], &old[i]);
		own[i].m = MIN(own[i].m, own[i].n);
	}
}
