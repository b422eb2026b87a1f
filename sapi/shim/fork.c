/* fork(2) such that the child is not ours but our supervisor's; and forks by others. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "glasspool.h"

/* The intermediate process shares our memory (vfork), forks the worker and exits;
 * the worker is then re-parented to the nearest subreaper, the supervisor. Twice as
 * fast as a double fork, because the intermediate copies no page tables.
 *
 * SIGQUIT, by which the supervisor ends a worker, is ignored here and may come as soon
 * as the worker exists. So it is blocked across the fork, which keeps it until the
 * worker has its handler: a blocked signal is not dropped because it is ignored
 * (sig_ignored() in the kernel's kernel/signal.c), and what is pending here is not
 * inherited (fork(2)). The worker unblocks it, before it starts anything that would
 * inherit the mask. SIGTERM needs no such care, it ends a worker at any time.
 *
 * Returns 0 in the worker, with SIGQUIT blocked, its pid in the engine, or -1 with
 * errno. When it returns in the engine the intermediate has been reaped, so the worker
 * already is the supervisor's child. */
int gp_fork(void)
{
	volatile pid_t worker = -1;
	volatile int error = 0;
	sigset_t quit, before;
	int status;

	sigemptyset(&quit);
	sigaddset(&quit, SIGQUIT);
	sigprocmask(SIG_BLOCK, &quit, &before);
	pid_t intermediate = vfork();
	if (intermediate == 0) {
		pid_t pid = fork();
		if (pid == 0) {
			/* A process of its own, with a copy of this stack: it may return. */
			return 0;
		}
		worker = pid;
		error = errno;
		_exit(0);
	}
	if (intermediate < 0) {
		error = errno;
	} else {
		while (waitpid(intermediate, &status, 0) < 0 && errno == EINTR) {
		}
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return worker;
}

static bool forked;

static void on_fork(void)
{
	forked = true;
}

bool gp_watch_forks(void)
{
	return pthread_atfork(NULL, NULL, on_fork) == 0;
}

bool gp_is_forked(void)
{
	return forked;
}
