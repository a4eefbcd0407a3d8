/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "ctl.h"
#include "journal_file.h"
#include "table.h"

/* Checks a journal's folder without its daemon: each segment by itself, then that each goes on where the one before ends. */

#define DEFAULT_FOLDER "/var/lib/tierd/journal"

struct totals {
	uint64_t n_events, n_missing;
	unsigned int n_segments, n_problems;
	uint64_t last;		/* of the segment before; 0: none */
	bool is_last_known;	/* the segment before is whole */
};

static int is_segment(const struct dirent *entry)
{
	const char *suffix;

	return tier_segment_parse(entry->d_name, &suffix) && strcmp(suffix, TIER_SEGMENT_NEW_SUFFIX);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* What is wrong between this segment and the one before; a deflated one beside its raw one is how a crash leaves them. */
static void check_order(const struct totals *totals, struct journal_file *file)
{
	if (!totals->n_segments || *file->problem)
		return;
	if (file->first <= totals->last)
		snprintf(file->problem, sizeof(file->problem), "it begins before the segment before it ends");
	else if (totals->is_last_known && file->gap_first != totals->last + 1)
		snprintf(file->problem, sizeof(file->problem), "events %llu to %llu are missing and not marked",
			 (unsigned long long)totals->last + 1, (unsigned long long)file->gap_first - 1);
}

static void row(struct table *table, const char *name, const struct journal_file *file)
{
	char gap[48];

	snprintf(gap, sizeof(gap), "%llu-%llu", (unsigned long long)file->gap_first, (unsigned long long)file->first - 1);
	table_row(table);
	table_text(table, name);
	table_text(table, file->is_deflated ? "deflated" : "raw");
	table_number(table, file->first);
	table_number(table, file->last);
	table_number(table, file->last + 1 - file->first);
	table_number(table, file->n_bytes);
	table_text(table, file->gap_first < file->first ? gap : NULL);
	table_text(table, *file->problem ? file->problem : NULL);
}

static void add(struct totals *totals, const struct journal_file *file)
{
	totals->n_segments++;
	totals->n_events += file->last + 1 - file->first;
	totals->n_missing += file->first - file->gap_first;
	totals->n_problems += *file->problem != '\0';
	totals->last = file->last;
	totals->is_last_known = !*file->problem;
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void totals_print(const struct totals *totals)
{
	printf("%u segment%s, %llu event%s, %llu missing in marked gaps, %u problem%s\n", totals->n_segments,
	       plural(totals->n_segments), (unsigned long long)totals->n_events, plural(totals->n_events),
	       (unsigned long long)totals->n_missing, totals->n_problems, plural(totals->n_problems));
}

/* A raw segment beside the deflated one: a daemon that starts there takes one of them away. */
static bool is_copy(struct dirent *const *entries, int n, int i)
{
	return i + 1 < n && !strncmp(entries[i]->d_name, entries[i + 1]->d_name, TIER_SEGMENT_DIGITS);
}

/* A daemon may work in the folder: what was raw a moment ago is deflated by now. */
static bool check_file(struct journal_file *file, int folder, char name[static TIER_SEGMENT_NAME_MAX])
{
	if (journal_file_check(file, folder, name))
		return true;
	if (errno != ENOENT || strcmp(name + TIER_SEGMENT_DIGITS, TIER_SEGMENT_RAW_SUFFIX))
		return false;
	strcpy(name + TIER_SEGMENT_DIGITS, TIER_SEGMENT_DEFLATED_SUFFIX);
	return journal_file_check(file, folder, name);
}

static int verify(struct ctl *ctl, const char *path, DIR *folder, struct dirent **entries, int n)
{
	static const struct column columns[] = {
		{ "segment", COLUMN_TEXT }, { "coding", COLUMN_TEXT }, { "first", COLUMN_NUMBER }, { "last", COLUMN_NUMBER },
		{ "events", COLUMN_NUMBER }, { "file_bytes", COLUMN_NUMBER }, { "gap", COLUMN_TEXT }, { "problem", COLUMN_TEXT },
	};
	struct table *table = table_new("segments", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	struct totals totals = { 0 };
	int r = CTL_DONE;

	for (int i = 0; i < n; i++) {
		struct journal_file file;
		char name[TIER_SEGMENT_NAME_MAX];

		strcpy(name, entries[i]->d_name);	/* is_segment() knows its length */
		if (is_copy(entries, n, i) && (!journal_file_check(&file, dirfd(folder), name) || !*file.problem))
			continue;
		if (!check_file(&file, dirfd(folder), name)) {
			if (errno != ENOENT || totals.n_segments)	/* the oldest may be gone by now */
				r = fail("%s/%s: %s", path, name, strerror(errno));
			continue;
		}
		check_order(&totals, &file);
		row(table, name, &file);
		add(&totals, &file);
	}
	table_end(table);
	if (!ctl->json)
		totals_print(&totals);
	return r ? r : totals.n_problems ? CTL_UNMET : CTL_DONE;
}

int cmd_journal(struct ctl *ctl)
{
	const char *path = ctl->n_args > 1 ? ctl->args[1] : DEFAULT_FOLDER;
	struct dirent **entries;
	DIR *folder;
	int n, r;

	if (strcmp(ctl->args[0], "verify"))
		return fail("journal: '%s' is no command; the one there is is 'tierctl journal verify [DIR]'", ctl->args[0]);
	folder = opendir(path);
	n = folder ? scandir(path, &entries, is_segment, by_name) : -1;
	if (n < 0) {
		r = fail("%s: %s%s", path, strerror(errno),
			 ctl->n_args > 1 ? "" : "; name the folder that tierd was given with --journal");
	} else if (!n && faccessat(dirfd(folder), TIER_NUMBERS_NAME, F_OK, 0)) {
		r = fail("%s: there is no journal in this folder", path);
		free(entries);
	} else {
		r = verify(ctl, path, folder, entries, n);
		while (n)
			free(entries[--n]);
		free(entries);
	}
	if (folder)
		closedir(folder);
	return r;
}
