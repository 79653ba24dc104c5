//! Where the kernel or a sandbox refuses something: what still works, and how the rest is told.

use std::io;

use baton_sys::{process, selector};

use super::{
    NotCopied, Program, Report, SpawnError, Trial, is_substituted, listener_on, probe, python, spawn,
    spawn_intercepted, start, wait,
};

/// Runs this on a thread that may not make some system calls, as in a container.
fn without<T: Send>(calls: &[libc::c_long], run: impl FnOnce() -> T + Send) -> T {
    let deny = |call: &libc::c_long| {
        let jump = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let end = libc::BPF_RET | libc::BPF_K;
        let errno = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        [(jump, 0, 1, *call as u32), (end, 0, 0, errno)]
    };
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0);
    let allow = (libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW);
    let steps = std::iter::once(load).chain(calls.iter().flat_map(deny)).chain([allow]);
    on_thread_with(
        0,
        steps.map(|(code, jt, jf, k)| libc::sock_filter { code: code as u16, jt, jf, k }).collect(),
        run,
    )
}

/// Runs this on a thread with a filter, and closes the notify descriptor, if that was asked for, at the end.
fn on_thread_with<T: Send>(
    flags: libc::c_ulong,
    mut filter: Vec<libc::sock_filter>,
    run: impl FnOnce() -> T + Send,
) -> T {
    on_thread(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: `program` points at as many instructions as it says, and they live until the call returns.
        let installed = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        };
        assert!(installed >= 0, "{}", io::Error::last_os_error());
        run()
    })
}

fn on_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

/// Nothing ran, the reason is known, and the program can be started without.
fn assert_falls_back(errno: i32) {
    let command = python("tell(attempt(socket.socket().bind, there))");
    let listener = listener_on("127.0.0.1");
    let error = start(&command, listener.address.port(), spawn_intercepted).unwrap_err();
    assert!(matches!(
        &error,
        SpawnError::CannotIntercept { step: "seccomp", source, .. } if source.raw_os_error() == Some(errno)
    ));

    let (pid, _input, mut output) = start(&command, listener.address.port(), spawn).unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut output, &mut text).unwrap();
    wait(pid);
    assert_eq!(text, "EADDRINUSE\n");

    let _alone = crate::FORKING.lock().unwrap();
    let error = probe().unwrap_err();
    assert_eq!((error.step, error.source.raw_os_error()), ("seccomp", Some(errno)));
}

#[test]
fn a_sandbox_without_filters_is_recognised() {
    without(&[libc::SYS_seccomp], || assert_falls_back(libc::EPERM));
}

#[test]
fn a_supervisor_above_this_one_is_recognised() {
    let allow = libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    on_thread_with(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, vec![allow], || assert_falls_back(libc::EBUSY));
}

#[test]
fn a_sandbox_that_refuses_to_replace_descriptors_is_found_by_the_probe() {
    without(&[libc::SYS_ioctl], || {
        let _alone = crate::FORKING.lock().unwrap();
        assert_eq!(probe().unwrap_err().source.raw_os_error(), Some(libc::EPERM));
    });
}

#[test]
fn a_sandbox_without_a_selector_is_found_by_its_probe() {
    selector::probe().unwrap();
    without(&[libc::SYS_setsockopt], || {
        let error = selector::probe().unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EPERM));
    });
}

#[test]
fn a_process_that_cannot_be_looked_at_is_not_gone() {
    let own = std::process::id().cast_signed();
    let this = process::all().unwrap().into_iter().find(|process| process.pid == own).unwrap();
    for refused in [&[libc::SYS_pidfd_open][..], &[libc::SYS_pidfd_open, libc::SYS_openat]] {
        without(refused, || {
            assert!(!process::is_gone(this));
            assert_eq!(process::open(this).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        });
    }
}

#[test]
fn where_the_programs_socket_cannot_be_looked_at_its_options_are_reported_lost() {
    without(&[libc::SYS_pidfd_getfd, libc::SYS_process_vm_readv], || {
        {
            let _alone = crate::FORKING.lock().unwrap();
            probe().unwrap();
        }
        let (text, reports) = Trial::python("tell(attempt(socket.socket().bind, there))").end();
        assert_eq!(text, "ok\n");
        let [Report::OptionsNotCopied { listener: 0, why: NotCopied::Unreadable(error) }, last] =
            &reports[..]
        else {
            panic!("{reports:?}")
        };
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(is_substituted(last));
    });
}

/// Takes capabilities from this thread, and from those that it starts.
fn drop_capabilities(doomed: rustix::thread::CapabilitySet) {
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.remove(doomed);
    sets.permitted.remove(doomed);
    rustix::thread::set_capabilities(None, sets).unwrap();
}

/// A Node program as another user. The program is executed after the change of user, as by `setpriv` in an image.
fn another_users_program() -> Vec<String> {
    let script = "const server = require('net').createServer();
        server.on('error', error => console.log(error.code));
        server.listen(process.env.PORT, '127.0.0.1', () => { console.log(process.getuid()); server.close() });";
    let command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "node", "-e", script];
    command.map(str::to_owned).into()
}

#[test]
fn another_users_program_gets_our_socket_without_the_right_to_trace() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    on_thread(|| {
        drop_capabilities(rustix::thread::CapabilitySet::SYS_PTRACE);
        let (text, reports) = Trial::of(listener_on("127.0.0.1"), &another_users_program()).end();
        assert_eq!(text, "65534\n");
        let [Report::OptionsNotCopied { .. }, last] = &reports[..] else { panic!("{reports:?}") };
        assert!(is_substituted(last));
        let as_before = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(as_before, rustix::process::DumpableBehavior::Dumpable);
    });
}

#[test]
fn a_program_that_cannot_be_read_at_all_is_reported() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    on_thread(|| {
        use rustix::thread::CapabilitySet;
        // It changes its user itself, so it has to be started before that right is given up.
        let (program, notify) = Program::start(listener_on("127.0.0.1"), &another_users_program());
        drop_capabilities(CapabilitySet::SYS_PTRACE | CapabilitySet::SETUID | CapabilitySet::SETGID);
        let (text, reports) = program.answered(notify).end();
        assert_eq!(text, "EADDRINUSE\n");
        let [Report::Unjudged(error)] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    });
}
