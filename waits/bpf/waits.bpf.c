// SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only
/*
 * Where the time of PHP workers goes: on a CPU, waiting for one, or blocked, and then in
 * what and by which line of PHP. Two programs, run by the scheduler; nothing is attached
 * to system calls, and no process is ever stopped.
 *
 *   sched_switch, the worker leaves a CPU   from here on it is blocked, or runnable; what
 *                                           it waits in and PHP's stack are noted now,
 *                                           while its memory is the current one
 *   sched_wakeup of the worker              blocked until here, runnable from here on
 *   sched_switch, the worker gets a CPU     a wait that was long enough is sent
 *
 * All three run under the lock of the worker's run queue (kernel/sched/core.c: __schedule,
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
 * Read from the bottom up: the two programs, enter and leave, describe, walk.
 */
#include "calls.h"
#include "kernel.h"
#include "types.h"

/* The verifier gives probe_read helpers only to what is also under the GPL. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Set before loading. */
const volatile u64 wait_threshold_ns = 1000000;
const volatile u32 most_frames = GP_FRAMES;
/* Bytes in the ring from which on its reader is woken; below, it comes by itself. */
const volatile u64 ring_wake_bytes = 256 * 1024;

struct {
	MAP_INT(type, BPF_MAP_TYPE_TASK_STORAGE);
	MAP_INT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, int);
	MAP_TYPE(value, struct gp_worker);
} workers SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(map_flags, BPF_F_MMAPABLE);
	MAP_INT(max_entries, 1); /* set before loading */
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct gp_page);
} pages SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, GP_LAYOUTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct gp_layout);
} layouts SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_ARRAY);
	MAP_INT(max_entries, GP_COUNTS);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} counts SEC(".maps");

struct {
	MAP_INT(type, BPF_MAP_TYPE_RINGBUF);
	MAP_INT(max_entries, 1048576); /* set before loading */
} events SEC(".maps");

static ALWAYS_INLINE void count(u32 place)
{
	u64 *number = bpf_map_lookup_elem(&counts, &place);

	if (number)
		__sync_fetch_and_add(number, 1);
}

/* === PHP's stack === */

/* The pointer at an offset of bytes that were read; the mask is for the verifier. */
static ALWAYS_INLINE u64 pointer_at(const u8 *bytes, u32 room, u32 offset)
{
	return *(const u64 *)(bytes + (offset & (room - sizeof(u64))));
}

/*
 * Copies a zend_string, which is its length and then its text, to a length and a text. One
 * read for all: each costs more than the bytes do. A short one at the end of readable
 * memory needs a second.
 */
static ALWAYS_INLINE int copy_string(u64 *length, u32 room, u64 string, const struct gp_layout *layout,
				     int end_of_long_ones)
{
	u64 from = string + layout->string_length;
	u8 *text = (u8 *)(length + 1);

	*length = 0;
	if (!string)
		return 0;
	if (bpf_probe_read_user(length, sizeof(*length) + room, (void *)from)) {
		*length = 0;
		if (bpf_probe_read_user_str(text, room, (void *)(from + sizeof(*length))) < 0 ||
		    bpf_probe_read_user(length, sizeof(*length), (void *)from))
			return -1;
	}
	if (end_of_long_ones && *length > room)
		return bpf_probe_read_user(text, room, (void *)(from + sizeof(*length) + *length - room));
	return 0;
}

static ALWAYS_INLINE int copy_frame(struct gp_worker *worker, struct gp_frame *frame,
				    const struct gp_layout *layout)
{
	u64 function = pointer_at(worker->frame_bytes, GP_FRAME_READ, layout->frame_function);
	const u8 *bytes = worker->function_bytes;
	u64 class, class_name = 0, opline;
	int fault = 0;

	frame->line = 0;
	frame->type = 0;
	frame->name_length = 0;
	frame->class_length = 0;
	frame->file_length = 0;
	/* The place holder of a generator has none. */
	if (!function)
		return 0;
	if (bpf_probe_read_user(worker->function_bytes, GP_FUNCTION_READ, (void *)function) &&
	    bpf_probe_read_user(worker->function_bytes, GP_FUNCTION_HEAD, (void *)function))
		return -1;
	frame->type = bytes[layout->function_type & (GP_FUNCTION_ROOM - 1)];
	fault |= copy_string(&frame->name_length, GP_NAME_BYTES,
			     pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_name), layout, 0) != 0;
	class = pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_scope);
	if (class) {
		fault |= bpf_probe_read_user(&class_name, sizeof(class_name),
					     (void *)(class + layout->class_name)) != 0;
		fault |= copy_string(&frame->class_length, GP_CLASS_BYTES, class_name, layout, 1) != 0;
	}
	/* Builtins have neither file nor line. */
	if (!(frame->type & 1)) {
		opline = pointer_at(worker->frame_bytes, GP_FRAME_READ, layout->frame_opline);
		fault |= bpf_probe_read_user(&frame->line, sizeof(frame->line),
					     (void *)(opline + layout->op_line)) != 0;
		fault |= copy_string(&frame->file_length, GP_FILE_BYTES,
				     pointer_at(bytes, GP_FUNCTION_ROOM, layout->function_file), layout,
				     1) != 0;
	}
	return fault;
}

