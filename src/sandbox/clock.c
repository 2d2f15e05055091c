/* Preloaded into the programs of a step by `isolith verify`: libc's wall clock runs ahead by a fixed number
   of seconds. Needs no libc itself, so that it loads into programs of any. Not reached: static programs, raw
   system calls, and times of files, which are the kernel's. */

#define NULL ((void *)0)
typedef long time_t;
struct timespec { time_t tv_sec; long tv_nsec; };
struct timeval { time_t tv_sec; long tv_usec; };

/* The seconds are written behind the mark before the file is put into the sandbox. */
static volatile struct { char mark[16]; long seconds; } shift
    __attribute__((used)) = { "isolith--clock-", 0 };

extern int *__errno_location(void) __attribute__((weak));

#if defined(__x86_64__)
#define CLOCK_GETTIME 228
static long raw(long number, long a, long b)
{
    long ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
    return ret;
}
#elif defined(__aarch64__)
#define CLOCK_GETTIME 113
static long raw(long number, long a, long b)
{
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1) : "memory");
    return x0;
}
#else
#error "no system calls known for this architecture"
#endif

int clock_gettime(int clock, struct timespec *at)
{
    long ret = raw(CLOCK_GETTIME, clock, (long)at);
    if (ret < 0) {
        if (__errno_location)
            *__errno_location() = (int)-ret;
        return -1;
    }
    /* CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM, CLOCK_TAI */
    if (clock == 0 || clock == 5 || clock == 8 || clock == 11)
        at->tv_sec += shift.seconds;
    return 0;
}

int gettimeofday(struct timeval *at, void *zone)
{
    struct timespec now;
    (void)zone;
    if (at) {
        if (clock_gettime(0, &now))
            return -1;
        at->tv_sec = now.tv_sec;
        at->tv_usec = now.tv_nsec / 1000;
    }
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    if (clock_gettime(0, &now))
        return -1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *at, int base)
{
    return base == 1 && clock_gettime(0, at) == 0 ? base : 0;
}
