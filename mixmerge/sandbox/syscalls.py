"""Numbers of the system calls that a candidate may make: name, x86_64, aarch64 ("-" where it has no such call).

Everything that is not named here is refused, so a call that a future kernel adds is refused too. Numbers are those of
<asm/unistd_64.h> and <asm-generic/unistd.h>; a test compares them with the headers of the host where it has any.
"""

from __future__ import annotations

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine to its AUDIT_ARCH value and its column below."""

# What reads, waits, computes and asks about itself.
_ALWAYS = """
    access 21 -,  alarm 37 -,  arch_prctl 158 -,  brk 12 214,  chdir 80 49,  clock_getres 229 114,
    clock_gettime 228 113,  clock_nanosleep 230 115,  close 3 57,  close_range 436 436,  copy_file_range 326 285,
    dup 32 23,  dup2 33 -,  dup3 292 24,  epoll_create 213 -,  epoll_create1 291 20,  epoll_ctl 233 21,
    epoll_pwait 281 22,  epoll_pwait2 441 441,  epoll_wait 232 -,  eventfd 284 -,  eventfd2 290 19,  exit 60 93,
    exit_group 231 94,  faccessat 269 48,  faccessat2 439 439,  fadvise64 221 223,  fchdir 81 50,
    fdatasync 75 83,  flock 73 32,  fstat 5 80,  fstatfs 138 44,  fsync 74 82,  ftruncate 77 46,  futex 202 98,
    futex_waitv 449 449,  get_robust_list 274 100,  getcpu 309 168,  getcwd 79 17,  getdents 78 -,
    getdents64 217 61,  getegid 108 177,  geteuid 107 175,  getgid 104 176,  getgroups 115 158,  getitimer 36 102,
    getpeername 52 205,  getpgid 121 155,  getpgrp 111 -,  getpid 39 172,  getppid 110 173,  getpriority 140 141,
    getrandom 318 278,  getresgid 120 150,  getresuid 118 148,  getrlimit 97 163,  getrusage 98 165,
    getsid 124 156,  getsockname 51 204,  getsockopt 55 209,  gettid 186 178,  gettimeofday 96 169,
    getuid 102 174,  lseek 8 62,  lstat 6 -,  madvise 28 233,  membarrier 324 283,  mincore 27 232,  mmap 9 222,
    mprotect 10 226,  mremap 25 216,  msync 26 227,  munmap 11 215,  nanosleep 35 101,  newfstatat 262 79,
    pause 34 -,  pipe 22 -,  pipe2 293 59,  poll 7 -,  ppoll 271 73,  pread64 17 67,  preadv 295 69,
    preadv2 327 286,  pselect6 270 72,  pwrite64 18 68,  pwritev 296 70,  pwritev2 328 287,  read 0 63,
    readahead 187 213,  readlink 89 -,  readlinkat 267 78,  readv 19 65,  recvfrom 45 207,
    restart_syscall 219 128,  rseq 334 293,  rt_sigaction 13 134,  rt_sigpending 127 136,  rt_sigprocmask 14 135,
    rt_sigreturn 15 139,  rt_sigsuspend 130 133,  rt_sigtimedwait 128 137,  sched_get_priority_max 146 125,
    sched_get_priority_min 147 126,  sched_getaffinity 204 123,  sched_getparam 143 121,
    sched_getscheduler 145 120,  sched_yield 24 124,  select 23 -,  sendfile 40 71,  sendto 44 206,
    set_robust_list 273 99,  set_tid_address 218 96,  setitimer 38 103,  setrlimit 160 164,  shutdown 48 210,
    sigaltstack 131 132,  stat 4 -,  statfs 137 43,  statx 332 291,  sysinfo 99 179,  time 201 -,
    timer_create 222 107,  timer_delete 226 111,  timer_gettime 224 108,  timer_settime 223 110,
    timerfd_create 283 85,  timerfd_gettime 287 87,  timerfd_settime 286 86,  times 100 153,  umask 95 166,
    uname 63 160,  wait4 61 260,  waitid 247 95,  write 1 64,  writev 20 66
"""
# What changes files: only where Landlock or a file system of its own says which.
_WRITING = """
    creat 85 -,  fallocate 285 47,  mkdir 83 -,  mkdirat 258 34,  rename 82 -,  renameat 264 38,
    renameat2 316 276,  rmdir 84 -,  symlink 88 -,  symlinkat 266 36,  truncate 76 45,  unlink 87 -,
    unlinkat 263 35
"""
# Modes, times and hard links, which Landlock does not cover: only in a file system of its own.
_ATTRIBUTES = """
    chmod 90 -,  fchmod 91 52,  fchmodat 268 53,  link 86 -,  linkat 265 37,  utime 132 -,  utimensat 280 88,
    utimes 235 -
"""
# Receiving file descriptors: the checker alone.
_PASSING = "recvmsg 47 212, sendmsg 46 211"
# Allowed or not by an argument; see `seccomp`.
_JUDGED = """
    clone 56 220,  clone3 435 435,  fcntl 72 25,  ioctl 16 29,  kill 62 129,  open 2 -,  openat 257 56,
    openat2 437 437,  prctl 157 167,  prlimit64 302 261,  socketpair 53 199,  tgkill 234 131,  tkill 200 130
"""


def _table(text: str, column: int) -> dict[str, int]:
    rows = [row.split() for row in text.split(",")]
    return {row[0]: int(row[1 + column]) for row in rows if row[1 + column] != "-"}


def allowed(column: int, *, writing: bool, attributes: bool, passing: bool) -> set[int]:
    """The numbers that are allowed whatever their arguments."""
    parts = [_ALWAYS, *[_WRITING] * writing, *[_ATTRIBUTES] * attributes, *[_PASSING] * passing]
    return {number for part in parts for number in _table(part, column).values()}


def judged(column: int) -> dict[str, int]:
    """The calls whose arguments decide, by name."""
    return _table(_JUDGED, column)


def names(column: int) -> dict[str, int]:
    """Every call that is named here."""
    return {
        name: number
        for part in (_ALWAYS, _WRITING, _ATTRIBUTES, _PASSING, _JUDGED)
        for name, number in _table(part, column).items()
    }
