/* Records what a program does to the files below some folders, in the order in which it happens; loaded with LD_PRELOAD.

   recorder_start() names the log and the folders; from then on each call below that changes something there, or makes it
   durable, is done and noted under one lock, so that the order in the log is the order on the disk. recorder_mark() notes
   a word of the program's own. Files that were made stay open here, so that no inode's number is ever used twice. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOG_SIZE ((size_t)1 << 30)
#define KNOWN_MAX 65536

enum { CREATE = 1, MKDIR, SYMLINK, LINK, UNLINK, RENAME, WRITE, TRUNCATE, SYNC, SYNC_ALL, CHANGE, MARK };

typedef struct __attribute__((packed)) {
    uint32_t size; /* of the whole record */
    uint8_t kind, flag;
    uint16_t name_size, other_size;
    uint64_t place, other; /* inodes: the file or folder, and another one */
    int64_t offset;
    int64_t mtime;
    uint32_t mode;
    uint32_t data_size;
} Head;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *log_at;
static int log_fd;
static size_t log_used;
static dev_t device;
static ino_t known[KNOWN_MAX];
static size_t known_count;
static volatile int recording;

/* The system's own, so that what is done here is not noted. */
static long (*found)(long, ...);
static long (*find(void))(long, ...) {
    if (!found) found = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return found;
}
#define raw find()

static int is_known(ino_t inode) {
    for (size_t i = 0; i < known_count; i++)
        if (known[i] == inode) return 1;
    return 0;
}

static void learn(ino_t inode) {
    if (!is_known(inode) && known_count < KNOWN_MAX) known[known_count++] = inode;
}

