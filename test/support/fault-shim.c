/*
 * Makes system calls of one process fail on purpose. Loaded with LD_PRELOAD; the rules are in a file that is mapped, so
 * that another process can change them at any time, and read how often each was hit. fault-shim.ts writes them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define RULES 8
#define NONE -1
#define LARGE (16u << 20)

struct rule {
  char operation[16];
  char suffix[64]; /* what the path ends with */
  int error;       /* errno; 0: the call moves no byte; negative: the call takes so many milliseconds longer */
  int skip;        /* calls to let through first */
  int times;       /* calls to fail, negative: all */
  int hits;
};

static struct rule *rules;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAULT_SHIM_RULES");
  int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *map = mmap(NULL, RULES * sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (map != MAP_FAILED) rules = map;
}

static int ends_with(const char *path, const char *suffix) {
  size_t length = strlen(path), tail = strlen(suffix);
  return length >= tail && strcmp(path + length - tail, suffix) == 0;
}

static int fault(const char *operation, int fd, const char *path) {
  char name[4096];
  for (int i = 0; rules != NULL && i < RULES; i++) {
    struct rule *rule = &rules[i];
    if (__atomic_load_n(&rule->times, __ATOMIC_SEQ_CST) == 0 || strcmp(rule->operation, operation) != 0) continue;
    if (path == NULL) {
      char link[64];
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t length = readlink(link, name, sizeof name - 1);
      name[length < 0 ? 0 : length] = 0;
      path = name;
    }
    if (!ends_with(path, rule->suffix)) continue;
    if (__atomic_load_n(&rule->skip, __ATOMIC_SEQ_CST) > 0) {
      __atomic_fetch_sub(&rule->skip, 1, __ATOMIC_SEQ_CST);
      continue;
    }
    if (rule->times > 0) __atomic_fetch_sub(&rule->times, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&rule->hits, 1, __ATOMIC_SEQ_CST);
    if (rule->error >= 0) return rule->error;
    usleep(-rule->error * 1000);
    return NONE;
  }
  return NONE;
}

/* Calls the real function, unless a rule says otherwise. */
#define UNLESS_FAULT(operation, fd, path, failed, name, type, ...)         \
  static type real;                                                        \
  if (real == NULL) real = (type)dlsym(RTLD_NEXT, #name);                  \
  int error = fault(operation, fd, path);                                  \
  if (error == NONE) return real(__VA_ARGS__);                             \
  errno = error;                                                           \
  return error == 0 ? 0 : (failed);

typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
typedef ssize_t (*read_t)(int, void *, size_t);
typedef ssize_t (*pread_t)(int, void *, size_t, off_t);
typedef int (*sync_t)(int);
typedef int (*truncate_t)(int, off_t);
typedef int (*unlink_t)(const char *);
typedef int (*mkdir_t)(const char *, mode_t);
typedef int (*stat_t)(int, struct stat *);
typedef int (*open_t)(const char *, int, ...);
typedef int (*fcntl_t)(int, int, ...);
typedef void *(*mmap_t)(void *, size_t, int, int, int, off_t);
typedef void *(*malloc_t)(size_t);

ssize_t write(int fd, const void *b, size_t n) { UNLESS_FAULT("write", fd, NULL, -1, write, write_t, fd, b, n) }
ssize_t read(int fd, void *b, size_t n) { UNLESS_FAULT("read", fd, NULL, -1, read, read_t, fd, b, n) }

#define PWRITE(name) \
  ssize_t name(int fd, const void *b, size_t n, off_t at) { UNLESS_FAULT("write", fd, NULL, -1, name, pwrite_t, fd, b, n, at) }
#define PREAD(name) \
  ssize_t name(int fd, void *b, size_t n, off_t at) { UNLESS_FAULT("read", fd, NULL, -1, name, pread_t, fd, b, n, at) }
#define SYNC(name) \
  int name(int fd) { UNLESS_FAULT("sync", fd, NULL, -1, name, sync_t, fd) }
#define TRUNCATE(name) \
  int name(int fd, off_t n) { UNLESS_FAULT("truncate", fd, NULL, -1, name, truncate_t, fd, n) }
#define MMAP(name)                                                              \
  void *name(void *to, size_t n, int protection, int flags, int fd, off_t at) { \
    UNLESS_FAULT(fd < 0 ? "" : "map", fd, NULL, MAP_FAILED, name, mmap_t, to, n, protection, flags, fd, at) \
  }
#define OPEN(name)                                                              \
  int name(const char *path, int flags, ...) {                                  \
    va_list rest;                                                               \
    va_start(rest, flags);                                                      \
    int mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, int) : 0;         \
    va_end(rest);                                                               \
    UNLESS_FAULT("open", -1, path, -1, name, open_t, path, flags, mode)         \
  }
