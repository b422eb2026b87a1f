/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What the kernel programs and user space share: numbers, maps' values, records.
 *
 * The one truth. `build.rs` turns every `#define GP_NAME number` of this file into a
 * Rust constant, `src/types.rs` mirrors the structs, and both sides are checked against
 * the same GP_..._BYTES and GP_..._AT when they are compiled.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC. Byte order is the machine's.
 */
#ifndef GLASSPOOL_WAITS_TYPES_H
#define GLASSPOOL_WAITS_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

/* What a worker waits for. */
#define GP_CAUSE_NETWORK 0
#define GP_CAUSE_DISK 1
#define GP_CAUSE_LOCK 2
#define GP_CAUSE_SLEEP 3
#define GP_CAUSE_PIPE 4
#define GP_CAUSE_OTHER 5
#define GP_CAUSES 6

/* What a worker does. Unknown until the first switch after its registration. */
#define GP_STATE_UNKNOWN 0
#define GP_STATE_ON_CPU 1
#define GP_STATE_RUNQUEUE 2
#define GP_STATE_BLOCKED 3

/* What a descriptor is. */
#define GP_FD_NONE 0
#define GP_FD_SOCKET 1
#define GP_FD_PIPE 2
#define GP_FD_FILE 3
#define GP_FD_OTHER 4

/* What a record is: a wait; or a look at a worker on a CPU, with its stack and its time. */
#define GP_KIND_WAIT 0
#define GP_KIND_ON_CPU 1

/* Bits of gp_wait.flags. */
#define GP_WAIT_CUT 1        /* the stack has more frames */
#define GP_WAIT_FAULT 2      /* a part of the stack could not be read */
#define GP_WAIT_IOWAIT 4     /* the kernel counts it as a wait for a block device */
#define GP_WAIT_UNKILLABLE 8 /* state D */
#define GP_WAIT_NO_CALL 16   /* not in a system call: a page fault */
#define GP_WAIT_OWN 32       /* for the connection that its request came by */

/* Places in the map of counts. */
#define GP_COUNT_RING_FULL 0
#define GP_COUNT_MISSED 1 /* switches and wakeups that were not told, and made up for */
#define GP_COUNT_ODD 2	  /* departures that were not told, for which nothing makes up */
#define GP_COUNTS 3

#define GP_FRAMES 32
#define GP_NAME_BYTES 40
#define GP_CLASS_BYTES 64
#define GP_FILE_BYTES 120
#define GP_PATH_BYTES 108 /* as sun_path, unix(7) */
#define GP_LAYOUTS 64

/* Offsets of fields that are taken out of bytes read at once must be below these. */
#define GP_FRAME_READ 64	  /* of zend_execute_data */
#define GP_STACK_READ 1024	  /* of PHP's own stack, which frames lie on, at once */
#define GP_STACK_ROOM 1088	  /* the same and a frame */
#define GP_FUNCTION_READ 168  /* of zend_function */
#define GP_FUNCTION_HEAD 32	  /* of a builtin's, where so much is not there */
#define GP_FUNCTION_ROOM 256

/* Where a build of PHP keeps what is read, from `abi::zend::Layout`. */
struct gp_layout {
	u32 frame_opline;
	u32 frame_function;
	u32 frame_previous;
	u32 function_type;
	u32 function_name;
	u32 function_scope;
	u32 function_file;
	u32 op_line;
	u32 class_name;
	u32 string_length; /* the text follows at once */
	u32 function_flags;
	/* Of these, what a function has all of that stays as it is to the end of a request,
	 * and what it has nothing of; a builtin only the latter. 0: none is known to. */
	u32 flags_lasting;
	u32 flags_passing;
	u32 unused;
};
#define GP_LAYOUT_BYTES 56

/*
 * Time accounted for, all since began_ns, and what is going on since since_ns. Workers read
 * it as abi::times says; src/types.rs compares the two.
 */
struct gp_times {
	u64 began_ns;
	u64 since_ns;
	u32 state;
	u32 cause;
	u64 on_cpu_ns;
	u64 runqueue_ns;
	u64 blocked_ns[GP_CAUSES];
	u64 waits;   /* times it has blocked */
	u64 written; /* records written */
	u64 lost;    /* records for which the ring had no room */
	u64 ran_ns;  /* what the scheduler says it had run when it left a CPU the last time */
	/* Of system calls in requests, if they are counted. */
	u64 calls;
	u64 calls_ns;
	u64 sent;     /* bytes, to sockets */
	u64 received; /* bytes, from sockets */
};
#define GP_TIMES_BYTES 152

