//! Whole stories: pushed and deployed by the command line, to members that serve under load.

use baton_e2e::load::{Plan, Report};
use rustix::process::{Pid, Signal, kill_process};

use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::load::Load;
use crate::program::Client;
use crate::wait::{wait_for, wait_or_tell};

/// Half of the fleet at a time, with a short bake: for tests that are about something else.
const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];

fn load_on(fleet: &Fleet) -> Load {
    let targets = fleet.addresses.iter().map(|address| address.to_string().parse().unwrap());
    Load::start(Plan { rate: 40, ..Plan::mixed(targets.collect()) })
}

fn assert_nothing_lost(report: &Report) {
    assert_eq!(report.lost, 0, "{report:#?}");
    assert!(report.is_clean(), "{report:#?}");
}

fn tell_all(fleet: &Fleet, load: &Load, line: impl Fn(&str) -> String) {
    fleet.addresses.iter().for_each(|address| load.say(&line(&address.to_string())));
}

#[test]
fn p1_p3_p5_p13_fifty_deploys_in_a_row_under_load_on_4_members_lose_nothing() {
    let fleet = Fleet::start("web", 4);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let load = load_on(&fleet);
    for number in 1..=50 {
        folder.write("VERSION", &number.to_string());
        tell_all(&fleet, &load, |address| format!("open {address}"));
        assert_eq!(fleet.deploy(&folder, &QUICK), Some(0), "deploy {number}");
        let release = fleet.release();
        tell_all(&fleet, &load, |address| format!("committed {address} {release}"));
        for member in fleet.members_now() {
            assert_eq!(member["running"], release.as_str(), "{member}");
        }
    }
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(report.releases.len() > 50, "{:?}", report.releases);
}

#[test]
fn p2_a_candidate_that_accepts_but_is_not_healthy_gets_none_of_50_000_connections() {
    let fleet = Fleet::start("web", 1);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    folder.write("behaviour", "never-healthy\n");
    folder.change("baton.toml", "startup_timeout = \"10s\"", "startup_timeout = \"10m\"");
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    let bad = fleet.release();
    wait_for("the candidate", || (fleet.members_now()[0]["standing"] == "trying").then_some(()));
    let load = Load::start(Plan {
        new: 16,
        keep: 0,
        rate: 0,
        duration: None,
        ..Plan::on(vec![fleet.addresses[0].to_string().parse().unwrap()])
    });
    load.say(&format!("forbid {bad}"));
    load.run_until(|report| report.connections >= 50_000);
    assert_eq!(fleet.members_now()[0]["standing"], "trying", "it was there all the time");
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(report.connections >= 50_000 && !report.releases.contains_key(&bad), "{report:#?}");
}

#[test]
fn p8_p9_a_release_that_fails_is_halted_and_taken_back_by_itself() {
    let fleet = Fleet::start("web", 4);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let good = fleet.release();
    let load = load_on(&fleet);
    folder.write("behaviour", "exit-at-start=7\n");
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe"]), Some(3));
    let status = fleet.status();
    assert_eq!(
        (&status["deploy"]["kind"], &status["deploy"]["release"]),
        (&"rollback".into(), &good.as_str().into())
    );
    let deploys = fleet.json(&["deploys", "--service", "web"]);
    let bad = deploys[1]["release"].as_str().unwrap().to_owned();
    let touched = fleet.json(&["events", "--service", "web"]);
    let granted = touched
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["kind"] == "granted" && event["deploy"] == deploys[1]["id"]);
    assert_eq!(granted.count(), 1);
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(!report.releases.contains_key(&bad));
    // It is marked, and only comes back when that is meant.
    let again = fleet.baton_in(folder.path(), &["deploy", &bad]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("--again"), "{again:?}");
}

#[test]
fn f119_the_same_release_again_starts_nothing_and_one_with_other_settings_takes_over() {
    let fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    let generations = || {
        let generation =
            |address| Client::connect(address).unwrap().get("/").unwrap().generation().to_owned();
        fleet.addresses.iter().copied().map(generation).collect::<Vec<_>>()
    };
    let before = generations();
    let load = load_on(&fleet);
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!((&fleet.status()["deploy"]["epoch"], fleet.release()), (&2.into(), first.clone()));
    assert_eq!(generations(), before);
    folder.write("baton.toml", &(folder.read("baton.toml") + "\n[env]\nCOLOUR = \"green\"\n"));
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_ne!(fleet.release(), first, "it is another release");
    assert!(generations().iter().zip(&before).all(|(now, before)| now != before));
    assert_nothing_lost(&load.stop());
}

#[test]
fn f92_a_release_that_fails_with_no_way_back_tells_every_door_that_it_needs_a_person() {
    let fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    folder.write("behaviour", "exit-at-start=7\n");
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe"]), Some(3));
    let status = fleet.baton(&["status", "web"]);
    let (out, err) = (String::from_utf8_lossy(&status.stdout), String::from_utf8_lossy(&status.stderr));
    assert_eq!(status.status.code(), Some(3), "{out}{err}");
    assert!(out.contains("needs you") && err.contains("a person has to decide"), "{out}{err}");
    assert_eq!(fleet.metric("baton_rollout_needs_person{service=\"web\"}"), 1);
    assert_eq!(fleet.log("control").matches("web needs a person").count(), 1, "{}", fleet.log("control"));
    folder.write("behaviour", "");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!(fleet.baton(&["status", "web"]).status.code(), Some(0));
}

