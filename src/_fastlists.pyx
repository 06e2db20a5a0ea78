# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Many short messages or records at once, as a transfer of many small items has them.

Its specification by example is ``spaceblock/_pylists.py``, its contract ``spaceblock/_fastlists.pyi``.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.number cimport PyNumber_Index
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from spaceblock._fastblock cimport acquire, bounded
from spaceblock.varint cimport VARINT_MAX, read_varint, varint_size, write_varint

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        int (*tp_descr_set)(object descriptor, object instance, object value) except -1
    PyTypeObject *Py_TYPE(object each)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "small_digest.h":
    enum: SMALL_DIGEST_SIZE
    enum: SMALL_DIGEST_MAX
    void small_digest(const uint8_t *data, size_t size, uint8_t *out) noexcept nogil

cdef enum:
    _KEY_SIZE = 16
    _DIGEST_SIZE = 32
    _STRING_MAX = 16_384
    _PERMISSIONS = 0o7777
    _BILLION = 1_000_000_000
    # A field but for what a string holds.
    _FIELD_ROOM = 32
    # A type, a length, an item, a size, and a digest.
    _DIGEST_ROOM = 4 * 8 + _DIGEST_SIZE

# Beyond, nanoseconds may not fit into 64 bits. No member of an enum, which some compilers cut to 32 bits.
cdef uint64_t SECONDS_MAX = 9_000_000_000


def frame_digests(kind, digests):
    cdef uint64_t message_type = bounded(kind, "kind", 0, VARINT_MAX)
    cdef uint64_t item, size, length
    cdef list kept = list(digests)
    cdef bytes digest
    cdef bytes out = PyBytes_FromStringAndSize(NULL, len(kept) * _DIGEST_ROOM)
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(out)
    cdef uint8_t *at = start
    for number, of, digest in kept:
        item = bounded(number, "item", 0, VARINT_MAX)
        size = bounded(of, "size", 0, VARINT_MAX)
        if len(digest) != _DIGEST_SIZE:
            raise ValueError(f"it holds {len(digest)} bytes where {_DIGEST_SIZE} belong")
        length = varint_size(item) + varint_size(size) + _DIGEST_SIZE
        at += write_varint(at, message_type)
        at += write_varint(at, length)
        at += write_varint(at, item)
        at += write_varint(at, size)
        memcpy(at, PyBytes_AS_STRING(digest), _DIGEST_SIZE)
        at += _DIGEST_SIZE
    return out[:at - start]


def parse_digests(kind, data, pos=0):
    cdef uint64_t message_type = bounded(kind, "kind", 0, VARINT_MAX)
    cdef uint64_t found, length, item, size
    cdef Py_buffer view
    cdef const uint8_t *begin
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef const uint8_t *fields
    cdef list digests = []
    acquire(data, &view, False)
    try:
        begin = at = <const uint8_t *>view.buf
        end = begin + view.len
        begin += bounded(pos, "pos", 0, <uint64_t>view.len)
        while True:
            at = begin
            if not read_varint(&at, end, &found) or found != message_type or not read_varint(&at, end, &length):
                break
            if length > <uint64_t>(end - at):
                break
            fields = at + length
            if not read_varint(&at, fields, &item) or not read_varint(&at, fields, &size):
                break
            if fields - at != _DIGEST_SIZE:
                break
            digests.append((item, size, PyBytes_FromStringAndSize(<const char *>at, _DIGEST_SIZE)))
            begin = fields
        return digests, begin - <const uint8_t *>view.buf
    finally:
        PyBuffer_Release(&view)


def make_records(cls, rows):
    cdef list slots = [getattr(cls, name) for name in cls.__slots__]
    cdef Py_ssize_t width = len(slots), i
    cdef list made = []
    cdef tuple row
    cdef object new = cls.__new__
    for slot in slots:
        if Py_TYPE(slot).tp_descr_set == NULL:
            raise TypeError(f"{cls.__name__} has no slots that can be filled; give a dataclass with slots")
    for row in rows:
        if len(row) != width:
            raise TypeError(f"{cls.__name__} has {width} fields and not {len(row)}; give a value for each")
        record = new(cls)
        for i in range(width):
            Py_TYPE(slots[i]).tp_descr_set(slots[i], record, row[i])
        made.append(record)
    return made


cdef struct Out:
    uint8_t *data
    size_t used
    size_t room


def write_rows(head, layout, rows):
    cdef bytes first = head
    cdef bytes codes = layout.encode()
    cdef Py_ssize_t width = len(codes), i
    cdef Out out
    cdef tuple row
    out.data = NULL
    out.used = out.room = 0
    try:
        for row in rows:
            if len(row) != width:
                raise ValueError(f"a row has {len(row)} fields where {width} belong")
            # Some room in any case: memcpy takes no NULL, not even to copy nothing.
            reserve(&out, <size_t>len(first) + _FIELD_ROOM)
            memcpy(out.data + out.used, PyBytes_AS_STRING(first), <size_t>len(first))
            out.used += <size_t>len(first)
            for i in range(width):
                reserve(&out, _FIELD_ROOM)
                write_field(&out, codes[i], row[i])
        return PyBytes_FromStringAndSize(<const char *>out.data, <Py_ssize_t>out.used)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a field does not fit: {error}") from None
    finally:
        free(out.data)