/*
 * A worker's page in the array that can be mapped. The worker maps its own page
 * writable, so nothing here is believed: programs only write it, but for the first two.
 */
struct gp_page {
	u64 request; /* the worker writes: its request, 0 between two */
	u64 connection; /* the worker writes: by which descriptor it came, and 1; 0: none */
	u64 unused[6];
	u64 sequence; /* programs write: odd while they write */
	struct gp_times times;
	u8 rest[3872];
};
#define GP_PAGE_BYTES 4096
#define GP_PAGE_REQUEST_AT 0
#define GP_PAGE_CONNECTION_AT 8
#define GP_PAGE_SEQUENCE_AT 64
#define GP_PAGE_TIMES_AT 72

/*
 * One PHP call. Each text is as long as its length says, and what follows is left over. Of
 * a longer name the beginning is there, of a longer class or file the end.
 */
struct gp_frame {
	u32 line; /* 0 of a builtin */
	u8 type;  /* zend_function.type: 1 builtin, 2 PHP, 4 eval; 0: none, leave it out */
	u8 unused[3];
	u64 name_length; /* 0: the script itself or an included file */
	u8 name[GP_NAME_BYTES];
	u64 class_length;
	u8 class_name[GP_CLASS_BYTES];
	u64 file_length;
	u8 file[GP_FILE_BYTES];
};
#define GP_FRAME_BYTES 256

/* One wait: what a record in the ring is, cut after its last frame. */
struct gp_wait {
	u64 worker;  /* whatever user space called it when it registered it */
	u64 request; /* of its page, when it began to wait */
	u64 began_ns;
	u64 blocked_ns;  /* 0 while it goes on */
	u64 runqueue_ns; /* from being woken to running */
	u64 object;      /* inode of a file, address of a futex */
	u32 slot;
	s32 call; /* number of the system call */
	s32 fd;   /* -1: none, or not known */
	u32 receive_queue; /* bytes, of TCP */
	u32 send_queue;    /* bytes not acknowledged, of TCP */
	u16 family;        /* AF_... of the socket, 0 if it is none */
	u16 protocol;      /* IPPROTO_... */
	u16 port;          /* of the peer, in host order; its own if it listens */
	u16 path_length;   /* of a unix address, which may hold zero bytes */
	u8 tcp_state;      /* as in /proc/net/tcp */
	u8 cause;
	u8 fd_kind;
	u8 flags;
	u32 frame_count;
	u8 address[16]; /* of the peer; 4 bytes of it for AF_INET */
	u8 path[GP_PATH_BYTES]; /* unix address of the peer, or the last part of a file's name */
	u32 kind; /* of the record */
	u32 unused;
	struct gp_frame frames[GP_FRAMES]; /* innermost last */
};
#define GP_WAIT_HEAD_BYTES 216
#define GP_WAIT_BYTES 8408

/* One PHP call, as its frame on PHP's stack has it. */
struct gp_call {
	u64 function;
	u64 opline;
};

/* What a frame was copied of: it is right as long as this is. */
struct gp_seen {
	u64 function; /* 0: of nothing that lasts */
	u64 opline;
	u32 request; /* the lower half of it */
	u32 builtin; /* has no line */
};

/*
 * What a walk needs to take notes. Also what a variable would do for: what the verifier
 * knows of one multiplies the paths that it looks at.
 */
struct gp_walk {
	u64 fault; /* not 0: a part of the frame could not be read */
	u64 lasts; /* its function stays as it is as long as the request */
	struct gp_call calls[GP_FRAMES]; /* innermost first */
	struct gp_seen seen[GP_FRAMES];	 /* of the frames that it fills */
	u8 stack[GP_STACK_ROOM];
	u8 function[GP_FUNCTION_ROOM];
};

