//! The selector: a classic BPF program that tells the kernel which socket of a reuseport group gets a new
//! connection.
//!
//! Attached with `SO_ATTACH_REUSEPORT_CBPF` (`man 7 socket`), which needs no privilege. Replacing it is one
//! system call and atomic for the kernel: before it everybody went to one socket, after it to the other.

mod probe;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use self::probe::{ProbeError, probe};

/// Who gets a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The indices in the group of which everybody gets one, by chance.
    pub serving: Vec<u32>,
    /// The index that connections from the held ports on the loopback address get.
    pub private: u32,
    /// The first of the held ports: a multiple of [`HELD_PORTS`].
    pub held: u16,
    /// Set while everybody is divided.
    pub rest: Option<Rest>,
}

/// Who gets a part of everybody's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// Connections for which a random number is not below this.
    pub from: u32,
    /// The indices of which those get one, by chance.
    pub indices: Vec<u32>,
}

/// How many ports are held for private connections, so that one probe need not wait for another. A power of
/// two, so that one mask tests them all.
pub const HELD_PORTS: u16 = 8;

/// Makes the group of this listening socket choose by `choice` from now on.
pub fn attach(group: BorrowedFd<'_>, choice: &Choice) -> io::Result<()> {
    let mut program = program(choice);
    let header = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `header` points at `program.len()` instructions that live until the call returns; the kernel
    // copies them.
    let failed = unsafe {
        libc::setsockopt(
            group.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const header).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Offset by which a load reads from the network header: the packet itself starts behind the TCP header here.
const NET: u32 = 0xfff0_0000;
/// An IPv4 header without options: only there the port is where we look.
const IPV4_PLAIN: u32 = 0x45;
const IPV6: u32 = 0x60;
const TCP: u32 = 6;
const LOOPBACK_V4: u32 = 0x7f00_0001;

/// Offset by which a load gets a random number, another one each time (`man 7 bpf`, `SKF_AD_RANDOM`).
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

/// Past the end of every group: the kernel chooses itself.
const NOBODY: u32 = u32::MAX;

/// One step of the program. Only what the selector needs.
#[derive(Clone, Copy)]
enum Step {
    LoadByte(u32),
    LoadHalf(u32),
    LoadWord(u32),
    LoadRandom,
    And(u32),
    /// The remainder of a division.
    Modulo(u32),
    /// Goes on if the value is this, else to what is done with everybody.
    Require(u32),
    /// Leaves out this many steps if the value is this.
    SkipWhen(u32, usize),
    /// Leaves out the next step if the value is not this.
    SkipUnless(u32),
    /// Leaves out the next step if the value is below this.
    SkipBelow(u32),
    /// Leaves out this many steps.
    Skip(usize),
    Return(u32),
}

/// The last steps, where every failed test ends.
fn everybody(choice: &Choice) -> Vec<Step> {
    use Step::*;
    let serving = one_of(&choice.serving);
    let Some(rest) = &choice.rest else { return serving };
    let mut steps = vec![LoadRandom, SkipBelow(rest.from), Skip(serving.len())];
    steps.extend(serving);
    steps.extend(one_of(&rest.indices));
    steps
}

/// Each of them as often as the others.
fn one_of(indices: &[u32]) -> Vec<Step> {
    use Step::*;
    let Some((last, others)) = indices.split_last() else { return vec![Return(NOBODY)] };
    let mut steps = Vec::new();
    if !others.is_empty() {
        steps.extend([LoadRandom, Modulo(indices.len() as u32)]);
    }
    for (drawn, index) in (0..).zip(others) {
        steps.extend([SkipUnless(drawn), Return(*index)]);
    }
    steps.push(Return(*last));
    steps
}

/// What is done with connections before they count as everybody's.
fn tests(choice: &Choice) -> Vec<Step> {
    use Step::*;
    let from_held_port =
        [And(u32::from(!(HELD_PORTS - 1))), Require(choice.held.into()), Return(choice.private)];
    // IPv6 from ::1, with TCP right behind the fixed header.
    let mut ipv6 = vec![And(0xf0), Require(IPV6), LoadByte(6), Require(TCP)];
    ipv6.extend([LoadWord(8), Require(0), LoadWord(12), Require(0)]);
    ipv6.extend([LoadWord(16), Require(0), LoadWord(20), Require(1), LoadHalf(40)]);
    ipv6.extend(from_held_port);
    // IPv4 from exactly 127.0.0.1: service meshes dial from other addresses of 127/8.
    let mut ipv4 = vec![LoadWord(12), Require(LOOPBACK_V4), LoadHalf(20)];
    ipv4.extend(from_held_port);

    let mut steps = vec![LoadByte(0), SkipWhen(IPV4_PLAIN, ipv6.len())];
    steps.extend(ipv6);
    steps.extend(ipv4);
    steps
}

fn program(choice: &Choice) -> Vec<libc::sock_filter> {
    let mut steps = tests(choice);
    let everybody_at = steps.len();
    steps.extend(everybody(choice));
    let load = |size, offset| (libc::BPF_LD | size | libc::BPF_ABS, 0, 0, NET + offset);
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let instruction = |(here, step): (usize, &Step)| {
        let (code, jt, jf, k) = match *step {
            Step::LoadByte(offset) => load(libc::BPF_B, offset),
            Step::LoadHalf(offset) => load(libc::BPF_H, offset),
            Step::LoadWord(offset) => load(libc::BPF_W, offset),
            Step::LoadRandom => (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, RANDOM),
            Step::And(k) => (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, k),
            Step::Modulo(k) => (libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, k),
            Step::Require(k) => (equals, 0, everybody_at - here - 1, k),
            Step::SkipWhen(k, steps) => (equals, steps, 0, k),
            Step::SkipUnless(k) => (equals, 0, 1, k),
            Step::SkipBelow(k) => (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, k),
            Step::Skip(steps) => (libc::BPF_JMP | libc::BPF_JA, 0, 0, steps as u32),
            Step::Return(k) => (libc::BPF_RET | libc::BPF_K, 0, 0, k),
        };
        libc::sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k }
    };
    steps.iter().enumerate().map(instruction).collect()
}
