/* Time, and the board that processes share: its NPU is a lock file in the folder that RKLLM_SIM_BOARD names. */
#define _GNU_SOURCE
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void sleep_until(double when) {
    struct timespec until = {.tv_sec = (time_t)when};
    until.tv_nsec = (long)((when - (double)until.tv_sec) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

void pace_of(const struct model *m, double *prefill_ms, double *decode_ms) {
    const char *pace = getenv("RKLLM_SIM_PACE");
    *prefill_ms = m->prefill_ms;
    *decode_ms = m->decode_ms;
    if (pace && *pace && sscanf(pace, "%lf,%lf", prefill_ms, decode_ms) != 2)
        fprintf(stderr, "rkllm-sim: RKLLM_SIM_PACE is %s; it has to look like 2.5,80\n", pace);
}

static atomic_int loaded_here;

bool board_take(bool alone, int *lock) {
    const char *folder = getenv("RKLLM_SIM_BOARD");
    *lock = -1;
    if (folder && *folder) {
        char *path = NULL;
        if (asprintf(&path, "%s/npu.lock", folder) < 0)
            return false;
        *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        free(path);
    }
    if (*lock < 0) {
        int others = atomic_fetch_add(&loaded_here, 1);
        if (alone && others > 0) {
            board_leave(-1);
            return false;
        }
        return true;
    }
    /* Every load holds a shared lock, which belongs to the open file: handles of one process count too. */
    if (alone && flock(*lock, LOCK_EX | LOCK_NB) != 0) {
        close(*lock);
        return false;
    }
    while (flock(*lock, LOCK_SH) != 0 && errno == EINTR) {
    }
    return true;
}

void board_leave(int lock) {
    if (lock >= 0)
        close(lock);
    else
        atomic_fetch_sub(&loaded_here, 1);
}
