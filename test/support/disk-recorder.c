/*
 * Writes down what a process, and those it starts, do to the files of one folder: every write with its bytes, truncation, sync,
 * and change of a name, in one order. Loaded with LD_PRELOAD; disk-recorder.ts starts it and reads what it has written.
 *
 * One lock, held by one thread of all the processes, goes around each call and its record. So nothing runs beside a sync: it
 * covers exactly what is recorded before it, and nothing that comes after it. That changes when things happen, but nothing that
 * could not have happened without the lock; what a disk may do with a write and a sync that overlap, it may do with a write
 * before a sync that has not ended.
 *
 * A file is its inode: under another name it is the same. What is in shared memory (-shm) no power cut leaves, and SQLite makes it
 * anew: it is left out.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As in disk-recorder.ts. */
enum kind { OPEN = 1, OPEN_EMPTY, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, MAKE_FOLDER, REMOVE_FOLDER, RENAME, UNLINK, NOTE, UNSEEN };

struct record {
  uint32_t magic, kind;
  uint32_t name_bytes; /* of the one or two names that follow, each with its zero */
  uint32_t data_bytes; /* of what was written, behind the names */
  uint64_t inode, at;  /* at: an offset, or a length to truncate to */
  uint64_t begun, ended; /* nanoseconds, CLOCK_MONOTONIC */
  uint64_t process;
};

#define MAGIC 0x43455244u

static char folder[PATH_MAX], notes[PATH_MAX];
static int out = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real_of(#name))

static void *real_of(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (found == NULL) abort();
  return found;
}

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);

__attribute__((constructor)) static void begin(void) {
  real_open = REAL(open);
  real_write = REAL(write);
  real_writev = REAL(writev);
  const char *file = getenv("DISK_RECORDER_FILE"), *below = getenv("DISK_RECORDER_FOLDER");
  const char *said = getenv("DISK_RECORDER_NOTES");
  if (file == NULL || below == NULL) return;
  snprintf(folder, sizeof folder, "%s/", below);
  snprintf(notes, sizeof notes, "%s", said == NULL ? "" : said);
  out = real_open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (out < 0) abort();
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void lock(void) {
  pthread_mutex_lock(&mutex);
  while (flock(out, LOCK_EX) != 0 && errno == EINTR) continue;
}

static void unlock(void) {
  int kept = errno;
  flock(out, LOCK_UN);
  pthread_mutex_unlock(&mutex);
  errno = kept;
}

static int is_recorded(const char *path) {
  size_t length = strlen(folder), tail = strlen(path);
  if (out < 0 || strncmp(path, folder, length - 1) != 0) return 0;
  if (path[length - 1] != 0 && path[length - 1] != '/') return 0;
  return tail < 4 || strcmp(path + tail - 4, "-shm") != 0;
}

/* Whether a descriptor is of a file that is recorded, and its name; of a file without one, the last it had. */
static int is_recorded_fd(int fd, char *name) {
  if (out < 0) return 0;
  int kept = errno;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, name, PATH_MAX - 1);
  errno = kept;
  if (length <= 0) return 0;
  name[length] = 0;
  char *gone = length > 10 ? name + length - 10 : NULL;
  if (gone != NULL && strcmp(gone, " (deleted)") == 0) *gone = 0;
  return is_recorded(name);
}

/* What openat and its like mean by a path. */
static const char *absolute(int at, const char *path, char *to) {
  if (path[0] == '/') return path;
  char from[PATH_MAX];
  if (at == AT_FDCWD) {
    if (getcwd(from, sizeof from) == NULL) return path;
  } else if (!is_recorded_fd(at, from)) {
    return path;
  }
  snprintf(to, PATH_MAX, "%.2000s/%.2000s", from, path);
  return to;
}

static uint64_t inode_of(int fd) {
  struct stat found;
  return fstat(fd, &found) == 0 ? found.st_ino : 0;
}

