//! Clocks that are wrong, jump, or stand still with their machine. The wall clock of a process is the one of libfaketime; the
//! monotonic one is the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::redis_server::Redis;
use crate::wait::wait_for;

const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];
/// When the seconds since 1970 are more than 31 bits hold: 2038-01-19T03:14:08Z.
const END_OF_31_BITS: Duration = Duration::from_secs(1 << 31);

/// The wall clock of those processes that have its variables.
struct Clock {
    folder: Folder,
}

impl Clock {
    /// So far from the right time: `+10y`, `-3600`.
    fn off(by: &str) -> Self {
        let clock = Self { folder: Folder::empty() };
        clock.jump(by);
        clock
    }

    /// From now on it is so far from the right time.
    fn jump(&self, to: &str) {
        self.folder.write("next", to);
        fs::rename(self.folder.path().join("next"), self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    fn variables(&self) -> Vec<(String, String)> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "this test needs libfaketime: scripts/setup test");
        let file = self.file();
        let variables = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
            // Not the one in which times are told.
            ("TZ", "Asia/Kathmandu"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}

/// Control and members, each by a clock.
fn fleet(control: &Clock, members: &[&Clock]) -> Fleet {
    let mut fleet = Fleet::start_with("web", 0, control.variables());
    for clock in members {
        let variables = clock.variables();
        let told: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        fleet.add_member_told(&told);
    }
    all_are(&fleet, members.len(), "live");
    fleet
}

fn all_are(fleet: &Fleet, count: usize, presence: &str) {
    wait_for(&format!("all members to be {presence}"), || {
        let members = fleet.members_now();
        (members.len() == count && members.iter().all(|member| member["presence"] == presence)).then_some(())
    });
}

fn all_answer(fleet: &Fleet) {
    let release = fleet.release();
    wait_for("every member to answer", || {
        (0..fleet.members.len()).all(|member| fleet.answers(member).as_ref() == Some(&release)).then_some(())
    });
}

fn example(version: &str) -> Folder {
    let folder = Folder::with_example("python");
    folder.write("VERSION", version);
    folder
}

#[test]
fn f46_wall_clocks_that_are_years_off_and_jump_in_a_rollout_stop_nothing() {
    let (control, ahead, behind) = (Clock::off("+10y"), Clock::off("+3600"), Clock::off("-10y"));
    let fleet = fleet(&control, &[&ahead, &behind]);
    assert_eq!(fleet.deploy(&example("1"), &QUICK), Some(0));
    all_answer(&fleet);
    let first = fleet.release();

    let second = example("2");
    let slow = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "3s"];
    thread::scope(|scope| {
        let deploy = scope.spawn(|| fleet.deploy(&second, &slow));
        wait_for("a member to be on trial", || {
            fleet.members_now().iter().any(|member| member["standing"] == "proving").then_some(())
        });
        control.jump("-10y");
        ahead.jump("-3600");
        behind.jump("+10y");
        assert_eq!(deploy.join().unwrap(), Some(0));
    });
    all_answer(&fleet);
    assert_ne!(fleet.release(), first);
    // By a clock that now is years before the first deploy: the order is that of the epochs.
    let back = fleet.baton(&["rollback", "--service", "web"]);
    assert!(back.status.success(), "{back:?}");
    assert_eq!(fleet.release(), first);
    all_answer(&fleet);
}

#[test]
fn f48_a_fleet_deploys_on_both_sides_of_the_end_of_31_bits_of_seconds() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let before = END_OF_31_BITS - now - Duration::from_secs(20);
    let clock = Clock::off(&format!("+{}", before.as_secs()));
    let fleet = fleet(&clock, &[&clock, &clock]);
    assert_eq!(fleet.deploy(&example("1"), &QUICK), Some(0));
    let created = || fleet.status()["deploy"]["created_ms"].as_u64().unwrap();
    let first = created();
    wait_for("the end of 31 bits", || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (now + Duration::from_secs(before.as_secs()) > END_OF_31_BITS).then_some(())
    });
    assert_eq!(fleet.deploy(&example("2"), &QUICK), Some(0));
    all_answer(&fleet);
    let end = u64::try_from(END_OF_31_BITS.as_millis()).unwrap();
    assert!(created() > first && created() >= end, "{first} {}", created());
    let events = fleet.baton(&["events", "--service", "web"]);
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    assert!(events.contains("2038-01-19T03:14:"), "in UTC: {events}");
}

