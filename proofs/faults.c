/* Lets system calls of a program fail, one at a time; loaded with LD_PRELOAD.

   A call concerns a place: one of the folders given to faults_start(), by the path of what it is about, an internet
   socket, or the program itself. Calls are counted by kind and place. faults_arm() lets the calls of one kind and place
   fail from a given one on, some times, with a given errno; with none they do only half of what they are asked for. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PLACES_MAX 8
#define NETWORK 6
#define PROGRAM 7
#define NOWHERE (-1)

#define KINDS(X) \
    X(open) X(stat) X(list) X(read) X(write) X(truncate) X(sync) X(datasync) X(syncfs) X(mkdir) X(rename) X(link) \
    X(symlink) X(unlink) X(rmdir) X(chmod) X(utime) X(lock) X(space) X(close) \
    X(socket) X(bind) X(setsockopt) X(getsockname) X(send) X(receive) \
    X(epoll_create) X(epoll_ctl) X(epoll_wait) X(eventfd) X(socketpair) X(thread) X(memory)

enum {
#define X(name) k_##name,
    KINDS(X)
#undef X
    KIND_COUNT
};

static const char *const names[] = {
#define X(name) #name,
    KINDS(X)
#undef X
    NULL
};

static char roots[PLACES_MAX][1024];
static int root_count;
static _Atomic long counts[KIND_COUNT][PLACES_MAX];
static atomic_int armed_kind = -1, armed_place, armed_errno, active;
static atomic_long armed_from, armed_times, given;

/* What the program calls. */

void faults_start(const char *const *folders, int count) {
    for (int i = 0; i < count && i < NETWORK; i++) snprintf(roots[i], sizeof roots[i], "%s", folders[i]);
    root_count = count;
    active = 1;
}

void faults_reset(void) {
    armed_kind = -1;
    for (int i = 0; i < KIND_COUNT; i++)
        for (int j = 0; j < PLACES_MAX; j++) counts[i][j] = 0;
    given = 0;
}

void faults_arm(int kind, int place, long from, long times, int number) {
    faults_reset();
    armed_place = place;
    armed_errno = number;
    armed_from = from;
    armed_times = times;
    armed_kind = kind;
}

long faults_given(void) { return given; }
long faults_counted(int kind, int place) { return counts[kind][place]; }
const char *faults_kind(int kind) { return kind < KIND_COUNT ? names[kind] : NULL; }

/* 1: the call fails, and errno says how; 2: it does half of what it is asked for. */
static int fails(int kind, int place) {
    long number;
    if (!active || place == NOWHERE) return 0;
    number = ++counts[kind][place];
    if (armed_kind != kind || armed_place != place || number < armed_from || number >= armed_from + armed_times) return 0;
    given++;
    if (!armed_errno) return 2;
    errno = armed_errno;
    return 1;
}

static int place_of(const char *path) {
    for (int i = 0; i < root_count; i++) {
        size_t length = strlen(roots[i]);
        if (strncmp(path, roots[i], length) == 0 && (path[length] == '/' || !path[length])) return i;
    }
    return NOWHERE;
}

static int place_of_fd(int fd) {
    char link[64], path[1024];
    ssize_t length;
    int saved = errno;
    if (!active || fd < 0) return NOWHERE;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = saved;
    if (length <= 0) return NOWHERE;
    path[length] = 0;
    return place_of(path);
}

static int place_at(int at, const char *path) {
    if (!active || !path) return NOWHERE;
    return path[0] == '/' ? place_of(path) : at == AT_FDCWD ? NOWHERE : place_of_fd(at);
}

static int place_of_socket(int fd) {
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    int saved = errno, found;
    if (!active) return NOWHERE;
    found = (int)syscall(SYS_getsockname, fd, &name, &size);
    errno = saved;
    return found == 0 && (name.ss_family == AF_INET || name.ss_family == AF_INET6) ? NETWORK : NOWHERE;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define HALF(how, size) if ((how) == 2) size = (size) / 2 ? (size) / 2 : (size)

/* Opening and looking. */

#define OPEN(name, ARGUMENTS, PASSED, at, path) \
    int name ARGUMENTS { \
        mode_t mode = 0; \
        REAL(int, #name, const void *, ...); \
        if (flags & (O_CREAT | O_TMPFILE)) { \
            va_list list; \
            va_start(list, flags); \
            mode = va_arg(list, mode_t); \
            va_end(list); \
        } \
        if (fails(k_open, place_at(at, path))) return -1; \
        return (int)syscall(SYS_openat, at, path, flags, mode); \
    }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, path)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD, path)
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), at, path)
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), at, path)