#[test]
fn p1_a_rollback_of_what_served_needs_no_argument_and_halt_and_resume_lose_nothing_either() {
    let fleet = Fleet::start("web", 3);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    let load = load_on(&fleet);
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe", "--bake", "3s", "--detach"]), Some(0));
    let second = fleet.release();
    wait_for("the first member", || (fleet.status()["counts"]["proving"] == 1).then_some(()));
    assert!(fleet.baton(&["halt", "--service", "web"]).status.success());
    wait_for("its bake to end", || (fleet.status()["counts"]["proven"] == 1).then_some(()));
    assert_eq!(fleet.status()["state"], "halted");
    assert!(fleet.baton(&["resume", "--service", "web"]).status.success());
    wait_for("the rest", || {
        (0..3).all(|member| fleet.answers(member).as_deref() == Some(&second)).then_some(())
    });
    assert!(fleet.baton(&["rollback", "--service", "web"]).status.success());
    assert_eq!(fleet.release(), first);
    tell_all(&fleet, &load, |address| format!("committed {address} {first}"));
    assert!((0..3).all(|member| fleet.answers(member).as_deref() == Some(&first)));
    let report = load.stop();
    assert_nothing_lost(&report);
    assert!(report.releases.contains_key(&second), "what was taken back had served: {report:#?}");
}

#[test]
fn p1_a_rollback_to_what_is_kept_warm_launches_nothing() {
    let fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    folder.change("baton.toml", "drain   =", "keep_warm = \"10m\"\ndrain   =");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    let pids =
        || [0, 1].map(|member| Client::connect(fleet.addresses[member]).unwrap().get("/").unwrap().pid());
    let before = pids();
    folder.write("VERSION", "2");
    let load = load_on(&fleet);
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_ne!(pids(), before);
    assert!(fleet.baton(&["rollback", "--service", "web"]).status.success());
    assert_eq!(fleet.release(), first);
    assert_eq!(pids(), before, "the same processes serve again");
    assert_nothing_lost(&load.stop());
}

#[test]
fn p28_a_rollback_is_launched_from_the_members_disks_while_the_store_is_gone() {
    let fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    fleet.lose_store();
    assert!(!fleet.baton_in(folder.path(), &["push"]).status.success(), "the store is gone");
    let back = fleet.baton(&["rollback", "--service", "web"]);
    assert!(back.status.success(), "{back:?}");
    assert!((0..2).all(|member| fleet.answers(member).as_deref() == Some(&first)));
}

#[test]
fn p28_a_member_that_ends_during_a_trial_starts_the_release_before_without_store_and_control() {
    let mut fleet = Fleet::start("web", 1);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe", "--bake", "10m", "--detach"]), Some(0));
    let second = fleet.release();
    wait_for("the trial", || (fleet.answers(0)? == second).then_some(()));
    fleet.kill_control();
    fleet.lose_store();
    fleet.members[0].terminate().unwrap();
    wait_for("the member to end", || fleet.members[0].wait(std::time::Duration::ZERO).unwrap());
    fleet.replace_member(0);
    let answered = wait_for("the member", || fleet.answers(0));
    assert_eq!(answered, first, "what was on trial is not what it starts by itself");
}

#[test]
fn p28_f43_a_member_whose_disk_is_damaged_runs_what_it_has_proven_before() {
    let mut fleet = Fleet::start("web", 1);
    let folder = Folder::with_example("python");
    let [first, second] = ["1", "2"].map(|version| {
        folder.write("VERSION", version);
        assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
        fleet.release()
    });
    fleet.kill_control();
    let damage = |fleet: &Fleet, path: &str| {
        let path = fleet.path(&format!("web-0/{path}"));
        let length = std::fs::read(&path).unwrap().len();
        std::fs::write(&path, "x".repeat(length)).unwrap();
    };
    // Of the records the one is made up for, and the other must not keep it from starting.
    damage(&fleet, "committed");
    damage(&fleet, "seen");
    fleet.replace_member(0);
    wait_for("what was committed", || (fleet.answers(0)? == second).then_some(()));
    damage(&fleet, &format!("releases/{second}/tree/VERSION"));
    fleet.replace_member(0);
    wait_for("what was proven before", || (fleet.answers(0)? == first).then_some(()));
    // Everybody runs the other one: once control is there it is brought back.
    fleet.start_control();
    wait_for("what everybody runs", || (fleet.answers(0)? == second).then_some(()));
    folder.write("VERSION", "3");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!(fleet.answers(0), Some(fleet.release()));
}

