/* SPDX-License-Identifier: Apache-2.0 */
#include "bytecode/image.h"
#include "tiering/ledger_shape.h"
#include "unit/tiering/crash.h"

/* A ledger that a later program takes over: converted at whichever instruction the earlier one died, compared field by
 * field with what that one's own successor would have found, and refused with a sentence when it is newer or makes no
 * sense */

#define UID 1000

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t draw(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 16) % n;
}

static void *map(size_t n)
{
	void *memory = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(memory != MAP_FAILED);
	return memory;
}

static size_t size_of(const struct ledger_shape *shape)
{
	struct ledger_place place;

	ledger_place(shape, &place);
	return place.size;
}

/* The next version's: every record has a field more, there is one more table, and more events */
static struct ledger_shape wider(void)
{
	struct ledger_shape shape = ledger_shape;

	for (uint32_t i = 0; i < shape.n_tables; i++) {
		shape.table[i].record_size += 8 * (1 + i % 3);
		shape.table[i].n_max += 100 * i;
	}
	shape.table[shape.n_tables].record_size = 40;
	shape.table[shape.n_tables++].n_max = 10;
	shape.global_size += 16;
	shape.n_events += 1000;
	shape.redo_size += LEDGER_PAGE;
	return shape;
}

/* -- Field by field --- */
static void assert_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(p[i], 0);
}

/* Every row of @to begins with that of @from, and the rest of it is zero. */
static void assert_same_rows(const struct ledger_header *from, const struct ledger_header *to)
{
	struct ledger_place from_place, to_place;

	ledger_place(&from->shape, &from_place);
	ledger_place(&to->shape, &to_place);
	for (uint32_t i = 0; i < to->shape.n_tables; i++) {
		const uint32_t n = i < from->shape.n_tables ? from->shape.table[i].record_size : 0,
		               n_to = to->shape.table[i].record_size;

		assert_int_equal(to->used[i], i < from->shape.n_tables ? from->used[i] : 0);
		for (uint32_t row = 0; row < to->used[i]; row++) {
			const uint8_t *one = (const uint8_t *)from + from_place.tables[i] + (size_t)row * n;
			const uint8_t *two = (const uint8_t *)to + to_place.tables[i] + (size_t)row * n_to;

			assert_memory_equal(one, two, n);
			assert_zero(two + n, n_to - n);
		}
		if (to->used[i] < to->shape.table[i].n_max)
			assert_zero((const uint8_t *)to + to_place.tables[i] + (size_t)to->used[i] * n_to, n_to);
	}
}

/* @from: its last transaction is finished */
static void assert_same(const struct ledger_header *from, const struct ledger_header *to)
{
	struct ledger_place from_place, to_place;
	const struct tier_event *one, *two;

	ledger_place(&from->shape, &from_place);
	ledger_place(&to->shape, &to_place);
	assert_true(to->magic == LEDGER_MAGIC && to->format == LEDGER_FORMAT && to->delivered == from->delivered);
	assert_memory_equal(&to->global, &from->global, from->shape.global_size);
	assert_zero((const uint8_t *)&to->global + from->shape.global_size,
	            to->shape.global_size - from->shape.global_size);
	assert_zero((const uint8_t *)to + to_place.redo, to->shape.redo_size);
	assert_same_rows(from, to);
	one = (const struct tier_event *)((const uint8_t *)from + from_place.events);
	two = (const struct tier_event *)((const uint8_t *)to + to_place.events);
	for (uint64_t i = 0, n = MIN(from->global.sequence, from->shape.n_events); i < n; i++)
		assert_memory_equal(&one[(from->global.sequence - i) % from->shape.n_events],
		                    &two[(from->global.sequence - i) % to->shape.n_events], sizeof(*one));
}

/* -- Dying --- */
static struct fake *dying_fake;
static uint32_t n_deaths, n_unfinished;

/* What a successor of the same version finds is what one of the next version gets; and what it was made of stays as it
 * was. */