#define STAT(name, type, ARGUMENTS, PASSED, place) \
    int name ARGUMENTS { \
        REAL(int, #name, type); \
        if (fails(k_stat, place)) return -1; \
        return real PASSED; \
    }

#define UNPACK(...) __VA_ARGS__
STAT(stat, UNPACK(const char *, struct stat *), (const char *path, struct stat *out), (path, out), place_at(AT_FDCWD, path))
STAT(lstat, UNPACK(const char *, struct stat *), (const char *path, struct stat *out), (path, out), place_at(AT_FDCWD, path))
STAT(fstat, UNPACK(int, struct stat *), (int fd, struct stat *out), (fd, out), place_of_fd(fd))
STAT(fstatat, UNPACK(int, const char *, struct stat *, int), (int at, const char *path, struct stat *out, int flags), (at, path, out, flags), place_at(at, path))
STAT(stat64, UNPACK(const char *, struct stat64 *), (const char *path, struct stat64 *out), (path, out), place_at(AT_FDCWD, path))
STAT(lstat64, UNPACK(const char *, struct stat64 *), (const char *path, struct stat64 *out), (path, out), place_at(AT_FDCWD, path))
STAT(fstat64, UNPACK(int, struct stat64 *), (int fd, struct stat64 *out), (fd, out), place_of_fd(fd))
STAT(fstatat64, UNPACK(int, const char *, struct stat64 *, int), (int at, const char *path, struct stat64 *out, int flags), (at, path, out, flags), place_at(at, path))

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    return fails(k_list, place_at(AT_FDCWD, path)) ? NULL : real(path);
}

DIR *fdopendir(int fd) {
    REAL(DIR *, "fdopendir", int);
    return fails(k_list, place_of_fd(fd)) ? NULL : real(fd);
}

int fstatvfs64(int fd, struct statvfs64 *out) {
    REAL(int, "fstatvfs64", int, struct statvfs64 *);
    return fails(k_space, place_of_fd(fd)) ? -1 : real(fd, out);
}

/* Bytes. */

ssize_t read(int fd, void *out, size_t size) {
    int how = fails(k_read, place_of_fd(fd));
    if (how == 1) return -1;
    HALF(how, size);
    return syscall(SYS_read, fd, out, size);
}

static ssize_t read_at(int fd, void *out, size_t size, off_t offset) {
    int how = fails(k_read, place_of_fd(fd));
    if (how == 1) return -1;
    HALF(how, size);
    return syscall(SYS_pread64, fd, out, size, offset);
}

ssize_t pread(int fd, void *out, size_t size, off_t offset) { return read_at(fd, out, size, offset); }
ssize_t pread64(int fd, void *out, size_t size, off_t offset) { return read_at(fd, out, size, offset); }

ssize_t readv(int fd, const struct iovec *parts, int count) {
    return fails(k_read, place_of_fd(fd)) == 1 ? -1 : syscall(SYS_readv, fd, parts, count);
}