#[test]
fn p28_a_bootloader_that_is_killed_during_a_trial_or_a_bake_comes_back_with_what_it_had_committed() {
    for (behaviour, standing) in [("never-healthy", "trying"), ("crash-after=2", "proving")] {
        let mut fleet = Fleet::start("web", 1);
        let folder = Folder::with_example("python");
        assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
        let first = fleet.release();
        folder.write("behaviour", behaviour);
        assert_eq!(fleet.deploy(&folder, &["--policy", "fast", "--bake", "10s", "--detach"]), Some(0));
        wait_for(standing, || (fleet.members_now().first()?["standing"] == standing).then_some(()));
        fleet.replace_member(0);
        let name = fleet.members[0].member().to_string();
        let what = || format!("what was committed, {behaviour}: {}", fleet.log(&name));
        wait_or_tell(what, || (fleet.answers(0)? == first).then_some(()));
        wait_for("the way back", || {
            let status = fleet.status();
            let back = status["deploy"]["kind"] == "rollback" && status["deploy"]["switched"] == true;
            back.then_some(())
        });
        assert_eq!(fleet.answers(0), Some(first), "{behaviour}");
    }
}

#[test]
fn a_member_whose_name_another_process_has_is_told_so_and_comes_back() {
    let fleet = Fleet::start("web", 1);
    let name = fleet.members[0].member().to_string();
    let mut twin = fleet.twin(0);
    let said = format!("another process calls itself {name}, and was started later");
    wait_for("the word of it", || fleet.log(&name).contains(&said).then_some(()));
    twin.terminate().unwrap();
    wait_for("the twin to end", || twin.wait(std::time::Duration::ZERO).unwrap());
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    assert_eq!(fleet.answers(0), Some(fleet.release()));
}

#[test]
fn p30_members_serve_and_come_back_without_control() {
    let mut fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let release = fleet.release();
    fleet.kill_control();
    // A program that crashes is launched again, and so is a whole member, from its disk alone.
    let pid = Client::connect(fleet.addresses[0]).unwrap().get("/").unwrap().pid();
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_for("the program", || (fleet.answers(0)? == release).then_some(()));
    fleet.members[1].terminate().unwrap();
    wait_for("the member to end", || fleet.members[1].wait(std::time::Duration::ZERO).unwrap());
    fleet.replace_member(1);
    wait_for("the member", || (fleet.answers(1)? == release).then_some(()));
    // And when control is back, everything goes on.
    fleet.start_control();
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
}

#[test]
fn p12_p31_control_killed_in_the_middle_of_a_rollout_goes_on_where_it_was() {
    let mut fleet = Fleet::start("web", 4);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let load = load_on(&fleet);
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--policy", "fast", "--bake", "2s", "--detach"]), Some(0));
    let (deploy, release) = (fleet.status()["deploy"]["id"].clone(), fleet.release());
    wait_for("the first member", || (fleet.status()["counts"]["proven"].as_u64()? >= 1).then_some(()));
    fleet.kill_control();
    fleet.start_control();
    wait_for("the rest", || (fleet.status()["deploy"]["switched"] == true).then_some(()));
    assert_eq!(fleet.status()["deploy"]["id"], deploy);
    assert!((0..4).all(|member| fleet.answers(member).as_deref() == Some(&release)));
    assert_nothing_lost(&load.stop());
}

#[test]
fn p17_a_new_member_starts_what_the_fleet_runs() {
    let mut fleet = Fleet::start("web", 1);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let release = fleet.release();
    folder.write("VERSION", "2");
    folder.write("behaviour", "never-healthy\n");
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    fleet.add_member();
    wait_for("the new member", || (fleet.answers(1)? == release).then_some(()));
}

#[test]
fn p9_a_rollback_does_not_wait_for_the_bake_of_a_worker_that_runs_alone() {
    let fleet = Fleet::of_workers("worker", 2);
    let folder = Folder::with_example("worker");
    folder.change("baton.toml", "drain   =", "overlap = false\ndrain   =");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe", "--bake", "10m", "--detach"]), Some(0));
    wait_for("the first member", || (fleet.status()["counts"]["proving"] == 1).then_some(()));
    let rollback = fleet.baton(&["rollback", "--service", "worker"]);
    assert!(rollback.status.success(), "{}", String::from_utf8_lossy(&rollback.stderr));
    let back = || fleet.members_now().iter().all(|member| member["running"] == first.as_str());
    wait_for("both members on the first release", || back().then_some(()));
}

#[test]
fn the_node_and_the_worker_example_are_deployed_for_real() {
    for (example, listens) in [("node", true), ("worker", false)] {
        let fleet = if listens { Fleet::start("web", 2) } else { Fleet::of_workers("worker", 2) };
        let folder = Folder::with_example(example);
        assert_eq!(fleet.deploy(&folder, &QUICK), Some(0), "{example}");
        let load = listens.then(|| load_on(&fleet));
        for number in 1..=3 {
            folder.write("VERSION", &number.to_string());
            assert_eq!(fleet.deploy(&folder, &QUICK), Some(0), "{example} {number}");
        }
        load.into_iter().for_each(|load| assert_nothing_lost(&load.stop()));
        let release = fleet.release();
        assert!(fleet.members_now().iter().all(|member| member["running"] == release.as_str()));
    }
}
