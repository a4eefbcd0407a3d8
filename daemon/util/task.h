/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Work off the loop: one background thread, completions back in the loop
 *
 * A struct task is embedded in the object that it works for. task_submit() puts it in line; the thread calls run(task),
 * in order of submission, with all signals blocked; then the loop calls done(task), one completion per callback, so that
 * none makes a turn long. Between submit and done the task belongs to the thread: its object must stay, and what run()
 * touches must not be touched by the loop.
 *
 * Every submitted task ends with exactly one done(): task_thread_free() lets the running one finish and calls done() for
 * all that are left, with task->ran false for those that never ran. The exception is task_thread_abandon(). */

#include <stdbool.h>
#include "util/dispatch.h"
#include "util/list.h"

struct task;
struct task_thread;
typedef void (*task_fn)(struct task *task);

struct task {
	struct list link;
	task_fn run;		/* in the thread */
	task_fn done;		/* in the loop; may free the task's object or submit it again */
	bool under_way;		/* the loop's: from submit until done() is called */
	bool ran;		/* valid in done() */
};
#define TASK_NULL(x) { .link = LIST_INIT((x).link) }

/* @name: a literal, at most 15 bytes: the thread's name, and the completions' in the loop. 0 or -errno. */
int task_thread_new(struct task_thread **ret, struct dispatch *dispatch, const char *name);
struct task_thread *task_thread_free(struct task_thread *thread);	/* NULL is fine; not from inside done() */
/* For work that may never end: leaves the thread to what it has, until the process exits. No done() will be called; the
 * tasks stay the thread's for good. */
void task_thread_abandon(struct task_thread *thread);

/* The task must not be under way. Never fails; from the loop only. */
void task_submit(struct task_thread *thread, struct task *task, task_fn run, task_fn done);