static void convert_here(void)
{
	const struct ledger_shape shape = wider();
	const size_t n = size_of(&shape);
	uint8_t *before = fake_memory(), *to = map(n), *from = dying_fake->memory;
	struct refusal why;
	struct ledger own;

	ledger_crash_point = NULL;
	copy_ledger(before, from);
	n_unfinished += ((const struct ledger_redo *)(from + LEDGER_PAGE))->n != 0;
	assert_int_equal(ledger_examine_for(&shape, from, ledger_size(), &why), LEDGER_E_OLDER);
	assert_int_equal(ledger_convert_for(&shape, to, n, from, ledger_size(), &why), 0);
	assert_memory_equal(before, from, LEDGER_PAGE + LEDGER_REDO_SIZE);
	assert_same_rows((const struct ledger_header *)before, (const struct ledger_header *)from);
	assert_int_equal(ledger_open(&own, before, ledger_size()), 0);
	assert_same((const struct ledger_header *)before, (const struct ledger_header *)to);
	assert_int_equal(ledger_examine_for(&shape, to, n, &why), 0);
	munmap(to, n);
	munmap(before, ledger_size());
	n_deaths++;
	ledger_crash_point = convert_here;
}

/* First calls, counting, a promotion, a rejit, a module that goes */
static void live(struct fake *fake)
{
	struct fake_module *fm = fake_load(fake, UID, "m", 3), *other = fake_load(fake, UID + 1, "other", 1);

	fm->inlines[0] = 2;
	for (uint32_t i = 0; i < 3; i++)
		fake_call(fm, i);
	fake_call(other, 0);
	fake_pass(fake, 200);
	fake_calls(fm, 0, FAKE_N);
	fake_calls(fm, 1, FAKE_N);
	fake_end(fake, fm, 0, TIER_REASON_NONE);
	assert_int_equal(core_rejit(fm->module, 1, 1), 0);
	fake_call(fm, 1);
	fake_remove(fake, other);
	assert_int_equal(core_revert(fm->module, 1), 0);
}

static void a_conversion_is_right_wherever_the_predecessor_died(void **state)
{
	dying_fake = *state;
	n_deaths = n_unfinished = 0;
	ledger_crash_point = convert_here;
	live(dying_fake);
	ledger_crash_point = NULL;
	print_message("converted at %u points, %u of them with an unfinished transaction\n", n_deaths, n_unfinished);
	assert_true(n_deaths > 200 && n_unfinished > 50);
}

/* As long as there is no magic, nobody takes it for a ledger. */
static void a_conversion_that_was_never_finished_is_an_empty_ledger(void **state)
{
	struct fake *fake = *state;
	const struct ledger_shape shape = wider();
	const size_t n = size_of(&shape);
	struct ledger_header *to = map(n);
	struct refusal why;

	live(fake);
	assert_int_equal(ledger_convert_for(&shape, to, n, fake->memory, ledger_size(), &why), 0);
	to->magic = 0;
	assert_int_equal(ledger_examine_for(&shape, to, n, &why), LEDGER_E_EMPTY);
	munmap(to, n);
}

static void a_ledger_of_the_same_shape_needs_no_conversion(void **state)
{
	struct fake *fake = *state;
	struct refusal why;

	live(fake);
	assert_int_equal(ledger_examine(fake->memory, ledger_size(), &why), 0);
	assert_string_equal(why.text, "");
}

/* -- Random ledgers --- */
/* One of small tables, which fits a few pages */
static struct ledger_shape small_shape(void)
{
	struct ledger_shape shape = {
	        .n_tables = 1 + draw(LEDGER_TABLES_MAX - 1), .n_events = 1 + draw(50), .redo_size = LEDGER_PAGE};

	shape.global_size = sizeof(struct ledger_global);
	for (uint32_t i = 0; i < shape.n_tables; i++) {
		shape.table[i].record_size = 16 + 8 * draw(20);
		shape.table[i].n_max = 1 + draw(40);
	}
	return shape;
}

