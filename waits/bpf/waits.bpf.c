// SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only
/*
 * Where the time of PHP workers goes: on a CPU, waiting for one, or blocked, and then in
 * what and by which line of PHP. Two programs, run by the scheduler, and one that runs at
 * times; unless asked for, nothing is attached to system calls, and no process is ever stopped.
 *
 *   sched_switch, the worker leaves a CPU   from here on it is blocked, or runnable; what
 *                                           it waits in and PHP's stack are noted now,
 *                                           while its memory is the current one
 *   sched_wakeup of the worker              blocked until here, runnable from here on
 *   sched_switch, the worker gets a CPU     a wait that was long enough is sent
 *   a CPU's clock, which mostly stands still  the stack of the worker on it is sent
 *   a system call begins, ends               counted; only if somebody has asked for that
 *
 * The first three run under the lock of the worker's run queue (kernel/sched/core.c: __schedule,
 * ttwu_do_wakeup), and a worker is on one queue at a time, so they never run at the same
 * time for the same worker and need no lock of their own. Each adds the time since the
 * one before: the sum of all times is the time since the first, by construction.
 *
 * Nothing here waits: memory that is not there is left out (flags say so), a ring without
 * room is counted. What a worker can write (its page, all PHP structures) decides at most
 * what is reported of that worker.
 *
 * A worker is a process's first thread, known by task storage: that is right in any pid
 * namespace, costs other tasks one look at a pointer, and goes away with the task.
 *
 * Read from the bottom up: the programs, enter and leave; then describe in wait.h and
 * walk in stack.h.
 */
#include "kernel.h"
#include "maps.h"
#include "stack.h"
#include "types.h"
#include "wait.h"
#include "traffic.h"

/* The verifier gives probe_read helpers only to what is also under the GPL. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* === Times === */

/*
 * Readers copy while the number is even and the same before and after. x86 keeps the
 * order of stores; elsewhere an exchange does.
 */
static ALWAYS_INLINE void store_in_order(u64 *place, u64 value)
{
#if defined(__TARGET_ARCH_x86)
	asm volatile("" ::: "memory");
	*(volatile u64 *)place = value;
	asm volatile("" ::: "memory");
#else
	u64 old = __sync_lock_test_and_set(place, value);

	FORGET(old);
#endif
}

static ALWAYS_INLINE void step(struct gp_worker *worker, struct gp_page *page)
{
	u64 next = worker->sequence + 1;

	store_in_order(&worker->sequence, next);
	store_in_order(&page->sequence, next);
}

/* What has passed belongs to the state that ends; the next one begins. */
static ALWAYS_INLINE void change(struct gp_times *times, u32 state, u32 cause, u64 now)
{
	u64 passed = now - times->since_ns;
	u32 was = times->cause;

	switch (times->state) {
	case GP_STATE_UNKNOWN:
		/*
		 * Accounted for from its registration on only if user space says so: then it
		 * has had a CPU until it leaves one, or has had none until it gets one.
		 */
		if (!times->began_ns)
			times->began_ns = now;
		else if (state == GP_STATE_ON_CPU)
			times->runqueue_ns += passed;
		else
			times->on_cpu_ns += passed;
		break;
	case GP_STATE_ON_CPU:
		times->on_cpu_ns += passed;
		break;
	case GP_STATE_RUNQUEUE:
		times->runqueue_ns += passed;
		break;
	case GP_STATE_BLOCKED:
		FORGET(was);
		if (was < GP_CAUSES)
			times->blocked_ns[was] += passed;
		break;
	}
	times->state = state;
	times->cause = cause;
	times->since_ns = now;
}

/* The clocks of two CPUs may differ by some nanoseconds. */
static ALWAYS_INLINE u64 not_before(const struct gp_times *times, u64 now)
{
	return now < times->since_ns ? times->since_ns : now;
}

/* Puts a record into the ring. Not 0 if there is no room, which is counted. */
static ALWAYS_INLINE long send(struct gp_wait *record)
{
	u64 frames = record->frame_count;
	u64 flags = BPF_RB_NO_WAKEUP;
	long refused;

	FORGET(frames);
	if (frames > GP_FRAMES)
		frames = GP_FRAMES;
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= ring_wake_bytes)
		flags = BPF_RB_FORCE_WAKEUP;
	refused = bpf_ringbuf_output(&events, record, GP_WAIT_HEAD_BYTES + frames * GP_FRAME_BYTES, flags);
	if (refused)
		count(GP_COUNT_RING_FULL);
	return refused;
}