#[test]
fn f46_a_server_whose_clock_is_not_that_of_redis_says_so_once_while_it_hops() {
    let (redis, clock) = (Redis::start(), Clock::off("+2d"));
    let state = ("BATON_STATE".to_owned(), redis.address());
    let fleet = Fleet::over(1, 0, clock.variables().into_iter().chain([state]).collect());
    let guard = || {
        let off = fleet.baton(&["guards", "--output", "json"]);
        let off: Vec<Value> = serde_json::from_slice(&off.stdout).unwrap();
        let clock = off.iter().find(|off| off["guard"] == "clock");
        clock.map(|off| off["text"].as_str().unwrap().to_owned())
    };
    let ahead = || fleet.sample("baton_clock_ahead_seconds").parse::<f64>().unwrap();
    let says = |side: &'static str| guard().filter(|text| text.contains(side)).map(drop);
    let agrees = || if guard().is_none() { Some(()) } else { None };
    wait_for("the guard", || says("ahead of that of the state store"));
    // As far as it is sure: what an answer takes is not in it.
    assert!((86_400.0..=172_800.0).contains(&ahead()), "{}", ahead());
    clock.jump("+0");
    wait_for("the clocks to agree", agrees);
    assert!(ahead().abs() <= 5.0, "{}", ahead());
    clock.jump("-2d");
    wait_for("the guard of a clock that is behind", || says("behind that of the state store"));
    assert!(ahead() < 0.0, "{}", ahead());
    let log = fleet.log("control");
    assert_eq!(log.matches("this server's clock is").count(), 1, "{log}");
    assert!(!log.contains("agrees"), "{log}");
}

/// The processes of a member: its bootloader, and those that this one has started.
fn processes(fleet: &Fleet, member: usize) -> Vec<Pid> {
    let boot = fleet.members[member].pid();
    let mut found = vec![boot.to_string()];
    for task in fs::read_dir(format!("/proc/{boot}/task")).unwrap().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().map(str::to_owned));
    }
    found.iter().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect()
}

#[test]
fn f47_members_whose_machines_sleep_go_on_as_they_were_hours_later() {
    let (control, machine) = (Clock::off("+0"), Clock::off("+0"));
    let fleet = fleet(&control, &[&machine; 3]);
    assert_eq!(fleet.deploy(&example("1"), &QUICK), Some(0));
    all_answer(&fleet);
    let deploy = fleet.status()["deploy"]["id"].clone();
    let launched = || (0..3).map(|member| fleet.log(&format!("web-{member}")).matches(" serves, ").count());
    let before: Vec<usize> = launched().collect();

    let asleep: Vec<Pid> = (0..3).flat_map(|member| processes(&fleet, member)).collect();
    asleep.iter().for_each(|pid| kill_process(*pid, Signal::STOP).unwrap());
    all_are(&fleet, 3, "silent");
    machine.jump("+3h");
    asleep.iter().rev().for_each(|pid| kill_process(*pid, Signal::CONT).unwrap());
    all_are(&fleet, 3, "live");
    all_answer(&fleet);
    assert_eq!(fleet.status()["deploy"]["id"], deploy, "nobody has decided anything");
    assert_eq!(launched().collect::<Vec<_>>(), before, "and nothing was launched");
    // It can be worked with.
    assert_eq!(fleet.deploy(&example("2"), &QUICK), Some(0));
    all_answer(&fleet);
}
