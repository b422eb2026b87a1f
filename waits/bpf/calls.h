/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What a wait inside of each system call is about. Numbers are the kernel's, for ever
 * (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
 */
#ifndef GLASSPOOL_WAITS_CALLS_H
#define GLASSPOOL_WAITS_CALLS_H

#include "types.h"

enum call {
	CALL_OTHER,   /* nothing is known: waiting for a child, for a signal */
	CALL_FD,      /* the first argument is a descriptor, which says what it is */
	CALL_SOCKET,  /* the same, and it is a socket */
	CALL_POLL,    /* the first argument is an array of descriptors, the second their number */
	CALL_SELECT,  /* the first argument is how many descriptors, 0: just a sleep */
	CALL_EPOLL,   /* descriptors that nobody lists here */
	CALL_SLEEP,
	CALL_FUTEX,   /* the first argument is an address */
	CALL_LOCK,    /* the first argument is a descriptor of a lock */
	CALL_SEMOP,
	CALL_FCNTL,   /* the second argument says whether it is a lock */
	CALL_SYNC,    /* the first argument is a descriptor of a file to write out */
	CALL_FILE,    /* by name: a disk or a file server, if it cannot be interrupted */
	CALL_RESTART, /* goes on with the call that was interrupted */
};

#define CALLS 512

static const volatile u8 calls[CALLS] = {
#if defined(__TARGET_ARCH_x86)
	[0] = CALL_FD,	    /* read */
	[1] = CALL_FD,	    /* write */
	[2] = CALL_FILE,    /* open */
	[3] = CALL_FILE,    /* close */
	[4] = CALL_FILE,    /* stat */
	[5] = CALL_FILE,    /* fstat */
	[6] = CALL_FILE,    /* lstat */
	[7] = CALL_POLL,    /* poll */
	[17] = CALL_FD,	    /* pread64 */
	[18] = CALL_FD,	    /* pwrite64 */
	[19] = CALL_FD,	    /* readv */
	[20] = CALL_FD,	    /* writev */
	[21] = CALL_FILE,   /* access */
	[23] = CALL_SELECT, /* select */
	[26] = CALL_FILE,   /* msync */
	[35] = CALL_SLEEP,  /* nanosleep */
	[40] = CALL_FD,	    /* sendfile */
	[42] = CALL_SOCKET, /* connect */
	[43] = CALL_SOCKET, /* accept */
	[44] = CALL_SOCKET, /* sendto */
	[45] = CALL_SOCKET, /* recvfrom */
	[46] = CALL_SOCKET, /* sendmsg */
	[47] = CALL_SOCKET, /* recvmsg */
	[59] = CALL_FILE,   /* execve */
	[65] = CALL_SEMOP,  /* semop */
	[72] = CALL_FCNTL,  /* fcntl */
	[73] = CALL_LOCK,   /* flock */
	[74] = CALL_SYNC,   /* fsync */
	[75] = CALL_SYNC,   /* fdatasync */
	[76] = CALL_FILE,   /* truncate */
	[77] = CALL_SYNC,   /* ftruncate */
	[78] = CALL_FILE,   /* getdents */
	[82] = CALL_FILE,   /* rename */
	[83] = CALL_FILE,   /* mkdir */
	[84] = CALL_FILE,   /* rmdir */
	[85] = CALL_FILE,   /* creat */
	[86] = CALL_FILE,   /* link */
	[87] = CALL_FILE,   /* unlink */
	[88] = CALL_FILE,   /* symlink */
	[89] = CALL_FILE,   /* readlink */
	[90] = CALL_FILE,   /* chmod */
	[162] = CALL_FILE,  /* sync */
	[217] = CALL_FILE,  /* getdents64 */
	[219] = CALL_RESTART,
	[220] = CALL_SEMOP,  /* semtimedop */
	[202] = CALL_FUTEX,  /* futex */
	[230] = CALL_SLEEP,  /* clock_nanosleep */
	[232] = CALL_EPOLL,  /* epoll_wait */
	[257] = CALL_FILE,   /* openat */
	[258] = CALL_FILE,   /* mkdirat */
	[262] = CALL_FILE,   /* newfstatat */
	[263] = CALL_FILE,   /* unlinkat */
	[264] = CALL_FILE,   /* renameat */
	[267] = CALL_FILE,   /* readlinkat */
	[269] = CALL_FILE,   /* faccessat */
	[270] = CALL_SELECT, /* pselect6 */
	[271] = CALL_POLL,   /* ppoll */
	[275] = CALL_FD,     /* splice */
	[277] = CALL_SYNC,   /* sync_file_range */
	[281] = CALL_EPOLL,  /* epoll_pwait */
	[285] = CALL_SYNC,   /* fallocate */
	[288] = CALL_SOCKET, /* accept4 */
	[299] = CALL_SOCKET, /* recvmmsg */
	[306] = CALL_SYNC,   /* syncfs */
	[307] = CALL_SOCKET, /* sendmmsg */
	[316] = CALL_FILE,   /* renameat2 */
	[326] = CALL_FD,     /* copy_file_range */
	[332] = CALL_FILE,   /* statx */
	[439] = CALL_FILE,   /* faccessat2 */
	[441] = CALL_EPOLL,  /* epoll_pwait2 */
	[449] = CALL_FUTEX,  /* futex_waitv */
	[455] = CALL_FUTEX,  /* futex_wait */
#elif defined(__TARGET_ARCH_arm64)
	[22] = CALL_EPOLL,  /* epoll_pwait */
	[25] = CALL_FCNTL,  /* fcntl */
	[32] = CALL_LOCK,   /* flock */
	[34] = CALL_FILE,   /* mkdirat */
	[35] = CALL_FILE,   /* unlinkat */
	[38] = CALL_FILE,   /* renameat */
	[45] = CALL_FILE,   /* truncate */
	[46] = CALL_SYNC,   /* ftruncate */
	[47] = CALL_SYNC,   /* fallocate */
	[48] = CALL_FILE,   /* faccessat */
	[56] = CALL_FILE,   /* openat */
	[57] = CALL_FILE,   /* close */
	[61] = CALL_FILE,   /* getdents64 */
	[63] = CALL_FD,	    /* read */
	[64] = CALL_FD,	    /* write */
	[65] = CALL_FD,	    /* readv */
	[66] = CALL_FD,	    /* writev */
	[67] = CALL_FD,	    /* pread64 */
	[68] = CALL_FD,	    /* pwrite64 */
	[71] = CALL_FD,	    /* sendfile */
	[72] = CALL_SELECT, /* pselect6 */
	[73] = CALL_POLL,   /* ppoll */
	[76] = CALL_FD,	    /* splice */
	[78] = CALL_FILE,   /* readlinkat */
	[79] = CALL_FILE,   /* newfstatat */
	[80] = CALL_FILE,   /* fstat */
	[81] = CALL_FILE,   /* sync */
	[82] = CALL_SYNC,   /* fsync */
	[83] = CALL_SYNC,   /* fdatasync */
	[84] = CALL_SYNC,   /* sync_file_range */
	[98] = CALL_FUTEX,  /* futex */
	[101] = CALL_SLEEP, /* nanosleep */
	[115] = CALL_SLEEP, /* clock_nanosleep */
	[128] = CALL_RESTART,
	[192] = CALL_SEMOP, /* semtimedop */
	[193] = CALL_SEMOP, /* semop */
	[202] = CALL_SOCKET, /* accept */
	[203] = CALL_SOCKET, /* connect */
	[206] = CALL_SOCKET, /* sendto */
	[207] = CALL_SOCKET, /* recvfrom */
	[211] = CALL_SOCKET, /* sendmsg */
	[212] = CALL_SOCKET, /* recvmsg */
	[221] = CALL_FILE,  /* execve */
	[227] = CALL_FILE,  /* msync */
	[242] = CALL_SOCKET, /* accept4 */
	[243] = CALL_SOCKET, /* recvmmsg */
	[267] = CALL_SYNC,  /* syncfs */
	[269] = CALL_SOCKET, /* sendmmsg */
	[276] = CALL_FILE,  /* renameat2 */
	[285] = CALL_FD,    /* copy_file_range */
	[291] = CALL_FILE,  /* statx */
	[439] = CALL_FILE,  /* faccessat2 */
	[441] = CALL_EPOLL, /* epoll_pwait2 */
	[449] = CALL_FUTEX, /* futex_waitv */
	[455] = CALL_FUTEX, /* futex_wait */
#endif
};

#endif