/* Sends the wait that has ended, if there is one and it was long enough. */
static ALWAYS_INLINE void send_if_long(struct gp_worker *worker)
{
	struct gp_wait *wait = &worker->wait;

	if (!worker->waiting)
		return;
	worker->waiting = 0;
	/* An idle worker waits for a request, and not for anything in one. */
	if (wait->blocked_ns < wait_threshold_ns || (!wait->frame_count && !wait->request))
		return;
	if (send(wait))
		worker->times.lost++;
	else
		worker->times.written++;
}

/*
 * Some switches and wakeups are not told. Of Linux 6.18 in a sandbox those are what happens
 * while one of the sandbox's own threads has the CPU; perf misses the same ones. So a worker
 * leaves a CPU that, as far as we know, it never got; or gets one without having been woken.
 *
 * When it leaves, the scheduler itself has added up what happened since it left the last
 * time (sched_info_arrive in kernel/sched/stats.h, update_curr in kernel/sched/fair.c): how
 * long it waited for a CPU, and how long it ran. The times are made right by that, and a
 * wait that has ended is told.
 */
static ALWAYS_INLINE void settle(struct gp_worker *worker, u64 delay, u64 ran, u64 now)
{
	struct gp_times *times = &worker->times;
	u64 left = now - times->since_ns;
	u32 cause = times->cause;

	switch (times->state) {
	case GP_STATE_RUNQUEUE:
		if (delay > left)
			delay = left;
		break;
	case GP_STATE_BLOCKED:
		/* Neither woken nor put on a CPU. */
		if (ran > left)
			ran = left;
		left -= ran;
		if (delay > left)
			delay = left;
		left -= delay;
		worker->wait.blocked_ns = left;
		FORGET(cause);
		if (cause < GP_CAUSES)
			times->blocked_ns[cause] += left;
		times->since_ns += left;
		break;
	default:
		if (!worker->unsettled)
			return;
		/* Not woken: what seemed to be all blocked was runnable in the end. */
		cause = worker->unsettled - 1;
		if (delay > worker->wait.blocked_ns)
			delay = worker->wait.blocked_ns;
		worker->wait.blocked_ns -= delay;
		FORGET(cause);
		if (cause < GP_CAUSES)
			times->blocked_ns[cause] -= delay;
		/* Was added to the block's time up to since_ns, and is added to the queue's below. */
		times->since_ns -= delay;
	}
	count(GP_COUNT_MISSED);
	worker->unsettled = 0;
	worker->wait.runqueue_ns = delay;
	times->runqueue_ns += delay;
	times->since_ns += delay;
	times->state = GP_STATE_ON_CPU;
	send_if_long(worker);
}

/* The worker is put off a CPU. */
static ALWAYS_INLINE void leave(struct gp_worker *worker, struct gp_page *page,
				struct task_struct *task, int preempted)
{
	struct gp_times *times = &worker->times;
	u64 now = not_before(times, bpf_ktime_get_ns());
	/*
	 * Not the tracepoint's argument: until 6.13 it was read before a pending signal
	 * made the task runnable again.
	 */
	u32 state = task->__state;
	u64 delay = HAS_FIELD(task->sched_info.run_delay) ? task->sched_info.run_delay : 0;
	u64 ran = task->se.sum_exec_runtime;
	u32 cause;

	step(worker, page);
	if (times->state != GP_STATE_UNKNOWN)
		settle(worker, delay - worker->run_delay, ran - times->ran_ns, now);
	worker->run_delay = delay;
	times->ran_ns = ran;
	if (preempted || !state) {
		change(times, GP_STATE_RUNQUEUE, 0, now);
	} else {
		worker->wait.worker = worker->worker;
		worker->wait.slot = worker->slot;
		worker->wait.request = page->request;
		worker->wait.began_ns = now;
		worker->wait.blocked_ns = 0;
		worker->wait.runqueue_ns = 0;
		walk_stack(worker, &worker->walk, &worker->wait, worker->wait.request);
		cause = describe(worker, task, state);
		if (worker->wait.fd >= 0 && page->connection == (u64)worker->wait.fd + 1)
			worker->wait.flags |= GP_WAIT_OWN;
		worker->waiting = 1;
		change(times, GP_STATE_BLOCKED, cause, now);
		times->waits++;
	}
	page->times = *times;
	step(worker, page);
}