/*
 * Copies the stack, strings and all: resolving pointers later gave 2 % wrong stacks,
 * because without opcache the memory of a request is used again by the next one.
 */
static ALWAYS_INLINE void walk(struct gp_worker *worker)
{
	struct gp_wait *wait = &worker->wait;
	u32 number = worker->layout;
	const struct gp_layout *layout;
	u64 at = 0;

	wait->frame_count = 0;
	if (!worker->current)
		return;
	layout = bpf_map_lookup_elem(&layouts, &number);
	if (!layout)
		return;
	if (bpf_probe_read_user(&at, sizeof(at), (void *)worker->current)) {
		wait->flags |= GP_WAIT_FAULT;
		return;
	}
	for (u32 i = 0; i < GP_FRAMES && i < most_frames; i++) {
		if (!at)
			return;
		if (bpf_probe_read_user(worker->frame_bytes, GP_FRAME_READ, (void *)at)) {
			wait->flags |= GP_WAIT_FAULT;
			return;
		}
		if (copy_frame(worker, &wait->frames[i], layout))
			wait->flags |= GP_WAIT_FAULT;
		wait->frame_count = i + 1;
		at = pointer_at(worker->frame_bytes, GP_FRAME_READ, layout->frame_previous);
	}
	if (at)
		wait->flags |= GP_WAIT_CUT;
}

/* === What it waits in === */

static ALWAYS_INLINE void describe_unix(struct gp_wait *wait, struct sock *sock)
{
	struct unix_sock *end = (void *)sock;
	struct unix_address *address = 0;
	struct sock *peer = 0;
	const char *path;
	s32 length = 0;

	if (!HAS_FIELD(end->peer))
		return;
	READ(peer, end->peer);
	if (peer)
		end = (void *)peer;
	READ(address, end->addr);
	if (!address)
		return;
	READ(length, address->len);
	/* A family of two bytes comes first; a path may lack its zero byte (unix(7)). */
	length -= sizeof(u16);
	FORGET(length);
	if (length <= 0 || length > GP_PATH_BYTES)
		return;
	path = (const char *)&address->name + sizeof(u16);
	if (!bpf_probe_read_kernel(wait->path, GP_PATH_BYTES, path))
		wait->path_length = length;
}

static ALWAYS_INLINE void describe_tcp(struct gp_wait *wait, struct sock *sock)
{
	struct tcp_sock *tcp = (void *)sock;
	u32 received = 0, copied = 0, written = 0, acknowledged = 0;

	READ(wait->tcp_state, sock->__sk_common.skc_state);
	READ(received, tcp->rcv_nxt);
	READ(copied, tcp->copied_seq);
	READ(written, tcp->write_seq);
	READ(acknowledged, tcp->snd_una);
	/* A connection that is not made yet has numbers that mean nothing. */
	if (wait->tcp_state == 1 || wait->tcp_state == 8) {
		wait->receive_queue = received - copied;
		wait->send_queue = written - acknowledged;
	}
}

static ALWAYS_INLINE void describe_socket(struct gp_wait *wait, struct file *file)
{
	struct socket *socket = 0;
	struct sock *sock = 0;
	u16 port = 0;

	READ(socket, file->private_data);
	READ(sock, socket->sk);
	if (!sock)
		return;
	READ(wait->family, sock->__sk_common.skc_family);
	READ(wait->protocol, sock->sk_protocol);
	if (wait->family == 1) { /* AF_UNIX */
		describe_unix(wait, sock);
		return;
	}
	if (wait->family == 2) /* AF_INET */
		bpf_probe_read_kernel(wait->address, 4, &sock->__sk_common.skc_daddr);
	else if (wait->family == 10 && HAS_FIELD(sock->__sk_common.skc_v6_daddr)) /* AF_INET6 */
		bpf_probe_read_kernel(wait->address, 16, &sock->__sk_common.skc_v6_daddr);
	else
		return;
	READ(port, sock->__sk_common.skc_dport);
	wait->port = __builtin_bswap16(port);
	if (wait->protocol == 6) /* IPPROTO_TCP */
		describe_tcp(wait, sock);
	if (wait->tcp_state == 10) /* TCP_LISTEN */
		READ(wait->port, sock->__sk_common.skc_num);
}

