//! A member that knows control by a name, and nobody who says reliably where that is.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::boot::{Folder, binary, free_address};
use crate::wait::wait_for;

/// Control, and a member with names of its own. Both end with the value.
struct Named {
    folder: Folder,
    port: u16,
    server: Option<(SocketAddr, Child)>,
    member: Option<Child>,
}

impl Named {
    fn new() -> Self {
        let named = Self { folder: Folder::empty(), port: free_address().port(), server: None, member: None };
        named.resolve("");
        // Where nobody answers, and nobody says so either.
        named.folder.write("resolv.conf", "nameserver 127.0.0.77\n");
        named
    }

    /// The member's names lead there from now on; to nobody, if that is empty.
    fn resolve(&self, address: &str) {
        let line = if address.is_empty() { String::new() } else { format!("{address} control.test\n") };
        self.folder.write("hosts", &line);
    }

    /// Control ends where it was, and is there from now on.
    fn move_control(&mut self, host: &str) {
        self.end_control();
        let address: SocketAddr = format!("{host}:{}", self.port).parse().unwrap();
        let child = Command::new(binary("baton"))
            .args(["server", "--name", "control.test", "--listen", &address.to_string(), "--data"])
            .arg(self.folder.path().join("control"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some((address, child));
        wait_for("control to answer", || self.baton(&["status"]).status.success().then_some(()));
    }

    fn end_control(&mut self) {
        if let Some((_, mut child)) = self.server.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn baton(&self, arguments: &[&str]) -> Output {
        let (address, _) = self.server.as_ref().unwrap();
        Command::new(binary("baton"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("BATON_SERVER", format!("https://{address}"))
            .env("BATON_TOKEN_FILE", self.folder.path().join("control/admin.token"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn start_member(&mut self) {
        let token = self.baton(&["token", "join", "--service", "web"]);
        let token = String::from_utf8(token.stdout).unwrap();
        let path = |name: &str| self.folder.path().join(name);
        let own = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && exec \"$3\"";
        let said = std::fs::File::create(path("member.log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", own, "sh"])
            .args([path("hosts"), path("resolv.conf"), binary("baton-boot")])
            .env("BATON_SERVER", format!("https://control.test:{}", self.port))
            .env("BATON_SERVICE", "web")
            .env("BATON_MEMBER", "web-1")
            .env("BATON_STATE_DIR", path("member"))
            .env("BATON_TOKEN", token.trim())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        self.member = Some(child);
    }

    fn wait_for_member(&self, when: &str) {
        wait_for(&format!("the member to be heard {when}"), || {
            let output = self.baton(&["members", "--service", "web", "--output", "json"]);
            let found: Value = serde_json::from_slice(&output.stdout).ok()?;
            (found[0]["presence"] == "live").then_some(())
        });
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.end_control();
        if let Some(mut member) = self.member.take() {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

#[test]
fn f56_a_member_finds_control_where_its_name_leads_now_and_where_it_led_when_nobody_says() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: only root can give a process names of its own");
    }
    // It takes what is asked, and says nothing.
    let Ok(_silent) = UdpSocket::bind("127.0.0.77:53") else {
        return eprintln!("not run: somebody else answers for names here");
    };
    let mut named = Named::new();
    named.move_control("127.0.0.1");
    named.start_member();
    wait_for("the member to look in vain", || {
        let said = std::fs::read_to_string(named.folder.path().join("member.log")).unwrap();
        said.contains("without control").then_some(())
    });
    named.resolve("127.0.0.1");
    named.wait_for_member("once its name is known");

    named.resolve("");
    named.move_control("127.0.0.1");
    named.wait_for_member("where it was, while nobody says where that is");

    named.resolve("127.0.0.3");
    named.move_control("127.0.0.1");
    named.wait_for_member("where it was, while its name leads to nobody");

    named.resolve("127.0.0.2");
    named.move_control("127.0.0.2");
    named.wait_for_member("where it is now");
}
