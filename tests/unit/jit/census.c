/* SPDX-License-Identifier: Apache-2.0 */
/* What instrumented code should have counted, by the interpreter: included behind world.c
 *
 * The words are in the order of the module's cells, so that both can be compared as they are. */

struct census {
	struct world *world;
	uint32_t cells[WORLD_CELLS + WORLD_PROFILES];
	uint32_t hits[WORLD_PATCHPOINTS];	/* how often each loop's head was reached */
};
static struct census census;

static void census_vote(uint32_t *words, const struct profile_site *site, uint64_t value)
{
	uint64_t target;

	memcpy(&target, &words[profile_target(site)], sizeof(target));
	if (!words[site->word + 1]) {
		memcpy(&words[profile_target(site)], &value, sizeof(value));
		words[site->word + 1] = 1;
	} else if (target == value) {
		words[site->word + 1]++;
	} else {
		words[site->word + 1]--;
	}
}

static void census_count(uint32_t *words, const struct profile_site *site, const struct insn *insn, const uint64_t *reg)
{
	const uint64_t operand = BPF_SRC(insn->code) == BPF_X ? reg[insn->src] : (uint64_t)(int64_t)insn->imm;

	words[site->word]++;
	if (site->kind == PROFILE_BRANCH)
		words[site->word + 1] += reference_holds(insn, reg[insn->dst], operand);
	if (site->kind == PROFILE_CALLX)
		census_vote(words, site, reg[insn->dst]);
}

static void census_entered(void *userdata, uint32_t method)
{
	struct world *w = userdata;

	if (w->profiles)
		census.cells[w->profile_cell[method]]++;
}

static bool census_step(void *userdata, uint32_t method, uint32_t pc, const uint64_t reg[_INSN_REG_N], uint64_t *ret)
{
	struct world *w = userdata;
	const struct profile_map *map = w->profile[method];

	for (uint32_t i = 1; w->profiles && i < map->n_sites; i++)
		if (map->sites[i].pc == pc)
			census_count(&census.cells[w->profile_cell[method]], &map->sites[i],
				     &image_method_insns(&w->image, method)[pc], reg);
	for (uint32_t i = 0; i < w->n_patchpoints; i++)
		if (world_patchpoint(w, i)->method == method && world_patchpoint(w, i)->pc == pc)
			census.hits[i]++;
	return false;
}

/* Interprets method 0; every count begins at 0, those of the compiled code, too. */
static uint64_t census_take(struct world *w, const uint64_t args[5])
{
	struct reference reference = world_reference(w);
	uint64_t result = 0;

	reference.entered = census_entered;
	reference.leave = census_step;
	memset(&census, 0, sizeof(census));
	memset(world_cells(w), 0, sizeof(census.cells));
	memset(world_hits(w), 0, sizeof(census.hits));
	if (!reference_call(&reference, 0, args, &result))
		fail_msg("the reference gave up: %s", reference.fault);
	return result;
}

/* Whether the compiled code has counted the same: the index of the first cell that differs, or -1 */
static int64_t census_difference(const struct world *w)
{
	for (uint32_t i = 0; i < ARRAY_SIZE(census.cells); i++)
		if (world_cells(w)[i] != census.cells[i])
			return i;
	return -1;
}
