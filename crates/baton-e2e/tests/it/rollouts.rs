//! Rollouts by rules of their own, with real members: who is chosen, in which order, what is refused, what is told.

use serde_json::Value;

use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::wait::wait_for;

/// Half of the fleet at a time, with a short bake.
const QUICK: [&str; 6] = ["--policy", "fast", "--max-unhealthy", "50%", "--bake", "100ms"];

/// What a command has written on both streams.
fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn running(fleet: &Fleet, release: &str) -> Vec<String> {
    let members = fleet.members_now();
    let runs = members.iter().filter(|member| member["running"] == release);
    runs.map(|member| member["member"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn members_are_chosen_by_label_and_by_number_and_the_rest_follows_later() {
    let mut fleet = Fleet::start("web", 2);
    fleet.add_member_told(&[("BATON_LABELS", "zone=eu-1,canary")]);
    let folder = Folder::with_example("python");
    wait_for("the third member", || (fleet.status()["counts"]["live"] == 3).then_some(()));
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));

    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &[&QUICK[..], &["--label", "canary"]].concat()), Some(0));
    let second = fleet.release();
    assert_eq!(running(&fleet, &second), ["web-2"]);
    let members = fleet.members_now();
    assert_eq!((&members[0]["why_code"], &members[2]["labels"][0]), (&"not-meant".into(), &"canary".into()));

    let more = [&["deploy", &second], &QUICK[..], &["--target", "2"]].concat();
    let output = fleet.baton_in(folder.path(), &more);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(running(&fleet, &second).len(), 2);
    let rest = [&["deploy", &second, "--wait=drained"], &QUICK[..]].concat();
    let output = fleet.baton_in(folder.path(), &rest);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!((running(&fleet, &second).len(), &fleet.status()["state"]), (3, &"drained".into()));
}

#[test]
fn a_rollout_that_began_before_is_waited_for_and_one_that_no_member_could_try_is_not_begun() {
    let fleet = Fleet::start("web", 1);
    let folder = Folder::with_example("python");
    let begun = fleet.baton_in(folder.path(), &[&["deploy", "--detach"], &QUICK[..]].concat());
    assert_eq!(begun.status.code(), Some(0), "{}", said(&begun));
    let waited = fleet.baton(&["wait", "--service", "web"]);
    assert_eq!(waited.status.code(), Some(0), "{}", said(&waited));
    assert!(said(&waited).contains("on 1 of 1 members: switched"), "{}", said(&waited));

    folder.write("baton.toml", &(folder.read("baton.toml") + "\n[rollout]\nmin_available = 10\n"));
    let refused = fleet.baton_in(folder.path(), &["deploy", "--dry-run"]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("1 members serve, and min_available is 10"), "{}", said(&refused));
}

#[test]
fn a_bake_that_needs_connections_ends_when_clients_have_made_them_and_not_by_probes() {
    let fleet = Fleet::start("web", 1);
    let folder = Folder::with_example("python");
    let settings = folder.read("baton.toml") + "\n[rollout]\nbake = \"1s\"\nbake_connections = 30\n";
    folder.write("baton.toml", &settings);
    // What a member runs first waits for nobody.
    assert_eq!(fleet.deploy(&folder, &[]), Some(0));
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    let why = || fleet.members_now()[0]["why"].as_str().unwrap_or_default().to_owned();
    let accepted = || {
        let told = why().split("has accepted ").nth(1)?.split(' ').next()?.parse::<u32>().ok()?;
        assert!(told <= 10, "more than clients have made: {}", why());
        Some(told)
    };
    let log = || fleet.log("web-0");
    wait_for("it to have baked", || log().contains("waits for connections: 0 of 30").then_some(()));
    wait_for("it to say so", &accepted);
    assert_eq!(fleet.members_now()[0]["why_code"], "needs-traffic");
    let connect = |count| (0..count).for_each(|_| assert!(fleet.answers(0).is_some()));
    connect(10);
    // One is missing where a probe came just after the handover.
    wait_for("all of them to be counted", || accepted().filter(|told| *told >= 9));
    // Probes go on meanwhile, once in two seconds.
    connect(21);
    wait_for("the proof", || (fleet.status()["state"] == "drained").then_some(()));
    assert_eq!(fleet.members_now()[0]["standing"], "proven");
    assert!(!log().contains("is taken for good with"), "{}", log());
}

