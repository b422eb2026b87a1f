/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What a worker is about to wait in: system call, descriptor, peer, file; and so the cause.
 */
#ifndef GLASSPOOL_WAITS_WAIT_H
#define GLASSPOOL_WAITS_WAIT_H

#include "calls.h"
#include "kernel.h"
#include "types.h"

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

/* The open file that a descriptor is. */
static ALWAYS_INLINE struct file *file_of(struct task_struct *task, u32 fd)
{
	struct files_struct *files = task->files;
	struct fdtable *table;
	struct file **slots, *file = 0;

	if (!files)
		return 0;
	table = files->fdt;
	if (!table || fd >= table->max_fds)
		return 0;
	slots = table->fd;
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	return file;
}

static ALWAYS_INLINE int is_socket(struct task_struct *task, u32 fd)
{
	struct file *file = file_of(task, fd);
	struct inode *inode = 0;
	u16 mode = 0;

	READ(inode, file->f_inode);
	READ(mode, inode->i_mode);
	return (mode & 0170000) == 0140000; /* inode(7) */
}

/* What a descriptor is, and unless nobody will be told, what is behind it. */
static ALWAYS_INLINE u8 describe_descriptor(struct gp_wait *wait, struct task_struct *task, u64 number,
					    int idle)
{
	struct file *file = file_of(task, number);
	struct inode *inode = 0;
	u16 mode = 0;

	wait->fd = -1;
	if (!file)
		return GP_FD_NONE;
	wait->fd = number;
	READ(inode, file->f_inode);
	if (!inode)
		return GP_FD_NONE;
	READ(mode, inode->i_mode);
	switch (mode & 0170000) { /* inode(7) */
	case 0140000:
		if (!idle)
			describe_socket(wait, file);
		return GP_FD_SOCKET;
	case 0010000:
		return GP_FD_PIPE;
	case 0100000:
		if (!idle)
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
				       const u64 *arguments, int idle)
{
	s32 fd = -1;

	switch (class) {
	case CALL_SOCKET:
		if (idle)
			return GP_CAUSE_NETWORK;
		fd = arguments[0];
		break;
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
	wait->fd_kind = describe_descriptor(wait, task, fd, idle);
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

	FORGET(word);
	switch (__builtin_preserve_field_info(task->in_iowait, FIELD_BYTE_SIZE)) {
	case 1:
		value = *(const u8 *)word;
		break;
	case 2:
		value = *(const u16 *)word;
		break;
	case 4:
		value = *(const u32 *)word;
		break;
	case 8:
		value = *(const u64 *)word;
		break;
	}
	value <<= __builtin_preserve_field_info(task->in_iowait, FIELD_LSHIFT_U64);
	value >>= __builtin_preserve_field_info(task->in_iowait, FIELD_RSHIFT_U64);
	return value != 0;
}

/*
 * Notes what a worker is about to wait in, once its stack and its request are noted. Returns
 * the cause.
 */
static ALWAYS_INLINE u32 describe(struct gp_worker *worker, struct task_struct *task, u32 state)
{
	struct gp_wait *wait = &worker->wait;
	struct pt_regs *registers = bpf_task_pt_regs(task);
	u64 arguments[3];
	u32 cause, class = CALL_OTHER;
	/* Waits for a request, and not for anything in one: not a word of it will be told. */
	int idle = !wait->frame_count && !wait->request;
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
	if (state & 2) /* TASK_UNINTERRUPTIBLE */
		wait->flags |= GP_WAIT_UNKILLABLE;
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
	cause = cause_of_call(wait, task, class, arguments, idle);
	/* The kernel marks what waits for a block device or a page of a file, also of NFS. */
	if (wait->flags & GP_WAIT_IOWAIT)
		cause = GP_CAUSE_DISK;
	wait->cause = cause;
	return cause;
}

#endif