static struct ledger_shape grown(struct ledger_shape shape)
{
	shape.global_size += 8 * draw(4);
	shape.n_events += draw(20);
	shape.redo_size += LEDGER_PAGE * draw(2);
	for (uint32_t i = 0; i < shape.n_tables; i++) {
		shape.table[i].record_size += 8 * draw(4);
		shape.table[i].n_max += draw(10);
	}
	if (draw(2)) {
		shape.table[shape.n_tables].record_size = 24;
		shape.table[shape.n_tables++].n_max = 3;
	}
	return shape;
}

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = draw(256);
}

/* An entry of its redo area for a row, or for the global record; returns where the next one goes. */
static uint64_t add_entry(struct ledger_header *header, const struct ledger_place *place, uint64_t at)
{
	struct ledger_redo *redo = (struct ledger_redo *)((uint8_t *)header + place->redo);
	struct ledger_redo_entry *entry = (struct ledger_redo_entry *)(redo->bytes + at);
	const uint32_t table = draw(header->shape.n_tables + 1);

	if (table == header->shape.n_tables || !header->used[table]) {
		entry->offset = offsetof(struct ledger_header, global);
		entry->size = header->shape.global_size;
		memcpy(entry->image, &header->global, entry->size);
		((struct ledger_global *)entry->image)->sequence += draw(2);
		((struct ledger_global *)entry->image)->next_ticket = draw(1000);
	} else {
		entry->size = header->shape.table[table].record_size;
		entry->offset = place->tables[table] + draw(header->used[table]) * entry->size;
		fill(entry->image, entry->size);
	}
	return at + sizeof(*entry) + entry->size;
}

static struct ledger_header *random_ledger(const struct ledger_shape *shape, size_t n)
{
	struct ledger_header *header =
	        aligned_alloc(LEDGER_PAGE, n); /* exactly so many: a sanitizer sees what is beyond */
	struct ledger_place place;

	assert_non_null(header);
	memset(header, 0, n);
	ledger_place(shape, &place);
	*header = (struct ledger_header){
	        .format = LEDGER_FORMAT, .event_size = sizeof(struct tier_event), .shape = *shape};
	for (uint32_t i = 0; i < shape->n_tables; i++) {
		header->used[i] = draw(shape->table[i].n_max + 1);
		fill((uint8_t *)header + place.tables[i], (size_t)header->used[i] * shape->table[i].record_size);
	}
	fill((uint8_t *)header + place.events, shape->n_events * sizeof(struct tier_event));
	header->global.sequence = draw(200);
	header->delivered = header->global.sequence - MIN(header->global.sequence, draw(shape->n_events));
	header->magic = LEDGER_MAGIC;
	return header;
}

static void commit_some(struct ledger_header *header)
{
	struct ledger_place place;
	uint64_t at = 0;

	ledger_place(&header->shape, &place);
	for (uint32_t i = 0, n = draw(6); i < n; i++)
		at = add_entry(header, &place, at);
	((struct ledger_redo *)((uint8_t *)header + place.redo))->n = at;
}

/* As ledger_open() does it, on a copy */
static struct ledger_header *finish(const struct ledger_header *header, size_t n)
{
	struct ledger_header *copy = fake_copy_of(header, n);
	struct ledger_place place;
	struct ledger_redo *redo;

	ledger_place(&header->shape, &place);
	redo = (struct ledger_redo *)((uint8_t *)copy + place.redo);
	for (uint64_t at = 0; at < redo->n;) {
		const struct ledger_redo_entry *entry = (const struct ledger_redo_entry *)(redo->bytes + at);

		memcpy((uint8_t *)copy + entry->offset, entry->image, entry->size);
		at += sizeof(*entry) + entry->size;
	}
	return copy;
}