#[test]
fn a_release_that_starts_much_slower_is_told_and_taken_back_by_a_gate() {
    let fleet = Fleet::start("web", 3);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    let costs = fleet.status()["costs"].clone();
    assert!(costs["startup_ms"].as_u64().is_some_and(|startup| startup > 0), "{costs}");
    assert!(costs["fetched_bytes"].as_u64().is_some_and(|fetched| fetched > 0), "{costs}");
    assert!(costs["handover_us"].is_null(), "there was nothing to take over: {costs}");
    let preview = fleet.baton_in(folder.path(), &[&["deploy", &first, "--dry-run"], &QUICK[..]].concat());
    assert!(said(&preview).contains("if it starts as what runs now"), "{}", said(&preview));

    folder.write("behaviour", "slow-start=3\n");
    let output = fleet.baton_in(folder.path(), &[&["deploy"], &QUICK[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("costs more: it takes"), "{}", said(&output));
    let slow = fleet.release();
    let costs = fleet.status()["costs"].clone();
    assert_eq!(costs["slower"], true);
    assert!(costs["handover_us"].as_u64().is_some_and(|handover| handover > 0), "{costs}");
    let events = fleet.json(&["events", "--service", "web"]);
    assert!(events.as_array().unwrap().iter().any(|event| event["kind"] == "costs-more"), "{events:#}");
    let back = fleet.baton(&["rollback", "--service", "web"]);
    assert_eq!(back.status.code(), Some(0), "{}", said(&back));

    folder.write("VERSION", "3");
    folder.write("baton.toml", &(folder.read("baton.toml") + "\n[rollout]\ngates = [\"startup\"]\n"));
    let output = fleet.baton_in(folder.path(), &[&["deploy"], &QUICK[..]].concat());
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let status = fleet.status();
    assert_eq!(
        (&status["deploy"]["kind"], &status["deploy"]["release"]),
        (&"rollback".into(), &first.as_str().into())
    );
    assert_eq!(status["failure"]["code"], "starts-slower", "{status:#}");
    assert_ne!(slow, first);

    // What each of them took stays with its deploy.
    let deploys = fleet.json(&["deploys", "--service", "web"]);
    let kept: Vec<_> = deploys.as_array().unwrap().iter().rev().collect();
    let startup = |deploy: &Value| deploy["costs"]["startup_ms"].as_u64().unwrap();
    assert!(kept[0]["release"] == first.as_str() && kept[1]["release"] == slow.as_str(), "{deploys:#}");
    assert!(startup(kept[1]) > startup(kept[0]), "{deploys:#}");
    assert_eq!((&kept[1]["costs"]["slower"], &kept[3]["costs"]), (&true.into(), &Value::Null), "{deploys:#}");
}

#[test]
fn a_locked_service_refuses_deploys_with_the_reason_and_an_abort_passes() {
    let fleet = Fleet::start("web", 2);
    let folder = Folder::with_example("python");
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
    let first = fleet.release();
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &["--policy", "safe", "--bake", "10m", "--detach"]), Some(0));
    wait_for("the first member", || (fleet.status()["counts"]["proving"] == 1).then_some(()));
    let locked = fleet.baton(&["lock", "--service", "web", "--reason", "frozen until Monday"]);
    assert!(locked.status.success(), "{}", said(&locked));
    folder.write("VERSION", "3");
    let refused = fleet.baton_in(folder.path(), &["deploy"]);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    assert!(said(&refused).contains("frozen until Monday"), "{}", said(&refused));
    assert!(said(&fleet.baton(&["status", "web"])).contains("frozen until Monday"));

    let abort = fleet.baton(&["abort", "--service", "web", "-m", "wrong branch"]);
    assert_eq!((abort.status.code(), fleet.release()), (Some(0), first.clone()), "{}", said(&abort));
    assert_eq!(running(&fleet, &first).len(), 2);
    let nothing = fleet.baton(&["abort", "--service", "web"]);
    assert!(said(&nothing).contains("no rollout is under way"), "{}", said(&nothing));
    assert!(fleet.baton(&["unlock", "--service", "web"]).status.success());
    assert_eq!(fleet.deploy(&folder, &QUICK), Some(0));
}

