//! Job control for a program that runs on our terminal: whoever types at it talks to the program, and stops and
//! resumes both together (`man 7 credentials`, `man 3 tcsetpgrp`).
//!
//! Every signal is blocked in this process, so that the kernel lets it take and give the terminal at any time.

use std::io;

use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group};
use rustix::stdio::stdin;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// Whether our standard input is the terminal that controls this session.
pub fn is_ours() -> bool {
    tcgetpgrp(stdin()).is_ok()
}

/// The program has been stopped, by Ctrl-Z mostly: takes the terminal back and stops this process too, so that the
/// shell sees its job stop. A process 1 cannot be stopped; there the program is resumed by `SIGCONT`.
pub fn stop_too() -> io::Result<()> {
    tcsetpgrp(stdin(), getpgrp())?;
    Ok(kill_process(getpid(), Signal::STOP)?)
}

/// This process was resumed: so is the program with this process group, in the foreground if we are.
pub fn resume(group: i32) -> io::Result<()> {
    let Some(group) = Pid::from_raw(group) else { return Ok(()) };
    if tcgetpgrp(stdin())? == getpgrp() {
        tcsetpgrp(stdin(), group)?;
    }
    Ok(kill_process_group(group, Signal::CONT)?)
}