static void random_ledgers_are_converted_field_by_field(void **state)
{
	const uint32_t n_rounds = getenv("TIER_TEST_LONG") ? 20000 : 400;

	for (uint32_t i = 0; i < n_rounds; i++) {
		const struct ledger_shape shape = small_shape(), next = grown(shape);
		const size_t n = size_of(&shape), n_next = size_of(&next);
		struct ledger_header *header = random_ledger(&shape, n), *to = map(n_next), *before, *finished;
		struct refusal why;

		commit_some(header);
		before = fake_copy_of(header, n);
		finished = finish(header, n);
		assert_int_equal(ledger_convert_for(&next, to, n_next, header, n, &why), 0);
		assert_memory_equal(before, header, n);
		assert_same(finished, to);
		munmap(to, n_next);
		free(finished);
		free(before);
		free(header);
	}
}

/* -- What is refused --- */
static const struct ledger_shape *refusing;

static void assert_refused(struct ledger_header *header, size_t n, const char *sentence)
{
	const size_t n_to = size_of(refusing);
	struct ledger_header *before = fake_copy_of(header, n), *to = map(n_to);
	struct refusal why = {""};

	assert_int_equal(ledger_examine_for(refusing, header, n, &why), -EBADMSG);
	if (!strstr(why.text, sentence))
		fail_msg("'%s' says nothing of '%s'", why.text, sentence);
	assert_int_equal(ledger_convert_for(refusing, to, n_to, header, n, &why), -EBADMSG);
	assert_memory_equal(before, header, n);
	assert_true(!to->magic);
	munmap(to, n_to);
	free(before);
}

static void what_makes_no_sense_is_refused_with_what_it_is(void **state)
{
	struct ledger_shape shape = {
	        .n_tables = 2, .n_events = 4, .redo_size = LEDGER_PAGE, .global_size = sizeof(struct ledger_global)};
	struct ledger_header *header, good;
	size_t n;

	shape.table[0].record_size = 64;
	shape.table[1].record_size = 16;
	shape.table[0].n_max = shape.table[1].n_max = 10;
	n = size_of(&shape);
	refusing = &shape;
	header = random_ledger(&shape, n);
	header->global.sequence = 7;
	header->delivered = 5;
	good = *header;
#define BAD(sentence, field, value)                                                                                    \
	do {                                                                                                           \
		*header = good;                                                                                        \
		header->field = (value);                                                                               \
		assert_refused(header, n, sentence);                                                                   \
	} while (0)
	BAD("no ledger", magic, LEDGER_MAGIC + 1);
	BAD("format 4", format, 4);
	BAD("format 99", format, 99);
	BAD("bytes of an event: 56", event_size, 56);
	BAD("number of tables: 0", shape.n_tables, 0);
	BAD("number of tables: 17", shape.n_tables, LEDGER_TABLES_MAX + 1);
	BAD("0 bytes each", shape.n_tables, 3);
	BAD("newer tierd: number of events: 5, here 4", shape.n_events, 5);
	BAD("number of events: 0", shape.n_events, 0);
	BAD("number of events: 4294967295", shape.n_events, UINT32_MAX);
	BAD("bytes of the redo area: 4097", shape.redo_size, 4097);
	BAD("bytes of the redo area: 4294963200", shape.redo_size, UINT32_MAX - 4095);
	BAD("bytes of the global record: 8", shape.global_size, 8);
	BAD("bytes of the global record: 4088", shape.global_size, 4088);
	BAD("bytes of the record of modules: 72, here 64", shape.table[0].record_size, 72);
	BAD("of 60 bytes each", shape.table[0].record_size, 60);
	BAD("of 8 bytes each", shape.table[0].record_size, 8);
	BAD("of 4294967288 bytes each", shape.table[1].record_size, UINT32_MAX - 7);
	BAD("number of users: 11, here 10", shape.table[1].n_max, 11);
	BAD("cut short", shape.table[1].n_max, 1u << 28);
	BAD("4294967295 users in use", shape.table[1].n_max, UINT32_MAX);
	BAD("11 of 10 modules in use", used[0], 11);
	BAD("event 1 was told of 7", delivered, 1);
	BAD("event 8 was told of 7", delivered, 8);
#undef BAD
	*header = good;
	assert_refused(header, n - 1, "cut short");
	assert_refused(header, 100, "no ledger");
	free(header);
}