#define FCNTL(name)                                                             \
  int name(int fd, int command, ...) {                                          \
    va_list rest;                                                               \
    va_start(rest, command);                                                    \
    void *argument = va_arg(rest, void *);                                      \
    va_end(rest);                                                               \
    int lock = command == F_SETLK || command == F_SETLKW || command == F_GETLK; \
    UNLESS_FAULT(lock ? "lock" : "", fd, NULL, -1, name, fcntl_t, fd, command, argument) \
  }

PWRITE(pwrite) PWRITE(pwrite64)
PREAD(pread) PREAD(pread64)
SYNC(fsync) SYNC(fdatasync)
TRUNCATE(ftruncate) TRUNCATE(ftruncate64)
MMAP(mmap) MMAP(mmap64)
OPEN(open) OPEN(open64)
FCNTL(fcntl) FCNTL(fcntl64)

int fstat(int fd, struct stat *to) { UNLESS_FAULT("stat", fd, NULL, -1, fstat, stat_t, fd, to) }
int fstat64(int fd, struct stat64 *to) { UNLESS_FAULT("stat", fd, NULL, -1, fstat64, stat_t, fd, (struct stat *)to) }

int unlink(const char *path) { UNLESS_FAULT("unlink", -1, path, -1, unlink, unlink_t, path) }
int mkdir(const char *path, mode_t mode) { UNLESS_FAULT("mkdir", -1, path, -1, mkdir, mkdir_t, path, mode) }

/* Each call that a rule is for finds so many percent less free than the one before. */
static fsblkcnt64_t shrunk(fsblkcnt64_t free, const char *path) {
  static int lost;
  int percent = fault("statfs", -1, path);
  if (percent != NONE && lost + percent < 100) lost += percent;
  return free - free / 100 * lost;
}

#define STATFS(name)                                       \
  int name(const char *path, struct name *to) {            \
    static int (*real)(const char *, struct name *);       \
    if (real == NULL) real = dlsym(RTLD_NEXT, #name);      \
    int result = real(path, to);                           \
    if (result == 0) to->f_bavail = shrunk(to->f_bavail, path); \
    return result;                                         \
  }

STATFS(statfs) STATFS(statfs64)

/* Only large pieces, as SQLite asks for when a value is large: nothing else in the process may notice. */
void *malloc(size_t n) { UNLESS_FAULT(n < LARGE ? "" : "malloc", -1, "", NULL, malloc, malloc_t, n) }

/* The clock on the wall is so many seconds off; the one that only goes forward is not. */
static long off(void) {
  for (int i = 0; rules != NULL && i < RULES; i++) {
    if (rules[i].times == 0 || strcmp(rules[i].operation, "clock") != 0) continue;
    __atomic_fetch_add(&rules[i].hits, 1, __ATOMIC_SEQ_CST);
    return rules[i].error;
  }
  return 0;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone) {
  static int (*real)(struct timeval *, void *);
  if (real == NULL) real = dlsym(RTLD_NEXT, "gettimeofday");
  int result = real(to, zone);
  if (result == 0) to->tv_sec += off();
  return result;
}

int clock_gettime(clockid_t id, struct timespec *to) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, to);
  if (result == 0 && id == CLOCK_REALTIME) to->tv_sec += off();
  return result;
}
