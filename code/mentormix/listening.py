"""Lets TensorFlow's server listen on the one address that it is given.

It has no authentication and executes what it is sent, and it listens on every
interface of the machine, whatever address it is given: the wildcard address is
written into its source. While it starts, the calls of its libraries to the
system's `bind` are therefore led through a function here, by way of the slots
that the dynamic linker keeps for them (Linux, 64 bits). What came of it is read
from the system afterwards: nothing is left to hope.
"""
import contextlib
import ctypes
import glob
import ipaddress
import os
import socket

import numpy as np

from mentormix.command import UserError

EVERY = ('0.0.0.0', '::')  # Addresses that stand for every interface.

# From <elf.h>: what the loader knows of a library.
_SEGMENT = np.dtype([
    ('type', '<u4'), ('flags', '<u4'), ('offset', '<u8'), ('address', '<u8'),
    ('physical', '<u8'), ('file_size', '<u8'), ('size', '<u8'),
    ('align', '<u8')])
_DYNAMIC = np.dtype([('tag', '<i8'), ('value', '<u8')])
_RELOCATION = np.dtype([('offset', '<u8'), ('type', '<u4'), ('symbol', '<u4'),
                        ('addend', '<i8')])
_SYMBOL = np.dtype([
    ('name', '<u4'), ('info', 'u1'), ('other', 'u1'), ('section', '<u2'),
    ('value', '<u8'), ('size', '<u8')])
_PT_DYNAMIC = 2
_STRINGS, _SYMBOLS = 5, 6
_TABLES = ((23, 2), (7, 8))  # Tags of address and size: of the PLT, of the rest.
_SLOTS = (6, 7, 1025, 1026)  # Relocations that hold a function: x86-64, AArch64.


class _Library(ctypes.Structure):
  _fields_ = [('base', ctypes.c_uint64), ('name', ctypes.c_char_p),
              ('segments', ctypes.c_void_p), ('count', ctypes.c_uint16)]


_Visit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library),
                          ctypes.c_size_t, ctypes.c_void_p)
_Bind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p,
                         ctypes.c_uint32, use_errno=True)


def resolve(host):
  """The numeric address of a host; UserError if it has none."""
  try:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0]
  except (OSError, UnicodeError) as error:
    raise UserError('the host %s is unknown (%s)' % (host, error))


def is_loopback(host):
  """Whether a host, as far as it is known here, is this machine to itself."""
  try:
    return ipaddress.ip_address(resolve(host).partition('%')[0]).is_loopback
  except UserError:
    return False


def check_free(address, port, what):
  """Raises UserError, in the words `what`, unless a server can be started."""
  family = socket.AF_INET6 if ':' in address else socket.AF_INET
  with socket.socket(family, socket.SOCK_STREAM) as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind((address, port))
    except OSError as error:
      raise UserError('%s cannot be listened at, port %d: %s' % (
          what, port, error.strerror))


@contextlib.contextmanager
def only_on(address, port):
  """What listens on all interfaces at `port` in the block is at `address` only.

  Args:
    address: a numeric address of this machine, or one of `EVERY` for no change.
    port: 1 to 65535.

  Raises:
    UserError: nothing listens just there after the block.
  """
  if address in EVERY:
    yield
    return
  mapped = socket.inet_pton(socket.AF_INET6, address if ':' in address
                            else '::ffff:' + address)
  libc = ctypes.CDLL(None, use_errno=True)

  @_Bind
  def bind(descriptor, where, size):
    raw = ctypes.string_at(where, size)  # Family, port, address as in <netinet/in.h>.
    family = ctypes.c_uint16.from_buffer_copy(raw).value
    start, length = (8, 16) if family == socket.AF_INET6 else (4, 4)
    if (family in (socket.AF_INET, socket.AF_INET6)
        and int.from_bytes(raw[2:4], 'big') == port
        and not any(raw[start:start + length])):
      raw = raw[:start] + mapped[-length:] + raw[start + length:]
    return libc.bind(descriptor, raw, size)

  previous = {}
  with contextlib.suppress(AttributeError):  # Another C library.
    for slot in _slots(libc, b'bind'):
      page = slot & -os.sysconf('SC_PAGE_SIZE')
      if not libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(8 + slot - page),
                           3):  # To be read and written.
        cell = ctypes.c_uint64.from_address(slot)
        previous[slot] = cell.value
        cell.value = ctypes.cast(bind, ctypes.c_void_p).value
  try:
    yield
  finally:
    for slot, value in previous.items():
      ctypes.c_uint64.from_address(slot).value = value
  if mapped not in listening_at(port):
    raise UserError(
        'this system does not let TensorFlow listen at %s, port %d, only: it '
        'would at every interface, and it has no authentication; '
        '--bind_address=0.0.0.0 allows that, for a machine behind a firewall'
        % (address, port))


def _slots(libc, name):
  """Addresses of the slots of a C function, in all TensorFlow libraries."""
  libraries = []

  @_Visit
  def visit(library, size, data):
    del size, data
    library = library.contents
    libraries.append((library.base, library.name or b'', library.segments,
                      library.count))
    return 0

  libc.dl_iterate_phdr(visit, None)
  for base, path, segments, count in libraries:
    if b'tensorflow' not in path:
      continue
    for segment in _at(segments, _SEGMENT, count):
      if segment['type'] == _PT_DYNAMIC:
        for slot in _slots_of(base, base + int(segment['address']),
                              int(segment['size']), name):
          yield slot


def _slots_of(base, address, size, name):
  """As `_slots`, of one library whose dynamic section is at `address`."""
  tags = {}
  for tag, value in _at(address, _DYNAMIC, size // _DYNAMIC.itemsize).tolist():
    tags.setdefault(tag, value)
  for table, table_size in _TABLES:
    if table not in tags:
      continue
    entries = _at(tags[table], _RELOCATION,
                  tags[table_size] // _RELOCATION.itemsize)
    entries = entries[np.isin(entries['type'], _SLOTS)]
    for entry in entries:
      symbol = _at(tags[_SYMBOLS] + int(entry['symbol']) * _SYMBOL.itemsize,
                   _SYMBOL, 1)[0]
      if ctypes.string_at(tags[_STRINGS] + int(symbol['name'])) == name:
        yield base + int(entry['offset'])


def _at(address, dtype, count):
  """An array of what is in memory."""
  return np.frombuffer(
      (ctypes.c_char * (dtype.itemsize * count)).from_address(address), dtype)


def listening_at(port):
  """Addresses, 16 bytes each, where sockets of this machine listen at `port`.

  IPv4 addresses come as IPv6 has them; all zeros stand for every interface.
  """
  found = set()
  for path in glob.glob('/proc/net/tcp*'):
    with open(path) as f:
      for line in f.readlines()[1:]:
        local, _, state = line.split()[1:4]
        address, _, number = local.partition(':')
        if state == '0A' and int(number, 16) == port:
          found.add(_from_proc(bytes.fromhex(address)))
  return found


def _from_proc(raw):
  """Words of 4 bytes in the machine's order -> 16 bytes."""
  words = np.frombuffer(raw, '=u4').astype('>u4').tobytes()
  if len(words) == 16 or not any(words):
    return words.rjust(16, b'\0')
  return bytes(10) + b'\xff\xff' + words
