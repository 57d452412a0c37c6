//! Which system calls a container may make.
//!
//! The same calls that `docker run` allows to a container with its default capabilities (profile of
//! moby 25, which took io_uring out): everything is refused with `EPERM` but what is listed. Calls
//! that only mean something with a capability that the container does not get (mounting, modules,
//! clocks, tracing across users) are not listed. Names that a runtime or kernel does not know are
//! skipped by it.

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
        LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

/// Allowed whatever the arguments are.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
    gettimeofday getuid getuid32 getxattr inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr llistxattr
    _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
    pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
    semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
    shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
    socketcall socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync
    sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit
    umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid
    waitpid write writev
    chroot
";

/// With `CAP_SYS_CHROOT`, which a container has, `chroot` is in the list above. These are the
/// processors' own.
const X86: &str = "arch_prctl modify_ldt";
const ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";
const RISCV: &str = "riscv_flush_icache riscv_hwprobe";
const POWER: &str = "sync_file_range2 swapcontext";
const S390: &str = "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr";

/// `CLONE_NEW*` of user, mount, UTS, IPC, PID, network and cgroup namespaces (`clone(2)`).
const NAMESPACES: u64 = 0x7e02_0000;
/// `AF_VSOCK` would reach the host of a virtual machine.
const AF_VSOCK: u64 = 40;
/// `personality(2)` of ordinary Linux programs: plain, 32-bit, each with UNAME26, and the question.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile for containers of the processor `arch` (as Go names it).
pub(crate) fn profile(arch: &str) -> Result<LinuxSeccomp, OciSpecError> {
    let (architectures, own) = match arch {
        "amd64" => (
            vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
            X86,
        ),
        "386" => (vec![Arch::ScmpArchX86], X86),
        "arm64" => (vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm], ARM),
        "arm" => (vec![Arch::ScmpArchArm], ARM),
        "riscv64" => (vec![Arch::ScmpArchRiscv64], RISCV),
        "ppc64le" => (vec![Arch::ScmpArchPpc64le], POWER),
        "s390x" => (vec![Arch::ScmpArchS390x, Arch::ScmpArchS390], S390),
        // The runtime's own processor.
        _ => (Vec::new(), ""),
    };
    let mut calls = vec![
        allow(&format!("{ALLOWED} {own}"), None)?,
        allow(
            "socket",
            Some(argument(0, AF_VSOCK, LinuxSeccompOperator::ScmpCmpNe)?),
        )?,
    ];
    for personality in PERSONALITIES {
        let is = argument(0, personality, LinuxSeccompOperator::ScmpCmpEq)?;
        calls.push(allow("personality", Some(is))?);
    }
    // Without namespace flags: the masked bits have to be zero. s390 has its arguments the other way
    // round.
    let flags = LinuxSeccompArgBuilder::default()
        .index(usize::from(arch == "s390x"))
        .value(NAMESPACES)
        .value_two(0_u64)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()?;
    calls.push(allow("clone", Some(flags))?);
    // Its flags are behind a pointer, where no filter sees them; with this answer C libraries fall
    // back to clone.
    calls.push(
        LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS)
            .build()?,
    );
    let profile = LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .syscalls(calls);
    match architectures.is_empty() {
        true => profile.build(),
        false => profile.architectures(architectures).build(),
    }
}

fn allow(names: &str, argument: Option<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    let call = LinuxSyscallBuilder::default()
        .names(
            names
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
        .action(LinuxSeccompAction::ScmpActAllow);
    match argument {
        Some(argument) => call.args(vec![argument]).build(),
        None => call.build(),
    }
}

fn argument(
    index: usize,
    value: u64,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_is_not_listed() {
        let names: Vec<&str> = ALLOWED.split_whitespace().collect();
        for call in [
            "mount",
            "umount2",
            "open_tree",
            "move_mount",
            "fsopen",
            "unshare",
            "setns",
            "clone",
            "clone3",
            "bpf",
            "keyctl",
            "add_key",
            "request_key",
            "kexec_load",
            "init_module",
            "finit_module",
            "open_by_handle_at",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "reboot",
            "swapon",
            "settimeofday",
            "quotactl",
            "acct",
            "syslog",
            "pivot_root",
        ] {
            assert!(!names.contains(&call), "{call}");
        }
        assert!(names.contains(&"openat2") && names.contains(&"execve"));
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "listed twice");
    }
}