/* A worker in task storage: what user space says of it, and what programs remember. */
struct gp_worker {
	u64 worker;
	u64 current; /* address of EG(current_execute_data), 0: no PHP known */
	u32 slot;
	u32 layout;
	u64 sequence; /* odd while programs write */
	struct gp_times times;
	u64 run_delay; /* the scheduler's own sum, when the worker last left a CPU */
	u64 called_ns; /* when the system call began that is counted, 0: none is */
	u32 last_call;
	u8 waiting;   /* whether `wait` is about the block that goes on or has just ended */
	u8 unsettled; /* 1 + cause of a block with a wait for a CPU in it, which comes to light later */
	u16 unused;
	struct gp_wait wait;
	struct gp_walk walk;
};
#define GP_WORKER_BYTES 11256
#define GP_WORKER_SEQUENCE_AT 24
#define GP_WORKER_TIMES_AT 32
#define GP_WORKER_WAIT_AT 208

/* A look at a worker on a CPU: it keeps nothing from one to the next. */
struct gp_look {
	struct gp_wait wait;
	struct gp_walk walk;
};

/* Where each field is that user space reads; src/types.rs has the same places. */
#define GP_TIMES_SINCE_NS_AT 8
#define GP_TIMES_STATE_AT 16
#define GP_TIMES_CAUSE_AT 20
#define GP_TIMES_ON_CPU_NS_AT 24
#define GP_TIMES_RUNQUEUE_NS_AT 32
#define GP_TIMES_BLOCKED_NS_AT 40
#define GP_TIMES_WAITS_AT 88
#define GP_TIMES_WRITTEN_AT 96
#define GP_TIMES_LOST_AT 104
#define GP_TIMES_RAN_NS_AT 112
#define GP_TIMES_CALLS_AT 120
#define GP_TIMES_CALLS_NS_AT 128
#define GP_TIMES_SENT_AT 136
#define GP_TIMES_RECEIVED_AT 144
#define GP_FRAME_TYPE_AT 4
#define GP_FRAME_NAME_LENGTH_AT 8
#define GP_FRAME_CLASS_LENGTH_AT 56
#define GP_FRAME_FILE_LENGTH_AT 128
#define GP_WAIT_REQUEST_AT 8
#define GP_WAIT_BEGAN_NS_AT 16
#define GP_WAIT_BLOCKED_NS_AT 24
#define GP_WAIT_RUNQUEUE_NS_AT 32
#define GP_WAIT_OBJECT_AT 40
#define GP_WAIT_SLOT_AT 48
#define GP_WAIT_CALL_AT 52
#define GP_WAIT_FD_AT 56
#define GP_WAIT_RECEIVE_QUEUE_AT 60
#define GP_WAIT_SEND_QUEUE_AT 64
#define GP_WAIT_FAMILY_AT 68
#define GP_WAIT_PROTOCOL_AT 70
#define GP_WAIT_PORT_AT 72
#define GP_WAIT_PATH_LENGTH_AT 74
#define GP_WAIT_TCP_STATE_AT 76
#define GP_WAIT_CAUSE_AT 77
#define GP_WAIT_FD_KIND_AT 78
#define GP_WAIT_FLAGS_AT 79
#define GP_WAIT_FRAME_COUNT_AT 80
#define GP_WAIT_ADDRESS_AT 84
#define GP_WAIT_PATH_AT 100
#define GP_WAIT_KIND_AT 208