static void a_redo_area_that_points_outside_is_refused(void **state)
{
	struct ledger_shape shape = {
	        .n_tables = 1, .n_events = 4, .redo_size = LEDGER_PAGE, .global_size = sizeof(struct ledger_global)};
	const uint64_t first = 3 * LEDGER_PAGE;
	struct ledger_header *header;
	struct ledger_redo *redo;

	shape.table[0].record_size = 64;
	shape.table[0].n_max = 10;
	refusing = &shape;
	header = random_ledger(&shape, size_of(&shape));
	header->used[0] = 5;
	redo = (struct ledger_redo *)((uint8_t *)header + LEDGER_PAGE);
	const uint64_t bad[][3] = {
	        /* bytes, and of the first entry offset and size */
	        {80, first + 5 * 64, 64}, /* a row that was never used */
	        {80, first + 8, 64},      /* in the middle of one */
	        {80, first, 56},          /* not all of one */
	        {88, first, 72},
	        {80, first - 64, 64}, /* an event */
	        {80, 0, 64},          /* the header */
	        {80, UINT64_MAX - 63, 64},
	        {80, LEDGER_PAGE, 64}, /* the redo area itself */
	        {72, first, 64},       /* cut off */
	        {8, first, 64},
	        {80, first, UINT64_MAX - 7},
	        {LEDGER_PAGE, first, 64},
	        {UINT64_MAX, first, 64},
	        {24, offsetof(struct ledger_header, global), 8},
	};
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		redo->n = bad[i][0];
		memcpy(redo->bytes, &bad[i][1], 2 * sizeof(bad[i][1]));
		assert_refused(header, size_of(&shape), "redo area");
	}
	free(header);
}

/* Whatever lies there, nobody reads beyond it. */
static void garbage_is_converted_or_refused_and_no_more(void **state)
{
	const uint32_t n_rounds = getenv("TIER_TEST_LONG") ? 2000000 : 40000;
	const struct ledger_shape shape = small_shape(), next = grown(shape);
	const size_t n = size_of(&shape), n_next = size_of(&next);
	struct ledger_header *header = random_ledger(&shape, n), *to = map(n_next), good;
	uint32_t n_refused = 0;

	commit_some(header);
	good = *header;
	for (uint32_t i = 0; i < n_rounds; i++) {
		uint8_t *redo = (uint8_t *)header + LEDGER_PAGE;
		const uint32_t at = draw(sizeof(*header)), in_redo = draw(200);
		const uint8_t was = redo[in_redo];
		struct refusal why;

		((uint8_t *)header)[at] ^= 1u << draw(8);
		if (draw(2))
			redo[in_redo] ^= 1u << draw(8);
		n_refused += ledger_convert_for(&next, to, n_next, header, n, &why) != 0;
		to->magic = 0;
		*header = good;
		redo[in_redo] = was;
	}
	assert_true(n_refused > n_rounds / 10);
	munmap(to, n_next);
	free(header);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        FAKE_TEST(a_conversion_is_right_wherever_the_predecessor_died),
	        FAKE_TEST(a_conversion_that_was_never_finished_is_an_empty_ledger),
	        FAKE_TEST(a_ledger_of_the_same_shape_needs_no_conversion),
	        cmocka_unit_test(random_ledgers_are_converted_field_by_field),
	        cmocka_unit_test(what_makes_no_sense_is_refused_with_what_it_is),
	        cmocka_unit_test(a_redo_area_that_points_outside_is_refused),
	        cmocka_unit_test(garbage_is_converted_or_refused_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
