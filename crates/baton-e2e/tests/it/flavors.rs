//! One directory, and several fleets that run it in their own way.

use crate::boot::Folder;
use crate::fleet::Fleet;
use crate::wait::wait_for;

#[test]
fn the_flavors_of_a_directory_are_fleets_of_their_own_and_one_command_deploys_them_in_an_order() {
    let mut fleet = Fleet::of_workers("web", 1);
    fleet.service = "web.taskworker";
    fleet.add_member();
    wait_for("the member of the flavor", || {
        fleet.members_now().iter().any(|member| member["presence"] == "live").then_some(())
    });
    let folder = Folder::empty();
    let told = |name: &str| fleet.path(name).display().to_string();
    let settings = format!(
        "service = \"web\"\n[run]\ncommand = [\"sh\", \"-c\", \"echo $MODE > {}; exec sleep 1000\"]\n\
         [env]\nMODE = \"serves\"\n[rollout]\npolicy = \"fast\"\nbake = \"0s\"\n\
         [flavor.taskworker]\nrun.command = [\"sh\", \"-c\", \"echo $MODE > {}; exec sleep 1000\"]\n\
         env.MODE = \"works\"\n",
        told("web"),
        told("taskworker")
    );
    folder.write("baton.toml", &settings);
    let both = fleet.baton_in(folder.path(), &["deploy", ".", "then", ".@taskworker"]);
    assert!(both.status.success(), "{both:?}");
    let said = |name: &str| std::fs::read_to_string(told(name)).unwrap_or_default();
    assert_eq!((said("web").trim(), said("taskworker").trim()), ("serves", "works"));
    let of = |service: &str| {
        let deploy = fleet.json(&["status", service])["deploy"].clone();
        (deploy["epoch"].clone(), deploy["release"].clone())
    };
    let (web, first) = (of("web"), of("web.taskworker"));
    assert_ne!(web.1, first.1, "how it is run is part of a release");

    // The flavor goes on alone.
    folder.write("baton.toml", &settings.replace("\"works\"", "\"works harder\""));
    let one = fleet.baton_in(folder.path(), &["deploy", "@taskworker"]);
    assert!(one.status.success(), "{one:?}");
    assert_eq!((said("web").trim(), said("taskworker").trim()), ("serves", "works harder"));
    assert_eq!(of("web"), web, "nobody else has noticed");
    let second = of("web.taskworker");
    assert_eq!((second.0, first.0), (2.into(), 1.into()));
}