/* One call to the system, all of it or the end: a record with a hole in it would be taken for another order. */
static void put(struct record record, uint64_t begun, const char *name, const char *other, const void *data) {
  int kept = errno;
  record.magic = MAGIC;
  record.begun = begun;
  record.ended = now();
  record.process = (uint64_t)getpid();
  size_t first = name == NULL ? 0 : strlen(name) + 1, second = other == NULL ? 0 : strlen(other) + 1;
  record.name_bytes = (uint32_t)(first + second);
  struct iovec parts[] = {{&record, sizeof record}, {(void *)name, first}, {(void *)other, second}, {(void *)data, record.data_bytes}};
  size_t total = sizeof record + first + second + record.data_bytes;
  if (real_writev(out, parts, 4) != (ssize_t)total) abort();
  errno = kept;
}

/* To die is to die between two operations: whoever holds the lock does. */
static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static char fatal[64]; /* in place of the next sync of a file with this suffix */

/* What the program has to say, in the order of everything else: "die" is now, "die SUFFIX" is later. */
static ssize_t note(const void *bytes, size_t n) {
  lock();
  put((struct record){.kind = NOTE, .data_bytes = (uint32_t)n}, now(), NULL, NULL, bytes);
  if (n == 3 && memcmp(bytes, "die", 3) == 0) die();
  if (n > 4 && memcmp(bytes, "die ", 4) == 0) snprintf(fatal, sizeof fatal, "%.*s", (int)n - 4, (const char *)bytes + 4);
  unlock();
  return (ssize_t)n;
}

static void die_if_fatal(const char *name) {
  size_t length = strlen(name), tail = strlen(fatal);
  if (tail > 0 && length >= tail && strcmp(name + length - tail, fatal) == 0) die();
}

static int is_note(int fd, const char *name) { return fd > 2 && strcmp(name, notes) == 0; }

/* Where a write without a position goes. */
static off_t position_of(int fd) {
  struct stat found;
  if ((fcntl(fd, F_GETFL) & O_APPEND) != 0 && fstat(fd, &found) == 0) return found.st_size;
  return lseek(fd, 0, SEEK_CUR);
}

#define RECORDED_WRITE(type, fd, position, bytes, call)                                             \
  lock();                                                                                           \
  uint64_t begun = now();                                                                           \
  off_t where = (position);                                                                         \
  type written = (call);                                                                            \
  if (written > 0) {                                                                                \
    struct record record = {.kind = WRITE, .inode = inode_of(fd), .at = (uint64_t)where, .data_bytes = (uint32_t)written}; \
    put(record, begun, NULL, NULL, bytes);                                                          \
  }                                                                                                 \
  unlock();                                                                                         \
  return written;

ssize_t write(int fd, const void *bytes, size_t n) {
  char name[PATH_MAX] = "";
  if (!is_recorded_fd(fd, name)) return is_note(fd, name) ? note(bytes, n) : real_write(fd, bytes, n);
  RECORDED_WRITE(ssize_t, fd, position_of(fd), bytes, real_write(fd, bytes, n))
}

#define PWRITE(function)                                                        \
  ssize_t function(int fd, const void *bytes, size_t n, off_t at) {             \
    static ssize_t (*real)(int, const void *, size_t, off_t);                   \
    if (real == NULL) real = REAL(function);                                    \
    char name[PATH_MAX] = "";                                                   \
    if (!is_recorded_fd(fd, name)) return real(fd, bytes, n, at);               \
    RECORDED_WRITE(ssize_t, fd, at, bytes, real(fd, bytes, n, at))              \
  }

PWRITE(pwrite) PWRITE(pwrite64)

/* The parts in one piece, for the record. */
static char *joined(const struct iovec *parts, int count) {
  size_t total = 0, at = 0;
  for (int i = 0; i < count; i++) total += parts[i].iov_len;
  char *bytes = malloc(total + 1);
  if (bytes == NULL) abort();
  for (int i = 0; i < count; at += parts[i++].iov_len) memcpy(bytes + at, parts[i].iov_base, parts[i].iov_len);
  return bytes;
}

