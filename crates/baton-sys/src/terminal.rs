//! Job control for a program that runs on our terminal: whoever types at it talks to the program, and stops and
//! resumes both together (`man 7 credentials`, `man 3 tcsetpgrp`).
//!
//! Every signal is blocked in this process, so that the kernel lets it take and give the terminal at any time.

use std::io;

use rustix::process::{Pid, Signal, getpgid, getpgrp, getpid, kill_process, kill_process_group};
use rustix::stdio::stdin;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The process group in the foreground of the terminal that is our standard input and controls our session;
/// nothing, where there is none.
pub fn foreground() -> Option<i32> {
    tcgetpgrp(stdin()).ok().map(|group| group.as_raw_nonzero().get())
}

/// Our own process group.
pub fn own_group() -> i32 {
    getpgrp().as_raw_nonzero().get()
}

/// The process group of a process; nothing, where it has been reaped.
pub fn group_of(pid: i32) -> Option<i32> {
    let group = getpgid(Some(Pid::from_raw(pid)?)).ok()?;
    Some(group.as_raw_nonzero().get())
}

/// Puts a process group of our session in the foreground: what is typed is for it.
pub fn give_to(group: i32) -> io::Result<()> {
    let Some(group) = Pid::from_raw(group) else { return Ok(()) };
    Ok(tcsetpgrp(stdin(), group)?)
}

/// The program has been stopped, by Ctrl-Z mostly: takes the terminal back and stops this process too, so that the
/// shell sees its job stop. A process 1 cannot be stopped; there the program is resumed by `SIGCONT`.
pub fn stop_too() -> io::Result<()> {
    give_to(own_group())?;
    Ok(kill_process(getpid(), Signal::STOP)?)
}

/// This process was resumed: so is the program with this process group, in the foreground if we are.
pub fn resume(group: i32) -> io::Result<()> {
    if foreground() == Some(own_group()) {
        give_to(group)?;
    }
    let Some(group) = Pid::from_raw(group) else { return Ok(()) };
    Ok(kill_process_group(group, Signal::CONT)?)
}