/* The worker is put on a CPU. Its memory is not there yet. */
static ALWAYS_INLINE void enter(struct gp_worker *worker, struct gp_page *page)
{
	struct gp_times *times = &worker->times;
	struct gp_wait *wait = &worker->wait;
	u64 now = not_before(times, bpf_ktime_get_ns());

	step(worker, page);
	switch (times->state) {
	case GP_STATE_RUNQUEUE:
		wait->runqueue_ns = now - times->since_ns;
		send_if_long(worker);
		break;
	case GP_STATE_BLOCKED:
		wait->blocked_ns = now - times->since_ns;
		worker->unsettled = 1 + times->cause;
		break;
	case GP_STATE_ON_CPU:
		count(GP_COUNT_ODD);
		break;
	}
	change(times, GP_STATE_ON_CPU, 0, now);
	page->times = *times;
	step(worker, page);
}

/* The worker has what it waited for, or is told to give up. */
static ALWAYS_INLINE void wake(struct gp_worker *worker, struct gp_page *page)
{
	struct gp_times *times = &worker->times;
	u64 now;

	/* One that has not left its CPU yet just goes on. */
	if (times->state != GP_STATE_BLOCKED)
		return;
	now = not_before(times, bpf_ktime_get_ns());
	step(worker, page);
	worker->wait.blocked_ns = now - times->since_ns;
	change(times, GP_STATE_RUNQUEUE, 0, now);
	page->times = *times;
	step(worker, page);
}

/* === The programs === */

/* Most tasks of a host have no storage at all, which is told without a call. */
static ALWAYS_INLINE struct gp_worker *worker_of(struct task_struct *task)
{
	if (HAS_FIELD(task->bpf_storage) && !task->bpf_storage)
		return 0;
	return bpf_task_storage_get(&workers, task, 0, 0);
}

static ALWAYS_INLINE struct gp_page *page_of(struct gp_worker *worker)
{
	u32 slot = worker->slot;

	return bpf_map_lookup_elem(&pages, &slot);
}

/* include/trace/events/sched.h: preempt, prev, next; later kernels have more. */
SEC("tp_btf/sched_switch")
int on_switch(u64 *context)
{
	struct task_struct *before = (void *)context[1];
	struct task_struct *after = (void *)context[2];
	struct gp_worker *worker;
	struct gp_page *page;

	worker = worker_of(before);
	if (worker) {
		page = page_of(worker);
		if (page)
			leave(worker, page, before, context[0] != 0);
	}
	worker = worker_of(after);
	if (worker) {
		page = page_of(worker);
		if (page)
			enter(worker, page);
	}
	return 0;
}

SEC("tp_btf/sched_wakeup")
int on_wakeup(u64 *context)
{
	struct gp_worker *worker = worker_of((void *)context[0]);
	struct gp_page *page;

	if (worker) {
		page = page_of(worker);
		if (page)
			wake(worker, page);
	}
	return 0;
}

/*
 * Of each CPU, 99 times in a second, while somebody has its clock run: who is on it? In an
 * interrupt, which does not come while the programs above run on this CPU. The worker's
 * memory is the current one, and it stands still.
 */
SEC("perf_event")
int on_clock(__attribute__((unused)) void *context)
{
	struct gp_worker *worker = worker_of(bpf_get_current_task_btf());
	struct gp_look *look;
	struct gp_page *page;
	u64 request;
	u32 zero = 0;

	if (!worker)
		return 0;
	page = page_of(worker);
	look = bpf_map_lookup_elem(&looks, &zero);
	if (!page || !look)
		return 0;
	request = page->request;
	if (!request)
		return 0;
	look->wait.worker = worker->worker;
	look->wait.slot = worker->slot;
	look->wait.request = request;
	look->wait.began_ns = bpf_ktime_get_ns();
	look->wait.kind = GP_KIND_ON_CPU;
	look->wait.fd = -1;
	walk_stack(worker, &look->walk, &look->wait, 0);
	send(&look->wait);
	return 0;
}

/* include/trace/events/syscalls.h: registers, number. */
SEC("tp_btf/sys_enter")
int on_enter(__attribute__((unused)) u64 *context)
{
	struct gp_worker *worker = worker_of(bpf_get_current_task_btf());
	struct gp_page *page;

	if (worker) {
		page = page_of(worker);
		if (page)
			call_begins(worker, page);
	}
	return 0;
}

/* Registers, result. */
SEC("tp_btf/sys_exit")
int on_exit(u64 *context)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct gp_worker *worker = worker_of(task);
	struct gp_page *page;

	if (worker) {
		page = page_of(worker);
		if (page)
			call_ends(worker, page, task, (void *)context[0], context[1]);
	}
	return 0;
}