#define GP_SAME(what, number) _Static_assert((what) == (number), #what " is not " #number)
GP_SAME(sizeof(struct gp_layout), GP_LAYOUT_BYTES);
GP_SAME(sizeof(struct gp_times), GP_TIMES_BYTES);
GP_SAME(sizeof(struct gp_page), GP_PAGE_BYTES);
GP_SAME(__builtin_offsetof(struct gp_page, connection), GP_PAGE_CONNECTION_AT);
GP_SAME(__builtin_offsetof(struct gp_page, sequence), GP_PAGE_SEQUENCE_AT);
GP_SAME(__builtin_offsetof(struct gp_page, times), GP_PAGE_TIMES_AT);
GP_SAME(sizeof(struct gp_frame), GP_FRAME_BYTES);
GP_SAME(__builtin_offsetof(struct gp_wait, frames), GP_WAIT_HEAD_BYTES);
GP_SAME(sizeof(struct gp_wait), GP_WAIT_BYTES);
GP_SAME(sizeof(struct gp_worker), GP_WORKER_BYTES);
GP_SAME(__builtin_offsetof(struct gp_worker, sequence), GP_WORKER_SEQUENCE_AT);
GP_SAME(__builtin_offsetof(struct gp_worker, times), GP_WORKER_TIMES_AT);
GP_SAME(__builtin_offsetof(struct gp_worker, wait), GP_WORKER_WAIT_AT);
#define GP_PLACE(type, field, number) GP_SAME(__builtin_offsetof(struct type, field), number)
GP_PLACE(gp_times, since_ns, GP_TIMES_SINCE_NS_AT);
GP_PLACE(gp_times, state, GP_TIMES_STATE_AT);
GP_PLACE(gp_times, cause, GP_TIMES_CAUSE_AT);
GP_PLACE(gp_times, on_cpu_ns, GP_TIMES_ON_CPU_NS_AT);
GP_PLACE(gp_times, runqueue_ns, GP_TIMES_RUNQUEUE_NS_AT);
GP_PLACE(gp_times, blocked_ns, GP_TIMES_BLOCKED_NS_AT);
GP_PLACE(gp_times, waits, GP_TIMES_WAITS_AT);
GP_PLACE(gp_times, written, GP_TIMES_WRITTEN_AT);
GP_PLACE(gp_times, lost, GP_TIMES_LOST_AT);
GP_PLACE(gp_times, ran_ns, GP_TIMES_RAN_NS_AT);
GP_PLACE(gp_times, calls, GP_TIMES_CALLS_AT);
GP_PLACE(gp_times, calls_ns, GP_TIMES_CALLS_NS_AT);
GP_PLACE(gp_times, sent, GP_TIMES_SENT_AT);
GP_PLACE(gp_times, received, GP_TIMES_RECEIVED_AT);
GP_PLACE(gp_frame, type, GP_FRAME_TYPE_AT);
GP_PLACE(gp_frame, name_length, GP_FRAME_NAME_LENGTH_AT);
GP_PLACE(gp_frame, class_length, GP_FRAME_CLASS_LENGTH_AT);
GP_PLACE(gp_frame, file_length, GP_FRAME_FILE_LENGTH_AT);
GP_PLACE(gp_wait, request, GP_WAIT_REQUEST_AT);
GP_PLACE(gp_wait, began_ns, GP_WAIT_BEGAN_NS_AT);
GP_PLACE(gp_wait, blocked_ns, GP_WAIT_BLOCKED_NS_AT);
GP_PLACE(gp_wait, runqueue_ns, GP_WAIT_RUNQUEUE_NS_AT);
GP_PLACE(gp_wait, object, GP_WAIT_OBJECT_AT);
GP_PLACE(gp_wait, slot, GP_WAIT_SLOT_AT);
GP_PLACE(gp_wait, call, GP_WAIT_CALL_AT);
GP_PLACE(gp_wait, fd, GP_WAIT_FD_AT);
GP_PLACE(gp_wait, receive_queue, GP_WAIT_RECEIVE_QUEUE_AT);
GP_PLACE(gp_wait, send_queue, GP_WAIT_SEND_QUEUE_AT);
GP_PLACE(gp_wait, family, GP_WAIT_FAMILY_AT);
GP_PLACE(gp_wait, protocol, GP_WAIT_PROTOCOL_AT);
GP_PLACE(gp_wait, port, GP_WAIT_PORT_AT);
GP_PLACE(gp_wait, path_length, GP_WAIT_PATH_LENGTH_AT);
GP_PLACE(gp_wait, tcp_state, GP_WAIT_TCP_STATE_AT);
GP_PLACE(gp_wait, cause, GP_WAIT_CAUSE_AT);
GP_PLACE(gp_wait, fd_kind, GP_WAIT_FD_KIND_AT);
GP_PLACE(gp_wait, flags, GP_WAIT_FLAGS_AT);
GP_PLACE(gp_wait, frame_count, GP_WAIT_FRAME_COUNT_AT);
GP_PLACE(gp_wait, address, GP_WAIT_ADDRESS_AT);
GP_PLACE(gp_wait, path, GP_WAIT_PATH_AT);
GP_PLACE(gp_wait, kind, GP_WAIT_KIND_AT);
#undef GP_PLACE
#undef GP_SAME

#endif