#[test]
fn services_are_deployed_in_an_order_and_nothing_follows_one_that_fails() {
    let fleet = Fleet::start("web", 2);
    let (web, api) = (Folder::with_example("python"), Folder::with_example("python"));
    api.change("baton.toml", "service = \"web\"", "service = \"api\"");
    let pushed = fleet.json_in(api.path(), &["push"]);
    let of_api = format!("api={}", pushed["id"].as_str().unwrap());
    let web_path = web.path().to_str().unwrap().to_owned();
    let deploys_of_api = || {
        let output = fleet.baton(&["deploys", "--service", "api", "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null).as_array().map_or(0, Vec::len)
    };

    web.write("behaviour", "exit-at-start=7\n");
    let failed = fleet.baton(&[&["deploy", &web_path, "then", &of_api], &QUICK[..]].concat());
    assert_eq!(failed.status.code(), Some(3), "{}", said(&failed));
    assert!(said(&failed).contains("not begun: api"), "{}", said(&failed));
    assert_eq!(deploys_of_api(), 0);

    // Nobody runs api, so that is waited for in vain.
    web.write("behaviour", "\n");
    let ordered = [&["deploy", &web_path, "then", &of_api, "--timeout", "30s"], &QUICK[..]].concat();
    let output = fleet.baton(&ordered);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert_eq!((deploys_of_api(), &fleet.status()["deploy"]["switched"]), (1, &true.into()));
}

#[test]
fn of_two_services_the_second_begins_when_the_first_has_it_and_keeps_what_it_has_when_that_fails() {
    let mut fleet = Fleet::start("web", 2);
    fleet.service = "api";
    fleet.add_member();
    wait_for("the member of api", || {
        fleet.members_now().iter().any(|member| member["presence"] == "live").then_some(())
    });
    let (web, api) = (Folder::with_example("python"), Folder::with_example("python"));
    api.change("baton.toml", "service = \"web\"", "service = \"api\"");
    let paths = [&web, &api].map(|folder| folder.path().to_str().unwrap().to_owned());
    let both = || fleet.baton(&[&["deploy", &paths[0], "then", &paths[1]], &QUICK[..]].concat());
    let release =
        |service: &str| fleet.json(&["status", service])["deploy"]["release"].as_str().unwrap().to_owned();
    // The program that answers at each member: of web, of web, of api.
    let answers = || [0, 1, 2].map(|member| fleet.answers(member));

    let done = both();
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let (first_web, first_api) = (release("web"), release("api"));
    assert_eq!(answers(), [&first_web, &first_web, &first_api].map(|release| Some(release.clone())));
    let said_of = |what: &str| said(&done).find(what).unwrap_or_else(|| panic!("{what}: {}", said(&done)));
    let web_ends = said_of(&format!("web runs release {} on 2 of 2 members: switched", &first_web[..12]));
    assert!(web_ends < said_of(&format!("api goes to release {}", &first_api[..12])), "{}", said(&done));
    let number = |service: &str, kind: &str| {
        let events = fleet.json(&["events", "--service", service, "--last", "1000"]);
        let of_kind = |event: &&Value| event["kind"] == kind;
        events.as_array().unwrap().iter().find(of_kind).unwrap()["sequence"].as_u64().unwrap()
    };
    assert!(number("web", "switched") < number("api", "deployed"), "one after the other");

    web.write("behaviour", "exit-at-start=7\n");
    api.write("VERSION", "2");
    let failed = both();
    assert_eq!(failed.status.code(), Some(3), "{}", said(&failed));
    assert!(said(&failed).contains("not begun: api"), "{}", said(&failed));
    assert_eq!((release("web"), release("api")), (first_web, first_api.clone()), "{}", said(&failed));
    assert_eq!(answers()[2], Some(first_api), "what api has stays");
    assert_eq!(fleet.json(&["deploys", "--service", "api"]).as_array().unwrap().len(), 1);
}

#[test]
fn limits_that_are_numbers_hold_in_a_fleet_and_say_so() {
    let fleet = Fleet::start("web", 3);
    let folder = Folder::with_example("python");
    folder.write("baton.toml", &(folder.read("baton.toml") + "\n[rollout]\nnever_more_than = 4\n"));
    let all_at_once = ["--all-at-once", "--bake", "100ms"];
    assert_eq!(fleet.deploy(&folder, &all_at_once), Some(0));
    folder.write("VERSION", "2");
    assert_eq!(fleet.deploy(&folder, &all_at_once), Some(0));
    let events = fleet.json(&["events", "--service", "web", "--last", "1000"]);
    let last = fleet.json(&["deploys", "--service", "web"])[0]["id"].clone();
    // One member has a slot at a time, although three could by the shares.
    let (mut open, mut most) = (0, 0);
    for event in events.as_array().unwrap().iter().filter(|event| event["deploy"] == last) {
        match event["kind"].as_str().unwrap() {
            "granted" => open += 1,
            "proven" => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    assert_eq!(most, 1, "{events:#}");

    folder.change("baton.toml", "never_more_than = 4", "never_more_than = 3");
    folder.write("VERSION", "3");
    assert_eq!(fleet.deploy(&folder, &["--detach"]), Some(0));
    let waits = wait_for("the limit to be told", || {
        let status = fleet.status();
        (status["waits_code"] == "limited").then(|| status["waits"].as_str().unwrap().to_owned())
    });
    assert!(waits.contains("never_more_than is 3"), "{waits}");
}