def read_rows(head, layout, data, pos, count):
    cdef bytes first = head
    cdef bytes codes = layout.encode()
    cdef size_t ahead = <size_t>len(first)
    cdef Py_ssize_t width = len(codes), left = bounded(count, "count", 0, VARINT_MAX), i
    cdef Py_buffer view
    cdef const uint8_t *begin
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef list rows = []
    cdef tuple row
    cdef object value
    acquire(data, &view, False)
    try:
        begin = <const uint8_t *>view.buf
        end = begin + view.len
        begin += bounded(pos, "pos", 0, <uint64_t>view.len)
        while left > 0:
            if <size_t>(end - begin) < ahead or (ahead and memcmp(begin, PyBytes_AS_STRING(first), ahead)):
                break
            at = begin + ahead
            row = PyTuple_New(width)
            for i in range(width):
                value = read_field(codes[i], &at, end)
                if value is Ellipsis:
                    break
                Py_INCREF(value)
                PyTuple_SET_ITEM(row, i, value)
            else:
                rows.append(row)
                begin = at
                left -= 1
                continue
            break
        return rows, begin - <const uint8_t *>view.buf
    finally:
        PyBuffer_Release(&view)


def short_digests(texts):
    cdef uint8_t[SMALL_DIGEST_SIZE] digest
    cdef list found = []
    cdef bytes text
    for text in texts:
        if len(text) > SMALL_DIGEST_MAX:
            from blake3 import blake3

            found.append(blake3(text).digest(length=_KEY_SIZE))
            continue
        small_digest(<const uint8_t *>PyBytes_AS_STRING(text), <size_t>len(text), digest)
        found.append(PyBytes_FromStringAndSize(<const char *>digest, _KEY_SIZE))
    return found


cdef int reserve(Out *out, size_t need) except -1:
    cdef size_t room = out.room
    cdef uint8_t *data
    if room - out.used >= need:
        return 0
    while room - out.used < need:
        room = 2 * room + 4_096
    data = <uint8_t *>realloc(out.data, room)
    if data == NULL:
        raise MemoryError
    out.data = data
    out.room = room
    return 0


cdef int write_field(Out *out, char code, object value) except -1:
    # There is room for _FIELD_ROOM bytes.
    cdef Py_ssize_t size = 0
    cdef const char *text
    cdef int64_t number
    if code == b"u":
        put(out, bounded(value, "a number", 0, VARINT_MAX))
    elif code == b"p":
        put(out, bounded(value, "a mode", 0, _PERMISSIONS))
    elif code == b"t":
        number = PyNumber_Index(value)
        put_folded(out, number // _BILLION)
        put(out, <uint64_t>(number % _BILLION))
    elif code == b"s" or code == b"S":
        text = PyUnicode_AsUTF8AndSize(value, &size)
        if size > _STRING_MAX or (size == 0 and code == b"s"):
            raise ValueError(f"a string of {size} bytes passes its limits")
        put(out, <uint64_t>size)
        reserve(out, <size_t>size)
        memcpy(out.data + out.used, text, <size_t>size)
        out.used += <size_t>size
    elif code == b"k" or code == b"d":
        size = _KEY_SIZE if code == b"k" else _DIGEST_SIZE
        if len(<bytes?>value) != size:
            raise ValueError(f"it holds {len(value)} bytes where {size} belong")
        memcpy(out.data + out.used, PyBytes_AS_STRING(value), <size_t>size)
        out.used += <size_t>size
    else:
        raise_unknown(code)
    return 0


cdef object read_field(char code, const uint8_t **at, const uint8_t *end):
    # Ellipsis for what does not fit.
    cdef uint64_t number = 0, rest = 0
    cdef size_t size
    cdef object value
    if code == b"k" or code == b"d":
        number = _KEY_SIZE if code == b"k" else _DIGEST_SIZE
    elif not read_varint(at, end, &number):
        return Ellipsis
    if code == b"u":
        return number
    if code == b"p":
        return number if number <= _PERMISSIONS else Ellipsis
    if code == b"t":
        if number > 2 * SECONDS_MAX or not read_varint(at, end, &rest) or rest >= _BILLION:
            return Ellipsis
        return unfolded(number) * _BILLION + <int64_t>rest
    size = <size_t>number
    if size > <size_t>(end - at[0]):
        return Ellipsis
    if code == b"s" or code == b"S":
        if size > _STRING_MAX or (size == 0 and code == b"s"):
            return Ellipsis
        try:
            value = PyUnicode_DecodeUTF8(<const char *>at[0], <Py_ssize_t>size, NULL)
        except UnicodeDecodeError:
            return Ellipsis
    elif code == b"k" or code == b"d":
        value = PyBytes_FromStringAndSize(<const char *>at[0], <Py_ssize_t>size)
    else:
        raise_unknown(code)
    at[0] += size
    return value


cdef int raise_unknown(char code) except -1:
    raise ValueError(f"there is no field {chr(code)!r}; take one of those that the contract names")


cdef inline void put(Out *out, uint64_t value) noexcept:
    out.used += write_varint(out.data + out.used, value)


cdef inline void put_folded(Out *out, int64_t seconds) noexcept:
    # Of a time in 64 bits of nanoseconds: far below what a number of the wire can be.
    put(out, (<uint64_t>seconds << 1) ^ <uint64_t>(seconds >> 63))


cdef inline int64_t unfolded(uint64_t folded) noexcept:
    return <int64_t>(folded >> 1) ^ -<int64_t>(folded & 1)