static ALWAYS_INLINE void describe_file(struct gp_wait *wait, struct file *file, struct inode *inode)
{
	struct dentry *dentry = 0;
	const unsigned char *name = 0;
	unsigned long number = 0;
	long length;

	READ(number, inode->i_ino);
	wait->object = number;
	READ(dentry, file->f_path.dentry);
	READ(name, dentry->d_name.name);
	length = bpf_probe_read_kernel_str(wait->path, GP_PATH_BYTES, name);
	if (length > 0)
		wait->path_length = length - 1;
}

static ALWAYS_INLINE u8 describe_descriptor(struct gp_wait *wait, struct task_struct *task, u64 number)
{
	struct files_struct *files = task->files;
	struct fdtable *table = 0;
	struct file **slots = 0, *file = 0;
	struct inode *inode = 0;
	u32 fd = number, most = 0;
	u16 mode = 0;

	wait->fd = -1;
	READ(table, files->fdt);
	READ(most, table->max_fds);
	READ(slots, table->fd);
	if (fd >= most)
		return GP_FD_NONE;
	wait->fd = fd;
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	READ(inode, file->f_inode);
	if (!inode)
		return GP_FD_NONE;
	READ(mode, inode->i_mode);
	switch (mode & 0170000) { /* inode(7) */
	case 0140000:
		describe_socket(wait, file);
		return GP_FD_SOCKET;
	case 0010000:
		return GP_FD_PIPE;
	case 0100000:
		describe_file(wait, file, inode);
		return GP_FD_FILE;
	default:
		return GP_FD_OTHER;
	}
}

/* The lowest descriptor of select's first or second set, of the first 64. */
static ALWAYS_INLINE s32 lowest_selected(u64 reading, u64 writing)
{
	u64 set = 0;

	if (reading)
		bpf_probe_read_user(&set, sizeof(set), (void *)reading);
	if (!set && writing)
		bpf_probe_read_user(&set, sizeof(set), (void *)writing);
	if (!set)
		return -1;
	for (s32 fd = 0; fd < 64; fd++)
		if (set >> fd & 1)
			return fd;
	return -1;
}

static ALWAYS_INLINE u32 cause_of_descriptor(struct gp_wait *wait)
{
	switch (wait->fd_kind) {
	case GP_FD_SOCKET:
		return GP_CAUSE_NETWORK;
	case GP_FD_PIPE:
		return GP_CAUSE_PIPE;
	case GP_FD_FILE:
		return wait->flags & GP_WAIT_UNKILLABLE ? GP_CAUSE_DISK : GP_CAUSE_OTHER;
	default:
		return GP_CAUSE_OTHER;
	}
}

static ALWAYS_INLINE u32 cause_of_call(struct gp_wait *wait, struct task_struct *task, u32 class,
				       const u64 *arguments)
{
	s32 fd = -1;

	switch (class) {
	case CALL_FD:
	case CALL_LOCK:
	case CALL_SYNC:
	case CALL_FCNTL:
		fd = arguments[0];
		break;
	case CALL_POLL:
		if (!(u32)arguments[1])
			return GP_CAUSE_SLEEP;
		bpf_probe_read_user(&fd, sizeof(fd), (void *)arguments[0]);
		break;
	case CALL_SELECT:
		if (!(u32)arguments[0])
			return GP_CAUSE_SLEEP;
		fd = lowest_selected(arguments[1], arguments[2]);
		break;
	case CALL_EPOLL:
		return GP_CAUSE_NETWORK;
	case CALL_SLEEP:
		return GP_CAUSE_SLEEP;
	case CALL_FUTEX:
		wait->object = arguments[0];
		return GP_CAUSE_LOCK;
	case CALL_SEMOP:
		return GP_CAUSE_LOCK;
	case CALL_FILE:
		return wait->flags & GP_WAIT_UNKILLABLE ? GP_CAUSE_DISK : GP_CAUSE_OTHER;
	default:
		return GP_CAUSE_OTHER;
	}
	wait->fd_kind = describe_descriptor(wait, task, fd);
	if (class == CALL_LOCK)
		return GP_CAUSE_LOCK;
	if (class == CALL_SYNC)
		return GP_CAUSE_DISK;
	if (class == CALL_FCNTL) /* F_SETLKW, F_OFD_SETLKW */
		return arguments[1] == 7 || arguments[1] == 38 ? GP_CAUSE_LOCK : GP_CAUSE_OTHER;
	return cause_of_descriptor(wait);
}

