/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * System calls of a worker in a request, counted: how many, how long they took, and the bytes
 * that they sent to and received from sockets. Only where somebody asks for it: the
 * programs that call this run at each system call of each process of the host.
 *
 * Both run with preemption off (include/trace/bpf_probe.h), so no switch of the same worker
 * comes between.
 */
#ifndef GLASSPOOL_WAITS_TRAFFIC_H
#define GLASSPOOL_WAITS_TRAFFIC_H

#include "calls.h"
#include "kernel.h"
#include "types.h"

/* What the result of a call counts. */
#define SENT 1
#define RECEIVED 2
#define IF_SOCKET 4 /* not if its first argument is another kind of descriptor */

static const volatile u8 traffic[CALLS] = {
#if defined(__TARGET_ARCH_x86)
	[0] = RECEIVED | IF_SOCKET,  /* read */
	[1] = SENT | IF_SOCKET,	     /* write */
	[19] = RECEIVED | IF_SOCKET, /* readv */
	[20] = SENT | IF_SOCKET,     /* writev */
	[40] = SENT | IF_SOCKET,     /* sendfile */
	[44] = SENT,		     /* sendto */
	[45] = RECEIVED,	     /* recvfrom */
	[46] = SENT,		     /* sendmsg */
	[47] = RECEIVED,	     /* recvmsg */
#elif defined(__TARGET_ARCH_arm64)
	[63] = RECEIVED | IF_SOCKET, /* read */
	[64] = SENT | IF_SOCKET,     /* write */
	[65] = RECEIVED | IF_SOCKET, /* readv */
	[66] = SENT | IF_SOCKET,     /* writev */
	[71] = SENT | IF_SOCKET,     /* sendfile */
	[206] = SENT,		     /* sendto */
	[207] = RECEIVED,	     /* recvfrom */
	[211] = SENT,		     /* sendmsg */
	[212] = RECEIVED,	     /* recvmsg */
#endif
};

/* A system call begins. */
static ALWAYS_INLINE void call_begins(struct gp_worker *worker, struct gp_page *page)
{
	worker->called_ns = page->request ? bpf_ktime_get_ns() : 0;
}

/* It ends. One that began before its request did is not of it. */
static ALWAYS_INLINE void call_ends(struct gp_worker *worker, struct gp_page *page, struct task_struct *task,
				    struct pt_regs *registers, long result)
{
	struct gp_times *times = &worker->times;
	u64 now = bpf_ktime_get_ns();
	u32 fd, kind = 0;
	s32 call;

	if (!worker->called_ns)
		return;
	times->calls++;
	if (now > worker->called_ns)
		times->calls_ns += now - worker->called_ns;
	worker->called_ns = 0;
#if defined(__TARGET_ARCH_x86)
	call = registers->orig_ax;
	fd = registers->di;
#elif defined(__TARGET_ARCH_arm64)
	call = registers->syscallno;
	fd = registers->orig_x0;
#endif
	if (result > 0 && call >= 0 && call < CALLS)
		kind = traffic[call];
	/* What comes from and goes to the web server is told by the request itself. */
	if (kind && page->connection != (u64)fd + 1 && (!(kind & IF_SOCKET) || is_socket(task, fd))) {
		if (kind & SENT)
			times->sent += result;
		else
			times->received += result;
	}
	/* Nobody but the worker reads these here, and it is in this call. */
	page->times.calls = times->calls;
	page->times.calls_ns = times->calls_ns;
	page->times.sent = times->sent;
	page->times.received = times->received;
}

#endif
