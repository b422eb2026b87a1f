/* How a worker dies of a signal: first it says so in its slot and waits for the
 * observer's look at its stack, then it dies of that very signal, with its core.
 *
 * Only what signal-safety(7) allows is called here, and no memory is taken. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "glasspool.h"

static const int deadly[] = { SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE };
enum { DEADLY = sizeof deadly / sizeof *deadly };

static struct {
	pid_t worker;
	uint64_t *signal, *registers[2];
	int doorbell;
	int patience_ms;
	bool entered;
} crash;

/* Where PHP's hybrid VM keeps its frame and its position (zend_execute.c of php-src),
 * as they were when the signal came. */
static void read_registers(const ucontext_t *context, uint64_t registers[2])
{
#if defined(__x86_64__)
	registers[0] = (uint64_t)context->uc_mcontext.gregs[REG_R14];
	registers[1] = (uint64_t)context->uc_mcontext.gregs[REG_R15];
#elif defined(__aarch64__)
	registers[0] = context->uc_mcontext.regs[27];
	registers[1] = context->uc_mcontext.regs[28];
#else
	(void)context;
	registers[0] = registers[1] = 0;
#endif
}

static void publish(int signal, const ucontext_t *context)
{
	const uint64_t one = 1;
	uint64_t registers[2];

	read_registers(context, registers);
	__atomic_store_n(crash.registers[0], registers[0], __ATOMIC_RELAXED);
	__atomic_store_n(crash.registers[1], registers[1], __ATOMIC_RELAXED);
	__atomic_store_n(crash.signal, (uint64_t)signal, __ATOMIC_RELEASE);
	/* The doorbell never blocks; if it is full it has been rung already. */
	if (write(crash.doorbell, &one, sizeof one) < 0) {
		return;
	}
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until SIGCONT says that the look is done, or that there will be none. All signals are
 * blocked here, so SIGCONT is kept although nobody handles it; another deadly one that
 * somebody sends means that there is no more time. */
static void wait_for_look(void)
{
	const int64_t end = now_ms() + crash.patience_ms;
	int64_t left;
	sigset_t enough;

	sigemptyset(&enough);
	sigaddset(&enough, SIGCONT);
	for (int i = 0; i < DEADLY; i++) {
		sigaddset(&enough, deadly[i]);
	}
	while ((left = end - now_ms()) > 0) {
		struct timespec rest = { left / 1000, left % 1000 * 1000000 };
		if (sigtimedwait(&enough, NULL, &rest) > 0 || errno != EINTR) {
			return;
		}
	}
}

/* Whether what happened happens again once the handler returns. That is so for what
 * the CPU found at the current instruction, and then the kernel logs it as it does
 * without a handler; not for what was sent, for what the kernel itself forced on us
 * (SI_KERNEL, which need not be the instruction's fault), and for a broken page that
 * we did not touch yet. */
static bool happens_again(int signal, const siginfo_t *info)
{
	bool elsewhere = signal == SIGBUS && info->si_code == BUS_MCEERR_AO;

	return info->si_code > 0 && info->si_code < SI_KERNEL && !elsewhere;
}

/* Dies when the handler returns, with the registers and the stack of the crash in the
 * core: until then the signal is blocked. One that was sent is sent again with all that
 * is known of it, so that the core still names its sender (rt_sigqueueinfo(2) allows
 * this to the process itself). abort(3) would raise SIGABRT once more after the return;
 * it does not come to that. */
static void die_on_return(int signal, siginfo_t *info)
{
	struct sigaction by_default = { .sa_handler = SIG_DFL };

	sigaction(signal, &by_default, NULL);
	if (!happens_again(signal, info)
	    && syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), signal, info) != 0) {
		tgkill(getpid(), gettid(), signal);
	}
}

/* All signals are blocked while this runs. A fault in here therefore kills at once: the
 * kernel never waits with one that it cannot deliver (force_sig_info_to_task() in its
 * kernel/signal.c). Another thread that faults meanwhile finds `entered` set. */
static void on_deadly(int signal, siginfo_t *info, void *context)
{
	/* A process that the application has forked shares the slot of this worker, but
	 * its death is not the worker's. */
	if (getpid() == crash.worker && !__atomic_exchange_n(&crash.entered, true, __ATOMIC_RELAXED)) {
		publish(signal, context);
		wait_for_look();
	}
	die_on_return(signal, info);
}

/* A stack for handlers, with a page below it that nobody may touch: that of the thread
 * may be what has overflowed. Takes memory only once it is used. */
static bool set_alternate_stack(void)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t size = 64 << 10;
#ifdef _SC_SIGSTKSZ
	/* Some CPUs save more registers than SIGSTKSZ has room for (sysconf(3)). */
	const long wanted = sysconf(_SC_SIGSTKSZ);
	if (wanted > 0 && (size_t)wanted > size) {
		size = ((size_t)wanted + page - 1) / page * page;
	}
#endif
	char *start = mmap(NULL, page + size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED) {
		return false;
	}
	const stack_t stack = { .ss_sp = start + page, .ss_size = size };
	if (mprotect(start + page, size, PROT_READ | PROT_WRITE) != 0 || sigaltstack(&stack, NULL) != 0) {
		const int error = errno;
		munmap(start, page + size);
		errno = error;
		return false;
	}
	return true;
}

bool gp_catch_crashes(uint64_t *const words[3], int doorbell, int patience_ms, uint64_t *handled)
{
	struct sigaction action = { .sa_sigaction = on_deadly, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	*handled = 0;
	if (!set_alternate_stack()) {
		return false;
	}
	crash.worker = getpid();
	crash.signal = words[0];
	crash.registers[0] = words[1];
	crash.registers[1] = words[2];
	crash.doorbell = doorbell;
	crash.patience_ms = patience_ms;
	sigfillset(&action.sa_mask);
	for (int i = 0; i < DEADLY; i++) {
		struct sigaction found;
		if (sigaction(deadly[i], NULL, &found) == 0 && found.sa_handler == SIG_DFL) {
			sigaction(deadly[i], &action, NULL);
		} else {
			*handled |= UINT64_C(1) << deadly[i];
		}
	}
	return true;
}