/* A bit field cannot be read by name alone: its word and its place in there are asked for. */
static ALWAYS_INLINE int in_iowait(struct task_struct *task)
{
	const void *word = (const void *)task +
			   __builtin_preserve_field_info(task->in_iowait, FIELD_BYTE_OFFSET);
	u64 value = 0;

	bpf_probe_read_kernel(&value, __builtin_preserve_field_info(task->in_iowait, FIELD_BYTE_SIZE),
			      word);
	value <<= __builtin_preserve_field_info(task->in_iowait, FIELD_LSHIFT_U64);
	value >>= __builtin_preserve_field_info(task->in_iowait, FIELD_RSHIFT_U64);
	return value != 0;
}

/* Notes what a worker is about to wait in. Returns the cause. */
static ALWAYS_INLINE u32 describe(struct gp_worker *worker, struct task_struct *task, u32 state)
{
	struct gp_wait *wait = &worker->wait;
	struct pt_regs *registers = bpf_task_pt_regs(task);
	u64 arguments[3];
	u32 cause, class = CALL_OTHER;
	s32 call;

#if defined(__TARGET_ARCH_x86)
	call = registers->orig_ax;
	arguments[0] = registers->di;
	arguments[1] = registers->si;
	arguments[2] = registers->dx;
#elif defined(__TARGET_ARCH_arm64)
	call = registers->syscallno;
	/* The first register holds the result once the call has been interrupted. */
	arguments[0] = registers->orig_x0;
	arguments[1] = registers->regs[1];
	arguments[2] = registers->regs[2];
#endif
	wait->object = 0;
	wait->fd = -1;
	wait->receive_queue = 0;
	wait->send_queue = 0;
	wait->family = 0;
	wait->protocol = 0;
	wait->port = 0;
	wait->path_length = 0;
	wait->tcp_state = 0;
	wait->fd_kind = GP_FD_NONE;
	__builtin_memset(wait->address, 0, sizeof(wait->address));
	wait->flags = state & 2 ? GP_WAIT_UNKILLABLE : 0; /* TASK_UNINTERRUPTIBLE */
	if (in_iowait(task))
		wait->flags |= GP_WAIT_IOWAIT;
	if (call < 0)
		wait->flags |= GP_WAIT_NO_CALL;

	if (call >= 0 && call < CALLS)
		class = calls[call];
	if (class == CALL_RESTART) {
		/* The arguments are still those of the call that goes on. */
		call = worker->last_call;
		class = call >= 0 && call < CALLS ? calls[call] : CALL_OTHER;
	}
	worker->last_call = call;
	wait->call = call;
	cause = cause_of_call(wait, task, class, arguments);
	/* The kernel marks what waits for a block device or a page of a file, also of NFS. */
	if (wait->flags & GP_WAIT_IOWAIT)
		cause = GP_CAUSE_DISK;
	wait->cause = cause;
	walk(worker);
	return cause;
}

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
		times->began_ns = now;
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

/* Sends the wait that has ended, if there is one and it was long enough. */
static ALWAYS_INLINE void send_if_long(struct gp_worker *worker)
{
	struct gp_wait *wait = &worker->wait;
	u64 frames = wait->frame_count;
	u64 flags = BPF_RB_NO_WAKEUP;

	if (!worker->waiting)
		return;
	worker->waiting = 0;
	/* An idle worker waits for a request, and not for anything in one. */
	if (wait->blocked_ns < wait_threshold_ns || (!frames && !wait->request))
		return;
	FORGET(frames);
	if (frames > GP_FRAMES)
		frames = GP_FRAMES;
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) >= ring_wake_bytes)
		flags = BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&events, wait, GP_WAIT_HEAD_BYTES + frames * GP_FRAME_BYTES, flags)) {
		worker->times.lost++;
		count(GP_COUNT_RING_FULL);
	} else {
		worker->times.written++;
	}
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
		settle(worker, delay - worker->run_delay, ran - worker->run_time, now);
	worker->run_delay = delay;
	worker->run_time = ran;
	if (preempted || !state) {
		change(times, GP_STATE_RUNQUEUE, 0, now);
	} else {
		worker->wait.worker = worker->worker;
		worker->wait.slot = worker->slot;
		worker->wait.request = page->request;
		worker->wait.began_ns = now;
		worker->wait.blocked_ns = 0;
		worker->wait.runqueue_ns = 0;
		cause = describe(worker, task, state);
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
