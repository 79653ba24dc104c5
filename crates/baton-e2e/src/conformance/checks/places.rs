//! Places where not everything is there that inits are used to.

use crate::conformance::check::{Check, Outcome};
use crate::conformance::look;
use crate::conformance::run::{FOLDER, Setting, Streams};

/// Nobody reads, or there is nothing to write to.
pub const CLOSED_OUTPUT: Check = Check {
    name: "closed-output",
    proves: "output that nobody reads, or that is closed, neither ends the program nor holds it up",
    matters: "a log driver that has gone away must not take the service with it",
    quick: true,
    run: |bench| {
        let unread = Setting { streams: Streams::Unread, ..Setting::default() };
        let closed = Setting { before: vec!["sh", "-c", "exec \"$@\" >&-", "sh"], ..Setting::default() };
        for setting in [unread, closed] {
            let mut run = bench.nasty_with(&["write", "1000000"], setting)?;
            run.wait_for_line("written")?;
            run.end()?;
        }
        Ok(Outcome::passed(""))
    },
};

/// Makes everything but the run's folder read-only and becomes an ordinary user without any right, for good.
/// Output is the user's, as engines of containers have it.
const SEAL: &str = "set -e
chown -R 65534 \"$1\"
chown 65534 /dev/fd/1 /dev/fd/2
mount --bind \"$1\" \"$1\"
cd \"$1\"
shift
for place in / /tmp /var /run /dev/shm; do
    mountpoint -q $place && mount -o remount,bind,ro $place
done
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all \\
    --no-new-privs -- \"$@\"";

/// The least that a container may have.
pub const SEALED: Check = Check {
    name: "sealed",
    proves: "it runs and stops a program as an ordinary user without capabilities on a read-only file system",
    matters: "this is what hardened clusters demand of every container",
    quick: true,
    run: |bench| {
        if !rustix::process::geteuid().is_root() {
            return Ok(Outcome::not_applicable("only root can make such a place here"));
        }
        // Nothing may be left for it to write to: neither a folder of its own nor one for temporary files.
        let before = vec!["env", "--unset=BATON_STATE_DIR", "sh", "-c", SEAL, "sh", FOLDER];
        let mut run = bench.nasty_with(&["listen", "1", "0"], Setting { before, ..Setting::default() })?;
        run.wait_for_line("up")?;
        let init = run.init()?.pid;
        let is = |name, value: &str| look::status(init, name).is_some_and(|found| found.starts_with(value));
        anyhow::ensure!(
            is("Uid", "65534") && is("CapBnd", "0000000000000000") && is("NoNewPrivs", "1"),
            "the place is not sealed"
        );
        // With which code is another check's business.
        run.stop()?;
        Ok(Outcome::passed(""))
    },
};