static ssize_t recorded_parts(int fd, const char *bytes, off_t at, ssize_t (*real)(int, const struct iovec *, int, off_t),
                              const struct iovec *parts, int count) {
  RECORDED_WRITE(ssize_t, fd, real == NULL ? position_of(fd) : at, bytes,
                 real == NULL ? real_writev(fd, parts, count) : real(fd, parts, count, at))
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  char name[PATH_MAX] = "";
  if (!is_recorded_fd(fd, name)) return real_writev(fd, parts, count);
  char *bytes = joined(parts, count);
  ssize_t written = recorded_parts(fd, bytes, 0, NULL, parts, count);
  free(bytes);
  return written;
}

#define PWRITEV(function)                                                         \
  ssize_t function(int fd, const struct iovec *parts, int count, off_t at) {      \
    static ssize_t (*real)(int, const struct iovec *, int, off_t);                \
    if (real == NULL) real = REAL(function);                                      \
    char name[PATH_MAX] = "";                                                     \
    if (!is_recorded_fd(fd, name)) return real(fd, parts, count, at);             \
    char *bytes = joined(parts, count);                                           \
    ssize_t written = recorded_parts(fd, bytes, at, real, parts, count);          \
    free(bytes);                                                                  \
    return written;                                                               \
  }

PWRITEV(pwritev) PWRITEV(pwritev64)

#define TRUNCATION(function)                                                                                  \
  int function(int fd, off_t length) {                                                                        \
    static int (*real)(int, off_t);                                                                           \
    if (real == NULL) real = REAL(function);                                                                  \
    char name[PATH_MAX];                                                                                      \
    if (!is_recorded_fd(fd, name)) return real(fd, length);                                                   \
    lock();                                                                                                   \
    uint64_t begun = now();                                                                                   \
    int result = real(fd, length);                                                                            \
    if (result == 0)                                                                                          \
      put((struct record){.kind = TRUNCATE, .inode = inode_of(fd), .at = (uint64_t)length}, begun, NULL, NULL, NULL); \
    unlock();                                                                                                 \
    return result;                                                                                            \
  }

TRUNCATION(ftruncate) TRUNCATION(ftruncate64)

#define SYNCHRONIZATION(function)                                                                             \
  int function(int fd) {                                                                                      \
    static int (*real)(int);                                                                                  \
    if (real == NULL) real = REAL(function);                                                                  \
    char name[PATH_MAX];                                                                                      \
    if (!is_recorded_fd(fd, name)) return real(fd);                                                           \
    lock();                                                                                                   \
    uint64_t begun = now();                                                                                   \
    struct stat found;                                                                                        \
    die_if_fatal(name);                                                                                       \
    int is_folder = fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);                                         \
    int result = real(fd);                                                                                    \
    if (result == 0)                                                                                          \
      put((struct record){.kind = is_folder ? SYNC_FOLDER : SYNC, .inode = found.st_ino}, begun, name, NULL, NULL); \
    unlock();                                                                                                 \
    return result;                                                                                            \
  }

SYNCHRONIZATION(fsync) SYNCHRONIZATION(fdatasync)

/* Only where something can change: what is opened to be read, a folder to be synced say, leaves no record. */
static int recorded_open(int (*real)(int, const char *, int, ...), int at, const char *given, int flags, int mode) {
  char to[PATH_MAX];
  const char *path = absolute(at, given, to);
  if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_TMPFILE) == O_TMPFILE || !is_recorded(path)) {
    return real(at, given, flags, mode);
  }
  lock();
  uint64_t begun = now();
  int fd = real(at, given, flags, mode);
  if (fd >= 0) {
    uint32_t kind = (flags & O_TRUNC) != 0 ? OPEN_EMPTY : OPEN;
    put((struct record){.kind = kind, .inode = inode_of(fd)}, begun, path, NULL, NULL);
  }
  unlock();
  return fd;
}