ssize_t write(int fd, const void *data, size_t size) {
    int how = fails(k_write, place_of_fd(fd));
    if (how == 1) return -1;
    HALF(how, size);
    return syscall(SYS_write, fd, data, size);
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t offset) {
    int how = fails(k_write, place_of_fd(fd));
    if (how == 1) return -1;
    HALF(how, size);
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return write_at(fd, data, size, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return fails(k_write, place_of_fd(fd)) == 1 ? -1 : syscall(SYS_writev, fd, parts, count);
}

#define OF_FD(name, kind, number, ARGUMENTS, ...) \
    int name ARGUMENTS { return fails(kind, place_of_fd(fd)) ? -1 : (int)syscall(number, __VA_ARGS__); }

OF_FD(ftruncate, k_truncate, SYS_ftruncate, (int fd, off_t size), fd, size)
OF_FD(ftruncate64, k_truncate, SYS_ftruncate, (int fd, off_t size), fd, size)
OF_FD(fsync, k_sync, SYS_fsync, (int fd), fd)
OF_FD(fdatasync, k_datasync, SYS_fdatasync, (int fd), fd)
OF_FD(syncfs, k_syncfs, SYS_syncfs, (int fd), fd)
OF_FD(fchmod, k_chmod, SYS_fchmod, (int fd, mode_t mode), fd, mode)
OF_FD(futimens, k_utime, SYS_utimensat, (int fd, const struct timespec times[2]), fd, NULL, times, 0)
OF_FD(flock, k_lock, SYS_flock, (int fd, int how), fd, how)

/* As on a disk that has trouble writing: the descriptor is gone all the same. */
int close(int fd) {
    int fail = fails(k_close, place_of_fd(fd)), number = errno, result = (int)syscall(SYS_close, fd);
    if (!fail) return result;
    errno = number;
    return -1;
}

/* Names. */

#define OF_PATH(name, kind, place, ARGUMENTS, ...) \
    int name ARGUMENTS { return fails(kind, place) ? -1 : (int)syscall(__VA_ARGS__); }

OF_PATH(mkdir, k_mkdir, place_at(AT_FDCWD, path), (const char *path, mode_t mode), SYS_mkdirat, AT_FDCWD, path, mode)
OF_PATH(mkdirat, k_mkdir, place_at(at, path), (int at, const char *path, mode_t mode), SYS_mkdirat, at, path, mode)
OF_PATH(rename, k_rename, place_at(AT_FDCWD, to), (const char *from, const char *to), SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)
OF_PATH(renameat, k_rename, place_at(at, to), (int of, const char *from, int at, const char *to), SYS_renameat2, of, from, at, to, 0)
OF_PATH(link, k_link, place_at(AT_FDCWD, to), (const char *from, const char *to), SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)
OF_PATH(linkat, k_link, place_at(at, to), (int of, const char *from, int at, const char *to, int flags), SYS_linkat, of, from, at, to, flags)
OF_PATH(symlink, k_symlink, place_at(AT_FDCWD, path), (const char *to, const char *path), SYS_symlinkat, to, AT_FDCWD, path)
OF_PATH(symlinkat, k_symlink, place_at(at, path), (const char *to, int at, const char *path), SYS_symlinkat, to, at, path)
OF_PATH(unlink, k_unlink, place_at(AT_FDCWD, path), (const char *path), SYS_unlinkat, AT_FDCWD, path, 0)
OF_PATH(unlinkat, flags & AT_REMOVEDIR ? k_rmdir : k_unlink, place_at(at, path), (int at, const char *path, int flags), SYS_unlinkat, at, path, flags)
OF_PATH(rmdir, k_rmdir, place_at(AT_FDCWD, path), (const char *path), SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)

/* The system call that has no function in an old C library. */
long syscall(long number, ...) {
    long a[6];
    va_list list;
    REAL(long, "syscall", long, ...);
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_renameat2 && a[4] && fails(k_rename, place_at((int)a[2], (const char *)a[3]))) return -1;
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* Sockets. */

int socket(int domain, int type, int protocol) {
    if ((domain == AF_INET || domain == AF_INET6) && fails(k_socket, NETWORK)) return -1;
    return (int)syscall(SYS_socket, domain, type, protocol);
}

int bind(int fd, const struct sockaddr *name, socklen_t size) {
    return fails(k_bind, place_of_socket(fd)) ? -1 : (int)syscall(SYS_bind, fd, name, size);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t size) {
    return fails(k_setsockopt, place_of_socket(fd)) ? -1 : (int)syscall(SYS_setsockopt, fd, level, option, value, size);
}

int getsockname(int fd, struct sockaddr *name, socklen_t *size) {
    return fails(k_getsockname, place_of_socket(fd)) ? -1 : (int)syscall(SYS_getsockname, fd, name, size);
}

#define SENDS(result, name, number, ARGUMENTS, ...) \
    result name ARGUMENTS { return fails(k_send, place_of_socket(fd)) == 1 ? -1 : (result)syscall(number, __VA_ARGS__); }
#define RECEIVES(result, name, number, ARGUMENTS, ...) \
    result name ARGUMENTS { return fails(k_receive, place_of_socket(fd)) == 1 ? -1 : (result)syscall(number, __VA_ARGS__); }

SENDS(ssize_t, sendto, SYS_sendto, (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length), fd, data, size, flags, to, length)
SENDS(ssize_t, sendmsg, SYS_sendmsg, (int fd, const struct msghdr *message, int flags), fd, message, flags)
SENDS(int, sendmmsg, SYS_sendmmsg, (int fd, struct mmsghdr *messages, unsigned count, int flags), fd, messages, count, flags)
RECEIVES(ssize_t, recvfrom, SYS_recvfrom, (int fd, void *out, size_t size, int flags, struct sockaddr *from, socklen_t *length), fd, out, size, flags, from, length)
RECEIVES(ssize_t, recvmsg, SYS_recvmsg, (int fd, struct msghdr *message, int flags), fd, message, flags)
RECEIVES(int, recvmmsg, SYS_recvmmsg, (int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *limit), fd, messages, count, flags, limit)

/* The program itself. */

int epoll_create1(int flags) { return fails(k_epoll_create, PROGRAM) ? -1 : (int)syscall(SYS_epoll_create1, flags); }

int epoll_ctl(int fd, int what, int other, struct epoll_event *event) {
    return fails(k_epoll_ctl, place_of_socket(other)) ? -1 : (int)syscall(SYS_epoll_ctl, fd, what, other, event);
}

int epoll_wait(int fd, struct epoll_event *events, int most, int limit) {
    REAL(int, "epoll_wait", int, struct epoll_event *, int, int);
    return fails(k_epoll_wait, PROGRAM) ? -1 : real(fd, events, most, limit);
}

int eventfd(unsigned value, int flags) { return fails(k_eventfd, PROGRAM) ? -1 : (int)syscall(SYS_eventfd2, value, flags); }

int socketpair(int domain, int type, int protocol, int pair[2]) {
    return fails(k_socketpair, PROGRAM) ? -1 : (int)syscall(SYS_socketpair, domain, type, protocol, pair);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *argument) {
    REAL(int, "pthread_create", pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return fails(k_thread, PROGRAM) ? errno : real(thread, how, run, argument);
}

/* Memory that one of the project's own modules asks for. */
static int is_ours(const void *caller) {
    Dl_info info;
    return active && dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "/spaceblock/");
}

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

#define IS_SHORT_OF_MEMORY (is_ours(__builtin_return_address(0)) && fails(k_memory, PROGRAM))
void *malloc(size_t size) { return IS_SHORT_OF_MEMORY ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return IS_SHORT_OF_MEMORY ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return IS_SHORT_OF_MEMORY ? NULL : __libc_realloc(old, size); }
