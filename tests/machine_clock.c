/* Moves the wall clock of a process, and nothing else: see machine_clock.py, which compiles this.
 *
 * LD_PRELOAD puts these functions before those of the C library. They add the number of seconds in
 * the mapped file MACHINE_CLOCK, so that it changes for all processes at once. libfaketime can't do
 * this: Debian's version breaks clock_nanosleep() if the monotonic clock is left alone.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *difference_s;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("MACHINE_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);

    if (file >= 0)
        close(file);
    if (page != MAP_FAILED)
        difference_s = page;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, id, now);

    if (result == 0 && difference_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += *difference_s;
    return result;
}

/* Nobody keeps right a clock that a test sets. */
int adjtimex(struct timex *state)
{
    (void)state;
    return TIME_ERROR;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds)
        *seconds = now.tv_sec;
    return now.tv_sec;
}
