# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Many small files at once: read behind their block headers, stored, and put into place, without the GIL in between.

Each call does as many files as go smoothly and says how many those were. Whatever is unusual about the next one is not
judged here: its caller does that file alone and finds out. Contract: ``spaceblock/_fastfiles.pyi``; twin:
``spaceblock/_pyfiles.py``, which never does any.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBuffer_Release, PyObject_GetBuffer, PyBUF_SIMPLE, PyBUF_WRITABLE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport strlen

from spaceblock._fastblock cimport bounded
from spaceblock.varint cimport VARINT_MAX, varint_size, write_varint

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "small_digest.h":
    enum: SMALL_DIGEST_SIZE
    enum: SMALL_DIGEST_MAX
    void small_digest(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <sys/stat.h>
    #include <sys/types.h>
    #include <unistd.h>
    #ifdef __linux__
    #include <sys/syscall.h>
    #include <sys/vfs.h>
    #endif

    #ifdef __APPLE__
    #define SPACEBLOCK_NS(status, which) nanoseconds((status).st_##which##timespec)
    #else
    #define SPACEBLOCK_NS(status, which) nanoseconds((status).st_##which##tim)
    #endif

    /* Of what 64 bits do not hold, before 1677 and after 2262, the nearest that they do. */
    static int64_t nanoseconds(struct timespec time) {
        const int64_t most = INT64_MAX / 1000000000;
        if ((int64_t)time.tv_sec >= most) return INT64_MAX;
        if ((int64_t)time.tv_sec < -most) return INT64_MIN;
        return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
    }

    typedef struct {
        uint64_t device, inode;
        int64_t size, modified, changed;
    } FileIdentity;

    static int is_still(int fd, const FileIdentity *wanted) {
        struct stat status;
        return fstat(fd, &status) == 0 && (uint64_t)status.st_dev == wanted->device &&
            (uint64_t)status.st_ino == wanted->inode && (int64_t)status.st_size == wanted->size &&
            SPACEBLOCK_NS(status, m) == wanted->modified && SPACEBLOCK_NS(status, c) == wanted->changed;
    }

    /* Of a plain file that can be read, is stored in full and was changed in these centuries. What is ours to read need
       not be asked for. */
    static int look_at(const char *path, uid_t user, FileIdentity *found, int *mode) {
        struct stat status;
        if (lstat(path, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
        if ((status.st_uid != user || !(status.st_mode & S_IRUSR)) && access(path, R_OK) != 0) return 0;
        if ((int64_t)status.st_blocks * 512 < (int64_t)status.st_size) return 0;
        found->device = (uint64_t)status.st_dev;
        found->inode = (uint64_t)status.st_ino;
        found->size = (int64_t)status.st_size;
        found->modified = SPACEBLOCK_NS(status, m);
        found->changed = SPACEBLOCK_NS(status, c);
        if (found->modified == INT64_MIN || found->modified == INT64_MAX) return 0;
        *mode = (int)(status.st_mode & 07777);
        return 1;
    }

    static int open_to_read(const char *path) {
        return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }

    static int read_whole(int fd, uint8_t *out, size_t size) {
        size_t done = 0;
        while (done < size) {
            ssize_t count = pread(fd, out + done, size - done, (off_t)done);
            if (count <= 0) {
                if (count < 0 && errno == EINTR) continue;
                return -1;
            }
            done += (size_t)count;
        }
        return 0;
    }

    static int store_whole(int folder, const char *name, int mode, const uint8_t *data, size_t size, int64_t mtime,
                           int flush, uint64_t *inode, int64_t *modified) {
        struct stat status;
        size_t done = 0;
        int fine = 1;
        int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, (mode_t)mode);
        if (fd < 0) return -1;
        while (done < size) {
            ssize_t count = pwrite(fd, data + done, size - done, (off_t)done);
            if (count <= 0) {
                if (count < 0 && errno == EINTR) continue;
                fine = 0;
                break;
            }
            done += (size_t)count;
        }
        if (fine && mtime != INT64_MIN) {
            struct timespec times[2];
            times[0].tv_sec = times[1].tv_sec = (time_t)(mtime / 1000000000);
            times[0].tv_nsec = times[1].tv_nsec = (long)(mtime % 1000000000);
            fine = futimens(fd, times) == 0;
        }
        if (fine && flush) fine = fsync(fd) == 0;
        if (fine) fine = fstat(fd, &status) == 0;
        if (fine) {
            *inode = (uint64_t)status.st_ino;
            *modified = SPACEBLOCK_NS(status, m);
        }
        if (close(fd) != 0) fine = 0;
        if (!fine) unlinkat(folder, name, 0);
        return fine ? 0 : -1;
    }

    /* In one step, and without replacing what has the name; -1 also where the file system cannot do that. */
    static int move_file(int from_folder, const char *from, int to_folder, const char *to) {
    #if defined(__linux__) && defined(SYS_renameat2)
        return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 1u /* RENAME_NOREPLACE */);
    #elif defined(__APPLE__) && defined(RENAME_EXCL)
        return renameatx_np(from_folder, from, to_folder, to, RENAME_EXCL);
    #else
        (void)from_folder; (void)from; (void)to_folder; (void)to;
        return -1;
    #endif
    }

    /* By what Linux's magic.h calls TMPFS_MAGIC and RAMFS_MAGIC; 0 where that cannot be known. */
    static int lies_in_memory(int fd) {
    #ifdef __linux__
        struct statfs status;
        if (fstatfs(fd, &status) != 0) return 0;
        return (uint32_t)status.f_type == 0x01021994u || (uint32_t)status.f_type == 0x858458f6u;
    #else
        (void)fd;
        return 0;
    #endif
    }
    """
    ctypedef struct FileIdentity:
        uint64_t device
        uint64_t inode
        int64_t size
        int64_t modified
        int64_t changed

    bint is_still(int fd, const FileIdentity *wanted) noexcept nogil
    ctypedef int uid_t
    uid_t geteuid() noexcept nogil
    bint look_at(const char *path, uid_t user, FileIdentity *found, int *mode) noexcept nogil
    int open_to_read(const char *path) noexcept nogil
    int read_whole(int fd, uint8_t *out, size_t size) noexcept nogil
    int store_whole(
        int folder, const char *name, int mode, const uint8_t *data, size_t size, int64_t mtime, int flush,
        uint64_t *inode, int64_t *modified
    ) noexcept nogil
    int move_file(int from_folder, const char *src, int to_folder, const char *to) noexcept nogil
    bint lies_in_memory(int fd) noexcept nogil
    int close(int fd) noexcept nogil

cdef struct ToFind:
    const char *path
    FileIdentity identity
    int mode

cdef struct ToRead:
    const char *path
    uint64_t item
    FileIdentity identity
    size_t start
    uint8_t[SMALL_DIGEST_SIZE] digest

cdef struct ToStore:
    const char *name
    int mode
    int64_t mtime
    uint64_t inode
    int64_t modified
    uint8_t[SMALL_DIGEST_SIZE] digest

cdef struct ToPlace:
    const char *src
    const char *to


def find_files(paths):
    cdef tuple kept = tuple(paths)  # so that they live as long as the pointers to them
    cdef Py_ssize_t count = len(kept), i, done = 0
    cdef uid_t user
    cdef FileIdentity *found
    cdef ToFind *jobs = <ToFind *>malloc(<size_t>max(count, 1) * sizeof(ToFind))
    cdef list rows = []
    try:
        if jobs == NULL:
            raise MemoryError
        for i in range(count):
            jobs[i].path = plain(kept[i])
        with nogil:
            user = geteuid()
            while done < count and look_at(jobs[done].path, user, &jobs[done].identity, &jobs[done].mode):
                done += 1
        for i in range(done):
            found = &jobs[i].identity
            rows.append((jobs[i].mode, (found.device, found.inode, found.size, found.modified, found.changed)))
        return rows
    finally:
        free(jobs)


def read_files(slot, used, limit, block_type, end_type, files):
    cdef Py_buffer room
    cdef tuple kept = tuple(files)  # so that the names in its tuples live as long as the pointers to them
    cdef Py_ssize_t count = len(kept), i, done = 0
    cdef uint64_t kind = bounded(block_type, "block_type", 0, VARINT_MAX)
    cdef uint64_t ending = bounded(end_type, "end_type", 0, VARINT_MAX)
    cdef size_t at, most
    cdef ToRead *jobs
    cdef ToRead *job
    PyObject_GetBuffer(slot, &room, PyBUF_SIMPLE | PyBUF_WRITABLE)
    jobs = <ToRead *>malloc(<size_t>max(count, 1) * sizeof(ToRead))
    try:
        if jobs == NULL:
            raise MemoryError
        most = bounded(limit, "limit", 0, <uint64_t>room.len)
        at = bounded(used, "used", 0, most)
        for i in range(count):
            item, path, device, inode, size, modified, changed = <tuple?>kept[i]
            job = &jobs[i]
            job.path = plain(path)
            job.item = bounded(item, "item", 0, VARINT_MAX)
            job.identity.device = device
            job.identity.inode = inode
            job.identity.size = size
            job.identity.modified = modified
            job.identity.changed = changed
            if job.identity.size <= 0:
                raise ValueError("only files with bytes are read in one go; do others alone")
        with nogil:
            while done < count and read_one(&jobs[done], <uint8_t *>room.buf, &at, most, kind, ending):
                done += 1
        return at, [(jobs[i].start, digest_of(jobs[i].digest, jobs[i].identity.size)) for i in range(done)]
    finally:
        free(jobs)
        PyBuffer_Release(&room)


def store_files(folder, flush, files):
    cdef tuple kept = tuple(files)
    cdef Py_ssize_t count = len(kept), i, held = 0, done = 0
    cdef int fd = folder
    cdef int flushes = bool(flush)
    cdef ToStore *jobs = <ToStore *>malloc(<size_t>max(count, 1) * sizeof(ToStore))
    cdef Py_buffer *views = <Py_buffer *>malloc(<size_t>max(count, 1) * sizeof(Py_buffer))
    try:
        if jobs == NULL or views == NULL:
            raise MemoryError
        for i in range(count):
            name, mode, mtime, data = <tuple?>kept[i]
            jobs[i].name = plain(name)
            jobs[i].mode = mode
            jobs[i].mtime = mtime
            PyObject_GetBuffer(data, &views[i], PyBUF_SIMPLE)
            held += 1
        with nogil:
            while done < count and store_one(fd, &jobs[done], &views[done], flushes):
                done += 1
        return [(digest_of(jobs[i].digest, views[i].len), jobs[i].inode, jobs[i].modified) for i in range(done)]
    finally:
        for i in range(held):
            PyBuffer_Release(&views[i])
        free(views)
        free(jobs)


def place_files(staging, folder, files):
    cdef tuple kept = tuple(files)
    cdef Py_ssize_t count = len(kept), i, done = 0
    cdef int from_folder = staging, to_folder = folder
    cdef ToPlace *jobs = <ToPlace *>malloc(<size_t>max(count, 1) * sizeof(ToPlace))
    try:
        if jobs == NULL:
            raise MemoryError
        for i in range(count):
            src, to = <tuple?>kept[i]
            jobs[i].src = plain(src)
            jobs[i].to = plain(to)
        with nogil:
            while done < count and move_file(from_folder, jobs[done].src, to_folder, jobs[done].to) == 0:
                done += 1
        return done
    finally:
        free(jobs)


def is_in_memory(fd):
    cdef int descriptor = fd
    cdef bint answer
    with nogil:
        answer = lies_in_memory(descriptor)
    return answer


cdef bint read_one(
    ToRead *job, uint8_t *out, size_t *used, size_t limit, uint64_t block_type, uint64_t end_type
) noexcept nogil:
    # One Block with all bytes and the ItemEnd behind it, or nothing at all.
    cdef size_t size = <size_t>job.identity.size
    cdef size_t item = varint_size(job.item)
    cdef size_t block = item + 1 + size  # the offset, 0, is one byte
    cdef size_t end = item + varint_size(size)
    cdef size_t need = varint_size(block_type) + varint_size(block) + block
    cdef uint8_t *at = out + used[0]
    cdef int fd
    cdef bint same
    need += varint_size(end_type) + varint_size(end) + end
    if need > limit - used[0]:
        return False
    fd = open_to_read(job.path)
    if fd < 0:
        return False
    at += write_varint(at, block_type)
    at += write_varint(at, block)
    at += write_varint(at, job.item)
    at += write_varint(at, 0)
    job.start = <size_t>(at - out)
    same = is_still(fd, &job.identity) and read_whole(fd, at, size) == 0 and is_still(fd, &job.identity)
    close(fd)
    if not same:
        return False
    hash_short(at, size, job.digest)
    at += size
    at += write_varint(at, end_type)
    at += write_varint(at, end)
    at += write_varint(at, job.item)
    at += write_varint(at, size)
    used[0] = <size_t>(at - out)
    return True


cdef bint store_one(int folder, ToStore *job, const Py_buffer *data, int flushes) noexcept nogil:
    if store_whole(
        folder, job.name, job.mode, <const uint8_t *>data.buf, <size_t>data.len, job.mtime, flushes,
        &job.inode, &job.modified,
    ):
        return False
    hash_short(<const uint8_t *>data.buf, <size_t>data.len, job.digest)
    return True


cdef void hash_short(const uint8_t *data, size_t size, uint8_t *digest) noexcept nogil:
    if size <= SMALL_DIGEST_MAX:
        small_digest(data, size, digest)


cdef object digest_of(const uint8_t *digest, int64_t size):
    return PyBytes_FromStringAndSize(<const char *>digest, SMALL_DIGEST_SIZE) if size <= SMALL_DIGEST_MAX else None


cdef const char *plain(object name) except NULL:
    # As long as the name lives.
    cdef const char *text
    cdef Py_ssize_t size = 0
    if type(name) is str and name.isascii():
        text = PyUnicode_AsUTF8AndSize(name, &size)
    else:
        size = len(<bytes?>name)
        text = PyBytes_AS_STRING(name)
    if strlen(text) != <size_t>size:
        raise ValueError("a name has no zero byte in it; leave it out")
    return text
