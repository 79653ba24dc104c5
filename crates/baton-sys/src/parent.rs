//! Children that do not outlive the process that started them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets the child get SIGTERM when the *thread* that starts it ends, be it with its whole process: start it from
/// a thread that lives as long as the child shall.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    let ask = move || {
        // SAFETY: a system call that takes a number and touches no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the kernel was asked; then nobody would send the signal.
        // SAFETY: a system call without arguments.
        if unsafe { libc::getppid() }.cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: `ask` runs between fork and exec; it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(ask) }
}