static int mode_of(int flags, va_list rest) { return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, int) : 0; }

#define OPENED_AT(function)                                          \
  int function(int at, const char *path, int flags, ...) {        \
    static int (*real)(int, const char *, int, ...);              \
    if (real == NULL) real = REAL(function);                      \
    va_list rest;                                                 \
    va_start(rest, flags);                                        \
    int mode = mode_of(flags, rest);                              \
    va_end(rest);                                                 \
    return recorded_open(real, at, path, flags, mode);            \
  }

OPENED_AT(openat) OPENED_AT(openat64)

#define OPENED(function)                                                              \
  int function(const char *path, int flags, ...) {                                  \
    static int (*real)(int, const char *, int, ...);                                \
    if (real == NULL) real = (int (*)(int, const char *, int, ...))real_of("openat"); \
    va_list rest;                                                                   \
    va_start(rest, flags);                                                          \
    int mode = mode_of(flags, rest);                                                \
    va_end(rest);                                                                   \
    return recorded_open(real, AT_FDCWD, path, flags, mode);                        \
  }

OPENED(open) OPENED(open64)

/* A call that changes a name. */
#define RECORDED_NAME(what, path, to, call)                                   \
  lock();                                                                     \
  uint64_t begun = now();                                                     \
  int result = (call);                                                        \
  if (result == 0) put((struct record){.kind = what}, begun, path, to, NULL); \
  unlock();                                                                   \
  return result;

#define NAMED(function, what)                                        \
  int function(const char *path) {                                   \
    static int (*real)(const char *);                                \
    if (real == NULL) real = REAL(function);                         \
    if (!is_recorded(path)) return real(path);                       \
    RECORDED_NAME(what, path, NULL, real(path))                   \
  }

NAMED(unlink, UNLINK) NAMED(rmdir, REMOVE_FOLDER)

int remove(const char *path) {
  struct stat found;
  if (lstat(path, &found) == 0 && S_ISDIR(found.st_mode)) return rmdir(path);
  return unlink(path);
}

int unlinkat(int at, const char *given, int flags) {
  static int (*real)(int, const char *, int);
  if (real == NULL) real = REAL(unlinkat);
  char to[PATH_MAX];
  const char *path = absolute(at, given, to);
  if (!is_recorded(path)) return real(at, given, flags);
  RECORDED_NAME((flags & AT_REMOVEDIR) != 0 ? REMOVE_FOLDER : UNLINK, path, NULL, real(at, given, flags))
}

int mkdir(const char *path, mode_t mode) {
  static int (*real)(const char *, mode_t);
  if (real == NULL) real = REAL(mkdir);
  if (!is_recorded(path)) return real(path, mode);
  RECORDED_NAME(MAKE_FOLDER, path, NULL, real(path, mode))
}

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (real == NULL) real = REAL(rename);
  if (!is_recorded(from) && !is_recorded(to)) return real(from, to);
  RECORDED_NAME(RENAME, from, to, real(from, to))
}

/* Bytes that come into a file past all this: whoever reads the record must know that it is not the whole. */
#define MAPPED(function)                                                                                  \
  void *function(void *to, size_t n, int protection, int flags, int fd, off_t at) {                       \
    static void *(*real)(void *, size_t, int, int, int, off_t);                                           \
    if (real == NULL) real = REAL(function);                                                              \
    char name[PATH_MAX];                                                                                  \
    if (fd >= 0 && (flags & MAP_SHARED) != 0 && (protection & PROT_WRITE) != 0 && is_recorded_fd(fd, name)) { \
      lock();                                                                                             \
      put((struct record){.kind = UNSEEN, .inode = inode_of(fd)}, now(), name, NULL, NULL);               \
      unlock();                                                                                           \
    }                                                                                                     \
    return real(to, n, protection, flags, fd, at);                                                        \
  }

MAPPED(mmap) MAPPED(mmap64)