/* Keep what has just been made, without its locks, out of the way of the program's own descriptors. */
static void hold(int at, const char *path) {
    int saved = errno, fd = (int)raw(SYS_openat, at, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    fcntl(fd, F_DUPFD_CLOEXEC, 512);
    raw(SYS_close, fd);
    errno = saved;
}

static void note(int kind, int flag, const struct stat *place, ino_t other, const char *name, const char *second,
                 int64_t offset, const void *data, size_t size) {
    Head head = {0};
    uint8_t *at = log_at + log_used;
    head.kind = (uint8_t)kind;
    head.flag = (uint8_t)flag;
    head.name_size = name ? (uint16_t)strlen(name) : 0;
    head.other_size = second ? (uint16_t)strlen(second) : 0;
    head.place = place ? place->st_ino : 0;
    head.other = other;
    head.offset = offset;
    head.mtime = place ? (int64_t)place->st_mtim.tv_sec * 1000000000 + place->st_mtim.tv_nsec : 0;
    head.mode = place ? place->st_mode : 0;
    head.data_size = (uint32_t)size;
    head.size = (uint32_t)(sizeof head + head.name_size + head.other_size + size);
    if (log_used + head.size + sizeof head > LOG_SIZE) abort();
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    if (name) memcpy(at, name, head.name_size);
    at += head.name_size;
    if (second) memcpy(at, second, head.other_size);
    at += head.other_size;
    if (size) memcpy(at, data, size);
    log_used += head.size;
}

/* The folder that a path ends in, if that is one of ours, and the last part of the path; 0 where it is not. */
static int folder_of(int at, const char *path, struct stat *folder, const char **name) {
    char before[4096];
    const char *slash = path ? strrchr(path, '/') : NULL;
    int saved = errno, found;
    if (!recording || !path) return 0;
    if (!slash) {
        found = at == AT_FDCWD ? stat(".", folder) : fstat(at, folder);
        *name = path;
    } else {
        size_t length = slash == path ? 1 : (size_t)(slash - path);
        if (length >= sizeof before) return 0;
        memcpy(before, path, length);
        before[length] = 0;
        found = fstatat(at, before, folder, 0);
        *name = slash + 1;
    }
    errno = saved;
    return found == 0 && folder->st_dev == device && is_known(folder->st_ino);
}

static int ours(int fd, struct stat *status) {
    int saved = errno;
    int found = recording && fstat(fd, status) == 0 && status->st_dev == device && is_known(status->st_ino);
    errno = saved;
    return found;
}

static void note_change(int kind, int fd, int64_t offset, const void *data, size_t size) {
    struct stat status;
    if (ours(fd, &status)) note(kind, 0, &status, 0, NULL, NULL, offset, data, size);
}

/* What the program calls. */

void recorder_start(const char *log, const char *const *folders, int count) {
    struct stat status;
    log_fd = (int)raw(SYS_openat, AT_FDCWD, log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log_fd < 0 || raw(SYS_ftruncate, log_fd, LOG_SIZE) != 0) abort();
    log_at = mmap(NULL, LOG_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd, 0);
    if (log_at == MAP_FAILED) abort();
    for (int i = 0; i < count; i++) {
        if (stat(folders[i], &status) != 0) abort();
        device = status.st_dev;
        learn(status.st_ino);
    }
    recording = 1;
}

void recorder_mark(const char *word) {
    pthread_mutex_lock(&lock);
    if (recording) note(MARK, 0, NULL, 0, NULL, NULL, 0, word, strlen(word));
    pthread_mutex_unlock(&lock);
}

void recorder_stop(void) {
    pthread_mutex_lock(&lock);
    recording = 0;
    if (raw(SYS_ftruncate, log_fd, log_used) != 0) abort();
    pthread_mutex_unlock(&lock);
}

/* Opening. */

static int open_noted(int at, const char *path, int flags, mode_t mode) {
    struct stat folder, status;
    const char *name;
    int is_ours, was_there = 1, fd;
    pthread_mutex_lock(&lock);
    is_ours = folder_of(at, path, &folder, &name);
    if (is_ours && flags & O_CREAT) {
        int saved = errno;
        was_there = fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) == 0;
        errno = saved;
    }
    fd = (int)raw(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && is_ours && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        if (!was_there) {
            learn(status.st_ino);
            hold(at, path);
            note(CREATE, 0, &status, folder.st_ino, name, NULL, 0, NULL, 0);
        } else {
            learn(status.st_ino);
            if (flags & O_TRUNC) note(TRUNCATE, 0, &status, 0, NULL, NULL, 0, NULL, 0);
        }
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE_OF(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, last); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags, flags) return open_noted(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, flags) return open_noted(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE_OF(flags, flags) return open_noted(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE_OF(flags, flags) return open_noted(at, path, flags, mode); }

/* Bytes. */

static ssize_t written_at(int fd, const void *data, size_t size, off_t offset) {
    struct stat status;
    ssize_t count;
    pthread_mutex_lock(&lock);
    if (offset < 0 && ours(fd, &status)) {
        offset = fcntl(fd, F_GETFL) & O_APPEND ? status.st_size : lseek(fd, 0, SEEK_CUR);
        count = raw(SYS_write, fd, data, size);
    } else {
        count = offset < 0 ? raw(SYS_write, fd, data, size) : raw(SYS_pwrite64, fd, data, size, offset);
    }
    if (count > 0) note_change(WRITE, fd, offset, data, (size_t)count);
    pthread_mutex_unlock(&lock);
    return count;
}

ssize_t write(int fd, const void *data, size_t size) {
    struct stat status;
    if (!ours(fd, &status)) return raw(SYS_write, fd, data, size);
    return written_at(fd, data, size, -1);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return written_at(fd, data, size, offset); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) { return written_at(fd, data, size, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct stat status;
    ssize_t total = 0;
    if (!ours(fd, &status)) return raw(SYS_writev, fd, parts, count);
    for (int i = 0; i < count; i++) {
        ssize_t written = written_at(fd, parts[i].iov_base, parts[i].iov_len, -1);
        if (written < 0) return total ? total : -1;
        total += written;
        if ((size_t)written < parts[i].iov_len) break;
    }
    return total;
}

static int truncated(int fd, off_t size) {
    int result;
    pthread_mutex_lock(&lock);
    result = (int)raw(SYS_ftruncate, fd, size);
    if (result == 0) note_change(TRUNCATE, fd, size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }
int ftruncate64(int fd, off_t size) { return truncated(fd, size); }

/* Durability. */

static int synced(long number, int kind, int flag, int fd) {
    struct stat status;
    int is_ours, result;
    pthread_mutex_lock(&lock);
    is_ours = ours(fd, &status);
    result = (int)raw(number, fd);
    if (result == 0 && is_ours) note(kind, flag, &status, 0, NULL, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(SYS_fsync, SYNC, 0, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, SYNC, 1, fd); }
int syncfs(int fd) { return synced(SYS_syncfs, SYNC_ALL, 0, fd); }

/* Names. */

static int made_folder(int at, const char *path, mode_t mode) {
    struct stat folder, status;
    const char *name;
    int is_ours, result;
    pthread_mutex_lock(&lock);
    is_ours = folder_of(at, path, &folder, &name);
    result = (int)raw(SYS_mkdirat, at, path, mode);
    if (result == 0 && is_ours && fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        learn(status.st_ino);
        hold(at, path);
        note(MKDIR, 0, &status, folder.st_ino, name, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) { return made_folder(AT_FDCWD, path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return made_folder(at, path, mode); }

static int made_link(const char *target, int at, const char *path) {
    struct stat folder, status;
    const char *name;
    int is_ours, result;
    pthread_mutex_lock(&lock);
    is_ours = folder_of(at, path, &folder, &name);
    result = (int)raw(SYS_symlinkat, target, at, path);
    if (result == 0 && is_ours && fstatat(at, path, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        learn(status.st_ino);
        note(SYMLINK, 0, &status, folder.st_ino, name, NULL, 0, target, strlen(target));
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int symlink(const char *target, const char *path) { return made_link(target, AT_FDCWD, path); }
int symlinkat(const char *target, int at, const char *path) { return made_link(target, at, path); }

static int linked(int from, const char *path, int to, const char *name, int flags) {
    struct stat folder, status;
    const char *last;
    int is_ours, result;
    pthread_mutex_lock(&lock);
    is_ours = folder_of(to, name, &folder, &last);
    result = (int)raw(SYS_linkat, from, path, to, name, flags);
    if (result == 0 && is_ours && fstatat(to, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
        note(LINK, 0, &status, folder.st_ino, last, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int link(const char *path, const char *name) { return linked(AT_FDCWD, path, AT_FDCWD, name, 0); }
int linkat(int from, const char *path, int to, const char *name, int flags) { return linked(from, path, to, name, flags); }

static int unlinked(int at, const char *path, int flags) {
    struct stat folder;
    const char *name;
    int is_ours, result;
    pthread_mutex_lock(&lock);
    is_ours = folder_of(at, path, &folder, &name);
    result = (int)raw(SYS_unlinkat, at, path, flags);
    if (result == 0 && is_ours) note(UNLINK, 0, &folder, folder.st_ino, name, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return unlinked(at, path, flags); }
int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlinked(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? unlinked(AT_FDCWD, path, AT_REMOVEDIR) : result;
}

static int renamed(int from, const char *path, int to, const char *name, unsigned flags) {
    struct stat here, there;
    const char *last, *other;
    int is_ours, result;
    pthread_mutex_lock(&lock);
    is_ours = folder_of(from, path, &here, &last) && folder_of(to, name, &there, &other);
    result = (int)raw(SYS_renameat2, from, path, to, name, flags);
    if (result == 0 && is_ours) note(RENAME, 0, &here, there.st_ino, last, other, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *path, const char *name) { return renamed(AT_FDCWD, path, AT_FDCWD, name, 0); }
int renameat(int from, const char *path, int to, const char *name) { return renamed(from, path, to, name, 0); }
int renameat2(int from, const char *path, int to, const char *name, unsigned flags) {
    return renamed(from, path, to, name, flags);
}

/* What else a file is. */

int futimens(int fd, const struct timespec times[2]) {
    int result;
    pthread_mutex_lock(&lock);
    result = (int)raw(SYS_utimensat, fd, NULL, times, 0);
    if (result == 0) note_change(CHANGE, fd, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int fchmod(int fd, mode_t mode) {
    int result;
    pthread_mutex_lock(&lock);
    result = (int)raw(SYS_fchmod, fd, mode);
    if (result == 0) note_change(CHANGE, fd, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

/* The one system call that has no function in an old C library. */
long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_renameat2)
        return renamed((int)a[0], (const char *)a[1], (int)a[2], (const char *)a[3], (unsigned)a[4]);
    return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
