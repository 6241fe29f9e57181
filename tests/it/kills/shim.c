/* A library to be preloaded: counts what a process does to the files of one folder, and at one of these operations ends
   the process, or lets this and all later ones fail as on a full disk.

   FAULTS_IN     part of the paths that count
   FAULTS_AT     number of the operation, from 1; without it operations are only counted
   FAULTS_HOW    kill (before the operation; a write is carried out by half first), full, or nolock
   FAULTS_COUNT  file that gets the number of operations when the process ends */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long count;

static const char *how(void) {
  const char *h = getenv("FAULTS_HOW");
  return h ? h : "";
}

/* Whether a path counts, `dir` being what it is relative to. */
static int counts(int dir, const char *path) {
  const char *part = getenv("FAULTS_IN");
  if (!part || !path) return 0;
  if (strstr(path, part)) return 1;
  if (path[0] == '/') return 0;
  char link[64], around[4096];
  if (dir == AT_FDCWD)
    snprintf(link, sizeof link, "/proc/self/cwd");
  else
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
  long n = syscall(SYS_readlink, link, around, sizeof around - 1);
  if (n <= 0) return 0;
  around[n] = 0;
  return strstr(around, part) != NULL;
}

static int fd_counts(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  long n = syscall(SYS_readlink, link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  const char *part = getenv("FAULTS_IN");
  return part && strstr(path, part) != NULL;
}

__attribute__((noreturn)) static void die(void) {
  syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
  for (;;) pause();
}

enum { GO_ON, NOW, FAIL };

/* One more operation. `grows`: whether it needs space. */
static int operation(int grows) {
  const char *at = getenv("FAULTS_AT");
  long number = atomic_fetch_add(&count, 1) + 1;
  if (!at || !atol(at)) return GO_ON;
  if (!strcmp(how(), "kill") && number == atol(at)) return NOW;
  if (!strcmp(how(), "full") && number >= atol(at) && grows) return FAIL;
  return GO_ON;
}


#define STEP(which, grows)                                                                                                \
  if (which) switch (operation(grows)) {                                                                                  \
    case NOW: die();                                                                                                      \
    case FAIL: errno = ENOSPC; return -1;                                                                                 \
  }

#define OPENS(name, at, dir, first)                                                                                       \
  int name(first const char *path, int flags, ...) {                                                                      \
    mode_t mode = 0;                                                                                                      \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                                  \
      va_list more;                                                                                                       \
      va_start(more, flags);                                                                                              \
      mode = va_arg(more, mode_t);                                                                                        \
      va_end(more);                                                                                                       \
    }                                                                                                                     \
    int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);                                                         \
    STEP(writes && counts(dir, path), flags &O_CREAT)                                                                     \
    return at;                                                                                                            \
  }

#define COMMA ,
OPENS(open, (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), AT_FDCWD, )
OPENS(open64, (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), AT_FDCWD, )
OPENS(openat, (int)syscall(SYS_openat, dir, path, flags, mode), dir, int dir COMMA)
OPENS(openat64, (int)syscall(SYS_openat, dir, path, flags, mode), dir, int dir COMMA)

/* A write that a power cut, a kill or a full disk breaks off. */
ssize_t write(int fd, const void *bytes, size_t n) {
  if (fd_counts(fd)) switch (operation(1)) {
      case NOW: syscall(SYS_write, fd, bytes, n / 2); die();
      case FAIL: errno = ENOSPC; return -1;
    }
  return syscall(SYS_write, fd, bytes, n);
}

#define PWRITES(name)                                                                                                     \
  ssize_t name(int fd, const void *bytes, size_t n, off_t at) {                                                           \
    if (fd_counts(fd)) switch (operation(1)) {                                                                            \
        case NOW: syscall(SYS_pwrite64, fd, bytes, n / 2, at); die();                                                     \
        case FAIL: errno = ENOSPC; return -1;                                                                             \
      }                                                                                                                   \
    return syscall(SYS_pwrite64, fd, bytes, n, at);                                                                       \
  }
PWRITES(pwrite)
PWRITES(pwrite64)

ssize_t writev(int fd, const struct iovec *parts, int n) {
  STEP(fd_counts(fd), 1)
  return syscall(SYS_writev, fd, parts, n);
}

int fsync(int fd) {
  STEP(fd_counts(fd), 0)
  return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  STEP(fd_counts(fd), 0)
  return syscall(SYS_fdatasync, fd);
}

#define TRUNCATES(name)                                                                                                   \
  int name(int fd, off_t n) {                                                                                             \
    STEP(fd_counts(fd), 0)                                                                                                \
    return syscall(SYS_ftruncate, fd, n);                                                                                 \
  }
TRUNCATES(ftruncate)
TRUNCATES(ftruncate64)

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  STEP(counts(from_dir, from) || counts(to_dir, to), 0)
  return syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) {
  return renameat2(from_dir, from, to_dir, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
  STEP(counts(to_dir, to), 0)
  return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *path, int flags) {
  STEP(counts(dir, path), 0)
  return syscall(SYS_unlinkat, dir, path, flags);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dir, const char *path, mode_t mode) {
  STEP(counts(dir, path), 1)
  return syscall(SYS_mkdirat, dir, path, mode);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* As on a network file system without locks. */
int flock(int fd, int operation) {
  if (!strcmp(how(), "nolock")) {
    errno = ENOLCK;
    return -1;
  }
  return syscall(SYS_flock, fd, operation);
}

__attribute__((destructor)) static void report(void) {
  const char *path = getenv("FAULTS_COUNT");
  if (!path) return;
  char text[32];
  int n = snprintf(text, sizeof text, "%ld", (long)count);
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd >= 0) {
    syscall(SYS_write, fd, text, n);
    syscall(SYS_close, fd);
  }
}
